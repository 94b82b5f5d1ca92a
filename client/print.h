/* print.h - what people read: aligned tables, short numbers, and JSON documents as they are.
 * Thread: one; a table is filled, printed, freed. */
#ifndef DIDACT_CLIENT_PRINT_H
#define DIDACT_CLIENT_PRINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TABLE_MAX_COLS 24

struct table_col {
    const char *title;
    bool        right;    /* numbers */
    bool        flex;     /* may be cut short ("…") where the table is wider than the terminal */
};
struct table {
    int   n_cols, n_cells, cap_cells;
    struct table_col col[TABLE_MAX_COLS];
    char **cell;          /* owned, row by row */
};

void table_init(struct table *t, int n_cols, const struct table_col *cols);
/* Cells fill rows from left to right. An empty cell is printed as "-". */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* width 0: as wide as it needs. A last row that is not full is filled up. */
void table_print(struct table *t, FILE *f, int width);
void table_fini(struct table *t);

int  print_width(FILE *f);              /* columns of the terminal `f` is; 0: it is none */
int  print_columns(const char *s);      /* columns a UTF-8 text takes (one a code point) */
/* As JSON in one line, numbers with as few digits as read back the same, and as people write them. malloc'ed. */
char *json_short(const json_t *v);
void print_json(FILE *f, const json_t *doc);
void print_json_error(FILE *f, int rc, const char *text);
/* A spec as `key.sub  value` lines, in the document's order. */
void print_tree(FILE *f, const json_t *obj, const char *prefix);

/* Short forms in `buf`, which is returned. NaN, negative where it cannot be, and absent give "-". */
typedef char short_str[32];
const char *fmt_count(short_str buf, double v);      /* 12.3k 4.56M */
const char *fmt_bytes(short_str buf, double v);      /* 3.2 MB */
const char *fmt_seconds(short_str buf, double v);    /* 0.42 s, 3 min 20 s, 2 h 05 min */
const char *fmt_time(short_str buf, double unix_ms); /* 2024-05-01 12:30:05, local */
const char *fmt_score(short_str buf, double v, double se); /* 0.8123 ± 0.0041 */

/* Members of a document, forgiving: NaN or "" where absent, null or of another type. `path` is "trials.scored". */
double      doc_num(const json_t *doc, const char *path);
const char *doc_str(const json_t *doc, const char *path);
bool        doc_true(const json_t *doc, const char *path);
json_t     *doc_get(const json_t *doc, const char *path); /* borrowed; NULL: absent */

#endif
