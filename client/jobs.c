/* jobs.c - look at jobs and trials, and change a job's course. */
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double or_zero(double v) { return isfinite(v) ? v : 0; }

/* limit and offset of a list as query text. */
static int page(struct cli *c, char *out, size_t cap)
{
    int64_t limit = 100, offset = 0;
    int rc = cli_int(c, "limit", 1, 1000, &limit);
    if (rc < 0 || (rc = cli_int(c, "offset", 0, INT64_MAX, &offset)) < 0)
        return rc;
    snprintf(out, cap, "offset=%lld&limit=%lld", (long long)offset, (long long)limit);
    return 0;
}

static void tell_rest(const json_t *doc, const char *list)
{
    size_t shown = json_array_size(json_object_get(doc, list));
    double total = doc_num(doc, "total");
    if (isfinite(total) && total > (double)shown)
        fprintf(stderr, "%zu of %.0f; --limit and --offset show others\n", shown, total);
}

/* ---- jobs ---- */

void jobs_table(const json_t *doc, FILE *f, int width)
{
    static const struct table_col cols[] = { { "JOB", true, false }, { "NAME", false, true }, { "KIND", false, false },
        { "STATE", false, false }, { "TRIALS", true, false }, { "FAILED", true, false }, { "BEST", false, false },
        { "RATE", true, false }, { "LEFT", true, false }, { "CREATED", false, false } };
    struct table t;
    size_t i;
    json_t *j;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(json_object_get(doc, "jobs"), i, j) {
        short_str s;
        double budget = doc_num(j, "trials.budget"), rate = doc_num(j, "rate");
        table_cell(&t, "%.0f", doc_num(j, "id"));
        table_cell(&t, "%s", doc_str(j, "name"));
        table_cell(&t, "%s", doc_str(j, "kind"));
        table_cell(&t, "%s", doc_str(j, "state"));
        if (isfinite(budget) && budget > 0)
            table_cell(&t, "%.0f/%.0f", or_zero(doc_num(j, "trials.scored")), budget);
        else
            table_cell(&t, "%.0f", or_zero(doc_num(j, "trials.scored")));
        table_cell(&t, "%.0f", or_zero(doc_num(j, "trials.failed")));
        table_cell(&t, "%s", fmt_score(s, doc_num(j, "best.score"), doc_num(j, "best.score_se")));
        if (isfinite(rate) && rate > 0 && !job_ended(j))
            table_cell(&t, "%.2f/s", rate);
        else
            table_cell(&t, "%s", "");
        table_cell(&t, "%s", job_ended(j) ? "" : fmt_seconds(s, doc_num(j, "eta_s")));
        table_cell(&t, "%s", fmt_time(s, doc_num(j, "created_ms")));
    }
    table_print(&t, f, width);
    table_fini(&t);
}

int verb_jobs(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    char where[128];
    const char *state = cli_str(c, "state", NULL);
    if (state && job_state_from(state) < 0)
        return err_set(c->e, ERR_USAGE, "--state: no job is ever '%s' (queued running paused stopping succeeded failed cancelled)", state);
    int rc = page(c, where, sizeof where);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    rc = conn_query(conn, &doc, c->e, "jobs?%s%s%s", where, state ? "&state=" : "", state ? state : "");
    if (rc < 0)
        return rc;
    if (c->json) {
        print_json(stdout, doc);
    } else if (json_array_size(json_object_get(doc, "jobs")) == 0) {
        printf("no jobs%s\n", state ? " in this state" : " yet; didact submit hands one in");
    } else {
        jobs_table(doc, stdout, print_width(stdout));
        tell_rest(doc, "jobs");
    }
    json_decref(doc);
    return 0;
}

/* ---- show ---- */

static void line(FILE *f, const char *label, const char *text)
{
    if (*text && strcmp(text, "-") != 0)
        fprintf(f, "%-12s %s\n", label, text);
}

static void show_trials(const json_t *job, FILE *f)
{
    fprintf(f, "%-12s %.0f scored, %.0f failed, %.0f running, %.0f waiting, %.0f cancelled", "trials",
            or_zero(doc_num(job, "trials.scored")), or_zero(doc_num(job, "trials.failed")), or_zero(doc_num(job, "trials.running")),
            or_zero(doc_num(job, "trials.waiting")), or_zero(doc_num(job, "trials.cancelled")));
    if (or_zero(doc_num(job, "trials.budget")) > 0)
        fprintf(f, "; budget %.0f", doc_num(job, "trials.budget"));
    fputc('\n', f);
    if (or_zero(doc_num(job, "trials.failed")) > 0) {
        fprintf(f, "%-12s", "failures");
        for (int r = FAIL_NAN; r < FAIL_REASON_COUNT; r++) {
            char path[64];
            snprintf(path, sizeof path, "failures.%s", fail_reason_name((enum fail_reason)r));
            if (or_zero(doc_num(job, path)) > 0)
                fprintf(f, " %s %.0f", fail_reason_name((enum fail_reason)r), doc_num(job, path));
        }
        fputc('\n', f);
    }
}

void show_job(const json_t *job, FILE *f)
{
    short_str s;
    char text[1400];
    fprintf(f, "%-12s %.0f  %s\n", "job", doc_num(job, "id"), doc_str(job, "name"));
    line(f, "kind", doc_str(job, "kind"));
    line(f, "state", doc_str(job, "state"));
    line(f, "reason", doc_str(job, "reason"));
    line(f, "created", fmt_time(s, doc_num(job, "created_ms")));
    line(f, "started", fmt_time(s, doc_num(job, "started_ms")));
    line(f, "ended", fmt_time(s, doc_num(job, "ended_ms")));
    line(f, "dataset", doc_str(job, "dataset"));
    line(f, "curriculum", doc_str(job, "curriculum"));
    line(f, "space", doc_str(job, "space"));
    show_trials(job, f);
    if (isfinite(doc_num(job, "best.score"))) {
        snprintf(text, sizeof text, "trial %.0f  %s  %s", or_zero(doc_num(job, "best.trial")),
                 fmt_score(s, doc_num(job, "best.score"), doc_num(job, "best.score_se")), doc_str(job, "best.arch"));
        line(f, "best", text);
    }
    if (isfinite(doc_num(job, "warmup.candidates"))) {
        snprintf(text, sizeof text, "%.0f of %.0f candidates", doc_num(job, "warmup.done"), doc_num(job, "warmup.candidates"));
        line(f, "warm-up", text);
    }
    if (isfinite(doc_num(job, "progress.done"))) {
        snprintf(text, sizeof text, "%.0f of %.0f  loss %.4f  accuracy %.4f", doc_num(job, "progress.done"),
                 or_zero(doc_num(job, "progress.total")), or_zero(doc_num(job, "progress.loss")),
                 or_zero(doc_num(job, "progress.accuracy")));
        line(f, "progress", text);
    }
    if (audit_line(job, text, sizeof text))
        line(f, "audit", text + strlen("audit: "));
    const bool trains = strcmp(doc_str(job, "kind"), job_kind_name(JOB_VERIFY)) == 0 || doc_num(job, "spec.audit.share") > 0;
    if (json_is_boolean(doc_get(job, "repeatable")))
        line(f, "repeatable", doc_true(job, "repeatable") ? trains ? "yes, to the bit; real training on processors of one kind (OpenBLAS has a say there)" : "yes, to the bit"
                                                          : "no (a budget in seconds, a measured latency or device any has a say)");
}

int verb_show(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    name_str job;
    int64_t trial;
    int rc = job_and_trial(c->arg[0], job, &trial, c->e);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    if (trial >= 0)
        return show_trial(conn, job, trial, c->json, stdout, c->e);
    if ((rc = conn_query(conn, &doc, c->e, "jobs/%s", c->arg[0])) < 0)
        return rc;
    if (c->json) {
        print_json(stdout, doc);
    } else {
        show_job(doc, stdout);
        if (json_is_object(json_object_get(doc, "spec"))) {
            printf("spec\n");
            print_tree(stdout, json_object_get(doc, "spec"), "");
        }
    }
    json_decref(doc);
    return 0;
}

/* ---- trials ---- */

/* What the worker of this id is called; the id where it was not heard of since the coordinator's start. */
static const char *worker_name(const json_t *workers, const char *id)
{
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(workers, "workers"), i, w)
        if (strcmp(doc_str(w, "id"), id) == 0)
            return doc_str(w, "name");
    return id;
}

static void trials_table(const json_t *list, const json_t *workers)
{
    static const struct table_col cols[] = { { "TRIAL", true, false }, { "STATE", false, false }, { "SCORE", false, false },
        { "PARAMS", true, false }, { "MACS", true, false }, { "SECONDS", true, false }, { "WORKER", false, false },
        { "TRY", true, false }, { "ARCHITECTURE", false, true } };
    struct table t;
    size_t i;
    json_t *r;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(list, i, r) {
        short_str s;
        const char *reason = doc_str(r, "reason");
        bool named = *reason && strcmp(reason, "none") != 0;
        table_cell(&t, "%.0f", or_zero(doc_num(r, "trial")));
        table_cell(&t, named ? "%s(%s)" : "%s%s", doc_str(r, "state"), named ? reason : "");
        table_cell(&t, "%s", fmt_score(s, doc_num(r, "score"), doc_num(r, "score_se")));
        table_cell(&t, "%s", fmt_count(s, doc_num(r, "params")));
        table_cell(&t, "%s", fmt_count(s, doc_num(r, "macs")));
        if (isfinite(doc_num(r, "seconds")))
            table_cell(&t, "%.2f", doc_num(r, "seconds"));
        else
            table_cell(&t, "%s", "");
        table_cell(&t, "%s", worker_name(workers, doc_str(r, "worker")));
        table_cell(&t, "%.0f", or_zero(doc_num(r, "attempt")));
        table_cell(&t, "%s", doc_str(r, "arch"));
    }
    table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
}

int verb_trials(struct cli *c)
{
    struct conn *conn;
    json_t *doc, *workers = NULL;
    char where[128];
    const char *state = cli_str(c, "state", NULL), *sort = cli_str(c, "sort", "index");
    if (state && trial_state_from(state) < 0)
        return err_set(c->e, ERR_USAGE, "--state: no trial is ever '%s' (waiting running scored failed cancelled)", state);
    if (strcmp(sort, "index") != 0 && strcmp(sort, "score") != 0)
        return err_set(c->e, ERR_USAGE, "--sort is index or score, not '%s'", sort);
    int rc = page(c, where, sizeof where);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    rc = conn_query(conn, &doc, c->e, "jobs/%s/trials?%s&sort=%s%s%s", c->arg[0], where, sort, state ? "&state=" : "",
                    state ? state : "");
    if (rc < 0)
        return rc;
    if (c->json) {
        print_json(stdout, doc);
    } else if ((rc = conn_query(conn, &workers, c->e, "workers?limit=1000")) == 0) {
        trials_table(json_object_get(doc, "trials"), workers);
        tell_rest(doc, "trials");
    }
    json_decref(workers);
    json_decref(doc);
    return rc;
}

/* ---- pause, resume, cancel, set, extend, retry, replay ---- */

static int act_with(struct cli *c, const char *action, const char *arg, bool again)
{
    struct conn *conn;
    json_t *doc;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = conn_action(conn, c->arg[0], action, arg, again, &doc, c->e)) < 0)
        return rc;
    if (c->json)
        print_json(stdout, doc);
    else
        printf("job %s: %s\n", c->arg[0], *doc_str(doc, "state") ? doc_str(doc, "state") : action);
    json_decref(doc);
    return 0;
}

static int act(struct cli *c, const char *action) { return act_with(c, action, "", true); } /* pausing twice is pausing */

int verb_pause(struct cli *c)  { return act(c, "pause"); }
int verb_resume(struct cli *c) { return act(c, "resume"); }

int verb_cancel(struct cli *c)
{
    char question[160];
    snprintf(question, sizeof question, "Cancel job %.80s for good (its results so far are kept)", c->arg[0]);
    int rc = cli_confirm(c, question);
    return rc < 0 ? rc : act(c, "cancel");
}

int verb_finish(struct cli *c) { return act_with(c, "finish", "", false); }

int verb_retry(struct cli *c) { return act_with(c, "retry", "", false); }

int verb_set(struct cli *c)
{
    char lines[512] = "";
    for (int i = 1; i < c->n_args; i++) {
        size_t n = strlen(lines);
        if (!strchr(c->arg[i], '=') || strchr(c->arg[i], '\n'))
            return err_set(c->e, ERR_USAGE, "'%s' is not key=value", c->arg[i]);
        if (n + strlen(c->arg[i]) + 2 > sizeof lines)
            return err_set(c->e, ERR_USAGE, "too many settings at once");
        snprintf(lines + n, sizeof lines - n, "%s\n", c->arg[i]);
    }
    return act_with(c, "set", lines, true);
}

int verb_extend(struct cli *c)
{
    char lines[512] = "";
    size_t n = 0;
    static const struct { const char *flag, *key; } keys[] = { { "trials", "budget.trials" }, { "time", "budget.time" } };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (cli_has(c, keys[i].flag))
            n += (size_t)snprintf(lines + n, sizeof lines - n, "%s=%.100s\n", keys[i].key, cli_str(c, keys[i].flag, ""));
    if (n == 0)
        return err_set(c->e, ERR_USAGE, "extend needs --trials N or --time T: the new budget, in all");
    return act_with(c, "extend", lines, true);
}

int verb_replay(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    int rc = cli_conn(c, &conn);
    if (rc < 0)
        return rc;
    conn_patience(conn, 600); /* every proposal of the job is made again */
    if ((rc = conn_query(conn, &doc, c->e, "jobs/%s/replay", c->arg[0])) < 0)
        return rc;
    bool ok = doc_true(doc, "ok");
    json_t *first = doc_get(doc, "first_difference");
    if (c->json) {
        print_json(stdout, doc);
    } else if (ok && doc_true(doc, "external")) {
        printf("as it must be: %.0f proposals from outside, each canonical, within the constraints, and made when the results before its window "
               "were in; whether the program outside would make them again is not known here\n", or_zero(doc_num(doc, "checked")));
    } else if (ok) {
        printf("the same: the searcher run again on the recorded results makes the same %.0f proposals (%.0f compared)\n",
               or_zero(doc_num(doc, "proposals")), or_zero(doc_num(doc, "checked")));
    } else {
        char *s = first ? json_dumps(first, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        printf("DIFFERENT: of %.0f proposals, %.0f were compared; the first difference: %s\n", or_zero(doc_num(doc, "proposals")),
               or_zero(doc_num(doc, "checked")), s ? s : "unknown");
        free(s);
    }
    json_decref(doc);
    return ok ? 0 : 1;
}
