/* safetensors.h - reader and writer of the safetensors format (header length u64 LE, JSON header, raw little-endian data).
 * The reader checks everything before it hands out a pointer: lengths, overlaps, dtype against shape, bounds. */
#ifndef DIDACT_SAFETENSORS_H
#define DIDACT_SAFETENSORS_H

#include "common/err.h"

#include <stdint.h>

enum st_dtype { ST_F32, ST_F64, ST_I32, ST_I64, ST_U8, ST_U16, ST_DTYPE_COUNT };
#define ST_MAX_DIM 8

struct st_tensor {
    char          name[160];
    enum st_dtype dtype;
    int           ndim;
    uint64_t      dim[ST_MAX_DIM], count, bytes;
    const void   *data;              /* reader: borrowed from the mapping. writer: borrowed from the caller. */
};

struct st_file {
    int               n;
    struct st_tensor *tensor;        /* owned, sorted by name */
    int               n_meta;
    char            **meta;          /* owned: key, value, key, value … */
    void             *map;
    uint64_t          map_len;
};

size_t st_dtype_size(enum st_dtype t);
int  st_open(struct st_file *f, const char *path, struct errbuf *e);    /* mmap, read-only */
void st_close(struct st_file *f);
const struct st_tensor *st_find(const struct st_file *f, const char *name);
const char *st_meta(const struct st_file *f, const char *key);          /* NULL: absent */
/* st_find, and check dtype and shape (dim -1: any); -ERR_INPUT names the tensor and what was expected. */
int  st_need(const struct st_file *f, const char *name, enum st_dtype t, int ndim, const int64_t *dim,
             const struct st_tensor **out, struct errbuf *e);
/* Write atomically (temporary, fsync, rename). The format allows no holes, so the data is ordered by element size, the
 * largest first, otherwise as given: each tensor lies aligned. dtype, dim and data count; count and bytes are worked
 * out anew. `meta` = n_meta key, value pairs. Same input, same bytes. */
int  st_write(const char *path, const struct st_tensor *t, int n, const char *const *meta, int n_meta, struct errbuf *e);

#endif
