/* store.c - the thread that writes, and its two queues.
 * in:  the loop appends; the thread takes the whole list at once, which is what makes a group.
 * out: the thread appends the finished group; the loop runs the callbacks in store_pump().
 * Both are ordered, so completions come in the order of store_put(). */
#include "coordinator/store/db.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_MAX 1024 /* operations a transaction: bounds the time until the first of them is acknowledged */

struct queue { struct store_op *head, **tail; };

struct store {
    sqlite3         *db;      /* the thread's */
    struct writer   *writer;  /* the thread's */
    struct store_cfg cfg;
    pthread_t        thread;
    bool             started;
    pthread_mutex_t  lock;
    pthread_cond_t   to_thread, to_loop;
    struct queue     in, out; /* under the lock, as all below */
    bool             stop;
    uint64_t         n_put, n_done; /* done: moved to `out` */
    struct store_stats stats;
};

static void queue_init(struct queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static void queue_add(struct queue *q, struct store_op *op)
{
    op->next = NULL;
    *q->tail = op;
    q->tail = &op->next;
}

static void queue_append(struct queue *q, struct queue *more)
{
    if (!more->head)
        return;
    *q->tail = more->head;
    q->tail = more->tail;
    queue_init(more);
}

struct store_op *store_op_new(enum store_kind kind)
{
    struct store_op *op = calloc(1, sizeof *op);
    if (op)
        op->kind = kind;
    return op;
}

void job_row_fini(struct job_row *r)
{
    free(r->spec_json);
    r->spec_json = NULL;
}

static void op_free(struct store_op *op)
{
    if (op->kind <= OP_TRIAL_RETRY) { /* those of jobs */
        job_row_fini(&op->job.row);
        free(op->job.trials);
    }
    if (op->kind == OP_BOOK_ADD)
        free(op->book.row);
    free(op->filed);
    free(op);
}

/* One transaction. A refusal of one operation (-ERR_INTERNAL: a constraint) is its own; running out of disk or memory is
 * everybody's. Returns whether the group was committed. */
static bool run_group(struct store *s, struct queue *group, uint64_t *rows)
{
    struct errbuf e = { 0 };
    int rc = writer_begin(s->writer, &e);
    *rows = 0;
    for (struct store_op *op = group->head; op && rc == 0; op = op->next) {
        op->rc = writer_apply(s->writer, op);
        (*rows)++;
        if (op->rc == -ERR_IO || op->rc == -ERR_NOMEM || op->rc == -ERR_BUSY || op->rc == -ERR_CORRUPT) {
            rc = op->rc;
            e = op->err;
        }
    }
    if (rc == 0 && s->cfg.fault) {
        int fault = s->cfg.fault(s->cfg.fault_arg);
        if (fault)
            rc = err_set(&e, (enum err)fault, "injected fault");
    }
    if (rc == 0)
        rc = writer_commit(s->writer, &e);
    if (rc == 0)
        return true;
    writer_rollback(s->writer);
    for (struct store_op *op = group->head; op; op = op->next) {
        op->rc = rc;
        op->err = e;
    }
    return false;
}

static void take_group(struct store *s, struct queue *group, uint64_t *n) /* under the lock */
{
    queue_init(group);
    for (*n = 0; s->in.head && *n < GROUP_MAX; (*n)++) {
        struct store_op *op = s->in.head;
        s->in.head = op->next;
        if (!s->in.head)
            queue_init(&s->in);
        queue_add(group, op);
    }
}

static void *thread_main(void *arg)
{
    struct store *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->in.head && !s->stop)
            pthread_cond_wait(&s->to_thread, &s->lock);
        if (!s->in.head)
            break;
        struct queue group;
        uint64_t n, rows;
        take_group(s, &group, &n);
        pthread_mutex_unlock(&s->lock);
        bool ok = run_group(s, &group, &rows);
        pthread_mutex_lock(&s->lock);
        s->stats.failing = !ok;
        if (ok) {
            s->stats.commits++;
            s->stats.rows += rows;
        } else {
            s->stats.failures++;
        }
        s->n_done += n;
        queue_append(&s->out, &group);
        pthread_cond_broadcast(&s->to_loop);
        if (s->cfg.wake)
            s->cfg.wake(s->cfg.wake_arg);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int store_open(struct store **out, const char *path, const struct store_cfg *cfg, struct errbuf *e)
{
    struct store *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "store");
    if (cfg)
        s->cfg = *cfg;
    queue_init(&s->in);
    queue_init(&s->out);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->to_thread, NULL);
    pthread_cond_init(&s->to_loop, NULL);
    int rc = db_open(&s->db, path, true, e);
    if (rc == 0)
        rc = writer_open(&s->writer, s->db, e);
    if (rc == 0 && pthread_create(&s->thread, NULL, thread_main, s) != 0)
        rc = err_set(e, ERR_NOMEM, "cannot start the store's thread");
    s->started = rc == 0;
    if (rc < 0) {
        store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_put(struct store *s, struct store_op *op)
{
    pthread_mutex_lock(&s->lock);
    queue_add(&s->in, op);
    s->n_put++;
    pthread_cond_signal(&s->to_thread);
    pthread_mutex_unlock(&s->lock);
}

int store_pump(struct store *s)
{
    struct queue ready;
    queue_init(&ready);
    pthread_mutex_lock(&s->lock);
    queue_append(&ready, &s->out);
    pthread_mutex_unlock(&s->lock);
    int n = 0;
    for (struct store_op *op = ready.head, *next; op; op = next, n++) {
        next = op->next;
        if (op->done)
            op->done(op);
        op_free(op);
    }
    return n;
}

void store_flush(struct store *s)
{
    for (;;) { /* completions may put more */
        pthread_mutex_lock(&s->lock);
        while (s->n_done < s->n_put && !s->out.head)
            pthread_cond_wait(&s->to_loop, &s->lock);
        bool empty = !s->out.head;
        pthread_mutex_unlock(&s->lock);
        if (empty)
            return;
        store_pump(s);
    }
}

void store_close(struct store *s)
{
    if (!s)
        return;
    if (s->started) {
        store_flush(s);
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->to_thread);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    writer_close(s->writer);
    sqlite3_close(s->db);
    pthread_cond_destroy(&s->to_loop);
    pthread_cond_destroy(&s->to_thread);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void store_stats(struct store *s, struct store_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->queued = s->n_put - s->n_done;
    pthread_mutex_unlock(&s->lock);
}
