/* curriculum_draw.h - a curriculum as one picture: its images, a row for each of some steps, and below them eta_t and mu_t along
 * the steps and how much label weight each class has, over all and at each step.
 * Thread: no state. */
#ifndef DIDACT_CLIENT_CURRICULUM_DRAW_H
#define DIDACT_CLIENT_CURRICULUM_DRAW_H

#include "common/curriculum.h"

#define CURRICULUM_ROWS 8  /* steps whose images are shown: of more, evenly chosen ones with the first and the last */
#define CURRICULUM_COLS 20 /* images of a step. Of K <= 20 classes each has as many columns; of more, a row is a sample of its batch */

/* What teaches with it, as its provenance says: "distilled", "gtn", "real"; "" where it does not say. */
typedef char kind_str[32];
void curriculum_kind(const struct curriculum *u, kind_str out);

/* As .svg or .png, by the ending of `path`. Pixels are gray or RGB and enlarged by a whole factor; of two channels the first is shown, of more
 * than three the first three, of images with more pixels than there is room for every second, third, … pixel. Errors are those of canvas_write. */
int curriculum_draw(const struct curriculum *u, const char *name, const char *path, struct errbuf *e);

#endif
