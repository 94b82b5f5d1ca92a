/* best.c - the answer in one command: the best architecture of a job, or those that nothing else beats in every respect. */
#include "client/best.h"
#include "client/verbs.h"

#include <math.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

static const struct pareto_axis objectives[] = {
    { "score", "SCORE", true, "score" }, { "valid_score", "VALIDATION", true, "valid_score" }, { "loss_sum", "LOSS", false, "loss_sum" },
    { "params", "PARAMS", false, "params" }, { "macs", "MACS", false, "macs" }, { "latency", "LATENCY MS", false, "latency_ms" },
    { "seconds", "SECONDS", false, "seconds" }, { "mem_bytes", "MEMORY", false, "mem_bytes" },
};
#define N_OBJECTIVES (sizeof objectives / sizeof objectives[0])

static const struct pareto_axis *objective_find(const char *word, size_t len)
{
    for (size_t i = 0; i < N_OBJECTIVES; i++)
        if (strlen(objectives[i].word) == len && strncmp(objectives[i].word, word, len) == 0)
            return &objectives[i];
    return NULL;
}

static int no_objective(const char *word, size_t len, struct errbuf *e)
{
    char known[200] = "";
    for (size_t i = 0, at = 0; i < N_OBJECTIVES; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", objectives[i].word);
    return err_set(e, ERR_USAGE, "--pareto: '%.*s' is not one of %s", (int)(len < 40 ? len : 40), word, known);
}

int front_init(struct front *f, const char *list, struct errbuf *e)
{
    *f = (struct front){ 0 };
    for (const char *p = list;; p++) {
        size_t len = strcspn(p, ",");
        const struct pareto_axis *o = objective_find(p, len);
        if (!o)
            return no_objective(p, len, e);
        for (int i = 0; i < f->n_objectives; i++)
            if (f->objective[i] == o)
                return err_set(e, ERR_USAGE, "--pareto: %s is given twice", o->word);
        f->objective[f->n_objectives++] = o; /* there are no more than N_OBJECTIVES different ones */
        p += len;
        if (!*p)
            return 0;
    }
}
_Static_assert(N_OBJECTIVES <= MAX_PARETO_AXES, "a front has room for every objective");

void front_fini(struct front *f)
{
    for (size_t i = 0; i < f->n; i++)
        json_decref(f->row[i].trial);
    free(f->row);
    *f = (struct front){ 0 };
}

/* Whether a is at least as good as b in all. */
static bool covers(const double *a, const double *b, int n)
{
    for (int k = 0; k < n; k++)
        if (a[k] > b[k])
            return false;
    return true;
}

static int front_room(struct front *f, struct errbuf *e)
{
    if (f->n < f->cap)
        return 0;
    size_t cap = f->cap ? 2 * f->cap : 64;
    struct front_row *bigger = realloc(f->row, cap * sizeof *bigger);
    if (!bigger)
        return err_set(e, ERR_NOMEM, "out of memory");
    f->row = bigger;
    f->cap = cap;
    return 0;
}

int front_add(struct front *f, const json_t *trial, struct errbuf *e)
{
    struct front_row new = { .trial = NULL };
    int n = f->n_objectives;
    for (int k = 0; k < n; k++) {
        double v = doc_num(trial, f->objective[k]->key);
        if (!isfinite(v))
            return 0;
        new.v[k] = f->objective[k]->more ? -v : v;
    }
    size_t kept = 0;
    for (size_t i = 0; i < f->n; i++) {
        bool old_covers = covers(f->row[i].v, new.v, n), new_covers = covers(new.v, f->row[i].v, n);
        bool same = old_covers && new_covers && strcmp(doc_str(trial, "arch_hash"), doc_str(f->row[i].trial, "arch_hash")) == 0;
        if (same || (old_covers && !new_covers))
            return 0; /* and the new one beats none of the front: nothing has left it */
        if (new_covers && !old_covers)
            json_decref(f->row[i].trial);
        else
            f->row[kept++] = f->row[i];
    }
    f->n = kept;
    int rc = front_room(f, e);
    if (rc < 0)
        return rc;
    new.trial = json_incref((json_t *)trial);
    f->row[f->n++] = new;
    return 0;
}

static int by_values(const void *a, const void *b)
{
    const struct front_row *x = a, *y = b;
    for (int k = 0; k < MAX_PARETO_AXES; k++)
        if (x->v[k] != y->v[k])
            return x->v[k] < y->v[k] ? -1 : 1;
    double i = doc_num(x->trial, "trial"), j = doc_num(y->trial, "trial");
    return (i > j) - (i < j);
}

void front_sort(struct front *f) { qsort(f->row, f->n, sizeof *f->row, by_values); }

/* ---- the verb ---- */

static const char *value_text(short_str s, const char *key, const json_t *t)
{
    double v = doc_num(t, key);
    if (strcmp(key, "score") == 0)
        return fmt_score(s, v, doc_num(t, "score_se"));
    if (strcmp(key, "params") == 0 || strcmp(key, "macs") == 0)
        return fmt_count(s, v);
    if (strcmp(key, "mem_bytes") == 0)
        return fmt_bytes(s, v);
    if (strcmp(key, "seconds") == 0)
        return fmt_seconds(s, v);
    snprintf(s, sizeof(short_str), "%.4f", v);
    return s;
}

static void front_print(const struct front *f)
{
    struct table_col cols[TABLE_MAX_COLS] = { { "TRIAL", true, false } };
    struct table t;
    short_str s;
    for (int k = 0; k < f->n_objectives; k++)
        cols[1 + k] = (struct table_col){ f->objective[k]->title, strcmp(f->objective[k]->key, "score") != 0, false };
    cols[1 + f->n_objectives] = (struct table_col){ "ARCHITECTURE", false, true };
    table_init(&t, 2 + f->n_objectives, cols);
    for (size_t i = 0; i < f->n; i++) {
        table_cell(&t, "%.0f", doc_num(f->row[i].trial, "trial"));
        for (int k = 0; k < f->n_objectives; k++)
            table_cell(&t, "%s", value_text(s, f->objective[k]->key, f->row[i].trial));
        table_cell(&t, "%s", doc_str(f->row[i].trial, "arch"));
    }
    table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
}

static void front_print_json(const struct front *f)
{
    json_t *keys = json_array(), *list = json_array();
    for (int k = 0; k < f->n_objectives; k++)
        json_array_append_new(keys, json_string(f->objective[k]->word));
    for (size_t i = 0; i < f->n; i++)
        json_array_append(list, f->row[i].trial);
    json_t *doc = json_pack("{s:o,s:o}", "objectives", keys, "front", list);
    print_json(stdout, doc);
    json_decref(doc);
}

/* Scores of successive halving's rungs do not compare: the highest one reached, which comes first, makes the front, with racing's above it, where
 * more initialisations make the same score better known. */
struct adding {
    struct front *f;
    void         *climbed; /* owned; a tree of the hashes of networks on higher rungs */
    double        top;     /* the halving's highest rung */
    double        rung, lower;
    struct errbuf *e;
};

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* The highest rungs come first: the highest one stands for a network. */
static int on_trial(void *arg, const json_t *trial)
{
    struct adding *a = arg;
    const char *hash = doc_str(trial, "arch_hash");
    const double rung = doc_num(trial, "rung");
    if (isnan(a->rung))
        a->rung = fmin(rung, a->top);
    if (rung < a->rung) {
        a->lower++;
        return 0;
    }
    if (tfind(hash, &a->climbed, by_text))
        return 0;
    if (rung > 0) {
        char *copy = strdup(hash);
        if (!copy || !tsearch(copy, &a->climbed, by_text)) {
            free(copy);
            return err_set(a->e, ERR_NOMEM, "out of memory");
        }
    }
    return front_add(a->f, trial, a->e);
}

/* As many rungs as its halving has steps are below the one where all of `fidelity` is. */
static int find_top(struct cli *c, struct conn *conn, double *top)
{
    json_t *doc;
    int rc = conn_query(conn, &doc, c->e, "jobs/%s", c->arg[0]);
    if (rc < 0)
        return rc;
    *top = (double)json_array_size(json_object_get(json_object_get(json_object_get(doc, "spec"), "halving"), "steps"));
    json_decref(doc);
    return 0;
}

static int best_pareto(struct cli *c, struct conn *conn, const char *list)
{
    struct front f;
    struct adding a = { .f = &f, .rung = NAN, .e = c->e };
    int rc = front_init(&f, list, c->e);
    if (rc == 0)
        rc = find_top(c, conn, &a.top);
    if (rc == 0)
        rc = each_trial(conn, c->arg[0], "score", on_trial, &a, c->e);
    if (rc == 0 && f.n == 0)
        rc = err_set(c->e, ERR_NOTFOUND, "job %s has no scored trial with all of %s yet", c->arg[0], list);
    if (rc == 0) {
        front_sort(&f);
        if (c->json)
            front_print_json(&f);
        else
            front_print(&f);
        if (a.lower > 0)
            fprintf(stderr, "of rung %.0f, the highest; %.0f scored on lower rungs do not compare with them\n", a.rung, a.lower);
    }
    tdestroy(a.climbed, free);
    front_fini(&f);
    return rc;
}

static int best_one(struct cli *c, struct conn *conn)
{
    json_t *doc;
    int rc = conn_query(conn, &doc, c->e, "jobs/%s/results?top=1", c->arg[0]);
    if (rc < 0)
        return rc;
    const json_t *best = json_array_get(json_object_get(doc, "best"), 0);
    if (!best)
        rc = err_set(c->e, ERR_NOTFOUND, "job %s has no scored trial yet", c->arg[0]);
    else if (c->json)
        print_json(stdout, best);
    else
        printf("%s\n", doc_str(best, "arch"));
    if (best && !c->json) {
        short_str s, p, m;
        const double valid = doc_num(best, "valid_score"); /* of a network trained for real: it was chosen by this one */
        fprintf(stderr, "trial %.0f  ", doc_num(best, "trial"));
        if (isfinite(valid))
            fprintf(stderr, "validation %.4f  test %.4f", valid, doc_num(best, "score"));
        else
            fprintf(stderr, "score %s", fmt_score(s, doc_num(best, "score"), doc_num(best, "score_se")));
        fprintf(stderr, "  %s parameters  %s MACs\n", fmt_count(p, doc_num(best, "params")), fmt_count(m, doc_num(best, "macs")));
    }
    json_decref(doc);
    return rc;
}

int verb_best(struct cli *c)
{
    struct conn *conn;
    const char *pareto = cli_str(c, "pareto", NULL);
    int rc = cli_conn(c, &conn);
    if (rc < 0)
        return rc;
    return pareto ? best_pareto(c, conn, pareto) : best_one(c, conn);
}
