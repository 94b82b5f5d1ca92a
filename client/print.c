#include "client/print.h"

#include "common/err.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* ---- tables ---- */

void table_init(struct table *t, int n_cols, const struct table_col *cols)
{
    *t = (struct table){ .n_cols = n_cols < TABLE_MAX_COLS ? n_cols : TABLE_MAX_COLS };
    memcpy(t->col, cols, (size_t)t->n_cols * sizeof *cols);
}

void table_fini(struct table *t)
{
    for (int i = 0; i < t->n_cells; i++)
        free(t->cell[i]);
    free(t->cell);
    *t = (struct table){ 0 };
}

void table_cell(struct table *t, const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    if (t->n_cells == t->cap_cells) {
        int more = t->cap_cells ? 2 * t->cap_cells : 64;
        char **bigger = realloc(t->cell, (size_t)more * sizeof *bigger);
        if (!bigger) { /* a table for people: a missing cell is all that is lost */
            free(s);
            return;
        }
        t->cell = bigger;
        t->cap_cells = more;
    }
    t->cell[t->n_cells++] = s;
}

int print_columns(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

/* The first `columns` code points of s; with a final "…" where something is cut off. Then blanks up to `pad`. */
static void put_cell(FILE *f, const char *s, int columns, bool right, bool last)
{
    int have = print_columns(s), blanks = have < columns ? columns - have : 0;
    if (right)
        fprintf(f, "%*s", blanks, "");
    if (have <= columns) {
        fputs(s, f);
    } else {
        int keep = columns - 1;
        const char *p = s;
        for (; *p && (keep > 0 || ((unsigned char)*p & 0xC0) == 0x80); p++)
            keep -= (((unsigned char)p[1]) & 0xC0) != 0x80;
        fprintf(f, "%.*s…", (int)(p - s), s);
    }
    if (!right && !last)
        fprintf(f, "%*s", blanks, "");
}

static const char *cell_text(const struct table *t, int row, int col)
{
    int i = row * t->n_cols + col;
    const char *s = i < t->n_cells ? t->cell[i] : NULL;
    return s && *s ? s : "-";
}

void table_print(struct table *t, FILE *f, int width)
{
    enum { GAP = 2, LEAST = 12 };
    int wide[TABLE_MAX_COLS], total = GAP * (t->n_cols - 1), rows = t->n_cols ? (t->n_cells + t->n_cols - 1) / t->n_cols : 0;
    for (int c = 0; c < t->n_cols; c++) {
        wide[c] = print_columns(t->col[c].title);
        for (int r = 0; r < rows; r++) {
            int n = print_columns(cell_text(t, r, c));
            wide[c] = n > wide[c] ? n : wide[c];
        }
        total += wide[c];
    }
    for (int c = 0; c < t->n_cols && width > 0 && total > width; c++)
        if (t->col[c].flex && wide[c] > LEAST) {
            int cut = total - width < wide[c] - LEAST ? total - width : wide[c] - LEAST;
            wide[c] -= cut;
            total -= cut;
        }
    for (int r = -1; r < rows; r++) {
        for (int c = 0; c < t->n_cols; c++) {
            if (c)
                fprintf(f, "%*s", GAP, "");
            put_cell(f, r < 0 ? t->col[c].title : cell_text(t, r, c), wide[c], t->col[c].right, c == t->n_cols - 1);
        }
        fputc('\n', f);
    }
}

int print_width(FILE *f)
{
    struct winsize w;
    int fd = fileno(f);
    if (fd < 0 || !isatty(fd))
        return 0;
    if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col >= 20)
        return w.ws_col;
    return 80;
}

/* ---- JSON ---- */

/* The shortest text that reads back as the same number; from a ten-thousandth up to 15 digits without an exponent. */
static void put_real(FILE *f, const json_t *v)
{
    const double x = json_real_value(v);
    char text[40];
    int  digits = 1;
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, x);
    while (strtod(text, NULL) != x && digits++ < 17);
    const int exponent = atoi(strchr(text, 'e') + 1), decimals = digits - 1 - exponent;
    if (exponent >= -4 && exponent < 15)
        fprintf(f, "%.*f", decimals > 0 ? decimals : 0, x);
    else
        json_dumpf(v, f, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits < 17 ? digits : 17));
}

static void put_short(FILE *f, const json_t *v)
{
    size_t i, n = 0;
    const char *key;
    json_t *item;
    if (json_is_array(v)) {
        fputc('[', f);
        json_array_foreach(v, i, item) {
            if (i)
                fputs(", ", f);
            put_short(f, item);
        }
        fputc(']', f);
    } else if (json_is_object(v)) {
        fputc('{', f);
        json_object_foreach((json_t *)v, key, item) {
            json_t *name = json_string(key);
            if (n++)
                fputs(", ", f);
            json_dumpf(name, f, JSON_ENCODE_ANY);
            fputs(": ", f);
            put_short(f, item);
            json_decref(name);
        }
        fputc('}', f);
    } else if (json_is_real(v)) {
        put_real(f, v);
    } else {
        json_dumpf(v, f, JSON_ENCODE_ANY);
    }
}

char *json_short(const json_t *v)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return NULL;
    put_short(f, v);
    fclose(f);
    return text;
}

void print_json(FILE *f, const json_t *doc)
{
    json_dumpf(doc, f, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    fputc('\n', f);
}

void print_json_error(FILE *f, int rc, const char *text)
{
    json_t *doc = json_pack("{s:{s:s,s:s}}", "error", "code", err_name(rc), "text", text);
    if (doc)
        print_json(f, doc);
    json_decref(doc);
}

void print_tree(FILE *f, const json_t *obj, const char *prefix)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)obj, key, v) {
        char name[256];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(v)) {
            print_tree(f, v, name);
        } else if (json_is_string(v)) {
            fprintf(f, "  %-26s %s\n", name, json_string_value(v));
        } else {
            char *s = json_short(v);
            fprintf(f, "  %-26s %s\n", name, s ? s : "-");
            free(s);
        }
    }
}

json_t *doc_get(const json_t *doc, const char *path)
{
    while (doc && *path) {
        char key[64];
        size_t n = strcspn(path, ".");
        if (n >= sizeof key)
            return NULL;
        memcpy(key, path, n);
        key[n] = 0;
        doc = json_object_get(doc, key);
        path += n + (path[n] == '.');
    }
    return (json_t *)doc;
}

double doc_num(const json_t *doc, const char *path)
{
    const json_t *v = doc_get(doc, path);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *doc_str(const json_t *doc, const char *path)
{
    const char *s = json_string_value(doc_get(doc, path));
    return s ? s : "";
}

bool doc_true(const json_t *doc, const char *path)
{
    return json_is_true(doc_get(doc, path));
}

/* ---- short numbers ---- */

const char *fmt_count(short_str buf, double v)
{
    static const char units[] = " kMGT";
    int u = 0;
    if (!isfinite(v)) {
        snprintf(buf, sizeof(short_str), "-");
        return buf;
    }
    for (; fabs(v) >= 999.5 && units[u + 1]; u++)
        v /= 1000;
    if (u == 0)
        snprintf(buf, sizeof(short_str), "%.0f", v);
    else
        snprintf(buf, sizeof(short_str), "%.*f%c", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, units[u]);
    return buf;
}

const char *fmt_bytes(short_str buf, double v)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
    int u = 0;
    if (!isfinite(v)) {
        snprintf(buf, sizeof(short_str), "-");
        return buf;
    }
    for (; v >= 999.5 && u < 4; u++)
        v /= 1000;
    snprintf(buf, sizeof(short_str), "%.*f %s", u && v < 99.95 ? 1 : 0, v, units[u]);
    return buf;
}

const char *fmt_seconds(short_str buf, double v)
{
    if (!isfinite(v) || v < 0)
        snprintf(buf, sizeof(short_str), "-");
    else if (v < 9.995)
        snprintf(buf, sizeof(short_str), "%.2f s", v);
    else if (v < 119.5)
        snprintf(buf, sizeof(short_str), "%.0f s", v);
    else if (v < 3600) {
        long long s = llround(v);
        snprintf(buf, sizeof(short_str), "%lld min %02lld s", s / 60, s % 60);
    } else {
        long long m = v < 1e15 ? llround(v / 60) : 0;
        snprintf(buf, sizeof(short_str), "%lld h %02lld min", m / 60, m % 60);
    }
    return buf;
}

const char *fmt_time(short_str buf, double unix_ms)
{
    struct tm tm;
    time_t t = isfinite(unix_ms) && unix_ms > 0 && unix_ms < 1e15 ? (time_t)(unix_ms / 1000) : 0;
    if (t == 0 || !localtime_r(&t, &tm) || strftime(buf, sizeof(short_str), "%Y-%m-%d %H:%M:%S", &tm) == 0)
        snprintf(buf, sizeof(short_str), "-");
    return buf;
}

const char *fmt_score(short_str buf, double v, double se)
{
    if (!isfinite(v))
        snprintf(buf, sizeof(short_str), "-");
    else if (isfinite(se) && se > 0)
        snprintf(buf, sizeof(short_str), "%.4f ± %.4f", v, se);
    else
        snprintf(buf, sizeof(short_str), "%.4f", v);
    return buf;
}
