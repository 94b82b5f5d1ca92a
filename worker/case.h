/* case.h - one outer step of meta-training read from a JSON file and a safetensors file, computed by the engine
 * and compared with what the file expects. The format is that of the oracle cases; docs/networks.md lists the layers.
 *
 *     case_load -> case_compute -> case_report, case_write -> case_fini
 *
 * The dtype of the w0.* tensors chooses the precision. Everything here is in the outside world's layouts; the
 * engine's own appear only behind case_compute.
 * Thread: a case is used by one thread. Errors of loading name the field or tensor. */
#ifndef DIDACT_CASE_H
#define DIDACT_CASE_H

#include "common/err.h"
#include "common/inner.h"
#include "common/net.h"
#include "common/safetensors.h"
#include "worker/engine/engine.h"

#include <stdio.h>

struct device;

#define CASE_MAX_META 64    /* entries of meta_at */
#define CASE_MAX_SIDE 65536 /* of T, batch, meta_batch, classes, zdim */

struct gcase {
    bool             generator_mode, soft_labels;
    int              c, h, w, K, B, T, meta_batch, zdim;
    int              n_meta_at, meta_step[CASE_MAX_META];
    double           meta_weight[CASE_MAX_META];
    struct inner_cfg inner;
    struct net       learner, generator;  /* owned; the generator only in that mode */
    struct json_t   *doc;                 /* owned: inputs, outputs and checks are read from it */
    struct st_file   file;                /* owned: the tensors */
    enum eng_dtype   dtype;
    struct st_tensor *out;                /* owned [n_out], sorted by name; data owned */
    int              n_out;
    bool             diverged;            /* the outputs are NaN then, and `why` says which step */
    struct errbuf    why;
};

int  case_load(struct gcase *c, const char *json_path, const char *tensor_path, struct errbuf *e);
/* The networks and sizes alone, without tensors: of the keys only image, classes and learner must be there. */
int  case_load_networks(struct gcase *c, const char *json_path, struct errbuf *e);
/* Fills c->out, by the CPU's engine or, float32 alone, on a device (not NULL). A step that diverges is no error: outputs become NaN, which case_report calls a failure. */
int  case_compute(struct gcase *c, int threads, const struct device *device, struct errbuf *e);
/* One line an output, last the worst err/tol. Returns true when every output with a reference is within tolerance. */
bool case_report(const struct gcase *c, FILE *to);
int  case_write(const struct gcase *c, const char *path, struct errbuf *e);
void case_fini(struct gcase *c); /* NULL-safe on half-built cases */

#endif
