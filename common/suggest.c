#include "common/suggest.h"

#include <stdio.h>
#include <string.h>

#define WORD_MAX 63

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Levenshtein distance with transposed neighbours counted once (optimal string alignment); words beyond WORD_MAX are far. */
static int distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > WORD_MAX || nb > WORD_MAX)
        return WORD_MAX;
    int row[3][WORD_MAX + 1]; /* two earlier rows and this one */
    for (size_t j = 0; j <= nb; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
    }
    return row[na % 3][nb];
}

const char *suggest(const char *word, const char *const *known, int n)
{
    const char *best = NULL;
    int         least = (int)(strlen(word) + 2) / 3 + 1; /* farther than this is another word, not a slip */
    for (int i = 0; i < n; i++) {
        int d = distance(word, known[i]);
        if (d < least) {
            least = d;
            best = known[i];
        }
    }
    return best;
}

const char *suggest_text(char *buf, size_t cap, const char *word, const char *const *known, int n)
{
    const char *near = suggest(word, known, n);
    if (near)
        snprintf(buf, cap, " (did you mean '%s'?)", near);
    else
        snprintf(buf, cap, "%s", "");
    return buf;
}
