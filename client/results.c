/* results.c - what came out of a job: the ten best of a search, proxy beside real accuracy of a verify, a teacher's history. */
#include "client/verbs.h"

#include "client/ties.h"
#include "common/score_column.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RESULTS_TOP 10

struct shown { const char *by, *columns; size_t top; }; /* "" where not asked for; so many rows */

static bool by_score(const struct shown *s) { return !*s->by || strcmp(s->by, score_columns[COLUMN_SCORE].name) == 0; }

static double or_zero(double v) { return isfinite(v) ? v : 0; }

/* ---- search ---- */

/* Columns that were asked for beside the usual ones: "loss_sum,synflow", or what the list is ranked by. */
static int extra_columns(const char *list, const char *by, struct table_col *col, const char **key, int n, struct errbuf *e)
{
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s%s%s", by, *by && *list ? "," : "", list);
    for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        const int c = score_column_from(name);
        const bool fused = strcmp(name, FUSED_NAME) == 0;
        bool shown = c == COLUMN_SCORE || c == COLUMN_PARAMS || c == COLUMN_MACS || c == COLUMN_LATENCY; /* where they are known */
        if (c < 0 && !(fused && strcmp(by, FUSED_NAME) == 0))
            return err_set(e, ERR_USAGE, "--columns: \"%.40s\" is no column; there are loss_sum, latency, fused (with --by fused), synflow, naswot, jacob_cov,"
                           " zico, snip, grad_norm", name);
        for (int i = 0; i < n; i++)
            shown |= strcmp(key[i], fused ? FUSED_NAME : score_columns[c].name) == 0;
        if (shown)
            continue;
        key[n] = fused ? FUSED_NAME : score_columns[c].name;
        col[n] = (struct table_col){ key[n], true, false };
        n++;
    }
    return n;
}

static double extra_value(const json_t *trial, const char *key)
{
    const int c = score_column_from(key);
    return strcmp(key, FUSED_NAME) == 0 ? doc_num(trial, "by_value")
         : doc_num(c >= COLUMN_ZERO_COST ? json_object_get(trial, "zero_cost") : trial, key);
}

static void tie_sentence(const json_t *best, size_t listed, FILE *f)
{
    int df;
    const size_t ties = ties_with_first(best, &df), rung = ties_rung(best);
    char more[48] = "";
    if (ties > listed)
        snprintf(more, sizeof more, " (--top %zu lists them)", ties);
    if (ties > 1)
        fprintf(f, "The first %zu%s%s cannot be told apart: none of them is below the first by more than chance would do (95 %%, spread over"
                " initialisations pooled).\n", ties, ties == TIES_ROWS ? " or more" : "", more);
    else if (df == 0 && rung > 1)
        fprintf(f, "One initialisation each: nothing is known of the scores' spread (fidelity.inits).\n");
}

/* With racing the first has been through more initialisations than those below it, and whoever came late may seem better. */
static void race_sentence(const json_t *best, const json_t *job, FILE *f)
{
    const int lowest = (int)json_array_size(doc_get(job, "spec.halving.steps")); /* the rung of candidates at full fidelity: lower ones have other steps */
    const json_t *top;
    const size_t n = json_array_size(doc_get(job, "spec.racing.inits")) ? ties_above(best, lowest, &top) : 0;
    if (n)
        fprintf(f, "%zu of lower rounds score%s above the first over fewer initialisations (trial %.0f: %.4f): too late for the race's budget or share, or behind"
                " when its round was filled.\n", n, n == 1 ? "s" : "", doc_num(top, "trial"), doc_num(top, "score"));
}

/* Rows of different rungs of successive halving stand in one list. */
static bool several_rungs(const json_t *best, size_t listed)
{
    size_t i;
    json_t *r;
    json_array_foreach((json_t *)best, i, r)
        if (i < listed && doc_num(r, "rung") != doc_num(json_array_get(best, 0), "rung"))
            return true;
    return false;
}

static bool any_latency(const json_t *best, size_t listed)
{
    size_t i;
    json_t *r;
    json_array_foreach((json_t *)best, i, r)
        if (i < listed && isfinite(doc_num(r, "latency_ms")))
            return true;
    return false;
}

static int search_table(const json_t *best, const json_t *job, const struct shown *shown, FILE *f, struct errbuf *e)
{
    static const struct table_col usual[] = { { "RANK", true, false }, { "TRIAL", true, false }, { "RUNG", true, false },
        { "SCORE", false, false }, { "PARAMS", true, false }, { "MACS", true, false }, { "FLOPS", true, false }, { "LATENCY MS", true, false },
        { "SECONDS", true, false } };
    enum { USUAL = sizeof usual / sizeof usual[0], RUNG = 2, LATENCY = 7 };
    struct table_col cols[TABLE_MAX_COLS];
    const char *key[SCORE_COLUMNS + 1];
    const size_t listed = json_array_size(best) < shown->top ? json_array_size(best) : shown->top;
    const bool rungs = several_rungs(best, listed), latency = any_latency(best, listed);
    int at = 0;
    for (int i = 0; i < USUAL; i++)
        if ((i != RUNG || rungs) && (i != LATENCY || latency))
            cols[at++] = usual[i];
    int n = extra_columns(shown->columns, shown->by, cols + at, key, 0, e);
    struct table t;
    size_t i;
    json_t *r;
    if (n < 0)
        return n;
    cols[at + n] = (struct table_col){ "ARCHITECTURE", false, true };
    table_init(&t, at + n + 1, cols);
    json_array_foreach(best, i, r) {
        short_str s;
        if (i == listed)
            break;
        table_cell(&t, "%zu", i + 1);
        table_cell(&t, "%.0f", or_zero(doc_num(r, "trial")));
        if (rungs)
            table_cell(&t, "%.0f", or_zero(doc_num(r, "rung")));
        table_cell(&t, "%s", fmt_score(s, doc_num(r, "score"), doc_num(r, "score_se")));
        table_cell(&t, "%s", fmt_count(s, doc_num(r, "params")));
        table_cell(&t, "%s", fmt_count(s, doc_num(r, "macs")));
        table_cell(&t, "%s", fmt_count(s, 2 * doc_num(r, "macs")));
        if (latency)
            isfinite(doc_num(r, "latency_ms")) ? table_cell(&t, "%.4g", doc_num(r, "latency_ms")) : table_cell(&t, "%s", "");
        table_cell(&t, "%.2f", or_zero(doc_num(r, "seconds")));
        for (int k = 0; k < n; k++) {
            const double v = extra_value(r, key[k]);
            isfinite(v) ? table_cell(&t, "%.5g", v) : table_cell(&t, "%s", "");
        }
        table_cell(&t, "%s", doc_str(r, "arch"));
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
    if (by_score(shown)) {
        tie_sentence(best, listed, f);
        race_sentence(best, job, f);
    }
    return 0;
}

static int show_search(const json_t *doc, const struct shown *shown, FILE *f, struct errbuf *e)
{
    const json_t *best = json_object_get(doc, "best"), *job = json_object_get(doc, "job");
    if (json_array_size(best) == 0) {
        fprintf(f, "no candidate has a score yet (job %.0f is %s)\n", doc_num(job, "id"), doc_str(job, "state"));
        return 0;
    }
    fprintf(f, "job %.0f %s: %.0f scored, %.0f failed; score = accuracy on held-out real images after training on the curriculum\n",
            doc_num(job, "id"), doc_str(job, "state"), or_zero(doc_num(job, "trials.scored")), or_zero(doc_num(job, "trials.failed")));
    if (*shown->by)
        fprintf(f, "ranked by %s\n", shown->by);
    int rc = search_table(best, job, shown, f, e);
    char line[512];
    if (rc == 0 && strcmp(doc_str(job, "device"), device_class_name(DEVICE_ANY)) == 0)
        fprintf(f, "Scores may be of any device: the same job again may differ in the last digits.\n");
    if (rc == 0 && audit_line(job, line, sizeof line))
        fprintf(f, "%s\n", line);
    return rc;
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

static int by_validation(const void *a, const void *b)
{
    double x = doc_num(*(json_t *const *)a, "valid_accuracy"), y = doc_num(*(json_t *const *)b, "valid_accuracy");
    return (x < y) - (x > y);
}

/* One chooses on the validation images; the test images say what the choice is worth. */
static void verify_table(const json_t *pairs, size_t top, FILE *f)
{
    static const struct table_col cols[] = { { "VALIDATION", true, false }, { "TEST ACCURACY", true, false }, { "PROXY SCORE", true, false },
        { "CHOSEN AS", false, false }, { "ARCHITECTURE", false, true } };
    size_t n = json_array_size(pairs);
    json_t **row = malloc((n ? n : 1) * sizeof *row);
    struct table t;
    if (!row)
        return;
    for (size_t i = 0; i < n; i++)
        row[i] = json_array_get(pairs, i);
    qsort(row, n, sizeof *row, by_validation);
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (size_t i = 0; i < n && i < top; i++) {
        double proxy = doc_num(row[i], "proxy"), acc = doc_num(row[i], "accuracy"), valid = doc_num(row[i], "valid_accuracy");
        isfinite(valid) ? table_cell(&t, "%.4f", valid) : table_cell(&t, "%s", "");
        isfinite(acc) ? table_cell(&t, "%.4f", acc) : table_cell(&t, "%s", "");
        isfinite(proxy) ? table_cell(&t, "%.4f", proxy) : table_cell(&t, "%s", "");
        table_cell(&t, "%s", doc_str(row[i], "group"));
        table_cell(&t, "%s", doc_str(row[i], "arch"));
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
    if (n > top)
        fprintf(f, "and %zu more (--top)\n", n - top);
    free(row);
}

static void show_verify(const json_t *doc, const struct shown *shown, FILE *f)
{
    char sentence[512];
    const json_t *job = json_object_get(doc, "job");
    fprintf(f, "job %.0f %s: real training, accuracy on the validation split, by which to choose, and on the test split\n", doc_num(job, "id"), doc_str(job, "state"));
    verify_table(doc_get(doc, "verify.pairs"), shown->top, f);
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

static int show(const json_t *doc, const struct shown *shown, FILE *f, struct errbuf *e)
{
    int kind = job_kind_from(doc_str(doc, "job.kind"));
    if (kind == JOB_TEACH)
        show_teach(doc, f);
    else if (kind == JOB_VERIFY)
        show_verify(doc, shown, f);
    else
        return show_search(doc, shown, f, e);
    return 0;
}

void show_results(const json_t *doc, FILE *f) { show(doc, &(struct shown){ "", "", RESULTS_TOP }, f, NULL); }

/* For people the sentences below the list look at more rows than are listed; a list by another column has no such sentences. */
static int query_results(struct conn *conn, const char *job, const struct shown *shown, bool all, json_t **out, struct errbuf *e)
{
    const size_t n = all && by_score(shown) && shown->top < TIES_ROWS ? TIES_ROWS : shown->top;
    return conn_query(conn, out, e, "jobs/%s/results?top=%zu%s%.40s", job, n, *shown->by ? "&by=" : "", shown->by);
}

int ask_results(struct conn *conn, const char *job, json_t **out, struct errbuf *e)
{
    return query_results(conn, job, &(struct shown){ "", "", RESULTS_TOP }, true, out, e);
}

int verb_results(struct cli *c)
{
    struct shown shown = { cli_str(c, "by", ""), cli_str(c, "columns", ""), RESULTS_TOP };
    struct conn *conn;
    json_t *doc;
    int64_t top = RESULTS_TOP;
    int rc = cli_int(c, "top", 1, 1000, &top);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    shown.top = (size_t)top;
    if ((rc = query_results(conn, c->arg[0], &shown, !c->json, &doc, c->e)) < 0)
        return rc;
    if (c->json)
        print_json(stdout, doc);
    else
        rc = show(doc, &shown, stdout, c->e);
    json_decref(doc);
    return rc;
}
