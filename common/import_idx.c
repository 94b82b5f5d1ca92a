/* IDX (LeCun's MNIST format): big-endian magic 0x00000803 and three sizes, then bytes; labels 0x00000801 and one size.
 * Files are X-images-idx3-ubyte and X-labels-idx1-ubyte, plain or .gz, also with a dot before idx; the part is told by X. */
#include "common/fsio.h"
#include "common/import.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const struct { const char *what, *end[4]; uint32_t magic; } kinds[] = {
    { "images", { "images-idx3-ubyte", "images.idx3-ubyte", "images-idx3-ubyte.gz", "images.idx3-ubyte.gz" }, 0x803 },
    { "labels", { "labels-idx1-ubyte", "labels.idx1-ubyte", "labels-idx1-ubyte.gz", "labels.idx1-ubyte.gz" }, 0x801 },
};
enum { IMAGES, LABELS };

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

static bool is_kind(const char *name, int kind)
{
    for (int i = 0; i < 4; i++)
        if (ends_with(name, kinds[kind].end[i]))
            return true;
    return false;
}

static int part_of_name(const char *name)
{
    return strstr(name, "train") ? PART_TRAIN : strstr(name, "t10k") || strstr(name, "test") ? PART_TEST : -1;
}

static bool detect(const char *source)
{
    struct import_list l;
    bool found = false;
    if (import_list(source, &l, NULL) < 0)
        return false;
    for (int i = 0; i < l.n; i++)
        found |= is_kind(l.name[i], IMAGES);
    import_list_fini(&l);
    return found;
}

/* The one file of a kind and part, "" where there is none; a plain file wins over its own .gz. */
static int pick(const char *source, const struct import_list *l, int kind, int part, char path[FS_PATH_MAX], struct errbuf *e)
{
    const char *found = NULL;
    for (int i = 0; i < l->n; i++) {
        const char *name = l->name[i];
        if (!is_kind(name, kind) || part_of_name(name) != part)
            continue;
        if (found && !(strncmp(found, name, strlen(found)) == 0 && strcmp(name + strlen(found), ".gz") == 0))
            return err_set(e, ERR_INPUT, "%s: both %s and %s look like the %s %s", source, found, name,
                           part == PART_TRAIN ? "training" : "test", kinds[kind].what);
        if (!found)
            found = name;
    }
    path[0] = 0;
    if (found && snprintf(path, FS_PATH_MAX, "%s/%s", source, found) >= FS_PATH_MAX)
        return fs_error(e, ENAMETOOLONG, "cannot open", source);
    return 0;
}

static int read_exact(gzFile z, const char *path, const char *what, void *out, uint64_t n, struct errbuf *e)
{
    char *p = out;
    for (uint64_t done = 0; done < n;) {
        unsigned ask = n - done < (64u << 20) ? (unsigned)(n - done) : 64u << 20;
        int got = gzread(z, p + done, ask), err = 0;
        if (got > 0) {
            done += (uint64_t)got;
            if ((unsigned)got == ask)
                continue;
        }
        const char *text = gzerror(z, &err);
        if (err == Z_ERRNO)
            return fs_error(e, errno, "cannot read", path);
        if (err != Z_OK && err != Z_BUF_ERROR && err != Z_STREAM_END)
            return err_set(e, ERR_INPUT, "%s: %s: damaged gzip data: %s", path, what, text);
        return err_set(e, ERR_INPUT, "%s: %s: cut off after %llu of %llu bytes", path, what, (unsigned long long)done, (unsigned long long)n);
    }
    return 0;
}

/* Nothing may follow; asking for one byte more is also what makes zlib compare the checksum. */
static int read_end(gzFile z, const char *path, struct errbuf *e)
{
    char extra;
    int got = gzread(z, &extra, 1), err;
    if (got > 0)
        return err_set(e, ERR_INPUT, "%s: more data than its header announces", path);
    const char *text = gzerror(z, &err);
    return got < 0 || (err != Z_OK && err != Z_STREAM_END)
               ? err_set(e, ERR_INPUT, "%s: damaged gzip data: %s", path, text) : 0;
}

static int open_idx(const char *path, int kind, uint32_t *dim, int ndim, gzFile *out, struct errbuf *e)
{
    uint8_t head[16];
    gzFile z = gzopen(path, "rbe");
    if (!z)
        return errno ? fs_error(e, errno, "cannot open", path) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    gzbuffer(z, 256 * 1024);
    *out = z;
    int rc = read_exact(z, path, "header", head, 4 + 4 * (uint64_t)ndim, e);
    if (rc < 0)
        return rc;
    uint32_t word[4] = { 0 };
    for (int i = 0; i <= ndim; i++)
        word[i] = (uint32_t)head[4 * i] << 24 | (uint32_t)head[4 * i + 1] << 16 | (uint32_t)head[4 * i + 2] << 8 | head[4 * i + 3];
    if (word[0] != kinds[kind].magic)
        return err_set(e, ERR_INPUT, "%s: magic number is 0x%08x, IDX %s have 0x%08x", path, word[0], kinds[kind].what, kinds[kind].magic);
    memcpy(dim, word + 1, (size_t)ndim * sizeof *dim);
    return 0;
}

static int read_part(const char *images, const char *labels, int part, struct raw_set *s, struct errbuf *e)
{
    gzFile zi = NULL, zl = NULL;
    uint32_t dim[3] = { 0 }, n_labels = 0;
    struct raw_part *p = &s->part[part];
    int rc = open_idx(images, IMAGES, dim, 3, &zi, e);
    if (rc == 0)
        rc = open_idx(labels, LABELS, &n_labels, 1, &zl, e);
    if (rc < 0)
        goto done;
    if (n_labels != dim[0]) { rc = err_set(e, ERR_INPUT, "%s: %u labels for the %u images of %s", labels, n_labels, dim[0], images); goto done; }
    if (dim[1] > IMPORT_MAX_SIDE || dim[2] > IMPORT_MAX_SIDE) {
        rc = err_set(e, ERR_INPUT, "%s: images of %u x %u pixels: at most %d a side", images, dim[1], dim[2], IMPORT_MAX_SIDE);
        goto done;
    }
    if (s->c && (s->h != (int)dim[1] || s->w != (int)dim[2])) {
        rc = err_set(e, ERR_INPUT, "%s: images of %u x %u pixels, those for training have %d x %d", images, dim[1], dim[2], s->h, s->w);
        goto done;
    }
    s->c = 1;
    s->h = (int)dim[1];
    s->w = (int)dim[2];
    rc = raw_part_alloc(p, s, dim[0], images, e);
    if (rc == 0)
        rc = read_exact(zi, images, "pixels", p->images, (uint64_t)dim[0] * dim[1] * dim[2], e);
    if (rc == 0)
        rc = read_exact(zl, labels, "labels", p->labels, dim[0], e);
    if (rc == 0)
        rc = read_end(zi, images, e);
    if (rc == 0)
        rc = read_end(zl, labels, e);
    for (uint32_t i = dim[0]; rc == 0 && i-- > 0;) /* bytes to words in place, from the end */
        p->labels[i] = ((const uint8_t *)p->labels)[i];
done:
    if (zl) gzclose_r(zl);
    if (zi) gzclose_r(zi);
    return rc;
}

static int read_source(const char *source, struct raw_set *out, struct errbuf *e)
{
    struct import_list l;
    char images[FS_PATH_MAX], labels[FS_PATH_MAX];
    int rc = import_list(source, &l, e);
    for (int part = 0; rc == 0 && part < PART_COUNT; part++) {
        const char *which = part == PART_TRAIN ? "training" : "test";
        rc = pick(source, &l, IMAGES, part, images, e);
        if (rc == 0)
            rc = pick(source, &l, LABELS, part, labels, e);
        if (rc < 0 || (part == PART_TEST && !images[0] && !labels[0]))
            break;
        if (!images[0] || !labels[0])
            rc = err_set(e, ERR_INPUT, "%s: no *%s*-%s-idx%d-ubyte[.gz]: the %s %s are missing", source, part == PART_TRAIN ? "train" : "t10k",
                         images[0] ? "labels" : "images", images[0] ? 1 : 3, which, images[0] ? "labels" : "images");
        else
            rc = read_part(images, labels, part, out, e);
    }
    import_list_fini(&l);
    return rc;
}

const struct import_format import_idx = { "idx", "*-images-idx3-ubyte[.gz]", detect, read_source };
