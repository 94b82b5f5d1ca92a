/* A dataset file of our own, as `didact dataset export` writes it: the same images, labels and names give the same file again, so the
 * same hash. */
#include "common/dataset.h"
#include "common/fsio.h"
#include "common/import.h"
#include "common/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static bool detect(const char *source) { return !fs_is_dir(source); } /* whatever it is, only this could be meant */

static int take_names(const char *source, struct raw_set *s, struct errbuf *e)
{
    struct st_file f;
    int rc = st_open(&f, source, e);
    if (rc < 0)
        return rc;
    const char *text = st_meta(&f, "class_names");
    json_t *list = text ? json_loads(text, 0, NULL) : NULL;
    if (text && json_array_size(list) != (size_t)s->n_classes)
        rc = err_set(e, ERR_INPUT, "%s: metadata class_names is not a list of %d names", source, s->n_classes);
    if (rc == 0 && text && !(s->class_name = calloc((size_t)s->n_classes, sizeof *s->class_name)))
        rc = err_set(e, ERR_NOMEM, "%s: %d class names", source, s->n_classes);
    for (int i = 0; rc == 0 && text && i < s->n_classes; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));
        if (!name)
            rc = err_set(e, ERR_INPUT, "%s: metadata class_names: item %d is no text", source, i + 1);
        else if (!(s->class_name[i] = strdup(name)))
            rc = err_set(e, ERR_NOMEM, "%s: %d class names", source, s->n_classes);
    }
    json_decref(list);
    st_close(&f);
    return rc;
}

static int take_part(const struct dataset *d, const char *source, int part, uint32_t n, struct raw_set *s, struct errbuf *e)
{
    int rc = raw_part_alloc(&s->part[part], s, n, source, e);
    if (rc < 0)
        return rc;
    memcpy(s->part[part].images, d->images[part], (size_t)n * (size_t)d->c * (size_t)d->h * (size_t)d->w);
    for (uint32_t i = 0; i < n; i++)
        s->part[part].labels[i] = d->labels16[part] ? d->labels16[part][i] : d->labels8[part][i];
    return 0;
}

static int read_source(const char *source, struct raw_set *out, struct errbuf *e)
{
    struct dataset d;
    int rc = dataset_open(&d, source, e);
    if (rc < 0)
        return rc;
    const bool own_test = d.images[PART_TEST] != NULL; /* otherwise its test split is rows of the train part */
    out->c = d.c;
    out->h = d.h;
    out->w = d.w;
    out->n_classes = d.n_classes;
    rc = take_names(source, out, e);
    if (rc == 0)
        rc = take_part(&d, source, PART_TRAIN, d.n[SPLIT_TRAIN] + d.n[SPLIT_VALID] + (own_test ? 0 : d.n[SPLIT_TEST]), out, e);
    if (rc == 0 && own_test)
        rc = take_part(&d, source, PART_TEST, d.n[SPLIT_TEST], out, e);
    dataset_close(&d);
    return rc;
}

const struct import_format import_native = { "native", "FILE.safetensors as `didact dataset export` writes it", detect, read_source };
