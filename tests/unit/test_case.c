#include "worker/case.h"

#include "common/rng.h"
#include "tests/support/tmp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One linear layer on 1x2x2 images, 3 classes, T = 2, B = 2: small enough to write down. */
static const char CASE[] =
    "{\"mode\":\"direct\",\"image\":[1,2,2],\"classes\":3,\"batch\":2,\"T\":2,\"meta_batch\":2,\"soft_labels\":false,"
    "\"learner\":[{\"type\":\"flatten\"},{\"type\":\"linear\",\"in\":4,\"out\":3}],"
    "\"inputs\":[\"w0.1.weight\",\"w0.1.bias\",\"x\",\"y\",\"lr\",\"mu\",\"X\",\"Y\"],"
    "\"outputs\":[\"grad.lr\",\"out.meta_loss\",\"out.wT.1.weight\",\"grad.x\",\"grad.w0.1.bias\",\"out.logits\"]}";

struct box {
    float   w[12], b[3], x[16], lr[2], mu[2], X[8];
    int32_t y[4], Y[2];
    struct st_tensor t[16];
    int     n;
};

static void add(struct box *b, const char *name, enum st_dtype type, const void *data, int ndim, const int *dim)
{
    struct st_tensor *t = &b->t[b->n++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = type;
    t->ndim = ndim;
    t->count = 1;
    for (int i = 0; i < ndim; i++)
        t->count *= t->dim[i] = (uint64_t)dim[i];
    t->bytes = t->count * 4;
    t->data = data;
}

static void fill(struct box *b)
{
    struct rng r;
    memset(b, 0, sizeof *b);
    rng_init(&r, 1, RNG_TEST, 0);
    float *const all[] = { b->w, b->b, b->x, b->X };
    const int n[] = { 12, 3, 16, 8 };
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < n[k]; i++)
            all[k][i] = (float)rng_normal(&r);
    for (int i = 0; i < 4; i++)
        b->y[i] = i % 3;
    b->Y[0] = 2;
    b->Y[1] = 1;
    b->lr[0] = 0.1f;
    b->lr[1] = 0.2f;
    b->mu[1] = 0.5f;
    add(b, "w0.1.weight", ST_F32, b->w, 2, (int[]){ 3, 4 });
    add(b, "w0.1.bias", ST_F32, b->b, 1, (int[]){ 3 });
    add(b, "x", ST_F32, b->x, 5, (int[]){ 2, 2, 1, 2, 2 });
    add(b, "y", ST_I32, b->y, 2, (int[]){ 2, 2 });
    add(b, "lr", ST_F32, b->lr, 1, (int[]){ 2 });
    add(b, "mu", ST_F32, b->mu, 1, (int[]){ 2 });
    add(b, "X", ST_F32, b->X, 4, (int[]){ 2, 1, 2, 2 });
    add(b, "Y", ST_I32, b->Y, 1, (int[]){ 2 });
}

static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    assert_non_null(at);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

/* Load and compute; -1 … as the functions return, the message in e. */
static int compute(void **state, struct gcase *c, const char *json, const struct box *b, int threads, struct errbuf *e)
{
    const char *j = tmp_path(*state, "case.json"), *t = tmp_path(*state, "tensors.st");
    *e = (struct errbuf){ 0 };
    assert_int_equal(eng_init(NULL, NULL), 0);
    tmp_write(j, json, strlen(json));
    assert_int_equal(st_write(t, b->t, b->n, NULL, 0, NULL), 0);
    int rc = case_load(c, j, t, e);
    return rc < 0 ? rc : case_compute(c, threads, NULL, e);
}

static bool quiet_report(const struct gcase *c, char **text)
{
    size_t n;
    FILE *f = open_memstream(text, &n);
    bool ok = case_report(c, f);
    fclose(f);
    return ok;
}

static const struct st_tensor *output(const struct gcase *c, const char *name)
{
    for (int i = 0; i < c->n_out; i++)
        if (strcmp(c->out[i].name, name) == 0)
            return &c->out[i];
    fail_msg("no output %s", name);
    return NULL;
}

/* The loss of the meta batch after two steps, in double and written out. */
static double by_hand(const struct box *b)
{
    double w[15], v[15] = { 0 }, loss = 0;
    for (int i = 0; i < 12; i++)
        w[i] = (double)b->w[i];
    for (int i = 0; i < 3; i++)
        w[12 + i] = (double)b->b[i];
    for (int t = 0; t <= 2; t++) {
        double g[15] = { 0 };
        const float *x = t < 2 ? b->x + 8 * t : b->X;
        const int32_t *y = t < 2 ? b->y + 2 * t : b->Y;
        loss = 0;
        for (int i = 0; i < 2; i++) {
            double s[3], sum = 0;
            for (int k = 0; k < 3; k++) {
                s[k] = w[12 + k];
                for (int d = 0; d < 4; d++)
                    s[k] += w[4 * k + d] * (double)x[4 * i + d];
                sum += exp(s[k]);
            }
            loss += (log(sum) - s[y[i]]) / 2;
            for (int k = 0; k < 3; k++) {
                double ds = (exp(s[k]) / sum - (k == y[i])) / 2;
                g[12 + k] += ds;
                for (int d = 0; d < 4; d++)
                    g[4 * k + d] += ds * (double)x[4 * i + d];
            }
        }
        for (int i = 0; i < 15 && t < 2; i++) {
            v[i] = (double)b->mu[t] * v[i] + g[i];
            w[i] -= (double)b->lr[t] * v[i];
        }
    }
    return loss;
}

static void the_meta_loss_is_that_of_the_sum_written_out(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    fill(&b);
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), 0);
    assert_true(fabs((double)*(const float *)output(&c, "out.meta_loss")->data - by_hand(&b)) < 1e-6);
    case_fini(&c);
}

static void the_gradient_of_a_step_size_agrees_with_differences(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    fill(&b);
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), 0);
    double got = (double)((const float *)output(&c, "grad.lr")->data)[0], f[2];
    for (int s = 0; s < 2; s++) {
        struct box moved = b;
        moved.lr[0] += s ? -0.001f : 0.001f;
        f[s] = by_hand(&moved);
    }
    assert_true(fabs(got - (f[0] - f[1]) / 0.002) < 1e-4);
    case_fini(&c);
}

static void outputs_come_sorted_and_without_reference_do_not_fail(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    char *text;
    fill(&b);
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), 0);
    assert_int_equal(c.n_out, 6);
    for (int i = 1; i < c.n_out; i++)
        assert_true(strcmp(c.out[i - 1].name, c.out[i].name) < 0);
    assert_true(quiet_report(&c, &text));
    assert_non_null(strstr(text, "grad.x no-reference\n"));
    assert_non_null(strstr(text, "worst err/tol="));
    free(text);
    case_fini(&c);
}

static void a_reference_that_is_off_fails(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    char *text;
    float loss;
    for (int wrong = 0; wrong < 3; wrong++) {
        fill(&b);
        loss = (float)by_hand(&b) * (wrong == 1 ? 1.0001f : 1);
        if (wrong == 2)
            loss = NAN;
        add(&b, "out.meta_loss", ST_F32, &loss, 1, (int[]){ 1 });
        assert_int_equal(compute(state, &c, CASE, &b, 1, &e), 0);
        assert_int_equal(quiet_report(&c, &text), wrong == 0);
        assert_non_null(strstr(text, wrong ? " FAIL\n" : " ok\n"));
        free(text);
        case_fini(&c);
    }
}

static void the_file_has_the_same_bytes_for_any_number_of_threads(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    char *bytes[2];
    size_t n[2];
    fill(&b);
    for (int k = 0; k < 2; k++) {
        const char *path = tmp_path(*state, "out%d.st", k);
        assert_int_equal(compute(state, &c, CASE, &b, 1 + 2 * k, &e), 0);
        assert_int_equal(case_write(&c, path, &e), 0);
        bytes[k] = tmp_read(path, &n[k]);
        case_fini(&c);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void divergence_is_not_within_tolerance(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    char *text;
    fill(&b);
    b.lr[0] = 3e38f;
    b.x[0] = 3e38f;
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), 0);
    assert_true(c.diverged);
    assert_false(quiet_report(&c, &text));
    free(text);
    case_fini(&c);
}

static void what_is_wrong_in_a_case_is_named(void **state)
{
    const struct { const char *from, *to, *named; } rows[] = {
        { "\"T\":2", "\"T\":2,\"colour\":1", "colour" },
        { "\"T\":2", "\"T\":0", "T" },
        { "\"T\":2", "\"T\":2.5", "T" },
        { "\"T\":2,", "", "T" },
        { "\"direct\"", "\"sideways\"", "mode" },
        { "\"flatten\"", "\"flattten\"", "flattten" },
        { "\"in\":4", "\"in\":4,\"out_of\":1", "out_of" },
        { "\"in\":4", "\"in\":5", "learner" },
        { "\"out\":3", "\"out\":4", "learner" },
        { "\"image\":[1,2,2]", "\"image\":[1,2]", "image" },
        { "\"soft_labels\":false", "\"soft_labels\":1", "soft_labels" },
        { "\"soft_labels\":false", "\"soft_labels\":true", "y" },
        { "\"mu\",", "", "mu" },
        { "\"lr\",", "\"lr\",\"z\",", "z" },
        { "\"grad.lr\"", "\"grad.z\"", "grad.z" },
        { "\"grad.lr\"", "\"grad.x\"", "grad.x" },
        { "\"T\":2", "\"T\":2,\"meta_at\":[[3,0.5]]", "meta_at[0]" },
        { "\"T\":2", "\"T\":2,\"inner\":{\"type\":\"sgdd\"}", "inner" },
        { "\"T\":2", "\"T\":2,\"zdim\":4", "zdim" },
        { "\"T\":2", "\"T\":65536", "tensor x" }, /* before room is made for it */
        { "\"T\":2", "\"T\":99999999999999999999", "integer" },
        { "\"T\":2", "\"T\":-1", "T" },
        { "\"batch\":2", "\"batch\":65536", "tensor x" },
        { "\"batch\":2", "\"batch\":\"2\"", "batch" },
        { "\"meta_batch\":2", "\"meta_batch\":65536", "tensor X" },
        { "\"image\":[1,2,2]", "\"image\":[0,2,2]", "image[0]" },
        { "\"image\":[1,2,2]", "\"image\":[65536,65536,65536]", "input" },
        { "\"image\":[1,2,2]", "\"image\":{}", "image" },
        { "\"classes\":3", "\"classes\":4", "4 classes" },
        { "{\"type\":\"flatten\"},", "{\"type\":\"maxpool\",\"k\":3},{\"type\":\"flatten\"},", "learner 0: maxpool: the kernel reaches over 3" },
        { "\"in\":4,\"out\":3", "\"in\":4,\"out\":65536},{\"type\":\"linear\",\"in\":65536,\"out\":3", "tensor w0.1.weight" },
        { "\"learner\":[", "\"learner\":[7,", "learner 0: a layer must be an object" },
        { "\"learner\":[", "\"generator\":[],\"learner\":[", "generator" },
        { "\"T\":2", "\"T\":2,\"T\":2", "duplicate" },
        { "\"T\":2", "\"T\":2,\"learner_params\":[]", "learner_params" },
    };
    struct box b;
    fill(&b);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gcase c;
        struct errbuf e;
        char *json = replaced(CASE, rows[i].from, rows[i].to);
        int rc = compute(state, &c, json, &b, 1, &e);
        if (rc != -ERR_INPUT && rc != -ERR_SHAPE)
            fail_msg("%s instead of %s gave %s", rows[i].to, rows[i].from, err_name(rc));
        if (!strstr(e.text, rows[i].named))
            fail_msg("%s: the message does not name %s: %s", rows[i].to, rows[i].named, e.text);
        case_fini(&c);
        free(json);
    }
}

static void tensors_that_do_not_fit_are_named(void **state)
{
    struct box b;
    struct gcase c;
    struct errbuf e;
    fill(&b);
    b.y[3] = 3;
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "label 3 is 3"));
    case_fini(&c);
    fill(&b);
    b.n--; /* Y is missing */
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "Y"));
    case_fini(&c);
    fill(&b);
    b.t[2].dim[0] = 1;
    b.t[2].count = 8;
    b.t[2].bytes = 32;
    assert_int_equal(compute(state, &c, CASE, &b, 1, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "x"));
    case_fini(&c);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_meta_loss_is_that_of_the_sum_written_out),
        TEST(the_gradient_of_a_step_size_agrees_with_differences),
        TEST(outputs_come_sorted_and_without_reference_do_not_fail),
        TEST(a_reference_that_is_off_fails),
        TEST(the_file_has_the_same_bytes_for_any_number_of_threads),
        TEST(divergence_is_not_within_tolerance),
        TEST(what_is_wrong_in_a_case_is_named),
        TEST(tensors_that_do_not_fit_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
