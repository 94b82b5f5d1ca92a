#include "common/book.h"
#include "common/csv.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct book_row sample(void)
{
    struct book_row b = { .space = "chain", .arch_hash = "00112233445566778899aabbccddeeff", .seed = UINT64_MAX - 3, .engine = "1",
                          .arch = "bn relu | c8k3, \"x\" | flat" };
    const struct fidelity f = { .steps = 32, .inits = 2, .valid_images = 2000, .n_checkpoints = 2, .checkpoint = { 8, 16 }, .n_lr_scales = 2,
                                .lr_scale = { 1, 0.1 } };
    memset(b.dataset, 'a', HASH_HEX_LEN);
    memset(b.curriculum, 'b', HASH_HEX_LEN);
    book_fidelity(&f, 1u << ZC_NASWOT | 1u << ZC_SYNFLOW, b.fidelity);
    b.r = (struct trial_result){ .state = TRIAL_SCORED, .score = 0.1 + 0.2, .score_se = 1.0 / 3, .n_inits = 2, .init_score = { 0.1, 1e-300 },
                                 .n_checkpoints = 2, .checkpoint = { 8, 16 }, .checkpoint_score = { 0.25, M_PI }, .loss_sum = 1e17 + 2,
                                 .lr_scale = 0.1, .params = 1ull << 40, .macs = 7, .seconds = 2.5,
                                 .zero_cost = { 1u << ZC_SYNFLOW, { [ZC_SYNFLOW] = 1e300 / 3 } } };
    return b;
}

/* The two lines of a book with this row, without their ends. */
static void written(const struct book_row *b, unsigned measured, char **header, char **row)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    book_write_header(f, measured);
    book_write_row(f, b, measured);
    fclose(f);
    char *save = NULL;
    *header = strdup(strtok_r(text, "\n", &save));
    *row = strdup(strtok_r(NULL, "\n", &save));
    free(text);
}

static int reread(const char *header, const char *row, struct book_row *out, struct errbuf *e)
{
    struct book_columns c;
    char *h = strdup(header), *r = strdup(row);
    int rc = book_read_header(h, &c, e);
    if (rc == 0)
        rc = book_read_row(&c, r, out, e);
    free(h);
    free(r);
    return rc;
}

static void a_row_comes_back_bit_for_bit(void **state)
{
    (void)state;
    struct book_row a = sample(), b;
    char *h, *r, ka[BOOK_KEY_LEN + 1], kb[BOOK_KEY_LEN + 1];
    written(&a, BOOK_SECONDS, &h, &r);
    assert_int_equal(reread(h, r, &b, NULL), 0);
    assert_true(book_same(&a.r, &b.r) && b.r.seconds == 2.5);
    assert_string_equal(a.arch, b.arch);
    assert_string_equal(b.fidelity, "steps=32 inits=2 valid_images=2000 checkpoints=8,16 lr_scales=1,0.10000000000000001 zero_cost=synflow,naswot");
    book_key(&a, ka);
    book_key(&b, kb);
    assert_string_equal(ka, kb);
    free(h);
    free(r);
}

static void what_was_measured_is_read_and_no_part_of_the_row(void **state)
{
    (void)state;
    struct book_row a = sample(), b;
    char *h, *r;
    a.r.latency_ms = 0.5;
    written(&a, BOOK_SECONDS | BOOK_LATENCY, &h, &r);
    assert_string_equal(h + strlen(h) - strlen(",seconds,latency_ms"), ",seconds,latency_ms");
    assert_int_equal(reread(h, r, &b, NULL), 0);
    assert_true(b.r.seconds == 2.5 && b.r.latency_ms == 0.5);
    b.r.latency_ms = 7;
    assert_true(book_same(&a.r, &b.r));
    free(h);
    free(r);
    a.r.latency_ms = 0; /* of a row that was not measured */
    written(&a, BOOK_LATENCY, &h, &r);
    assert_int_equal(reread(h, r, &b, NULL), 0);
    assert_true(b.r.latency_ms == 0);
    free(h);
    free(r);
}

static void a_failed_row_has_a_reason_and_no_score(void **state)
{
    (void)state;
    struct book_row a = sample(), b;
    char *h, *r;
    a.r = (struct trial_result){ .state = TRIAL_FAILED, .reason = FAIL_NAN, .detail = "step 3, of course", .params = 4 };
    written(&a, 0, &h, &r);
    assert_int_equal(reread(h, r, &b, NULL), 0);
    assert_true(book_same(&a.r, &b.r) && book_keeps(&b.r));
    assert_string_equal(b.r.detail, "step 3, of course");
    a.r.reason = FAIL_OOM;
    assert_false(book_keeps(&a.r));
    free(h);
    free(r);
}

static void the_size_of_the_network_is_part_of_the_fidelity(void **state)
{
    (void)state;
    static const struct { struct proxy proxy; const char *text; } row[] = {
        { { 0, 0, 0 }, "steps=1 inits=1 valid_images=5 zero_cost=snip" }, { { 0, 0, 1 }, "steps=1 inits=1 valid_images=5 zero_cost=snip" },
        { { 16, 0, 0 }, "steps=1 inits=1 valid_images=5 channels=16 zero_cost=snip" },
        { { 256, 8, 8 }, "steps=1 inits=1 valid_images=5 channels=256 cells=8 downsample=8 zero_cost=snip" },
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const struct fidelity f = { .steps = 1, .inits = 1, .valid_images = 5, .proxy = row[i].proxy };
        char text[BOOK_FIDELITY_MAX];
        book_fidelity(&f, 1u << ZC_SNIP, text);
        assert_string_equal(text, row[i].text);
    }
}

static void every_field_of_the_key_counts(void **state)
{
    (void)state;
    struct book_row a = sample();
    char key[7][BOOK_KEY_LEN + 1], base[BOOK_KEY_LEN + 1];
    char *text[] = { a.space, a.arch_hash, a.dataset, a.curriculum, a.fidelity, a.engine };
    book_key(&a, base);
    for (int i = 0; i < 6; i++) {
        text[i][0]++;
        book_key(&a, key[i]);
        text[i][0]--;
    }
    a.seed++;
    book_key(&a, key[6]);
    for (int i = 0; i < 7; i++) {
        assert_string_not_equal(key[i], base);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(key[i], key[j]);
    }
}

static void every_number_counts_in_a_comparison(void **state)
{
    (void)state;
    struct trial_result a = sample().r, b = a;
    double *v[] = { &b.score, &b.score_se, &b.init_score[1], &b.checkpoint_score[1], &b.loss_sum, &b.lr_scale, &b.zero_cost.value[ZC_SYNFLOW] };
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        const double was = *v[i];
        *v[i] = nextafter(was, INFINITY);
        assert_false(book_same(&a, &b));
        *v[i] = was;
        assert_true(book_same(&a, &b));
    }
    b.seconds = 99; /* measured, not computed */
    assert_true(book_same(&a, &b));
}

static void bad_books_are_refused_with_the_column(void **state)
{
    (void)state;
    static const struct { const char *from, *to, *says; } bad[] = {
        { "0.30000000000000004", "inf", "score: \"inf\"" },      { "0.30000000000000004", "0.3x", "score: \"0.3x\"" },
        { ",scored,", ",running,", "state: \"running\"" },        { ",scored,,", ",scored,nan,", "does not go with" },
        { "8 16", "8", "1 checkpoints but 2 scores" },             { "8 16", "8 -1", "checkpoints: " },
        { "18446744073709551612", "-4", "seed: \"-4\"" },          { ",7,", ",7,7,", "columns" },
        { "\"bn relu", "\"\"bn relu", "a quote does not close" },  { "0.30000000000000004", "", "lacks score" },
    };
    struct book_row a = sample(), b;
    char *h, *r;
    written(&a, 0, &h, &r);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[4096], *at = strstr(r, bad[i].from);
        struct errbuf e = { 0 };
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - r), r, bad[i].to, at + strlen(bad[i].from));
        assert_int_equal(reread(h, text, &b, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.text, bad[i].says);
    }
    struct errbuf e = { 0 };
    assert_int_equal(reread("space,arch", r, &b, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "\"arch_hash\" is missing"));
    assert_int_equal(reread("space,colour", r, &b, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "colour"));
    free(h);
    free(r);
}

static void a_fidelity_is_read_back(void **state)
{
    (void)state;
    struct fidelity f = { .steps = 32, .inits = 2, .valid_images = 2000, .n_checkpoints = 2, .checkpoint = { 8, 16 }, .n_lr_scales = 2, .lr_scale = { 1, 0.1 },
                          .proxy = { .channels = 8, .cells = 1, .downsample = 2 }, .first_init = 3 }, got;
    char text[BOOK_FIDELITY_MAX];
    uint32_t zero_cost;
    book_fidelity(&f, 1u << ZC_NASWOT | 1u << ZC_SYNFLOW, text);
    assert_true(book_fidelity_read(text, &got, &zero_cost));
    assert_memory_equal(&f, &got, sizeof f);
    assert_int_equal(zero_cost, 1u << ZC_NASWOT | 1u << ZC_SYNFLOW);
    static const char *const none[] = { "", "banana", "steps", "steps=", "steps=8", "steps=x inits=1 valid_images=1", "steps=8 inits=1 valid_images=1 ", "steps=8  inits=1 valid_images=1",
                                        "inits=1 steps=8 valid_images=1", "steps=8 inits=1 valid_images=1 colour=3", "steps=8 inits=1 valid_images=1 zero_cost=luck",
                                        "steps=8 inits=1 valid_images=1 checkpoints=1,,2", "steps=8 inits=1 valid_images=1 checkpoints=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
                                        "steps=8 inits=1 valid_images=1 lr_scales=0.10" };
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (book_fidelity_read(none[i], &got, &zero_cost))
            fail_msg("\"%s\" was taken for a fidelity", none[i]);
}

static struct book_row good(void)
{
    struct book_row b = sample();
    b.r.score = 0.25;
    b.r.init_score[0] = 0.2;
    b.r.init_score[1] = 0.3;
    b.r.score_se = 0.05;
    b.r.checkpoint_score[1] = 0.5;
    return b;
}

static void numbers_that_no_worker_can_have_written_are_refused(void **state)
{
    (void)state;
    struct fidelity f;
    struct errbuf e = { 0 };
    struct book_row b = good();
    if (book_check(&b, &f, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(f.steps, 32);
#define BAD(change, says)                                                   \
    do {                                                                    \
        b = good();                                                         \
        change;                                                             \
        assert_int_equal(book_check(&b, &f, &e), -ERR_INPUT);               \
        if (strncmp(e.text, says, strlen(says)) != 0)                       \
            fail_msg("\"%s\" does not begin with \"%s\"", e.text, says);    \
    } while (0)
    BAD(b.r.score = 0.2501, "score: ");
    BAD(b.r.score = b.r.init_score[0] = b.r.init_score[1] = 1.5, "init_scores: 1.5 is no accuracy");
    BAD(b.r.init_score[0] = -0.1, "init_scores: ");
    BAD(b.r.n_inits = 1, "init_scores: 1, but the fidelity has 2");
    BAD(b.r.score_se = 7, "score_se: ");
    BAD(b.r.score_se = 0, "score_se: ");
    BAD(b.r.checkpoint_score[1] = 1.1, "checkpoint_scores: ");
    BAD(b.r.checkpoint[1] = 17, "checkpoints: ");
    BAD(b.r.n_checkpoints = 1, "checkpoints: ");
    BAD(b.r.loss_sum = -1, "loss_sum: ");
    BAD(b.r.lr_scale = 33, "lr_scale: ");
    BAD(b.r.params = 0, "params: ");
    BAD(b.r.macs = 0, "macs: ");
    BAD(b.r.zero_cost.known |= 1u << ZC_SNIP, "zero-cost scores");
    BAD(strcpy(b.fidelity, "banana"), "fidelity: ");
    BAD(strcpy(b.engine, "abc"), "engine: ");
    BAD(strcpy(b.engine, "2/"), "engine: ");
    BAD((b.r.state = TRIAL_FAILED, b.r.reason = FAIL_OOM), "reason: ");
#undef BAD
    b = good();
    strcpy(b.engine, "2/cuda-tf32");
    assert_int_equal(book_check(&b, &f, &e), 0);
}

static void fields_are_taken_apart(void **state)
{
    (void)state;
    char *f[4], a[] = "x,,\"a \"\"b\"\", c\",", b[] = "\"open", c[] = "\"a\"b", d[] = "1,2,3,4,5", empty[] = "";
    assert_int_equal(csv_split(a, f, 4), 4);
    assert_string_equal(f[0], "x");
    assert_string_equal(f[1], "");
    assert_string_equal(f[2], "a \"b\", c");
    assert_string_equal(f[3], "");
    assert_int_equal(csv_split(b, f, 4), -1);
    assert_int_equal(csv_split(c, f, 4), -1);
    assert_int_equal(csv_split(d, f, 4), 5);
    assert_int_equal(csv_split(empty, f, 4), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_comes_back_bit_for_bit),
        cmocka_unit_test(what_was_measured_is_read_and_no_part_of_the_row),
        cmocka_unit_test(a_failed_row_has_a_reason_and_no_score),
        cmocka_unit_test(the_size_of_the_network_is_part_of_the_fidelity),
        cmocka_unit_test(every_field_of_the_key_counts),
        cmocka_unit_test(every_number_counts_in_a_comparison),
        cmocka_unit_test(bad_books_are_refused_with_the_column),
        cmocka_unit_test(a_fidelity_is_read_back),
        cmocka_unit_test(numbers_that_no_worker_can_have_written_are_refused),
        cmocka_unit_test(fields_are_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
