/* ask.c - an outside searcher on the command line: propose architectures, be told results.
 * Every request bears a key, one's own or a random one, so that asking again after a lost answer proposes nothing twice. */
#include "client/verbs.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_S 30 /* of one question for results */
#define ROOM_S 2  /* between two tries of a proposal that was not taken */

/* Trials that were proposed here, rising. */
struct mine { int64_t *v; /* owned */ size_t n, cap; };

static int mine_add(struct mine *m, int64_t trial, struct errbuf *e)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 64;
        int64_t *v = realloc(m->v, cap * sizeof *v);
        if (!v)
            return err_set(e, ERR_NOMEM, "out of memory");
        m->v = v;
        m->cap = cap;
    }
    m->v[m->n++] = trial;
    return 0;
}

static bool mine_has(const struct mine *m, int64_t trial)
{
    for (size_t lo = 0, hi = m->n; lo < hi;) {
        size_t mid = (lo + hi) / 2;
        if (m->v[mid] == trial)
            return true;
        if (m->v[mid] < trial)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

/* ---- told ---- */

static int ask_told(struct conn *conn, const char *job, int64_t after, int wait_s, int limit, json_t **doc, struct errbuf *e)
{
    conn_patience(conn, 2 * (wait_s + CONN_TIMEOUT_S)); /* a request that may go twice gets half the time each */
    return conn_query(conn, doc, e, "jobs/%s/told?after=%lld&wait=%d&limit=%d", job, (long long)after, wait_s, limit);
}

static void told_row(struct table *t, const json_t *r)
{
    short_str s;
    const char *reason = doc_str(r, "reason");
    table_cell(t, "%.0f", doc_num(r, "trial"));
    table_cell(t, *reason ? "%s(%s)" : "%s%s", doc_str(r, "state"), reason);
    table_cell(t, "%s", fmt_score(s, doc_num(r, "score"), doc_num(r, "score_se")));
    table_cell(t, "%s", fmt_count(s, doc_num(r, "params")));
    table_cell(t, "%s", fmt_count(s, doc_num(r, "macs")));
    table_cell(t, "%s", doc_str(r, "tag"));
    table_cell(t, "%s", doc_str(r, "arch"));
}

static void told_table(const json_t *list)
{
    static const struct table_col cols[] = { { "TRIAL", true, false }, { "STATE", false, false }, { "SCORE", false, false },
        { "PARAMS", true, false }, { "MACS", true, false }, { "TAG", false, false }, { "ARCHITECTURE", false, true } };
    struct table t;
    json_t *r;
    size_t i;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(list, i, r)
        told_row(&t, r);
    table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
}

int verb_told(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    int64_t after = 0, wait_s = 0, limit = 100;
    int rc;
    if ((rc = cli_int(c, "after", 0, 1000000000, &after)) < 0 || (rc = cli_int(c, "wait", 0, 60, &wait_s)) < 0 ||
        (rc = cli_int(c, "limit", 1, 1000, &limit)) < 0 || (rc = cli_conn(c, &conn)) < 0 ||
        (rc = ask_told(conn, c->arg[0], after, (int)wait_s, (int)limit, &doc, c->e)) < 0)
        return rc;
    json_t *list = json_object_get(doc, "told");
    if (c->json)
        print_json(stdout, doc);
    else if (json_array_size(list) == 0)
        printf("nothing yet from trial %lld on; job %s is %s\n", (long long)after, c->arg[0], doc_str(doc, "state"));
    else
        told_table(list);
    json_decref(doc);
    return 0;
}

static bool over(const json_t *doc) /* of the job that `told` speaks of */
{
    const char *s = doc_str(doc, "state");
    return strcmp(s, "succeeded") == 0 || strcmp(s, "failed") == 0 || strcmp(s, "cancelled") == 0;
}

/* Until the results of all of them are in, or the job has ended without. */
static int wait_mine(struct cli *c, struct conn *conn, const struct mine *m)
{
    json_t *all = json_array(), *doc, *r;
    int64_t next = m->n ? m->v[0] : 0;
    size_t i, had;
    bool end = m->n == 0;
    int rc = 0;
    while (!end && rc == 0) {
        had = json_array_size(all);
        if ((rc = ask_told(conn, c->arg[0], next, WAIT_S, 1000, &doc, c->e)) < 0)
            break;
        json_array_foreach(json_object_get(doc, "told"), i, r)
            if (mine_has(m, (int64_t)doc_num(r, "trial")))
                json_array_append(all, r);
        bool more = doc_num(doc, "next") > (double)next;
        next = (int64_t)doc_num(doc, "next");
        end = next > m->v[m->n - 1] || (!more && over(doc));
        json_decref(doc);
        for (i = had; c->json && i < json_array_size(all); i++) {
            json_dumpf(json_array_get(all, i), stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
            putchar('\n');
        }
        fflush(stdout);
    }
    had = json_array_size(all);
    if (rc == 0 && !c->json && had)
        told_table(all);
    json_decref(all);
    return rc < 0 || had == m->n ? rc : err_set(c->e, ERR_STATE, "job %s has ended: %zu of %zu proposals have no result", c->arg[0], m->n - had, m->n);
}

/* ---- propose ---- */

static void random_key(name_str key)
{
    uint8_t b[16];
    randombytes_buf(b, sizeof b);
    sodium_bin2hex(key, sizeof(name_str), b, sizeof b);
}

/* One request. *doc: its answer; the caller owns it. */
static int ask(struct conn *conn, const char *job, const char *key, json_t *trials, json_t **doc, struct errbuf *e)
{
    struct wire_msg ans, req = { .kind = WIRE_PROPOSE };
    json_t *body = json_pack("{s:s,s:O}", "request", key, "trials", trials);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!text)
        return err_set(e, ERR_INPUT, "the architecture, tag or key is not UTF-8");
    int rc = strlen(job) < sizeof req.propose.job ? 0 : err_set(e, ERR_NOTFOUND, "there is no job '%s'", job);
    snprintf(req.propose.job, sizeof req.propose.job, "%s", job);
    req.propose.json = text;
    if (rc == 0)
        rc = conn_ask(conn, &req, WIRE_REPLY, true, &ans, e);
    free(text);
    return rc < 0 ? rc : conn_reply(&ans, doc, e);
}

static int answered(struct cli *c, json_t *doc, struct mine *m)
{
    json_t *r;
    size_t i;
    int rc = 0;
    json_array_foreach(json_object_get(doc, "trials"), i, r) {
        if (rc == 0)
            rc = mine_add(m, (int64_t)doc_num(r, "trial"), c->e);
        if (!c->json && !cli_has(c, "wait"))
            printf("%.0f  %s\n", doc_num(r, "trial"), doc_str(r, "arch"));
    }
    if (c->json && !cli_has(c, "wait")) {
        json_dumpf(doc, stdout, JSON_COMPACT);
        putchar('\n');
    }
    fflush(stdout);
    json_decref(doc);
    return rc;
}

/* The window has no room: until another result is in. */
static int wait_room(struct cli *c, struct conn *conn, int64_t *told)
{
    json_t *doc;
    for (;;) {
        int rc = ask_told(conn, c->arg[0], *told, ROOM_S, 1000, &doc, c->e);
        if (rc < 0)
            return rc;
        bool known = json_array_size(json_object_get(doc, "told")) == 1000, ended = over(doc); /* more of what was there before */
        *told = (int64_t)doc_num(doc, "next");
        json_decref(doc);
        if (!known || ended)
            return 0;
    }
}

/* A file on standard input is looked at before anything is proposed: more lines than the budget has left are refused whole. Of a pipe nobody knows
 * how many come. With a key of one's own some of them may have been proposed before, and then count once. */
static int check_budget(struct cli *c, struct conn *conn)
{
    struct stat st;
    json_t *job, *told = NULL;
    char *line = NULL;
    size_t cap = 0, lines = 0;
    const off_t start = lseek(STDIN_FILENO, 0, SEEK_CUR);
    if (cli_has(c, "request") || fstat(STDIN_FILENO, &st) != 0 || !S_ISREG(st.st_mode) || start < 0)
        return 0;
    while (getline(&line, &cap, stdin) > 0)
        lines += line[strspn(line, "\r\n")] != 0;
    free(line);
    if (fseeko(stdin, start, SEEK_SET) != 0)
        return err_set(c->e, ERR_IO, "standard input: %s", strerror(errno));
    int rc = conn_query(conn, &job, c->e, "jobs/%s", c->arg[0]);
    if (rc < 0)
        return rc;
    const bool asks = strcmp(doc_str(job, "spec.searcher.name"), "external") == 0 && !job_ended(job); /* if not, the first line is refused, and says why */
    if (asks && (rc = conn_query(conn, &told, c->e, "jobs/%.0f/told?after=0&limit=1", doc_num(job, "id"))) == 0) {
        const double budget = doc_num(job, "trials.budget"), left = budget - doc_num(told, "proposed");
        if (left >= 0 && (double)lines > left)
            rc = err_set(c->e, ERR_STATE, "budget.trials: %zu lines, and %.0f of %.0f proposals are left: nothing was proposed; didact extend %.0f --trials %.0f allows"
                         " them", lines, left, budget, doc_num(job, "id"), budget - left + (double)lines);
    }
    json_decref(told);
    json_decref(job);
    return rc;
}

/* Lines of standard input, each proposed as it comes: ARCH or ARCH<TAB>TAG. */
static int propose_lines(struct cli *c, struct conn *conn, const char *key, struct mine *m)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    int64_t told = 0;
    int rc = check_budget(c, conn);
    while (rc == 0 && getline(&line, &cap, stdin) > 0) {
        name_str own;
        json_t *doc;
        number++;
        line[strcspn(line, "\r\n")] = 0;
        if (!*line)
            continue;
        char *tag = strchr(line, '\t');
        if (tag)
            *tag++ = 0;
        snprintf(own, sizeof own, "%.40s-%zu", key, number);
        json_t *trials = json_pack("[{s:s,s:s}]", "arch", line, "tag", tag ? tag : cli_str(c, "tag", ""));
        while ((rc = ask(conn, c->arg[0], own, trials, &doc, c->e)) == -ERR_BUSY && (rc = wait_room(c, conn, &told)) == 0)
            ;
        json_decref(trials);
        rc = rc == 0 ? answered(c, doc, m)
           : m->n ? err_wrap(c->e, rc, "line %zu (what stands before it is proposed)", number) : err_wrap(c->e, rc, "line %zu", number);
    }
    free(line);
    return rc;
}

static int propose_args(struct cli *c, struct conn *conn, const char *key, struct mine *m)
{
    json_t *trials = json_array(), *doc;
    for (int i = 1; i < c->n_args; i++)
        json_array_append_new(trials, json_pack("{s:s,s:s}", "arch", c->arg[i], "tag", cli_str(c, "tag", "")));
    int rc = ask(conn, c->arg[0], key, trials, &doc, c->e);
    json_decref(trials);
    return rc < 0 ? rc : answered(c, doc, m);
}

int verb_propose(struct cli *c)
{
    struct conn *conn;
    struct mine m = { 0 };
    name_str key;
    const char *own = cli_str(c, "request", "");
    bool lines = c->n_args == 2 && strcmp(c->arg[1], "-") == 0;
    if (strlen(own) > (lines ? 40 : sizeof key - 1))
        return err_set(c->e, ERR_USAGE, "--request has at most %zu bytes", lines ? (size_t)40 : sizeof key - 1);
    random_key(key);
    if (*own)
        snprintf(key, sizeof key, "%s", own);
    int rc = cli_conn(c, &conn);
    if (rc == 0)
        rc = lines ? propose_lines(c, conn, key, &m) : propose_args(c, conn, key, &m);
    if (rc == 0 && cli_has(c, "wait"))
        rc = wait_mine(c, conn, &m);
    free(m.v);
    return rc;
}
