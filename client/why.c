/* why.c - what holds a job or a trial up, or how it came to its end; the words are the coordinator's. */
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int job_and_trial(const char *arg, name_str job, int64_t *trial, struct errbuf *e)
{
    const char *slash = strchr(arg, '/');
    size_t n = slash ? (size_t)(slash - arg) : strlen(arg);
    char *end;
    *trial = -1;
    if (n == 0 || n > NAME_MAX_LEN)
        return err_set(e, ERR_NOTFOUND, "there is no job '%.80s'", arg);
    snprintf(job, sizeof(name_str), "%.*s", (int)n, arg);
    if (!slash)
        return 0;
    *trial = strtoll(slash + 1, &end, 10);
    if (slash[1] < '0' || slash[1] > '9' || *end)
        return err_set(e, ERR_USAGE, "'%s': after / comes the number of a trial", arg);
    return 0;
}

static void print_reasons(const json_t *doc)
{
    size_t i;
    json_t *r;
    json_array_foreach(json_object_get(doc, "why"), i, r)
        printf("  %s\n", doc_str(r, "text"));
}

/* The first ancestor first. */
static void print_lineage(const json_t *list)
{
    static const struct table_col cols[] = { { "TRIAL", true, false }, { "SCORE", false, false }, { "CHANGE", false, true },
        { "ARCHITECTURE", false, true } };
    struct table t;
    short_str s;
    if (json_array_size(list) < 2)
        return;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (size_t i = json_array_size(list); i-- > 0;) {
        const json_t *r = json_array_get(list, i);
        double score = doc_num(r, "score");
        table_cell(&t, "%.0f", doc_num(r, "trial"));
        table_cell(&t, "%s", isfinite(score) ? fmt_score(s, score, doc_num(r, "score_se")) : doc_str(r, "state"));
        table_cell(&t, "%s", doc_str(r, "change"));
        table_cell(&t, "%s", doc_str(r, "arch"));
    }
    printf("\nIts lineage:\n");
    table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
}

/* The oldest first. */
static void print_events(const json_t *list)
{
    short_str s;
    size_t n = json_array_size(list);
    if (n)
        printf("\nWhat was done:\n");
    while (n-- > 0) {
        const json_t *ev = json_array_get(list, n);
        char trial[32] = "";
        if (isfinite(doc_num(ev, "trial")))
            snprintf(trial, sizeof trial, " trial %.0f", doc_num(ev, "trial"));
        printf("  %s  %s%s: %s\n", fmt_time(s, doc_num(ev, "at_ms")), doc_str(ev, "kind"), trial, doc_str(ev, "text"));
    }
}

int verb_why(struct cli *c)
{
    struct conn *conn;
    name_str job;
    int64_t trial;
    json_t *doc;
    int rc = job_and_trial(c->arg[0], job, &trial, c->e);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    rc = trial < 0 ? conn_query(conn, &doc, c->e, "jobs/%s/why", job) : conn_query(conn, &doc, c->e, "jobs/%s/why?trial=%lld", job, (long long)trial);
    if (rc < 0)
        return rc;
    if (c->json) {
        print_json(stdout, doc);
    } else {
        const json_t *t = json_object_get(doc, "trial");
        if (t)
            printf("trial %lld of job %.0f %s is %s: %s\n", (long long)trial, doc_num(doc, "job.id"), doc_str(doc, "job.name"),
                   doc_str(t, "state"), doc_str(t, "arch"));
        else
            printf("job %.0f %s is %s\n", doc_num(doc, "job.id"), doc_str(doc, "job.name"), doc_str(doc, "job.state"));
        print_reasons(doc);
        print_lineage(json_object_get(doc, "lineage"));
        print_events(json_object_get(doc, "events"));
    }
    json_decref(doc);
    return 0;
}
