/* csv.h - comma-separated values after RFC 4180, a record a line: no field has a line break in it. Thread: no state. */
#ifndef DIDACT_CSV_H
#define DIDACT_CSV_H

#include <stdio.h>

void csv_put(FILE *f, const char *field);          /* quoted where it must be */
/* Takes `line` (without its line break, changed in place) apart into up to `cap` fields; how many there are, -1 where a quote does
 * not close or something follows one. More than cap: cap + 1. */
int  csv_split(char *line, char **field, int cap);

#endif
