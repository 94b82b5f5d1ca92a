/* audit_table.c - the audit of tables: what score books say of networks against a table of what these are worth. A coordinator is
 * asked for spaces that were imported there, and for nothing else; the document has the form of a job's, so that it is shown and drawn by the same code. */
#include "client/audit.h"
#include "client/spaces.h"
#include "client/verbs.h"

#include "common/book.h"
#include "common/predictors.h"
#include "common/score_column.h"
#include "common/search/records.h"
#include "common/stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COLS = 128, MOST_BOOKS = 8 };

struct book_file {
    const char *path;
    char        stem[20];        /* prefix of its columns: "real:score"; "" for the first book */
    long        rows, failed, matched; /* rows; of them without a score; networks with one that the truth and earlier books list */
    struct book_row head;        /* the first row: all others are of its space, data and fidelity */
};

struct tables {
    struct cli      *c;
    const char      *truth_path, *truth_col;
    struct records   truth;      /* owned: what the networks are worth, in canonical form */
    bool             have_truth;
    struct book_file book[MOST_BOOKS];
    int              n_books, n_cols;
    char             col[MOST_COLS][PREDICTOR_NAME_MAX];
    double          *value;      /* owned: [MOST_COLS][truth.n], NaN where no book says */
    unsigned char   *in;         /* owned: [truth.n], how many books list the network */
    uint64_t         seed;
};

static int out_of_memory(struct tables *t) { return err_set(t->c->e, ERR_NOMEM, "no memory for the tables"); }

/* ---- reading ---- */

static int load_truth(struct tables *t, const char *space)
{
    const struct space *s;
    const struct record_columns cols = { .arch = cli_str(t->c, "truth-arch", NULL), .score = t->truth_col };
    int rc = space_named(t->c, cli_str(t->c, "space", space), &s);
    if (rc < 0)
        return err_wrap(t->c->e, rc, "%s: space %s", t->book[0].path, space);
    records_init(&t->truth, s);
    t->have_truth = true;
    rc = records_read(&t->truth, t->truth_path, &cols, t->c->e);
    if (rc == 0)
        rc = records_finish(&t->truth, t->c->e);
    if (rc < 0)
        return rc;
    t->value = malloc(sizeof *t->value * MOST_COLS * t->truth.n);
    t->in = calloc(t->truth.n, 1);
    return t->value && t->in ? 0 : out_of_memory(t);
}

static int set_value(struct tables *t, const struct book_file *b, const char *name, size_t at, double v)
{
    char full[PREDICTOR_NAME_MAX];
    int k = 0;
    snprintf(full, sizeof full, "%s%s%.20s", b->stem, b->stem[0] ? ":" : "", name);
    while (k < t->n_cols && strcmp(t->col[k], full) != 0)
        k++;
    if (k == MOST_COLS)
        return err_set(t->c->e, ERR_INPUT, "%s: the books have more than %d columns", b->path, MOST_COLS);
    if (k == t->n_cols) {
        memcpy(t->col[t->n_cols++], full, sizeof full);
        for (size_t i = 0; i < t->truth.n; i++)
            t->value[(size_t)k * t->truth.n + i] = NAN;
    }
    t->value[(size_t)k * t->truth.n + at] = v;
    return 0;
}

/* The numbers of one scored row. Parameters and multiply-adds are taken from the first book alone: they are the networks', not a score's. A
 * latency is of a machine, and says nothing of what a network is worth. */
static int take_values(struct tables *t, struct book_file *b, const struct book_row *row, size_t at)
{
    const bool first = b == &t->book[0], trained = row->curriculum[0] != 0;
    int rc = 0;
    for (int i = 0; i < SCORE_COLUMNS && rc == 0; i++) {
        const bool size = i == COLUMN_PARAMS || i == COLUMN_MACS;
        const double v = score_column_value(i, &row->r);
        if (i == COLUMN_LATENCY)
            continue;
        if (size ? first : isfinite(v) && (trained || i >= COLUMN_ZERO_COST))
            rc = set_value(t, b, score_columns[i].name, at, v);
    }
    for (int i = 0; i < row->r.n_checkpoints && trained && rc == 0; i++) {
        char name[PREDICTOR_NAME_MAX];
        snprintf(name, sizeof name, "score@%d", row->r.checkpoint[i]);
        rc = set_value(t, b, name, at, row->r.checkpoint_score[i]);
    }
    return rc;
}

static int check_alike(const struct book_file *b, const struct book_row *row, long line, struct errbuf *e)
{
    const struct { const char *what, *a, *b; } same[] = { { "space", b->head.space, row->space }, { "dataset", b->head.dataset, row->dataset },
        { "curriculum", b->head.curriculum, row->curriculum }, { "fidelity", b->head.fidelity, row->fidelity }, { "engine", b->head.engine, row->engine } };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (strcmp(same[i].a, same[i].b) != 0)
            return err_set(e, ERR_INPUT, "%s: line %ld: its %s is \"%.60s\", that of the first row \"%.60s\": scores of different kinds do not compare; give them as two files",
                           b->path, line, same[i].what, same[i].b, same[i].a);
    return 0;
}

static int take_row(struct tables *t, struct book_file *b, const struct book_row *row, long line)
{
    int rc = 0;
    if (b->rows++ == 0)
        b->head = *row;
    else
        rc = check_alike(b, row, line, t->c->e);
    if (rc == 0 && !t->have_truth)
        rc = load_truth(t, row->space);
    if (rc == 0 && strcmp(row->space, t->truth.space->name) != 0)
        rc = err_set(t->c->e, ERR_INPUT, "%s: line %ld: its space is %s, that of %s is %s", b->path, line, row->space, b != &t->book[0] ? t->book[0].path : "--space",
                     t->truth.space->name);
    if (rc == 0 && row->r.state != TRIAL_SCORED) {
        b->failed++;
        return 0;
    }
    const struct record *r = rc == 0 ? records_find(&t->truth, row->arch) : NULL;
    if (!r)
        return rc;
    const size_t at = (size_t)(r - t->truth.v);
    if (t->in[at] != b - t->book)
        return 0; /* an earlier book lacks it; or this one has it already: the first stands */
    t->in[at]++;
    b->matched++;
    return take_values(t, b, row, at);
}

static int load_book(struct tables *t, struct book_file *b)
{
    struct book_columns cols;
    struct book_row *row = malloc(sizeof *row);
    char  *line = NULL;
    size_t cap = 0;
    long   at = 0;
    int    rc = row ? 0 : out_of_memory(t);
    FILE  *f = rc == 0 ? fopen(b->path, "r") : NULL;
    if (rc == 0 && !f)
        rc = err_set(t->c->e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", b->path, strerror(errno));
    for (ssize_t n; rc == 0 && (n = getline(&line, &cap, f)) > 0; at++) {
        line[strcspn(line, "\r\n")] = 0;
        if (n > BOOK_LINE_MAX)
            rc = err_set(t->c->e, ERR_INPUT, "a line has more than %d bytes", BOOK_LINE_MAX);
        else if (at == 0)
            rc = book_read_header(line, &cols, t->c->e);
        else
            rc = book_read_row(&cols, line, row, t->c->e);
        if (rc < 0)
            err_wrap(t->c->e, rc, "%s: line %ld", b->path, at + 1);
        else if (at > 0)
            rc = take_row(t, b, row, at + 1);
    }
    if (rc == 0 && ferror(f))
        rc = err_set(t->c->e, ERR_IO, "%s: %s", b->path, strerror(errno));
    if (rc == 0 && b->rows == 0)
        rc = err_set(t->c->e, ERR_INPUT, "%s: it has no row", b->path);
    if (rc == 0 && b->matched == 0)
        rc = err_set(t->c->e, ERR_INPUT, "%s: none of its networks is in %s%s", b->path, t->truth_path, b > t->book ? " and in all books before it" : "");
    if (f)
        fclose(f);
    free(line);
    free(row);
    return rc;
}

/* "scores/real-32.csv" gives "real-32". */
static void name_book(struct book_file *b, bool first)
{
    const char *slash = strrchr(b->path, '/'), *name = slash ? slash + 1 : b->path;
    size_t n = strcspn(name, ".");
    if (!first)
        snprintf(b->stem, sizeof b->stem, "%.*s", (int)(n < sizeof b->stem ? n : sizeof b->stem - 1), name);
}

/* ---- the table of what all books list ---- */

struct joined { int n; double *value, *truth; const char **arch; int64_t *trial; };

static void joined_fini(struct joined *j)
{
    free(j->value);
    free(j->truth);
    free(j->arch);
    free(j->trial);
}

static int join(struct tables *t, struct joined *j)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < t->truth.n; i++)
        n += t->in[i] == t->n_books;
    *j = (struct joined){ (int)n, malloc(sizeof *j->value * (n * MOST_COLS + 1)), malloc(sizeof *j->truth * (n + 1)),
                          malloc(sizeof *j->arch * (n + 1)), malloc(sizeof *j->trial * (n + 1)) };
    if (!j->value || !j->truth || !j->arch || !j->trial)
        return out_of_memory(t);
    if (n < 3)
        return err_set(t->c->e, ERR_INPUT, "%zu networks are in all files; a correlation needs 3", n);
    for (size_t i = 0; i < t->truth.n; i++) {
        if (t->in[i] != t->n_books)
            continue;
        for (int k = 0; k < t->n_cols; k++)
            j->value[(size_t)k * n + at] = t->value[(size_t)k * t->truth.n + i];
        j->truth[at] = t->truth.v[i].truth;
        j->arch[at] = t->truth.v[i].arch;
        j->trial[at++] = -1;
    }
    return 0;
}

/* --fuse a,b,c: one more column, the sum of log ranks among the joined networks. */
static int add_fused(struct tables *t, struct joined *j, const char *list)
{
    bool   higher[MOST_COLS];
    int    n = 0, rc = 0;
    const size_t rows = (size_t)j->n;
    double *in = malloc(sizeof *in * rows * MOST_COLS), *out = j->value + (size_t)t->n_cols * rows;
    if (!in)
        return out_of_memory(t);
    for (const char *p = list, *end; rc == 0 && *p; p = *end ? end + 1 : end) {
        char name[PREDICTOR_NAME_MAX];
        int  k = 0;
        end = p + strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)(end - p), p);
        while (k < t->n_cols && strcmp(t->col[k], name) != 0)
            k++;
        if (k == t->n_cols)
            rc = err_set(t->c->e, ERR_USAGE, "--fuse: no column is called '%s'", name);
        else if (n == MOST_COLS)
            rc = err_set(t->c->e, ERR_USAGE, "--fuse: more than %d columns", MOST_COLS);
        else {
            higher[n] = !predictor_falls(name);
            memcpy(in + (size_t)n++ * rows, j->value + (size_t)k * rows, rows * sizeof *in);
        }
    }
    if (rc == 0 && t->n_cols == MOST_COLS)
        rc = err_set(t->c->e, ERR_INPUT, "the books have more than %d columns", MOST_COLS - 1);
    if (rc == 0)
        rc = score_fuse(higher, n, rows, in, out, t->c->e);
    if (rc == 0)
        snprintf(t->col[t->n_cols++], PREDICTOR_NAME_MAX, "%s", FUSED_NAME);
    free(in);
    return rc;
}

/* ---- the document ---- */

static json_t *real_or_null(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *pairs_doc(const struct tables *t, const struct joined *j)
{
    json_t *list = json_array();
    for (int i = 0; i < j->n; i++) {
        json_t *v = json_object();
        for (int k = 0; k < t->n_cols; k++)
            json_object_set_new(v, t->col[k], real_or_null(j->value[(size_t)k * (size_t)j->n + (size_t)i]));
        json_array_append_new(list, json_pack("{s:n,s:s,s:f,s:o}", "trial", "arch", j->arch[i], "accuracy", j->truth[i], "values", v));
    }
    return list;
}

static json_t *books_doc(const struct tables *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->n_books; i++) {
        const struct book_file *b = &t->book[i];
        json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:I,s:I,s:s,s:s,s:s,s:s}", "file", b->path, "prefix", b->stem, "rows", (json_int_t)b->rows, "failed",
                              (json_int_t)b->failed, "joined", (json_int_t)b->matched, "space", b->head.space, "dataset", b->head.dataset, "curriculum", b->head.curriculum, "fidelity",
                              b->head.fidelity));
    }
    return list;
}

static int table_doc(struct tables *t, const struct joined *j, json_t **out)
{
    json_t *predictors = json_array();
    const struct predictor_table p = { j->n, t->n_cols, t->col, j->value, j->truth, j->arch, j->trial, t->seed };
    int rc = predictors_doc(&p, predictors, t->c->e), best = 0;
    for (int i = 1; i < j->n; i++)
        if (j->truth[i] > j->truth[best])
            best = i;
    *out = json_pack("{s:{s:s,s:s},s:o,s:I,s:i,s:i,s:[{s:s,s:s,s:i,s:o,s:o,s:{s:s,s:f}}]}", "truth", "file", t->truth_path, "column", t->truth_col,
                     "books", books_doc(t), "seed", (json_int_t)t->seed, "resamples", STATS_RESAMPLES, "scored", j->n, "samples", "source", "table",
                     "split", t->truth_col, "n", j->n, "predictors", predictors, "pairs", pairs_doc(t, j), "best", "arch", j->arch[best], "accuracy",
                     j->truth[best]);
    return rc < 0 ? rc : *out ? 0 : out_of_memory(t);
}

int audit_tables(struct cli *c, json_t **out)
{
    struct tables *t = calloc(1, sizeof *t);
    struct joined  j = { 0 };
    int64_t seed = 1;
    const char *fuse = cli_str(c, "fuse", NULL);
    *out = NULL;
    if (!t)
        return err_set(c->e, ERR_NOMEM, "no memory for the tables");
    t->c = c;
    t->truth_path = cli_str(c, "truth", NULL);
    t->truth_col = cli_str(c, "truth-column", "accuracy");
    int rc = cli_int(c, "seed", 0, INT64_MAX, &seed);
    t->seed = (uint64_t)seed;
    for (int i = 0; i < c->n_args && i < MOST_BOOKS && rc == 0; i++) {
        t->n_books++;
        t->book[i].path = c->arg[i];
        name_book(&t->book[i], i == 0);
        rc = load_book(t, &t->book[i]);
    }
    if (rc == 0)
        rc = join(t, &j);
    if (rc == 0 && fuse)
        rc = add_fused(t, &j, fuse);
    if (rc == 0)
        rc = table_doc(t, &j, out);
    joined_fini(&j);
    if (t->have_truth)
        records_fini(&t->truth);
    free(t->value);
    free(t->in);
    free(t);
    return rc;
}
