#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct row {
    const char *name, *text;
    bool        retry;
    int         status;
};

#define ERR_ROW(code, text, retry, status) [code] = { #code, text, retry, status },
static const struct row rows[ERR_COUNT] = { [ERR_OK] = { "ERR_OK", "ok", false, 0 }, ERR_TABLE(ERR_ROW) };

static const struct row *row_of(int rc)
{
    static const struct row unknown = { "ERR_?", "unknown error", false, 70 };
    int code = rc < 0 ? -rc : rc;
    return code < ERR_COUNT ? &rows[code] : &unknown;
}

int err_set(struct errbuf *e, enum err code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        e->code = (int)code;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
    }
    return -(int)code;
}

int err_wrap(struct errbuf *e, int rc, const char *fmt, ...)
{
    if (!e)
        return rc;
    char context[sizeof e->text], old[sizeof e->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    memcpy(old, e->text, sizeof old);
    const int cap = sizeof e->text, n = snprintf(e->text, sizeof e->text, "%.*s: ", cap - 3, context);
    snprintf(e->text + n, (size_t)(cap - n), "%.*s", cap - n - 1, old);
    return -e->code;
}

const char *err_name(int rc)        { return row_of(rc)->name; }
const char *err_text(int rc)        { return row_of(rc)->text; }
int         err_exit_status(int rc) { return row_of(rc)->status; }
bool        err_can_retry(int rc)   { return row_of(rc)->retry; }

const char *err_message(const struct errbuf *e, int rc)
{
    return e && e->code && e->text[0] ? e->text : err_text(rc);
}
