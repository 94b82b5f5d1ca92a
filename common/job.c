#include "common/job.h"

#include "common/engine_version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[JOB_KIND_COUNT] = { "teach", "search", "verify" };
static const char *const state_names[JOB_STATE_COUNT] = { "queued", "running", "paused", "stopping", "succeeded", "failed", "cancelled" };
static const char *const trial_names[TRIAL_STATE_COUNT] = { "waiting", "running", "scored", "pruned", "failed", "cancelled" };
static const char *const reason_names[FAIL_REASON_COUNT] = { "none", "nan", "oom", "timeout", "crash", "input" };
static const char *const metric_names[METRIC_COUNT] = { "score", "params", "macs", "latency" };

static const char *const device_names[DEVICE_CLASS_COUNT] = { "cpu", "cuda", "cuda-tf32", "cuda-bf16", "any" };
static const char *const action_names[AUDIT_ACTION_COUNT] = { "warn", "stop", "none" };

static const char *name_of(unsigned v, const char *const *names, unsigned n)
{
    return v < n ? names[v] : "?";
}

static int from(const char *s, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(s, names[i]) == 0)
            return i;
    return -1;
}

const char *job_kind_name(enum job_kind k)       { return name_of(k, kind_names, JOB_KIND_COUNT); }
const char *job_state_name(enum job_state s)     { return name_of(s, state_names, JOB_STATE_COUNT); }
const char *trial_state_name(enum trial_state s) { return name_of(s, trial_names, TRIAL_STATE_COUNT); }
const char *fail_reason_name(enum fail_reason r) { return name_of(r, reason_names, FAIL_REASON_COUNT); }
const char *metric_name(enum metric m)           { return name_of(m, metric_names, METRIC_COUNT); }

uint64_t trial_seed(uint64_t job_seed, const char *arch_hash)
{
    char key[17];
    snprintf(key, sizeof key, "%.16s", arch_hash);
    return rng_derive(job_seed, RNG_WEIGHTS, strtoull(key, NULL, 16));
}

enum fail_reason fail_reason_of(int rc)
{
    static const struct { enum err code; enum fail_reason reason; } table[] = {
        { ERR_NOMEM, FAIL_OOM },     { ERR_INPUT, FAIL_INPUT },      { ERR_SHAPE, FAIL_INPUT },
        { ERR_CORRUPT, FAIL_INPUT }, { ERR_VERSION, FAIL_INPUT },    { ERR_DIVERGED, FAIL_NAN },
        { ERR_TIMEOUT, FAIL_TIMEOUT },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (rc == -(int)table[i].code)
            return table[i].reason;
    return FAIL_NONE;
}

uint32_t job_warmup_zero_cost(const struct job_spec *s)
{
    uint32_t set = 0;
    for (int i = 0; s->warmup.candidates > 0 && i < s->warmup.n_vote; i++)
        if (s->warmup.vote[i] >= COLUMN_ZERO_COST)
            set |= 1u << (s->warmup.vote[i] - COLUMN_ZERO_COST);
    return set;
}

int job_latency_batch(const struct job_spec *s)
{
    bool wanted = s->kind == JOB_SEARCH && s->latency.measure;
    for (int i = 0; s->kind == JOB_SEARCH && i < s->n_objectives; i++)
        wanted |= s->objective[i].metric == METRIC_LATENCY;
    return wanted ? s->latency.batch : 0;
}

uint32_t job_zero_cost(const struct job_spec *s)
{
    uint32_t set = 0;
    for (int i = 0; i < s->scores.n_zero_cost; i++)
        set |= 1u << s->scores.zero_cost[i];
    return set;
}
const char *device_class_name(enum device_class d) { return name_of(d, device_names, DEVICE_CLASS_COUNT); }
void engine_name(enum device_class d, name_str out) { snprintf(out, sizeof(name_str), d == DEVICE_CPU ? "%s" : "%s/%s", ENGINE_VERSION, device_class_name(d)); }
const char *audit_action_name(enum audit_action a) { return name_of(a, action_names, AUDIT_ACTION_COUNT); }

int job_kind_from(const char *s)    { return from(s, kind_names, JOB_KIND_COUNT); }
int job_state_from(const char *s)   { return from(s, state_names, JOB_STATE_COUNT); }
int trial_state_from(const char *s) { return from(s, trial_names, TRIAL_STATE_COUNT); }
int fail_reason_from(const char *s) { return from(s, reason_names, FAIL_REASON_COUNT); }
int metric_from(const char *s)      { return from(s, metric_names, METRIC_COUNT); }
int device_class_from(const char *s) { return from(s, device_names, DEVICE_CLASS_COUNT); }

const struct proxy *job_proxy(const struct job_spec *s) { return s->kind == JOB_VERIFY ? &s->verify.proxy : &s->fidelity.proxy; }

struct proxy job_audit_proxy(const struct job_spec *s)
{
    struct proxy p = s->fidelity.proxy;
    p.downsample = 0;
    return p;
}

struct fidelity job_fidelity(const struct job_spec *s, int rung)
{
    struct fidelity f = s->fidelity;
    int round = rung - s->halving.n_steps;
    if (round > 0 && round <= s->racing.n_inits) {
        f.first_init = round > 1 ? s->racing.inits[round - 2] : f.inits;
        f.inits = s->racing.inits[round - 1] - f.first_init;
    }
    if (round >= 0)
        return f;
    f.steps = s->halving.steps[rung];
    if (s->halving.n_inits > 0)
        f.inits = s->halving.inits[rung];
    while (f.n_checkpoints > 0 && f.checkpoint[f.n_checkpoints - 1] > f.steps)
        f.n_checkpoints--;
    return f;
}

void job_training(const struct job_spec *s, struct train_task *out)
{
    const struct verify_cfg *v = &s->verify;
    const struct audit_cfg *a = &s->audit;
    if (s->kind == JOB_VERIFY) /* any verified network can be exported: weights are small */
        *out = (struct train_task){ .epochs = v->epochs, .batch = v->batch, .lr = v->lr, .momentum = v->momentum, .weight_decay = v->weight_decay,
                                    .flip = v->flip, .shift = v->shift, .proxy = v->proxy, .keep_weights = true };
    else
        *out = (struct train_task){ .epochs = a->epochs, .batch = a->batch, .lr = a->lr, .momentum = a->momentum, .weight_decay = a->weight_decay,
                                    .flip = a->flip, .shift = a->shift, .proxy = job_audit_proxy(s), .no_test = true };
    memcpy(out->space, s->space, sizeof out->space);
    memcpy(out->space_hash, s->space_hash, sizeof out->space_hash);
    memcpy(out->dataset, s->dataset_hash, sizeof out->dataset);
}
