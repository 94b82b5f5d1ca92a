/* image_file.h - decode one PNG or JPEG into [C,H,W] bytes. Gray, colour, palette and 16-bit images are understood;
 * transparency is dropped (the stored colour counts), embedded profiles are not applied. A damaged or cut-off file is an
 * error even where the decoder could go on. Thread: no state. */
#ifndef DIDACT_IMAGE_FILE_H
#define DIDACT_IMAGE_FILE_H

#include "common/err.h"

#include <stdint.h>

struct image_info { int c, h, w; }; /* c: 1 gray, 3 colour, as in the file */

bool image_is_image(const char *name);      /* by its ending: png, jpg, jpeg */
bool image_is_other(const char *name);      /* an image of a kind that we do not read: gif, bmp, webp, tiff … */
int  image_probe(const char *path, struct image_info *out, struct errbuf *e); /* reads the header only */
/* `want` is what image_probe said, except that c may be 3 for a gray file: then all three planes are equal. */
int  image_read(const char *path, const struct image_info *want, uint8_t *out, struct errbuf *e);

#endif
