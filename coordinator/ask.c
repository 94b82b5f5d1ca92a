/* ask.c - proposals of a search whose searcher is outside (searcher external).
 *
 * A request is checked whole, saved in one operation, then taken up into memory, then answered: what was acknowledged is a trial, whatever
 * is killed. One request of a job is being saved at a time and the others queue behind it, so that each is checked against all before it.
 * A request may bear a key; the same key again is answered with what it proposed the first time, and proposes nothing.
 *
 * Proposal i is taken once the results of trials 0 … i - window are in, as every searcher's. Where the score book may answer, it is
 * looked into when a trial's turn comes: at once, or (`look`) after an open trial of the same network has ended. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

struct ask {
    struct link       queue;
    struct sched     *s;
    uint64_t          job;
    name_str          request;
    struct trial_row *row;  /* owned [n]: arch as it was written, tag */
    size_t            n;
    sched_asked       done;
    void             *arg;
};

static void ask_free(struct ask *a)
{
    if (a)
        free(a->row);
    free(a);
}

static void ask_answer(struct ask *a, int rc, const struct trial_row *row, bool before, const struct errbuf *e)
{
    a->done(a->arg, rc, rc == 0 ? row : NULL, rc == 0 ? a->n : 0, before, e);
    ask_free(a);
}

/* ---- asked before ---- */

struct comparing { const struct ask *a; const struct space *space; struct trial_row *row; size_t n; bool other; };

static bool on_row_before(void *arg, const struct trial_row *row)
{
    struct comparing *c = arg;
    char text[ARCH_TEXT_MAX];
    c->other |= c->n >= c->a->n || c->space->canon(c->space, c->a->row[c->n].arch, text, NULL) < 0 || strcmp(text, row->arch) != 0;
    if (!c->other)
        c->row[c->n] = *row;
    c->n++;
    return !c->other;
}

/* 1: this request was saved before, and *rows (malloc'ed) is what it proposed; 0: it was not. */
static int asked_before(struct sched *s, const struct ask *a, const struct job_spec *spec, struct trial_row **rows, struct errbuf *e)
{
    struct comparing c = { .a = a };
    *rows = NULL;
    if (!a->request[0])
        return 0;
    int rc = s->cfg.spaces ? s->cfg.spaces(s->cfg.arg, spec, e) : 0; /* of a job that has ended it may not be there yet */
    if (rc < 0)
        return rc;
    if (!(c.space = space_find(spec->space)))
        return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"", spec->space);
    if (!(c.row = calloc(a->n, sizeof *c.row)))
        return err_set(e, ERR_NOMEM, "proposals");
    rc = reader_request(s->cfg.reader, a->job, a->request, on_row_before, &c);
    if (rc < 0)
        rc = err_set(e, (enum err)-rc, "the proposals of job %llu cannot be read", (ull)a->job);
    else if (c.other || (c.n > 0 && c.n != a->n))
        rc = err_set(e, ERR_INPUT, "request: \"%s\" has proposed other architectures before; a new request needs a key of its own", a->request);
    else if (c.n > 0) {
        *rows = c.row;
        return 1;
    }
    free(c.row);
    return rc < 0 ? rc : 0;
}

/* ---- what may be proposed ---- */

static int check_job(const struct job *j, struct errbuf *e)
{
    if (!j->search || !search_is_external(j->search))
        return err_set(e, ERR_STATE, "job %llu has a searcher of its own (%s): it takes no proposals; searcher: {name: external} does", (ull)j->row.id,
                       j->spec.kind == JOB_SEARCH ? j->spec.searcher.name : job_kind_name(j->spec.kind));
    if (j->ending || j->changing)
        return err_set(e, ERR_BUSY, "job %llu: a change of it is being saved", (ull)j->row.id);
    if (j->row.state == JOB_STOPPING)
        return err_set(e, ERR_STATE, "job %llu is stopping: its %g seconds are over", (ull)j->row.id, j->spec.seconds);
    return 0;
}

static int check_room(const struct job *j, size_t n, struct errbuf *e)
{
    uint64_t next = search_next_index(j->search), total = job_last_total(j), told = search_told(j->search);
    if (next + n > total)
        return err_set(e, ERR_STATE, "budget.trials: %llu of %llu are proposed, %zu more are too many; didact extend %llu --trials N allows them",
                       (ull)next, (ull)total, n, (ull)j->row.id);
    if (n > (size_t)j->spec.window)
        return err_set(e, ERR_INPUT, "%zu proposals at once are more than the window of %d", n, j->spec.window);
    if (!search_ready_for(j->search, next + n - 1))
        return err_set(e, ERR_BUSY, "window: %llu proposals are under way, and %zu more go beyond the window of %d: the next is taken when trial %llu "
                       "has ended", (ull)(next - told), n, j->spec.window, (ull)told);
    if (j->audit && !audit_lets(j->audit, next + n - 1))
        return err_set(e, ERR_BUSY, "proposal %llu waits for the real trainings of its audit (audit.action: stop)", (ull)(next + n - 1));
    return 0;
}

/* a->row becomes what is saved. */
static int make_rows(struct sched *s, const struct job *j, struct ask *a, struct errbuf *e)
{
    uint64_t next = search_next_index(j->search);
    struct proposal p;
    for (size_t i = 0; i < a->n; i++) {
        struct trial_row *r = &a->row[i];
        int rc = search_offer(j->search, next + i, r->arch, &p, e);
        if (rc < 0)
            return err_wrap(e, rc, "trials[%zu].arch", i);
        r->job = j->row.id;
        r->idx = p.idx;
        r->state = TRIAL_WAITING;
        memcpy(r->arch, p.arch, sizeof r->arch);
        memcpy(r->arch_hash, p.hash, sizeof r->arch_hash);
        memcpy(r->request, a->request, sizeof r->request);
        r->parent = -1;
        r->seed = p.seed;
        r->proxy = NAN;
        r->r.params = p.params;
        r->r.macs = p.macs;
        r->created_ms = sched_now(s);
    }
    return 0;
}

/* ---- saved ---- */

static int take_up(struct sched *s, struct job *j, const struct trial_row *row, struct errbuf *e)
{
    struct proposal p = { .idx = row->idx, .parent = row->parent };
    memcpy(p.hash, row->arch_hash, sizeof p.hash);
    const bool had = search_had(j->search, row->arch_hash);
    int rc = search_recall(j->search, &p, e);
    struct trial *t = rc == 0 ? job_add_trial(j, row) : NULL;
    if (!t)
        return rc < 0 ? rc : err_set(e, ERR_NOMEM, "trial");
    s->count.proposals++;
    ask_look(t, had);
    job_wait(j, t);
    return 0;
}

static void ask_next(struct sched *s, struct job *j);

/* The store has them with the result only. */
static void fill_costs(const struct job *j, struct trial_row *row, size_t n)
{
    struct proposal p;
    for (size_t i = 0; i < n; i++)
        if (row[i].r.params == 0 && search_offer(j->search, row[i].idx, row[i].arch, &p, NULL) == 0) {
            row[i].r.params = p.params;
            row[i].r.macs = p.macs;
        }
}

static void on_proposed(struct store_op *op)
{
    struct ask *a = op->arg;
    struct sched *s = a->s;
    struct job *j = sched_job(s, a->job);
    struct errbuf e = { 0 };
    bool ok = sched_saved(s, op);
    int rc = 0;
    if (j)
        j->asking = false;
    for (size_t i = 0; ok && j && !j->ending && i < op->job.n_trials && rc == 0; i++)
        rc = take_up(s, j, &op->job.trials[i], &e);
    if (rc < 0) { /* they are saved, and memory has fewer: nothing may follow from that */
        log_error("proposals", "job=%llu error=\"%s\"", (ull)a->job, err_message(&e, rc));
        job_end(s, j, JOB_FAILED, err_message(&e, rc), NULL, NULL);
    } else if (ok && j) {
        job_started(s, j);
    }
    ask_answer(a, op->rc, op->job.trials, false, &op->err);
    if (j)
        ask_next(s, j);
    sched_dispatch(s);
}

static void save(struct sched *s, struct job *j, struct ask *a, struct store_op *op)
{
    op->job.row.id = a->job;
    op->job.trials = a->row; /* the operation's from here on */
    op->job.n_trials = a->n;
    op->arg = a;
    op->done = on_proposed;
    a->row = NULL;
    j->asking = true;
    sched_put(s, op);
}

/* The head of the queue, until one is being saved or none is left. */
static void ask_next(struct sched *s, struct job *j)
{
    while (!j->asking && !list_empty(&j->asks)) {
        struct ask *a = list_entry(j->asks.next, struct ask, queue);
        struct trial_row *before = NULL;
        struct store_op *op = NULL;
        struct errbuf e = { 0 };
        list_remove(&a->queue);
        j->n_asks--;
        int rc = asked_before(s, a, &j->spec, &before, &e);
        if (rc == 1)
            fill_costs(j, before, a->n);
        if (rc == 0 && (rc = check_job(j, &e)) == 0 && (rc = check_room(j, a->n, &e)) == 0)
            rc = make_rows(s, j, a, &e);
        if (rc == 0 && !(op = store_op_new(OP_TRIAL_PROPOSE)))
            rc = err_set(&e, ERR_NOMEM, "proposals");
        if (rc == 0)
            save(s, j, a, op);
        else
            ask_answer(a, rc < 0 ? rc : 0, before, true, &e);
        free(before);
    }
}

void ask_drop_all(struct job *j)
{
    struct errbuf e = { 0 };
    while (!list_empty(&j->asks)) {
        struct ask *a = list_entry(j->asks.next, struct ask, queue);
        list_remove(&a->queue);
        ask_answer(a, err_set(&e, ERR_STATE, "job %llu has ended", (ull)j->row.id), NULL, false, &e);
    }
    j->n_asks = 0;
}

/* ---- the score book ---- */

void ask_look(struct trial *t, bool had)
{
    t->look = t->job->spec.use_book && !job_latency_batch(&t->job->spec) && t->row.attempt == 0; /* it knows no latency */
    t->repeat = had;
}

/* An earlier trial of the same network is under way: what it brings will be in the book. */
static bool twin_is_open(const struct job *j, const struct trial *t)
{
    for (uint64_t i = 0; i < j->n_slots; i++)
        if (j->slot[i] && j->slot[i]->row.idx < t->row.idx && strcmp(j->slot[i]->row.arch_hash, t->row.arch_hash) == 0)
            return true;
    return false;
}

void ask_serve(struct sched *s, struct job *j)
{
    if (!j->search || !search_is_external(j->search) || !job_gives(j))
        return;
    list_each(l, &j->waiting) {
        struct trial *t = list_entry(l, struct trial, wait);
        if (!t->look || (t->repeat && twin_is_open(j, t)))
            continue;
        t->look = false;
        list_remove(&t->wait);
        j->n_waiting--;
        if (!book_serve(s, t))
            job_wait(j, t);
    }
}

/* ---- asking ---- */

/* Of a job that has ended: a request whose answer was lost. */
static int ask_ended(struct sched *s, struct ask *a, struct trial_row **before, struct errbuf *e)
{
    struct job_row row;
    struct job_spec *spec = malloc(sizeof *spec);
    int rc = spec ? reader_job(s->cfg.reader, a->job, &row) : -ERR_NOMEM;
    if (rc == 1) {
        rc = job_spec_from(row.spec_json, spec, e);
        if (rc == 0 && (rc = asked_before(s, a, spec, before, e)) == 0)
            rc = err_set(e, ERR_STATE, "job %llu is %s: it takes no more proposals%s", (ull)a->job, job_state_name(row.state),
                         row.state == JOB_SUCCEEDED ? "; didact extend gives it a larger budget" : "");
        job_row_fini(&row);
    } else {
        rc = rc == 0 ? err_set(e, ERR_NOTFOUND, "there is no job %llu", (ull)a->job) : err_set(e, (enum err)-rc, "job %llu cannot be read", (ull)a->job);
    }
    free(spec);
    return rc;
}

static int ask_new(struct sched *s, uint64_t job, const char *request, const struct asked *v, size_t n, struct ask **out, struct errbuf *e)
{
    struct ask *a = calloc(1, sizeof *a);
    *out = a;
    if (n < 1 || n > ASK_MAX_BATCH)
        return err_set(e, ERR_INPUT, "trials: a request has 1 to %d proposals, not %zu", ASK_MAX_BATCH, n);
    if (!a || !(a->row = calloc(n, sizeof *a->row)))
        return err_set(e, ERR_NOMEM, "proposals");
    list_init(&a->queue);
    a->s = s;
    a->job = job;
    a->n = n;
    if (strlen(request) >= sizeof a->request)
        return err_set(e, ERR_INPUT, "request: longer than %zu bytes", sizeof a->request - 1);
    strcpy(a->request, request);
    for (size_t i = 0; i < n; i++) {
        if (strlen(v[i].arch) >= sizeof a->row[i].arch)
            return err_set(e, ERR_INPUT, "trials[%zu].arch: longer than %zu bytes", i, sizeof a->row[i].arch - 1);
        if (strlen(v[i].tag) >= sizeof a->row[i].tag)
            return err_set(e, ERR_INPUT, "trials[%zu].tag: longer than %zu bytes", i, sizeof a->row[i].tag - 1);
        strcpy(a->row[i].arch, v[i].arch);
        strcpy(a->row[i].tag, v[i].tag);
    }
    return 0;
}

void sched_propose(struct sched *s, uint64_t job, const char *request, const struct asked *v, size_t n, sched_asked done, void *arg)
{
    struct errbuf e = { 0 };
    struct trial_row *before = NULL;
    struct ask *a;
    struct job *j = sched_job(s, job);
    int rc = ask_new(s, job, request, v, n, &a, &e);
    if (rc == 0 && j && j->n_asks >= ASK_MAX_QUEUE)
        rc = err_set(&e, ERR_BUSY, "job %llu: %d requests wait already", (ull)job, ASK_MAX_QUEUE);
    if (rc == 0 && !j)
        rc = ask_ended(s, a, &before, &e);
    if (a) {
        a->done = done;
        a->arg = arg;
    }
    if (rc == 0 && j) {
        list_append(&j->asks, &a->queue);
        j->n_asks++;
        ask_next(s, j);
    } else if (a) {
        ask_answer(a, rc < 0 ? rc : 0, before, true, &e);
    } else {
        done(arg, rc, NULL, 0, false, &e);
    }
    free(before);
}
