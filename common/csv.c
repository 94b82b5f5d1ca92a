#include "common/csv.h"

#include <string.h>

void csv_put(FILE *f, const char *s)
{
    if (!strpbrk(s, ",\"\r\n")) {
        fputs(s, f);
        return;
    }
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', f);
        fputc(*s == '\n' || *s == '\r' ? ' ' : *s, f);
    }
    fputc('"', f);
}

/* Unquotes in place; where the field ends, or NULL. */
static char *unquote(char *s)
{
    char *to = s, *from = s + 1;
    for (; *from; from++) {
        if (*from == '"' && *++from != '"') {
            *to = 0;
            return from;
        }
        *to++ = *from;
    }
    return NULL;
}

int csv_split(char *line, char **field, int cap)
{
    size_t len = strlen(line);
    if (len && line[len - 1] == '\r') /* a line of RFC 4180 ends in CR LF */
        line[len - 1] = 0;
    for (int n = 0;; n++) {
        if (n == cap)
            return cap + 1;
        field[n] = line;
        char *end = *line == '"' ? unquote(line) : line + strcspn(line, ",");
        if (!end || (*end && *end != ','))
            return -1;
        if (!*end)
            return n + 1;
        *end = 0;
        line = end + 1;
    }
}
