/* suggest.h - "did you mean": the nearest known word by edit distance. Thread: pure. */
#ifndef DIDACT_SUGGEST_H
#define DIDACT_SUGGEST_H

#include <stddef.h>

/* The known word nearest to `word`, or NULL where none is near enough to be a slip (about a third of its letters). */
const char *suggest(const char *word, const char *const *known, int n);
/* " (did you mean 'stride'?)" or "" into buf; returns buf. */
const char *suggest_text(char *buf, size_t cap, const char *word, const char *const *known, int n);

#endif
