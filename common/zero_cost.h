/* zero_cost.h - the scores that need no training: their names and what they cost. What they compute stands in
 * worker/zerocost*.c; the job file, the wire, the store and the tables for people read these rows.
 * Order and names are forever: a row's number is its bit on the wire. Add at the end.
 * For all of them higher is better. */
#ifndef DIDACT_ZERO_COST_H
#define DIDACT_ZERO_COST_H

#include <stdint.h>

struct json_t;

#define ZC_BATCHES 2
#define ZC_BATCH   64   /* images of each, or as many as the training split allows; part of a score's identity */

/* enum, name, passes (a backward counts two; what several scores share counts for each), meaning */
#define ZERO_COST_LIST(X)                                                                                   \
    X(ZC_SYNFLOW,   "synflow",   3,                         "sum of |w dR/dw|, R the output of |w| on ones") \
    X(ZC_NASWOT,    "naswot",    ZC_BATCH,                  "log det of the kernel of ReLU codes")           \
    X(ZC_JACOB_COV, "jacob_cov", 3 * ZC_BATCH,              "how little the input gradients of images correlate") \
    X(ZC_ZICO,      "zico",      3 * ZC_BATCH * ZC_BATCHES, "sum over layers of log sum mean|g| / std(g)")   \
    X(ZC_SNIP,      "snip",      3 * ZC_BATCH,              "sum of |w dl/dw|")                              \
    X(ZC_GRAD_NORM, "grad_norm", 3 * ZC_BATCH,              "sum over layers of |dl/dw|")
#define ZERO_COST_ENUM(e, name, passes, about) e,
enum zero_cost { ZERO_COST_LIST(ZERO_COST_ENUM) ZC_COUNT };
#undef ZERO_COST_ENUM
#define ZC_ALL ((1u << ZC_COUNT) - 1)

struct zero_cost_row { const char *name; int passes; const char *about; }; /* passes of one image */
extern const struct zero_cost_row zero_cost_table[ZC_COUNT];

int zero_cost_from(const char *name); /* -1: there is no such score */

/* The zero-cost scores of one network. A score that is not a finite number there (two images with one code, an
 * overflow, no ReLU at all) is not known: it is no error, and ranks last. All zero: nothing known. */
struct zero_cost_scores {
    uint32_t known;            /* bit i: value[i] is a finite number; the others are 0 */
    double   value[ZC_COUNT];
};
void           zero_cost_set(struct zero_cost_scores *z, int i, double v); /* v not finite: not known */
struct json_t *zero_cost_json(const struct zero_cost_scores *z); /* {name: value …} of the known ones; NULL: no memory */

#endif
