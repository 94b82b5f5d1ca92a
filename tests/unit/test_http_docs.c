/* The documents that HTTP and Query answer with, on a coordinator without sockets; and the statistics of verify. */
#include "common/safetensors.h"
#include "coordinator/docs_int.h"
#include "tests/support/tmp.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture { struct tmp *tmp; struct coord c; };

static int64_t on_now(void *arg)
{
    (void)arg;
    return 5000;
}

static void on_send(void *arg, struct worker *w, const struct task *t)
{
    (void)arg;
    (void)w;
    (void)t;
}

static int on_shape(void *arg, const char *hash, struct image_shape *out, struct errbuf *e)
{
    (void)arg;
    (void)hash;
    (void)e;
    *out = (struct image_shape){ 1, 12, 12, 4 };
    return 0;
}

static int setup(void **state)
{
    void *tmp;
    struct fixture *f = calloc(1, sizeof *f);
    struct errbuf e = { 0 };
    struct coord *c = &f->c;
    tmp_setup(&tmp);
    f->tmp = tmp;
    snprintf(c->opts.dir, sizeof c->opts.dir, "%s", f->tmp->dir);
    snprintf(c->db_path, sizeof c->db_path, "%s/didact.db", f->tmp->dir);
    assert_int_equal(blobs_open(c, &e), 0);
    assert_int_equal(store_open(&c->store, c->db_path, NULL, &e), 0);
    assert_int_equal(reader_open(&c->reader, c->db_path, &e), 0);
    struct sched_cfg cfg = { .store = c->store, .reader = c->reader, .heartbeat_ms = 200, .lease_ms = 1000, .now_ms = on_now,
                             .send_lease = on_send, .image_shape = on_shape, .arg = c };
    assert_int_equal(sched_open(&c->sched, &cfg, &e), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *tmp = f->tmp;
    store_flush(f->c.store);
    sched_close(f->c.sched);
    reader_close(f->c.reader);
    store_close(f->c.store);
    blobs_close(&f->c);
    free(f);
    return tmp_teardown(&tmp);
}

static json_t *get(struct fixture *f, const char *path)
{
    json_t *doc;
    struct errbuf e = { 0 };
    int rc = docs_get(&f->c, path, &doc, &e);
    if (rc < 0)
        print_error("%s: %s\n", path, e.text);
    assert_int_equal(rc, 0);
    return doc;
}

static int refused(struct fixture *f, const char *path)
{
    json_t *doc;
    struct errbuf e = { 0 };
    int rc = docs_get(&f->c, path, &doc, &e);
    assert_null(doc);
    return rc;
}

static void on_done(void *arg, int rc, uint64_t job, const struct errbuf *e)
{
    (void)e;
    assert_int_equal(rc, 0);
    *(uint64_t *)arg = job;
}

static uint64_t add_job(struct fixture *f, enum job_kind kind, const char *name, size_t n, const double *proxy, const enum trial_group *group)
{
    struct job_spec *s = malloc(sizeof *s);
    struct trial_row *t = n ? calloc(n, sizeof *t) : NULL;
    uint64_t id = 0;
    job_defaults(s, kind);
    s->seed = 3;
    s->trials = 10;
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(s->space, sizeof s->space, "chain");
    snprintf(s->dataset, sizeof s->dataset, "d");
    snprintf(s->curriculum, sizeof s->curriculum, "c");
    snprintf(s->verify.of, sizeof s->verify.of, kind == JOB_VERIFY ? "1" : "");
    for (size_t i = 0; i < n; i++) {
        t[i] = (struct trial_row){ .idx = i, .state = TRIAL_WAITING, .parent = -1, .proxy = proxy ? proxy[i] : NAN, .group = group ? group[i] : GROUP_NONE };
        snprintf(t[i].arch, sizeof t[i].arch, "arch %zu", i);
        snprintf(t[i].arch_hash, sizeof t[i].arch_hash, "%032zu", i);
    }
    sched_submit(f->c.sched, s, t, n, on_done, &id);
    store_flush(f->c.store);
    free(s);
    return id;
}

static void score(struct fixture *f, uint64_t job, uint64_t idx, double v)
{
    for (int k = 0; k < 2; k++) {
        struct store_op *op = store_op_new(k ? OP_TRIAL_RESULT : OP_TRIAL_LEASE);
        op->trial = (struct trial_row){ .job = job, .idx = idx, .attempt = 1, .state = TRIAL_RUNNING, .parent = -1, .worker = "w", .ended_ms = 9 };
        snprintf(op->trial.arch, sizeof op->trial.arch, "arch %d", (int)idx);
        op->trial.r = (struct trial_result){ .state = TRIAL_SCORED, .score = v, .n_inits = 1, .init_score = { v }, .n_checkpoints = 1, .checkpoint = { 8 },
                                             .checkpoint_score = { v / 2 }, .lr_scale = 1, .params = 5, .macs = 6, .zero_cost = { 1u << ZC_NASWOT, { [ZC_NASWOT] = v + 1 } }, .seconds = 2 };
        store_put(f->c.store, op);
    }
    store_flush(f->c.store);
}

static void a_path_is_taken_apart(void **state)
{
    (void)state;
    struct query q;
    struct errbuf e = { 0 };
    assert_int_equal(query_parse("/api/v1/jobs/small/trials?state=scored&limit=7&offset=3&sort=score", &q, &e), 0);
    assert_int_equal(q.n_part, 3);
    assert_string_equal(q.part[1], "small");
    assert_true(q.limit == 7 && q.offset == 3);
    assert_string_equal(q.state, "scored");
    assert_int_equal(query_parse("jobs?limit=1001", &q, &e), -ERR_INPUT);
    assert_int_equal(query_parse("jobs?limit=", &q, &e), -ERR_INPUT);
    assert_int_equal(query_parse("jobs?offset=-1", &q, &e), -ERR_INPUT);
    assert_int_equal(query_parse("jobs?colour=red", &q, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "colour"));
    assert_int_equal(query_parse("a/b/c/d", &q, &e), -ERR_NOTFOUND);
    assert_int_equal(query_parse("jobs/3/told?wait=61", &q, &e), -ERR_INPUT);
    assert_int_equal(query_parse("spaces/nasbench201/mutate?arch=|a~0|+|b~0|c~1|&n=3&seed=9", &q, &e), 0);
    assert_string_equal(q.arch, "|a~0|+|b~0|c~1|");
    assert_true(q.n == 3 && q.seed == 9);
    assert_true(docs_is_slow(NULL, "jobs/3/replay"));
    assert_true(docs_is_slow(NULL, "jobs/3/audit"));
    assert_false(docs_is_slow(NULL, "jobs/replay"));
}

static void every_list_says_its_total_and_is_cut(void **state)
{
    struct fixture *f = *state;
    char name[16];
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "job%d", i);
        add_job(f, JOB_SEARCH, name, 0, NULL, NULL);
    }
    json_t *d = get(f, "jobs?limit=2&offset=1"), *list = json_object_get(d, "jobs");
    assert_int_equal(json_integer_value(json_object_get(d, "total")), 5);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "name")), "job3"); /* newest first */
    json_decref(d);
    d = get(f, "jobs?state=failed");
    assert_int_equal(json_integer_value(json_object_get(d, "total")), 0);
    json_decref(d);
    assert_int_equal(refused(f, "jobs?state=tired"), -ERR_INPUT);
}

static void a_job_has_every_field_of_the_documentation(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = { "id", "name", "kind", "state", "seed", "created_ms", "started_ms", "ended_ms", "reason", "trials", "failures",
                                        "best", "rate", "eta_s", "progress", "audit", "warmup", "dataset", "dataset_hash", "curriculum", "curriculum_hash", "space",
                                        "repeatable", "spec" };
    uint64_t id = add_job(f, JOB_SEARCH, "small", 0, NULL, NULL);
    assert_int_equal(id, 1);
    json_t *d = get(f, "jobs/sma");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_object_get(d, keys[i]))
            fail_msg("%s is missing", keys[i]);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(d, "trials"), "budget")), 10);
    assert_true(json_is_true(json_object_get(d, "repeatable")));
    assert_true(json_is_null(json_object_get(d, "started_ms")));
    assert_int_equal(json_integer_value(json_object_get(d, "seed")), 3);
    json_decref(d);
}

static void a_trial_has_every_field_of_the_documentation(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = { "trial", "state", "reason", "detail", "space", "arch", "arch_hash", "parent", "seed", "attempt", "score",
                                        "score_se", "init_scores", "checkpoints", "loss_sum", "lr_scale", "valid_score", "params", "macs",
                                        "meta_steps", "artifact", "checkpoint_blob", "seconds", "mem_bytes", "worker", "created_ms", "ended_ms",
                                        "progress", "zero_cost" };
    uint64_t id = add_job(f, JOB_VERIFY, "v", 2, NULL, NULL);
    score(f, id, 0, 0.1 + 0.2);
    json_t *d = get(f, "jobs/1/trials?sort=score"), *t = json_array_get(json_object_get(d, "trials"), 0);
    assert_int_equal(json_array_size(json_object_get(d, "trials")), 1);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_object_get(t, keys[i]))
            fail_msg("%s is missing", keys[i]);
    assert_true(json_real_value(json_object_get(t, "score")) == 0.1 + 0.2);
    assert_string_equal(json_string_value(json_object_get(t, "space")), "chain");
    assert_int_equal(json_object_size(json_object_get(t, "zero_cost")), 1); /* what is not known is left out */
    assert_true(json_real_value(json_object_get(json_object_get(t, "zero_cost"), "naswot")) == 0.1 + 0.2 + 1);
    char *text = json_dumps(t, JSON_REAL_PRECISION(17));
    assert_non_null(strstr(text, "0.30000000000000004"));
    free(text);
    json_decref(d);
    assert_int_equal(refused(f, "jobs/1/trials?sort=colour"), -ERR_INPUT);
    assert_int_equal(refused(f, "jobs/1/nothing"), -ERR_NOTFOUND);
    assert_int_equal(refused(f, "jobs/9"), -ERR_NOTFOUND);
    assert_int_equal(refused(f, "nothing"), -ERR_NOTFOUND);
    assert_int_equal(refused(f, ""), -ERR_NOTFOUND);
}

static void verify_says_how_far_the_score_can_be_trusted(void **state)
{
    struct fixture *f = *state;
    double proxy[12];
    enum trial_group group[12];
    for (int i = 0; i < 12; i++) {
        proxy[i] = 0.9 - 0.01 * i;
        group[i] = i < 3 ? GROUP_TOP : GROUP_RANDOM;
    }
    uint64_t id = add_job(f, JOB_VERIFY, "v", 12, proxy, group);
    for (uint64_t i = 0; i < 9; i++)
        score(f, id, i, 0.8 - 0.02 * (double)i);
    json_t *d = get(f, "jobs/v/results"), *v = json_object_get(d, "verify");
    assert_int_equal(json_integer_value(json_object_get(v, "n")), 9);
    assert_true(fabs(json_real_value(json_object_get(v, "spearman")) - 1) < 1e-12);
    assert_string_equal(json_string_value(json_object_get(v, "note")), "9 pairs: too few to conclude");
    assert_int_equal(json_array_size(json_object_get(v, "pairs")), 9);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(v, "pairs"), 3), "group")), "random");
    json_decref(d);
    for (uint64_t i = 9; i < 12; i++)
        score(f, id, i, 0.8 - 0.02 * (double)i);
    d = get(f, "jobs/v/results");
    assert_true(json_is_null(json_object_get(json_object_get(d, "verify"), "note")));
    json_decref(d);
}

/* ---- audit ---- */
static void put_result(struct fixture *f, uint64_t job, uint64_t idx, int arch, struct trial_result r)
{
    for (int k = 0; k < 2; k++) {
        struct store_op *op = store_op_new(k ? OP_TRIAL_RESULT : OP_TRIAL_LEASE);
        op->trial = (struct trial_row){ .job = job, .idx = idx, .attempt = 1, .state = TRIAL_RUNNING, .parent = -1, .worker = "w", .ended_ms = 9 };
        snprintf(op->trial.arch, sizeof op->trial.arch, "arch %d", arch);
        snprintf(op->trial.arch_hash, sizeof op->trial.arch_hash, "%032d", arch);
        op->trial.r = r;
        op->trial.r.state = r.reason ? TRIAL_FAILED : TRIAL_SCORED;
        store_put(f->c.store, op);
    }
    store_flush(f->c.store);
}

static json_t *audit_of(struct fixture *f, uint64_t job, int *rc)
{
    struct job_row row;
    struct errbuf e = { 0 };
    json_t *doc = NULL;
    assert_int_equal(reader_job(f->c.reader, job, &row), 1);
    *rc = doc_audit(&f->c, f->c.reader, &row, &doc, &e);
    job_row_fini(&row);
    return doc;
}

static double number_at(const json_t *d, const char *a, const char *b, const char *c)
{
    const json_t *v = json_object_get(json_object_get(json_object_get(d, a), b), c);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* 12 candidates: the score ranks exactly as real training, parameters exactly against it, the summed loss (less is better) as the score. */
static void an_audit_compares_every_column_with_real_training(void **state)
{
    struct fixture *f = *state;
    int rc;
    uint64_t search = add_job(f, JOB_SEARCH, "s", 0, NULL, NULL), verify = add_job(f, JOB_VERIFY, "v", 12, NULL, NULL);
    assert_int_equal(search, 1);
    for (int i = 0; i < 12; i++)
        put_result(f, search, (uint64_t)i, i, (struct trial_result){ .score = 0.3 + 0.01 * i, .loss_sum = 9 - 0.1 * i, .n_checkpoints = 1,
                   .checkpoint = { 8 }, .checkpoint_score = { i % 2 }, .params = (uint64_t)(1000 - i), .macs = 7, .seconds = 2 });
    json_t *d = audit_of(f, search, &rc);
    assert_int_equal(rc, 0);
    assert_int_equal(json_integer_value(json_object_get(d, "scored")), 12);
    assert_true(json_number_value(json_object_get(d, "seconds_per_candidate")) == 2);
    assert_true(json_is_null(json_object_get(d, "teacher")));
    assert_int_equal(json_array_size(json_object_get(json_array_get(json_object_get(d, "samples"), 0), "pairs")), 0);
    json_decref(d);
    for (int i = 0; i < 11; i++)
        put_result(f, verify, (uint64_t)i, i, (struct trial_result){ .score = 0.5 + 0.03 * i, .valid_score = 0.1, .params = 1, .macs = 1, .seconds = 50 });
    put_result(f, verify, 11, 11, (struct trial_result){ .reason = FAIL_NAN });
    d = audit_of(f, search, &rc);
    json_t *s = json_array_get(json_object_get(d, "samples"), 0), *list = json_object_get(s, "predictors"), *p;
    assert_int_equal(json_integer_value(json_object_get(s, "n")), 11);
    assert_int_equal(json_integer_value(json_object_get(s, "failed")), 1);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(s, "jobs"), 0)), (int)verify);
    assert_true(json_number_value(json_object_get(s, "seconds")) == 50);
    static const struct { const char *name; double rho, regret1, seconds; } want[] = {
        { "score", 1, 0, 2 }, { "score@8", NAN, 0.15, 2 }, { "loss_sum", 1, 0, 2 }, { "params", -1, 0.3, 0 }, { "macs", NAN, 0.15, 0 } };
    size_t i, found = 0;
    json_array_foreach(list, i, p)
        for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
            if (strcmp(json_string_value(json_object_get(p, "name")), want[k].name) != 0)
                continue;
            found++;
            if (isfinite(want[k].rho)) {
                assert_true(fabs(number_at(p, "all", "spearman", "value") - want[k].rho) < 1e-12);
                assert_true(fabs(number_at(p, "top_half", "kendall", "value") - want[k].rho) < 1e-12);
            }
            assert_int_equal(json_integer_value(json_object_get(json_object_get(p, "top_half"), "n")), 6);
            assert_true(fabs(json_number_value(json_object_get(json_object_get(p, "regret"), "top1")) - want[k].regret1) < 1e-12);
            assert_true(json_number_value(json_object_get(p, "seconds")) == want[k].seconds);
        }
    assert_int_equal(found, sizeof want / sizeof *want);
    assert_int_equal(json_array_size(list), found);
    assert_null(audit_of(f, verify, &rc));
    assert_int_equal(rc, -ERR_INPUT);
    json_decref(d);
}

static void a_teacher_has_a_history(void **state)
{
    struct fixture *f = *state;
    uint64_t id = add_job(f, JOB_TEACH, "t", 1, NULL, NULL);
    for (int i = 1; i < 4; i++) {
        struct store_op *op = store_op_new(OP_TEACH_POINT);
        op->point = (struct teach_point){ .job = id, .meta_step = i * 10, .seconds = i, .meta_loss = 1.0 / i, .accuracy = i == 1 ? 0 : 0.5, .held_out = NAN };
        store_put(f->c.store, op);
    }
    store_flush(f->c.store);
    json_t *d = get(f, "jobs/t/results"), *h = json_object_get(json_object_get(d, "teach"), "history");
    assert_int_equal(json_array_size(h), 3);
    assert_true(json_real_value(json_object_get(json_array_get(h, 2), "meta_step")) == 30);
    assert_true(json_is_null(json_object_get(json_array_get(h, 0), "accuracy")));
    assert_true(json_is_null(json_object_get(json_array_get(h, 1), "held_out")));
    json_decref(d);
}

static void status_and_metrics_count_the_same(void **state)
{
    struct fixture *f = *state;
    add_job(f, JOB_SEARCH, "a", 0, NULL, NULL);
    add_job(f, JOB_SEARCH, "b", 0, NULL, NULL);
    json_t *d = get(f, "status");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(d, "jobs"), "queued")), 2);
    json_decref(d);
    char *text = metrics_text(&f->c);
    assert_non_null(strstr(text, "didact_jobs{state=\"queued\"} 2\n"));
    assert_string_equal(text + strlen(text) - 6, "# EOF\n");
    free(text);
}

static size_t told(struct fixture *f, const char *path, int64_t next)
{
    json_t *d = get(f, path), *list = json_object_get(d, "told");
    size_t n = json_array_size(list);
    assert_int_equal(json_integer_value(json_object_get(d, "next")), next);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(json_integer_value(json_object_get(json_array_get(list, i), "trial")), next - (int64_t)n + (int64_t)i);
    json_decref(d);
    return n;
}

static void results_are_told_in_order_and_without_a_gap(void **state)
{
    struct fixture *f = *state;
    uint64_t job = add_job(f, JOB_SEARCH, "s", 0, NULL, NULL);
    assert_int_equal(told(f, "jobs/s/told", 0), 0);
    score(f, job, 1, 0.5);
    score(f, job, 2, 0.5);
    assert_int_equal(told(f, "jobs/s/told", 0), 0); /* trial 0 may still come */
    score(f, job, 0, 0.5);
    assert_int_equal(told(f, "jobs/s/told", 3), 3);
    assert_int_equal(told(f, "jobs/s/told?limit=2", 2), 2);
    assert_int_equal(told(f, "jobs/s/told?after=2", 3), 1);
    assert_int_equal(told(f, "jobs/s/told?after=7", 7), 0);
    assert_int_equal(refused(f, "jobs/s/told?after=x"), -ERR_INPUT);
    assert_int_equal(refused(f, "jobs/s/told?after=-1"), -ERR_INPUT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_is_taken_apart), T(every_list_says_its_total_and_is_cut), T(a_job_has_every_field_of_the_documentation),
        T(a_trial_has_every_field_of_the_documentation), T(verify_says_how_far_the_score_can_be_trusted),
        T(an_audit_compares_every_column_with_real_training), T(a_teacher_has_a_history),
        T(status_and_metrics_count_the_same), T(results_are_told_in_order_and_without_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
