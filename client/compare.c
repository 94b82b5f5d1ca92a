/* compare.c - two jobs beside each other: what was asked differently, what came out, and whether they agree on the
 * architectures that both have scored. */
#include "client/verbs.h"

#include "common/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct scores { struct score { char hash[ARCH_HASH_LEN + 1]; double v; int rung, n; } *s; size_t n, cap; };

static int on_trial(void *arg, const json_t *trial)
{
    struct scores *k = arg;
    if (k->n == k->cap) {
        size_t cap = k->cap ? 2 * k->cap : 256;
        struct score *bigger = realloc(k->s, cap * sizeof *bigger);
        if (!bigger)
            return -ERR_NOMEM;
        k->s = bigger;
        k->cap = cap;
    }
    struct score *s = &k->s[k->n];
    snprintf(s->hash, sizeof s->hash, "%s", doc_str(trial, "arch_hash"));
    s->v = doc_num(trial, "score");
    s->rung = (int)json_integer_value(json_object_get(trial, "rung"));
    s->n = 1;
    k->n += isfinite(s->v);
    return 0;
}

static int by_hash(const void *a, const void *b)
{
    const struct score *x = a, *y = b;
    int d = strcmp(x->hash, y->hash);
    return d ? d : y->rung - x->rung;
}

/* Of an architecture the highest rung counts (halving, racing: what lies below was scored with less); its seeds (a verify job has several) become
 * their mean. */
static void merge_same(struct scores *k)
{
    size_t n = 0;
    if (k->n)
        qsort(k->s, k->n, sizeof *k->s, by_hash);
    for (size_t i = 0; i < k->n; i++) {
        struct score *last = n > 0 ? &k->s[n - 1] : NULL;
        if (!last || strcmp(last->hash, k->s[i].hash) != 0) {
            k->s[n++] = k->s[i];
        } else if (last->rung == k->s[i].rung) {
            last->v += k->s[i].v;
            last->n++;
        }
    }
    for (size_t i = 0; i < n; i++)
        k->s[i].v /= k->s[i].n;
    k->n = n;
}

/* Scores of the architectures that both have, in x and y (room for the shorter list). Returns how many. */
static int shared(const struct scores *a, const struct scores *b, double *x, double *y)
{
    int n = 0;
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        int d = strcmp(a->s[i].hash, b->s[j].hash);
        if (d == 0) {
            x[n] = a->s[i].v;
            y[n++] = b->s[j].v;
        }
        i += d <= 0;
        j += d >= 0;
    }
    return n;
}

static json_t *real_or_null(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *shared_doc(const struct scores *a, const struct scores *b, struct errbuf *e)
{
    size_t most = (a->n < b->n ? a->n : b->n) + 1;
    double *x = calloc(most, sizeof *x), *y = calloc(most, sizeof *y);
    struct estimate rho;
    int n = x && y ? shared(a, b, x, y) : 0, same = 0;
    json_t *doc = NULL;
    if (x && y && rank_interval(RANK_SPEARMAN, x, y, n, 1, &rho) == 0) {
        for (int i = 0; i < n; i++)
            same += x[i] == y[i];
        doc = json_pack("{s:i,s:i,s:o,s:o,s:o}", "n", n, "equal_scores", same, "spearman", real_or_null(rho.value),
                        "ci_low", real_or_null(rho.low), "ci_high", real_or_null(rho.high));
    }
    if (!doc)
        err_set(e, ERR_NOMEM, "out of memory");
    free(x);
    free(y);
    return doc;
}

/* ---- settings ---- */

/* Leaves of a spec as "fidelity.inits": value, into the flat object `out`. */
static void flatten(const json_t *obj, const char *prefix, json_t *out)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)obj, key, v) {
        char path[160];
        snprintf(path, sizeof path, "%s%s", prefix, key);
        if (json_is_object(v)) {
            size_t n = strlen(path);
            snprintf(path + n, sizeof path - n, ".");
            flatten(v, path, out);
        } else {
            json_object_set(out, path, v);
        }
    }
}

static void differ(json_t *list, const char *key, json_t *a, json_t *b)
{
    if (a && b && json_equal(a, b))
        return;
    json_array_append_new(list, json_pack("{s:s,s:O,s:O}", "key", key, "a", a ? a : json_null(), "b", b ? b : json_null()));
}

static json_t *settings_doc(const json_t *a, const json_t *b)
{
    json_t *x = json_object(), *y = json_object(), *list = json_array(), *v;
    const char *key;
    flatten(json_object_get(a, "spec"), "", x);
    flatten(json_object_get(b, "spec"), "", y);
    json_object_foreach(x, key, v)
        differ(list, key, v, json_object_get(y, key));
    json_object_foreach(y, key, v)
        if (!json_object_get(x, key))
            differ(list, key, NULL, v);
    json_decref(x);
    json_decref(y);
    return list;
}

/* ---- for people ---- */

static void value_cell(struct table *t, const json_t *v)
{
    char *text = json_is_string(v) ? strdup(json_string_value(v)) : json_is_null(v) ? NULL : json_short(v);
    table_cell(t, "%s", text ? text : "");
    free(text);
}

static void both(struct table *t, const char *label, const char *a, const char *b)
{
    table_cell(t, "%s", label);
    table_cell(t, "%s", a);
    table_cell(t, "%s", b);
}

static void print_sides(const json_t *a, const json_t *b, const json_t *settings)
{
    static const struct table_col cols[] = { { "", false, false }, { "A", false, true }, { "B", false, true } };
    const json_t *side[2] = { a, b };
    char name[2][100], counts[2][80];
    short_str score[2];
    struct table t;
    size_t i;
    json_t *s;
    for (int k = 0; k < 2; k++) {
        snprintf(name[k], sizeof name[k], "%.0f %s", doc_num(side[k], "id"), doc_str(side[k], "name"));
        snprintf(counts[k], sizeof counts[k], "%.0f of %.0f", doc_num(side[k], "trials.scored"), doc_num(side[k], "trials.budget"));
        fmt_score(score[k], doc_num(side[k], "best.score"), doc_num(side[k], "best.score_se"));
    }
    table_init(&t, 3, cols);
    both(&t, "job", name[0], name[1]);
    both(&t, "state", doc_str(a, "state"), doc_str(b, "state"));
    both(&t, "scored", counts[0], counts[1]);
    both(&t, "best score", score[0], score[1]);
    both(&t, "best", doc_str(a, "best.arch"), doc_str(b, "best.arch"));
    json_array_foreach(settings, i, s) {
        table_cell(&t, "%s", doc_str(s, "key"));
        value_cell(&t, json_object_get(s, "a"));
        value_cell(&t, json_object_get(s, "b"));
    }
    table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
}

static void print_shared(const json_t *c)
{
    double n = doc_num(c, "n"), rho = doc_num(c, "spearman"), low = doc_num(c, "ci_low"), high = doc_num(c, "ci_high");
    printf("%.0f architecture%s in common", n, n == 1 ? " is" : "s are");
    if (n > 0 && doc_num(c, "equal_scores") == n)
        printf(", with the same score%s in both", n == 1 ? "" : "s");
    else if (isfinite(rho) && isfinite(low))
        printf("; of their scores, Spearman %.2f (95 %% interval %.2f to %.2f)", rho, low, high);
    else if (isfinite(rho))
        printf("; of their scores, Spearman %.2f", rho);
    printf("\n");
}

/* ---- the verb ---- */

static int read_side(struct conn *conn, const char *job, json_t **doc, struct scores *k, struct errbuf *e)
{
    int rc = conn_query(conn, doc, e, "jobs/%s", job);
    if (rc == 0)
        rc = each_trial(conn, job, "score", on_trial, k, e);
    if (rc == 0)
        merge_same(k);
    return rc;
}

int verb_compare(struct cli *c)
{
    struct conn *conn;
    json_t *doc[2] = { NULL, NULL }, *common = NULL;
    struct scores k[2] = { { 0 }, { 0 } };
    int rc = cli_conn(c, &conn);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = read_side(conn, c->arg[i], &doc[i], &k[i], c->e);
    if (rc == 0 && !(common = shared_doc(&k[0], &k[1], c->e)))
        rc = -ERR_NOMEM;
    if (rc == 0) {
        json_t *settings = settings_doc(doc[0], doc[1]);
        json_t *out = json_pack("{s:O,s:O,s:o,s:o}", "a", doc[0], "b", doc[1], "settings", settings, "common", common);
        if (c->json) {
            print_json(stdout, out);
        } else {
            print_sides(doc[0], doc[1], settings);
            print_shared(common);
        }
        json_decref(out);
    }
    for (int i = 0; i < 2; i++) {
        json_decref(doc[i]);
        free(k[i].s);
    }
    return rc;
}
