/* audit.c - how far a search's scores can be trusted: a table for each sample of real trainings, and what it allows to say. */
#include "client/audit.h"
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static double or_zero(double v) { return isfinite(v) ? v : 0; }

const json_t *audit_predictor(const json_t *sample, const char *name)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(sample, "predictors"), i, p)
        if (strcmp(doc_str(p, "name"), name) == 0)
            return p;
    return NULL;
}

/* "0.71 [0.42 0.88]" */
static void estimate_cell(struct table *t, const json_t *e)
{
    double v = doc_num(e, "value"), low = doc_num(e, "low"), high = doc_num(e, "high");
    if (!isfinite(v))
        table_cell(t, "%s", "");
    else if (isfinite(low) && isfinite(high))
        table_cell(t, "%.2f [%.2f %.2f]", v, low, high);
    else
        table_cell(t, "%.2f", v);
}

static void number_cell(struct table *t, const char *fmt, double v)
{
    char text[40] = "";
    if (isfinite(v))
        snprintf(text, sizeof text, fmt[0] == '4' ? "%.4f" : "%.2f", v);
    table_cell(t, "%s", text);
}

static void predictors_table(const json_t *sample, FILE *f)
{
    static const struct table_col cols[] = { { "PREDICTOR", false, true }, { "N", true, false }, { "SPEARMAN", false, false },
        { "KENDALL", false, false }, { "TOP HALF: N", true, false }, { "SPEARMAN", false, false }, { "KENDALL", false, false },
        { "REGRET OF 1", true, false }, { "OF 10", true, false }, { "SECONDS", true, false } };
    struct table t;
    size_t i;
    json_t *p;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(json_object_get(sample, "predictors"), i, p) {
        table_cell(&t, "%s%s", doc_str(p, "name"), doc_num(p, "sign") < 0 ? " (less is better)" : "");
        static const char *const halves[] = { "all", "top_half" };
        for (int k = 0; k < 2; k++) {
            const json_t *h = json_object_get(p, halves[k]);
            table_cell(&t, "%.0f", or_zero(doc_num(h, "n")));
            estimate_cell(&t, json_object_get(h, "spearman"));
            estimate_cell(&t, json_object_get(h, "kendall"));
        }
        number_cell(&t, "4", doc_num(p, "regret.top1"));
        number_cell(&t, "4", doc_num(p, "regret.top10"));
        number_cell(&t, "2", doc_num(p, "seconds"));
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
}

static void training_line(const json_t *s, FILE *f)
{
    if (strcmp(doc_str(s, "source"), "table") == 0) {
        fprintf(f, "\n%.0f networks, each judged by its %s:\n", or_zero(doc_num(s, "n")), doc_str(s, "split"));
        return;
    }
    short_str each;
    size_t i;
    json_t *job;
    const char *name;
    json_t *n;
    fprintf(f, "\n%.0f networks trained for real (", or_zero(doc_num(s, "n")));
    bool first = true;
    json_object_foreach(json_object_get(s, "groups"), name, n)
        if (json_integer_value(n) > 0) {
            fprintf(f, "%s%lld %s", first ? "" : ", ", (long long)json_integer_value(n), name);
            first = false;
        }
    fprintf(f, "), %g epochs each, batch %.0f; accuracy on the %s split; ", doc_num(s, "training.epochs"), doc_num(s, "training.batch"),
            doc_str(s, "split"));
    json_array_foreach(json_object_get(s, "jobs"), i, job)
        fprintf(f, "%s%lld", i ? ", " : "job ", (long long)json_integer_value(job));
    fprintf(f, "; %s of one device a training", fmt_seconds(each, doc_num(s, "seconds")));
    if (or_zero(doc_num(s, "failed")) > 0)
        fprintf(f, "; %.0f trainings failed and are left out", doc_num(s, "failed"));
    fputs(":\n", f);
}

/* Is the column any better than counting parameters? The difference is resampled as one: both saw the same networks. */
static void compare_line(const json_t *s, const char *name, const char *half, const char *where, FILE *f)
{
    const json_t *score = json_object_get(audit_predictor(s, name), half), *params = json_object_get(audit_predictor(s, "params"), half);
    const json_t *d = json_object_get(score, "minus_params");
    double a = doc_num(score, "spearman.value"), b = doc_num(params, "spearman.value"), low = doc_num(d, "low"), high = doc_num(d, "high");
    if (!isfinite(a) || !isfinite(b) || !isfinite(low) || !isfinite(high))
        return;
    fprintf(f, "Over %s: Spearman %.2f for the %s%s, %.2f for the number of parameters; difference %.2f, 95 %% interval %.2f to %.2f:"
            " %s.\n", where, a, name, strcmp(name, "score") == 0 ? "" : " score", b, doc_num(d, "value"), low, high,
            low > 0 ? "it ranks better" : high < 0 ? "it ranks WORSE" : "this sample cannot tell them apart");
}

static void sample_show(const json_t *s, FILE *f)
{
    char sentence[512];
    training_line(s, f);
    if (json_array_size(json_object_get(s, "predictors")) == 0) {
        fprintf(f, "none of them is a scored candidate of this search\n");
        return;
    }
    predictors_table(s, f);
    const json_t *score = audit_predictor(s, "score");
    verify_sentence((int)or_zero(doc_num(score, "all.n")), doc_num(score, "all.spearman.value"), doc_num(score, "all.spearman.low"),
                    doc_num(score, "all.spearman.high"), sentence, sizeof sentence);
    if (score)
        fprintf(f, "%s\n", sentence);
    static const char *const judged[] = { "score", "fused" };
    for (size_t i = 0; i < sizeof judged / sizeof *judged; i++) {
        compare_line(s, judged[i], "all", "all of them", f);
        compare_line(s, judged[i], "top_half", "the better half", f);
    }
}

static void job_lines(const json_t *doc, FILE *f)
{
    short_str a, b, c;
    fprintf(f, "job %.0f %s: %.0f candidates scored", doc_num(doc, "job.id"), doc_str(doc, "job.name"), or_zero(doc_num(doc, "scored")));
    if (isfinite(doc_num(doc, "seconds_per_candidate")))
        fprintf(f, ", %s of one device each", fmt_seconds(a, doc_num(doc, "seconds_per_candidate")));
    fputc('\n', f);
    if (isfinite(doc_num(doc, "teacher.seconds")))
        fprintf(f, "teacher: job %.0f took %s; over the %s candidates scored with it here, %s each\n", doc_num(doc, "teacher.job"),
                fmt_seconds(a, doc_num(doc, "teacher.seconds")), fmt_count(b, doc_num(doc, "teacher.candidates")),
                fmt_seconds(c, doc_num(doc, "teacher.seconds_per_candidate")));
    else
        fprintf(f, "teacher: made elsewhere; its cost is not known here\n");
}

static void tables_line(const json_t *doc, FILE *f)
{
    size_t i;
    json_t *b;
    json_array_foreach(json_object_get(doc, "books"), i, b) {
        fprintf(f, "%s%s%s: %.0f rows of %s, %s", doc_str(b, "prefix"), *doc_str(b, "prefix") ? ": = " : "", doc_str(b, "file"), doc_num(b, "rows"),
                doc_str(b, "space"), doc_str(b, "fidelity"));
        fprintf(f, "; %.0f failed; %.0f networks are in %s%s\n", doc_num(b, "failed"), doc_num(b, "joined"), doc_str(doc, "truth.file"),
                i ? " and in the books before it" : "");
    }
}

void audit_show(const json_t *doc, FILE *f)
{
    size_t i, shown = 0;
    json_t *s;
    if (doc_get(doc, "truth"))
        tables_line(doc, f);
    else
        job_lines(doc, f);
    json_array_foreach(json_object_get(doc, "samples"), i, s)
        if (or_zero(doc_num(s, "n")) > 0) {
            sample_show(s, f);
            shown++;
        }
    if (shown == 0)
        fprintf(f, "None of its candidates was trained for real yet: didact verify --of %.0f --top 10 --random 20\n", doc_num(doc, "job.id"));
    else
        fprintf(f, "\nIntervals: 95 %%, percentile bootstrap over networks (%.0f resamples). Top half: by real accuracy. Regret: accuracy lost by the best\n"
                   "of so many picks against the best trained. Seconds: one device, for one candidate, without the teacher.\n",
                doc_num(doc, "resamples"));
}

static size_t estimate_text(const json_t *e, char *out, size_t cap)
{
    double v = doc_num(e, "value"), low = doc_num(e, "low"), high = doc_num(e, "high");
    if (!isfinite(v))
        return (size_t)snprintf(out, cap, "-");
    if (!isfinite(low) || !isfinite(high))
        return (size_t)snprintf(out, cap, "%.2f", v);
    return (size_t)snprintf(out, cap, "%.2f [%.2f %.2f]", v, low, high);
}

bool audit_line(const json_t *job, char *out, size_t cap)
{
    const json_t *a = json_object_get(job, "audit");
    char score[64], params[64], control[64];
    out[0] = 0;
    if (!json_is_object(a) || !(doc_num(a, "chosen") > 0))
        return false;
    double n = or_zero(doc_num(a, "spearman.n"));
    if (n < 2) {
        snprintf(out, cap, "audit: %.0f of %.0f chosen networks trained for real", or_zero(doc_num(a, "trained")), or_zero(doc_num(a, "chosen")));
        return true;
    }
    estimate_text(json_object_get(a, "spearman"), score, sizeof score);
    estimate_text(json_object_get(a, "params"), params, sizeof params);
    size_t at = (size_t)snprintf(out, cap, "audit: Spearman %s over %.0f trained for real; parameters %s", score, n, params);
    if (at < cap && json_is_object(json_object_get(a, "control"))) {
        estimate_text(json_object_get(a, "control"), control, sizeof control);
        at += (size_t)snprintf(out + at, cap - at, "; real batches %s", control);
    }
    const char *state = doc_str(a, "state");
    if (at < cap && strcmp(state, "low") == 0)
        snprintf(out + at, cap - at, "; BELOW THE FLOOR of %g", doc_num(a, "floor"));
    else if (at < cap && strcmp(state, "few") == 0)
        snprintf(out + at, cap - at, "; too few to say");
    else if (at < cap && doc_num(a, "spearman.low") <= 0)
        snprintf(out + at, cap - at, "; the interval contains 0: nothing is shown yet");
    return true;
}

static int job_audit(struct cli *c, json_t **out)
{
    struct conn *conn;
    int rc = cli_conn(c, &conn);
    if (rc < 0)
        return rc;
    conn_patience(conn, 600); /* thousands of resamples for each column */
    return conn_query(conn, out, c->e, "jobs/%s/audit", c->arg[0]);
}

/* A score book where a job was meant to stand; a job of this name comes first. */
static int is_book(struct cli *c, int rc)
{
    struct stat st;
    if ((rc != -ERR_NOTFOUND && rc != -ERR_UNREACHABLE) || stat(c->arg[0], &st) != 0 || !S_ISREG(st.st_mode))
        return rc;
    return err_set(c->e, ERR_USAGE, "no job '%.200s' is found here, but a file: a score book needs --truth FILE, the table that it is judged against", c->arg[0]);
}

int verb_audit(struct cli *c)
{
    json_t *doc;
    const bool tables = cli_has(c, "truth");
    const char *path = cli_str(c, "output", NULL), *by = cli_str(c, "by", tables && cli_has(c, "fuse") ? "fused" : "score");
    static const char *const of_tables[] = { "truth-column", "truth-arch", "fuse", "seed" };
    int rc = !tables && c->n_args > 1 ? err_set(c->e, ERR_USAGE, "one job; or score books with --truth FILE") : 0;
    for (size_t i = 0; i < sizeof of_tables / sizeof *of_tables && rc == 0 && !tables; i++)
        if (cli_has(c, of_tables[i]))
            rc = err_set(c->e, ERR_USAGE, "--%s goes with --truth", of_tables[i]);
    if (rc == 0)
        rc = tables ? audit_tables(c, &doc) : is_book(c, job_audit(c, &doc));
    if (rc < 0)
        return rc;
    if (c->json)
        print_json(stdout, doc);
    else
        audit_show(doc, stdout);
    if (path && (rc = audit_plot(doc, by, path, c->e)) == 0 && !c->json)
        printf("%s\n", path);
    json_decref(doc);
    return rc;
}
