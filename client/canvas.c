#include "client/canvas.h"

#include "client/font.h"
#include "common/fsio.h"

#include <math.h>
#include <png.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mark_kind { MARK_LINE, MARK_BOX, MARK_DISC, MARK_TEXT, MARK_IMAGE };

struct raster { int w, h; uint8_t *px; /* [h, w, 3] */ };

struct mark {
    enum mark_kind kind;
    double   x, y, x1, y1, w; /* line: ends, width; box, image: corner and size; disc: w is the radius; text: w is the size */
    enum anchor anchor;
    uint32_t rgb;
    union {
        char          text[160];
        struct raster image; /* its px owned */
    };
};

struct canvas {
    int  width, height, n, cap;
    bool nomem;
    struct mark *v; /* owned */
};

struct canvas *canvas_new(int width, int height)
{
    struct canvas *c = calloc(1, sizeof *c);
    if (c) {
        c->width = width;
        c->height = height;
    }
    return c;
}

void canvas_free(struct canvas *c)
{
    for (int i = 0; c && i < c->n; i++)
        if (c->v[i].kind == MARK_IMAGE)
            free(c->v[i].image.px);
    if (c)
        free(c->v);
    free(c);
}

static struct mark *add(struct canvas *c, struct mark m)
{
    if (c->n == c->cap) {
        int cap = c->cap ? 2 * c->cap : 128;
        struct mark *bigger = realloc(c->v, (size_t)cap * sizeof *bigger);
        if (!bigger) {
            c->nomem = true;
            return NULL;
        }
        c->v = bigger;
        c->cap = cap;
    }
    c->v[c->n] = m;
    return &c->v[c->n++];
}

void canvas_line(struct canvas *c, double x0, double y0, double x1, double y1, double width, uint32_t rgb)
{
    add(c, (struct mark){ .kind = MARK_LINE, .x = x0, .y = y0, .x1 = x1, .y1 = y1, .w = width, .rgb = rgb });
}

void canvas_box(struct canvas *c, double x, double y, double w, double h, uint32_t rgb)
{
    add(c, (struct mark){ .kind = MARK_BOX, .x = x, .y = y, .x1 = w, .y1 = h, .rgb = rgb });
}

void canvas_disc(struct canvas *c, double x, double y, double r, uint32_t rgb)
{
    add(c, (struct mark){ .kind = MARK_DISC, .x = x, .y = y, .w = r, .rgb = rgb });
}

void canvas_text(struct canvas *c, double x, double y, enum anchor a, int size, uint32_t rgb, const char *fmt, ...)
{
    va_list ap;
    struct mark *m = add(c, (struct mark){ .kind = MARK_TEXT, .x = x, .y = y, .w = size, .anchor = a, .rgb = rgb });
    if (!m)
        return;
    va_start(ap, fmt);
    vsnprintf(m->text, sizeof m->text, fmt, ap);
    va_end(ap);
    for (char *p = m->text; *p; p++) /* what the font has not, and XML may not have */
        if (*p < ' ' || *p > '~')
            *p = '?';
}

void canvas_image(struct canvas *c, double x, double y, double w, double h, const uint8_t *rgb, int pw, int ph)
{
    const size_t bytes = (size_t)pw * (size_t)ph * 3;
    uint8_t *copy = malloc(bytes);
    if (copy)
        memcpy(copy, rgb, bytes);
    if (!copy || !add(c, (struct mark){ .kind = MARK_IMAGE, .x = x, .y = y, .x1 = w, .y1 = h, .image = { pw, ph, copy } })) {
        c->nomem = true;
        free(copy);
    }
}

static int png_out(FILE *f, const struct raster *r)
{
    png_image image = { .version = PNG_IMAGE_VERSION, .width = (png_uint_32)r->w, .height = (png_uint_32)r->h, .format = PNG_FORMAT_RGB };
    int ok = png_image_write_to_stdio(&image, f, 0, r->px, 0, NULL);
    png_image_free(&image);
    return ok ? 0 : -1;
}

/* ---- SVG ---- */
static void put_escaped(FILE *f, const char *s)
{
    for (; *s; s++)
        *s == '<' ? fputs("&lt;", f) : *s == '&' ? fputs("&amp;", f) : *s == '>' ? fputs("&gt;", f) : fputc(*s, f);
}

/* The image as a PNG within the text: an SVG has no other way to hold pixels. */
static int svg_image(FILE *f, const struct mark *m)
{
    char  *png = NULL, *text = NULL;
    size_t len = 0, room = 0;
    FILE  *mem = open_memstream(&png, &len);
    bool   ok = mem && png_out(mem, &m->image) == 0;
    ok = mem && fclose(mem) == 0 && ok;
    if (ok)
        room = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
    ok = ok && (text = malloc(room));
    if (ok)
        fprintf(f, "<image x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\""
                   " href=\"data:image/png;base64,%s\"/>\n", m->x, m->y, m->x1, m->y1,
                sodium_bin2base64(text, room, (const unsigned char *)png, len, sodium_base64_VARIANT_ORIGINAL));
    free(text);
    free(png);
    return ok ? 0 : -1;
}

static int svg_mark(FILE *f, const struct mark *m)
{
    static const char *const anchors[] = { "start", "middle", "end" };
    switch (m->kind) {
    case MARK_LINE:
        fprintf(f, "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke-width=\"%.2f\" stroke=\"#%06x\"/>\n", m->x, m->y, m->x1, m->y1,
                m->w, m->rgb);
        break;
    case MARK_BOX:
        fprintf(f, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"#%06x\"/>\n", m->x, m->y, m->x1, m->y1, m->rgb);
        break;
    case MARK_DISC:
        fprintf(f, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%.2f\" fill=\"#%06x\"/>\n", m->x, m->y, m->w, m->rgb);
        break;
    case MARK_TEXT:
        fprintf(f, "<text x=\"%.2f\" y=\"%.2f\" font-size=\"%.0f\" text-anchor=\"%s\" fill=\"#%06x\">", m->x, m->y, m->w, anchors[m->anchor],
                m->rgb);
        put_escaped(f, m->text);
        fputs("</text>\n", f);
        break;
    case MARK_IMAGE:
        return svg_image(f, m);
    }
    return 0;
}

static int write_svg(const struct canvas *c, FILE *f)
{
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", c->width, c->height, c->width, c->height);
    int rc = 0;
    for (int i = 0; i < c->n && rc == 0; i++)
        rc = svg_mark(f, &c->v[i]);
    fputs("</svg>\n", f);
    return ferror(f) ? -1 : rc;
}

/* ---- PNG ---- */
#define SCALE CANVAS_SCALE

static void blend(struct raster *r, int x, int y, double cover, uint32_t rgb)
{
    if (x < 0 || y < 0 || x >= r->w || y >= r->h || cover <= 0)
        return;
    uint8_t *p = r->px + ((size_t)y * (size_t)r->w + (size_t)x) * 3;
    cover = cover > 1 ? 1 : cover;
    for (int k = 0; k < 3; k++) {
        double to = rgb >> (16 - 8 * k) & 0xff;
        p[k] = (uint8_t)lrint(p[k] + cover * (to - p[k]));
    }
}

/* Distance of a pixel's middle from a mark's outline, negative inside: half a pixel around it is the soft edge. */
static double outside(const struct mark *m, double x, double y)
{
    if (m->kind == MARK_DISC)
        return hypot(x - m->x, y - m->y) - m->w;
    if (m->kind == MARK_BOX)
        return fmax(fmax(m->x - x, x - m->x - m->x1), fmax(m->y - y, y - m->y - m->y1));
    double dx = m->x1 - m->x, dy = m->y1 - m->y, len = dx * dx + dy * dy;
    double t = len > 0 ? ((x - m->x) * dx + (y - m->y) * dy) / len : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return hypot(x - m->x - t * dx, y - m->y - t * dy) - m->w / 2;
}

static void paint(struct raster *r, const struct mark *m)
{
    bool box = m->kind == MARK_BOX, line = m->kind == MARK_LINE;
    double pad = box ? 0 : m->w;
    double left = line ? fmin(m->x, m->x1) : m->x, right = line ? fmax(m->x, m->x1) : box ? m->x + m->x1 : m->x;
    double top = line ? fmin(m->y, m->y1) : m->y, bottom = line ? fmax(m->y, m->y1) : box ? m->y + m->y1 : m->y;
    for (int y = (int)floor((top - pad) * SCALE) - 1; y <= (int)ceil((bottom + pad) * SCALE) + 1; y++)
        for (int x = (int)floor((left - pad) * SCALE) - 1; x <= (int)ceil((right + pad) * SCALE) + 1; x++)
            blend(r, x, y, 0.5 - SCALE * outside(m, (x + 0.5) / SCALE, (y + 0.5) / SCALE), m->rgb);
}

static void paint_text(struct raster *r, const struct mark *m)
{
    int dot = (int)lrint(m->w * SCALE / 10.0), n = (int)strlen(m->text); /* seven dots are 0.7 of the size */
    dot = dot > 0 ? dot : 1;
    int wide = n * (FONT_W + 1) * dot - dot;
    int left = (int)lrint(m->x * SCALE) - (m->anchor == ANCHOR_MIDDLE ? wide / 2 : m->anchor == ANCHOR_END ? wide : 0);
    int top = (int)lrint(m->y * SCALE) - FONT_H * dot;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < FONT_W * dot; k++)
            for (int y = 0; y < 8 * dot; y++) /* the eighth row holds tails */
                if (font_5x7[m->text[i] - ' '][k / dot] >> (y / dot) & 1)
                    blend(r, left + i * (FONT_W + 1) * dot + k, top + y, 1, m->rgb);
}

static void paint_image(struct raster *r, const struct mark *m)
{
    const int left = (int)lrint(m->x * SCALE), top = (int)lrint(m->y * SCALE);
    const int wide = (int)lrint(m->x1 * SCALE), tall = (int)lrint(m->y1 * SCALE);
    for (int y = 0; y < tall; y++)
        for (int x = 0; x < wide; x++) {
            const int64_t sx = (int64_t)x * m->image.w / wide, sy = (int64_t)y * m->image.h / tall;
            const uint8_t *p = m->image.px + (sy * m->image.w + sx) * 3;
            blend(r, left + x, top + y, 1, (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]);
        }
}

static void paint_mark(struct raster *r, const struct mark *m)
{
    static void (*const painters[])(struct raster *, const struct mark *) = {
        [MARK_LINE] = paint, [MARK_BOX] = paint, [MARK_DISC] = paint, [MARK_TEXT] = paint_text, [MARK_IMAGE] = paint_image };
    painters[m->kind](r, m);
}

static int write_png(const struct canvas *c, FILE *f)
{
    struct raster r = { c->width * SCALE, c->height * SCALE, NULL };
    size_t bytes = (size_t)r.w * (size_t)r.h * 3;
    if (!(r.px = malloc(bytes)))
        return -1;
    memset(r.px, 0xff, bytes);
    for (int i = 0; i < c->n; i++)
        paint_mark(&r, &c->v[i]);
    int rc = png_out(f, &r);
    free(r.px);
    return rc;
}

typedef int (*format_fn)(const struct canvas *c, FILE *f);

/* By the ending of `path`; NULL: neither. */
static format_fn format_of(const char *path)
{
    static const struct { const char *end; format_fn fn; } formats[] = { { ".svg", write_svg }, { ".png", write_png } };
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (n > 4 && strcmp(path + n - 4, formats[i].end) == 0)
            return formats[i].fn;
    return NULL;
}

int canvas_check(const char *path, struct errbuf *e)
{
    return format_of(path) ? 0 : err_set(e, ERR_USAGE, "%s: a drawing is written as .svg or .png", path);
}

int canvas_write(const struct canvas *c, const char *path, struct errbuf *e)
{
    char *bytes = NULL;
    size_t len = 0;
    int rc = canvas_check(path, e);
    if (rc < 0)
        return rc;
    if (c->nomem)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    FILE *f = open_memstream(&bytes, &len); /* in memory first: a file is complete or it is not there */
    bool ok = f && format_of(path)(c, f) == 0;
    ok = f && fclose(f) == 0 && ok;
    rc = ok ? fs_write_atomic(path, bytes, len, e) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    free(bytes);
    return rc;
}
