/* The file: u64 LE length of the header, the header (JSON, padded with spaces so that the data is 8-aligned), the data.
 * As the format demands, the tensors fill the data without holes or overlaps; to keep each one aligned to its
 * elements all the same, the writer sorts by element size, the largest first. */
#include "common/safetensors.h"

#include "common/fsio.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_MAX  (16u << 20)
#define TENSORS_MAX 100000

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are mapped as they lie in the file");

static const struct { const char *name; size_t size; } dtypes[ST_DTYPE_COUNT] = {
    [ST_F32] = { "F32", 4 }, [ST_F64] = { "F64", 8 }, [ST_I32] = { "I32", 4 },
    [ST_I64] = { "I64", 8 }, [ST_U8] = { "U8", 1 },   [ST_U16] = { "U16", 2 },
};

size_t st_dtype_size(enum st_dtype t) { return dtypes[t].size; }

/* ---- reading ---- */

static int parse_dtype(struct st_tensor *t, const json_t *j, const char *path, struct errbuf *e)
{
    const char *s = json_string_value(j);
    for (int i = 0; s && i < ST_DTYPE_COUNT; i++)
        if (strcmp(s, dtypes[i].name) == 0) {
            t->dtype = (enum st_dtype)i;
            return 0;
        }
    return err_set(e, ERR_INPUT, "%s: tensor %s: dtype %s is not one of F32 F64 I32 I64 U8 U16", path, t->name, s ? s : "missing");
}

/* Fills dim, count and bytes; every product is checked. */
static int parse_shape(struct st_tensor *t, const json_t *j, const char *path, struct errbuf *e)
{
    size_t n = json_array_size(j);
    if (!json_is_array(j) || n > ST_MAX_DIM)
        return err_set(e, ERR_INPUT, "%s: tensor %s: shape is not a list of at most %d sizes", path, t->name, ST_MAX_DIM);
    t->ndim = (int)n;
    t->count = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(j, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return err_set(e, ERR_INPUT, "%s: tensor %s: shape holds something that is not a size", path, t->name);
        t->dim[i] = (uint64_t)json_integer_value(d);
        if (__builtin_mul_overflow(t->count, t->dim[i], &t->count))
            return err_set(e, ERR_INPUT, "%s: tensor %s: shape overflows", path, t->name);
    }
    if (__builtin_mul_overflow(t->count, (uint64_t)dtypes[t->dtype].size, &t->bytes))
        return err_set(e, ERR_INPUT, "%s: tensor %s: shape overflows", path, t->name);
    return 0;
}

static int parse_offsets(struct st_tensor *t, const json_t *j, const char *data, uint64_t len, const char *path, struct errbuf *e)
{
    const json_t *b = json_array_get(j, 0), *z = json_array_get(j, 1);
    if (json_array_size(j) != 2 || !json_is_integer(b) || !json_is_integer(z) || json_integer_value(b) < 0)
        return err_set(e, ERR_INPUT, "%s: tensor %s: data_offsets is not [begin, end]", path, t->name);
    uint64_t begin = (uint64_t)json_integer_value(b), end = (uint64_t)json_integer_value(z);
    if (json_integer_value(z) < 0 || end < begin || end > len)
        return err_set(e, ERR_INPUT, "%s: tensor %s: data_offsets [%" PRIu64 ", %" JSON_INTEGER_FORMAT
                       "] leave the %" PRIu64 " bytes of data (is the file cut off?)",
                       path, t->name, begin, json_integer_value(z), len);
    if (end - begin != t->bytes)
        return err_set(e, ERR_INPUT, "%s: tensor %s: dtype and shape need %" PRIu64 " bytes, data_offsets give %" PRIu64,
                       path, t->name, t->bytes, end - begin);
    t->data = data + begin;
    if ((uintptr_t)t->data % dtypes[t->dtype].size)
        return err_set(e, ERR_INPUT, "%s: tensor %s: data is not aligned to its elements", path, t->name);
    return 0;
}

static int parse_tensor(struct st_tensor *t, const char *name, const json_t *j, const char *data, uint64_t len, const char *path,
                        struct errbuf *e)
{
    if (strlen(name) >= sizeof t->name)
        return err_set(e, ERR_INPUT, "%s: tensor name %.40s... is longer than %zu bytes", path, name, sizeof t->name - 1);
    memcpy(t->name, name, strlen(name) + 1);
    if (!json_is_object(j) || json_object_size(j) != 3)
        return err_set(e, ERR_INPUT, "%s: tensor %s: not an object of dtype, shape, data_offsets", path, name);
    int rc = parse_dtype(t, json_object_get(j, "dtype"), path, e);
    if (rc == 0)
        rc = parse_shape(t, json_object_get(j, "shape"), path, e);
    if (rc == 0)
        rc = parse_offsets(t, json_object_get(j, "data_offsets"), data, len, path, e);
    return rc;
}

static int parse_meta(struct st_file *f, json_t *j, const char *path, struct errbuf *e)
{
    if (!json_is_object(j))
        return err_set(e, ERR_INPUT, "%s: __metadata__ is not an object", path);
    f->meta = calloc(2 * json_object_size(j) + 1, sizeof *f->meta);
    if (!f->meta)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    const char *key;
    json_t *v;
    json_object_foreach(j, key, v) {
        if (!json_is_string(v))
            return err_set(e, ERR_INPUT, "%s: __metadata__ %s is not a string", path, key);
        char **kv = f->meta + 2 * f->n_meta++;
        kv[0] = strdup(key);
        kv[1] = strdup(json_string_value(v));
        if (!kv[0] || !kv[1])
            return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* an empty tensor comes before the one at its place */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

/* The tensors in order of place must follow each other exactly and use up the data. */
static int check_cover(struct st_file *f, const char *data, uint64_t len, const char *path, struct errbuf *e)
{
    if (f->n)
        qsort(f->tensor, (size_t)f->n, sizeof *f->tensor, by_offset);
    const char *at = data;
    for (int i = 0; i < f->n; i++) {
        const struct st_tensor *t = &f->tensor[i];
        if ((const char *)t->data < at)
            return err_set(e, ERR_INPUT, "%s: tensors %s and %s overlap", path, f->tensor[i - 1].name, t->name);
        if ((const char *)t->data > at)
            return err_set(e, ERR_INPUT, "%s: %td bytes before tensor %s belong to no tensor", path, (const char *)t->data - at, t->name);
        at += t->bytes;
    }
    if (at != data + len)
        return err_set(e, ERR_INPUT, "%s: %td bytes after the last tensor", path, data + len - at);
    if (f->n)
        qsort(f->tensor, (size_t)f->n, sizeof *f->tensor, by_name);
    return 0;
}

static int parse(struct st_file *f, const char *path, struct errbuf *e)
{
    uint64_t header;
    memcpy(&header, f->map, 8);
    if (header > f->map_len - 8)
        return err_set(e, ERR_INPUT, "%s: header length %" PRIu64 " is past the end of the file (%" PRIu64 " bytes)", path, header, f->map_len);
    if (header > HEADER_MAX)
        return err_set(e, ERR_INPUT, "%s: header length %" PRIu64 " is above the limit of %u", path, header, HEADER_MAX);
    json_error_t je;
    json_t *j = json_loadb((const char *)f->map + 8, (size_t)header, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(j)) {
        json_decref(j);
        return err_set(e, ERR_INPUT, "%s: header is not a JSON object: %s", path, j ? "another type" : je.text);
    }
    int rc = 0;
    const char *data = (const char *)f->map + 8 + header, *name;
    uint64_t len = f->map_len - 8 - header;
    size_t n = json_object_size(j);
    json_t *v;
    if (n > TENSORS_MAX) { rc = err_set(e, ERR_INPUT, "%s: more than %d tensors", path, TENSORS_MAX); goto done; }
    f->tensor = calloc(n + 1, sizeof *f->tensor);
    if (!f->tensor) { rc = err_set(e, ERR_NOMEM, "%s: out of memory", path); goto done; }
    json_object_foreach(j, name, v) {
        rc = strcmp(name, "__metadata__") == 0 ? parse_meta(f, v, path, e)
                                               : parse_tensor(&f->tensor[f->n++], name, v, data, len, path, e);
        if (rc < 0)
            goto done;
    }
    rc = check_cover(f, data, len, path, e);
done:
    json_decref(j);
    return rc;
}

int st_open(struct st_file *f, const char *path, struct errbuf *e)
{
    *f = (struct st_file){ 0 };
    int rc = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fs_error(e, errno, "cannot open", path);
    if (fstat(fd, &st) < 0) { rc = fs_error(e, errno, "cannot read", path); goto done; }
    if (!S_ISREG(st.st_mode)) { rc = err_set(e, ERR_INPUT, "%s: not a regular file", path); goto done; }
    if (st.st_size < 10) { rc = err_set(e, ERR_INPUT, "%s: %lld bytes are too few for a safetensors header", path, (long long)st.st_size); goto done; }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) { rc = fs_error(e, errno, "cannot map", path); goto done; }
    f->map = map;
    f->map_len = (uint64_t)st.st_size;
    rc = parse(f, path, e);
done:
    if (rc < 0)
        st_close(f);
    close(fd);
    return rc;
}

void st_close(struct st_file *f)
{
    for (int i = 0; f->meta && i < 2 * f->n_meta; i++)
        free(f->meta[i]);
    free(f->meta);
    free(f->tensor);
    if (f->map)
        munmap(f->map, (size_t)f->map_len);
    *f = (struct st_file){ 0 };
}

const struct st_tensor *st_find(const struct st_file *f, const char *name)
{
    for (int lo = 0, hi = f->n; lo < hi;) {
        int mid = (lo + hi) / 2, c = strcmp(name, f->tensor[mid].name);
        if (c == 0)
            return &f->tensor[mid];
        if (c < 0) hi = mid;
        else       lo = mid + 1;
    }
    return NULL;
}

const char *st_meta(const struct st_file *f, const char *key)
{
    for (int i = 0; i < f->n_meta; i++)
        if (strcmp(f->meta[2 * i], key) == 0)
            return f->meta[2 * i + 1];
    return NULL;
}

static void shape_text(char *out, size_t cap, int ndim, const int64_t *dim)
{
    size_t n = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < ndim && n < cap; i++)
        n += (size_t)(dim[i] < 0 ? snprintf(out + n, cap - n, "%s*", i ? "," : "")
                                 : snprintf(out + n, cap - n, "%s%" PRId64, i ? "," : "", dim[i]));
    if (n < cap)
        snprintf(out + n, cap - n, "]");
}

int st_need(const struct st_file *f, const char *name, enum st_dtype t, int ndim, const int64_t *dim, const struct st_tensor **out,
            struct errbuf *e)
{
    char want[200], got[200];
    shape_text(want, sizeof want, ndim, dim);
    const struct st_tensor *x = st_find(f, name);
    if (!x)
        return err_set(e, ERR_INPUT, "tensor %s is missing (expected %s %s)", name, dtypes[t].name, want);
    bool same = x->dtype == t && x->ndim == ndim;
    for (int i = 0; same && i < ndim; i++)
        same = dim[i] < 0 || x->dim[i] == (uint64_t)dim[i];
    if (!same) {
        int64_t d[ST_MAX_DIM];
        for (int i = 0; i < x->ndim; i++)
            d[i] = (int64_t)x->dim[i];
        shape_text(got, sizeof got, x->ndim, d);
        return err_set(e, ERR_INPUT, "tensor %s is %s %s, expected %s %s", name, dtypes[x->dtype].name, got, dtypes[t].name, want);
    }
    *out = x;
    return 0;
}

/* ---- writing ---- */

static int check_tensor(const struct st_tensor *t, const char *path, uint64_t *bytes, struct errbuf *e)
{
    if ((int)t->dtype < 0 || t->dtype >= ST_DTYPE_COUNT || t->ndim < 0 || t->ndim > ST_MAX_DIM)
        return err_set(e, ERR_INTERNAL, "%s: tensor %s: no such dtype or rank", path, t->name);
    *bytes = dtypes[t->dtype].size;
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] > INT64_MAX || __builtin_mul_overflow(*bytes, t->dim[i], bytes))
            return err_set(e, ERR_INPUT, "%s: tensor %s: shape overflows", path, t->name);
    return 0;
}

/* Place each tensor, the largest elements first, otherwise in the given order; the header says them in the given order. */
static int make_header(const struct st_tensor *t, int n, const char *const *meta, int n_meta, const char *path, char **out,
                       struct errbuf *e)
{
    int rc = 0;
    json_t *root = json_object(), *m = json_object();
    uint64_t at = 0, bytes = 0;
    for (int i = 0; i < n_meta; i++)
        if (json_object_set_new(m, meta[2 * i], json_string(meta[2 * i + 1])) < 0) {
            rc = err_set(e, ERR_INPUT, "%s: metadata %s is not UTF-8", path, meta[2 * i]);
            goto done;
        }
    if (n_meta)
        json_object_set(root, "__metadata__", m);
    for (int i = 0; i < n; i++) { /* null keeps the place in the header; an equal name would show as an old value */
        if (json_object_get(root, t[i].name) || json_object_set_new(root, t[i].name, json_null()) < 0) {
            rc = err_set(e, ERR_INPUT, "%s: tensor name %s is used twice or is not UTF-8", path, t[i].name);
            goto done;
        }
    }
    for (size_t size = 8; size; size /= 2)
        for (int i = 0; i < n; i++) {
            rc = check_tensor(&t[i], path, &bytes, e);
            if (rc < 0)
                goto done;
            if (dtypes[t[i].dtype].size != size)
                continue;
            uint64_t end;
            if (__builtin_add_overflow(at, bytes, &end) || end > INT64_MAX) { rc = err_set(e, ERR_INPUT, "%s: too large", path); goto done; }
            json_t *shape = json_array();
            for (int k = 0; k < t[i].ndim; k++)
                json_array_append_new(shape, json_integer((json_int_t)t[i].dim[k]));
            json_object_set_new(root, t[i].name, json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtypes[t[i].dtype].name, "shape", shape,
                                                           "data_offsets", (json_int_t)at, (json_int_t)end));
            at = end;
        }
    *out = json_dumps(root, JSON_COMPACT);
    if (!*out)
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", path);
done:
    json_decref(root);
    json_decref(m);
    return rc;
}

int st_write(const char *path, const struct st_tensor *t, int n, const char *const *meta, int n_meta, struct errbuf *e)
{
    static const char spaces[] = "        ";
    char *header = NULL;
    struct fs_tmp tmp = { 0 };
    int rc = make_header(t, n, meta, n_meta, path, &header, e);
    if (rc < 0)
        return rc;
    uint64_t len = strlen(header), pad = -len % 8, total = len + pad, bytes = 0;
    rc = fs_tmp_open_for(&tmp, path, 0666, e);
    if (rc < 0)
        goto done;
    rc = fs_tmp_write(&tmp, &total, 8, e);
    if (rc == 0)
        rc = fs_tmp_write(&tmp, header, (size_t)len, e);
    if (rc == 0)
        rc = fs_tmp_write(&tmp, spaces, (size_t)pad, e);
    for (size_t size = 8; rc == 0 && size; size /= 2)
        for (int i = 0; rc == 0 && i < n; i++)
            if (dtypes[t[i].dtype].size == size && (rc = check_tensor(&t[i], path, &bytes, e)) == 0)
                rc = fs_tmp_write(&tmp, t[i].data, (size_t)bytes, e);
    if (rc == 0)
        rc = fs_tmp_commit(&tmp, path, e);
done:
    fs_tmp_abort(&tmp);
    free(header);
    return rc;
}
