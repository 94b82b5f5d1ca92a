/* CIFAR-10 binary: data_batch_*.bin and test_batch.bin, records of one label byte and 3 x 32 x 32 bytes, already C,H,W.
 * CIFAR-100 binary: train.bin and test.bin, records of a coarse and a fine label (we take the fine one) and the same pixels.
 * Names of the classes are read from batches.meta.txt or fine_label_names.txt where they are. */
#include "common/fsio.h"
#include "common/import.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIXELS 3072

struct layout {
    const char *glob[PART_COUNT], *names;
    size_t      label_bytes; /* the label is the last of them */
    int         classes;
};
static const struct layout layouts[] = {
    { { "data_batch_*.bin", "test_batch.bin" }, "batches.meta.txt", 1, 10 },
    { { "train.bin", "test.bin" }, "fine_label_names.txt", 2, 100 },
};
#define N_LAYOUTS (sizeof layouts / sizeof *layouts)

static const struct layout *layout_of(const struct import_list *l)
{
    for (size_t k = 0; k < N_LAYOUTS; k++)
        for (int i = 0; i < l->n; i++)
            if (fnmatch(layouts[k].glob[PART_TRAIN], l->name[i], 0) == 0)
                return &layouts[k];
    return NULL;
}

static bool detect(const char *source)
{
    struct import_list l;
    if (import_list(source, &l, NULL) < 0)
        return false;
    bool found = layout_of(&l) != NULL;
    import_list_fini(&l);
    return found;
}

static int path_in(const char *source, const char *name, char path[FS_PATH_MAX], struct errbuf *e)
{
    return snprintf(path, FS_PATH_MAX, "%s/%s", source, name) < FS_PATH_MAX ? 0 : fs_error(e, ENAMETOOLONG, "cannot open", source);
}

/* Whole records in the file, at least one. */
static int count_records(const char *path, size_t record, uint64_t *n, struct errbuf *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fs_error(e, errno, "cannot read", path);
    uint64_t size = (uint64_t)st.st_size;
    if (!S_ISREG(st.st_mode) || size == 0 || size % record)
        return err_set(e, ERR_INPUT, "%s: %llu bytes are not a whole number of records of %zu bytes (cut off?)", path,
                       (unsigned long long)size, record);
    *n += size / record;
    return 0;
}

static int read_file(const char *path, const struct layout *y, struct raw_part *p, uint64_t *row, struct errbuf *e)
{
    int rc = 0;
    uint8_t label[2];
    uint64_t n = 0;
    FILE *f = fopen(path, "rbe");
    if (!f)
        return fs_error(e, errno, "cannot open", path);
    rc = count_records(path, y->label_bytes + PIXELS, &n, e);
    for (uint64_t i = 0; rc == 0 && i < n && *row < p->n; i++, ++*row) {
        if (fread(label, y->label_bytes, 1, f) != 1 || fread(p->images + *row * PIXELS, PIXELS, 1, f) != 1)
            rc = err_set(e, ERR_INPUT, "%s: cut off in record %llu", path, (unsigned long long)i);
        else if (label[y->label_bytes - 1] >= y->classes)
            rc = err_set(e, ERR_INPUT, "%s: record %llu has label %d, there are %d classes", path, (unsigned long long)i,
                         label[y->label_bytes - 1], y->classes);
        else
            p->labels[*row] = label[y->label_bytes - 1];
    }
    fclose(f);
    return rc;
}

static int read_part(const char *source, const struct import_list *l, const struct layout *y, int part, struct raw_set *s, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    uint64_t n = 0, row = 0;
    for (int i = 0; i < l->n; i++) {
        if (fnmatch(y->glob[part], l->name[i], 0) != 0)
            continue;
        int rc = path_in(source, l->name[i], path, e);
        if (rc == 0)
            rc = count_records(path, y->label_bytes + PIXELS, &n, e);
        if (rc < 0)
            return rc;
    }
    if (n == 0) /* a test batch may be absent; the training ones are what made us read this folder */
        return 0;
    int rc = raw_part_alloc(&s->part[part], s, n, source, e);
    for (int i = 0; rc == 0 && i < l->n; i++)
        if (fnmatch(y->glob[part], l->name[i], 0) == 0 && (rc = path_in(source, l->name[i], path, e)) == 0)
            rc = read_file(path, y, &s->part[part], &row, e);
    if (rc == 0 && row != n)
        rc = err_set(e, ERR_INPUT, "%s: its files changed while they were read", source);
    return rc;
}

/* One name a line, as many as there are classes; a file that is absent or has another count is passed over. */
static int read_names(const char *source, const struct layout *y, struct raw_set *s, struct errbuf *e)
{
    char path[FS_PATH_MAX], *text = NULL, *save = NULL;
    int rc = path_in(source, y->names, path, e), n = 0;
    if (rc < 0 || fs_read_all(path, 65536, &text, NULL, NULL) < 0)
        return rc;
    s->class_name = calloc((size_t)y->classes, sizeof *s->class_name);
    if (!s->class_name)
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    for (char *w = strtok_r(text, "\r\n", &save); rc == 0 && w; w = strtok_r(NULL, "\r\n", &save), n++)
        if (n < y->classes && !(s->class_name[n] = strdup(w)))
            rc = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (rc == 0 && n != y->classes) {
        for (int i = 0; i < y->classes; i++)
            free(s->class_name[i]);
        free(s->class_name);
        s->class_name = NULL;
    }
    free(text);
    return rc;
}

static int read_source(const char *source, struct raw_set *out, struct errbuf *e)
{
    struct import_list l;
    int rc = import_list(source, &l, e);
    if (rc < 0)
        return rc;
    const struct layout *y = layout_of(&l);
    if (!y) { rc = err_set(e, ERR_INPUT, "%s: its files changed while they were read", source); goto done; }
    out->c = 3;
    out->h = out->w = 32;
    out->n_classes = y->classes;
    for (int part = 0; rc == 0 && part < PART_COUNT; part++)
        rc = read_part(source, &l, y, part, out, e);
    if (rc == 0)
        rc = read_names(source, y, out, e);
done:
    import_list_fini(&l);
    return rc;
}

const struct import_format import_cifar = { "cifar", "data_batch_*.bin", detect, read_source };
