/* cost.c - passes, and the rate at which workers do them. */
#include "coordinator/cost.h"

#include "common/zero_cost.h"

#define NEWEST_WEIGHS 0.05 /* in the average rate */

double cost_scoring(const struct fidelity *f, const struct job_data *data, int batch)
{
    double steps = f->steps ? f->steps : data->T, valid = f->valid_images ? f->valid_images : (double)data->n_valid;
    int evals = 1;
    for (int i = 0; i < f->n_checkpoints; i++)
        evals += f->checkpoint[i] != (int)steps; /* the last is the score itself */
    return (3 * steps * batch + valid * evals) * f->inits * (f->n_lr_scales > 0 ? f->n_lr_scales : 1);
}

static double zero_costs(uint32_t set)
{
    double sum = 0;
    for (int i = 0; i < ZC_COUNT; i++)
        sum += set >> i & 1 ? zero_cost_table[i].passes : 0;
    return sum;
}

double cost_trial(const struct job_spec *s, const struct job_data *data, int rung)
{
    struct fidelity f = job_fidelity(s, rung);
    if (rung <= s->halving.n_steps)
        return cost_scoring(&f, data, data->B) + zero_costs(job_zero_cost(s));
    f.n_lr_scales = 0; /* a racing round has the step size and the zero-cost scores of the one before (race.c) */
    return cost_scoring(&f, data, data->B);
}

double cost_mean(const struct job_spec *s, const struct job_data *data)
{
    double sum = 0, weights = 0, w = 1;
    for (int r = 0; r <= s->halving.n_steps + s->racing.n_inits; r++) {
        sum += w * cost_trial(s, data, r);
        weights += w;
        w *= r < s->halving.n_steps ? 1.0 / s->halving.reduction : r == s->halving.n_steps ? s->racing.share : 1;
    }
    return sum / weights;
}

double cost_warmup(const struct job_spec *s) { return s->warmup.candidates * zero_costs(job_warmup_zero_cost(s)); }

double cost_training(const struct job_data *data, double epochs) { return epochs * 3 * (double)data->n_train + (double)data->n_valid; }

void cost_measured(struct sched *s, const struct trial *t, const struct trial_result *r, const struct worker *w)
{
    const struct job *j = t->job;
    if (!w || j->spec.kind != JOB_SEARCH || !j->have_data || t->row.group == GROUP_WARMUP || t->row.idx >= TRIAL_AUDIT || r->state != TRIAL_SCORED ||
        !(r->seconds > 0) || r->macs == 0)
        return;
    double *rate = &s->macs_per_slot_s[fit_device(t, w)], now = (double)r->macs * cost_trial(&j->spec, &j->data, t->row.rung) / r->seconds;
    *rate = *rate > 0 ? (1 - NEWEST_WEIGHS) * *rate + NEWEST_WEIGHS * now : now;
}

double cost_seconds(const struct sched *s, const struct job_spec *spec, double scoring, double training)
{
    double on_device = 0, on_cpu = 0; /* rates of all */
    list_each(l, &s->workers) {
        const struct worker *w = list_entry(l, struct worker, all);
        if (w->online)
            on_cpu += w->slots * s->macs_per_slot_s[DEVICE_CPU];
        if (w->online && fit_spec(spec, w))
            on_device += w->slots * s->macs_per_slot_s[spec->device == DEVICE_CPU ? DEVICE_CPU : w->device];
    }
    if (!(on_device > 0) || (training > 0 && !(on_cpu > 0)))
        return 0;
    return scoring / on_device + (training > 0 ? training / on_cpu : 0);
}
