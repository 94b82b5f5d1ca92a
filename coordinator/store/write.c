/* write.c - the operations of store.h as SQL. A statement is prepared once; bind, step and reset stay in one function. */
#include "coordinator/store/db.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STMTS(X)                                                                                                            \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                                             \
    X(COMMIT, "COMMIT")                                                                                                     \
    X(ROLLBACK, "ROLLBACK")                                                                                                 \
    X(SAVE, "SAVEPOINT op")                                                                                                 \
    X(RELEASE, "RELEASE op")                                                                                                \
    X(UNDO, "ROLLBACK TO op")                                                                                               \
    X(JOB_INSERT, "INSERT INTO job(id,name,kind,state,spec,created_ms,total) VALUES(?1,?2,?3,?4,?5,?6,?7)")                 \
    X(JOB_STATE, "UPDATE job SET state=?2, started_ms=?3, reason=?4 WHERE id=?1")                                           \
    X(JOB_END, "UPDATE job SET state=?2, started_ms=?3, reason=?4, ended_ms=?5, scored=?6, failed=?7, cancelled=?8, f_nan=?9," \
               " f_oom=?10, f_timeout=?11, f_crash=?12, f_input=?13, best_trial=?14 WHERE id=?1")                           \
    X(JOB_SPEC, "UPDATE job SET spec=?2 WHERE id=?1")                                                                       \
    X(JOB_REOPEN, "UPDATE job SET state=?2, spec=?3, idle_ms=?4, ended_ms=0, reason='', scored=0, failed=0, cancelled=0, f_nan=0," \
                  " f_oom=0, f_timeout=0, f_crash=0, f_input=0, best_trial=NULL WHERE id=?1 AND state IN ('succeeded','failed')")  \
    X(JOB_REWAIT, "UPDATE trial SET state='waiting', ended_ms=0 WHERE job=?1 AND state IN ('failed','cancelled')"            \
                  " AND state='cancelled'")                                                                                 \
    X(RETRY_EVENTS, "INSERT INTO job_event(job,trial,at_ms,kind,text) SELECT job, idx, ?2, 'retry', 'attempt '||attempt||" \
                    " ' failed('||reason||')'||iif(worker='','',' on '||worker)||iif(detail='','',': '||detail)"            \
                    " FROM trial WHERE job=?1 AND state IN ('failed','cancelled') AND state='failed' AND reason IN " RETRY_REASONS        \
                    " AND " DB_CANDIDATE)                                                                                   \
    X(RETRY, "UPDATE trial SET state='waiting', ended_ms=0, deaths=0, told_failed=1 WHERE job=?1"                           \
             " AND state IN ('failed','cancelled') AND state='failed' AND reason IN " RETRY_REASONS                         \
             " AND " DB_CANDIDATE)                                                                                          \
    X(EVENT, "INSERT INTO job_event(job,trial,at_ms,kind,text) VALUES(?1,?2,?3,?4,?5)")                                     \
    X(JOB_CANCEL_OPEN, "UPDATE trial SET state='cancelled', ended_ms=?2 WHERE job=?1 AND state IN ('waiting','running') AND " DB_CANDIDATE) \
    X(JOB_CANCEL_ADDED, "UPDATE trial SET state='cancelled', ended_ms=?2 WHERE job=?1 AND state IN ('waiting','running') AND " DB_ADDED) \
    X(TRIAL_INSERT, "INSERT INTO trial(job,idx,state,arch,arch_hash,parent,seed,attempt,deaths,grp,proxy,created_ms,rung,tag,request)"  \
                    " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)")                                          \
    /* Touches no row that has a result: a trial ends once. */                                                             \
    X(TRIAL_LEASE, "INSERT INTO trial(job,idx,state,arch,arch_hash,parent,seed,attempt,deaths,grp,proxy,created_ms,worker,worker_pid,rung)" \
                   " VALUES(?1,?2,'running',?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15) ON CONFLICT(job,idx) DO UPDATE SET"      \
                   " state='running', attempt=excluded.attempt, deaths=excluded.deaths, worker=excluded.worker,"           \
                   " worker_pid=excluded.worker_pid WHERE state IN ('waiting','running') AND attempt<excluded.attempt")     \
    X(TRIAL_REWAIT, "UPDATE trial SET state='waiting', deaths=?4 WHERE job=?1 AND idx=?2 AND attempt=?3 AND state='running'") \
    X(TRIAL_RESULT, "UPDATE trial SET state=?4, reason=?5, detail=?6, score=?7, score_se=?8, init_scores=?9,"               \
                    " checkpoint_steps=?10, checkpoint_scores=?11, loss_sum=?12, lr_scale=?13, valid_score=?14, params=?15," \
                    " macs=?16, meta_steps=?17, artifact=?18, result_checkpoint=?19, seconds=?20, mem_bytes=?21, ended_ms=?22," \
                    " deaths=max(deaths,?23), zero_cost=?24, latency_ms=?33 WHERE job=?1 AND idx=?2 AND attempt=?3 AND state='running'")                   \
    X(TRIAL_TAKE, "UPDATE trial SET state='running' WHERE job=?1 AND idx=?2 AND attempt=?3 AND state='waiting'")            \
    X(TRIAL_FROM_BOOK, "UPDATE trial SET from_book=1 WHERE job=?1 AND idx=?2")                                              \
    /* From ?4 on the numbers are those of TRIAL_RESULT. */                                                                \
    X(BOOK_INSERT, "INSERT INTO book(key,state,reason,detail,score,score_se,init_scores,checkpoint_steps,checkpoint_scores,loss_sum," \
                   "lr_scale,params,macs,seconds,zero_cost,space,arch,arch_hash,dataset,curriculum,fidelity,seed,engine)"   \
                   " VALUES(?1,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?15,?16,?20,?24,?25,?26,?27,?28,?29,?30,?31,?32)")         \
    X(BOOK_REMOVE, "DELETE FROM book WHERE key=?1")                                                                          \
    X(BOOK_LOOK, "SELECT " DB_BOOK_COLS " FROM book WHERE key=?1")                                                          \
    X(TRIAL_LOOK, "SELECT state, attempt FROM trial WHERE job=?1 AND idx=?2")                                               \
    X(TRIAL_CHECKPOINT, "UPDATE trial SET checkpoint=?4 WHERE job=?1 AND idx=?2 AND attempt=?3 AND state='running'")        \
    X(TEACH_POINT, "INSERT OR REPLACE INTO teach_history(job,meta_step,seconds,meta_loss,accuracy,held_out) VALUES(?1,?2,?3,?4,?5,?6)") \
    X(BLOB_NAME, "INSERT OR REPLACE INTO blob_name(kind,name,hash,bytes,added_ms) VALUES(?1,?2,?3,?4,?5)")                  \
    X(PROBE, "INSERT OR REPLACE INTO probe(id,at_ms) VALUES(1,?1)")

#define STMT_ENUM(name, sql) S_##name,
#define STMT_SQL(name, sql) [S_##name] = sql,
enum stmt { STMTS(STMT_ENUM) STMT_COUNT };
static const char *const stmt_sql[STMT_COUNT] = { STMTS(STMT_SQL) };

struct writer {
    sqlite3      *db; /* borrowed */
    sqlite3_stmt *st[STMT_COUNT];
};

const char *trial_group_name(enum trial_group g)
{
    static const char *const names[GROUP_COUNT] = { "", "top", "random", "list", "audit", "control", "warmup" };
    return g >= 0 && g < GROUP_COUNT ? names[g] : "";
}

int writer_open(struct writer **out, sqlite3 *db, struct errbuf *e)
{
    struct writer *w = calloc(1, sizeof *w);
    *out = w;
    if (!w)
        return err_set(e, ERR_NOMEM, "store");
    w->db = db;
    int rc = 0;
    for (int i = 0; i < STMT_COUNT && rc == 0; i++)
        rc = db_prepare(db, stmt_sql[i], &w->st[i], e);
    return rc;
}

void writer_close(struct writer *w)
{
    if (!w)
        return;
    for (int i = 0; i < STMT_COUNT; i++)
        sqlite3_finalize(w->st[i]);
    free(w);
}

/* Step a statement that gives no rows. */
static int run(struct writer *w, enum stmt k, struct errbuf *e)
{
    int rc = sqlite3_step(w->st[k]);
    int ret = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : db_error(w->db, e, "store");
    sqlite3_reset(w->st[k]);
    sqlite3_clear_bindings(w->st[k]);
    return ret;
}

int writer_begin(struct writer *w, struct errbuf *e)  { return run(w, S_BEGIN, e); }
int writer_commit(struct writer *w, struct errbuf *e) { return run(w, S_COMMIT, e); }

void writer_rollback(struct writer *w)
{
    struct errbuf e;
    if (!sqlite3_get_autocommit(w->db)) /* SQLite may have rolled back by itself */
        run(w, S_ROLLBACK, &e);
}

static void bind_text(sqlite3_stmt *s, int i, const char *t) { sqlite3_bind_text(s, i, t ? t : "", -1, SQLITE_TRANSIENT); }
static void bind_int(sqlite3_stmt *s, int i, int64_t v)      { sqlite3_bind_int64(s, i, v); }
static void bind_real(sqlite3_stmt *s, int i, double v)      { sqlite3_bind_double(s, i, v); } /* NaN becomes NULL */

static void bind_trial(sqlite3_stmt *s, const struct trial_row *t)
{
    bind_int(s, 1, (int64_t)t->job);
    bind_int(s, 2, (int64_t)t->idx);
    bind_text(s, 4, t->arch);
    bind_text(s, 5, t->arch_hash);
    if (t->parent >= 0)
        bind_int(s, 6, t->parent);
    bind_int(s, 7, (int64_t)t->seed);
    bind_int(s, 8, t->attempt);
    bind_int(s, 9, t->deaths);
    bind_text(s, 10, trial_group_name(t->group));
    bind_real(s, 11, t->proxy);
    bind_int(s, 12, t->created_ms);
}

static int trial_insert(struct writer *w, const struct trial_row *t, struct errbuf *e)
{
    sqlite3_stmt *s = w->st[S_TRIAL_INSERT];
    bind_trial(s, t);
    bind_text(s, 3, trial_state_name(t->state));
    bind_int(s, 13, t->rung);
    bind_text(s, 14, t->tag);
    bind_text(s, 15, t->request);
    return run(w, S_TRIAL_INSERT, e);
}

static int job_insert(struct writer *w, struct store_op *op)
{
    const struct job_row *j = &op->job.row;
    sqlite3_stmt *s = w->st[S_JOB_INSERT];
    bind_int(s, 1, (int64_t)j->id);
    bind_text(s, 2, j->name);
    bind_text(s, 3, job_kind_name(j->kind));
    bind_text(s, 4, job_state_name(j->state));
    bind_text(s, 5, j->spec_json);
    bind_int(s, 6, j->created_ms);
    bind_int(s, 7, (int64_t)j->total);
    int rc = run(w, S_JOB_INSERT, &op->err);
    for (size_t i = 0; i < op->job.n_trials && rc == 0; i++)
        rc = trial_insert(w, &op->job.trials[i], &op->err);
    return rc;
}

static void bind_job_state(sqlite3_stmt *s, const struct job_row *j)
{
    bind_int(s, 1, (int64_t)j->id);
    bind_text(s, 2, job_state_name(j->state));
    bind_int(s, 3, j->started_ms);
    bind_text(s, 4, j->reason);
}

static int job_state(struct writer *w, struct store_op *op)
{
    bind_job_state(w->st[S_JOB_STATE], &op->job.row);
    return run(w, S_JOB_STATE, &op->err);
}

static int job_end(struct writer *w, struct store_op *op)
{
    const struct job_row *j = &op->job.row;
    sqlite3_stmt *s = w->st[S_JOB_CANCEL_OPEN];
    bind_int(s, 1, (int64_t)j->id);
    bind_int(s, 2, j->ended_ms);
    int rc = run(w, S_JOB_CANCEL_OPEN, &op->err);
    if (rc < 0)
        return rc;
    int64_t cancelled = (int64_t)j->n.cancelled + sqlite3_changes(w->db);
    s = w->st[S_JOB_CANCEL_ADDED]; /* no candidates, and not counted with them */
    bind_int(s, 1, (int64_t)j->id);
    bind_int(s, 2, j->ended_ms);
    if ((rc = run(w, S_JOB_CANCEL_ADDED, &op->err)) < 0)
        return rc;
    s = w->st[S_JOB_END];
    bind_job_state(s, j);
    bind_int(s, 5, j->ended_ms);
    bind_int(s, 6, (int64_t)j->n.scored);
    bind_int(s, 7, (int64_t)j->n.failed);
    bind_int(s, 8, cancelled);
    for (int k = 0; k < 5; k++) {
        static const enum fail_reason column[5] = { FAIL_NAN, FAIL_OOM, FAIL_TIMEOUT, FAIL_CRASH, FAIL_INPUT };
        bind_int(s, 9 + k, (int64_t)j->n.reason[column[k]]);
    }
    if (j->best_trial >= 0)
        bind_int(s, 14, j->best_trial);
    return run(w, S_JOB_END, &op->err);
}

static int add_event(struct writer *w, struct store_op *op)
{
    const struct event_row *ev = &op->event;
    sqlite3_stmt *s = w->st[S_EVENT];
    if (!ev->kind[0])
        return 0;
    bind_int(s, 1, (int64_t)op->job.row.id);
    if (ev->trial >= 0)
        bind_int(s, 2, ev->trial);
    bind_int(s, 3, ev->at_ms);
    bind_text(s, 4, ev->kind);
    bind_text(s, 5, ev->text);
    return run(w, S_EVENT, &op->err);
}

static int job_spec(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_JOB_SPEC];
    bind_int(s, 1, (int64_t)op->job.row.id);
    bind_text(s, 2, op->job.row.spec_json);
    int rc = run(w, S_JOB_SPEC, &op->err);
    return rc < 0 ? rc : add_event(w, op);
}

/* What is written down first is how each of them failed: the row itself is the next attempt's. */
static int trial_retry(struct writer *w, struct store_op *op)
{
    bind_int(w->st[S_RETRY_EVENTS], 1, (int64_t)op->job.row.id);
    bind_int(w->st[S_RETRY_EVENTS], 2, op->event.at_ms);
    bind_int(w->st[S_RETRY], 1, (int64_t)op->job.row.id);
    int rc = run(w, S_RETRY_EVENTS, &op->err);
    if (rc == 0)
        rc = run(w, S_RETRY, &op->err);
    if (rc == 0)
        op->n_retried = (uint64_t)sqlite3_changes(w->db);
    return rc;
}

static int job_reopen(struct writer *w, struct store_op *op)
{
    const struct job_row *j = &op->job.row;
    sqlite3_stmt *s = w->st[S_JOB_REOPEN];
    bind_int(s, 1, (int64_t)j->id);
    bind_text(s, 2, job_state_name(j->state));
    bind_text(s, 3, j->spec_json);
    bind_int(s, 4, j->idle_ms);
    int rc = run(w, S_JOB_REOPEN, &op->err);
    if (rc == 0 && sqlite3_changes(w->db) == 0)
        return err_set(&op->err, ERR_STATE, "job %llu has been opened again before", (unsigned long long)j->id);
    bind_int(w->st[S_JOB_REWAIT], 1, (int64_t)j->id);
    if (rc == 0)
        rc = run(w, S_JOB_REWAIT, &op->err);
    if (rc == 0 && op->retry)
        rc = trial_retry(w, op);
    return rc < 0 ? rc : add_event(w, op);
}

static int trial_propose(struct writer *w, struct store_op *op)
{
    int rc = 0;
    for (size_t i = 0; i < op->job.n_trials && rc == 0; i++)
        rc = trial_insert(w, &op->job.trials[i], &op->err);
    return rc;
}

static int trial_lease(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_TRIAL_LEASE];
    bind_trial(s, &op->trial);
    bind_text(s, 13, op->trial.worker);
    bind_int(s, 14, (int64_t)op->trial.worker_pid);
    bind_int(s, 15, op->trial.rung);
    int rc = run(w, S_TRIAL_LEASE, &op->err);
    if (rc == 0 && sqlite3_changes(w->db) == 0)
        rc = err_set(&op->err, ERR_STATE, "trial %llu of job %llu cannot be given out again", (unsigned long long)op->trial.idx,
                     (unsigned long long)op->trial.job);
    return rc;
}

static void bind_ref(sqlite3_stmt *s, const struct trial_row *t)
{
    bind_int(s, 1, (int64_t)t->job);
    bind_int(s, 2, (int64_t)t->idx);
    bind_int(s, 3, t->attempt);
}

static int trial_rewait(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_TRIAL_REWAIT];
    bind_ref(s, &op->trial);
    bind_int(s, 4, op->trial.deaths);
    return run(w, S_TRIAL_REWAIT, &op->err);
}

static void bind_result(sqlite3_stmt *s, const struct trial_result *r)
{
    char list[DB_LIST_TEXT];
    double steps[MAX_CHECKPOINTS];
    bind_text(s, 4, trial_state_name(r->state));
    bind_text(s, 5, r->reason == FAIL_NONE ? "" : fail_reason_name(r->reason));
    bind_text(s, 6, r->detail);
    bind_real(s, 7, r->score);
    bind_real(s, 8, r->score_se);
    db_doubles_text(list, sizeof list, r->init_score, r->n_inits);
    bind_text(s, 9, list);
    for (int i = 0; i < r->n_checkpoints; i++)
        steps[i] = r->checkpoint[i];
    db_doubles_text(list, sizeof list, steps, r->n_checkpoints);
    bind_text(s, 10, list);
    db_doubles_text(list, sizeof list, r->checkpoint_score, r->n_checkpoints);
    bind_text(s, 11, list);
    bind_real(s, 12, r->loss_sum);
    bind_real(s, 13, r->lr_scale);
    bind_real(s, 14, r->valid_score);
    bind_int(s, 15, (int64_t)r->params);
    bind_int(s, 16, (int64_t)r->macs);
    bind_int(s, 17, r->meta_steps);
    bind_text(s, 18, r->artifact);
    bind_text(s, 19, r->checkpoint_blob);
    bind_real(s, 20, r->seconds);
    bind_int(s, 21, (int64_t)r->mem_bytes);
    db_zero_cost_text(list, sizeof list, &r->zero_cost);
    bind_text(s, 24, list);
}

/* Zero rows touched: recorded before by this very attempt, or not this attempt's to record (STYLE.md, section 8). */
static int look_outcome(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_TRIAL_LOOK];
    bind_int(s, 1, (int64_t)op->trial.job);
    bind_int(s, 2, (int64_t)op->trial.idx);
    int step = sqlite3_step(s), rc = 0;
    op->outcome = ACK_STALE;
    if (step == SQLITE_ROW) {
        int state = trial_state_from((const char *)sqlite3_column_text(s, 0));
        if ((state == TRIAL_SCORED || state == TRIAL_FAILED || state == TRIAL_PRUNED) &&
            sqlite3_column_int64(s, 1) == (int64_t)op->trial.attempt)
            op->outcome = ACK_DUPLICATE;
    } else if (step != SQLITE_DONE) {
        rc = db_error(w->db, &op->err, "store");
    }
    sqlite3_reset(s);
    return rc;
}

/* ---- the score book ---- */

static int book_insert(struct writer *w, const struct book_row *b, struct errbuf *e)
{
    sqlite3_stmt *s = w->st[S_BOOK_INSERT];
    const char *text[] = { b->space, b->arch, b->arch_hash, b->dataset, b->curriculum, b->fidelity };
    char key[BOOK_KEY_LEN + 1];
    book_key(b, key);
    bind_text(s, 1, key);
    bind_result(s, &b->r);
    for (int i = 0; i < 6; i++)
        bind_text(s, 25 + i, text[i]);
    bind_int(s, 31, (int64_t)b->seed);
    bind_text(s, 32, b->engine);
    return run(w, S_BOOK_INSERT, e);
}

enum { BOOK_NEW, BOOK_SAME, BOOK_OTHER };

static int book_look(struct writer *w, const struct book_row *b, struct errbuf *e)
{
    sqlite3_stmt *s = w->st[S_BOOK_LOOK];
    char key[BOOK_KEY_LEN + 1];
    struct book_row *have = malloc(sizeof *have);
    int step, rc = BOOK_NEW;
    if (!have)
        return err_set(e, ERR_NOMEM, "store");
    book_key(b, key);
    bind_text(s, 1, key);
    step = sqlite3_step(s);
    if (step == SQLITE_ROW) {
        db_book_row(s, have);
        rc = book_same(&have->r, &b->r) ? BOOK_SAME : BOOK_OTHER;
    } else if (step != SQLITE_DONE) {
        rc = db_error(w->db, e, "store");
    }
    sqlite3_reset(s);
    free(have);
    return rc;
}

static int trial_result(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_TRIAL_RESULT];
    bind_ref(s, &op->trial);
    bind_result(s, &op->trial.r);
    bind_int(s, 22, op->trial.ended_ms);
    bind_int(s, 23, op->trial.deaths);
    bind_real(s, 33, op->trial.r.latency_ms > 0 ? op->trial.r.latency_ms : 0);
    int rc = run(w, S_TRIAL_RESULT, &op->err);
    if (rc < 0)
        return rc;
    op->outcome = ACK_RECORDED;
    if (!sqlite3_changes(w->db))
        return look_outcome(w, op);
    if (!op->filed)
        return 0;
    rc = book_look(w, op->filed, &op->err);
    op->conflict = rc == BOOK_OTHER;
    return rc == BOOK_NEW ? book_insert(w, op->filed, &op->err) : rc < 0 ? rc : 0;
}

static int trial_booked(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_TRIAL_FROM_BOOK];
    bind_ref(w->st[S_TRIAL_TAKE], &op->trial);
    int rc = run(w, S_TRIAL_TAKE, &op->err);
    if (rc == 0 && sqlite3_changes(w->db) == 0)
        rc = trial_insert(w, &op->trial, &op->err);
    if (rc == 0 && (rc = trial_result(w, op)) == 0) {
        bind_int(s, 1, (int64_t)op->trial.job);
        bind_int(s, 2, (int64_t)op->trial.idx);
        rc = run(w, S_TRIAL_FROM_BOOK, &op->err);
    }
    return rc;
}

static int book_remove(struct writer *w, struct store_op *op)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < op->book.n; i++) {
        char key[BOOK_KEY_LEN + 1];
        book_key(&op->book.row[i], key);
        bind_text(w->st[S_BOOK_REMOVE], 1, key);
        if ((rc = run(w, S_BOOK_REMOVE, &op->err)) == 0)
            op->book.added += (size_t)sqlite3_changes(w->db);
    }
    return rc;
}

static int book_add(struct writer *w, struct store_op *op)
{
    int rc = op->book.remove ? book_remove(w, op) : 0;
    for (size_t i = 0; rc >= 0 && !op->book.remove && i < op->book.n; i++) {
        const struct book_row *b = &op->book.row[i];
        rc = book_look(w, b, &op->err);
        if (rc == BOOK_OTHER)
            rc = err_set(&op->err, ERR_STATE, "row %zu: the book has other numbers for %.120s%s (seed %llu, %.200s%s)", op->book.first + i, b->arch,
                         strlen(b->arch) > 120 ? "…" : "", (unsigned long long)b->seed, b->fidelity, strlen(b->fidelity) > 200 ? "…" : "");
        op->book.added += rc == BOOK_NEW;
        if (rc == BOOK_NEW && !op->book.check_only)
            rc = book_insert(w, b, &op->err);
    }
    return rc < 0 ? rc : 0;
}

static int trial_checkpoint(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_TRIAL_CHECKPOINT];
    bind_ref(s, &op->trial);
    bind_text(s, 4, op->trial.checkpoint);
    return run(w, S_TRIAL_CHECKPOINT, &op->err);
}

static int teach_point(struct writer *w, struct store_op *op)
{
    const struct teach_point *p = &op->point;
    sqlite3_stmt *s = w->st[S_TEACH_POINT];
    bind_int(s, 1, (int64_t)p->job);
    bind_real(s, 2, p->meta_step);
    bind_real(s, 3, p->seconds);
    bind_real(s, 4, p->meta_loss);
    bind_real(s, 5, p->accuracy);
    bind_real(s, 6, p->held_out);
    return run(w, S_TEACH_POINT, &op->err);
}

static int blob_name(struct writer *w, struct store_op *op)
{
    sqlite3_stmt *s = w->st[S_BLOB_NAME];
    bind_text(s, 1, op->blob.kind);
    bind_text(s, 2, op->blob.name);
    bind_text(s, 3, op->blob.hash);
    bind_int(s, 4, (int64_t)op->blob.bytes);
    bind_int(s, 5, op->blob.added_ms);
    return run(w, S_BLOB_NAME, &op->err);
}

static int probe(struct writer *w, struct store_op *op)
{
    bind_int(w->st[S_PROBE], 1, (int64_t)op->tag);
    return run(w, S_PROBE, &op->err);
}

int writer_apply(struct writer *w, struct store_op *op)
{
    static const struct { int (*fn)(struct writer *, struct store_op *); bool many; } table[OP_KIND_COUNT] = {
        [OP_JOB_INSERT] = { job_insert, true },        [OP_JOB_STATE] = { job_state, false },
        [OP_JOB_END] = { job_end, true },              [OP_TRIAL_LEASE] = { trial_lease, false },
        [OP_JOB_SPEC] = { job_spec, true },            [OP_TRIAL_PROPOSE] = { trial_propose, true },
        [OP_JOB_REOPEN] = { job_reopen, true },        [OP_TRIAL_RETRY] = { trial_retry, true },
        [OP_TRIAL_REWAIT] = { trial_rewait, false },   [OP_TRIAL_RESULT] = { trial_result, false },
        [OP_TRIAL_BOOKED] = { trial_booked, true },    [OP_BOOK_ADD] = { book_add, true },
        [OP_TRIAL_CHECKPOINT] = { trial_checkpoint, false }, [OP_TEACH_POINT] = { teach_point, false },
        [OP_BLOB_NAME] = { blob_name, false },         [OP_PROBE] = { probe, false },
    };
    bool many = table[op->kind].many || op->filed; /* several statements: all or none of them */
    int rc = many ? run(w, S_SAVE, &op->err) : 0;
    if (rc < 0)
        return rc;
    rc = table[op->kind].fn(w, op);
    if (many) {
        struct errbuf e;
        if (rc < 0)
            run(w, S_UNDO, &e);
        int rel = run(w, S_RELEASE, rc < 0 ? &e : &op->err);
        rc = rc < 0 ? rc : rel;
    }
    return rc;
}
