/* top.c - what goes on: the coordinator in one line, the jobs that are not over, the workers. Redrawn in place on a terminal. */
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MOST_JOBS    20
#define MOST_WORKERS 50

static double or_zero(double v) { return isfinite(v) ? v : 0; }

/* {status, jobs, workers}: the documents as they are, jobs of the states that are not an end. */
static int look(struct conn *conn, json_t **out, struct errbuf *e)
{
    static const enum job_state states[] = { JOB_RUNNING, JOB_STOPPING, JOB_PAUSED, JOB_QUEUED };
    json_t *status = NULL, *workers = NULL, *jobs = json_array(), *doc;
    int rc = conn_query(conn, &status, e, "status");
    if (rc == 0)
        rc = conn_query(conn, &workers, e, "workers?limit=%d", MOST_WORKERS);
    for (size_t i = 0; i < sizeof states / sizeof states[0] && rc == 0; i++)
        if ((rc = conn_query(conn, &doc, e, "jobs?state=%s&limit=%d", job_state_name(states[i]), MOST_JOBS)) == 0) {
            json_array_extend(jobs, json_object_get(doc, "jobs"));
            json_decref(doc);
        }
    if (rc == 0 && !(*out = json_pack("{s:O,s:O,s:O}", "status", status, "jobs", jobs, "workers", json_object_get(workers, "workers"))))
        rc = err_set(e, ERR_NOMEM, "out of memory");
    json_decref(status);
    json_decref(workers);
    json_decref(jobs);
    return rc;
}

static void write_text(const json_t *doc, FILE *f, int width)
{
    const json_t *s = json_object_get(doc, "status");
    short_str up;
    double online = or_zero(doc_num(s, "workers.online"));
    fprintf(f, "didactd %s, up %s  %.2f trials/s  %.0f worker%s, %.0f of %.0f slots busy\n", doc_str(s, "version"),
            fmt_seconds(up, (doc_num(s, "now_ms") - doc_num(s, "started_ms")) / 1000), or_zero(doc_num(s, "rates.trials_per_s_1m")),
            online, online == 1 ? "" : "s", or_zero(doc_num(s, "workers.busy")), or_zero(doc_num(s, "workers.slots")));
    if (doc_true(s, "store.failing"))
        fprintf(f, "THE STORE CANNOT BE WRITTEN: nothing is given out or acknowledged\n");
    fputc('\n', f);
    if (json_array_size(json_object_get(doc, "jobs")))
        jobs_table(doc, f, width);
    else
        fprintf(f, "no job runs or waits\n");
    fputc('\n', f);
    if (json_array_size(json_object_get(doc, "workers")))
        workers_table(doc, f, width);
    else
        fprintf(f, "no workers\n");
}

/* As many lines as the terminal has, each without what stood there before. */
static void redraw(const char *text)
{
    struct winsize w = { 0 };
    int rows = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 2 ? w.ws_row - 1 : 24;
    fputs("\033[H", stdout);
    for (const char *p = text; *p && rows-- > 0;) {
        size_t n = strcspn(p, "\n");
        printf("%.*s\033[K\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

static int show(const json_t *doc, bool live, struct errbuf *e)
{
    char  *text = NULL;
    size_t len = 0;
    FILE  *f = open_memstream(&text, &len);
    if (!f)
        return err_set(e, ERR_NOMEM, "out of memory");
    write_text(doc, f, print_width(stdout));
    if (fclose(f) == 0 && text)
        live ? redraw(text) : (void)fputs(text, stdout);
    free(text);
    return 0;
}

int verb_top(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    double every_s = 2;
    bool live = !c->json && !cli_has(c, "once") && print_width(stdout) > 0;
    int rc = cli_num(c, "every", 0.1, 3600, &every_s);
    if (rc == 0)
        rc = cli_conn(c, &conn);
    while (rc == 0) {
        if ((rc = look(conn, &doc, c->e)) < 0)
            break;
        if (c->json)
            print_json(stdout, doc);
        else
            rc = show(doc, live, c->e);
        json_decref(doc);
        if (!live)
            break;
        nanosleep(&(struct timespec){ (time_t)every_s, (long)(fmod(every_s, 1) * 1e9) }, NULL);
    }
    return rc;
}
