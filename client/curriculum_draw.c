#include "client/curriculum_draw.h"

#include "client/plot.h"
#include "client/print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MARGIN = 24,         /* around everything */
    PAGE = 1080,         /* the grid of images may be so wide, margins and all; the page is as wide as the grid, */
    PAGE_LEAST = 820,    /* or so wide, for the panels */
    CELL_MOST = 56,      /* a side of an image */
    GAP = 2,             /* between images */
    CLASS_GAP = 8,       /* between classes of several columns */
    PANEL = 150,         /* height of a panel's frame */
    AXIS = 46,           /* what an axis takes at its left (plot.h) */
    KEY = 36,            /* what the colours' key takes beyond the usual room */
    POINTS_MOST = 1024,  /* of a curve, and a side of the map: of more, evenly chosen ones */
    TITLE = 15, TEXT = 10, LETTER = 6,
};

/* Number i of `most` evenly chosen ones of n, the first and the last among them; all, where there are no more. */
static int even(int i, int n, int most)
{
    return n <= most ? i : (int)((2 * (int64_t)i * (n - 1) + most - 1) / (2 * (most - 1)));
}

static int least(int a, int b) { return a < b ? a : b; }

void curriculum_kind(const struct curriculum *u, kind_str out)
{
    json_error_t je;
    json_t *prov = json_loads(u->provenance, 0, &je);
    snprintf(out, sizeof(kind_str), "%s", doc_str(prov, "config.kind"));
    json_decref(prov);
}

/* ---- images ---- */

struct member { int k, b; }; /* of a batch: class, image */

struct grid {
    const struct curriculum *u; /* borrowed */
    int    rows, cols, per_class; /* per_class 0: more classes than columns */
    int    skip, pw, ph;  /* of an image larger than its place every skip-th pixel is shown, pw x ph in all */
    double x, y, w, h;    /* of an image, in the canvas's pixels; x, y: of the first */
    struct member *order; /* owned [B]: a batch, sorted by class */
    uint8_t *rgb;         /* owned [ph,pw,3] */
};

static int by_class(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    return x->k != y->k ? (x->k > y->k) - (x->k < y->k) : (x->b > y->b) - (x->b < y->b);
}

static void grid_size(struct grid *g)
{
    const struct curriculum *u = g->u;
    char last[24];
    g->rows = least(u->T, CURRICULUM_ROWS);
    g->per_class = u->K <= CURRICULUM_COLS ? least(CURRICULUM_COLS / u->K, (u->B + u->K - 1) / u->K) : 0;
    g->cols = g->per_class ? g->per_class * u->K : least(u->B, CURRICULUM_COLS);
    g->x = MARGIN + LETTER * (double)snprintf(last, sizeof last, "t = %d", u->T - 1) + 10;
    g->y = g->per_class ? 110 : 96;
    const double room = PAGE - MARGIN - g->x - (g->per_class > 1 ? (u->K - 1) * CLASS_GAP : 0);
    const double cell = fmin(CELL_MOST, floor(room / g->cols) - GAP);
    const int most = (int)(cell * CANVAS_SCALE), side = u->h > u->w ? u->h : u->w;
    g->skip = (side + most - 1) / most;
    g->pw = (u->w + g->skip - 1) / g->skip;
    g->ph = (u->h + g->skip - 1) / g->skip;
    const int zoom = most / (g->pw > g->ph ? g->pw : g->ph);
    g->w = (double)g->pw * zoom / CANVAS_SCALE;
    g->h = (double)g->ph * zoom / CANVAS_SCALE;
}

static double column_x(const struct grid *g, int col)
{
    return g->x + col * (g->w + GAP) + (g->per_class > 1 ? col / g->per_class * CLASS_GAP : 0);
}

/* Where each image has its own class below it there is room for it. */
static double row_y(const struct grid *g, int row) { return g->y + row * (g->h + (g->per_class ? GAP : 16)); }

/* Of a step: the image in a column, or -1 where its batch has no more of that class. */
static int image_in(const struct grid *g, int col)
{
    const int B = g->u->B;
    if (!g->per_class)
        return g->order[even(col, B, g->cols)].b;
    const int k = col / g->per_class;
    int first = 0;
    while (first < B && g->order[first].k < k)
        first++;
    const int i = first + col % g->per_class;
    return i < B && g->order[i].k == k ? g->order[i].b : -1;
}

static void draw_image(struct canvas *c, const struct grid *g, int t, int b, double x, double y)
{
    const struct curriculum *u = g->u;
    const size_t plane = (size_t)u->h * (size_t)u->w;
    const uint8_t *px = u->images + ((size_t)t * (size_t)u->B + (size_t)b) * (size_t)u->c * plane;
    uint8_t *out = g->rgb;
    for (int i = 0; i < u->h; i += g->skip)
        for (int j = 0; j < u->w; j += g->skip)
            for (size_t k = 0; k < 3; k++)
                *out++ = px[(u->c >= 3 ? k : 0) * plane + (size_t)i * (size_t)u->w + (size_t)j];
    canvas_image(c, x, y, g->w, g->h, g->rgb, g->pw, g->ph);
}

static void draw_row(struct canvas *c, const struct grid *g, int row)
{
    const struct curriculum *u = g->u;
    const int t = even(row, u->T, g->rows);
    const double y = row_y(g, row);
    for (int b = 0; b < u->B; b++) {
        g->order[b].k = curriculum_class(u, t, b);
        g->order[b].b = b;
    }
    qsort(g->order, (size_t)u->B, sizeof *g->order, by_class);
    canvas_text(c, g->x - 10, y + g->h / 2 + 4, ANCHOR_END, TEXT, PLOT_INK, "t = %d", t);
    for (int col = 0; col < g->cols; col++) {
        const int b = image_in(g, col);
        if (b >= 0)
            draw_image(c, g, t, b, column_x(g, col), y);
        if (!g->per_class)
            canvas_text(c, column_x(g, col) + g->w / 2, y + g->h + 11, ANCHOR_MIDDLE, TEXT, PLOT_INK, "%d", curriculum_class(u, t, b));
    }
}

static void draw_grid(struct canvas *c, const struct grid *g)
{
    const int K = g->u->K, m = g->per_class;
    canvas_text(c, MARGIN, 84, ANCHOR_START, TEXT, PLOT_INK, "(a) images x_t, %s",
                m ? "by the class with the largest label:" : "below each the class with the largest label");
    for (int k = 0; m && k < K; k++)
        canvas_text(c, (column_x(g, k * m) + column_x(g, k * m + m - 1) + g->w) / 2, g->y - 6, ANCHOR_MIDDLE, TEXT, PLOT_INK, "%d", k);
    for (int row = 0; row < g->rows; row++)
        draw_row(c, g, row);
}

/* ---- curves ---- */

static void panel_title(struct canvas *c, const struct plot *p, const char *title)
{
    canvas_text(c, p->x - AXIS, p->y - 28, ANCHOR_START, TEXT, PLOT_INK, "%s", title);
}

/* p: its place and, for y, its least range. */
static void curve(struct canvas *c, struct plot p, const char *title, const char *name, const float *v, int n)
{
    const int shown = least(n, POINTS_MOST);
    for (int t = 0; t < n; t++)
        p.y1 = fmax(p.y1, 1.05 * (double)v[t]);
    p.y1 = p.y1 > p.y0 ? p.y1 : 1;
    p.x0 = n > 1 ? 0 : -0.5;
    p.x1 = n > 1 ? n - 1 : 0.5;
    p.whole_x = true;
    panel_title(c, &p, title);
    plot_axes(c, &p, "step t", name);
    for (int i = 0; i < shown; i++) {
        const int t = even(i, n, shown), before = i ? even(i - 1, n, shown) : t;
        const double x = plot_x(&p, t), y = plot_y(&p, (double)v[t]);
        canvas_line(c, plot_x(&p, before), plot_y(&p, (double)v[before]), x, y, 1.2, PLOT_DARK);
        if (n <= 40) /* else they would cover the line */
            canvas_disc(c, x, y, 2, PLOT_DARK);
    }
}

/* ---- class balance ---- */

static void bars(struct canvas *c, struct plot p, const char *title, const double *v, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++) {
        sum += v[k];
        p.y0 = fmin(p.y0, 1.05 * v[k]);
        p.y1 = fmax(p.y1, 1.05 * v[k]);
    }
    p.y1 = p.y1 > p.y0 ? p.y1 : 1;
    p.x0 = -0.5;
    p.x1 = n - 0.5;
    p.whole_x = true;
    panel_title(c, &p, title);
    const double mean = plot_y(&p, sum / n), zero = plot_y(&p, 0), gap = p.w / n > 4 ? 0.2 * p.w / n : 0;
    for (int k = 0; k < n; k++) { /* between whole pixels of a PNG, or many narrow bars shimmer */
        const double left = floor(plot_x(&p, k - 0.5) * CANVAS_SCALE) / CANVAS_SCALE, right = floor(plot_x(&p, k + 0.5) * CANVAS_SCALE) / CANVAS_SCALE;
        const double top = plot_y(&p, v[k]);
        canvas_box(c, left + gap / 2, fmin(top, zero), right - left - gap, fabs(zero - top), PLOT_LIGHT);
    }
    canvas_line(c, p.x, mean, p.x + p.w, mean, 1, PLOT_MARKED);
    plot_axes(c, &p, "class", "sum of y");
    canvas_text(c, p.x + p.w, p.y - 10, ANCHOR_END, TEXT, PLOT_MARKED, "red: mean");
}

struct scale { double low, middle, high; }; /* what is blue, white, red */

/* White is the mean, so that an even balance is white whatever its size; the ends are 0 and twice the mean at least, so that the odd image
 * too many or too few stays pale. */
static struct scale scale_of(const double *v, size_t n)
{
    struct scale s = { 0 };
    for (size_t i = 0; i < n; i++)
        s.middle += v[i] / (double)n;
    s.low = s.middle - fabs(s.middle);
    s.high = s.middle + fabs(s.middle);
    for (size_t i = 0; i < n; i++) {
        s.low = fmin(s.low, v[i]);
        s.high = fmax(s.high, v[i]);
    }
    return s;
}

static void colour_of(const struct scale *s, double v, uint8_t *out)
{
    const uint32_t end = v < s->middle ? PLOT_DARK : PLOT_MARKED;
    const double span = v < s->middle ? s->middle - s->low : s->high - s->middle, far = span > 0 ? fmin(fabs(v - s->middle) / span, 1) : 0;
    for (int k = 0; k < 3; k++)
        out[k] = (uint8_t)lrint(255 + far * ((double)(end >> (16 - 8 * k) & 0xff) - 255));
}

static void outline(struct canvas *c, double x, double y, double w, double h)
{
    canvas_line(c, x, y, x + w, y, 1, PLOT_FAINT);
    canvas_line(c, x, y + h, x + w, y + h, 1, PLOT_FAINT);
    canvas_line(c, x, y, x, y + h, 1, PLOT_FAINT);
    canvas_line(c, x + w, y, x + w, y + h, 1, PLOT_FAINT);
}

static void key(struct canvas *c, const struct plot *p, const struct scale *s)
{
    enum { HALF = 32, WIDE = 10 };
    const double x = p->x + p->w + WIDE, ends[] = { s->high, s->middle, s->low };
    uint8_t ramp[2 * HALF + 1][3];
    for (int i = 0; i <= 2 * HALF; i++)
        colour_of(s, s->middle + (i < HALF ? s->high - s->middle : s->middle - s->low) * (HALF - i) / HALF, ramp[i]);
    canvas_image(c, x, p->y, WIDE, p->h, ramp[0], 1, 2 * HALF + 1);
    outline(c, x, p->y, WIDE, p->h);
    for (int i = 0; i < 3; i++)
        canvas_text(c, x + WIDE + 4, p->y + i * p->h / 2 + (2 - i) * 3.5, ANCHOR_START, TEXT, PLOT_INK, "%.3g", ends[i]);
}

/* Steps to the right, classes up. */
static int map(struct canvas *c, struct plot p, const char *title, const struct curriculum *u, struct errbuf *e)
{
    const int W = least(u->T, POINTS_MOST), H = least(u->K, POINTS_MOST);
    const size_t K = (size_t)u->K, n = (size_t)W * K;
    double  *v = malloc(n * sizeof *v); /* [W,K] */
    uint8_t *rgb = malloc((size_t)W * (size_t)H * 3);
    int rc = v && rgb ? 0 : err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0) {
        for (int x = 0; x < W; x++)
            curriculum_class_sums(u, even(x, u->T, W), even(x, u->T, W) + 1, v + (size_t)x * K);
        const struct scale s = scale_of(v, n);
        for (int i = 0; i < W * H; i++)
            colour_of(&s, v[(size_t)(i % W) * K + (size_t)even(H - 1 - i / W, u->K, H)], rgb + 3 * (size_t)i);
        p.x0 = p.y0 = -0.5;
        p.x1 = u->T - 0.5;
        p.y1 = u->K - 0.5;
        p.whole_x = p.whole_y = true;
        panel_title(c, &p, title);
        canvas_image(c, p.x, p.y, p.w, p.h, rgb, W, H);
        outline(c, p.x, p.y, p.w, p.h);
        plot_axes(c, &p, "step t", "class");
        key(c, &p, &s);
    }
    free(rgb);
    free(v);
    return rc;
}

static int draw_panels(struct canvas *c, const struct curriculum *u, double width, double y, struct errbuf *e)
{
    const double pitch = (width - 2 * MARGIN - KEY) / 4;
    struct plot at[4];
    double *sums = malloc((size_t)u->K * sizeof *sums);
    if (!sums)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < 4; i++)
        at[i] = (struct plot){ .x = MARGIN + AXIS + i * pitch, .y = y, .w = pitch - AXIS - 20, .h = PANEL };
    at[1].y1 = 1; /* mu is in [0, 1] */
    curve(c, at[0], "(b) step size", "eta_t", u->lr, u->T);
    curve(c, at[1], "(c) momentum", "mu_t", u->mu, u->T);
    curriculum_class_sums(u, 0, u->T, sums);
    bars(c, at[2], "(d) class balance", sums, u->K);
    free(sums);
    return map(c, at[3], "(e) class balance by step", u, e);
}

/* ---- the picture ---- */

static int about(const struct curriculum *u, char *out, size_t cap)
{
    kind_str kind;
    curriculum_kind(u, kind);
    return snprintf(out, cap, "%s%s%d step%s x %d images of %d x %d x %d (C x H x W), %d classes, inner optimiser %s, hash %.12s", kind, kind[0] ? ", " : "",
                    u->T, u->T > 1 ? "s" : "", u->B, u->c, u->h, u->w, u->K, inner_name(u->inner.type), u->hash);
}

int curriculum_draw(const struct curriculum *u, const char *name, const char *path, struct errbuf *e)
{
    struct grid g = { .u = u };
    char line[160];
    grid_size(&g);
    const double below = ceil(row_y(&g, g.rows) + 66), for_text = 2 * MARGIN + LETTER * about(u, line, sizeof line);
    const double width = ceil(fmax(fmax(column_x(&g, g.cols - 1) + g.w + MARGIN, PAGE_LEAST), for_text));
    struct canvas *c = canvas_new((int)width, (int)below + PANEL + 60);
    int rc = 0;
    g.order = malloc((size_t)u->B * sizeof *g.order);
    g.rgb = malloc((size_t)g.ph * (size_t)g.pw * 3);
    if (!g.order || !g.rgb || !c)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0) {
        canvas_text(c, MARGIN, 36, ANCHOR_START, TITLE, PLOT_INK, "%.63s", name);
        canvas_text(c, MARGIN, 58, ANCHOR_START, TEXT, PLOT_INK, "%s", line);
        draw_grid(c, &g);
        rc = draw_panels(c, u, width, below, e);
    }
    if (rc == 0)
        rc = canvas_write(c, path, e);
    canvas_free(c);
    free(g.rgb);
    free(g.order);
    return rc;
}
