/* The store: what is acknowledged is there, what fails changes nothing, what ended once stays so. */
#include "coordinator/store/db.h"
#include "coordinator/store/store.h"
#include "tests/support/tmp.h"

#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture { struct tmp *tmp; const char *path; struct store *s; struct reader *r; int fault; };

static int on_fault(void *arg) { return ((struct fixture *)arg)->fault; }

static void reopen(struct fixture *f)
{
    struct store_cfg cfg = { .fault = on_fault, .fault_arg = f };
    struct errbuf e = { 0 };
    reader_close(f->r);
    store_close(f->s);
    assert_int_equal(store_open(&f->s, f->path, &cfg, &e), 0);
    assert_int_equal(reader_open(&f->r, f->path, &e), 0);
}

static int setup(void **state)
{
    void *tmp;
    struct fixture *f = calloc(1, sizeof *f);
    tmp_setup(&tmp);
    f->tmp = tmp;
    f->path = tmp_path(f->tmp, "didact.db");
    reopen(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *tmp = f->tmp;
    reader_close(f->r);
    store_close(f->s);
    free(f);
    return tmp_teardown(&tmp);
}

struct outcome { int rc; enum ack_outcome ack; int order; bool conflict; char text[512]; };
static int order;

static void on_done(struct store_op *op)
{
    struct outcome *o = op->arg;
    *o = (struct outcome){ .rc = op->rc, .ack = op->outcome, .order = ++order, .conflict = op->conflict };
    snprintf(o->text, sizeof o->text, "%s", op->err.text);
}

static void put(struct fixture *f, struct store_op *op, struct outcome *o)
{
    op->done = on_done;
    op->arg = o;
    store_put(f->s, op);
}

static struct store_op *job_op(uint64_t id, const char *name, size_t n)
{
    struct store_op *op = store_op_new(OP_JOB_INSERT);
    op->job.row = (struct job_row){ .id = id, .kind = JOB_SEARCH, .state = JOB_QUEUED, .created_ms = 5, .total = n, .spec_json = strdup("{\"seed\":1}") };
    snprintf(op->job.row.name, sizeof op->job.row.name, "%s", name);
    op->job.trials = calloc(n + 1, sizeof *op->job.trials);
    op->job.n_trials = n;
    for (size_t i = 0; i < n; i++)
        op->job.trials[i] = (struct trial_row){ .job = id, .idx = i, .state = TRIAL_WAITING, .parent = -1, .proxy = NAN, .arch = "a" };
    return op;
}

static struct store_op *lease_op(uint64_t job, uint64_t idx, uint32_t attempt)
{
    struct store_op *op = store_op_new(OP_TRIAL_LEASE);
    op->trial = (struct trial_row){ .job = job, .idx = idx, .state = TRIAL_RUNNING, .attempt = attempt, .parent = 3, .seed = UINT64_MAX - 5,
                                    .arch = "k3 relu", .arch_hash = "abcd", .worker = "w1", .worker_pid = 77, .proxy = NAN, .created_ms = 9 };
    return op;
}

static struct store_op *result_op(uint64_t job, uint64_t idx, uint32_t attempt, double score)
{
    struct store_op *op = store_op_new(OP_TRIAL_RESULT);
    op->trial = (struct trial_row){ .job = job, .idx = idx, .attempt = attempt, .ended_ms = 20 };
    op->trial.r = (struct trial_result){ .state = TRIAL_SCORED, .score = score, .score_se = 1.0 / 3, .n_inits = 2, .init_score = { 0.1, 1e-300 },
                                         .n_checkpoints = 2, .checkpoint = { 8, 16 }, .checkpoint_score = { 0.2, M_PI }, .loss_sum = 1e17 + 2,
                                         .lr_scale = 0.5, .params = 1ull << 40, .macs = 7, .seconds = 0.25, .mem_bytes = 99, .latency_ms = 1.0 / 3,
                                         .zero_cost = { 1u << ZC_SYNFLOW | 1u << ZC_JACOB_COV, { [ZC_SYNFLOW] = 1e300 / 3, [ZC_JACOB_COV] = -1.0 / 3 } } };
    return op;
}

static void do_ok(struct fixture *f, struct store_op *op)
{
    struct outcome o = { .rc = 1 };
    put(f, op, &o);
    store_flush(f->s);
    assert_int_equal(o.rc, 0);
}

static void results_come_back_exactly_as_they_were(void **state)
{
    struct fixture *f = *state;
    struct trial_row *t = malloc(sizeof *t);
    do_ok(f, job_op(1, "one", 0));
    do_ok(f, lease_op(1, 4, 1));
    do_ok(f, result_op(1, 4, 1, 0.1 + 0.2));
    reopen(f);
    assert_int_equal(reader_trial(f->r, 1, 4, t), 1);
    assert_true(t->r.score == 0.1 + 0.2 && t->r.score_se == 1.0 / 3 && t->r.loss_sum == 1e17 + 2);
    assert_true(t->r.n_inits == 2 && t->r.init_score[1] == 1e-300 && t->r.checkpoint[1] == 16 && t->r.checkpoint_score[1] == M_PI);
    assert_true(t->seed == UINT64_MAX - 5 && t->r.params == 1ull << 40 && t->parent == 3 && t->worker_pid == 77);
    assert_true(isnan(t->proxy));
    assert_int_equal(t->r.zero_cost.known, 1u << ZC_SYNFLOW | 1u << ZC_JACOB_COV);
    assert_true(t->r.zero_cost.value[ZC_SYNFLOW] == 1e300 / 3 && t->r.zero_cost.value[ZC_JACOB_COV] == -1.0 / 3);
    assert_true(t->r.latency_ms == 1.0 / 3);
    assert_string_equal(t->arch, "k3 relu");
    free(t);
}

static void a_trial_ends_once(void **state)
{
    struct fixture *f = *state;
    struct trial_row *t = malloc(sizeof *t);
    struct outcome o[5];
    do_ok(f, job_op(1, "one", 0));
    do_ok(f, lease_op(1, 0, 1));
    do_ok(f, lease_op(1, 0, 2)); /* given again */
    put(f, result_op(1, 0, 1, 0.1), &o[0]);
    put(f, result_op(1, 0, 2, 0.2), &o[1]);
    put(f, result_op(1, 0, 2, 0.3), &o[2]);
    put(f, result_op(1, 9, 1, 0.3), &o[3]);
    put(f, lease_op(1, 0, 3), &o[4]); /* too late: it has ended */
    store_flush(f->s);
    assert_int_equal(o[0].ack, ACK_STALE);
    assert_int_equal(o[1].ack, ACK_RECORDED);
    assert_int_equal(o[2].ack, ACK_DUPLICATE);
    assert_int_equal(o[3].ack, ACK_STALE);
    assert_int_equal(o[4].rc, -ERR_STATE);
    assert_int_equal(reader_trial(f->r, 1, 0, t), 1);
    assert_true(t->r.score == 0.2 && t->attempt == 2 && t->state == TRIAL_SCORED);
    free(t);
}

static struct fixture *seen_by;
static void on_visible(struct store_op *op)
{
    struct job_row row;
    assert_int_equal(reader_job(seen_by->r, op->tag, &row), 1); /* acknowledged means committed: another connection sees it */
    job_row_fini(&row);
    (*(int *)op->arg)++;
}

static void acknowledgements_follow_the_commit_in_order(void **state)
{
    struct fixture *f = *state;
    struct outcome o[300];
    int n = 0;
    seen_by = f;
    order = 0;
    for (int i = 0; i < 300; i++) {
        struct store_op *op = job_op((uint64_t)i + 1, "many", 0);
        if (i % 2) {
            op->done = on_visible;
            op->arg = &n;
            op->tag = (uint64_t)i + 1;
            store_put(f->s, op);
        } else {
            put(f, op, &o[i]);
        }
    }
    store_flush(f->s);
    assert_int_equal(n, 150);
    for (int i = 2; i < 300; i += 2)
        assert_true(o[i].order > o[i - 2].order);
    struct store_stats st;
    store_stats(f->s, &st);
    assert_int_equal(st.rows, 300);
    assert_true(st.commits < 300); /* groups */
}

static void a_failed_commit_changes_nothing_and_the_next_one_works(void **state)
{
    struct fixture *f = *state;
    struct outcome a, b, c;
    struct store_stats st;
    struct job_row row;
    f->fault = ERR_IO;
    put(f, job_op(1, "lost", 3), &a);
    put(f, job_op(2, "lost too", 0), &b);
    store_flush(f->s);
    assert_int_equal(a.rc, -ERR_IO);
    assert_int_equal(b.rc, -ERR_IO);
    store_stats(f->s, &st);
    assert_true(st.failing);
    assert_int_equal(reader_job(f->r, 1, &row), 0);
    f->fault = 0;
    put(f, job_op(1, "kept", 3), &c);
    store_flush(f->s);
    assert_int_equal(c.rc, 0);
    store_stats(f->s, &st);
    assert_false(st.failing);
    assert_int_equal(reader_job(f->r, 1, &row), 1);
    assert_string_equal(row.name, "kept");
    job_row_fini(&row);
}

static void one_bad_operation_does_not_hurt_its_group(void **state)
{
    struct fixture *f = *state;
    struct outcome a, b, c;
    struct job_row row;
    struct trial_row *t = malloc(sizeof *t);
    do_ok(f, job_op(1, "one", 2));
    put(f, job_op(2, "two", 1), &a);
    put(f, job_op(1, "one again", 5), &b); /* its id is taken: all of it is refused */
    put(f, job_op(3, "three", 1), &c);
    store_flush(f->s);
    assert_int_equal(a.rc, 0);
    assert_int_equal(b.rc, -ERR_INTERNAL);
    assert_int_equal(c.rc, 0);
    assert_int_equal(reader_trial(f->r, 1, 4, t), 0);
    assert_int_equal(reader_job(f->r, 3, &row), 1);
    job_row_fini(&row);
    free(t);
}

static struct book_row *filed(double score)
{
    struct book_row *b = calloc(1, sizeof *b);
    snprintf(b->space, sizeof b->space, "chain");
    snprintf(b->arch, sizeof b->arch, "k3 relu");
    snprintf(b->arch_hash, sizeof b->arch_hash, "abcd");
    snprintf(b->fidelity, sizeof b->fidelity, "steps=3");
    snprintf(b->engine, sizeof b->engine, "1");
    memset(b->dataset, 'a', HASH_HEX_LEN);
    memset(b->curriculum, 'b', HASH_HEX_LEN);
    b->seed = UINT64_MAX - 5;
    struct store_op *op = result_op(1, 0, 1, score);
    b->r = op->trial.r;
    free(op);
    return b;
}

/* A result goes into the book with its commit; the first numbers under a key stay, and others are noticed. */
static void the_book_keeps_the_first_result_of_a_key_and_notices_another(void **state)
{
    struct fixture *f = *state;
    struct book_row got, *b = filed(0.1 + 0.2);
    char key[BOOK_KEY_LEN + 1];
    uint64_t n;
    book_key(b, key);
    do_ok(f, job_op(1, "one", 0));
    for (int i = 0; i < 3; i++) {
        struct outcome o = { .rc = 1 };
        do_ok(f, lease_op(1, (uint64_t)i, 1));
        struct store_op *op = result_op(1, (uint64_t)i, 1, 0.5);
        op->filed = filed(i < 2 ? 0.1 + 0.2 : 0.3);
        put(f, op, &o);
        store_flush(f->s);
        assert_int_equal(o.rc, 0);
        assert_int_equal(o.conflict, i == 2);
    }
    assert_int_equal(reader_book_count(f->r, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(reader_book(f->r, key, &got), 1);
    assert_true(book_same(&got.r, &b->r));
    book_key(&got, key);
    assert_int_equal(reader_book(f->r, key, &got), 1);
    assert_int_equal(got.seed, UINT64_MAX - 5);
    assert_int_equal(reader_book_any(f->r, b->dataset, b->curriculum, "steps=3", "1"), 1);
    assert_int_equal(reader_book_any(f->r, b->dataset, b->curriculum, "steps=4", "1"), 0);
    free(b);
}

static struct store_op *add_op(const double *score, size_t n, bool check_only)
{
    struct store_op *op = store_op_new(OP_BOOK_ADD);
    op->book.row = calloc(n, sizeof *op->book.row);
    for (size_t i = 0; i < n; i++) {
        struct book_row *b = filed(score[i]);
        op->book.row[i] = *b;
        op->book.row[i].seed = i;
        free(b);
    }
    op->book.n = n;
    op->book.first = 2;
    op->book.check_only = check_only;
    return op;
}

static void rows_of_another_book_are_added_all_or_none(void **state)
{
    struct fixture *f = *state;
    const double first[] = { 0.1, 0.2 }, other[] = { 0.1, 0.2, 0.3, 0.4 }, wrong[] = { 0.1, 0.2, 0.3, 0.5, 0.6 };
    struct outcome o = { .rc = 1 };
    uint64_t n;
    do_ok(f, add_op(first, 2, false));
    do_ok(f, add_op(other, 4, true));
    reader_book_count(f->r, &n);
    assert_int_equal(n, 2); /* looked at alone */
    do_ok(f, add_op(other, 4, false));
    reader_book_count(f->r, &n);
    assert_int_equal(n, 4);
    put(f, add_op(wrong, 5, false), &o);
    store_flush(f->s);
    assert_int_equal(o.rc, -ERR_STATE);
    reader_book_count(f->r, &n);
    assert_int_equal(n, 4); /* the fifth, new one was undone with the fourth, which differs */
}

static void rows_are_removed_by_their_keys(void **state)
{
    struct fixture *f = *state;
    const double first[] = { 0.1, 0.2, 0.3 }, other[] = { 0.9, 0.2 };
    struct store_op *op = add_op(other, 2, false);
    uint64_t n;
    do_ok(f, add_op(first, 3, false));
    op->book.remove = true;
    do_ok(f, op);
    reader_book_count(f->r, &n);
    assert_int_equal(n, 1);
    do_ok(f, add_op(first, 3, false)); /* nothing contradicts what was taken out */
    reader_book_count(f->r, &n);
    assert_int_equal(n, 3);
}

static void a_row_that_differs_is_told_with_a_mark_where_its_text_is_cut(void **state)
{
    struct fixture *f = *state;
    const double first[] = { 0.1 }, other[] = { 0.2 };
    struct outcome o = { .rc = 1 };
    struct store_op *op = add_op(first, 1, false), *again = add_op(other, 1, false);
    memset(op->book.row[0].arch, 'x', 300);
    op->book.row[0].arch[300] = 0;
    strcpy(again->book.row[0].arch, op->book.row[0].arch);
    do_ok(f, op);
    put(f, again, &o);
    store_flush(f->s);
    assert_int_equal(o.rc, -ERR_STATE);
    assert_non_null(strstr(o.text, "xxx… (seed 0, steps="));
}

static void exec(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* A database of the first release with a scored trial: it opens, and knows no zero-cost score of it. */
static void a_newer_database_is_refused_and_left_alone(void **state)
{
    struct fixture *f = *state;
    struct store *s;
    struct errbuf e = { 0 };
    const char *path = tmp_path(f->tmp, "newer.db");
    size_t n = 0, m = 0;
    exec(path, "CREATE TABLE later(x); PRAGMA user_version=99");
    char *before = tmp_read(path, &n);
    assert_int_equal(store_open(&s, path, NULL, &e), -ERR_VERSION);
    assert_null(s);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, "99"));
    char *after = tmp_read(path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    free(before);
    free(after);
}

/* What the first version wrote is read by this one. */
static void a_database_of_the_first_version_is_taken_along(void **state)
{
    struct fixture *f = *state;
    struct store *s;
    struct reader *r;
    struct job_row row;
    struct trial_row *t = malloc(sizeof *t);
    struct errbuf e = { 0 };
    const char *path = tmp_path(f->tmp, "first.db");
    exec(path, db_migration[0]);
    exec(path, "PRAGMA user_version=1;"
               "INSERT INTO job(id,name,kind,state,spec,created_ms,scored) VALUES(4,'old','search','succeeded','{}',5,1);"
               "INSERT INTO trial(job,idx,state,arch,arch_hash,seed,attempt,deaths,created_ms,score) VALUES(4,0,'scored','x','h',1,1,0,6,0.5)");
    if (store_open(&s, path, NULL, &e) < 0 || reader_open(&r, path, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(reader_job(r, 4, &row), 1);
    assert_true(row.n.scored == 1 && row.idle_ms == 0);
    assert_int_equal(reader_trial(r, 4, 0, t), 1);
    assert_true(t->r.score == 0.5 && !t->told_failed && t->r.zero_cost.known == 0 && t->rung == 0 && t->r.latency_ms == 0);
    job_row_fini(&row);
    free(t);
    reader_close(r);
    store_close(s);
}

/* So is what each later one wrote, with what it knew. */
static void a_database_of_every_version_is_taken_along(void **state)
{
    struct fixture *f = *state;
    struct trial_row *t = malloc(sizeof *t);
    struct errbuf e = { 0 };
    for (int version = 2; version < STORE_VERSION; version++) {
        struct store *s;
        struct reader *r;
        char pragma[64];
        const char *path = tmp_path(f->tmp, "version%d.db", version);
        for (int i = 0; i < version; i++)
            exec(path, db_migration[i]);
        snprintf(pragma, sizeof pragma, "PRAGMA user_version=%d", version);
        exec(path, pragma);
        exec(path, "INSERT INTO job(id,name,kind,state,spec,created_ms,scored) VALUES(4,'old','search','succeeded','{}',5,1);"
                   "INSERT INTO trial(job,idx,state,arch,arch_hash,seed,attempt,deaths,created_ms,score,params) VALUES(4,0,'scored','x','h',1,1,0,6,0.5,77)");
        if (version >= 6)
            exec(path, "UPDATE trial SET tag='mine', request='r-1'");
        if (store_open(&s, path, NULL, &e) < 0 || reader_open(&r, path, &e) < 0)
            fail_msg("version %d: %s", version, e.text);
        assert_int_equal(reader_trial(r, 4, 0, t), 1);
        assert_true(t->r.score == 0.5 && t->r.params == 77 && t->rung == 0 && t->r.latency_ms == 0);
        assert_string_equal(t->tag, version >= 6 ? "mine" : "");
        assert_string_equal(t->request, version >= 6 ? "r-1" : "");
        reader_close(r);
        store_close(s);
    }
    free(t);
}

static void a_damaged_database_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct store *s;
    struct errbuf e = { 0 };
    const char *path = tmp_path(f->tmp, "damaged.db");
    char junk[4096];
    memset(junk, 'x', sizeof junk);
    tmp_write(path, junk, sizeof junk);
    assert_int_equal(store_open(&s, path, NULL, &e), -ERR_CORRUPT);
    assert_non_null(strstr(e.text, path));
}

static void the_end_of_a_job_cancels_what_is_open(void **state)
{
    struct fixture *f = *state;
    struct job_row row;
    struct trial_row *t = malloc(sizeof *t);
    do_ok(f, job_op(1, "one", 4));
    struct store_op *op = lease_op(1, 0, 1);
    do_ok(f, op);
    do_ok(f, result_op(1, 0, 1, 0.5));
    op = lease_op(1, 1, 1);
    do_ok(f, op);
    op = store_op_new(OP_JOB_END);
    op->job.row = (struct job_row){ .id = 1, .state = JOB_CANCELLED, .ended_ms = 50, .reason = "on request", .best_trial = 0, .n = { .scored = 1 } };
    do_ok(f, op);
    assert_int_equal(reader_job(f->r, 1, &row), 1);
    assert_int_equal(row.n.cancelled, 3);
    assert_int_equal(row.state, JOB_CANCELLED);
    assert_string_equal(row.reason, "on request");
    job_row_fini(&row);
    assert_int_equal(reader_trial(f->r, 1, 1, t), 1);
    assert_int_equal(t->state, TRIAL_CANCELLED);
    assert_int_equal(reader_trial(f->r, 1, 0, t), 1);
    assert_int_equal(t->state, TRIAL_SCORED);
    free(t);
}

static bool on_index(void *arg, const struct trial_row *t)
{
    char *text = arg;
    snprintf(text + strlen(text), 100 - strlen(text), "%llu ", (unsigned long long)t->idx);
    return true;
}

static void trials_are_listed_by_state_and_score(void **state)
{
    struct fixture *f = *state;
    char text[100] = "";
    do_ok(f, job_op(1, "one", 7));
    for (int i = 0; i < 5; i++) {
        static const double score[5] = { 0.5, 0.9, 0.5, 0.1, 0.9 };
        do_ok(f, lease_op(1, (uint64_t)i, 1));
        do_ok(f, result_op(1, (uint64_t)i, 1, score[i]));
    }
    do_ok(f, lease_op(1, 5, 1));
    reader_trials(f->r, 1, -1, SORT_SCORE, 0, 4, on_index, text);
    assert_string_equal(text, "1 4 0 2 ");
    text[0] = 0;
    reader_trials(f->r, 1, TRIAL_WAITING, SORT_INDEX, 0, 0, on_index, text);
    reader_trials(f->r, 1, TRIAL_RUNNING, SORT_INDEX, 0, 0, on_index, text);
    assert_string_equal(text, "6 5 ");
    text[0] = 0;
    reader_trials(f->r, 1, -1, SORT_INDEX, 2, 2, on_index, text);
    reader_trials(f->r, 1, TRIAL_SCORED, SORT_INDEX, 3, 9, on_index, text);
    assert_string_equal(text, "2 3 3 4 ");
}

static void names_find_the_newest_or_all_that_begin_so(void **state)
{
    struct fixture *f = *state;
    uint64_t ids[4];
    do_ok(f, job_op(1, "fashion", 0));
    do_ok(f, job_op(2, "fashion-b", 0));
    do_ok(f, job_op(3, "fashion", 0));
    assert_int_equal(reader_job_named(f->r, "fashion", ids, 4), 1);
    assert_int_equal(ids[0], 3);
    assert_int_equal(reader_job_named(f->r, "fash", ids, 4), 3);
    assert_int_equal(reader_job_named(f->r, "fashion-", ids, 4), 1);
    assert_int_equal(ids[0], 2);
    assert_int_equal(reader_job_named(f->r, "none", ids, 4), 0);
    assert_int_equal(reader_last_job(f->r), 3);
}

static void blobs_have_names(void **state)
{
    struct fixture *f = *state;
    struct blob_name b;
    for (int i = 0; i < 2; i++) { /* a name given again means the newer content */
        struct store_op *op = store_op_new(OP_BLOB_NAME);
        snprintf(op->blob.kind, sizeof op->blob.kind, "dataset");
        snprintf(op->blob.name, sizeof op->blob.name, "fashion");
        memset(op->blob.hash, i ? 'b' : 'a', HASH_HEX_LEN);
        do_ok(f, op);
    }
    assert_int_equal(reader_blob(f->r, "dataset", "fashion", &b), 1);
    assert_int_equal(b.hash[0], 'b');
    assert_int_equal(reader_blob(f->r, "dataset", "bbbbbbbbbbbb", &b), 1);
    assert_int_equal(reader_blob(f->r, "dataset", "bbbb", &b), 0);
    assert_int_equal(reader_blob(f->r, "curriculum", "fashion", &b), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(results_come_back_exactly_as_they_were), T(a_trial_ends_once), T(acknowledgements_follow_the_commit_in_order),
        T(a_failed_commit_changes_nothing_and_the_next_one_works), T(one_bad_operation_does_not_hurt_its_group),
        T(the_book_keeps_the_first_result_of_a_key_and_notices_another), T(rows_of_another_book_are_added_all_or_none),
        T(rows_are_removed_by_their_keys),
        T(a_row_that_differs_is_told_with_a_mark_where_its_text_is_cut),
        T(a_database_of_the_first_version_is_taken_along),
        T(a_database_of_every_version_is_taken_along),
        T(a_newer_database_is_refused_and_left_alone), T(a_damaged_database_is_refused_by_name),
        T(the_end_of_a_job_cancels_what_is_open), T(trials_are_listed_by_state_and_score),
        T(names_find_the_newest_or_all_that_begin_so), T(blobs_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
