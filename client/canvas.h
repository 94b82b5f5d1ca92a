/* canvas.h - a drawing of lines, boxes, discs, words and pixel images, written as SVG or as PNG. Coordinates are pixels from the top left. Nothing
 * fails before canvas_write: a canvas that ran out of memory says so there.
 * Limits: text is ASCII; in a PNG it is a 5 x 7 bitmap font, enlarged by whole factors. */
#ifndef DIDACT_CLIENT_CANVAS_H
#define DIDACT_CLIENT_CANVAS_H

#include "common/err.h"

#include <stdint.h>

#define CANVAS_SCALE 2 /* pixels of a PNG for one of the canvas */

enum anchor { ANCHOR_START, ANCHOR_MIDDLE, ANCHOR_END };

struct canvas;
struct canvas *canvas_new(int width, int height); /* white; NULL when memory is out */
void canvas_free(struct canvas *c);               /* NULL is fine */

/* rgb is 0xRRGGBB. */
void canvas_line(struct canvas *c, double x0, double y0, double x1, double y1, double width, uint32_t rgb);
void canvas_box(struct canvas *c, double x, double y, double w, double h, uint32_t rgb);
void canvas_disc(struct canvas *c, double x, double y, double r, uint32_t rgb);
/* (x, y): the anchor on the base line. size: height of a capital letter is about 0.7 of it. */
void canvas_text(struct canvas *c, double x, double y, enum anchor a, int size, uint32_t rgb, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));

/* rgb [ph,pw,3] is copied, and stretched to w x h without smoothing. In a PNG its pixels are equal squares where w and h times CANVAS_SCALE are
 * multiples of pw and ph; where they are smaller, pixels are left out. */
void canvas_image(struct canvas *c, double x, double y, double w, double h, const uint8_t *rgb, int pw, int ph);

/* Before there is anything to draw: -ERR_USAGE where canvas_write would refuse the ending. */
int canvas_check(const char *path, struct errbuf *e);
/* By the ending of `path`: .svg or .png; -ERR_USAGE for another. A new file replaces an old one whole. */
int canvas_write(const struct canvas *c, const char *path, struct errbuf *e);

#endif
