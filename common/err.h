/* err.h - one table of what can go wrong: code, text, whether trying again can help, exit status.
 * The scheduler, the wire and the command line all read the same row.
 * Functions return 0 or -ERR_X; the detail goes to an optional struct errbuf, set where it fails.
 * Thread: no state; safe anywhere. */
#ifndef DIDACT_ERR_H
#define DIDACT_ERR_H

#include <stdbool.h>
#include <stddef.h>

#define ERR_TABLE(X) /* code, text, can a retry help, exit status */                  \
    X(ERR_FAILED,      "the operation did not succeed",                 false, 1)     \
    X(ERR_USAGE,       "the command line is wrong",                     false, 64)    \
    X(ERR_INPUT,       "the input is not valid",                        false, 65)    \
    X(ERR_SHAPE,       "tensor shapes do not agree",                    false, 65)    \
    X(ERR_NOTFOUND,    "there is no such thing",                        false, 66)    \
    X(ERR_UNREACHABLE, "the other side cannot be reached",              true,  69)    \
    X(ERR_UNAVAILABLE, "not available on this machine",                 false, 69)    \
    X(ERR_INTERNAL,    "a bug in Didact",                               false, 70)    \
    X(ERR_IO,          "input or output failed",                        true,  74)    \
    X(ERR_NOMEM,       "out of memory",                                 true,  75)    \
    X(ERR_BUSY,        "not now, try again",                            true,  75)    \
    X(ERR_TIMEOUT,     "took too long",                                 true,  75)    \
    X(ERR_DENIED,      "not allowed",                                   false, 77)    \
    X(ERR_VERSION,     "made by a newer or incompatible version",       false, 65)    \
    X(ERR_CORRUPT,     "the content does not match its hash or format", false, 65)    \
    X(ERR_DIVERGED,    "training diverged",                             false, 1)     \
    X(ERR_CANCELLED,   "cancelled",                                     false, 1)     \
    X(ERR_STALE,       "the lease is no longer ours",                   false, 1)     \
    X(ERR_STATE,       "not possible in this state",                    false, 1)

#define ERR_ENUM(code, text, retry, status) code,
enum err { ERR_OK, ERR_TABLE(ERR_ENUM) ERR_COUNT };
#undef ERR_ENUM

/* What failed, in words, for people. `code` is the positive enum err. */
struct errbuf {
    int  code;
    char text[504];
};

/* Fill `e` (unless NULL) and return -code, so that call sites read `return err_set(...)`. */
int err_set(struct errbuf *e, enum err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " before what `e` already says; returns -e->code (or `rc` where e is NULL). */
int err_wrap(struct errbuf *e, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* `rc` may be 0, positive or negative in all three. */
const char *err_name(int rc);        /* "ERR_IO"; "ERR_OK" for 0, "ERR_?" outside the table */
const char *err_text(int rc);
int         err_exit_status(int rc);
bool        err_can_retry(int rc);

/* The text of `e`, or of the table row where e says nothing. Never NULL. */
const char *err_message(const struct errbuf *e, int rc);

#endif
