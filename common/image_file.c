/* Both libraries report errors by longjmp. Everything that must survive the jump is in one struct that the caller owns;
 * the functions below the setjmp keep nothing in locals that they need afterwards. */
#include "common/image_file.h"

#include "common/fsio.h"
#include "common/import.h"

#include <errno.h>
#include <stdio.h> /* jpeglib.h uses FILE and leaves the include to us */
#include <jpeglib.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct reader {
    FILE       *f;
    const char *path;
    jmp_buf     jump;
    char        text[JMSG_LENGTH_MAX]; /* what the library said */
    bool        size_only;
    struct image_info info;            /* of the file */
    int         want_c;
    uint8_t    *pixels;                /* owned [H,W,want_c], interleaved as the libraries give it */
    uint8_t   **rows;                  /* owned [H], into pixels */
    int         rc;
    struct errbuf *e;
};

/* Checks the size that a header announced and, unless that was the question, makes room for the pixels. */
static bool prepare(struct reader *r, uint64_t w, uint64_t h, int c)
{
    if (w < 1 || h < 1 || w > IMPORT_MAX_SIDE || h > IMPORT_MAX_SIDE) {
        r->rc = err_set(r->e, ERR_INPUT, "%s: %llu x %llu pixels: each side must be from 1 to %d", r->path, (unsigned long long)w,
                        (unsigned long long)h, IMPORT_MAX_SIDE);
        return false;
    }
    r->info = (struct image_info){ c, (int)h, (int)w };
    if (r->size_only)
        return false;
    size_t row = (size_t)w * (size_t)r->want_c;
    r->pixels = malloc(row * (size_t)h);
    r->rows = malloc((size_t)h * sizeof *r->rows);
    if (!r->pixels || !r->rows) {
        r->rc = err_set(r->e, ERR_NOMEM, "%s: out of memory", r->path);
        return false;
    }
    for (size_t y = 0; y < (size_t)h; y++)
        r->rows[y] = r->pixels + y * row;
    return true;
}

/* ---- PNG ---- */

static void on_png_error(png_structp png, png_const_charp text)
{
    struct reader *r = png_get_error_ptr(png);
    snprintf(r->text, sizeof r->text, "%s", text);
    longjmp(r->jump, 1);
}

static void on_png_warning(png_structp png, png_const_charp text) { (void)png; (void)text; }

static void decode_png(struct reader *r, png_structp png, png_infop info)
{
    png_init_io(png, r->f);
    png_set_user_limits(png, IMPORT_MAX_SIDE, IMPORT_MAX_SIDE);
    png_read_info(png, info);
    int type = png_get_color_type(png, info);
    if (!prepare(r, png_get_image_width(png, info), png_get_image_height(png, info), type & PNG_COLOR_MASK_COLOR ? 3 : 1))
        return;
    png_set_expand(png);   /* palette to RGB, 1-2-4 bits to 8, tRNS to alpha … */
    png_set_scale_16(png);
    png_set_strip_alpha(png);
    if (!(type & PNG_COLOR_MASK_COLOR) && r->want_c == 3)
        png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != (size_t)r->info.w * (size_t)r->want_c)
        png_error(png, "unexpected row size");
    png_read_image(png, r->rows);
    png_read_end(png, NULL); /* reads on to IEND: a file cut off behind the pixels is cut off */
}

static void read_png(struct reader *r)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, on_png_error, on_png_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info)
        r->rc = err_set(r->e, ERR_NOMEM, "%s: out of memory", r->path);
    else if (setjmp(r->jump) == 0)
        decode_png(r, png, info);
    else
        r->rc = err_set(r->e, ERR_INPUT, "%s: damaged PNG: %s", r->path, r->text);
    png_destroy_read_struct(&png, &info, NULL);
}

/* ---- JPEG ---- */

static void on_jpeg_error(j_common_ptr jpeg)
{
    struct reader *r = jpeg->client_data;
    jpeg->err->format_message(jpeg, r->text);
    longjmp(r->jump, 1);
}

static void on_jpeg_message(j_common_ptr jpeg, int level)
{
    if (level < 0) /* a warning: corrupt data that the decoder papers over; we do not */
        on_jpeg_error(jpeg);
}

static void decode_jpeg(struct reader *r, struct jpeg_decompress_struct *jpeg)
{
    jpeg_stdio_src(jpeg, r->f);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->num_components != 1 && jpeg->num_components != 3) {
        r->rc = err_set(r->e, ERR_INPUT, "%s: JPEG with %d colour components; only gray and RGB can be imported", r->path, jpeg->num_components);
        return;
    }
    if (!prepare(r, jpeg->image_width, jpeg->image_height, jpeg->num_components == 3 ? 3 : 1))
        return;
    jpeg->out_color_space = r->want_c == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg->dct_method = JDCT_ISLOW; /* the exact one: the same bytes on every processor */
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height)
        jpeg_read_scanlines(jpeg, r->rows + jpeg->output_scanline, jpeg->output_height - jpeg->output_scanline);
    jpeg_finish_decompress(jpeg);
}

static void read_jpeg(struct reader *r)
{
    struct jpeg_decompress_struct jpeg = { 0 };
    struct jpeg_error_mgr err;
    jpeg.err = jpeg_std_error(&err);
    err.error_exit = on_jpeg_error;
    err.emit_message = on_jpeg_message;
    jpeg.client_data = r;
    if (setjmp(r->jump) == 0) {
        jpeg_create_decompress(&jpeg);
        jpeg.client_data = r;
        decode_jpeg(r, &jpeg);
    } else {
        r->rc = err_set(r->e, ERR_INPUT, "%s: damaged JPEG: %s", r->path, r->text);
    }
    jpeg_destroy_decompress(&jpeg);
}

/* ---- either, by the first bytes: endings lie more often than contents ---- */

static const struct { const char *magic; size_t n; void (*read)(struct reader *r); } kinds[] = {
    { "\x89PNG\r\n\x1a\n", 8, read_png },
    { "\xff\xd8\xff", 3, read_jpeg },
};

static void read_any(struct reader *r)
{
    char head[8] = "";
    size_t n = fread(head, 1, sizeof head, r->f);
    rewind(r->f);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (n >= kinds[i].n && memcmp(head, kinds[i].magic, kinds[i].n) == 0) {
            kinds[i].read(r);
            return;
        }
    r->rc = err_set(r->e, ERR_INPUT, "%s: neither PNG nor JPEG data", r->path);
}

int image_probe(const char *path, struct image_info *out, struct errbuf *e)
{
    struct reader r = { .path = path, .size_only = true, .e = e, .f = fopen(path, "rbe") };
    if (!r.f)
        return fs_error(e, errno, "cannot open", path);
    read_any(&r);
    fclose(r.f);
    *out = r.info;
    return r.rc;
}

int image_read(const char *path, const struct image_info *want, uint8_t *out, struct errbuf *e)
{
    struct reader r = { .path = path, .want_c = want->c, .e = e, .f = fopen(path, "rbe") };
    if (!r.f)
        return fs_error(e, errno, "cannot open", path);
    read_any(&r);
    fclose(r.f);
    if (r.rc == 0 && (r.info.h != want->h || r.info.w != want->w || r.info.c > want->c))
        r.rc = err_set(e, ERR_INPUT, "%s: changed while it was read", path);
    size_t plane = (size_t)want->h * (size_t)want->w, c = (size_t)want->c;
    for (size_t i = 0; r.rc == 0 && i < plane; i++)
        for (size_t k = 0; k < c; k++)
            out[k * plane + i] = r.pixels[i * c + k];
    free(r.pixels);
    free(r.rows);
    return r.rc;
}

static bool has_ending(const char *name, const char *const *endings)
{
    const char *dot = strrchr(name, '.');
    for (; dot && *endings; endings++)
        if (strcasecmp(dot + 1, *endings) == 0)
            return true;
    return false;
}

bool image_is_image(const char *name)
{
    static const char *const endings[] = { "png", "jpg", "jpeg", NULL };
    return has_ending(name, endings);
}

bool image_is_other(const char *name)
{
    static const char *const endings[] = { "gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "avif", "jp2", NULL };
    return has_ending(name, endings);
}
