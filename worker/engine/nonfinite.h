/* nonfinite.h - which op made the first number that is not finite.
 *
 * A step is watched by its loss and its weights alone: NaN travels through every op, so looking at each buffer would only
 * cost time. Once something was found, the step is walked again under a hunt, which looks at what every op wrote as it
 * ends, block by block (later on, its place in the arena may be another's). Walks are repeatable to the bit, so the second one breaks where
 * the first one did. An infinity that an op takes to a finite value (tanh, a ReLU on its flat side) is none of our business:
 * the value is right. */
#ifndef DIDACT_ENGINE_NONFINITE_H
#define DIDACT_ENGINE_NONFINITE_H

#include "worker/engine/plan.h"

struct nonfinite {
    struct eng_plan *plan;      /* attached to; borrowed */
    char             what[192]; /* "output of layer 2.body.1 (dwconv)"; "": nothing found yet */
    bool             backward;  /* found on the way from the loss to the parameters */
    int              rule, order; /* of the op that it was found at: its rule (-1: at none) and its place on that way */
    plan_probe       probe;     /* the plan's own, put back at the end */
    void            *probe_arg;
};

/* From here until nonfinite_end every walk of `p` is looked at. One plan at a time. */
void nonfinite_begin(struct nonfinite *h, struct eng_plan *p);
void nonfinite_end(struct nonfinite *h);
/* n numbers that no op wrote; the words are taken if nothing was found before. x may be NULL: nothing to see. */
void nonfinite_look(struct nonfinite *h, uint64_t n, const void *x, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* A flat vector of all parameters: "WORDS LAYER.weight". */
void nonfinite_look_params(struct nonfinite *h, const void *flat, const char *words);
/* One gradient step of the attached plan: weights, images, labels, then op by op. g [P] overwritten. */
void nonfinite_step(struct nonfinite *h, const void *w, const void *x, const void *y, void *g);

#endif
