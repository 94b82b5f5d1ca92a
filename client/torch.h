/* torch.h - a network as a Python module that needs PyTorch alone, written to be read and changed by people. */
#ifndef DIDACT_CLIENT_TORCH_H
#define DIDACT_CLIENT_TORCH_H

#include "common/err.h"
#include "common/net.h"

#include <stdio.h>

struct torch_about {
    const char *arch, *origin;  /* for the text at its head */
    const char *weights;        /* name of the safetensors file beside it, as `didact export` writes it; NULL: none, no load() */
};

/* Class Net, evaluation form: running statistics in batch norms (module.eval()), weight norm folded into the weights by load(). Same
 * numbers as the engine to float rounding. -ERR_INTERNAL names a layer that has no such form, -ERR_NOMEM. */
int torch_write(const struct net *n, const struct torch_about *about, FILE *f, struct errbuf *e);

#endif
