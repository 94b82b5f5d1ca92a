/* What people take away from jobs: fronts, and a job's file written again. */
#include "client/best.h"
#include "client/print.h"
#include "client/verbs.h"
#include "coordinator/docs_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct errbuf e;

/* ---- fronts ---- */

static void add(struct front *f, int trial, const char *hash, double score, int params)
{
    json_t *t = json_pack("{s:i,s:s,s:f,s:i}", "trial", trial, "arch_hash", hash, "score", score, "params", params);
    assert_int_equal(front_add(f, t, &e), 0);
    json_decref(t);
}

static bool has(const struct front *f, int trial)
{
    for (size_t i = 0; i < f->n; i++)
        if (json_integer_value(json_object_get(f->row[i].trial, "trial")) == trial)
            return true;
    return false;
}

static void a_front_keeps_what_nothing_beats(void **state)
{
    (void)state;
    struct front f;
    assert_int_equal(front_init(&f, "score,params", &e), 0);
    add(&f, 0, "a", 0.8, 100);
    add(&f, 1, "b", 0.7, 100); /* worse, and no smaller */
    add(&f, 2, "c", 0.7, 50);
    add(&f, 3, "d", 0.9, 200);
    add(&f, 4, "e", 0.8, 90);  /* beats trial 0 */
    add(&f, 5, "f", 0.9, 200); /* another network, equally good */
    add(&f, 6, "f", 0.9, 200); /* the same once more */
    assert_int_equal(f.n, 4);
    assert_true(has(&f, 2) && has(&f, 3) && has(&f, 4) && has(&f, 5));
    front_sort(&f);
    assert_int_equal(json_integer_value(json_object_get(f.row[0].trial, "trial")), 3);
    assert_int_equal(json_integer_value(json_object_get(f.row[3].trial, "trial")), 2);
    front_fini(&f);
}

/* Against the definition, pair by pair, on drawn rows with many ties. */
static void a_front_is_what_its_definition_says(void **state)
{
    (void)state;
    enum { N = 300 };
    static int score[N], params[N];
    struct front f;
    struct rng r;
    rng_init(&r, 5, RNG_SAMPLE, 0);
    assert_int_equal(front_init(&f, "params,score", &e), 0);
    for (int i = 0; i < N; i++) {
        char hash[16];
        score[i] = (int)rng_below(&r, 40);
        params[i] = (int)rng_below(&r, 40);
        snprintf(hash, sizeof hash, "%d", i);
        add(&f, i, hash, score[i], params[i]);
    }
    for (int i = 0; i < N; i++) {
        bool beaten = false;
        for (int k = 0; k < N; k++)
            beaten |= score[k] >= score[i] && params[k] <= params[i] && (score[k] > score[i] || params[k] < params[i]);
        if (has(&f, i) == beaten)
            fail_msg("trial %d (score %d, %d parameters) is %s", i, score[i], params[i], beaten ? "in the front" : "missing");
    }
    front_fini(&f);
}

static void trials_without_a_value_are_passed_over(void **state)
{
    (void)state;
    struct front f;
    assert_int_equal(front_init(&f, "score,macs", &e), 0);
    add(&f, 0, "a", 0.8, 100); /* has no macs */
    assert_int_equal(f.n, 0);
    front_fini(&f);
}

static void objectives_are_named(void **state)
{
    (void)state;
    struct front f;
    assert_int_equal(front_init(&f, "score,size", &e), -ERR_USAGE);
    assert_non_null(strstr(e.text, "'size'"));
    assert_non_null(strstr(e.text, "mem_bytes"));
    assert_int_equal(front_init(&f, "score,,macs", &e), -ERR_USAGE);
    assert_int_equal(front_init(&f, "score,macs,score", &e), -ERR_USAGE);
    assert_non_null(strstr(e.text, "score is given twice"));
    assert_int_equal(front_init(&f, "", &e), -ERR_USAGE);
}

/* ---- job files ---- */

static void rewritten(struct job_spec *s)
{
    static struct job_spec back;
    char *text = NULL;
    json_t *spec = job_to_json(s), *again;
    assert_int_equal(job_file_text(spec, &text, &e), 0);
    if (jobfile_parse(text, strlen(text), "written", &back, &e) < 0)
        fail_msg("%s\n%s", e.text, text);
    again = job_to_json(&back);
    if (!json_equal(spec, again))
        fail_msg("read back differently:\n%s", text);
    json_decref(spec);
    json_decref(again);
    free(text);
}

static void a_spec_written_as_a_job_file_reads_back_equal(void **state)
{
    (void)state;
    static struct job_spec s;
    static const char *const set[] = { "name=true", "dataset=on", "curriculum=1e5", "searcher.name=evolution", "constraints.max_macs=1.5M",
                                       "fidelity.checkpoints=[2, 5]", "fidelity.lr_scales=[0.3, 1]", "budget.time=90s", "seed=9223372036854775807",
                                       "trial_timeout=0.123456789", "audit.share=0.1", "audit.timeout=30d", "audit.weight_decay=1.7e-5", "racing.inits=[4]", "racing.z=0.00012345678901234567" };
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++) {
        job_defaults(&s, (enum job_kind)kind);
        snprintf(s.dataset, sizeof s.dataset, "fm");
        snprintf(s.curriculum, sizeof s.curriculum, kind == JOB_SEARCH ? "c" : "");
        if (kind == JOB_VERIFY)
            snprintf(s.verify.of, sizeof s.verify.of, "12");
        for (size_t i = 0; kind == JOB_SEARCH && i < sizeof set / sizeof set[0]; i++)
            if (jobfile_set(&s, set[i], &e) < 0)
                fail_msg("%s", e.text);
        rewritten(&s);
    }
    job_defaults(&s, JOB_VERIFY);
    snprintf(s.dataset, sizeof s.dataset, "fm");
    if (jobfile_set(&s, "verify.arch=['bn relu | c16k3 | s32k3 | gap', 'wn lrelu | c8k3 | c8k5 | flat']", &e) < 0)
        fail_msg("%s", e.text);
    rewritten(&s);
}

/* As people write them, and not a bit less. */
static void numbers_are_written_as_people_write_them(void **state)
{
    (void)state;
    static const struct { double x; const char *text; } some[] = {
        { 600, "600" }, { 3600, "3600" }, { 0, "0" }, { 1, "1" }, { -2.5, "-2.5" }, { 31536000, "31536000" }, { 999999999999999, "999999999999999" }, { 0.5, "0.5" },
        { 0.0005, "0.0005" }, { 0.0001, "0.0001" }, { 0.00005, "5e-5" }, { 1e-6, "1e-6" }, { 0.1 + 0.2, "0.30000000000000004" }, { 1.0 / 3, "0.3333333333333333" }, { 1e300, "1e300" },
    };
    unsigned long long bits = 88172645463325252ull;
    for (size_t i = 0; i < sizeof some / sizeof *some + 20000; i++) {
        double x = i < sizeof some / sizeof *some ? some[i].x : 0;
        if (i >= sizeof some / sizeof *some) { /* any mantissa, from 1e-12 to 1e18 */
            bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
            x = (double)(bits >> 11) / 4503599627370496.0 * pow(10, (double)(bits % 31) - 12);
        }
        json_t *v = json_real(x);
        char *text = json_short(v);
        if (strtod(text, NULL) != x || (i < sizeof some / sizeof *some && strcmp(text, some[i].text) != 0))
            fail_msg("%.17g is written %s", x, text);
        free(text);
        json_decref(v);
    }
}

/* ---- what a mutation did ---- */

static void says(const char *parent, const char *child, const char *want)
{
    char text[256];
    arch_change(parent, child, text, sizeof text);
    assert_string_equal(text, want);
}

static void a_mutation_is_told_as_the_words_that_changed(void **state)
{
    (void)state;
    says("bn relu | c24k3 avg2 | flat", "bn relu | s24k3 avg2 | flat", "c24k3 → s24k3");
    says("bn relu | c24k3 | flat", "bn relu | c24k3 avg2 | flat", "with avg2");
    says("bn relu | c24k3 avg2 | flat", "bn relu | c24k3 | flat", "without avg2");
    says("bn relu | c24k3", "wn relu | c24k3", "bn → wn");
    says("bn relu | c24k3 | gap", "bn relu | c24k3 | flat", "gap → flat");
    says("a b b c", "a b c", "without b");
    says("a b", "a b", "");
    says("one", "other", "one → other");
}

static void promoted(const struct job_spec *s, int from, int to, const char *want)
{
    char text[256];
    rung_change(s, from, to, text, sizeof text);
    assert_string_equal(text, want);
}

static void a_promotion_is_told_as_what_it_adds(void **state)
{
    (void)state;
    struct job_spec s = { .fidelity = { .steps = 16, .inits = 2 }, .halving = { .n_steps = 2, .steps = { 4, 8 }, .n_inits = 2, .inits = { 1, 1 } },
                          .racing = { .n_inits = 2, .inits = { 4, 8 } } };
    promoted(&s, 0, 1, "4 → 8 steps");
    promoted(&s, 1, 2, "8 → 16 steps, 1 → 2 initialisations");
    promoted(&s, 2, 3, "2 → 4 initialisations");
    promoted(&s, 3, 4, "4 → 8 initialisations");
}

static void a_job_and_a_trial_are_told_apart(void **state)
{
    (void)state;
    name_str job;
    int64_t trial;
    assert_int_equal(job_and_trial("fm-search/12", job, &trial, &e), 0);
    assert_string_equal(job, "fm-search");
    assert_int_equal(trial, 12);
    assert_int_equal(job_and_trial("7", job, &trial, &e), 0);
    assert_int_equal(trial, -1);
    assert_int_equal(job_and_trial("7/", job, &trial, &e), -ERR_USAGE);
    assert_int_equal(job_and_trial("7/-1", job, &trial, &e), -ERR_USAGE);
    assert_int_equal(job_and_trial("/3", job, &trial, &e), -ERR_NOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_front_keeps_what_nothing_beats),
        cmocka_unit_test(a_front_is_what_its_definition_says),
        cmocka_unit_test(trials_without_a_value_are_passed_over),
        cmocka_unit_test(objectives_are_named),
        cmocka_unit_test(a_spec_written_as_a_job_file_reads_back_equal),
        cmocka_unit_test(numbers_are_written_as_people_write_them),
        cmocka_unit_test(a_promotion_is_told_as_what_it_adds),
        cmocka_unit_test(a_mutation_is_told_as_the_words_that_changed),
        cmocka_unit_test(a_job_and_a_trial_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
