/* best.h - Pareto fronts, one trial after the other: what is kept is the front, never all that was seen.
 * Thread: one; a front is plain memory. */
#ifndef DIDACT_CLIENT_BEST_H
#define DIDACT_CLIENT_BEST_H

#include "common/err.h"

#include <jansson.h>
#include <stddef.h>

#define MAX_PARETO_AXES 8

struct pareto_axis {
    const char *word, *title; /* what a user writes; heading of its column */
    bool        more;         /* more is better; otherwise less */
    const char *key;          /* of a TRIAL document */
};

struct front {
    int     n_objectives;
    const struct pareto_axis *objective[MAX_PARETO_AXES];
    size_t  n, cap;
    struct front_row { double v[MAX_PARETO_AXES]; json_t *trial; } *row; /* owned; v: less is better */
};

/* "score,params,macs". -ERR_USAGE names a word that is none, or stands twice. */
int  front_init(struct front *f, const char *list, struct errbuf *e);
/* Take a scored trial in, unless one that is there is at least as good in everything and better in something (those that the new
 * one beats so leave), or it is the same architecture with the same values. Borrows `trial`. One that lacks a value is passed over. */
int  front_add(struct front *f, const json_t *trial, struct errbuf *e);
void front_sort(struct front *f); /* best of the first objective first */
void front_fini(struct front *f);

#endif
