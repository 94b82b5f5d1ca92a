/* metrics.c - OpenMetrics text for Prometheus: names end in _total where they only grow. */
#include "coordinator/docs_int.h"

#include <stdio.h>
#include <stdlib.h>

static void head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, help);
}

static void gauge(FILE *f, const char *name, const char *help, double v)
{
    head(f, name, "gauge", help);
    fprintf(f, "%s %.17g\n", name, v);
}

static void counter(FILE *f, const char *name, const char *help, uint64_t v)
{
    head(f, name, "counter", help);
    fprintf(f, "%s_total %llu\n", name, (unsigned long long)v);
}

char *metrics_text(struct coord *c)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    struct totals t;
    struct store_stats st;
    if (!f)
        return NULL;
    docs_totals(c, &t);
    store_stats(c->store, &st);
    head(f, "didact_jobs", "gauge", "Jobs by state.");
    for (int s = 0; s < JOB_STATE_COUNT; s++)
        fprintf(f, "didact_jobs{state=\"%s\"} %llu\n", job_state_name((enum job_state)s), (unsigned long long)t.jobs[s]);
    head(f, "didact_trials", "gauge", "Trials by state.");
    const struct { const char *state; uint64_t n; } trials[] = {
        { "waiting", t.waiting }, { "running", t.running }, { "scored", t.trials.scored }, { "failed", t.trials.failed },
        { "cancelled", t.trials.cancelled } };
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
        fprintf(f, "didact_trials{state=\"%s\"} %llu\n", trials[i].state, (unsigned long long)trials[i].n);
    gauge(f, "didact_workers_online", "Workers heard of within three heartbeats.", (double)t.online);
    gauge(f, "didact_worker_slots", "Leases that they can hold together.", (double)t.slots);
    gauge(f, "didact_leases_held", "Leases that they hold.", (double)t.busy);
    counter(f, "didact_leases_granted", "Leases given out since the start.", c->sched->count.leases);
    counter(f, "didact_trials_from_book", "Trials that the score book answered since the start.", c->sched->count.from_book);
    counter(f, "didact_leases_expired", "Leases that ran out.", c->sched->count.expired);
    counter(f, "didact_worker_deaths", "Leases lost with their worker.", c->sched->count.deaths);
    head(f, "didact_results", "counter", "Results by what came of them.");
    fprintf(f, "didact_results_total{outcome=\"recorded\"} %llu\ndidact_results_total{outcome=\"duplicate\"} %llu\n"
            "didact_results_total{outcome=\"stale\"} %llu\ndidact_results_total{outcome=\"refused\"} %llu\n",
            (unsigned long long)c->sched->count.recorded, (unsigned long long)c->sched->count.duplicate,
            (unsigned long long)c->sched->count.stale, (unsigned long long)c->sched->count.refused);
    counter(f, "didact_proposals", "Trials proposed by searchers.", c->sched->count.proposals);
    gauge(f, "didact_told_waiting", "Questions of outside searchers that wait for results.", (double)c->n_told_waits);
    counter(f, "didact_messages", "Messages received over ZeroMQ.", c->messages);
    counter(f, "didact_messages_refused", "Of them, malformed or not allowed.", c->refused);
    counter(f, "didact_store_commits", "Transactions.", st.commits);
    counter(f, "didact_store_rows", "Operations in them.", st.rows);
    counter(f, "didact_store_failures", "Transactions that failed.", st.failures);
    gauge(f, "didact_store_queue", "Operations that wait for a commit.", (double)st.queued);
    gauge(f, "didact_store_up", "1 while writes succeed.", c->sched->store_down ? 0 : 1);
    gauge(f, "didact_store_bytes", "Size of the database.", (double)reader_db_bytes(c->reader));
    gauge(f, "didact_trials_per_second", "Finished trials, mean of the last minute.", sched_rate(c->sched));
    gauge(f, "didact_uptime_seconds", "Since the start.", (double)(clock_ms() - c->started_ms) / 1000);
    fputs("# EOF\n", f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
