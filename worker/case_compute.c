/* The computing half of a case: tensors in, one outer step, tensors out, comparison. */
#include "worker/case_int.h"
#include "worker/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool listed(const struct gcase *c, const char *key, const char *name)
{
    const json_t *list = json_object_get(c->doc, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

static enum st_dtype real_type(const struct gcase *c) { return c->dtype == ENG_F64 ? ST_F64 : ST_F32; }

static int input(const struct gcase *c, const char *name, int ndim, const int64_t *dim, bool real, const struct st_tensor **t,
                 struct errbuf *e)
{
    if (!listed(c, "inputs", name))
        return err_set(e, ERR_INPUT, "inputs: %s is needed and not listed", name);
    enum st_dtype want = real_type(c);
    if (!real) {
        const struct st_tensor *found = st_find(&c->file, name);
        want = found && found->dtype == ST_I64 ? ST_I64 : ST_I32;
    }
    return st_need(&c->file, name, want, ndim, dim, t, e);
}

static void put(const struct gcase *c, void *p, size_t i, double v)
{
    if (c->dtype == ENG_F64)
        ((double *)p)[i] = v;
    else
        ((float *)p)[i] = (float)v;
}

static double at(enum st_dtype t, const void *p, size_t i)
{
    switch (t) {
    case ST_F64: { double v; memcpy(&v, (const char *)p + 8 * i, 8); return v; }
    case ST_I64: { int64_t v; memcpy(&v, (const char *)p + 8 * i, 8); return (double)v; }
    case ST_I32: { int32_t v; memcpy(&v, (const char *)p + 4 * i, 4); return v; }
    default:     { float v; memcpy(&v, (const char *)p + 4 * i, 4); return (double)v; }
    }
}

/* Into `outside` [P], or only to see that they are all there. */
static int gather_params(const struct gcase *c, const struct net *n, const char *prefix, char *outside, struct errbuf *e)
{
    size_t es = eng_dtype_size(c->dtype);
    int rc = 0;
    for (int i = 0; rc == 0 && i < n->n_params; i++) {
        const struct net_param *p = &n->param[i];
        const struct st_tensor *t;
        char name[sizeof t->name];
        int64_t dim[4];
        for (int d = 0; d < p->ndim; d++)
            dim[d] = p->dim[d];
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        if ((rc = input(c, name, p->ndim, dim, true, &t, e)) == 0 && outside)
            memcpy(outside + p->offset * es, t->data, p->size * es);
    }
    return rc;
}

static int read_params(const struct gcase *c, const struct net *n, const char *prefix, void **out, struct errbuf *e)
{
    size_t es = eng_dtype_size(c->dtype);
    char *outside = mem_array(n->param_count, es);
    *out = mem_array(n->param_count, es);
    int rc = outside && *out ? gather_params(c, n, prefix, outside, e)
                             : err_set(e, ERR_NOMEM, "%llu parameters", (unsigned long long)n->param_count);
    if (rc == 0)
        eng_params_import(n, c->dtype, outside, *out);
    free(outside);
    return rc;
}

static int read_images(const struct gcase *c, const char *name, int ndim, const int64_t *dim, void *to, struct errbuf *e)
{
    const struct st_tensor *t;
    int rc = input(c, name, ndim, dim, true, &t, e);
    if (rc == 0) {
        void *aligned = mem_array(t->count, eng_dtype_size(c->dtype)); /* a mapping promises no alignment */
        if (!aligned)
            return err_set(e, ERR_NOMEM, "%s", name);
        memcpy(aligned, t->data, t->bytes);
        eng_images_import(c->dtype, (size_t)(t->count / ((uint64_t)c->c * c->h * c->w)), c->c, c->h, c->w, aligned, to);
        free(aligned);
    }
    return rc;
}

/* Labels of `n` images into one-hot or soft rows [n,K]; dim has room for one more. */
static int read_labels(const struct gcase *c, const char *name, int ndim, int64_t *dim, bool soft, void *to, int *label,
                       struct errbuf *e)
{
    const struct st_tensor *t;
    dim[ndim] = c->K;
    int rc = input(c, name, soft ? ndim + 1 : ndim, dim, soft, &t, e);
    if (rc < 0)
        return rc;
    if (soft) {
        memcpy(to, t->data, t->bytes);
        return 0;
    }
    for (size_t i = 0; i < t->count; i++) {
        double v = at(t->dtype, t->data, i);
        if (!(v >= 0 && v < c->K))
            return err_set(e, ERR_INPUT, "tensor %s: label %zu is %.0f, there are %d classes", name, i, v, c->K);
        for (int k = 0; k < c->K; k++)
            put(c, to, i * (size_t)c->K + (size_t)k, k == (int)v);
        if (label)
            label[i] = (int)v;
    }
    return 0;
}

static int read_vector(const struct gcase *c, const char *name, double **out, struct errbuf *e)
{
    const struct st_tensor *t;
    int rc = input(c, name, 1, (int64_t[]){ c->T }, true, &t, e);
    if (rc < 0)
        return rc;
    if (!(*out = mem_array((uint64_t)c->T, sizeof **out)))
        return err_set(e, ERR_NOMEM, "%s", name);
    for (int i = 0; i < c->T; i++)
        (*out)[i] = at(t->dtype, t->data, (size_t)i);
    return 0;
}

static bool is_real(const struct gcase *c, const char *name)
{
    const struct st_tensor *t = st_find(&c->file, name);
    return t && (t->dtype == ST_F32 || t->dtype == ST_F64);
}

/* The real batches: X, Y at step T with weight 1, and Xi[j], Yi[j] of meta_at. */
static int read_meta(const struct gcase *c, struct case_work *k, struct errbuf *e)
{
    size_t es = eng_dtype_size(c->dtype), bx = (size_t)c->meta_batch * k->image, by = (size_t)c->meta_batch * (size_t)c->K;
    int J = c->n_meta_at, M = c->meta_batch;
    int64_t X[] = { M, c->c, c->h, c->w }, Xi[] = { J, M, c->c, c->h, c->w }, Y[] = { M, 0 }, Yi[] = { J, M, 0 };
    k->real_x = mem_array((uint64_t)(J + 1) * bx, es);
    k->real_y = mem_array((uint64_t)(J + 1) * by, es);
    if (!k->real_x || !k->real_y)
        return err_set(e, ERR_NOMEM, "the real batches");
    char *x = k->real_x, *y = k->real_y;
    int rc = read_images(c, "X", 4, X, x, e);
    if (rc < 0 || (rc = read_labels(c, "Y", 1, Y, is_real(c, "Y"), y, NULL, e)) < 0)
        return rc;
    if (J > 0 && ((rc = read_images(c, "Xi", 5, Xi, x + bx * es, e)) < 0 ||
                  (rc = read_labels(c, "Yi", 2, Yi, is_real(c, "Yi"), y + by * es, NULL, e)) < 0))
        return rc;
    for (int j = 0; j <= J; j++)
        k->meta[j] = (struct unroll_meta){ j ? c->meta_step[j - 1] : c->T, j ? c->meta_weight[j - 1] : 1.0,
                                           x + (size_t)j * bx * es, y + (size_t)j * by * es };
    k->n_meta = J + 1;
    return 0;
}

static bool known_input(const struct gcase *c, const char *name)
{
    const char *const direct[] = { "x", "y", "lr", "mu", "X", "Y", "Xi", "Yi", "z" };
    for (size_t i = 0; i < sizeof direct / sizeof direct[0]; i++)
        if (strcmp(name, direct[i]) == 0)
            return (*name != 'z' || c->generator_mode) && (*name != 'x' || !c->generator_mode) && (name[1] != 'i' || c->n_meta_at);
    for (int i = 0; i < c->learner.n_params; i++)
        if (strncmp(name, "w0.", 3) == 0 && strcmp(name + 3, c->learner.param[i].name) == 0)
            return true;
    for (int i = 0; c->generator_mode && i < c->generator.n_params; i++)
        if (strncmp(name, "phi.", 4) == 0 && strcmp(name + 4, c->generator.param[i].name) == 0)
            return true;
    return false;
}

static int read_all(const struct gcase *c, struct case_work *k, struct errbuf *e)
{
    const json_t *in = json_object_get(c->doc, "inputs");
    size_t es = eng_dtype_size(c->dtype);
    int64_t x[] = { c->T, c->B, c->c, c->h, c->w }, y[] = { c->T, c->B, 0 }, z[] = { c->T, c->B, c->zdim };
    for (size_t i = 0; i < json_array_size(in); i++)
        if (!known_input(c, json_string_value(json_array_get(in, i))))
            return err_set(e, ERR_INPUT, "inputs: %s is no input of this case", json_string_value(json_array_get(in, i)));
    const struct st_tensor *t;
    /* The largest first without making room: what a case claims may be far larger than its file. */
    int rc = c->generator_mode ? gather_params(c, &c->generator, "phi.", NULL, e) : input(c, "x", 5, x, true, &t, e);
    if (rc < 0 || (rc = gather_params(c, &c->learner, "w0.", NULL, e)) < 0 ||
        (rc = input(c, "X", 4, (int64_t[]){ c->meta_batch, c->c, c->h, c->w }, true, &t, e)) < 0)
        return rc;
    k->x = mem_array(k->n_x, es);
    k->y = mem_array(k->n_y, es);
    k->label = mem_array((uint64_t)c->T * (uint64_t)c->B, sizeof *k->label);
    if (!k->x || !k->y || !k->label)
        return err_set(e, ERR_NOMEM, "x and y");
    rc = read_params(c, &c->learner, "w0.", &k->w0, e);
    if (rc < 0 || (rc = read_labels(c, "y", 2, y, c->soft_labels, k->y, k->label, e)) < 0 ||
        (rc = read_vector(c, "lr", &k->lr, e)) < 0 || (rc = read_vector(c, "mu", &k->mu, e)) < 0 || (rc = read_meta(c, k, e)) < 0)
        return rc;
    if (!c->generator_mode)
        return read_images(c, "x", 5, x, k->x, e);
    if ((rc = read_params(c, &c->generator, "phi.", &k->phi, e)) < 0 || (rc = input(c, "z", 3, z, true, &t, e)) < 0)
        return rc;
    if (!(k->z = mem_array(t->count, es)))
        return err_set(e, ERR_NOMEM, "z");
    memcpy(k->z, t->data, t->bytes);
    return 0;
}

static int make_room(const struct gcase *c, struct case_work *k, struct errbuf *e)
{
    size_t es = eng_dtype_size(c->dtype);
    struct unroll_out *o = &k->out;
    uint64_t in = (uint64_t)c->B * (uint64_t)(c->zdim + c->K);
    bool ok = (o->inner_loss = mem_array((uint64_t)c->T, 8)) && (o->dlr = mem_array((uint64_t)c->T, 8)) &&
              (o->dmu = mem_array((uint64_t)c->T, 8)) && (o->wT = mem_array(k->P, es)) && (o->vT = mem_array(k->P, es)) &&
              (o->dw0 = mem_array(k->P, es)) && (o->dx = mem_array(k->n_x, es)) &&
              (o->logits = mem_array((uint64_t)c->meta_batch * (uint64_t)c->K, es));
    if (ok && c->soft_labels)
        ok = (o->dy = mem_array(k->n_y, es));
    if (ok && c->generator_mode)
        ok = (k->dphi = mem_array(k->G, es)) && (k->tmp_phi = mem_array(k->G, es)) && (k->flat = mem_array(in, es)) &&
             (k->tmp_in = mem_array(in, es)) && (k->dz = mem_array((uint64_t)c->T * (uint64_t)c->B * (uint64_t)c->zdim, es));
    return ok ? 0 : err_set(e, ERR_NOMEM, "the results");
}

void case_generator_input(const struct gcase *c, const struct case_work *k, int t, void *to)
{
    size_t es = eng_dtype_size(c->dtype), zn = (size_t)c->zdim * es, row = (size_t)(c->zdim + c->K);
    for (size_t b = 0; b < (size_t)c->B; b++) {
        size_t i = (size_t)t * (size_t)c->B + b;
        memcpy((char *)to + b * row * es, (char *)k->z + i * zn, zn);
        for (int j = 0; j < c->K; j++)
            put(c, to, b * row + (size_t)(c->zdim + j), j == k->label[i]);
    }
}

static void generate(const struct gcase *c, struct case_work *k)
{
    size_t step = (size_t)c->B * k->image * eng_dtype_size(c->dtype);
    for (int t = 0; t < c->T; t++) {
        case_generator_input(c, k, t, k->flat);
        eng_forward(k->gen, k->phi, k->flat, (char *)k->x + (size_t)t * step);
    }
}

/* Forward again for each t, then pull dx_t back: only one step's activations are alive. Sums run in order of t. */
static void generator_back(const struct gcase *c, struct case_work *k)
{
    size_t es = eng_dtype_size(c->dtype), step = (size_t)c->B * k->image * es, row = (size_t)(c->zdim + c->K) * es;
    size_t zn = (size_t)c->zdim * es;
    for (int t = 0; t < c->T; t++) {
        case_generator_input(c, k, t, k->flat);
        eng_forward(k->gen, k->phi, k->flat, NULL);
        eng_backward(k->gen, k->phi, k->flat, (char *)k->out.dx + (size_t)t * step, k->tmp_phi, k->tmp_in);
        eng_axpy(c->dtype, k->G, 1.0, k->tmp_phi, k->dphi);
        for (size_t b = 0; b < (size_t)c->B; b++)
            memcpy((char *)k->dz + ((size_t)t * (size_t)c->B + b) * zn, (char *)k->tmp_in + b * row, zn);
    }
}

static int run_on_cpu(struct gcase *c, struct case_work *k, int threads, struct errbuf *e)
{
    struct unroll_cfg cfg = { .learner = &c->learner, .dtype = c->dtype, .T = c->T, .B = c->B, .meta_batch = c->meta_batch,
                              .want_dx = true, .want_dy = c->soft_labels, .inner = c->inner };
    struct unroll_in in = { .w0 = k->w0, .x = k->x, .y = k->y, .lr = k->lr, .mu = k->mu, .meta = k->meta, .n_meta = k->n_meta };
    int rc = eng_pool_new(threads, &k->pool, e);
    if (rc < 0 || (rc = unroll_new(&cfg, &k->u, e)) < 0 ||
        (rc = eng_plan_new(&c->learner, c->meta_batch, c->dtype, ENG_FORWARD, &k->eval, e)) < 0 ||
        (c->generator_mode &&
         (rc = eng_plan_new(&c->generator, c->B, c->dtype, ENG_GRAD | ENG_INPUT_GRAD, &k->gen, e)) < 0))
        return rc;
    unroll_set_pool(k->u, k->pool);
    eng_plan_set_pool(k->eval, k->pool);
    if (c->generator_mode) {
        eng_plan_set_pool(k->gen, k->pool);
        generate(c, k);
    }
    void *logits = k->out.logits; /* meta_at may name step T too: take the logits of X ourselves */
    k->out.logits = NULL;
    rc = unroll_meta_grad(k->u, &in, &k->out, e);
    k->out.logits = logits;
    if (rc < 0)
        return rc;
    eng_forward(k->eval, k->out.wT, (char *)k->real_x, k->out.logits);
    if (c->generator_mode)
        generator_back(c, k);
    return 0;
}

/* ---- results by name ---- */
enum form { FORM_PLAIN, FORM_IMAGES, FORM_DOUBLES };
struct found {
    const void *src;      /* [count] in the case's dtype, or doubles */
    enum form   form;
    int         ndim;
    uint64_t    dim[ST_MAX_DIM];
};

static bool find_param(const char *name, const char *prefix, const struct net *n, const void *flat, enum eng_dtype t,
                       struct found *f)
{
    size_t skip = strlen(prefix);
    if (strncmp(name, prefix, skip) != 0)
        return false;
    for (int i = 0; i < n->n_params; i++) {
        const struct net_param *p = &n->param[i];
        if (strcmp(name + skip, p->name) != 0)
            continue;
        *f = (struct found){ .src = (const char *)flat + p->offset * eng_dtype_size(t), .ndim = p->ndim };
        for (int d = 0; d < p->ndim; d++)
            f->dim[d] = (uint64_t)p->dim[d];
        return true;
    }
    return false;
}

/* `flat` vectors have been exported to the outside layout already. */
static bool find_output(const struct gcase *c, const struct case_work *k, const char *name, struct found *f)
{
    uint64_t T = (uint64_t)c->T, B = (uint64_t)c->B, C = (uint64_t)c->c, H = (uint64_t)c->h, W = (uint64_t)c->w, K = (uint64_t)c->K;
    const struct { const char *name; bool there; struct found f; } rows[] = {
        { "out.meta_loss", true, { &k->out.meta_loss, FORM_DOUBLES, 1, { 1 } } },
        { "out.logits", true, { k->out.logits, FORM_PLAIN, 2, { (uint64_t)c->meta_batch, K } } },
        { "out.inner_loss", true, { k->out.inner_loss, FORM_DOUBLES, 1, { T } } },
        { "out.x", c->generator_mode, { k->x, FORM_IMAGES, 5, { T, B, C, H, W } } },
        { "grad.x", !c->generator_mode, { k->out.dx, FORM_IMAGES, 5, { T, B, C, H, W } } },
        { "grad.z", c->generator_mode, { k->dz, FORM_PLAIN, 3, { T, B, (uint64_t)c->zdim } } },
        { "grad.y", c->soft_labels, { k->out.dy, FORM_PLAIN, 3, { T, B, K } } },
        { "grad.lr", true, { k->out.dlr, FORM_DOUBLES, 1, { T } } },
        { "grad.mu", true, { k->out.dmu, FORM_DOUBLES, 1, { T } } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].there && strcmp(rows[i].name, name) == 0) {
            *f = rows[i].f;
            return true;
        }
    return find_param(name, "out.wT.", &c->learner, k->out.wT, c->dtype, f) ||
           find_param(name, "out.vT.", &c->learner, k->out.vT, c->dtype, f) ||
           find_param(name, "grad.w0.", &c->learner, k->out.dw0, c->dtype, f) ||
           (c->generator_mode && find_param(name, "grad.phi.", &c->generator, k->dphi, c->dtype, f));
}

static int fill(const struct gcase *c, const struct found *f, const char *name, struct st_tensor *t, struct errbuf *e)
{
    const struct st_tensor *ref = st_find(&c->file, name);
    uint64_t count = 1;
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = real_type(c);
    t->ndim = f->ndim;
    for (int d = 0; d < f->ndim; d++)
        count *= t->dim[d] = f->dim[d];
    t->count = count;
    t->bytes = count * eng_dtype_size(c->dtype);
    if (ref) {
        bool scalar = count == 1 && ref->count == 1; /* [] and [1] are both a number */
        bool same = ref->ndim == t->ndim && memcmp(ref->dim, t->dim, sizeof t->dim[0] * (size_t)t->ndim) == 0;
        if (!scalar && !same)
            return err_set(e, ERR_INPUT, "tensor %s: not the shape that the case gives", name);
        if (ref->dtype != ST_F32 && ref->dtype != ST_F64)
            return err_set(e, ERR_INPUT, "tensor %s must be F32 or F64", name);
        t->ndim = ref->ndim;
        memcpy(t->dim, ref->dim, sizeof t->dim);
    }
    void *data = mem_array(count, eng_dtype_size(c->dtype));
    if (!data)
        return err_set(e, ERR_NOMEM, "%s", name);
    t->data = data;
    if (c->diverged)
        for (uint64_t i = 0; i < count; i++)
            put(c, data, i, (double)NAN);
    else if (f->form == FORM_DOUBLES)
        for (uint64_t i = 0; i < count; i++)
            put(c, data, i, ((const double *)f->src)[i]);
    else if (f->form == FORM_IMAGES)
        eng_images_export(c->dtype, (size_t)c->T * (size_t)c->B, c->c, c->h, c->w, f->src, data);
    else
        memcpy(data, f->src, t->bytes);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

static int export_flat(const struct gcase *c, const struct net *n, void **flat, struct errbuf *e)
{
    void *outside = mem_array(n->param_count, eng_dtype_size(c->dtype));
    if (!outside)
        return err_set(e, ERR_NOMEM, "the results");
    eng_params_export(n, c->dtype, *flat, outside);
    free(*flat);
    *flat = outside;
    return 0;
}

static int collect(struct gcase *c, struct case_work *k, struct errbuf *e)
{
    const json_t *names = json_object_get(c->doc, "outputs");
    int rc = export_flat(c, &c->learner, &k->out.wT, e);
    if (rc < 0 || (rc = export_flat(c, &c->learner, &k->out.vT, e)) < 0 || (rc = export_flat(c, &c->learner, &k->out.dw0, e)) < 0 ||
        (c->generator_mode && (rc = export_flat(c, &c->generator, &k->dphi, e)) < 0))
        return rc;
    if (!(c->out = mem_array(json_array_size(names), sizeof *c->out)))
        return err_set(e, ERR_NOMEM, "the results");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        struct found f;
        if (!find_output(c, k, name, &f))
            return err_set(e, ERR_INPUT, "outputs: %s is no output of this case", name);
        rc = fill(c, &f, name, &c->out[c->n_out++], e);
        if (rc < 0)
            return rc;
    }
    qsort(c->out, (size_t)c->n_out, sizeof *c->out, by_name);
    return 0;
}

/* A step that diverges is an answer: every output NaN. */
static int run(struct gcase *c, struct case_work *k, int threads, const struct device *d, struct errbuf *e)
{
    int rc = d ? case_on_device(c, k, d, &c->why) : run_on_cpu(c, k, threads, &c->why);
    c->diverged = rc == -ERR_DIVERGED;
    return rc == 0 || c->diverged ? 0 : err_set(e, (enum err)-rc, "%s", err_message(&c->why, rc));
}

int case_compute(struct gcase *c, int threads, const struct device *device, struct errbuf *e)
{
    struct case_work k = { .P = c->learner.param_count, .G = c->generator.param_count, .image = (size_t)c->c * c->h * c->w };
    k.n_x = (size_t)c->T * c->B * k.image;
    k.n_y = (size_t)c->T * c->B * c->K;
    int rc = read_all(c, &k, e);
    if (rc == 0 && (rc = make_room(c, &k, e)) == 0 && (rc = run(c, &k, threads, device, e)) == 0)
        rc = collect(c, &k, e);
    void *const owned[] = { k.w0, k.x, k.y, k.phi, k.z, k.lr, k.mu, k.label, k.real_x, k.real_y, k.dphi, k.dz, k.flat, k.tmp_phi,
                            k.tmp_in, k.out.inner_loss, k.out.wT, k.out.vT, k.out.logits, k.out.dw0, k.out.dx, k.out.dy,
                            k.out.dlr, k.out.dmu };
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    unroll_free(k.u);
    eng_plan_free(k.gen);
    eng_plan_free(k.eval);
    eng_pool_free(k.pool);
    return rc;
}

/* ---- comparison ---- */
static double norm(const struct st_tensor *t)
{
    double s = 0;
    for (uint64_t i = 0; i < t->count; i++)
        s += at(t->dtype, t->data, i) * at(t->dtype, t->data, i);
    return sqrt(s);
}

static double tolerance(const struct gcase *c, const char *name)
{
    if (c->dtype == ENG_F64)
        return 1e-10;
    const json_t *rel = json_object_get(json_object_get(c->doc, "checks"), "float32_torch_rel_l2");
    const json_t *v = strncmp(name, "grad.", 5) == 0 ? json_object_get(rel, name + 5) : NULL;
    return fmax(4e-6, 4 * json_number_value(v));
}

bool case_report(const struct gcase *c, FILE *to)
{
    bool ok = true;
    double grad_norm = 0, worst = 0;
    const char *worst_name = "";
    for (int i = 0; i < c->n_out; i++) {
        const struct st_tensor *ref = strncmp(c->out[i].name, "grad.", 5) == 0 ? st_find(&c->file, c->out[i].name) : NULL;
        if (ref)
            grad_norm = fmax(grad_norm, norm(ref));
    }
    for (int i = 0; i < c->n_out; i++) {
        const struct st_tensor *got = &c->out[i], *ref = st_find(&c->file, got->name);
        double sum = 0, max = 0, tol = tolerance(c, got->name);
        bool finite = eng_finite(c->dtype, got->count, got->data);
        ok &= finite;
        if (!ref) {
            fprintf(to, "%s %s\n", got->name, finite ? "no-reference" : "no-reference not-finite FAIL");
            continue;
        }
        for (uint64_t j = 0; j < got->count; j++) {
            double d = at(got->dtype, got->data, j) - at(ref->dtype, ref->data, j);
            sum += d * d;
            max = fmax(max, fabs(d));
        }
        double floor = strncmp(got->name, "grad.", 5) == 0 ? fmax(1e-3 * grad_norm, 1e-12) : 1e-12;
        double rel = finite ? sqrt(sum) / fmax(norm(ref), floor) : (double)NAN;
        bool good = rel <= tol; /* false for NaN */
        ok &= good;
        if (!(rel / tol <= worst)) {
            worst = rel / tol;
            worst_name = got->name;
        }
        fprintf(to, "%s rel=%.3e max=%.3e tol=%.3e %s\n", got->name, rel, finite ? max : (double)NAN, tol, good ? "ok" : "FAIL");
    }
    fprintf(to, "worst err/tol=%.4f %s\n", worst, worst_name);
    return ok;
}
