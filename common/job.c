#include "common/job.h"

#include <string.h>

static const char *const kind_names[JOB_KIND_COUNT] = { "teach", "search", "verify" };
static const char *const state_names[JOB_STATE_COUNT] = { "queued", "running", "paused", "stopping", "succeeded", "failed", "cancelled" };
static const char *const trial_names[TRIAL_STATE_COUNT] = { "waiting", "running", "scored", "pruned", "failed", "cancelled" };
static const char *const reason_names[FAIL_REASON_COUNT] = { "none", "nan", "oom", "timeout", "crash", "input" };

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
const char *audit_action_name(enum audit_action a) { return name_of(a, action_names, AUDIT_ACTION_COUNT); }

int job_kind_from(const char *s)    { return from(s, kind_names, JOB_KIND_COUNT); }
int job_state_from(const char *s)   { return from(s, state_names, JOB_STATE_COUNT); }
int trial_state_from(const char *s) { return from(s, trial_names, TRIAL_STATE_COUNT); }
int fail_reason_from(const char *s) { return from(s, reason_names, FAIL_REASON_COUNT); }
