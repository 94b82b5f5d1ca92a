/* blocks.h - a network as a person can read it in a terminal: its blocks from the image to the classes, and its cells.
 * Thread: any; writes only to the file it is given. */
#ifndef DIDACT_CLIENT_BLOCKS_H
#define DIDACT_CLIENT_BLOCKS_H

#include "common/space.h"

#include <jansson.h>
#include <stdio.h>

/* Layers of one block are those whose paths begin alike ("cell1." …). [{block, shape:[c,h,w], layers, params, macs}…] */
json_t *blocks_json(const struct net *n);
/* [{cell, to, from, op}…]; empty for a space whose architectures have no cells. */
json_t *blocks_edges(const struct space *s, const char *text);
void blocks_print(FILE *f, const json_t *blocks, const json_t *edges);

#endif
