/* cut.h - where sums over images and places are cut into chunks. A chunk is at most CUT rows (pixels): an even part of one
 * large image, or a power of two of whole small ones. So where a block of images begins at a multiple of cut_images, its
 * chunks are those of the whole batch, and whether images come at once or in blocks (blocks.c) does not show in a sum. */
#ifndef DIDACT_ENGINE_CUT_H
#define DIDACT_ENGINE_CUT_H

#include <stddef.h>

#define CUT 256

/* Images of one chunk: the largest power of two whose rows do not exceed CUT; 1 where a single image does. */
static inline int cut_images(int hw)
{
    int n = 1;
    while (2 * n * hw <= CUT)
        n *= 2;
    return n;
}

static inline int cut_parts(int hw) { return (hw + CUT - 1) / CUT; } /* chunks of one image, where it is that large */
static inline int cut_count(int hw, int batch) { return (batch + cut_images(hw) - 1) / cut_images(hw) * cut_parts(hw); }

struct cut_rows { size_t from, to; };
/* Rows of chunk k of `batch` images of hw pixels. */
static inline struct cut_rows cut_at(int hw, int batch, int k)
{
    const int images = cut_images(hw), parts = cut_parts(hw), img = k / parts * images, part = k % parts;
    const size_t n = (size_t)hw, at = (size_t)img * n;
    if (parts > 1)
        return (struct cut_rows){ at + n * (size_t)part / (size_t)parts, at + n * (size_t)(part + 1) / (size_t)parts };
    return (struct cut_rows){ at, (size_t)(img + images < batch ? img + images : batch) * n };
}

#endif
