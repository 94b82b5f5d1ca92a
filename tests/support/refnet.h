/* refnet.h - what a network's forward pass means, in plain loops over [N,C,H,W] and weights [out,in/groups,k,k], in double:
 * the definition that docs/networks.md gives, with nothing of the engine in it. */
#ifndef DIDACT_TESTS_REFNET_H
#define DIDACT_TESTS_REFNET_H

#include "common/net.h"

/* w [P], x [batch,C,H,W], y [batch, output]: all in the outside's order. */
void refnet_forward(const struct net *n, int batch, const double *w, const double *x, double *y);

#endif
