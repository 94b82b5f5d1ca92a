/* Jobs that are changed while they run and opened again after their end. */
#include "tests/support/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct worker *only; /* worker of the test that runs */
static int n_taken;         /* of s->sent */

static void hire(struct sim *s) { only = sim_hello(s, "w", 7, NULL, 0, NULL); }

static void restart(struct sim *s)
{
    sim_restart(s);
    hire(s);
}

static int setup(void **state) /* the worker is never thought lost, nor too small */
{
    int rc = sim_setup_as(state, (struct sim_rules){ .beat_ms = 10000000, .lease_ms = 10000000, .any_size = true });
    n_taken = 0;
    hire(*state);
    return rc;
}

static struct answer change(struct sim *s, uint64_t job, const char *action, const char *text)
{
    struct answer a = { 1, 0, "" };
    if (!sched_is_change(action))
        return sim_act(s, job, action);
    sched_change(s->sched, job, action, text, sim_on_done, &a);
    store_flush(s->store);
    assert_int_not_equal(a.rc, 1);
    return a;
}

static void refused(struct sim *s, uint64_t job, const char *action, const char *text, int rc, const char *part)
{
    struct answer a = change(s, job, action, text);
    if (a.rc != rc || !strstr(a.text, part))
        fail_msg("%s %s: %d \"%s\", not %d \"%s\"", action, text, a.rc, a.text, rc, part);
}

static struct job_spec spec; /* large */

static void search_spec(int trials, int window)
{
    spec = sim_search_spec(trials, window);
    spec.use_book = false; /* two jobs here ask for the same networks, and both shall compute them */
}

static uint64_t submit(struct sim *s, int trials, int window)
{
    search_spec(trials, window);
    return sim_submit(s, &spec);
}

static uint64_t submit_audited(struct sim *s, int trials, int window, int every, enum audit_action action)
{
    search_spec(trials, window);
    spec.audit.share = 0.1;
    spec.audit.min = 3;
    spec.audit.every = every;
    spec.audit.action = action;
    spec.audit.lag = 4;
    return sim_submit(s, &spec);
}

static enum ack_outcome report(struct sim *s, const struct task *k, enum fail_reason why)
{
    double score = k->kind == TASK_TRAIN ? 1 - sim_score_of(k->train.arch) : sim_score_of(k->score.arch); /* no worse score is possible */
    struct trial_result r = { .state = why ? TRIAL_FAILED : TRIAL_SCORED, .reason = why, .score = why ? 0 : score,
                              .lr_scale = 1, .params = 10, .macs = 10, .seconds = 1 };
    snprintf(r.detail, sizeof r.detail, "%s", why ? "said so" : "");
    struct ack a = sim_report(s, only, sim_ref_of(k), r);
    assert_int_equal(a.rc, 0);
    return a.outcome;
}

/* One lease to its worker, the last that left; NULL: there is none to give. What it had asked for before may have come since. */
static const struct task *take(struct sim *s)
{
    if (n_taken == s->n_sent)
        sim_want(s, only, 1);
    bool any = n_taken < s->n_sent;
    n_taken = s->n_sent;
    return any ? &s->sent[s->n_sent - 1].t : NULL;
}

typedef enum fail_reason (*fate)(const struct task *k);
static void work(struct sim *s, int n, fate why) /* n < 0: until nothing is left */
{
    const struct task *k;
    for (int i = 0; i != n && (k = take(s)); i++)
        assert_int_equal(report(s, k, why(k)), ACK_RECORDED);
}

static enum fail_reason fine(const struct task *k) { (void)k; return FAIL_NONE; }
static enum fail_reason third_crashes(const struct task *k) { return k->trial % 3 == 0 && k->attempt == 1 ? FAIL_CRASH : FAIL_NONE; }
static enum fail_reason third_diverges(const struct task *k) { return k->trial % 3 == 0 ? FAIL_NAN : FAIL_NONE; }

static int proposal_line(char *out, size_t size, const struct trial_row *t)
{
    return snprintf(out, size, "%llu %s %lld %llu\n", (unsigned long long)t->idx, t->arch, (long long)t->parent, (unsigned long long)t->seed);
}

static char *proposals(struct sim *s, uint64_t job)
{
    char *text;
    assert_true(sim_rows(s, job, SORT_INDEX, proposal_line, &text) >= 0);
    return text;
}

static void same_proposals(struct sim *s, uint64_t a, uint64_t b)
{
    char *x = proposals(s, a), *y = proposals(s, b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

/* ---- extend ---- */

static void an_extended_search_has_the_history_of_one_submitted_so(void **state)
{
    struct sim *s = *state;
    uint64_t whole = submit(s, 60, 5);
    work(s, -1, fine);
    uint64_t job = submit(s, 20, 5);
    work(s, 12, fine);
    assert_int_equal(change(s, job, "extend", "budget.trials=30").rc, 0); /* while it runs */
    work(s, -1, fine);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, job).n.scored, 30);
    assert_int_equal(change(s, job, "extend", "budget.trials=60").rc, 0); /* after its end */
    assert_int_equal(sim_job_row(s, job).state, JOB_RUNNING);
    assert_int_equal(sim_job_row(s, job).n.scored, 0); /* the scheduler's again */
    work(s, 7, fine);
    restart(s);
    work(s, -1, fine);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, job).n.scored, 60);
    assert_true(sim_job_row(s, job).best_trial == sim_job_row(s, whole).best_trial);
    same_proposals(s, whole, job);
}

static void an_extension_must_be_one(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 10, 2);
    refused(s, job, "extend", "budget.trials=9", -ERR_INPUT, "larger");
    refused(s, job, "extend", "priority=3", -ERR_INPUT, "didact set");
    refused(s, job, "extend", "budget.time=60", -ERR_INPUT, "no limit");
    refused(s, job, "extend", "", -ERR_INPUT, "no key=value");
    refused(s, job, "extend", "budget.trials=many", -ERR_INPUT, "budget.trials");
    refused(s, 99, "extend", "budget.trials=20", -ERR_NOTFOUND, "99");
    work(s, -1, fine);
    refused(s, job, "extend", "budget.trials=10", -ERR_STATE, "more than that");
    refused(s, job, "set", "budget.trials=20", -ERR_STATE, "didact extend");
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    uint64_t gone = submit(s, 10, 2);
    assert_int_equal(change(s, gone, "cancel", "").rc, 0);
    refused(s, gone, "extend", "budget.trials=20", -ERR_STATE, "clone");
    refused(s, gone, "retry", "", -ERR_STATE, "cancelled");
}

static void a_budget_of_time_counts_the_time_that_a_job_lives(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 100, 4);
    assert_int_equal(change(s, job, "set", "budget.time=10s\npriority=5").rc, 0);
    work(s, 3, fine);
    sim_advance(s, 10001);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    refused(s, job, "extend", "budget.trials=200", -ERR_STATE, "extend budget.time");
    s->now += 3600000; /* it sleeps for an hour */
    assert_int_equal(change(s, job, "extend", "budget.time=20s").rc, 0);
    sim_advance(s, 9000);
    assert_int_equal(sim_job_row(s, job).state, JOB_RUNNING);
    work(s, 2, fine);
    sim_advance(s, 1000);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, job).n.scored, 5);
}

/* ---- retry ---- */

static bool on_event(void *arg, const struct event_row *ev)
{
    *(struct event_row *)arg = *ev;
    return false; /* the newest will do */
}

static void a_retried_trial_has_its_next_attempt_and_one_result(void **state)
{
    struct sim *s = *state;
    struct event_row ev;
    uint64_t job = submit(s, 10, 3);
    work(s, -1, third_crashes);
    assert_int_equal(sim_job_row(s, job).n.failed, 4);
    assert_int_equal(change(s, job, "retry", "").rc, 0);
    assert_int_equal(sim_job_row(s, job).state, JOB_RUNNING);
    assert_int_equal(sim_trial(s, job, 3)->state, TRIAL_WAITING);
    assert_int_equal(reader_events(s->reader, job, 3, 10, on_event, &ev), 1);
    assert_string_equal(ev.text, "attempt 1 failed(crash) on w: said so");
    const struct task *k = take(s);
    assert_non_null(k);
    struct task again = *k, old = again;
    assert_true(again.trial == 0 && again.attempt == 2);
    old.attempt = 1;
    assert_int_equal(report(s, &old, FAIL_NONE), ACK_STALE);
    assert_int_equal(report(s, &again, FAIL_NONE), ACK_RECORDED);
    assert_int_equal(report(s, &again, FAIL_NONE), ACK_DUPLICATE);
    work(s, -1, third_crashes);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, job).n.scored, 10);
    assert_int_equal(sim_job_row(s, job).n.failed, 0);
    assert_true(sim_trial(s, job, 0)->told_failed && sim_trial(s, job, 0)->state == TRIAL_SCORED);
    refused(s, job, "retry", "", -ERR_STATE, "no trial that failed");
}

/* Retried while the job runs, far behind the window, with a restart between: proposals stay those of the failures. */
static void what_is_proposed_does_not_depend_on_a_retry(void **state)
{
    struct sim *s = *state;
    uint64_t plain = submit(s, 40, 3);
    work(s, -1, third_crashes);
    uint64_t job = submit(s, 40, 3);
    work(s, 17, third_crashes);
    assert_int_equal(change(s, job, "retry", "").rc, 0);
    struct job *j = sched_job(s->sched, job);
    assert_int_equal(j->n_waiting, 6); /* 0 3 6 9 12 15 of the first 17 */
    assert_int_equal(j->row.n.failed, 0);
    assert_int_equal(j->row.n.reason[FAIL_CRASH], 0);
    work(s, 2, third_crashes);
    restart(s);
    j = sched_job(s->sched, job);
    assert_int_equal(j->n_waiting, 4);
    assert_int_equal(j->row.n.scored, 13);
    work(s, -1, third_crashes);
    same_proposals(s, plain, job);
    assert_int_equal(sim_job_row(s, job).n.failed, 8); /* 18 21 … 39, not retried */
    assert_int_equal(change(s, job, "retry", "").rc, 0);
    work(s, -1, third_crashes);
    same_proposals(s, plain, job);
    assert_int_equal(sim_job_row(s, job).n.scored, 40);
    assert_int_equal(sim_job_row(s, plain).n.failed, 14);
}

static void what_would_fail_again_is_not_tried_again(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 12, 3);
    assert_int_equal(change(s, job, "set", "max_failed=2").rc, 0);
    work(s, -1, third_diverges);
    assert_int_equal(sim_job_row(s, job).state, JOB_FAILED);
    assert_int_equal(sim_job_row(s, job).n.reason[FAIL_NAN], 2);
    refused(s, job, "retry", "", -ERR_STATE, "max_failed");
    assert_int_equal(change(s, job, "set", "max_failed=0").rc, 0);
    assert_int_equal(sim_job_row(s, job).state, JOB_FAILED);
    assert_int_equal(change(s, job, "retry", "").rc, 0); /* it goes on where it stood */
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_FAILED);
    work(s, -1, third_diverges);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, job).n.failed, 4);
    assert_int_equal(sim_job_row(s, job).n.scored, 8);
    refused(s, job, "retry", "", -ERR_STATE, "fail again");
}

/* ---- jobs that are audited ---- */

static int audit_line(char *out, size_t size, const struct trial_row *t)
{
    return snprintf(out, size, "%llu %s %d\n", (unsigned long long)t->idx, trial_state_name(t->state), t->told_failed);
}

static char *audits(struct sim *s, uint64_t job)
{
    char *text;
    assert_true(sim_rows(s, job, SORT_AUDIT, audit_line, &text) > 0);
    return text;
}

/* Both of the audit's own trainings that fail and of candidates that are scored after all: the sample stays what it was. */
static void a_retry_leaves_the_audit_as_it_was(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit_audited(s, 30, 5, 3, AUDIT_WARN);
    work(s, -1, third_crashes);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_true(sim_job_row(s, job).n.failed == 10 && sim_job_row(s, job).n.scored == 20);
    char *before = audits(s, job);
    assert_true(strstr(before, "failed 0") && strstr(before, "scored 0"));
    assert_int_equal(change(s, job, "retry", "").rc, 0);
    work(s, 4, fine);
    restart(s);
    work(s, -1, fine);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_true(sim_job_row(s, job).n.failed == 0 && sim_job_row(s, job).n.scored == 30);
    char *after = audits(s, job);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void trainings_that_are_cancelled_are_no_part_of_the_counts(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit_audited(s, 8, 1, 2, AUDIT_WARN);
    const struct task *k;
    while ((k = take(s)) && k->trial < TRIAL_AUDIT)
        assert_int_equal(report(s, k, FAIL_NONE), ACK_RECORDED);
    assert_true(k && k->trial >= TRIAL_AUDIT);
    assert_int_equal(change(s, job, "cancel", "").rc, 0);
    assert_int_equal(sim_trial(s, job, k->trial)->state, TRIAL_CANCELLED);
    assert_int_equal(sim_job_row(s, job).n.cancelled, 0);
}

static void a_search_that_its_audit_ended_stays_ended(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit_audited(s, 40, 1, 1, AUDIT_STOP);
    work(s, -1, fine);
    struct job_row row = sim_job_row(s, job);
    assert_int_equal(row.state, JOB_FAILED);
    assert_true(row.n.scored < 40 && strstr(row.reason, "is below the floor"));
    refused(s, job, "extend", "budget.trials=80", -ERR_STATE, "was ended by its audit");
    refused(s, job, "retry", "", -ERR_STATE, "was ended by its audit");
    assert_int_equal(change(s, job, "set", "priority=3").rc, 0);
}

static void an_extended_search_is_audited_on(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit_audited(s, 12, 3, 3, AUDIT_WARN);
    work(s, -1, fine);
    char *before = audits(s, job);
    assert_int_equal(change(s, job, "extend", "budget.trials=24").rc, 0);
    work(s, -1, fine);
    assert_true(sim_job_row(s, job).state == JOB_SUCCEEDED && sim_job_row(s, job).n.scored == 24);
    char *after = audits(s, job);
    assert_true(strlen(after) > strlen(before) && strncmp(before, after, strlen(before)) == 0);
    free(before);
    free(after);
}

/* ---- set ---- */

static void settings_change_a_living_job_and_survive_a_restart(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 40, 8);
    assert_int_equal(change(s, job, "set", "parallel=3\npriority=-4\nbudget.trials=20").rc, 0);
    struct job *j = sched_job(s->sched, job);
    assert_true(j->spec.parallel == 3 && j->spec.priority == -4 && j->total == 20);
    work(s, 15, fine);
    refused(s, job, "set", "budget.trials=10", -ERR_STATE, "15 trials have been proposed");
    refused(s, job, "set", "seed=3", -ERR_INPUT, "what can be set");
    refused(s, job, "set", "parallel=3\nwindow=9", -ERR_INPUT, "window=9");
    refused(s, job, "set", "parallel=lots", -ERR_INPUT, "parallel");
    assert_int_equal(change(s, job, "set", "budget.trials=15").rc, 0); /* all that it needs is there: it ends */
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    uint64_t other = submit(s, 40, 8);
    assert_int_equal(change(s, other, "set", "parallel=2").rc, 0);
    restart(s);
    assert_int_equal(sched_job(s->sched, other)->spec.parallel, 2);
}

/* ---- what goes wrong ---- */

static void a_change_that_cannot_be_saved_changes_nothing(void **state)
{
    struct sim *s = *state;
    struct event_row ev;
    static const struct { const char *action, *text; } changes[] = {
        { "set", "priority=7" }, { "extend", "budget.trials=99" }, { "retry", "" } };
    uint64_t live = submit(s, 30, 3), over = submit(s, 6, 3);
    assert_int_equal(change(s, over, "set", "priority=1").rc, 0); /* the first to be served */
    work(s, 9, third_crashes);
    assert_int_equal(sim_job_row(s, over).state, JOB_SUCCEEDED);
    for (int i = 0; i < 6; i++) {
        uint64_t job = i % 2 ? live : over;
        s->fault = ERR_IO;
        assert_int_equal(change(s, job, changes[i / 2].action, changes[i / 2].text).rc, -ERR_IO);
        s->fault = 0;
        sim_advance(s, 2000); /* the store is probed */
        assert_int_equal(reader_events(s->reader, job, -1, 10, on_event, &ev), job == over); /* the one that went well */
    }
    struct job *j = sched_job(s->sched, live);
    assert_true(j->spec.priority == 0 && j->total == 30 && j->row.n.failed == 1 && j->n_waiting == 0 && !j->changing);
    assert_null(sched_job(s->sched, over));
    assert_int_equal(sim_job_row(s, over).state, JOB_SUCCEEDED);
    assert_int_equal(sim_trial(s, over, 0)->state, TRIAL_FAILED);
    assert_int_equal(change(s, over, "retry", "").rc, 0);
    assert_int_equal(change(s, live, "extend", "budget.trials=99").rc, 0);
    work(s, -1, third_crashes);
    assert_int_equal(sim_job_row(s, live).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, over).n.scored, 6);
}

/* Two people at once: the second is told to come again, or that it has been done. */
static void one_change_at_a_time(void **state)
{
    struct sim *s = *state;
    struct answer a = { 1, 0, "" }, b = { 1, 0, "" };
    uint64_t job = submit(s, 10, 3);
    sched_change(s->sched, job, "set", "priority=3", sim_on_done, &a);
    sched_change(s->sched, job, "set", "priority=4", sim_on_done, &b);
    store_flush(s->store);
    assert_true(a.rc == 0 && b.rc == -ERR_BUSY);
    assert_int_equal(sched_job(s->sched, job)->spec.priority, 3);
    work(s, -1, third_crashes);
    a.rc = b.rc = 1;
    sched_change(s->sched, job, "retry", "", sim_on_done, &a);
    sched_change(s->sched, job, "extend", "budget.trials=20", sim_on_done, &b);
    store_flush(s->store);
    assert_true(a.rc == 0 && b.rc == -ERR_STATE);
    assert_non_null(strstr(b.text, "before"));
    work(s, -1, third_crashes);
    assert_int_equal(sim_job_row(s, job).n.scored, 10);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, sim_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_extended_search_has_the_history_of_one_submitted_so),
        T(an_extension_must_be_one),
        T(a_budget_of_time_counts_the_time_that_a_job_lives),
        T(a_retried_trial_has_its_next_attempt_and_one_result),
        T(what_is_proposed_does_not_depend_on_a_retry),
        T(what_would_fail_again_is_not_tried_again),
        T(a_change_that_cannot_be_saved_changes_nothing),
        T(one_change_at_a_time),
        T(a_retry_leaves_the_audit_as_it_was),
        T(trainings_that_are_cancelled_are_no_part_of_the_counts),
        T(a_search_that_its_audit_ended_stays_ended),
        T(an_extended_search_is_audited_on),
        T(settings_change_a_living_job_and_survive_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
