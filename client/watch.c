/* watch.c - follow a job to its end. On a terminal one block that is redrawn; elsewhere a line every ten seconds. */
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define AWAY_MAX_S 60.0 /* a restarting coordinator is waited for this long */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void nap(double s)
{
    struct timespec t = { (time_t)s, (long)((s - floor(s)) * 1e9) };
    nanosleep(&t, NULL);
}

bool job_ended(const json_t *job)
{
    int s = job_state_from(doc_str(job, "state"));
    return s == JOB_SUCCEEDED || s == JOB_FAILED || s == JOB_CANCELLED;
}

int job_exit_status(const json_t *job)
{
    return strcmp(doc_str(job, "state"), job_state_name(JOB_SUCCEEDED)) == 0 ? 0 : 1;
}

/* ---- one document as text ---- */

static double zero_if_none(double v) { return isfinite(v) ? v : 0; }

/* "104/200 trials" or, for a job of one long task, "130/2000 meta-steps". */
static double text_done(const json_t *job, char *out, size_t cap)
{
    bool   teach = strcmp(doc_str(job, "kind"), "teach") == 0;
    double done, total;
    if (teach) {
        done = zero_if_none(doc_num(job, "progress.done"));
        total = zero_if_none(doc_num(job, "progress.total"));
        if (job_ended(job) && !(done > 0)) { /* a finished task reports no progress any more */
            out[0] = 0;
            return 1;
        }
    } else {
        done = zero_if_none(doc_num(job, "trials.scored")) + zero_if_none(doc_num(job, "trials.failed"));
        total = zero_if_none(doc_num(job, "trials.budget"));
        if (total <= 0)
            total = zero_if_none(doc_num(job, "trials.total"));
    }
    if (doc_num(job, "warmup.done") < doc_num(job, "warmup.candidates")) {
        snprintf(out, cap, "warm-up %.0f/%.0f candidates", doc_num(job, "warmup.done"), doc_num(job, "warmup.candidates"));
        return 0;
    }
    if (total > 0)
        snprintf(out, cap, "%.0f/%.0f %s", done, total, teach ? "meta-steps" : "trials");
    else
        snprintf(out, cap, "%.0f %s", done, teach ? "meta-steps" : "trials");
    return total > 0 ? done / total : 0;
}

static void text_rate(const json_t *job, char *out, size_t cap)
{
    short_str left;
    double rate = doc_num(job, "rate"), eta = doc_num(job, "eta_s");
    bool   teach = strcmp(doc_str(job, "kind"), "teach") == 0;
    if (teach)
        rate = doc_num(job, "progress.rate");
    out[0] = 0;
    size_t n = 0;
    if (isfinite(rate) && rate >= 0.1)
        n = (size_t)snprintf(out, cap, "%.*f/s", rate < 10 ? 2 : 0, rate);
    else if (isfinite(rate) && rate > 0)
        n = (size_t)snprintf(out, cap, "%.1f/min", rate * 60);
    if (isfinite(eta) && eta >= 0 && !job_ended(job))
        snprintf(out + n, cap - n, "%sabout %s left", n ? "  " : "", fmt_seconds(left, eta));
}

static void text_best(const json_t *job, char *out, size_t cap)
{
    short_str score;
    double loss = doc_num(job, "progress.loss"), acc = doc_num(job, "progress.accuracy"), held = doc_num(job, "progress.held_out");
    out[0] = 0;
    if (strcmp(doc_str(job, "kind"), "teach") == 0) {
        size_t n = 0;
        if (isfinite(loss) && doc_num(job, "progress.done") > 0)
            n += (size_t)snprintf(out, cap, "meta-loss %.4f", loss);
        if (isfinite(acc) && acc > 0 && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "%saccuracy of fresh learners %.4f", n ? "  " : "", acc);
        if (isfinite(held) && held > 0 && n < cap)
            n += (size_t)snprintf(out + n, cap - n, "  held-out architectures %.4f", held);
        if (n == 0 && isfinite(doc_num(job, "best.score")))
            snprintf(out, cap, "accuracy of fresh learners %.4f", doc_num(job, "best.score"));
    } else if (isfinite(doc_num(job, "best.score"))) {
        snprintf(out, cap, "best %s  %s", fmt_score(score, doc_num(job, "best.score"), doc_num(job, "best.score_se")),
                 doc_str(job, "best.arch"));
    }
}

static void text_failures(const json_t *job, char *out, size_t cap)
{
    double failed = zero_if_none(doc_num(job, "trials.failed"));
    size_t n = 0;
    out[0] = 0;
    if (failed <= 0)
        return;
    n += (size_t)snprintf(out, cap, "failed %.0f", failed);
    for (int r = FAIL_NAN; r < FAIL_REASON_COUNT; r++) {
        char path[64];
        snprintf(path, sizeof path, "failures.%s", fail_reason_name((enum fail_reason)r));
        double v = zero_if_none(doc_num(job, path));
        if (v > 0 && n < cap)
            n += (size_t)snprintf(out + n, cap - n, " %s %.0f", fail_reason_name((enum fail_reason)r), v);
    }
}

static void text_workers(const json_t *status, char *out, size_t cap)
{
    double online = doc_num(status, "workers.online");
    out[0] = 0;
    if (isfinite(online))
        snprintf(out, cap, "workers %.0f, %.0f of %.0f slots busy", online, zero_if_none(doc_num(status, "workers.busy")),
                 zero_if_none(doc_num(status, "workers.slots")));
}

/* ---- drawing ---- */

struct screen {
    const struct watch_cfg *w;
    bool   redraw;
    int    lines;         /* of the block on the screen */
    double last_line;     /* when the last plain line went out */
};

static void draw_bar(FILE *f, double part)
{
    enum { WIDE = 30 };
    int full = part >= 1 ? WIDE : part > 0 ? (int)(part * WIDE) : 0;
    fputc('[', f);
    for (int i = 0; i < WIDE; i++)
        fputc(i < full ? '#' : '.', f);
    fputs("] ", f);
}

/* A line of the block, cut to the terminal so that one line stays one line. */
static void put_line(struct screen *s, const char *text, double bar)
{
    int width = print_width(s->w->f) - 1, used = 0;
    const char *p = text;
    fputs(s->w->indent ? s->w->indent : "", s->w->f);
    used += s->w->indent ? print_columns(s->w->indent) : 0;
    if (bar >= 0) {
        draw_bar(s->w->f, bar);
        used += 33;
    }
    for (; *p && (used < width || ((unsigned char)*p & 0xC0) == 0x80); p++) {
        used += ((unsigned char)*p & 0xC0) != 0x80;
        fputc(*p, s->w->f);
    }
    fputs("\033[K\n", s->w->f);
    s->lines++;
}

static void draw_block(struct screen *s, const json_t *job, const json_t *status, const char *note)
{
    char a[512], b[128], d[1400], line[1600];
    if (s->lines)
        fprintf(s->w->f, "\033[%dA", s->lines);
    int before = s->lines;
    s->lines = 0;
    snprintf(line, sizeof line, "job %.0f  %s  %s  %s%s%s", doc_num(job, "id"), doc_str(job, "name"), doc_str(job, "kind"),
             doc_str(job, "state"), *note ? "  " : "", note);
    put_line(s, line, -1);
    double part = text_done(job, a, sizeof a);
    text_rate(job, b, sizeof b);
    snprintf(line, sizeof line, "%s  %s", a, b);
    put_line(s, line, part);
    text_best(job, d, sizeof d);
    if (d[0])
        put_line(s, d, -1);
    if (audit_line(job, d, sizeof d))
        put_line(s, d, -1);
    text_failures(job, a, sizeof a);
    text_workers(status, b, sizeof b);
    snprintf(line, sizeof line, "%s%s%s", a, a[0] && b[0] ? "  " : "", b);
    put_line(s, line, -1);
    int grown = s->lines;
    for (int i = grown; i < before; i++) /* the block became shorter */
        fputs("\033[K\n", s->w->f);
    if (before > grown)
        fprintf(s->w->f, "\033[%dA", before - grown);
    fflush(s->w->f);
}

static void draw_line(const struct screen *s, const json_t *job, const json_t *status, const char *note)
{
    char done[128], rate[128], best[1400], failed[256], workers[128], audit[512];
    text_done(job, done, sizeof done);
    text_rate(job, rate, sizeof rate);
    text_best(job, best, sizeof best);
    text_failures(job, failed, sizeof failed);
    text_workers(status, workers, sizeof workers);
    audit_line(job, audit, sizeof audit);
    if (job_ended(job))
        rate[0] = workers[0] = 0;
    const char *part[] = { done, rate, best, audit, failed, workers, note };
    fprintf(s->w->f, "%sjob %.0f %s", s->w->indent ? s->w->indent : "", doc_num(job, "id"), doc_str(job, "state"));
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++)
        if (part[i][0])
            fprintf(s->w->f, "  %s", part[i]);
    fputc('\n', s->w->f);
    fflush(s->w->f);
}

static void draw(struct screen *s, const json_t *job, const json_t *status, const char *note, bool last)
{
    double every = s->w->every_s > 0 ? s->w->every_s : 10, now = now_s();
    if (s->redraw) {
        draw_block(s, job, status, note);
    } else if (last || now - s->last_line >= every) {
        s->last_line = now;
        if (s->w->json) {
            json_dumpf(job, s->w->f, JSON_COMPACT | JSON_REAL_PRECISION(17));
            fputc('\n', s->w->f);
            fflush(s->w->f);
        } else {
            draw_line(s, job, status, note);
        }
    }
}

/* ---- following ---- */

static int look(struct conn *conn, const char *job, json_t **doc, json_t **status, bool quiet, struct errbuf *e)
{
    int rc = conn_query(conn, doc, e, "jobs/%s", job);
    *status = NULL;
    if (rc == 0 && !quiet && conn_query(conn, status, NULL, "status") < 0)
        *status = NULL;
    return rc;
}

int watch_job(struct conn *conn, const char *job, const struct watch_cfg *w, json_t **out, struct errbuf *e)
{
    struct screen s = { .w = w, .redraw = w->f && !w->plain && !w->json && print_width(w->f) > 0, .last_line = -1e9 };
    double start = now_s(), heard = start;
    json_t *doc = NULL;
    for (;;) {
        json_t *now = NULL, *status = NULL;
        int rc = look(conn, job, &now, &status, !w->f || w->json, e);
        if (rc == 0) {
            json_decref(doc);
            doc = now;
            heard = now_s();
        } else if (rc != -ERR_UNREACHABLE || !doc || now_s() - heard > AWAY_MAX_S) {
            json_decref(doc);
            return rc;
        }
        bool ended = job_ended(doc);
        if (w->f)
            draw(&s, doc, status, rc < 0 ? "(the coordinator is away; waiting)" : "", ended);
        json_decref(status);
        if (!ended && w->limit_s > 0 && now_s() - start >= w->limit_s)
            rc = err_set(e, ERR_TIMEOUT, "the job is still %s after %g s", doc_str(doc, "state"), w->limit_s);
        else if (!ended && w->stop && *w->stop)
            rc = err_set(e, ERR_CANCELLED, "interrupted");
        else
            rc = 0;
        if (ended || rc < 0) {
            if (rc < 0)
                json_decref(doc);
            else
                *out = doc;
            return rc;
        }
        double age = now_s() - start; /* quick at first: small jobs end in no time */
        nap(age < 2 ? 0.1 : s.redraw ? 0.5 : 1.0);
    }
}

int verb_watch(struct cli *c)
{
    struct conn *conn;
    struct watch_cfg w = { .json = c->json, .plain = cli_has(c, "plain"), .f = stdout };
    json_t *doc;
    int rc = cli_num(c, "every", 0.1, 86400, &w.every_s);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0 || (rc = watch_job(conn, c->arg[0], &w, &doc, c->e)) < 0)
        return rc;
    if (*doc_str(doc, "reason") && !c->json)
        printf("%s\n", doc_str(doc, "reason"));
    rc = job_exit_status(doc);
    json_decref(doc);
    return rc;
}

static int wait_one(struct cli *c, struct conn *conn, const char *job, double left_s)
{
    struct watch_cfg w = { .limit_s = left_s };
    json_t *doc;
    int rc = watch_job(conn, job, &w, &doc, c->e);
    if (rc < 0)
        return rc;
    if (c->json)
        print_json(stdout, doc);
    else
        printf("job %.0f %s%s%s\n", doc_num(doc, "id"), doc_str(doc, "state"), *doc_str(doc, "reason") ? ": " : "",
               doc_str(doc, "reason"));
    fflush(stdout);
    rc = job_exit_status(doc);
    json_decref(doc);
    return rc;
}

/* All of them, in the order given: the worst status counts, and the limit is one for all. */
int verb_wait(struct cli *c)
{
    struct conn *conn;
    double limit_s = 0, start = now_s();
    int status = 0, rc = cli_num(c, "for", 0.001, 1e9, &limit_s);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    for (int i = 0; i < c->n_args; i++) {
        double left_s = limit_s > 0 ? fmax(limit_s - (now_s() - start), 0.001) : 0;
        rc = wait_one(c, conn, c->arg[i], left_s);
        if (rc < 0)
            return rc;
        status = rc > status ? rc : status;
    }
    return status;
}
