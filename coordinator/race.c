/* race.c - the trials of racing rounds (common/search/rungs.h). A worker computes the initialisations that the round before has not had; what is
 * recorded is the score over all of them, put together here from the record of the round before (`parent`) and what came. Both are facts, so
 * the result is one. The score book keeps what was computed, under a key of its own, and not the sum. */
#include "coordinator/sched.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

static bool is_round(const struct job_spec *spec, const struct trial_row *t)
{
    return spec->kind == JOB_SEARCH && t->idx < TRIAL_AUDIT && t->rung > spec->halving.n_steps;
}

static int read_parent(struct sched *s, const struct trial_row *t, struct trial_row **out, struct errbuf *e)
{
    struct trial_row *p = malloc(sizeof *p);
    int rc = p ? reader_trial(s->cfg.reader, t->job, (uint64_t)t->parent, p) : -ERR_NOMEM;
    if (rc == 1 && p->state == TRIAL_SCORED) {
        *out = p;
        return 0;
    }
    free(p);
    return rc < 0 ? err_set(e, (enum err)-rc, "trial %llu of job %llu cannot be read", (ull)t->parent, (ull)t->job)
                  : err_set(e, ERR_INTERNAL, "trial %llu of job %llu goes on from one without a score", (ull)t->idx, (ull)t->job);
}

/* The multiple of the step size was chosen by the first initialisations; more of them do not choose another. */
int race_fidelity(struct sched *s, const struct job_spec *spec, const struct trial_row *t, struct fidelity *out, struct errbuf *e)
{
    struct trial_row *parent;
    *out = job_fidelity(spec, t->rung);
    if (!is_round(spec, t) || out->n_lr_scales < 2)
        return 0;
    int rc = read_parent(s, t, &parent, e);
    if (rc < 0)
        return rc;
    out->n_lr_scales = 1;
    out->lr_scale[0] = parent->r.lr_scale;
    free(parent);
    return 0;
}

uint32_t race_zero_cost(const struct job_spec *spec, const struct trial_row *t) { return is_round(spec, t) ? 0 : job_zero_cost(spec); }

int race_latency_batch(const struct job_spec *spec, const struct trial_row *t) { return is_round(spec, t) ? 0 : job_latency_batch(spec); }

static void put_together(const struct trial_result *a, struct trial_result *b)
{
    const int n = a->n_inits + b->n_inits;
    const double wa = (double)a->n_inits / n, wb = (double)b->n_inits / n;
    double sum = 0, squares = 0;
    memmove(b->init_score + a->n_inits, b->init_score, (size_t)b->n_inits * sizeof *b->init_score);
    memcpy(b->init_score, a->init_score, (size_t)a->n_inits * sizeof *b->init_score);
    for (int i = 0; i < n; i++)
        sum += b->init_score[i];
    b->score = sum / n; /* as the scorer forms it: the same bits as if all had been computed at once */
    for (int i = 0; i < n; i++)
        squares += (b->init_score[i] - b->score) * (b->init_score[i] - b->score);
    b->score_se = sqrt(squares / (n - 1) / n);
    b->n_inits = n;
    for (int i = 0; i < b->n_checkpoints; i++)
        b->checkpoint_score[i] = wa * a->checkpoint_score[i] + wb * b->checkpoint_score[i];
    b->loss_sum = wa * a->loss_sum + wb * b->loss_sum;
    b->zero_cost = a->zero_cost;
    b->latency_ms = a->latency_ms;
}

int race_result(struct sched *s, const struct job_spec *spec, const struct trial_row *t, struct trial_result *r, struct errbuf *e)
{
    struct trial_row *parent;
    if (!is_round(spec, t) || r->state != TRIAL_SCORED)
        return 0;
    const struct fidelity f = job_fidelity(spec, t->rung);
    if (r->n_inits != f.inits || r->n_checkpoints != f.n_checkpoints)
        return err_set(e, ERR_INPUT, "trial %llu of job %llu asks for %d initialisations and %d checkpoints, not %d and %d", (ull)t->idx, (ull)t->job,
                       f.inits, f.n_checkpoints, r->n_inits, r->n_checkpoints);
    int rc = read_parent(s, t, &parent, e);
    if (rc < 0)
        return rc;
    if (parent->r.n_inits == f.first_init && parent->r.n_checkpoints == f.n_checkpoints)
        put_together(&parent->r, r);
    else
        rc = err_set(e, ERR_INTERNAL, "trial %llu of job %llu has %d initialisations, not %d", (ull)parent->idx, (ull)t->job, parent->r.n_inits, f.first_init);
    free(parent);
    return rc;
}
