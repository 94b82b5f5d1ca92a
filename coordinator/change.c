/* change.c - settings and budgets that change while a job lives, and ended jobs that live again.
 *
 *   set     live or ended: how a job is served (`knobs`); none of them changes what it computes.
 *   extend  a larger budget. A searcher does not know its budget, so the history goes on as that of a job submitted with it would.
 *   finish  an outside searcher has no more proposals: the budget becomes what was proposed.
 *   retry   trials that failed for a reason of their surroundings wait for a next attempt (sched.h says what the searcher is told).
 *
 * Extend and retry open an ended job again: one transaction makes its cancelled trials wait and its state a living one, then it is
 * loaded as after a restart. Each change leaves a row in the job's events, in the same transaction. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

static const struct knob { const char *key; bool budget; } knobs[] = {
    { "priority", false },     { "parallel", false },    { "max_failed", false }, { "trial_timeout", false },
    { "budget.trials", true }, { "budget.time", true },
};

struct change {
    struct sched   *s;
    uint64_t        id;
    const char     *action;     /* a literal */
    const char     *text;       /* borrowed, while it is being checked */
    struct job     *j;          /* NULL: it has ended, and `row` is of the store */
    struct job_row  row;
    struct job_spec was, spec;
    struct event_row event;
    sched_done      done;
    void           *arg;
};

static void change_free(struct change *c)
{
    if (c && !c->j)
        job_row_fini(&c->row);
    free(c);
}

/* ---- what is asked ---- */

static const struct knob *knob_find(const char *line, size_t len)
{
    size_t key = strcspn(line, "=");
    for (size_t i = 0; key < len && i < sizeof knobs / sizeof *knobs; i++)
        if (strlen(knobs[i].key) == key && strncmp(knobs[i].key, line, key) == 0)
            return &knobs[i];
    return NULL;
}

static int take_line(struct change *c, const char *line, size_t len, struct errbuf *e)
{
    char text[512];
    const struct knob *k = knob_find(line, len);
    bool extend = strcmp(c->action, "extend") == 0;
    snprintf(text, sizeof text, "%.*s", (int)len, line);
    if (!k)
        return err_set(e, ERR_INPUT, "\"%.80s\": what can be set are priority, parallel, max_failed, trial_timeout, budget.trials and "
                       "budget.time, as key=value", text);
    if (extend && !k->budget)
        return err_set(e, ERR_INPUT, "\"%.80s\" is no budget: didact set changes it", text);
    if (!extend && k->budget && !c->j)
        return err_set(e, ERR_STATE, "job %llu is %s: didact extend gives it a larger budget", (ull)c->id, job_state_name(c->row.state));
    return jobfile_set(&c->spec, text, e);
}

static int take_lines(struct change *c, struct errbuf *e)
{
    int n = 0, rc = 0;
    for (const char *p = c->text; *p && rc == 0;) {
        size_t len = strcspn(p, "\n");
        if (len) {
            rc = take_line(c, p, len, e);
            snprintf(c->event.text + strlen(c->event.text), sizeof c->event.text - strlen(c->event.text), "%s%.*s", n++ ? ", " : "",
                     (int)len, p);
        }
        p += len + (p[len] == '\n');
    }
    return rc < 0 || n ? rc : err_set(e, ERR_INPUT, "%s what? There is no key=value", c->action);
}

static bool time_is_over(const struct change *c)
{
    return c->spec.seconds > 0 && job_seconds(c->s, &c->row) >= c->spec.seconds;
}

static int check_set(struct change *c, struct errbuf *e)
{
    int rc = take_lines(c, e);
    if (rc == 0 && c->j && c->j->search && (uint64_t)c->spec.trials < search_next_index(c->j->search))
        rc = err_set(e, ERR_STATE, "budget.trials: %d, but %llu %s been proposed already", c->spec.trials,
                     (ull)search_next_index(c->j->search), search_next_index(c->j->search) == 1 ? "trial has" : "trials have");
    return rc;
}

static int check_extend(struct change *c, struct errbuf *e)
{
    int rc = take_lines(c, e);
    if (rc < 0)
        return rc;
    if (c->spec.trials < c->was.trials)
        return err_set(e, ERR_INPUT, "budget.trials is %d, and extending makes it larger, not %d", c->was.trials, c->spec.trials);
    double was_s = c->was.seconds > 0 ? c->was.seconds : INFINITY, is_s = c->spec.seconds > 0 ? c->spec.seconds : INFINITY;
    if (is_s < was_s)
        return err_set(e, ERR_INPUT, "budget.time is %g s (0: no limit), and extending makes it larger, not %g s", c->was.seconds,
                       c->spec.seconds);
    if (!c->j && time_is_over(c))
        return err_set(e, ERR_STATE, "its %g seconds are over: extend budget.time too", c->spec.seconds);
    uint64_t finished = c->row.n.scored + c->row.n.failed;
    if (!c->j && c->spec.kind == JOB_SEARCH && finished >= (uint64_t)c->spec.trials)
        return err_set(e, ERR_STATE, "all %llu trials of job %llu have ended: budget.trials must be more than that", (ull)finished,
                       (ull)c->id);
    return 0;
}

static int check_finish(struct change *c, struct errbuf *e)
{
    if (!c->j)
        return err_set(e, ERR_STATE, "job %llu is %s", (ull)c->id, job_state_name(c->row.state));
    if (!c->j->search || !search_is_external(c->j->search))
        return err_set(e, ERR_STATE, "job %llu has a searcher of its own: it ends with its budget, or with didact cancel", (ull)c->id);
    if (search_next_index(c->j->search) == 0)
        return err_set(e, ERR_STATE, "job %llu: nothing has been proposed; didact cancel ends it", (ull)c->id);
    c->spec.trials = (int)search_next_index(c->j->search);
    snprintf(c->event.text, sizeof c->event.text, "budget.trials=%d", c->spec.trials);
    return 0;
}

static uint64_t retryable(const struct job_counts *n)
{
    return n->reason[FAIL_TIMEOUT] + n->reason[FAIL_CRASH] + n->reason[FAIL_OOM]; /* RETRY_REASONS */
}

static int check_retry(struct change *c, struct errbuf *e)
{
    uint64_t again = retryable(&c->row.n), left = c->row.n.failed - again;
    bool unfinished = !c->j && c->row.state == JOB_FAILED && (c->row.n.cancelled > 0 ||
                      (c->spec.kind == JOB_SEARCH && c->row.n.scored + c->row.n.failed < (uint64_t)c->spec.trials));
    if (again == 0 && !unfinished)
        return err_set(e, ERR_STATE, "job %llu has no trial that failed with timeout, crash or oom: what else fails would fail again",
                       (ull)c->id);
    if (c->spec.max_failed > 0 && left >= (uint64_t)c->spec.max_failed)
        return err_set(e, ERR_STATE, "%llu trial%s failed for reasons that another attempt does not change, and max_failed is %d: raise it "
                       "first (didact set %llu max_failed=%llu)", (ull)left, left == 1 ? "" : "s", c->spec.max_failed, (ull)c->id, (ull)(2 * left));
    if (!c->j && time_is_over(c))
        return err_set(e, ERR_STATE, "its %g seconds are over: give it more first (didact extend %llu --time)", c->spec.seconds, (ull)c->id);
    snprintf(c->event.text, sizeof c->event.text, "%llu trial%s", (ull)again, again == 1 ? "" : "s");
    return 0;
}

/* ---- what has been saved ---- */

static void answer(struct change *c, struct store_op *op)
{
    c->done(c->arg, op->rc, c->id, &op->err);
    struct sched *s = c->s;
    change_free(c);
    sched_dispatch(s);
}

/* Memory follows the store. */
static void adopt_spec(struct job *j, const struct job_spec *spec, char **text)
{
    j->spec = *spec;
    if (spec->kind == JOB_SEARCH)
        j->total = (uint64_t)spec->trials;
    free(j->row.spec_json);
    j->row.spec_json = *text;
    *text = NULL;
}

static void on_spec_saved(struct store_op *op)
{
    struct change *c = op->arg;
    struct job *j = sched_job(c->s, c->id);
    bool ok = sched_saved(c->s, op);
    if (ok)
        log_info("job_set", "job=%llu action=%s set=\"%s\"", (ull)c->id, c->action, c->event.text);
    if (j) {
        j->changing = false;
        if (ok)
            adopt_spec(j, &c->spec, &op->job.row.spec_json);
        job_maybe_end(c->s, j);
    }
    answer(c, op);
}

struct adopting { struct job *j; bool nomem; };

static bool on_waiting(void *arg, const struct trial_row *row)
{
    struct adopting *a = arg;
    struct job *j = a->j;
    if (!row->told_failed || job_trial(j, row->idx))
        return true;
    struct trial *t = job_add_trial(j, row);
    if (!t) {
        a->nomem = true;
        return false;
    }
    j->row.n.failed--;
    j->row.n.reason[row->r.reason]--;
    job_wait(j, t);
    return true;
}

static void on_retry_saved(struct store_op *op)
{
    struct change *c = op->arg;
    struct job *j = sched_job(c->s, c->id);
    if (sched_saved(c->s, op))
        log_info("job_retry", "job=%llu trials=%llu", (ull)c->id, (ull)op->n_retried);
    if (j) {
        struct adopting a = { j, false };
        j->changing = false;
        int rc = op->rc == 0 ? reader_trials(c->s->cfg.reader, c->id, TRIAL_WAITING, SORT_INDEX, 0, 0, on_waiting, &a) : 0;
        if (rc < 0 || a.nomem) /* saved, and taken up with the next start or the next retry */
            log_error("job_retry", "job=%llu error=\"cannot take up its trials now\" next=\"they wait for the next start\"", (ull)c->id);
        job_maybe_end(c->s, j);
    }
    answer(c, op);
}

static void on_reopened(struct store_op *op)
{
    struct change *c = op->arg;
    struct sched *s = c->s;
    struct errbuf e = { 0 };
    if (sched_saved(s, op)) {
        struct job_row row = op->job.row;
        op->job.row.spec_json = NULL; /* job_new takes it */
        struct job *j = job_new(s, &row, &c->spec, &e);
        int rc = j ? job_load(s, j, &e) : -ERR_NOMEM;
        if (!j) { /* it is saved, and will be taken up with the next start */
            free(row.spec_json);
            log_error("job_reopened", "job=%llu error=\"%s\" next=\"it goes on after the next start\"", (ull)c->id, err_message(&e, rc));
        } else if (rc < 0) {
            job_end(s, j, JOB_FAILED, err_message(&e, rc), NULL, NULL);
        } else {
            log_info("job_reopened", "job=%llu action=%s retried=%llu", (ull)c->id, c->action, (ull)op->n_retried);
            job_maybe_end(s, j);
        }
    }
    answer(c, op);
}

/* ---- asking the store ---- */

/* What is saved, and what follows: of a live job, and of an ended one. */
static const struct kind {
    const char *name;
    int       (*check)(struct change *c, struct errbuf *e);
    enum store_kind live, ended;
    void      (*on_live)(struct store_op *op), (*on_ended)(struct store_op *op);
} kinds[] = {
    { "set", check_set, OP_JOB_SPEC, OP_JOB_SPEC, on_spec_saved, on_spec_saved },
    { "extend", check_extend, OP_JOB_SPEC, OP_JOB_REOPEN, on_spec_saved, on_reopened },
    { "finish", check_finish, OP_JOB_SPEC, OP_JOB_SPEC, on_spec_saved, on_spec_saved },
    { "retry", check_retry, OP_TRIAL_RETRY, OP_JOB_REOPEN, on_retry_saved, on_reopened },
};

static const struct kind *kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

bool sched_is_change(const char *action) { return kind_find(action) != NULL; }

static void make_live(const struct change *c, struct job_row *r)
{
    r->state = r->started_ms ? JOB_RUNNING : JOB_QUEUED;
    r->idle_ms += r->started_ms ? sched_now(c->s) - r->ended_ms : 0;
    r->ended_ms = 0;
    r->reason[0] = 0;
}

static struct store_op *change_op(struct change *c, const struct kind *k)
{
    struct store_op *op = store_op_new(c->j ? k->live : k->ended);
    char *text = job_spec_text(&c->spec);
    if (!op || !text) {
        free(op);
        free(text);
        return NULL;
    }
    op->job.row = c->row;
    op->job.row.spec_json = text;
    op->event = c->event;
    op->arg = c;
    op->done = c->j ? k->on_live : k->on_ended;
    op->retry = k->check == check_retry;
    if (op->kind == OP_JOB_REOPEN)
        make_live(c, &op->job.row);
    return op;
}

static int open_change(struct change *c, struct errbuf *e)
{
    c->j = sched_job(c->s, c->id);
    if (c->j)
        c->row = c->j->row; /* borrows its text */
    else if (reader_job(c->s->cfg.reader, c->id, &c->row) != 1)
        return err_set(e, ERR_NOTFOUND, "there is no job %llu", (ull)c->id);
    if (c->j && (c->j->ending || c->j->changing || c->j->asking))
        return err_set(e, ERR_BUSY, "job %llu: another change is being saved", (ull)c->id);
    if (c->row.state == JOB_CANCELLED || c->row.state == JOB_STOPPING)
        return err_set(e, ERR_STATE, "job %llu is %s: %s is not possible%s", (ull)c->id, job_state_name(c->row.state), c->action,
                       c->row.state == JOB_CANCELLED ? "; didact clone submits it anew" : " until it has ended");
    if (audit_stopped(&c->row) && strcmp(c->action, "set") != 0) /* it would end again where it did */
        return err_set(e, ERR_STATE, "job %llu was ended by %s: %s is not possible; didact clone submits it anew, with another audit.action",
                       (ull)c->id, c->row.reason, c->action);
    int rc = job_spec_from(c->row.spec_json, &c->was, e);
    c->spec = c->was;
    return rc;
}

void sched_change(struct sched *s, uint64_t id, const char *action, const char *text, sched_done done, void *arg)
{
    struct errbuf e = { 0 };
    const struct kind *k = kind_find(action);
    struct change *c = calloc(1, sizeof *c);
    struct store_op *op = NULL;
    int rc = c ? 0 : err_set(&e, ERR_NOMEM, "job");
    if (rc == 0) {
        *c = (struct change){ .s = s, .id = id, .action = k->name, .text = text, .done = done, .arg = arg };
        c->event = (struct event_row){ .at_ms = sched_now(s), .trial = -1 };
        snprintf(c->event.kind, sizeof c->event.kind, "%s", k->name);
        rc = open_change(c, &e);
    }
    if (rc == 0)
        rc = k->check(c, &e);
    if (rc == 0) {
        op = change_op(c, k);
        rc = op ? 0 : err_set(&e, ERR_NOMEM, "job");
    }
    if (rc < 0) {
        change_free(c);
        done(arg, rc, id, &e);
        return;
    }
    if (c->j)
        c->j->changing = true;
    sched_put(s, op);
}
