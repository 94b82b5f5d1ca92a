/* audit.h - the document jobs/ID/audit for people: tables (audit.c) and a drawing (audit_plot.c); and its like, made of files. */
#ifndef DIDACT_CLIENT_AUDIT_H
#define DIDACT_CLIENT_AUDIT_H

#include "client/cli.h"

#include <jansson.h>
#include <stdio.h>

#define AUDIT_ROOM 48 /* predictors that a drawing shows */

const json_t *audit_predictor(const json_t *sample, const char *name); /* NULL: the sample has none of that name */
/* audit_table.c: the same document of score books and a table of what their networks are worth (--truth and the flags beside it). */
int  audit_tables(struct cli *c, json_t **out);
void audit_show(const json_t *doc, FILE *f);
/* The largest sample: real accuracy against the column `by`, and every column's correlation as a bar with its interval. */
int audit_plot(const json_t *doc, const char *by, const char *path, struct errbuf *e);

#endif
