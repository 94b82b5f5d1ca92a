#include "common/curriculum.h"

#include "common/blob.h"
#include "common/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT      "didact-curriculum-1"
#define FORMAT_STEM "didact-curriculum-"
#define STEPS_MAX   (1 << 20)
#define SIDE_MAX    65536

static int check_sizes(const struct curriculum *c, struct errbuf *e)
{
    if (c->T < 1 || c->T > STEPS_MAX)
        return err_set(e, ERR_INPUT, "%d steps: not from 1 to %d", c->T, STEPS_MAX);
    const struct { const char *what; int n, least; } sides[] = {
        { "batch", c->B, 1 }, { "channels", c->c, 1 }, { "height", c->h, 1 }, { "width", c->w, 1 }, { "classes", c->K, 2 } };
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        if (sides[i].n < sides[i].least || sides[i].n > SIDE_MAX)
            return err_set(e, ERR_INPUT, "%s %d: not from %d to %d", sides[i].what, sides[i].n, sides[i].least, SIDE_MAX);
    return 0;
}

/* Labels are free (never renormalised); a step may stand still but not go backwards; momentum above 1 only diverges. */
static int check_values(const struct curriculum *c, struct errbuf *e)
{
    size_t n = (size_t)c->T * (size_t)c->B * (size_t)c->K;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(c->labels[i]))
            return err_set(e, ERR_INPUT, "labels of step %zu are not finite", i / ((size_t)c->B * (size_t)c->K));
    for (int t = 0; t < c->T; t++) {
        if (!isfinite(c->lr[t]) || c->lr[t] < 0)
            return err_set(e, ERR_INPUT, "lr of step %d is %g, not a finite number >= 0", t, (double)c->lr[t]);
        if (!(c->mu[t] >= 0 && c->mu[t] <= 1))
            return err_set(e, ERR_INPUT, "mu of step %d is %g, not in [0, 1]", t, (double)c->mu[t]);
    }
    return 0;
}

static int load_meta(struct curriculum *c, const struct st_file *f, struct errbuf *e)
{
    const char *format = st_meta(f, "format"), *inner = st_meta(f, "inner"), *prov = st_meta(f, "provenance");
    if (!format || strncmp(format, FORMAT_STEM, strlen(FORMAT_STEM)) != 0)
        return err_set(e, ERR_INPUT, "metadata says format %s: not a curriculum", format ? format : "(none)");
    if (strcmp(format, FORMAT) != 0)
        return err_set(e, ERR_VERSION, "metadata says format %s, this version reads " FORMAT, format);
    if (prov && strlen(prov) >= sizeof c->provenance)
        return err_set(e, ERR_INPUT, "metadata provenance is longer than %zu bytes", sizeof c->provenance - 1);
    snprintf(c->provenance, sizeof c->provenance, "%s", prov ? prov : "");
    if (!inner)
        return err_set(e, ERR_INPUT, "metadata inner is missing");
    json_error_t je;
    json_t *j = json_loads(inner, JSON_REJECT_DUPLICATES, &je);
    if (!j)
        return err_set(e, ERR_INPUT, "metadata inner is not JSON: %s", je.text);
    int rc = inner_from_json(&c->inner, j, "metadata inner", e);
    json_decref(j);
    return rc;
}

static int to_int(uint64_t n) { return n > INT32_MAX ? -1 : (int)n; } /* -1 is refused by check_sizes */

static void *copy_of(const struct st_tensor *t)
{
    void *p = malloc(t->bytes ? (size_t)t->bytes : 1);
    if (p)
        memcpy(p, t->data, (size_t)t->bytes);
    return p;
}

static int load_tensors(struct curriculum *c, const struct st_file *f, struct errbuf *e)
{
    const struct st_tensor *x, *y, *lr, *mu;
    int64_t xs[5] = { -1, -1, -1, -1, -1 };
    int rc = st_need(f, "images", ST_U8, 5, xs, &x, e);
    if (rc < 0)
        return rc;
    int64_t ys[3] = { (int64_t)x->dim[0], (int64_t)x->dim[1], -1 };
    if ((rc = st_need(f, "labels", ST_F32, 3, ys, &y, e)) < 0 || (rc = st_need(f, "lr", ST_F32, 1, ys, &lr, e)) < 0 ||
        (rc = st_need(f, "mu", ST_F32, 1, ys, &mu, e)) < 0)
        return rc;
    c->T = to_int(x->dim[0]);
    c->B = to_int(x->dim[1]);
    c->c = to_int(x->dim[2]);
    c->h = to_int(x->dim[3]);
    c->w = to_int(x->dim[4]);
    c->K = to_int(y->dim[2]);
    rc = check_sizes(c, e);
    if (rc < 0)
        return rc;
    c->images = copy_of(x);
    c->labels = copy_of(y);
    c->lr = copy_of(lr);
    c->mu = copy_of(mu);
    return c->images && c->labels && c->lr && c->mu ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

int curriculum_load(struct curriculum *c, const char *path, struct errbuf *e)
{
    *c = (struct curriculum){ 0 };
    struct st_file f;
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    rc = load_meta(c, &f, e);
    if (rc == 0)
        rc = load_tensors(c, &f, e);
    if (rc == 0)
        rc = check_values(c, e);
    if (rc == 0) {
        hash_bytes(f.map, (size_t)f.map_len, c->hash);
    } else {
        rc = err_wrap(e, rc, "curriculum %s", path);
        curriculum_fini(c);
    }
    st_close(&f);
    return rc;
}

/* The dataset that the provenance names, for those who look at the file with other tools. */
static int dataset_of(const struct curriculum *c, hash_str out, struct errbuf *e)
{
    out[0] = 0;
    if (!c->provenance[0])
        return 0;
    json_error_t je;
    json_t *j = json_loads(c->provenance, 0, &je);
    if (!json_is_object(j)) {
        json_decref(j);
        return err_set(e, ERR_INPUT, "provenance is not a JSON object");
    }
    const char *s = json_string_value(json_object_get(j, "dataset_hash"));
    if (!s)
        s = json_string_value(json_object_get(j, "dataset"));
    if (s)
        snprintf(out, HASH_HEX_LEN + 1, "%s", s);
    json_decref(j);
    return 0;
}

int curriculum_save(struct curriculum *c, const char *path, struct errbuf *e)
{
    hash_str dataset;
    int rc = check_sizes(c, e);
    if (rc == 0)
        rc = check_values(c, e);
    if (rc == 0)
        rc = dataset_of(c, dataset, e);
    if (rc < 0)
        return err_wrap(e, rc, "curriculum %s", path);
    json_t *inner = inner_to_json(&c->inner);
    char *inner_text = inner ? json_dumps(inner, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(inner);
    if (!inner_text)
        return err_set(e, ERR_NOMEM, "curriculum %s: out of memory", path);
    uint64_t T = (uint64_t)c->T, B = (uint64_t)c->B;
    const struct st_tensor t[] = {
        { .name = "images", .dtype = ST_U8, .ndim = 5, .dim = { T, B, (uint64_t)c->c, (uint64_t)c->h, (uint64_t)c->w }, .data = c->images },
        { .name = "labels", .dtype = ST_F32, .ndim = 3, .dim = { T, B, (uint64_t)c->K }, .data = c->labels },
        { .name = "lr", .dtype = ST_F32, .ndim = 1, .dim = { T }, .data = c->lr },
        { .name = "mu", .dtype = ST_F32, .ndim = 1, .dim = { T }, .data = c->mu },
    };
    const char *meta[] = { "format", FORMAT, "inner", inner_text, "dataset", dataset, "provenance", c->provenance };
    rc = st_write(path, t, 4, meta, 4, e);
    free(inner_text);
    return rc < 0 ? rc : hash_file(path, c->hash, e);
}

void curriculum_fini(struct curriculum *c)
{
    free(c->images);
    free(c->labels);
    free(c->lr);
    free(c->mu);
    *c = (struct curriculum){ 0 };
}

static const float *label_of(const struct curriculum *c, int t, int b)
{
    return c->labels + ((size_t)t * (size_t)c->B + (size_t)b) * (size_t)c->K;
}

int curriculum_class(const struct curriculum *c, int t, int b)
{
    const float *y = label_of(c, t, b);
    int best = 0;
    for (int k = 1; k < c->K; k++)
        if (y[k] > y[best])
            best = k;
    return best;
}

void curriculum_class_sums(const struct curriculum *c, int from, int to, double *out)
{
    memset(out, 0, (size_t)c->K * sizeof *out);
    for (int t = from; t < to; t++)
        for (int b = 0; b < c->B; b++) {
            const float *y = label_of(c, t, b);
            for (int k = 0; k < c->K; k++)
                out[k] += (double)y[k];
        }
}
