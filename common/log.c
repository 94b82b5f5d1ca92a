#include "common/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096 /* PIPE_BUF: a line this long still reaches a pipe in one piece */

static const char *const level_names[LOG_LEVEL_COUNT] = { "debug", "info", "warn", "error" };
static char       program_name[64] = "didact";
static atomic_int least_level = LOG_INFO;

void log_init(const char *program, enum log_level least)
{
    snprintf(program_name, sizeof program_name, "%s", program);
    atomic_store(&least_level, (int)least);
}

int log_level_from(const char *s)
{
    for (int i = 0; i < LOG_LEVEL_COUNT; i++)
        if (strcmp(s, level_names[i]) == 0)
            return i;
    return -1;
}

static size_t put_time(char *out, size_t cap)
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(out, cap, "time=%Y-%m-%dT%H:%M:%S", &tm);
    return n + (size_t)snprintf(out + n, cap - n, ".%03ldZ ", now.tv_nsec / 1000000);
}

void log_event(enum log_level level, const char *ev, const char *fmt, ...)
{
    if ((int)level < atomic_load(&least_level))
        return;
    char line[LINE_MAX_BYTES];
    size_t cap = sizeof line - 1; /* the newline always fits */
    size_t n = put_time(line, cap);
    n += (size_t)snprintf(line + n, cap - n, "prog=%s level=%s ev=%.100s ", program_name, level_names[level], ev);
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(line + n, cap - n, fmt, ap);
    va_end(ap);
    if (k > 0 && (size_t)k >= cap - n) { /* cut, and say so */
        n = cap - 1;
        memcpy(line + n - 3, "...", 3);
    } else {
        n += k > 0 ? (size_t)k : 0;
    }
    for (size_t i = 0; i < n; i++) /* text from a peer must not be able to begin a line of its own or steer a terminal */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    while (n && line[n - 1] == ' ')
        n--;
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, n); /* nobody to tell */
    (void)ignored;
}
