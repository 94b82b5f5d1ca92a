/* read.c - answers for people and for the start of the daemon, from a read-only connection. */
#include "coordinator/store/db.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOB_COLS "id,name,kind,state,created_ms,started_ms,ended_ms,reason,total,scored,failed,cancelled,f_nan,f_oom,f_timeout," \
                 "f_crash,f_input,best_trial,spec,idle_ms"
#define TRIAL_COLS "job,idx,state,arch,arch_hash,parent,seed,attempt,deaths,worker,worker_pid,grp,proxy,created_ms,ended_ms,"    \
                   "checkpoint,reason,detail,score,score_se,init_scores,checkpoint_steps,checkpoint_scores,loss_sum,lr_scale,"   \
                   "valid_score,params,macs,meta_steps,artifact,result_checkpoint,seconds,mem_bytes,told_failed,zero_cost,from_book,rung," \
                   "tag,request,latency_ms"

#define STMTS(X)                                                                                                             \
    X(LAST_JOB, "SELECT max(id) FROM job")                                                                                   \
    X(JOB, "SELECT " JOB_COLS " FROM job WHERE id=?1")                                                                       \
    X(JOB_EXACT, "SELECT id FROM job WHERE name=?1 ORDER BY id DESC LIMIT ?2")                                                \
    X(JOB_PREFIX, "SELECT id FROM job WHERE name>=?1 AND name<?2 ORDER BY id DESC LIMIT ?3")                                 \
    X(JOBS, "SELECT " JOB_COLS " FROM job ORDER BY id DESC LIMIT ?2 OFFSET ?3")                                              \
    X(JOBS_IN, "SELECT " JOB_COLS " FROM job WHERE state=?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3")                            \
    X(JOBS_ACTIVE, "SELECT " JOB_COLS " FROM job WHERE state IN ('queued','running','paused','stopping') ORDER BY id")      \
    X(JOB_STATES, "SELECT state, count(*), sum(scored), sum(failed), sum(cancelled) FROM job GROUP BY state")                \
    X(TRIAL, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND idx=?2")                                                     \
    X(TRIALS, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND " DB_CANDIDATE " ORDER BY idx LIMIT ?3 OFFSET ?4") \
    X(TRIALS_OPEN, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND state IN ('waiting','running') AND state=?2"           \
                   " AND " DB_CANDIDATE " ORDER BY idx LIMIT ?3 OFFSET ?4")                                        \
    X(TRIALS_LOST, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND state IN ('failed','cancelled') AND state=?2"          \
                   " AND " DB_CANDIDATE " ORDER BY idx LIMIT ?3 OFFSET ?4")                                        \
    X(TRIALS_SCORED, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND state='scored' AND ?2 IS ?2 AND " DB_CANDIDATE " ORDER BY idx LIMIT ?3 OFFSET ?4") \
    /* The + keeps the planner from searching by idx, and so from sorting: trial_by_rung has the order. */                 \
    X(TRIALS_BEST, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND state='scored' AND +" DB_CANDIDATE                     \
                   " ORDER BY rung DESC, score DESC, idx LIMIT ?3 OFFSET ?4")                                                \
    X(TRIALS_VALID, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND state='scored' AND " DB_CANDIDATE                     \
                    " ORDER BY valid_score DESC, idx LIMIT ?3 OFFSET ?4")                                                    \
    X(TRIALS_AUDIT, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND " DB_AUDITS " ORDER BY idx LIMIT ?3 OFFSET ?4")          \
    X(TRIALS_FROM, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND idx>=?2 AND " DB_CANDIDATE " ORDER BY idx LIMIT ?3")    \
    X(REQUEST, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND request=?2 AND request<>'' ORDER BY idx")                  \
    X(TRIALS_WARMUP, "SELECT " TRIAL_COLS " FROM trial WHERE job=?1 AND " DB_WARMUP " ORDER BY idx LIMIT ?3 OFFSET ?4")       \
    X(TEACH, "SELECT job,meta_step,seconds,meta_loss,accuracy,held_out FROM (SELECT * FROM teach_history WHERE job=?1"       \
             " ORDER BY meta_step DESC LIMIT ?2) ORDER BY meta_step")                                                        \
    X(EVENTS, "SELECT at_ms,trial,kind,text FROM job_event WHERE job=?1 ORDER BY id DESC LIMIT ?3")                          \
    X(EVENTS_OF, "SELECT at_ms,trial,kind,text FROM job_event WHERE job=?1 AND trial=?2 ORDER BY id DESC LIMIT ?3")          \
    X(BLOB_BY_NAME, "SELECT kind,name,hash,bytes,added_ms FROM blob_name WHERE kind=?1 AND name=?2")                         \
    X(BLOB_BY_HASH, "SELECT kind,name,hash,bytes,added_ms FROM blob_name WHERE kind=?1 AND hash>=?2 AND hash<?2||'g'"         \
                    " AND length(?2)>=12 LIMIT 1")                                                                           \
    X(BLOBS, "SELECT kind,name,hash,bytes,added_ms FROM blob_name WHERE kind=?1 ORDER BY name LIMIT ?2")                     \
    X(BOOK, "SELECT " DB_BOOK_COLS " FROM book WHERE key=?1")                                                                \
    X(BOOK_ANY, "SELECT 1 FROM book WHERE dataset=?1 AND curriculum=?2 AND fidelity=?3 AND engine=?4 LIMIT 1")               \
    X(BOOK_ROWS, "SELECT " DB_BOOK_COLS " FROM book WHERE key>?1 ORDER BY key LIMIT ?2")                                     \
    X(BOOK_COUNT, "SELECT count(*) FROM book")                                                                               \
    X(BYTES, "SELECT page_count*page_size FROM pragma_page_count, pragma_page_size")

#define STMT_ENUM(name, sql) R_##name,
#define STMT_SQL(name, sql) [R_##name] = sql,
enum stmt { STMTS(STMT_ENUM) STMT_COUNT };
static const char *const stmt_sql[STMT_COUNT] = { STMTS(STMT_SQL) };

struct reader {
    sqlite3      *db;
    sqlite3_stmt *st[STMT_COUNT];
};

int reader_open(struct reader **out, const char *path, struct errbuf *e)
{
    struct reader *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return err_set(e, ERR_NOMEM, "store");
    int rc = db_open(&r->db, path, false, e);
    for (int i = 0; i < STMT_COUNT && rc == 0; i++)
        rc = db_prepare(r->db, stmt_sql[i], &r->st[i], e);
    if (rc < 0) {
        reader_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void reader_close(struct reader *r)
{
    if (!r)
        return;
    for (int i = 0; i < STMT_COUNT; i++)
        sqlite3_finalize(r->st[i]);
    sqlite3_close(r->db);
    free(r);
}

static sqlite3_stmt *start(struct reader *r, enum stmt k)
{
    sqlite3_reset(r->st[k]);
    sqlite3_clear_bindings(r->st[k]);
    return r->st[k];
}

/* 1: a row; 0: the end, the statement is reset; negative: an error, reset too. */
static int next(struct reader *r, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        return 1;
    int ret = rc == SQLITE_DONE ? 0 : db_error(r->db, NULL, "store");
    sqlite3_reset(s);
    return ret;
}

static double column_real(sqlite3_stmt *s, int i)
{
    return sqlite3_column_type(s, i) == SQLITE_NULL ? NAN : sqlite3_column_double(s, i);
}

static int64_t column_id(sqlite3_stmt *s, int i) /* -1 for NULL */
{
    return sqlite3_column_type(s, i) == SQLITE_NULL ? -1 : sqlite3_column_int64(s, i);
}

static void job_from(sqlite3_stmt *s, struct job_row *j)
{
    static const enum fail_reason column[5] = { FAIL_NAN, FAIL_OOM, FAIL_TIMEOUT, FAIL_CRASH, FAIL_INPUT };
    memset(j, 0, sizeof *j);
    j->id = (uint64_t)sqlite3_column_int64(s, 0);
    db_text(s, 1, j->name, sizeof j->name);
    j->kind = (enum job_kind)job_kind_from((const char *)sqlite3_column_text(s, 2));
    j->state = (enum job_state)job_state_from((const char *)sqlite3_column_text(s, 3));
    j->created_ms = sqlite3_column_int64(s, 4);
    j->started_ms = sqlite3_column_int64(s, 5);
    j->ended_ms = sqlite3_column_int64(s, 6);
    db_text(s, 7, j->reason, sizeof j->reason);
    j->total = (uint64_t)sqlite3_column_int64(s, 8);
    j->n.scored = (uint64_t)sqlite3_column_int64(s, 9);
    j->n.failed = (uint64_t)sqlite3_column_int64(s, 10);
    j->n.cancelled = (uint64_t)sqlite3_column_int64(s, 11);
    for (int k = 0; k < 5; k++)
        j->n.reason[column[k]] = (uint64_t)sqlite3_column_int64(s, 12 + k);
    j->best_trial = column_id(s, 17);
    const char *spec = (const char *)sqlite3_column_text(s, 18);
    j->spec_json = strdup(spec ? spec : "{}");
    j->idle_ms = sqlite3_column_int64(s, 19);
}

static enum trial_group group_from(const char *s)
{
    for (int g = 0; g < GROUP_COUNT; g++)
        if (s && strcmp(s, trial_group_name((enum trial_group)g)) == 0)
            return (enum trial_group)g;
    return GROUP_NONE;
}

static void result_from(sqlite3_stmt *s, struct trial_row *t)
{
    struct trial_result *r = &t->r;
    double steps[MAX_CHECKPOINTS];
    const char *reason = (const char *)sqlite3_column_text(s, 16);
    r->state = t->state;
    r->reason = reason && *reason ? (enum fail_reason)fail_reason_from(reason) : FAIL_NONE;
    db_text(s, 17, r->detail, sizeof r->detail);
    r->score = column_real(s, 18);
    r->score_se = column_real(s, 19);
    r->n_inits = db_doubles_parse((const char *)sqlite3_column_text(s, 20), r->init_score, MAX_INITS);
    r->n_checkpoints = db_doubles_parse((const char *)sqlite3_column_text(s, 21), steps, MAX_CHECKPOINTS);
    for (int i = 0; i < r->n_checkpoints; i++)
        r->checkpoint[i] = (int)steps[i];
    db_doubles_parse((const char *)sqlite3_column_text(s, 22), r->checkpoint_score, MAX_CHECKPOINTS);
    r->loss_sum = column_real(s, 23);
    r->lr_scale = column_real(s, 24);
    r->valid_score = column_real(s, 25);
    r->params = (uint64_t)sqlite3_column_int64(s, 26);
    r->macs = (uint64_t)sqlite3_column_int64(s, 27);
    r->meta_steps = sqlite3_column_int(s, 28);
    db_text(s, 29, r->artifact, sizeof r->artifact);
    db_text(s, 30, r->checkpoint_blob, sizeof r->checkpoint_blob);
    r->seconds = column_real(s, 31);
    r->mem_bytes = (uint64_t)sqlite3_column_int64(s, 32);
    db_zero_cost_parse((const char *)sqlite3_column_text(s, 34), &r->zero_cost);
    r->latency_ms = sqlite3_column_double(s, 39);
}

static void trial_from(sqlite3_stmt *s, struct trial_row *t)
{
    memset(t, 0, sizeof *t);
    t->job = (uint64_t)sqlite3_column_int64(s, 0);
    t->idx = (uint64_t)sqlite3_column_int64(s, 1);
    t->state = (enum trial_state)trial_state_from((const char *)sqlite3_column_text(s, 2));
    db_text(s, 3, t->arch, sizeof t->arch);
    db_text(s, 4, t->arch_hash, sizeof t->arch_hash);
    t->parent = column_id(s, 5);
    t->seed = (uint64_t)sqlite3_column_int64(s, 6);
    t->attempt = (uint32_t)sqlite3_column_int64(s, 7);
    t->deaths = (uint32_t)sqlite3_column_int64(s, 8);
    db_text(s, 9, t->worker, sizeof t->worker);
    t->worker_pid = (uint64_t)sqlite3_column_int64(s, 10);
    t->group = group_from((const char *)sqlite3_column_text(s, 11));
    t->proxy = column_real(s, 12);
    t->created_ms = sqlite3_column_int64(s, 13);
    t->ended_ms = sqlite3_column_int64(s, 14);
    db_text(s, 15, t->checkpoint, sizeof t->checkpoint);
    t->rung = sqlite3_column_int(s, 36);
    result_from(s, t);
    t->told_failed = sqlite3_column_int(s, 33) != 0;
    t->from_book = sqlite3_column_int(s, 35);
    db_text(s, 37, t->tag, sizeof t->tag);
    db_text(s, 38, t->request, sizeof t->request);
}

void db_book_row(sqlite3_stmt *s, struct book_row *out)
{
    static _Thread_local struct trial_row t; /* large, and read for every row */
    struct { char *to; size_t cap; } own[] = { { out->space, sizeof out->space }, { out->dataset, sizeof out->dataset },
                                               { out->curriculum, sizeof out->curriculum }, { out->fidelity, sizeof out->fidelity },
                                               { out->engine, sizeof out->engine } };
    trial_from(s, &t);
    memset(out, 0, sizeof *out);
    memcpy(out->arch, t.arch, sizeof out->arch);
    memcpy(out->arch_hash, t.arch_hash, sizeof out->arch_hash);
    out->seed = t.seed;
    out->r = t.r;
    for (int i = 0; i < 5; i++)
        db_text(s, DB_BOOK_SPACE + i, own[i].to, own[i].cap);
}

uint64_t reader_last_job(struct reader *r)
{
    sqlite3_stmt *s = start(r, R_LAST_JOB);
    uint64_t id = next(r, s) == 1 ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return id;
}

int reader_job(struct reader *r, uint64_t id, struct job_row *out)
{
    sqlite3_stmt *s = start(r, R_JOB);
    sqlite3_bind_int64(s, 1, (int64_t)id);
    int rc = next(r, s);
    if (rc == 1)
        job_from(s, out);
    sqlite3_reset(s);
    return rc;
}

int reader_job_bearers(struct reader *r, const char *name, uint64_t *ids, int cap)
{
    sqlite3_stmt *s = start(r, R_JOB_EXACT);
    int rc = 0, n = 0;
    sqlite3_bind_text(s, 1, name, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(s, 2, cap);
    while (n < cap && (rc = next(r, s)) == 1)
        ids[n++] = (uint64_t)sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    return rc < 0 ? rc : n;
}

int reader_job_named(struct reader *r, const char *name, uint64_t *ids, int cap)
{
    int n = reader_job_bearers(r, name, ids, 1), rc = 0;
    if (n != 0)
        return n;
    char end[NAME_MAX_LEN + 8];
    snprintf(end, sizeof end, "%.*s\xF4\x8F\xBF\xBF", NAME_MAX_LEN, name); /* the last code point: ends the range */
    sqlite3_stmt *s = start(r, R_JOB_PREFIX);
    sqlite3_bind_text(s, 1, name, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(s, 2, end, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(s, 3, cap);
    while (n < cap && (rc = next(r, s)) == 1)
        ids[n++] = (uint64_t)sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    return rc < 0 ? rc : n;
}

static int each_job(struct reader *r, sqlite3_stmt *s, bool (*on)(void *arg, struct job_row *row), void *arg)
{
    int n = 0, rc;
    while ((rc = next(r, s)) == 1) {
        struct job_row j;
        job_from(s, &j);
        n++;
        bool more = on(arg, &j);
        job_row_fini(&j);
        if (!more)
            break;
    }
    sqlite3_reset(s);
    return rc < 0 ? rc : n;
}

int reader_jobs(struct reader *r, int state, uint64_t offset, int limit, bool (*on)(void *arg, struct job_row *row), void *arg)
{
    sqlite3_stmt *s = start(r, state < 0 ? R_JOBS : R_JOBS_IN);
    if (state >= 0)
        sqlite3_bind_text(s, 1, job_state_name((enum job_state)state), -1, SQLITE_STATIC);
    sqlite3_bind_int(s, 2, limit);
    sqlite3_bind_int64(s, 3, (int64_t)offset);
    return each_job(r, s, on, arg);
}

int reader_active_jobs(struct reader *r, bool (*on)(void *arg, struct job_row *row), void *arg)
{
    return each_job(r, start(r, R_JOBS_ACTIVE), on, arg);
}

int reader_job_states(struct reader *r, uint64_t n[JOB_STATE_COUNT], struct job_counts *ended)
{
    sqlite3_stmt *s = start(r, R_JOB_STATES);
    int rc, seen = 0;
    memset(n, 0, JOB_STATE_COUNT * sizeof *n);
    memset(ended, 0, sizeof *ended);
    while ((rc = next(r, s)) == 1) {
        int state = job_state_from((const char *)sqlite3_column_text(s, 0));
        if (state >= 0)
            n[state] = (uint64_t)sqlite3_column_int64(s, 1);
        ended->scored += (uint64_t)sqlite3_column_int64(s, 2);
        ended->failed += (uint64_t)sqlite3_column_int64(s, 3);
        ended->cancelled += (uint64_t)sqlite3_column_int64(s, 4);
        seen++;
    }
    return rc < 0 ? rc : seen;
}

int reader_trial(struct reader *r, uint64_t job, uint64_t idx, struct trial_row *out)
{
    sqlite3_stmt *s = start(r, R_TRIAL);
    sqlite3_bind_int64(s, 1, (int64_t)job);
    sqlite3_bind_int64(s, 2, (int64_t)idx);
    int rc = next(r, s);
    if (rc == 1)
        trial_from(s, out);
    sqlite3_reset(s);
    return rc;
}

static enum stmt trials_stmt(int state, enum trial_sort sort)
{
    if (sort == SORT_SCORE)
        return R_TRIALS_BEST;
    if (sort == SORT_VALID)
        return R_TRIALS_VALID;
    if (sort == SORT_AUDIT)
        return R_TRIALS_AUDIT;
    if (sort == SORT_WARMUP)
        return R_TRIALS_WARMUP;
    switch (state) {
    case -1: return R_TRIALS;
    case TRIAL_SCORED: return R_TRIALS_SCORED;
    case TRIAL_WAITING:
    case TRIAL_RUNNING: return R_TRIALS_OPEN;
    default: return R_TRIALS_LOST;
    }
}

static int each_trial(struct reader *r, sqlite3_stmt *s, bool (*on)(void *arg, const struct trial_row *row), void *arg)
{
    int rc = -ERR_NOMEM, n = 0;
    struct trial_row *t = malloc(sizeof *t);
    while (t && (rc = next(r, s)) == 1) {
        trial_from(s, t);
        n++;
        if (!on(arg, t))
            break;
    }
    sqlite3_reset(s);
    free(t);
    return rc < 0 ? rc : n;
}

int reader_trials(struct reader *r, uint64_t job, int state, enum trial_sort sort, uint64_t offset, int64_t limit,
                  bool (*on)(void *arg, const struct trial_row *row), void *arg)
{
    sqlite3_stmt *s = start(r, trials_stmt(state, sort));
    sqlite3_bind_int64(s, 1, (int64_t)job);
    if (state >= 0 && sort == SORT_INDEX)
        sqlite3_bind_text(s, 2, trial_state_name((enum trial_state)state), -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 3, limit > 0 ? limit : -1);
    sqlite3_bind_int64(s, 4, (int64_t)offset);
    return each_trial(r, s, on, arg);
}

int reader_trials_from(struct reader *r, uint64_t job, uint64_t from, int limit, bool (*on)(void *arg, const struct trial_row *row), void *arg)
{
    sqlite3_stmt *s = start(r, R_TRIALS_FROM);
    sqlite3_bind_int64(s, 1, (int64_t)job);
    sqlite3_bind_int64(s, 2, (int64_t)from);
    sqlite3_bind_int(s, 3, limit);
    return each_trial(r, s, on, arg);
}

int reader_request(struct reader *r, uint64_t job, const char *request, bool (*on)(void *arg, const struct trial_row *row), void *arg)
{
    sqlite3_stmt *s = start(r, R_REQUEST);
    sqlite3_bind_int64(s, 1, (int64_t)job);
    sqlite3_bind_text(s, 2, request, -1, SQLITE_TRANSIENT);
    return each_trial(r, s, on, arg);
}

int reader_events(struct reader *r, uint64_t job, int64_t trial, int limit, bool (*on)(void *arg, const struct event_row *ev), void *arg)
{
    sqlite3_stmt *s = start(r, trial < 0 ? R_EVENTS : R_EVENTS_OF);
    sqlite3_bind_int64(s, 1, (int64_t)job);
    if (trial >= 0)
        sqlite3_bind_int64(s, 2, trial);
    sqlite3_bind_int(s, 3, limit);
    int rc, n = 0;
    while ((rc = next(r, s)) == 1) {
        struct event_row ev = { .at_ms = sqlite3_column_int64(s, 0), .trial = column_id(s, 1) };
        db_text(s, 2, ev.kind, sizeof ev.kind);
        db_text(s, 3, ev.text, sizeof ev.text);
        n++;
        if (!on(arg, &ev))
            break;
    }
    sqlite3_reset(s);
    return rc < 0 ? rc : n;
}

int reader_teach_points(struct reader *r, uint64_t job, int limit, bool (*on)(void *arg, const struct teach_point *p), void *arg)
{
    sqlite3_stmt *s = start(r, R_TEACH);
    sqlite3_bind_int64(s, 1, (int64_t)job);
    sqlite3_bind_int(s, 2, limit);
    int rc, n = 0;
    while ((rc = next(r, s)) == 1) {
        struct teach_point p = { .job = job, .meta_step = column_real(s, 1), .seconds = column_real(s, 2),
                                 .meta_loss = column_real(s, 3), .accuracy = column_real(s, 4), .held_out = column_real(s, 5) };
        n++;
        if (!on(arg, &p))
            break;
    }
    sqlite3_reset(s);
    return rc < 0 ? rc : n;
}

static void blob_from(sqlite3_stmt *s, struct blob_name *b)
{
    db_text(s, 0, b->kind, sizeof b->kind);
    db_text(s, 1, b->name, sizeof b->name);
    db_text(s, 2, b->hash, sizeof b->hash);
    b->bytes = (uint64_t)sqlite3_column_int64(s, 3);
    b->added_ms = sqlite3_column_int64(s, 4);
}

int reader_blob(struct reader *r, const char *kind, const char *name_or_hash, struct blob_name *out)
{
    static const enum stmt order[2] = { R_BLOB_BY_NAME, R_BLOB_BY_HASH };
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0; i++) {
        sqlite3_stmt *s = start(r, order[i]);
        sqlite3_bind_text(s, 1, kind, -1, SQLITE_TRANSIENT);
        sqlite3_bind_text(s, 2, name_or_hash, -1, SQLITE_TRANSIENT);
        rc = next(r, s);
        if (rc == 1)
            blob_from(s, out);
        sqlite3_reset(s);
    }
    return rc;
}

int reader_blobs(struct reader *r, const char *kind, int limit, bool (*on)(void *arg, const struct blob_name *b), void *arg)
{
    sqlite3_stmt *s = start(r, R_BLOBS);
    sqlite3_bind_text(s, 1, kind, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(s, 2, limit);
    int rc, n = 0;
    while ((rc = next(r, s)) == 1) {
        struct blob_name b;
        blob_from(s, &b);
        n++;
        if (!on(arg, &b))
            break;
    }
    sqlite3_reset(s);
    return rc < 0 ? rc : n;
}

int reader_book(struct reader *r, const char *key, struct book_row *out)
{
    sqlite3_stmt *s = start(r, R_BOOK);
    sqlite3_bind_text(s, 1, key, -1, SQLITE_TRANSIENT);
    int rc = next(r, s);
    if (rc == 1)
        db_book_row(s, out);
    sqlite3_reset(s);
    return rc;
}

int reader_book_any(struct reader *r, const char *dataset, const char *curriculum, const char *fidelity, const char *engine)
{
    const char *text[] = { dataset, curriculum, fidelity, engine };
    sqlite3_stmt *s = start(r, R_BOOK_ANY);
    for (int i = 0; i < 4; i++)
        sqlite3_bind_text(s, i + 1, text[i], -1, SQLITE_TRANSIENT);
    int rc = next(r, s);
    sqlite3_reset(s);
    return rc;
}

int reader_book_rows(struct reader *r, const char *after_key, int limit, bool (*on)(void *arg, const char *key, const struct book_row *b), void *arg)
{
    struct book_row *b = malloc(sizeof *b);
    sqlite3_stmt *s = start(r, R_BOOK_ROWS);
    int rc = -ERR_NOMEM, n = 0;
    sqlite3_bind_text(s, 1, after_key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(s, 2, limit);
    while (b && (rc = next(r, s)) == 1) {
        db_book_row(s, b);
        n++;
        if (!on(arg, (const char *)sqlite3_column_text(s, DB_BOOK_SPACE + 5), b))
            break;
    }
    sqlite3_reset(s);
    free(b);
    return rc < 0 ? rc : n;
}

int reader_book_count(struct reader *r, uint64_t *n)
{
    sqlite3_stmt *s = start(r, R_BOOK_COUNT);
    int rc = next(r, s);
    *n = rc == 1 ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return rc < 0 ? rc : 0;
}

uint64_t reader_db_bytes(struct reader *r)
{
    sqlite3_stmt *s = start(r, R_BYTES);
    uint64_t n = next(r, s) == 1 ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return n;
}
