/* plot.h - what drawings with axes share: a frame that places values on a canvas, round ticks, colours.
 * Thread: no state. */
#ifndef DIDACT_CLIENT_PLOT_H
#define DIDACT_CLIENT_PLOT_H

#include "client/canvas.h"

#include <stdbool.h>

#define PLOT_INK    0x222222u
#define PLOT_FAINT  0xc8c8c8u
#define PLOT_DARK   0x1f5fa8u
#define PLOT_LIGHT  0x8fb8e0u
#define PLOT_MARKED 0xc8452fu

struct plot {
    double x, y, w, h;         /* place on the canvas */
    double x0, x1, y0, y1;     /* range of the values; x0 < x1, y0 < y1 */
    bool   whole_x, whole_y;   /* ticks at whole numbers only: steps, classes */
};

double plot_x(const struct plot *p, double v);
double plot_y(const struct plot *p, double v);
/* The range of `n` values, a twentieth wider on both sides; never empty. */
void plot_range(const double *v, int n, double *low, double *high);
/* Both axes with ticks at round numbers; the name of x goes below (36 under the frame), that of y above (from 46 left of it). */
void plot_axes(struct canvas *c, const struct plot *p, const char *xname, const char *yname);

#endif
