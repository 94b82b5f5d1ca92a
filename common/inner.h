/* inner.h - which inner optimiser trains a learner, and its constants. Data only: the update and its
 * adjoint are rows of the table in worker/engine/optim.c. Step t uses lr_t and mu_t of the curriculum.
 * JSON / YAML form: {"type": "lars", "eps": 1e-6, "scale_1d": 0.3, "beta2": 0.999, "weight_decay": 0, "clip": 0,
 * "label_smoothing": 0}; what is left out has its default. */
#ifndef DIDACT_INNER_H
#define DIDACT_INNER_H

#include "common/err.h"

enum inner_type { /* numbers are forever: recorded jobs hold them */
    INNER_SGD,      /* v' = mu v + g;  w' = w - lr v' */
    INNER_LARS,     /* g~ = g |w| / (|g| + eps) for tensors of two or more dimensions, scale_1d * g for the others;
                       then as SGD. You, Gitman, Ginsburg 2017, without the weight-decay term in the ratio. */
    INNER_NESTEROV, /* v' = mu v + g;  w' = w - lr (g + mu v') */
    INNER_RMSPROP,  /* r' = beta2 r + (1 - beta2) g^2;  v' = mu v + g / (sqrt(r' + eps) + eps);  w' = w - lr v' */
    INNER_ADAM,     /* Kingma, Ba 2015 with beta1 = mu_t and eps inside the root too */
    INNER_TYPE_COUNT
};

struct inner_cfg {
    enum inner_type type;
    double eps;             /* > 0; default 1e-6 (lars), 1e-5 (rmsprop, adam) */
    double scale_1d;        /* lars, default 0.3 */
    double beta2;           /* in [0, 1); default 0.99 (rmsprop), 0.999 (adam) */
    double weight_decay;    /* g + weight_decay * w enters the update; default 0 */
    double clip;            /* the gradient is cut to this norm before that; 0: off (default) */
    double label_smoothing; /* y <- (1 - s) y + s / K in inner steps, s in [0, 1); default 0 */
};

struct inner_cfg inner_default(void);          /* SGD */
struct inner_cfg inner_defaults(enum inner_type t); /* that optimiser with its own constants */
const char *inner_name(enum inner_type t);     /* "sgd", "lars", "nesterov", "rmsprop", "adam" */
/* From {"type": …}; NULL json gives the default. Unknown keys are -ERR_INPUT, `where` opens the message. */
struct json_t;
int inner_from_json(struct inner_cfg *c, const struct json_t *j, const char *where, struct errbuf *e);
struct json_t *inner_to_json(const struct inner_cfg *c); /* caller owns the reference */

#endif
