/* records.h - recorded scores: what each architecture of a list scored, and what it is worth. From a CSV file with a header
 * (gzip or plain), or row by row. Rows of the same canonical architecture become one, with the means of their numbers.
 * Thread: fill it in one, then read it from any. */
#ifndef DIDACT_SEARCH_RECORDS_H
#define DIDACT_SEARCH_RECORDS_H

#include "common/err.h"
#include "common/space.h"
#include "common/zero_cost.h"

#include <stdbool.h>
#include <stdint.h>

#define RECORDS_MAX      2000000  /* architectures */
#define RECORDS_MAX_LINE 65536    /* bytes of a line */
#define RECORDS_MAX_COLS 256

struct record {
    char    *arch;         /* owned; canonical */
    double   score, truth; /* what a searcher is shown; what its choice is judged by */
    double   cheap;        /* for a warm-up; NaN: none */
    struct zero_cost_scores zero_cost; /* for a warm-up's vote */
    uint64_t params, macs;
    uint32_t n_rows;
    double  *init;         /* owned [n_inits]; scores under single initialisations, for races: of the row that has the most */
    int      n_inits;      /* at most MAX_INITS; 0: none */
};

struct records {
    const struct space *space;
    struct record *v;      /* owned; in the order of first appearance */
    size_t    n, cap;
    uint32_t *slot;        /* owned; hash table: place + 1 in v, 0: empty */
    size_t    n_slots;
    uint64_t  n_rows, n_skipped; /* rows taken; rows without a score */
    double    best_truth;  /* after records_finish */
};

/* Names of columns; NULL: "arch", "score", the same as score, "params", "macs", none, "init_scores" (numbers with spaces between).
 * Zero-cost scores have theirs: "synflow" … (zero_cost.h). */
struct record_columns { const char *arch, *score, *truth, *params, *macs, *cheap, *inits; };

void records_init(struct records *r, const struct space *space);
void records_fini(struct records *r);
/* Add one row (its n_rows is not read, its init copied); arch is put into canonical form. A score or truth that is not finite: the row is counted as skipped.
 * -ERR_INPUT: no architecture of the space. */
int  records_add(struct records *r, const char *arch, const struct record *row, struct errbuf *e);
/* Read a file into an empty table. Errors name file, line and column. Rows that differ in
 * a column fidelity, rung, dataset, curriculum or engine are scores of different kinds: -ERR_INPUT. Absent params, macs or init_scores columns, unless
 * named, leave 0. */
int  records_read(struct records *r, const char *path, const struct record_columns *cols, struct errbuf *e);
/* After the last row: means, the best. -ERR_INPUT when there is no row. */
int  records_finish(struct records *r, struct errbuf *e);
/* By canonical text; NULL: not listed. */
const struct record *records_find(const struct records *r, const char *arch);

#endif
