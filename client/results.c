/* results.c - what came out of a job: the ten best of a search, proxy beside real accuracy of a verify, a teacher's history. */
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double or_zero(double v) { return isfinite(v) ? v : 0; }

/* ---- search ---- */

/* The first of the best whose score is clearly below the first one's: by more than both standard errors together. */
static size_t ties_with_first(const json_t *best)
{
    const json_t *first = json_array_get(best, 0);
    size_t n = json_array_size(best), i;
    for (i = 1; i < n; i++) {
        const json_t *t = json_array_get(best, i);
        double spread = hypot(or_zero(doc_num(first, "score_se")), or_zero(doc_num(t, "score_se")));
        if (!(doc_num(first, "score") - doc_num(t, "score") <= spread))
            break;
    }
    return i;
}

static void search_table(const json_t *best, FILE *f)
{
    static const struct table_col cols[] = { { "RANK", true, false }, { "TRIAL", true, false }, { "SCORE", false, false },
        { "PARAMS", true, false }, { "MACS", true, false }, { "FLOPS", true, false }, { "SECONDS", true, false },
        { "ARCHITECTURE", false, true } };
    struct table t;
    size_t i;
    json_t *r;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(best, i, r) {
        short_str s;
        table_cell(&t, "%zu", i + 1);
        table_cell(&t, "%.0f", or_zero(doc_num(r, "trial")));
        table_cell(&t, "%s", fmt_score(s, doc_num(r, "score"), doc_num(r, "score_se")));
        table_cell(&t, "%s", fmt_count(s, doc_num(r, "params")));
        table_cell(&t, "%s", fmt_count(s, doc_num(r, "macs")));
        table_cell(&t, "%s", fmt_count(s, 2 * doc_num(r, "macs")));
        table_cell(&t, "%.2f", or_zero(doc_num(r, "seconds")));
        table_cell(&t, "%s", doc_str(r, "arch"));
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
    size_t ties = ties_with_first(best);
    if (ties > 1)
        fprintf(f, "The first %zu cannot be told apart: their scores lie within each other's spread (standard error over"
                " initialisations).\n", ties);
}

static void show_search(const json_t *doc, FILE *f)
{
    const json_t *best = json_object_get(doc, "best"), *job = json_object_get(doc, "job");
    if (json_array_size(best) == 0) {
        fprintf(f, "no candidate has a score yet (job %.0f is %s)\n", doc_num(job, "id"), doc_str(job, "state"));
        return;
    }
    fprintf(f, "job %.0f %s: %.0f scored, %.0f failed; score = accuracy on held-out real images after training on the curriculum\n",
            doc_num(job, "id"), doc_str(job, "state"), or_zero(doc_num(job, "trials.scored")), or_zero(doc_num(job, "trials.failed")));
    search_table(best, f);
    char line[512];
    if (audit_line(job, line, sizeof line))
        fprintf(f, "%s\n", line);
}

/* ---- verify ---- */

void verify_sentence(int n, double rho, double low, double high, char *out, size_t cap)
{
    enum { ENOUGH = 20 };
    bool interval = isfinite(low) && isfinite(high);
    if (n < 3 || !isfinite(rho)) {
        snprintf(out, cap, "%d network%s: too few for a rank correlation.", n, n == 1 ? "" : "s");
    } else if (!interval) {
        snprintf(out, cap, "Spearman %.2f over %d networks, without an interval: too few to conclude anything.", rho, n);
    } else if (low <= 0 && high >= 0) {
        snprintf(out, cap, "Spearman %.2f over %d networks, 95 %% interval %.2f to %.2f. The interval contains 0: from this sample nobody"
                 " can say whether the score ranks networks as real training does. Verify more of them (at least %d).", rho, n, low,
                 high, n < ENOUGH ? ENOUGH : 2 * n);
    } else if (n < ENOUGH) {
        snprintf(out, cap, "Spearman %.2f over %d networks, 95 %% interval %.2f to %.2f. The sample is small and the interval wide: a hint,"
                 " not a conclusion. Verify at least %d to know more.", rho, n, low, high, ENOUGH);
    } else {
        snprintf(out, cap, "Spearman %.2f over %d networks, 95 %% interval %.2f to %.2f: the score %s real training.", rho, n, low, high,
                 rho < 0 ? "ranks networks AGAINST" : "says something about the order that networks have after");
    }
}

static int by_accuracy(const void *a, const void *b)
{
    double x = doc_num(*(json_t *const *)a, "accuracy"), y = doc_num(*(json_t *const *)b, "accuracy");
    return (x < y) - (x > y);
}

static void verify_table(const json_t *pairs, FILE *f)
{
    static const struct table_col cols[] = { { "TEST ACCURACY", true, false }, { "PROXY SCORE", true, false },
        { "CHOSEN AS", false, false }, { "ARCHITECTURE", false, true } };
    size_t n = json_array_size(pairs);
    json_t **row = malloc((n ? n : 1) * sizeof *row);
    struct table t;
    if (!row)
        return;
    for (size_t i = 0; i < n; i++)
        row[i] = json_array_get(pairs, i);
    qsort(row, n, sizeof *row, by_accuracy);
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (size_t i = 0; i < n; i++) {
        double proxy = doc_num(row[i], "proxy"), acc = doc_num(row[i], "accuracy");
        isfinite(acc) ? table_cell(&t, "%.4f", acc) : table_cell(&t, "%s", "");
        isfinite(proxy) ? table_cell(&t, "%.4f", proxy) : table_cell(&t, "%s", "");
        table_cell(&t, "%s", doc_str(row[i], "group"));
        table_cell(&t, "%s", doc_str(row[i], "arch"));
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
    free(row);
}

static void show_verify(const json_t *doc, FILE *f)
{
    char sentence[512];
    const json_t *job = json_object_get(doc, "job");
    fprintf(f, "job %.0f %s: real training, accuracy on the test split\n", doc_num(job, "id"), doc_str(job, "state"));
    verify_table(doc_get(doc, "verify.pairs"), f);
    verify_sentence((int)or_zero(doc_num(doc, "verify.n")), doc_num(doc, "verify.spearman"), doc_num(doc, "verify.ci_low"),
                    doc_num(doc, "verify.ci_high"), sentence, sizeof sentence);
    fprintf(f, "%s\n", sentence);
}

/* ---- teach ---- */

static void history_table(const json_t *history, FILE *f)
{
    static const struct table_col cols[] = { { "META-STEP", true, false }, { "SECONDS", true, false }, { "META-LOSS", true, false },
        { "ACCURACY", true, false }, { "HELD-OUT", true, false } };
    enum { ROWS = 20 }; /* a long history is thinned out; --json has all of it */
    size_t n = json_array_size(history), step = n > ROWS ? (n + ROWS - 1) / ROWS : 1;
    struct table t;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (size_t i = 0; i < n; i++) {
        const json_t *h = json_array_get(history, i);
        if (i % step != 0 && i + 1 != n)
            continue;
        static const char *const key[] = { "meta_loss", "accuracy", "held_out" };
        table_cell(&t, "%.0f", or_zero(doc_num(h, "meta_step")));
        table_cell(&t, "%.1f", or_zero(doc_num(h, "seconds")));
        for (size_t k = 0; k < 3; k++)
            isfinite(doc_num(h, key[k])) ? table_cell(&t, "%.4f", doc_num(h, key[k])) : table_cell(&t, "%s", "");
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
}

static void show_teach(const json_t *doc, FILE *f)
{
    const json_t *job = json_object_get(doc, "job"), *history = doc_get(doc, "teach.history");
    const char *curriculum = doc_str(doc, "teach.curriculum");
    fprintf(f, "job %.0f %s: %.0f meta-steps\n", doc_num(job, "id"), doc_str(job, "state"), or_zero(doc_num(doc, "teach.meta_steps")));
    if (json_array_size(history))
        history_table(history, f);
    if (*curriculum)
        fprintf(f, "curriculum %s\n", curriculum);
    else
        fprintf(f, "no curriculum yet\n");
}

void show_results(const json_t *doc, FILE *f)
{
    int kind = job_kind_from(doc_str(doc, "job.kind"));
    if (kind == JOB_TEACH)
        show_teach(doc, f);
    else if (kind == JOB_VERIFY)
        show_verify(doc, f);
    else
        show_search(doc, f);
}

int verb_results(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    int64_t top = 10;
    int rc = cli_int(c, "top", 1, 1000, &top);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    if ((rc = conn_query(conn, &doc, c->e, "jobs/%s/results?top=%lld", c->arg[0], (long long)top)) < 0)
        return rc;
    if (c->json)
        print_json(stdout, doc);
    else
        show_results(doc, stdout);
    json_decref(doc);
    return 0;
}

int verb_best(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = conn_query(conn, &doc, c->e, "jobs/%s/results?top=1", c->arg[0])) < 0)
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
        fprintf(stderr, "trial %.0f  score %s  %s parameters  %s MACs\n", or_zero(doc_num(best, "trial")),
                fmt_score(s, doc_num(best, "score"), doc_num(best, "score_se")), fmt_count(p, doc_num(best, "params")),
                fmt_count(m, doc_num(best, "macs")));
    }
    json_decref(doc);
    return rc;
}
