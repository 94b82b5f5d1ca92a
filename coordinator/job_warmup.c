/* job_warmup.c - the warm-up of a search whose candidates workers vote on: one cheap trial each, before the first proposal. They are no
 * candidates of the search (TRIAL_WARMUP + i): no list, count or budget sees them, and one that fails is no start, that is all. Which they are
 * and in what order follows from the job's seed; what workers say of them is recorded, so a restart and a replay read it. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a recorded one has to say; false: nothing yet. One that was cancelled with its job is as good as failed. */
static bool warmup_result(const struct trial_row *row, const struct zero_cost_scores **z)
{
    *z = row->state == TRIAL_SCORED ? &row->r.zero_cost : NULL;
    return row->state == TRIAL_SCORED || row->state == TRIAL_FAILED || row->state == TRIAL_CANCELLED;
}

int warmup_recorded(struct search *search, int n, const struct trial_row *row, struct errbuf *e)
{
    const struct zero_cost_scores *z;
    const uint64_t i = row->idx - TRIAL_WARMUP;
    if (i >= (uint64_t)n)
        return err_set(e, ERR_CORRUPT, "trial %llu is beyond its warm-up of %d", (unsigned long long)row->idx, n);
    struct warmup_candidate c = search_warmup_at(search, (int)i);
    if (strcmp(c.hash, row->arch_hash) != 0 || c.seed != row->seed)
        return err_set(e, ERR_CORRUPT, "trial %llu is not what its warm-up drew", (unsigned long long)row->idx);
    return warmup_result(row, &z) ? search_warmup_tell(search, (int)i, z, e) : 0;
}

/* As many at a time as the window has places: memory does not grow with the warm-up. */
static int open_some(struct sched *s, struct job *j)
{
    struct trial_row *row = calloc(1, sizeof *row);
    int rc = row ? 0 : -ERR_NOMEM;
    for (; rc == 0 && j->warm_next < j->n_warm && j->warm_open < j->n_slots; j->warm_next++) {
        struct warmup_candidate c = search_warmup_at(j->search, j->warm_next);
        if (c.told || j->warm_slot[j->warm_next])
            continue;
        *row = (struct trial_row){ .job = j->row.id, .idx = TRIAL_WARMUP + (uint64_t)j->warm_next, .state = TRIAL_WAITING, .parent = -1,
                                   .group = GROUP_WARMUP, .seed = c.seed, .proxy = NAN, .created_ms = sched_now(s) };
        row->r.params = c.params;
        row->r.macs = c.macs;
        snprintf(row->arch, sizeof row->arch, "%s", c.arch);
        snprintf(row->arch_hash, sizeof row->arch_hash, "%s", c.hash);
        struct trial *t = job_add_trial(j, row);
        if (!t) {
            rc = -ERR_NOMEM;
            break;
        }
        job_wait(j, t);
        j->warm_open++;
    }
    free(row);
    return rc;
}

struct rows { struct sched *s; struct job *j; struct errbuf *e; int rc; };

static bool on_row(void *arg, const struct trial_row *row)
{
    struct rows *r = arg;
    const struct zero_cost_scores *z;
    r->rc = warmup_recorded(r->j->search, r->j->n_warm, row, r->e);
    if (r->rc < 0)
        return false;
    if (warmup_result(row, &z)) {
        r->j->warm_done++;
        return true;
    }
    struct trial *t = job_add_trial(r->j, row);
    if (!t)
        r->rc = err_set(r->e, ERR_NOMEM, "trial");
    else if (row->state == TRIAL_RUNNING)
        lease_resume(r->s, t);
    else
        job_wait(r->j, t);
    r->j->warm_open += t != NULL;
    return t != NULL;
}

int job_warmup_load(struct sched *s, struct job *j, struct errbuf *e)
{
    struct rows r = { s, j, e, 0 };
    int n = search_warmup(j->search, e), rc;
    if (n <= 0)
        return n;
    if (!(j->warm_slot = calloc((size_t)n, sizeof *j->warm_slot)))
        return err_set(e, ERR_NOMEM, "warm-up");
    j->n_warm = n;
    rc = reader_trials(s->cfg.reader, j->row.id, -1, SORT_WARMUP, 0, 0, on_row, &r);
    if (r.rc < 0 || rc < 0)
        return r.rc < 0 ? r.rc : err_set(e, (enum err)-rc, "cannot read its warm-up");
    if (search_ready(j->search) || open_some(s, j) == 0)
        return 0;
    return err_set(e, ERR_NOMEM, "warm-up");
}

void job_warmup_tell(struct sched *s, struct job *j, const struct trial_row *row)
{
    struct errbuf e = { 0 };
    j->warm_open--;
    j->warm_done++;
    int rc = warmup_recorded(j->search, j->n_warm, row, &e);
    if (rc == 0 && !search_ready(j->search))
        rc = open_some(s, j);
    if (rc < 0)
        log_error("warmup", "job=%llu trial=%llu error=\"%s\"", (unsigned long long)row->job, (unsigned long long)row->idx, err_message(&e, rc));
    else if (search_ready(j->search))
        log_info("warmup_done", "job=%llu name=\"%s\" candidates=%d", (unsigned long long)j->row.id, j->row.name, j->n_warm);
}
