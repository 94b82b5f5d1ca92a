/* jobfile.h - the inside of the job file reader, and the table of keys for help pages. What others call is in job.h.
 *
 * Text (YAML or JSON) becomes a small tree with line numbers (jobfile_tree.c); one table says which keys there are, their type,
 * range, default and meaning (jobfile_keys.c); values are checked against each other at the end (jobfile_check.c).
 * Every problem is collected, so that one run tells all of them. */
#ifndef DIDACT_JOBFILE_H
#define DIDACT_JOBFILE_H

#include "common/job.h"

/* ---- tree ---- */
enum jkind { J_SCALAR, J_MAP, J_LIST };
struct jnode {
    enum jkind kind;
    int        line;            /* 1, 2, …; 0: not from a file */
    bool       plain;           /* a scalar without quotes: may be a number or truth value */
    char      *key;             /* owned; of a member of a map */
    char      *text;            /* owned; of a scalar */
    int        first, last, next; /* children and siblings: indices, 0 for none */
};
struct jtree { struct jnode *node; int n, cap; }; /* node[0] is the root */

/* `what` a file is, "job" or "space", is for messages as `file` is. */
int  jtree_from_yaml(struct jtree *t, const char *text, size_t len, const char *file, const char *what, struct errbuf *e);
int  jtree_from_json(struct jtree *t, const struct json_t *j, struct errbuf *e);
void jtree_fini(struct jtree *t);

/* ---- problems ---- */
#define PROBLEMS_SHOWN 3
struct problems {
    const char *file;           /* borrowed */
    int         n;
    char        text[PROBLEMS_SHOWN][136];
};
void problem(struct problems *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void utf8_clean(char *s);         /* bytes that are not UTF-8 (a character cut in two) become '?': errors travel in JSON */
int  problems_result(const struct problems *p, struct errbuf *e); /* 0, or -ERR_INPUT with the first few and their number */

/* ---- keys ---- */
enum jform {
    F_INT, F_COUNT, F_SEED, F_REAL, F_TIME, F_BOOL, F_NAME, F_REF, F_HASH, F_SPACE, F_SEARCHER, F_CHEAP, F_TEACHER, F_INNER,
    F_ACTION, F_DEVICE, F_INTS, F_REALS, F_ZERO_COST, F_COLUMNS, F_VOTE, F_MIX, F_META, F_OBJECTIVES, F_ARCHS, F_COUNT_OF_FORMS
};
struct job_key {
    const char *path;           /* "fidelity.steps" */
    enum jform  form;
    unsigned    kinds;          /* bit 1 << JOB_TEACH … : the jobs that have it */
    size_t      off, off_n;     /* in struct job_spec; of a list: its count; of F_REF: the hash */
    int         cap;            /* of a list */
    double      min, max;       /* of numbers, and of the numbers in a list; min JOB_ABOVE_0: above 0 */
    const char *def[JOB_KIND_COUNT]; /* as one would write it; NULL: must be given; "": nothing */
    const char *doc;
};
#define JOB_KEYS_MAX 160
#define JOB_ABOVE_0  2.2250738585072014e-308

const struct job_key *job_key_at(int i);             /* the table in the order of the documentation; NULL past its end */
int         job_key_index(const char *path);         /* -1: no such key */
const char *job_key_type(const struct job_key *k);   /* "integer, 1 to 64" in a static buffer per thread */

/* Read a value into the spec; problems say where. `path` opens the messages. */
void job_key_read(const struct job_key *k, const struct jtree *t, const struct jnode *v, struct job_spec *s, struct problems *p);
struct json_t *job_key_json(const struct job_key *k, const struct job_spec *s); /* NULL: nothing to write (or no memory) */

/* Does a column tell of a network before its trial? Then it can vote on a warm-up. */
static inline bool job_column_votes(int column)
{
    return column == COLUMN_PARAMS || column == COLUMN_MACS || column >= COLUMN_ZERO_COST;
}

/* Values against each other; given[i]: key i was, line[i]: where (-1: in no file, but by a person; 0: not, or in a stored spec, which has
 * every key: what is merely without effect is not refused there). Architectures become canonical. */
void job_check(struct job_spec *s, const bool *given, const int *line, struct problems *p);
/* What depends on the inner optimiser: lr, and inner with its own constants; all else 0. */
struct teach_cfg job_inner_defaults(enum inner_type t);

#endif
