#include "common/curriculum.h"

#include "common/blob.h"
#include "common/safetensors.h"
#include "tests/support/tmp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { T = 3, B = 2, C = 1, H = 4, W = 5, K = 3, N_PIX = T * B * C * H * W, N_LAB = T * B * K };

static uint8_t images[N_PIX];
static float   labels[N_LAB], lr[T], mu[T];

/* A curriculum whose arrays are the static ones above: never fini it. */
static struct curriculum made(void)
{
    for (int i = 0; i < N_PIX; i++)
        images[i] = (uint8_t)(i * 3);
    for (int i = 0; i < N_LAB; i++)
        labels[i] = 0.1f * (float)i - 0.5f; /* soft labels are free: negative, not normalised */
    for (int t = 0; t < T; t++) {
        lr[t] = 0.02f / (float)(t + 1);
        mu[t] = 0.3f * (float)t;
    }
    struct curriculum c = { .T = T, .B = B, .c = C, .h = H, .w = W, .K = K, .images = images, .labels = labels, .lr = lr, .mu = mu };
    c.inner = (struct inner_cfg){ .type = INNER_LARS, .eps = 1e-5, .scale_1d = 0.25, .weight_decay = 1e-4 };
    snprintf(c.provenance, sizeof c.provenance, "{\"job\":\"t\",\"seed\":7,\"dataset_hash\":\"abc\"}");
    return c;
}

static const char *path_of(void **state) { return tmp_path(*state, "c.st"); }

static void what_was_saved_is_loaded_with_its_inner_optimiser_and_provenance(void **state)
{
    struct curriculum a = made(), b;
    struct errbuf e = { 0 };
    assert_int_equal(curriculum_save(&a, path_of(state), &e), 0);
    assert_int_equal(curriculum_load(&b, path_of(state), &e), 0);
    assert_int_equal(b.T, T);
    assert_int_equal(b.B, B);
    assert_int_equal(b.c, C);
    assert_int_equal(b.h, H);
    assert_int_equal(b.w, W);
    assert_int_equal(b.K, K);
    assert_memory_equal(a.images, b.images, sizeof images);
    assert_memory_equal(a.labels, b.labels, sizeof labels);
    assert_memory_equal(a.lr, b.lr, sizeof lr);
    assert_memory_equal(a.mu, b.mu, sizeof mu);
    assert_int_equal(b.inner.type, INNER_LARS);
    assert_true(b.inner.eps == 1e-5 && b.inner.scale_1d == 0.25 && b.inner.weight_decay == 1e-4);
    assert_string_equal(a.provenance, b.provenance);
    curriculum_fini(&b);
}

static void save_and_load_agree_on_the_hash_and_it_is_that_of_the_file(void **state)
{
    struct curriculum a = made(), b;
    hash_str h;
    assert_int_equal(curriculum_save(&a, path_of(state), NULL), 0);
    assert_int_equal(curriculum_load(&b, path_of(state), NULL), 0);
    assert_int_equal(hash_file(path_of(state), h, NULL), 0);
    assert_string_equal(a.hash, h);
    assert_string_equal(b.hash, h);
    curriculum_fini(&b);
}

static void saving_twice_gives_the_same_hash_and_another_pixel_another(void **state)
{
    struct curriculum a = made(), b = made();
    assert_int_equal(curriculum_save(&a, path_of(state), NULL), 0);
    assert_int_equal(curriculum_save(&b, tmp_path(*state, "d.st"), NULL), 0);
    assert_string_equal(a.hash, b.hash);
    images[5] ^= 1;
    assert_int_equal(curriculum_save(&b, tmp_path(*state, "d.st"), NULL), 0);
    assert_string_not_equal(a.hash, b.hash);
}

static void classes_are_counted_by_their_labels(void **state)
{
    (void)state;
    struct curriculum a = made();
    double sums[K];
    labels[K] = 9; /* image 1 of step 0: class 0, by far */
    labels[2 * K + 1] = labels[2 * K + 2] = 5; /* image 0 of step 1: two are largest */
    assert_int_equal(curriculum_class(&a, 0, 0), 2);
    assert_int_equal(curriculum_class(&a, 0, 1), 0);
    assert_int_equal(curriculum_class(&a, 1, 0), 1);
    for (int from = 0; from < T; from++)
        for (int to = from; to <= T; to++) {
            curriculum_class_sums(&a, from, to, sums);
            for (int k = 0; k < K; k++) {
                double want = 0;
                for (int i = from * B; i < to * B; i++)
                    want += (double)labels[i * K + k];
                assert_true(fabs(sums[k] - want) < 1e-9);
            }
        }
}

static void the_file_names_its_dataset_for_other_tools(void **state)
{
    struct curriculum a = made();
    struct st_file f;
    assert_int_equal(curriculum_save(&a, path_of(state), NULL), 0);
    assert_int_equal(st_open(&f, path_of(state), NULL), 0);
    assert_string_equal(st_meta(&f, "dataset"), "abc");
    assert_string_equal(st_meta(&f, "format"), "didact-curriculum-1");
    st_close(&f);
}

static void values_that_cannot_be_trained_on_are_refused_by_save_and_leave_no_file(void **state)
{
    static const struct { float *at; float value; const char *says; } cases[] = {
        { &labels[B * K + 1], NAN, "labels of step 1" }, { &labels[0], INFINITY, "labels of step 0" },
        { &lr[2], NAN, "lr of step 2" },  { &lr[1], -0.1f, "lr of step 1" }, { &lr[0], INFINITY, "lr of step 0" },
        { &mu[1], 1.5f, "mu of step 1" }, { &mu[0], -0.1f, "mu of step 0" }, { &mu[2], NAN, "mu of step 2" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct curriculum a = made();
        struct errbuf e = { 0 };
        *cases[i].at = cases[i].value;
        assert_int_equal(curriculum_save(&a, path_of(state), &e), -ERR_INPUT);
        assert_non_null(strstr(e.text, cases[i].says));
        assert_non_null(strstr(e.text, "c.st"));
    }
    assert_int_equal(tmp_count(((struct tmp *)*state)->dir), 0);
}

static void provenance_that_is_not_json_is_refused(void **state)
{
    struct curriculum a = made();
    struct errbuf e;
    snprintf(a.provenance, sizeof a.provenance, "trained on Monday");
    assert_int_equal(curriculum_save(&a, path_of(state), &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "provenance"));
}

/* The sample's tensors and metadata with one change, written without curriculum_save. */
struct parts {
    struct st_tensor t[4];
    const char      *meta[6];
    int              n_meta;
};

static struct parts parts_of(void)
{
    made();
    return (struct parts){
        .t = { { .name = "images", .dtype = ST_U8, .ndim = 5, .dim = { T, B, C, H, W }, .data = images },
               { .name = "labels", .dtype = ST_F32, .ndim = 3, .dim = { T, B, K }, .data = labels },
               { .name = "lr", .dtype = ST_F32, .ndim = 1, .dim = { T }, .data = lr },
               { .name = "mu", .dtype = ST_F32, .ndim = 1, .dim = { T }, .data = mu } },
        .meta = { "format", "didact-curriculum-1", "inner", "{\"type\":\"sgd\"}", "provenance", "{}" }, .n_meta = 3 };
}

static void load_fails(void **state, const struct parts *p, enum err code, const char *says)
{
    struct curriculum c;
    struct errbuf e = { 0 };
    assert_int_equal(st_write(path_of(state), p->t, 4, p->meta, p->n_meta, NULL), 0);
    int rc = curriculum_load(&c, path_of(state), &e);
    if (rc != -(int)code || !strstr(e.text, says) || !strstr(e.text, "c.st"))
        fail_msg("rc %d, \"%s\" does not say \"%s\"", rc, e.text, says);
    assert_null(c.images);
}

static void a_file_without_faults_loads(void **state)
{
    struct parts p = parts_of();
    struct curriculum c;
    assert_int_equal(st_write(path_of(state), p.t, 4, p.meta, p.n_meta, NULL), 0);
    assert_int_equal(curriculum_load(&c, path_of(state), NULL), 0);
    assert_int_equal(c.inner.type, INNER_SGD);
    curriculum_fini(&c);
}

static void another_or_newer_format_is_refused(void **state)
{
    struct parts p = parts_of();
    p.meta[1] = "didact-curriculum-2";
    load_fails(state, &p, ERR_VERSION, "didact-curriculum-2");
    p.meta[1] = "didact-dataset-1";
    load_fails(state, &p, ERR_INPUT, "not a curriculum");
    p.n_meta = 0;
    load_fails(state, &p, ERR_INPUT, "not a curriculum");
}

static void shapes_that_do_not_agree_are_refused_naming_the_tensor(void **state)
{
    struct parts p = parts_of();
    p.t[1].dim[0] = T - 1;
    load_fails(state, &p, ERR_INPUT, "tensor labels is F32 [2,2,3], expected F32 [3,2,*]");
    p = parts_of();
    p.t[2].dim[0] = T - 1;
    load_fails(state, &p, ERR_INPUT, "tensor lr");
    p = parts_of();
    p.t[3].dtype = ST_I32;
    load_fails(state, &p, ERR_INPUT, "tensor mu");
    p = parts_of();
    p.t[0].ndim = 4;
    load_fails(state, &p, ERR_INPUT, "tensor images");
    p = parts_of();
    p.t[1].dim[2] = 1;
    load_fails(state, &p, ERR_INPUT, "classes 1");
    p = parts_of();
    p.t[0].dim[2] = 0;
    load_fails(state, &p, ERR_INPUT, "channels 0");
    p = parts_of();
    for (int i = 0; i < 4; i++)
        p.t[i].dim[0] = 0;
    load_fails(state, &p, ERR_INPUT, "0 steps");
}

static void bad_values_in_a_file_are_refused_too(void **state)
{
    struct parts p = parts_of();
    mu[1] = 2;
    load_fails(state, &p, ERR_INPUT, "mu of step 1");
    p = parts_of();
    labels[0] = NAN;
    load_fails(state, &p, ERR_INPUT, "labels of step 0");
}

static void bad_metadata_is_refused_naming_the_key(void **state)
{
    struct parts p = parts_of();
    char big[3000];
    p.meta[3] = "{\"type\":";
    load_fails(state, &p, ERR_INPUT, "inner");
    p.meta[3] = "{\"type\":\"magic\"}";
    load_fails(state, &p, ERR_INPUT, "inner");
    p = parts_of();
    p.meta[2] = "outer";
    load_fails(state, &p, ERR_INPUT, "inner is missing");
    p = parts_of();
    memset(big, ' ', sizeof big - 1);
    big[sizeof big - 1] = 0;
    p.meta[5] = big;
    load_fails(state, &p, ERR_INPUT, "provenance");
}

static void a_truncated_file_is_refused_wherever_it_ends(void **state)
{
    struct curriculum a = made(), b;
    size_t n;
    assert_int_equal(curriculum_save(&a, path_of(state), NULL), 0);
    char *s = tmp_read(path_of(state), &n);
    for (size_t k = 0; k < n; k += 3) {
        tmp_write(tmp_path(*state, "cut.st"), s, k);
        assert_int_equal(curriculum_load(&b, tmp_path(*state, "cut.st"), NULL), -ERR_INPUT);
    }
    free(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_saved_is_loaded_with_its_inner_optimiser_and_provenance),
        TEST(save_and_load_agree_on_the_hash_and_it_is_that_of_the_file),
        TEST(saving_twice_gives_the_same_hash_and_another_pixel_another),
        TEST(classes_are_counted_by_their_labels),
        TEST(the_file_names_its_dataset_for_other_tools),
        TEST(values_that_cannot_be_trained_on_are_refused_by_save_and_leave_no_file),
        TEST(provenance_that_is_not_json_is_refused),
        TEST(a_file_without_faults_loads),
        TEST(another_or_newer_format_is_refused),
        TEST(shapes_that_do_not_agree_are_refused_naming_the_tensor),
        TEST(bad_values_in_a_file_are_refused_too),
        TEST(bad_metadata_is_refused_naming_the_key),
        TEST(a_truncated_file_is_refused_wherever_it_ends),
    };
    return cmocka_run_group_tests_name("curriculum", tests, NULL, NULL);
}
