/* book.c - the score book in the scheduler: what a search's results are filed under, and trials that it answers.
 *
 * A trial whose key is in the book is recorded at once, with the numbers of the one that was computed: no lease, no worker, the same
 * history. It is looked up when it is proposed and costs a read of one row. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

/* Of device any, nobody knows beforehand which kind of device a trial will be a fact about. */
static bool uses_book(const struct job *j) { return j->spec.kind == JOB_SEARCH && j->spec.use_book && j->spec.device != DEVICE_ANY; }

static int key_of(struct sched *s, const struct job_spec *sp, const struct trial_row *t, struct book_row *b)
{
    struct fidelity f;
    int rc = race_fidelity(s, sp, t, &f, NULL);
    memset(b, 0, sizeof *b);
    memcpy(b->space, sp->space, sizeof b->space);
    memcpy(b->arch, t->arch, sizeof b->arch);
    memcpy(b->arch_hash, t->arch_hash, sizeof b->arch_hash);
    memcpy(b->dataset, sp->dataset_hash, sizeof b->dataset);
    memcpy(b->curriculum, sp->curriculum_hash, sizeof b->curriculum);
    book_fidelity(&f, race_zero_cost(sp, t), b->fidelity);
    b->seed = t->seed;
    engine_name(sp->device, b->engine);
    return rc;
}

struct book_row *book_entry(struct sched *s, const struct trial *t, const struct trial_result *r)
{
    struct book_row *b = uses_book(t->job) && t->row.idx < TRIAL_AUDIT && book_keeps(r) ? malloc(sizeof *b) : NULL; /* without memory: one row the less */
    if (!b)
        return NULL;
    if (key_of(s, &t->job->spec, &t->row, b) < 0) {
        free(b);
        return NULL;
    }
    b->r = *r;
    return b;
}

bool book_may_have(struct sched *s, const struct job *j)
{
    struct trial_row at = { 0 };
    struct book_row b;
    bool any = false;
    for (; uses_book(j) && at.rung <= j->spec.halving.n_steps && !any; at.rung++) {
        any = key_of(s, &j->spec, &at, &b) == 0 &&
              reader_book_any(s->cfg.reader, b.dataset, b.curriculum, b.fidelity, b.engine) == 1;
    }
    return any;
}

static void on_served(struct store_op *op)
{
    struct sched *s = op->arg;
    struct job *j = sched_job(s, op->trial.job);
    struct trial *t = j ? job_trial(j, op->trial.idx) : NULL;
    bool ok = sched_saved(s, op);
    if (t && t->phase == PHASE_SAVING && ok) {
        s->count.from_book++;
        lease_finish(s, t, &op->trial);
    } else if (t && t->phase == PHASE_SAVING) { /* not saved: it is a trial like others again */
        j->n_running--;
        t->row.state = TRIAL_WAITING;
        job_wait(j, t);
    }
    sched_dispatch(s);
}

bool book_serve(struct sched *s, struct trial *t)
{
    char key[BOOK_KEY_LEN + 1];
    /* The book knows no latency, for no two measurements are the same: where one is wanted, the trial is computed. */
    struct book_row *b = uses_book(t->job) && !job_latency_batch(&t->job->spec) ? malloc(sizeof *b) : NULL;
    struct store_op *op = NULL;
    if (!b)
        return false;
    int rc = key_of(s, &t->job->spec, &t->row, b);
    book_key(b, key);
    bool known = rc == 0 && reader_book(s->cfg.reader, key, b) == 1 && race_result(s, &t->job->spec, &t->row, &b->r, NULL) == 0;
    if (known && (op = store_op_new(OP_TRIAL_BOOKED))) {
        t->job->n_running++;
        t->phase = PHASE_SAVING;
        t->row.state = TRIAL_RUNNING;
        op->trial = t->row;
        op->trial.from_book = true;
        op->trial.r = b->r;
        op->trial.r.seconds = 0; /* nothing was computed */
        op->trial.ended_ms = sched_now(s);
        op->arg = s;
        op->done = on_served;
        sched_put(s, op);
        log_debug("from_book", "job=%llu trial=%llu", (ull)t->row.job, (ull)t->row.idx);
    }
    free(b);
    return op != NULL;
}
