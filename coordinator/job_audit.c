/* job_audit.c - the standing audit in the scheduler: the trials of what it chose, and what it is told. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <stdlib.h>

int job_audit_open(struct sched *s, struct job *j)
{
    struct trial_row *row = calloc(1, sizeof *row);
    int rc = row ? 0 : -ERR_NOMEM;
    while (rc == 0 && j->n_audits < audit_n(j->audit)) {
        const struct audit_item *it = audit_at(j->audit, j->n_audits);
        for (int control = 0; control <= j->spec.audit.control && rc == 0; control++) {
            if ((control ? it->controlled : it->trained) || j->audit_slot[2 * j->n_audits + control])
                continue;
            audit_row(j->audit, j->n_audits, control, row);
            row->job = j->row.id;
            row->created_ms = sched_now(s);
            struct trial *t = job_add_trial(j, row);
            rc = t ? 0 : -ERR_NOMEM;
            if (t)
                job_wait(j, t);
        }
        j->n_audits += rc == 0;
    }
    free(row);
    return rc;
}

void job_audit_tell(struct sched *s, struct job *j, const struct trial_row *row, bool live)
{
    struct estimate rho;
    int n;
    if (row->idx < TRIAL_AUDIT) {
        if (audit_saw(j->audit, row) < 0 || (live && job_audit_open(s, j) < 0))
            log_error("audit", "job=%llu trial=%llu error=\"out of memory\"", (unsigned long long)row->job, (unsigned long long)row->idx);
        return;
    }
    bool changed = audit_ended(j->audit, row);
    enum audit_state state = audit_verdict(j->audit, &rho, &n);
    if (changed && live && j->spec.audit.action != AUDIT_NONE)
        log_warn("audit", "job=%llu name=\"%s\" state=%s spearman=%.3f low=%.3f high=%.3f n=%d floor=%g", (unsigned long long)j->row.id,
                 j->row.name, audit_state_name(state), rho.value, rho.low, rho.high, n, j->spec.audit.floor);
}
