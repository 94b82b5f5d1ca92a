#include "common/dataset.h"

#include "common/blob.h"
#include "common/fsio.h"
#include "common/import.h"
#include "common/rng.h"
#include "common/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FORMAT       "didact-dataset-1"
#define FORMAT_STEM  "didact-dataset-"
#define VALID_MAX    5000
#define TRAIN_MIN    3     /* so that each split has an image */

/* ---- opening ---- */

static const char *const part_names[PART_COUNT][2] = { { "train.images", "train.labels" }, { "test.images", "test.labels" } };

static int check_meta(struct dataset *d, const struct st_file *f, struct errbuf *e)
{
    const char *format = st_meta(f, "format"), *classes = st_meta(f, "classes");
    if (!format || strncmp(format, FORMAT_STEM, strlen(FORMAT_STEM)) != 0)
        return err_set(e, ERR_INPUT, "metadata says format %s: not a dataset", format ? format : "(none)");
    if (strcmp(format, FORMAT) != 0)
        return err_set(e, ERR_VERSION, "metadata says format %s, this version reads " FORMAT, format);
    char *end = NULL;
    long k = classes ? strtol(classes, &end, 10) : 0;
    if (!classes || *end || k < 2 || k > DATASET_MAX_CLASSES)
        return err_set(e, ERR_INPUT, "metadata classes is %s, not a number from 2 to %d", classes ? classes : "missing", DATASET_MAX_CLASSES);
    d->n_classes = (int)k;
    return 0;
}

static int check_part(struct dataset *d, const struct st_file *f, int part, uint32_t *rows, struct errbuf *e)
{
    const struct st_tensor *x, *y;
    const char *images = part_names[part][0], *labels = part_names[part][1];
    int64_t shape[4] = { -1, -1, -1, -1 };
    if (part == PART_TEST) {
        shape[1] = d->c;
        shape[2] = d->h;
        shape[3] = d->w;
    }
    int rc = st_need(f, images, ST_U8, 4, shape, &x, e);
    if (rc < 0)
        return rc;
    if (x->dim[0] < 1 || x->dim[0] > UINT32_MAX || x->dim[1] < 1 || x->dim[1] > IMPORT_MAX_SIDE || x->dim[2] < 1 ||
        x->dim[2] > IMPORT_MAX_SIDE || x->dim[3] < 1 || x->dim[3] > IMPORT_MAX_SIDE)
        return err_set(e, ERR_INPUT, "tensor %s has an empty or oversized dimension", images);
    bool wide = d->n_classes > 256;
    int64_t n = (int64_t)x->dim[0];
    rc = st_need(f, labels, wide ? ST_U16 : ST_U8, 1, &n, &y, e);
    if (rc < 0)
        return rc;
    d->c = (int)x->dim[1];
    d->h = (int)x->dim[2];
    d->w = (int)x->dim[3];
    d->images[part] = x->data;
    d->labels8[part] = wide ? NULL : y->data;
    d->labels16[part] = wide ? y->data : NULL;
    for (int64_t i = 0; i < n; i++) {
        int label = wide ? d->labels16[part][i] : d->labels8[part][i];
        if (label >= d->n_classes)
            return err_set(e, ERR_INPUT, "tensor %s: label %d of row %lld is not below the %d classes", labels, label, (long long)i, d->n_classes);
    }
    *rows = (uint32_t)n;
    return 0;
}

static uint64_t hash_seed(const char *hash)
{
    char first[17];
    snprintf(first, sizeof first, "%.16s", hash);
    return strtoull(first, NULL, 16);
}

/* The train part is permuted by the content hash and cut: [test, where none was given] [validation] [train]. */
static int make_splits(struct dataset *d, uint32_t n_train, uint32_t n_test, struct errbuf *e)
{
    uint32_t *perm = malloc((size_t)n_train * sizeof *perm);
    if (!perm)
        return err_set(e, ERR_NOMEM, "out of memory for the splits");
    struct rng r;
    rng_init(&r, hash_seed(d->hash), RNG_SPLIT, 0);
    rng_permute(&r, perm, n_train);
    uint32_t own_test = n_test ? 0 : n_train < 20 ? 1 : n_train / 10, rest = n_train - own_test;
    uint32_t valid = rest < 20 ? 1 : rest / 10 < VALID_MAX ? rest / 10 : VALID_MAX;
    d->n[SPLIT_TEST] = n_test ? n_test : own_test;
    d->n[SPLIT_VALID] = valid;
    d->n[SPLIT_TRAIN] = rest - valid;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        d->index[s] = malloc((size_t)d->n[s] * sizeof *d->index[s]);
        if (!d->index[s]) {
            free(perm);
            return err_set(e, ERR_NOMEM, "out of memory for the splits");
        }
    }
    for (uint32_t i = 0; i < d->n[SPLIT_TEST]; i++)
        d->index[SPLIT_TEST][i] = n_test ? i : perm[i];
    memcpy(d->index[SPLIT_VALID], perm + own_test, (size_t)valid * sizeof *perm);
    memcpy(d->index[SPLIT_TRAIN], perm + own_test + valid, (size_t)d->n[SPLIT_TRAIN] * sizeof *perm);
    free(perm);
    return 0;
}

int dataset_open(struct dataset *d, const char *path, struct errbuf *e)
{
    *d = (struct dataset){ 0 };
    struct st_file f;
    uint32_t n[PART_COUNT] = { 0 };
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    rc = check_meta(d, &f, e);
    if (rc == 0)
        rc = check_part(d, &f, PART_TRAIN, &n[PART_TRAIN], e);
    if (rc == 0 && (st_find(&f, "test.images") || st_find(&f, "test.labels")))
        rc = check_part(d, &f, PART_TEST, &n[PART_TEST], e);
    if (rc == 0 && n[PART_TRAIN] < TRAIN_MIN)
        rc = err_set(e, ERR_INPUT, "tensor train.images has fewer than %d images", TRAIN_MIN);
    if (rc == 0) {
        hash_bytes(f.map, (size_t)f.map_len, d->hash);
        rc = make_splits(d, n[PART_TRAIN], n[PART_TEST], e);
    }
    if (rc == 0) { /* the mapping is ours now */
        d->map = f.map;
        d->map_len = (size_t)f.map_len;
        f.map = NULL;
    } else {
        rc = err_wrap(e, rc, "dataset %s", path);
        dataset_close(d);
    }
    st_close(&f);
    return rc;
}

void dataset_close(struct dataset *d)
{
    for (int s = 0; s < SPLIT_COUNT; s++)
        free(d->index[s]);
    if (d->map)
        munmap(d->map, d->map_len);
    *d = (struct dataset){ 0 };
}

static int part_of(const struct dataset *d, enum split s) { return s == SPLIT_TEST && d->images[PART_TEST] ? PART_TEST : PART_TRAIN; }

const uint8_t *dataset_image(const struct dataset *d, enum split s, uint32_t i)
{
    return d->images[part_of(d, s)] + (size_t)d->index[s][i] * (size_t)d->c * (size_t)d->h * (size_t)d->w;
}

int dataset_label(const struct dataset *d, enum split s, uint32_t i)
{
    int part = part_of(d, s);
    uint32_t row = d->index[s][i];
    return d->labels16[part] ? d->labels16[part][row] : d->labels8[part][row];
}

/* ---- importing ---- */

static const struct import_format *const formats[] = { &import_idx, &import_cifar, &import_folder, &import_native };
#define N_FORMATS (sizeof formats / sizeof *formats)

int raw_part_alloc(struct raw_part *p, const struct raw_set *s, uint64_t n, const char *file, struct errbuf *e)
{
    if (s->c < 1 || s->h < 1 || s->w < 1 || s->c > IMPORT_MAX_SIDE || s->h > IMPORT_MAX_SIDE || s->w > IMPORT_MAX_SIDE)
        return err_set(e, ERR_INPUT, "%s: images of %d x %d x %d: each must be from 1 to %d", file, s->c, s->h, s->w, IMPORT_MAX_SIDE);
    uint64_t one = (uint64_t)s->c * (uint64_t)s->h * (uint64_t)s->w;
    if (n < 1 || n > UINT32_MAX || n > IMPORT_MAX_BYTES / one)
        return err_set(e, ERR_INPUT, "%s: %llu images of %llu bytes: none, or more than %llu bytes", file, (unsigned long long)n,
                       (unsigned long long)one, IMPORT_MAX_BYTES);
    p->n = (uint32_t)n;
    p->images = malloc((size_t)(n * one));
    p->labels = malloc((size_t)n * sizeof *p->labels);
    return p->images && p->labels ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory for %llu images", file, (unsigned long long)n);
}

void raw_set_fini(struct raw_set *s)
{
    for (int i = 0; i < PART_COUNT; i++) {
        free(s->part[i].images);
        free(s->part[i].labels);
    }
    for (int i = 0; s->class_name && i < s->n_classes; i++)
        free(s->class_name[i]);
    free(s->class_name);
    *s = (struct raw_set){ 0 };
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int import_list(const char *dir, struct import_list *out, struct errbuf *e)
{
    *out = (struct import_list){ 0 };
    int cap = 0, rc = 0;
    DIR *d = opendir(dir);
    if (!d)
        return fs_error(e, errno, "cannot open folder", dir);
    for (struct dirent *it; rc == 0 && (it = readdir(d));) {
        if (it->d_name[0] == '.')
            continue;
        if (out->n == cap) {
            cap = cap ? 2 * cap : 64;
            char **more = realloc(out->name, (size_t)cap * sizeof *more);
            if (!more) { rc = err_set(e, ERR_NOMEM, "%s: out of memory for %d names", dir, cap); break; }
            out->name = more;
        }
        out->name[out->n] = strdup(it->d_name);
        if (out->name[out->n]) out->n++;
        else                   rc = err_set(e, ERR_NOMEM, "%s: out of memory for names", dir);
    }
    closedir(d);
    if (rc < 0)
        import_list_fini(out);
    else if (out->n)
        qsort(out->name, (size_t)out->n, sizeof *out->name, by_bytes); /* the order on disk must not show in the hash */
    return rc;
}

void import_list_fini(struct import_list *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    *l = (struct import_list){ 0 };
}

static int check_set(struct raw_set *s, const char *source, struct errbuf *e)
{
    int top = 0;
    for (int p = 0; p < PART_COUNT; p++)
        for (uint32_t i = 0; i < s->part[p].n; i++)
            if (s->part[p].labels[i] > top)
                top = s->part[p].labels[i];
    if (s->n_classes == 0)
        s->n_classes = top + 1;
    if (top >= s->n_classes)
        return err_set(e, ERR_INPUT, "%s: label %d, but there are %d classes", source, top, s->n_classes);
    if (s->n_classes < 2)
        return err_set(e, ERR_INPUT, "%s: only one class: nothing to tell apart", source);
    if (s->part[PART_TRAIN].n < TRAIN_MIN)
        return err_set(e, ERR_INPUT, "%s: %u training images, at least %d are needed", source, s->part[PART_TRAIN].n, TRAIN_MIN);
    return 0;
}

static char *class_names_json(const struct raw_set *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->n_classes; i++)
        json_array_append_new(list, json_string(s->class_name[i]));
    char *text = json_array_size(list) == (size_t)s->n_classes ? json_dumps(list, JSON_COMPACT) : NULL; /* short: not UTF-8 */
    json_decref(list);
    return text;
}

static int write_set(struct raw_set *s, const char *out_path, struct errbuf *e)
{
    struct st_tensor t[2 * PART_COUNT] = { 0 };
    int n = 0, n_meta = 2;
    bool wide = s->n_classes > 256;
    for (int p = 0; p < PART_COUNT; p++) {
        struct raw_part *r = &s->part[p];
        if (!r->n)
            continue;
        uint8_t *narrow = (uint8_t *)r->labels; /* narrowed in place: byte i is written after word i was read */
        for (uint32_t i = 0; !wide && i < r->n; i++) {
            uint16_t label = r->labels[i];
            narrow[i] = (uint8_t)label;
        }
        t[n] = (struct st_tensor){ .dtype = ST_U8, .ndim = 4, .data = r->images,
                                   .dim = { r->n, (uint64_t)s->c, (uint64_t)s->h, (uint64_t)s->w } };
        snprintf(t[n++].name, sizeof t->name, "%s", part_names[p][0]);
        t[n] = (struct st_tensor){ .dtype = wide ? ST_U16 : ST_U8, .ndim = 1, .dim = { r->n }, .data = r->labels };
        snprintf(t[n++].name, sizeof t->name, "%s", part_names[p][1]);
    }
    char classes[16], *names = s->class_name ? class_names_json(s) : NULL;
    snprintf(classes, sizeof classes, "%d", s->n_classes);
    const char *meta[] = { "format", FORMAT, "classes", classes, "class_names", names };
    if (names)
        n_meta = 3;
    int rc = st_write(out_path, t, n, meta, n_meta, e);
    free(names);
    return rc;
}

int dataset_import(const char *source, const char *out_path, hash_str hash, struct errbuf *e)
{
    if (access(source, R_OK) < 0)
        return fs_error(e, errno, "cannot import from", source);
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (!formats[i]->detect(source))
            continue;
        struct raw_set s = { 0 };
        int rc = formats[i]->read(source, &s, e);
        if (rc == 0)
            rc = check_set(&s, source, e);
        if (rc == 0)
            rc = write_set(&s, out_path, e);
        raw_set_fini(&s);
        return rc < 0 ? rc : hash_file(out_path, hash, e);
    }
    char known[256] = "";
    for (size_t i = 0, at = 0; i < N_FORMATS && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? "; " : "", formats[i]->looks_like);
    return err_set(e, ERR_INPUT, "%s: no known dataset in this folder (looked for %s)", source, known);
}
