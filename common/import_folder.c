/* A folder train/CLASS/X.png|jpg and maybe test/CLASS/X.png|jpg. Classes are the folders of train, in bytewise order of
 * their names; images are read in the order of theirs. All images have one size; where any has colour, gray ones get three
 * equal channels. Other files (labels, notes) are passed over, but images of a kind we cannot read are refused, not lost. */
#include "common/fsio.h"
#include "common/image_file.h"
#include "common/import.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const part_folder[PART_COUNT] = { "train", "test" };

struct item { char *path; uint16_t label; };
struct items { size_t n, cap; struct item *item; };

static void items_fini(struct items *v)
{
    for (size_t i = 0; i < v->n; i++)
        free(v->item[i].path);
    free(v->item);
}

static int join(char out[FS_PATH_MAX], const char *dir, const char *name, struct errbuf *e)
{
    return snprintf(out, FS_PATH_MAX, "%s/%s", dir, name) < FS_PATH_MAX ? 0 : fs_error(e, ENAMETOOLONG, "cannot open", dir);
}

static bool detect(const char *source)
{
    char path[FS_PATH_MAX];
    return join(path, source, part_folder[PART_TRAIN], NULL) == 0 && fs_is_dir(path);
}

static int add_item(struct items *v, const char *path, int label, struct errbuf *e)
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 1024;
        struct item *p = realloc(v->item, cap * sizeof *p);
        if (!p)
            return err_set(e, ERR_NOMEM, "%s: out of memory for %zu images", path, cap);
        v->item = p;
        v->cap = cap;
    }
    v->item[v->n] = (struct item){ strdup(path), (uint16_t)label };
    return v->item[v->n].path ? (v->n++, 0) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

static int list_class(const char *dir, int label, struct items *v, struct errbuf *e)
{
    struct import_list l;
    char path[FS_PATH_MAX];
    size_t before = v->n;
    int rc = import_list(dir, &l, e);
    for (int i = 0; rc == 0 && i < l.n; i++) {
        rc = join(path, dir, l.name[i], e);
        if (rc == 0 && image_is_other(l.name[i]))
            rc = err_set(e, ERR_INPUT, "%s: only PNG and JPEG images can be imported", path);
        else if (rc == 0 && image_is_image(l.name[i]) && !fs_is_dir(path))
            rc = add_item(v, path, label, e);
    }
    import_list_fini(&l);
    if (rc == 0 && v->n == before)
        rc = err_set(e, ERR_INPUT, "%s: class folder without a PNG or JPEG image", dir);
    return rc;
}

/* The folders of `dir` as classes, sorted; files beside them are passed over. */
static int list_classes(const char *dir, struct raw_set *s, struct errbuf *e)
{
    struct import_list l;
    char path[FS_PATH_MAX];
    int rc = import_list(dir, &l, e);
    if (rc == 0 && !(s->class_name = calloc((size_t)l.n + 1, sizeof *s->class_name)))
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", dir);
    for (int i = 0; rc == 0 && i < l.n; i++) {
        rc = join(path, dir, l.name[i], e);
        if (rc == 0 && fs_is_dir(path)) { /* the name moves to the set */
            s->class_name[s->n_classes++] = l.name[i];
            l.name[i] = NULL;
        }
    }
    import_list_fini(&l);
    if (rc == 0 && (s->n_classes < 2 || s->n_classes > DATASET_MAX_CLASSES))
        rc = err_set(e, ERR_INPUT, "%s: %d class folders, expected from 2 to %d", dir, s->n_classes, DATASET_MAX_CLASSES);
    return rc;
}

static int label_of(const struct raw_set *s, const char *name)
{
    for (int lo = 0, hi = s->n_classes; lo < hi;) {
        int mid = (lo + hi) / 2, c = strcmp(name, s->class_name[mid]);
        if (c == 0)
            return mid;
        if (c < 0) hi = mid;
        else       lo = mid + 1;
    }
    return -1;
}

static int list_part(const char *dir, const struct raw_set *s, struct items *v, struct errbuf *e)
{
    struct import_list l;
    char path[FS_PATH_MAX];
    int rc = import_list(dir, &l, e);
    for (int i = 0; rc == 0 && i < l.n; i++) {
        rc = join(path, dir, l.name[i], e);
        if (rc < 0 || !fs_is_dir(path))
            continue;
        int label = label_of(s, l.name[i]);
        rc = label < 0 ? err_set(e, ERR_INPUT, "%s: a class that train has not", path) : list_class(path, label, v, e);
    }
    import_list_fini(&l);
    return rc;
}

/* One size for all; 3 channels where any image has colour. `first` names the image that set the size. */
static int probe(const struct items *v, struct raw_set *s, char first[FS_PATH_MAX], struct errbuf *e)
{
    for (size_t i = 0; i < v->n; i++) {
        struct image_info info;
        int rc = image_probe(v->item[i].path, &info, e);
        if (rc < 0)
            return rc;
        if (!s->c) {
            s->h = info.h;
            s->w = info.w;
            snprintf(first, FS_PATH_MAX, "%s", v->item[i].path);
        }
        if (info.h != s->h || info.w != s->w)
            return err_set(e, ERR_INPUT, "%s: %d x %d pixels, but %s has %d x %d; all images must have one size", v->item[i].path,
                           info.w, info.h, first, s->w, s->h);
        s->c = info.c > s->c ? info.c : s->c;
    }
    return 0;
}

static int decode(const struct items *v, const char *dir, struct raw_set *s, struct raw_part *p, struct errbuf *e)
{
    const struct image_info want = { s->c, s->h, s->w };
    size_t one = (size_t)s->c * (size_t)s->h * (size_t)s->w;
    int rc = raw_part_alloc(p, s, v->n, dir, e);
    for (size_t i = 0; rc == 0 && i < v->n; i++) {
        rc = image_read(v->item[i].path, &want, p->images + i * one, e);
        p->labels[i] = v->item[i].label;
    }
    return rc;
}

static int read_source(const char *source, struct raw_set *out, struct errbuf *e)
{
    char dir[PART_COUNT][FS_PATH_MAX], first[FS_PATH_MAX];
    struct items v[PART_COUNT] = { 0 };
    int rc = 0;
    for (int p = 0; rc == 0 && p < PART_COUNT; p++)
        rc = join(dir[p], source, part_folder[p], e);
    if (rc == 0)
        rc = list_classes(dir[PART_TRAIN], out, e);
    for (int p = 0; rc == 0 && p < PART_COUNT; p++)
        if (fs_is_dir(dir[p]))
            rc = list_part(dir[p], out, &v[p], e);
    for (int p = 0; rc == 0 && p < PART_COUNT; p++) /* both parts before any pixel: they agree on the channels */
        rc = probe(&v[p], out, first, e);
    for (int p = 0; rc == 0 && p < PART_COUNT; p++)
        if (v[p].n)
            rc = decode(&v[p], dir[p], out, &out->part[p], e);
    for (int p = 0; p < PART_COUNT; p++)
        items_fini(&v[p]);
    return rc;
}

const struct import_format import_folder = { "folder", "train/CLASS/*.png or *.jpg", detect, read_source };
