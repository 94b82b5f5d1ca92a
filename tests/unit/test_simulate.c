/* Recorded scores, and searchers run on them. */
#include "common/score_column.h"
#include "common/search/simulate.h"
#include "tests/support/tmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define CELL(a) "|" a "~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|"
#define SAME_A "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
#define SAME_B "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|" /* nodes 1 and 2 exchanged */

static void write_text(const char *path, const char *text, bool gz)
{
    gzFile z = gz ? gzopen(path, "wb") : gzopen(path, "wbT");
    assert_non_null(z);
    assert_int_equal(gzwrite(z, text, (unsigned)strlen(text)), strlen(text));
    assert_int_equal(gzclose(z), Z_OK);
}

static int read_text(struct tmp *t, struct records *r, const char *text, bool gz, const struct record_columns *cols, struct errbuf *e)
{
    const char *path = tmp_path(t, "table.csv");
    write_text(path, text, gz);
    records_init(r, &space_nasbench201);
    int rc = records_read(r, path, cols, e);
    return rc < 0 ? rc : records_finish(r, e);
}

/* By any text of the network: tables are read into canonical ones. */
static const struct record *find(const struct records *r, const char *cell)
{
    char text[ARCH_TEXT_MAX];
    assert_int_equal(space_nasbench201.canon(&space_nasbench201, cell, text, NULL), 0);
    return records_find(r, text);
}

static void a_table_is_read_plain_or_compressed(void **state)
{
    static const char text[] = "id,\"arch\",acc,params,\"a \"\"b\"\"\"\n1," CELL("none") ",1,7,\n\n"
                               "2,\"" CELL("skip_connect") "\",0.25,1e3,x\r\n3," CELL("nor_conv_3x3") ",,5,\"p,q\"\n";
    const struct record_columns cols = { .score = "acc" };
    for (int gz = 0; gz < 2; gz++) {
        struct records r;
        struct errbuf e = { 0 };
        if (read_text(*state, &r, text, gz, &cols, &e) < 0)
            fail_msg("%s", e.text);
        assert_int_equal(r.n, 2);
        assert_int_equal(r.n_skipped, 1);
        const struct record *v = find(&r, CELL("skip_connect"));
        assert_non_null(v);
        assert_true(v->score == 0.25 && v->truth == 0.25);
        assert_int_equal(v->params, 1000);
        assert_int_equal(v->macs, 0);
        assert_null(find(&r, CELL("nor_conv_3x3")));
        assert_true(r.best_truth == 1);
        records_fini(&r);
    }
}

static void equal_networks_are_one_with_their_mean(void **state)
{
    struct records r;
    struct errbuf e = { 0 };
    const struct record_columns cols = { .truth = "t" };
    assert_int_equal(read_text(*state, &r, "arch,score,t\n" SAME_A ",1,10\n" SAME_B ",3,50\n", false, &cols, &e), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.n_rows, 2);
    assert_true(r.v[0].score == 2 && r.v[0].truth == 30);
    records_fini(&r);
}

static void what_is_wrong_in_a_table_names_its_line(void **state)
{
    static const struct { const char *text, *says; } bad[] = {
        { "arch,acc\n", "line 1: there is no column 'score'" },
        { "arch,score\n" CELL("none") ",1\n" CELL("none") ",x1\n", "line 3: column 'score': 'x1' is no number" },
        { "arch,score\nnonsense,1\n", "line 2: " },
        { "score,arch\n1\n", "line 2 has 1 fields" },
        { "arch,score\n\"" CELL("none") ",1\n", "line 2: a quote does not end" },
        { "arch,score\n" CELL("none") ",\n", "there is no architecture with a score" },
        { "arch,score,fidelity\n" CELL("none") ",1,steps=8\n" CELL("none") ",,steps=9\n" CELL("none") ",1,steps=16\n", "line 4: its fidelity is \"steps=16\"" },
        { "rung,arch,score\n0," CELL("none") ",1\n1," CELL("none") ",1\n", "line 3: its rung is \"1\"" },
        { "", "is empty" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct records r;
        struct errbuf e = { 0 };
        assert_int_equal(read_text(*state, &r, bad[i].text, false, &(struct record_columns){ 0 }, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].says))
            fail_msg("'%s' does not say '%s'", e.text, bad[i].says);
        records_fini(&r);
    }
}

/* Cells with a score of their own each: a hash of the text. */
static void fill(struct records *r, int n)
{
    struct rng rng;
    char text[ARCH_TEXT_MAX];
    rng_init(&rng, 3, RNG_TEST, 0);
    records_init(r, &space_nasbench201);
    while (r->n < (size_t)n) {
        space_nasbench201.random(&space_nasbench201, &rng, text);
        if (!records_find(r, text)) {
            double score = (double)(rng_u32(&rng) % 100000);
            const struct record row = { .score = score, .truth = 2 * score, .cheap = -score, .params = 10 + r->n, .macs = 100 };
            assert_int_equal(records_add(r, text, &row, NULL), 0);
        }
    }
    assert_int_equal(records_finish(r, NULL), 0);
}

static struct job_spec *spec_of(const char *searcher, int trials)
{
    struct job_spec *s = malloc(sizeof *s);
    job_defaults(s, JOB_SEARCH);
    s->seed = 5;
    s->trials = trials;
    s->window = 4;
    s->searcher.population = 16;
    snprintf(s->space, sizeof s->space, "nasbench201");
    snprintf(s->searcher.name, sizeof s->searcher.name, "%s", searcher);
    return s;
}

static void every_seed_ends_at_the_optimum_when_all_is_evaluated(void **state)
{
    (void)state;
    struct records r;
    struct sim_result out;
    struct errbuf e = { 0 };
    fill(&r, 400);
    struct job_spec *spec = spec_of("random", 400);
    struct sim_cfg cfg = { &r, spec, 20, 2, false, 0 };
    assert_int_equal(sim_run(&cfg, &out, &e), 0);
    assert_int_equal(out.point[out.n_points - 1].evaluations, 400);
    assert_true(out.point[out.n_points - 1].mean == 0 && out.n_reached == 20);
    assert_true(out.point[0].mean > 0 && out.point[0].low < out.point[0].mean && out.point[0].high > out.point[0].mean);
    for (int i = 1; i < out.n_points; i++) /* truth is a rising function of the score here */
        assert_true(out.point[i].mean <= out.point[i - 1].mean);
    assert_true(out.reached.q25 <= out.reached.median && out.reached.median <= out.reached.q75 && out.reached.q75 <= 400);
    assert_true(out.reached_low <= out.reached.median && out.reached.median <= out.reached_high);
    free(spec);
    records_fini(&r);
}

static void the_outcome_does_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    struct records r;
    struct sim_result a, b;
    fill(&r, 3000);
    struct job_spec *spec = spec_of("evolution", 120);
    struct sim_cfg cfg = { &r, spec, 25, 1, false, 10 };
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    assert_int_equal(sim_run(&cfg, &a, NULL), 0);
    cfg.n_threads = 5;
    assert_int_equal(sim_run(&cfg, &b, NULL), 0);
    assert_memory_equal(a.point, b.point, sizeof a.point);
    assert_memory_equal(&a.reached, &b.reached, sizeof a.reached);
    free(spec);
    records_fini(&r);
}

static void constraints_and_short_lists_are_told_apart_from_success(void **state)
{
    (void)state;
    struct records r;
    struct sim_result out;
    struct errbuf e = { 0 };
    fill(&r, 400);
    struct job_spec *spec = spec_of("random", 10);
    struct sim_cfg cfg = { &r, spec, 3, 2, false, 0 };
    spec->constraints.max_params = 9; /* the list starts at 10 */
    assert_int_equal(sim_run(&cfg, &out, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "the list of 400 covers too little"));
    spec->racing = (struct racing_cfg){ .n_inits = 1, .inits = { 4 } };
    assert_int_equal(sim_run(&cfg, &out, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "400 of 400 recorded networks have fewer than 4 initialisations"));
    spec->racing.n_inits = 0;
    snprintf(spec->searcher.name, sizeof spec->searcher.name, "external");
    assert_int_equal(sim_run(&cfg, &out, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "external is a program of yours"));
    free(spec);
    records_fini(&r);
}

/* Noisy initialisations, the truth in between: with a race the same number of candidates ends nearer to the best. */
static void a_race_on_recorded_initialisations_picks_better(void **state)
{
    (void)state;
    struct records r;
    struct sim_result even, raced;
    struct errbuf e = { 0 };
    struct rng rng;
    char text[ARCH_TEXT_MAX];
    records_init(&r, &space_nasbench201);
    rng_init(&rng, 5, RNG_TEST, 0);
    for (int i = 0; i < 6000; i++) {
        double init[16], truth = rng_uniform(&rng);
        struct record row = { .truth = truth, .cheap = NAN, .params = 10, .macs = 10, .init = init, .n_inits = 16 };
        for (int k = 0; k < 16; k++)
            init[k] = truth + 0.1 * rng_normal(&rng);
        row.score = (init[0] + init[1]) / 2;
        space_nasbench201.random(&space_nasbench201, &rng, text);
        if (!records_find(&r, text))
            assert_int_equal(records_add(&r, text, &row, &e), 0);
    }
    assert_int_equal(records_finish(&r, &e), 0);
    assert_int_equal(r.v[7].n_inits, 16);
    struct job_spec *spec = spec_of("random", 150);
    struct sim_cfg cfg = { &r, spec, 100, 2, false, 0 };
    spec->fidelity.inits = 2;
    assert_int_equal(sim_run(&cfg, &even, &e), 0);
    spec->racing = (struct racing_cfg){ .n_inits = 3, .inits = { 4, 8, 16 }, .among = 1, .z = 2, .after = 100, .share = 0.3 };
    assert_int_equal(sim_run(&cfg, &raced, &e), 0);
    if (raced.point[raced.n_points - 1].high > even.point[even.n_points - 1].low)
        fail_msg("regret %g raced, %g not", raced.point[raced.n_points - 1].mean, even.point[even.n_points - 1].mean);
    cfg.n_threads = 1;
    assert_int_equal(sim_run(&cfg, &even, &e), 0);
    assert_memory_equal(even.point, raced.point, sizeof even.point);
    free(spec);
    records_fini(&r);
}

/* The vote is over the candidates that were drawn, the column over the whole list: the same order where both voters have it. */
static void a_warm_up_is_voted_on_by_recorded_zero_cost_scores(void **state)
{
    (void)state;
    enum { N = 60 };
    struct records r;
    struct sim_result voted, ranked;
    struct errbuf e = { 0 };
    const bool higher[2] = { true, true };
    double value[2 * N], fused[N];
    fill(&r, N);
    for (int i = 0; i < N; i++) {
        zero_cost_set(&r.v[i].zero_cost, ZC_SYNFLOW, value[i] = i * 37 % N);
        zero_cost_set(&r.v[i].zero_cost, ZC_NASWOT, value[N + i] = i * 37 % N / 3);
        r.v[i].score = r.v[i].truth = -i; /* a later start that is better would hide where the first was */
    }
    r.best_truth = 0;
    assert_int_equal(score_fuse(higher, 2, N, value, fused, &e), 0);
    for (int i = 0; i < N; i++)
        r.v[i].cheap = fused[i];
    struct job_spec *spec = spec_of("random", 12);
    struct sim_cfg cfg = { &r, spec, 20, 2, false, 0 };
    spec->warmup.candidates = 10000;
    spec->warmup.keep = 12;
    spec->warmup.n_vote = 2;
    spec->warmup.vote[0] = COLUMN_ZERO_COST + ZC_SYNFLOW;
    spec->warmup.vote[1] = COLUMN_ZERO_COST + ZC_NASWOT;
    if (sim_run(&cfg, &voted, &e) < 0)
        fail_msg("%s", e.text);
    cfg.cheap = true;
    assert_int_equal(sim_run(&cfg, &ranked, &e), 0);
    assert_memory_equal(voted.point, ranked.point, sizeof voted.point);
    spec->warmup.n_vote = 0;
    cfg.cheap = false;
    assert_int_equal(sim_run(&cfg, &ranked, &e), 0);
    assert_memory_not_equal(voted.point, ranked.point, sizeof voted.point); /* by parameters */
    spec->warmup.n_vote = 1;
    spec->warmup.vote[0] = COLUMN_ZERO_COST + ZC_ZICO;
    assert_int_equal(sim_run(&cfg, &ranked, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "no recorded network has zico"));
    for (int i = 0; i < N / 3; i++)
        zero_cost_set(&r.v[i].zero_cost, ZC_ZICO, i);
    assert_int_equal(sim_run(&cfg, &ranked, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "of 60 recorded networks 20 have zico"));
    free(spec);
    records_fini(&r);
}

static void initialisations_are_read_from_their_column(void **state)
{
    struct records r;
    struct errbuf e = { 0 };
    if (read_text(*state, &r, "arch,score,init_scores\n" CELL("skip_connect") ",0.5,0.25 0.75\n" CELL("nor_conv_3x3") ",0.5,\n" SAME_A ",1,1 2 3\n" SAME_B ",1,7\n",
                  false, &(struct record_columns){ .arch = NULL }, &e) < 0)
        fail_msg("%s", e.text);
    const struct record *v = find(&r, CELL("skip_connect"));
    assert_true(v->n_inits == 2 && v->init[0] == 0.25 && v->init[1] == 0.75);
    assert_int_equal(find(&r, CELL("nor_conv_3x3"))->n_inits, 0);
    v = find(&r, SAME_B);
    assert_true(v->n_inits == 3 && v->init[2] == 3);
    records_fini(&r);
    assert_int_equal(read_text(*state, &r, "arch,score,init_scores\n" CELL("skip_connect") ",0.5,0.25;0.75\n", false, &(struct record_columns){ .arch = NULL }, &e),
                     -ERR_INPUT);
    assert_non_null(strstr(e.text, "line 2: column 'init_scores'"));
    records_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_read_plain_or_compressed),
        cmocka_unit_test(equal_networks_are_one_with_their_mean),
        cmocka_unit_test(what_is_wrong_in_a_table_names_its_line),
        cmocka_unit_test(every_seed_ends_at_the_optimum_when_all_is_evaluated),
        cmocka_unit_test(the_outcome_does_not_depend_on_the_number_of_threads),
        cmocka_unit_test(constraints_and_short_lists_are_told_apart_from_success),
        cmocka_unit_test(a_race_on_recorded_initialisations_picks_better),
        cmocka_unit_test(a_warm_up_is_voted_on_by_recorded_zero_cost_scores),
        cmocka_unit_test(initialisations_are_read_from_their_column),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
