#include "client/plot.h"

#include "client/print.h"

#include <math.h>
#include <string.h>

enum { LETTER = 6, SIZE = 10 }; /* a letter's width at the size that all axes use */

double plot_x(const struct plot *p, double v) { return p->x + p->w * (v - p->x0) / (p->x1 - p->x0); }
double plot_y(const struct plot *p, double v) { return p->y + p->h - p->h * (v - p->y0) / (p->y1 - p->y0); }

void plot_range(const double *v, int n, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (int i = 0; i < n; i++) {
        *low = fmin(*low, v[i]);
        *high = fmax(*high, v[i]);
    }
    double pad = *high > *low ? (*high - *low) / 20 : fabs(*high) > 0 ? fabs(*high) / 20 : 0.5;
    *low -= pad;
    *high += pad;
}

struct ticks { double first, step; int n; /* at (first + i) * step */ };

/* The step is 1, 2 or 5 times a power of ten: the smallest that gives at most `most` of them. */
static struct ticks ticks_of(double low, double high, double most, bool whole)
{
    static const double nice[] = { 1, 2, 5, 10 };
    const double raw = (high - low) / fmax(most, 1), power = pow(10, floor(log10(raw)));
    struct ticks t = { 0 };
    size_t i = 0;
    while (i < 3 && nice[i] * power < raw * (1 - 1e-9))
        i++;
    t.step = whole ? fmax(nice[i] * power, 1) : nice[i] * power;
    t.first = ceil(low / t.step - 1e-9);
    const double n = floor(high / t.step - t.first + 1e-9) + 1;
    t.n = isfinite(t.step) && n >= 1 && n < 1000 ? (int)n : 0; /* none in a range that floating point cannot divide */
    return t;
}

static const char *tick_text(short_str s, double v, double step)
{
    const int decimals = step > 0 && step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    if (fabs(v) >= 10000)
        return fmt_count(s, v);
    if (decimals > 4)
        snprintf(s, sizeof(short_str), "%.3g", v);
    else
        snprintf(s, sizeof(short_str), "%.*f", decimals, v);
    return s;
}

/* How many ticks of x have room beside each other, each as wide as the range's wider end, with a gap. */
static double room_x(const struct plot *p)
{
    short_str a, b;
    const double step = ticks_of(p->x0, p->x1, 5, p->whole_x).step;
    const double low = p->whole_x ? ceil(p->x0) + 0.0 : p->x0, high = p->whole_x ? floor(p->x1) : p->x1;
    const size_t n = strlen(tick_text(a, low, step)), m = strlen(tick_text(b, high, step));
    return p->w / (LETTER * (double)(n > m ? n : m) + 8);
}

void plot_axes(struct canvas *c, const struct plot *p, const char *xname, const char *yname)
{
    short_str s;
    const double bottom = p->y + p->h;
    const struct ticks tx = ticks_of(p->x0, p->x1, fmin(room_x(p), p->whole_x ? 12 : 6), p->whole_x);
    const struct ticks ty = ticks_of(p->y0, p->y1, fmin(p->h / (SIZE + 4), p->whole_y ? 12 : 6), p->whole_y);
    canvas_line(c, p->x, bottom, p->x + p->w, bottom, 1, PLOT_INK);
    canvas_line(c, p->x, p->y, p->x, bottom, 1, PLOT_INK);
    for (int i = 0; i < tx.n; i++) {
        const double v = (tx.first + i) * tx.step + 0.0, at = plot_x(p, v); /* + 0.0: no "-0" */
        canvas_line(c, at, bottom, at, bottom + 4, 1, PLOT_INK);
        canvas_text(c, at, bottom + 17, ANCHOR_MIDDLE, SIZE, PLOT_INK, "%s", tick_text(s, v, tx.step));
    }
    for (int i = 0; i < ty.n; i++) {
        const double v = (ty.first + i) * ty.step + 0.0, at = plot_y(p, v);
        canvas_line(c, p->x - 4, at, p->x, at, 1, PLOT_INK);
        canvas_text(c, p->x - 7, at + 4, ANCHOR_END, SIZE, PLOT_INK, "%s", tick_text(s, v, ty.step));
    }
    canvas_text(c, p->x + p->w / 2, bottom + 36, ANCHOR_MIDDLE, SIZE, PLOT_INK, "%s", xname);
    canvas_text(c, p->x - 46, p->y - 10, ANCHOR_START, SIZE, PLOT_INK, "%s", yname);
}
