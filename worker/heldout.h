/* heldout.h - learners that no teacher meets while it is trained: how well a curriculum transfers is measured on them.
 * Nothing in this table can be drawn from the spaces `chain` and `nasbench201`. Results name the rows: change none, add. */
#ifndef DIDACT_WORKER_HELDOUT_H
#define DIDACT_WORKER_HELDOUT_H

#include "common/net.h"

int         heldout_count(void);
const char *heldout_name(int i);
int         heldout_build(int i, int c, int h, int w, int n_classes, struct net *out, struct errbuf *e);

#endif
