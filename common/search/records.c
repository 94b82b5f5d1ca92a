#include "common/search/records.h"

#include "common/fsio.h"
#include "common/job.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

void records_init(struct records *r, const struct space *space)
{
    *r = (struct records){ .space = space };
}

void records_fini(struct records *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->v[i].arch);
        free(r->v[i].init);
    }
    free(r->v);
    free(r->slot);
    *r = (struct records){ 0 };
}

static size_t hash_text(const char *s) /* FNV-1a, 64 bits */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* Where `arch` stands, or the empty slot where it would. */
static uint32_t *find_slot(const struct records *r, const char *arch)
{
    size_t i = hash_text(arch) & (r->n_slots - 1);
    while (r->slot[i] && strcmp(r->v[r->slot[i] - 1].arch, arch) != 0)
        i = (i + 1) & (r->n_slots - 1);
    return &r->slot[i];
}

const struct record *records_find(const struct records *r, const char *arch)
{
    uint32_t at = r->n ? *find_slot(r, arch) : 0;
    return at ? &r->v[at - 1] : NULL;
}

static int grow(struct records *r, struct errbuf *e)
{
    size_t cap = r->cap ? 2 * r->cap : 1024;
    if (r->n < r->cap)
        return 0;
    if (r->n >= RECORDS_MAX)
        return err_set(e, ERR_INPUT, "more than %d architectures", RECORDS_MAX);
    struct record *v = realloc(r->v, cap * sizeof *v);
    if (v)
        r->v = v;
    uint32_t *slot = calloc(2 * cap, sizeof *slot);
    if (!v || !slot) {
        free(slot);
        return err_set(e, ERR_NOMEM, "recorded scores");
    }
    free(r->slot);
    r->slot = slot;
    r->n_slots = 2 * cap;
    r->cap = cap;
    for (size_t i = 0; i < r->n; i++)
        *find_slot(r, r->v[i].arch) = (uint32_t)i + 1;
    return 0;
}

static int keep_inits(struct record *v, const struct record *row, struct errbuf *e)
{
    double *init = malloc((size_t)row->n_inits * sizeof *init);
    if (!init)
        return err_set(e, ERR_NOMEM, "recorded scores");
    memcpy(init, row->init, (size_t)row->n_inits * sizeof *init);
    free(v->init);
    v->init = init;
    v->n_inits = row->n_inits;
    return 0;
}

int records_add(struct records *r, const char *arch, const struct record *row, struct errbuf *e)
{
    char text[ARCH_TEXT_MAX];
    int rc = r->space->canon(r->space, arch, text, e);
    if (rc < 0)
        return err_wrap(e, rc, "no architecture of space %s", r->space->name);
    if (!isfinite(row->score) || !isfinite(row->truth)) {
        r->n_skipped++;
        return 0;
    }
    if ((rc = grow(r, e)) < 0)
        return rc;
    uint32_t *at = find_slot(r, text);
    if (!*at) {
        char *copy = strdup(text);
        if (!copy)
            return err_set(e, ERR_NOMEM, "recorded scores");
        r->v[r->n++] = (struct record){ .arch = copy, .params = row->params, .macs = row->macs, .zero_cost.known = row->zero_cost.known };
        *at = (uint32_t)r->n;
    }
    struct record *v = &r->v[*at - 1];
    v->score += row->score;
    v->truth += row->truth;
    v->cheap += row->cheap;
    v->zero_cost.known &= row->zero_cost.known;
    for (int k = 0; k < ZC_COUNT; k++)
        v->zero_cost.value[k] += row->zero_cost.value[k];
    v->n_rows++;
    r->n_rows++;
    return row->n_inits > v->n_inits ? keep_inits(v, row, e) : 0;
}

int records_finish(struct records *r, struct errbuf *e)
{
    if (r->n == 0)
        return err_set(e, ERR_INPUT, "there is no architecture with a score%s", r->n_skipped ? ": every row's is empty" : "");
    r->best_truth = -INFINITY;
    for (size_t i = 0; i < r->n; i++) {
        r->v[i].score /= r->v[i].n_rows;
        r->v[i].truth /= r->v[i].n_rows;
        r->v[i].cheap /= r->v[i].n_rows;
        struct zero_cost_scores *z = &r->v[i].zero_cost;
        for (int k = 0; k < ZC_COUNT; k++)
            zero_cost_set(z, k, z->known >> k & 1 ? z->value[k] / r->v[i].n_rows : NAN); /* of all its rows, or not known */
        if (r->v[i].truth > r->best_truth)
            r->best_truth = r->v[i].truth;
    }
    return 0;
}

/* ---- CSV: RFC 4180 without line breaks inside quotes ---- */

/* Cut `line` into fields in place; their number, or -1 where a quote does not end or there are too many. */
static int split(char *line, char **field)
{
    int n = 0;
    for (char *p = line;; p++) {
        char *to = p;
        if (n == RECORDS_MAX_COLS)
            return -1;
        field[n++] = to;
        if (*p == '"') {
            for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
                *to++ = *p;
                p += *p == '"'; /* two of them stand for one */
            }
            if (*p++ != '"')
                return -1;
        } else {
            p += strcspn(p, ",");
            to = p;
        }
        char end = *p;
        *to = 0;
        if (end != ',')
            return end ? -1 : n;
    }
}

enum { COL_ARCH, COL_SCORE, COL_TRUTH, COL_PARAMS, COL_MACS, COL_CHEAP, COL_INITS, N_NAMED, N_COLS = N_NAMED + ZC_COUNT };

/* What a score is a fact about beside the network: scores that differ in one of these do not compare, and their mean means nothing. */
static const char *const kinds[] = { "fidelity", "rung", "dataset", "curriculum", "engine" };
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

struct csv {
    const char *path;
    char       *line;       /* owned, RECORDS_MAX_LINE */
    unsigned long n_lines;
    int         at[N_COLS]; /* which field; -1: none */
    const char *name[N_COLS];
    int         kind_at[N_KINDS]; /* likewise */
    char       *kind[N_KINDS];    /* owned: what the first row with a score has there */
};

static int read_header(struct csv *c, char **field, int n, const struct record_columns *cols, struct errbuf *e)
{
    const char *score = cols->score ? cols->score : "score";
    const char *const given[N_NAMED] = { cols->arch, cols->score, cols->truth, cols->params, cols->macs, cols->cheap, cols->inits };
    const char *const otherwise[N_NAMED] = { "arch", "score", score, "params", "macs", "", "init_scores" };
    for (int k = 0; k < N_COLS; k++) {
        const char *mine = k < N_NAMED ? given[k] : NULL;
        c->name[k] = mine ? mine : k < N_NAMED ? otherwise[k] : zero_cost_table[k - N_NAMED].name;
        c->at[k] = -1;
        for (int i = 0; i < n; i++)
            if (*c->name[k] && strcmp(field[i], c->name[k]) == 0)
                c->at[k] = i;
        if (c->at[k] < 0 && (k < COL_PARAMS || mine))
            return err_set(e, ERR_INPUT, "%.200s: line 1: there is no column '%.60s'", c->path, c->name[k]);
    }
    for (int k = 0; k < N_KINDS; k++) {
        c->kind_at[k] = -1;
        for (int i = 0; i < n; i++)
            if (strcmp(field[i], kinds[k]) == 0)
                c->kind_at[k] = i;
    }
    return 0;
}

static int check_kinds(struct csv *c, char **field, int n, struct errbuf *e)
{
    for (int k = 0; k < N_KINDS; k++) {
        const char *mine = c->kind_at[k] >= 0 && c->kind_at[k] < n ? field[c->kind_at[k]] : "";
        if (!c->kind[k] && !(c->kind[k] = strdup(mine)))
            return err_set(e, ERR_NOMEM, "recorded scores");
        if (strcmp(c->kind[k], mine) != 0)
            return err_set(e, ERR_INPUT, "%.200s: line %lu: its %s is \"%.60s\", that of the rows before it \"%.60s\": scores of different kinds do not compare; keep those of one kind",
                           c->path, c->n_lines, kinds[k], mine, c->kind[k]);
    }
    return 0;
}

/* The number in column k; NaN where it is empty or the column is absent. */
static int read_number(const struct csv *c, char **field, int k, double *out, struct errbuf *e)
{
    char *end;
    *out = NAN;
    if (c->at[k] < 0 || !*field[c->at[k]])
        return 0;
    *out = strtod(field[c->at[k]], &end);
    if (*end)
        return err_set(e, ERR_INPUT, "%.200s: line %lu: column '%.60s': '%.40s' is no number", c->path, c->n_lines, c->name[k],
                       field[c->at[k]]);
    return 0;
}

/* The numbers of the column of initialisations; *n is 0 where it is empty or absent. */
static int read_inits(const struct csv *c, char **field, double init[MAX_INITS], int *n, struct errbuf *e)
{
    char *p = c->at[COL_INITS] < 0 ? "" : field[c->at[COL_INITS]], *end;
    for (*n = 0; *(p += strspn(p, " ")); p = end) {
        double v = strtod(p, &end);
        if (end == p || (*end && *end != ' ') || !isfinite(v) || *n == MAX_INITS)
            return err_set(e, ERR_INPUT, "%.200s: line %lu: column '%.60s' is no list of at most %d numbers", c->path, c->n_lines, c->name[COL_INITS],
                           MAX_INITS);
        init[(*n)++] = v;
    }
    return 0;
}

static uint64_t count_of(double v) { return v > 0 && v < 1e18 ? (uint64_t)v : 0; }

static int read_row(struct csv *c, struct records *r, char **field, int n, struct errbuf *e)
{
    double v[N_COLS];
    for (int k = N_NAMED; k < N_COLS; k++) { /* whoever wrote the table need not have meant ours: what is no number is not known */
        char *end = "", *text = c->at[k] >= 0 && c->at[k] < n ? field[c->at[k]] : "";
        v[k] = *text ? strtod(text, &end) : NAN;
        v[k] = *end ? NAN : v[k];
    }
    for (int k = 0; k < N_NAMED; k++) {
        if (c->at[k] >= n)
            return err_set(e, ERR_INPUT, "%.200s: line %lu has %d fields; '%.60s' is the %dth", c->path, c->n_lines, n, c->name[k],
                           c->at[k] + 1);
        int rc = k == COL_ARCH || k == COL_INITS ? 0 : read_number(c, field, k, &v[k], e);
        if (rc < 0)
            return rc;
    }
    double init[MAX_INITS];
    int n_inits, rc = read_inits(c, field, init, &n_inits, e);
    if (rc == 0 && isfinite(v[COL_SCORE]))
        rc = check_kinds(c, field, n, e);
    if (rc < 0)
        return rc;
    struct record row = { .score = v[COL_SCORE], .truth = v[COL_TRUTH], .cheap = v[COL_CHEAP], .params = count_of(v[COL_PARAMS]),
                          .macs = count_of(v[COL_MACS]), .init = init, .n_inits = n_inits };
    for (int k = 0; k < ZC_COUNT; k++)
        zero_cost_set(&row.zero_cost, k, v[N_NAMED + k]);
    rc = records_add(r, field[c->at[COL_ARCH]], &row, e);
    return rc < 0 ? err_wrap(e, rc, "%.200s: line %lu", c->path, c->n_lines) : 0;
}

static int read_lines(struct csv *c, gzFile z, struct records *r, const struct record_columns *cols, struct errbuf *e)
{
    char *field[RECORDS_MAX_COLS];
    while (gzgets(z, c->line, RECORDS_MAX_LINE)) {
        size_t len = strlen(c->line);
        c->n_lines++;
        if (len == RECORDS_MAX_LINE - 1 && c->line[len - 1] != '\n')
            return err_set(e, ERR_INPUT, "%.200s: line %lu is longer than %d bytes", c->path, c->n_lines, RECORDS_MAX_LINE);
        while (len > 0 && (c->line[len - 1] == '\n' || c->line[len - 1] == '\r'))
            c->line[--len] = 0;
        if (len == 0)
            continue;
        int n = split(c->line, field);
        if (n < 0)
            return err_set(e, ERR_INPUT, "%.200s: line %lu: a quote does not end, or there are more than %d fields", c->path, c->n_lines,
                           RECORDS_MAX_COLS);
        int rc = c->n_lines == 1 ? read_header(c, field, n, cols, e) : read_row(c, r, field, n, e);
        if (rc < 0)
            return rc;
    }
    int zerr;
    const char *text = gzerror(z, &zerr);
    return zerr == Z_OK || zerr == Z_STREAM_END ? 0 : err_set(e, ERR_INPUT, "%.200s: %s", c->path, text);
}

int records_read(struct records *r, const char *path, const struct record_columns *cols, struct errbuf *e)
{
    struct csv c = { .path = path };
    gzFile z = gzopen(path, "rbe"); /* reads what is not compressed as it is */
    if (!z)
        return fs_error(e, errno, "cannot open", path);
    c.line = malloc(RECORDS_MAX_LINE);
    int rc = c.line ? read_lines(&c, z, r, cols, e) : err_set(e, ERR_NOMEM, "recorded scores");
    if (rc == 0 && c.n_lines == 0)
        rc = err_set(e, ERR_INPUT, "%.200s is empty", path);
    for (int k = 0; k < N_KINDS; k++)
        free(c.kind[k]);
    free(c.line);
    gzclose(z);
    return rc;
}
