/* plan_print.h - a compiled meta-step, for people and for programs. */
#ifndef DIDACT_WORKER_PLAN_PRINT_H
#define DIDACT_WORKER_PLAN_PRINT_H

#include "worker/engine/plan.h"

#include <stdio.h>

struct plan_doc {
    const struct unroll_cfg *cfg;
    const struct unroll     *unroll;    /* borrowed, from unroll_plan */
    const struct eng_plan   *generator; /* NULL: the images are given */
    int                      n_meta;    /* real batches on the way back */
};
void plan_print(const struct plan_doc *d, FILE *to);
/* One object; docs/operating.md describes it. Caller owns the reference; NULL: no memory. */
struct json_t *plan_to_json(const struct plan_doc *d);

#endif
