#include "worker/case.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const KEYS[] = { "mode", "image", "classes", "batch", "T", "meta_batch", "soft_labels", "learner", "generator",
                                    "zdim", "meta_at", "inner", "case", "files", "learner_params", "generator_params", "inputs",
                                    "outputs", "checks" };

static int check_keys(const json_t *doc, struct errbuf *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)doc, key, v) {
        bool known = false;
        for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++)
            known |= strcmp(key, KEYS[i]) == 0;
        if (!known)
            return err_set(e, ERR_INPUT, "%s: unknown key", key);
    }
    return 0;
}

static int need_int(const json_t *j, const char *where, int *out, struct errbuf *e)
{
    if (!json_is_integer(j))
        return err_set(e, ERR_INPUT, "%s: %s", where, j ? "must be a whole number" : "is missing");
    json_int_t v = json_integer_value(j);
    if (v < 1 || v > CASE_MAX_SIDE)
        return err_set(e, ERR_INPUT, "%s: must be from 1 to %d", where, CASE_MAX_SIDE);
    *out = (int)v;
    return 0;
}

static int key_int(const json_t *doc, const char *key, int *out, struct errbuf *e)
{
    return need_int(json_object_get(doc, key), key, out, e);
}

static int read_image(struct gcase *c, struct errbuf *e)
{
    const json_t *im = json_object_get(c->doc, "image");
    int rc;
    if (!json_is_array(im) || json_array_size(im) != 3)
        return err_set(e, ERR_INPUT, "image: must be [channels, height, width]");
    if ((rc = need_int(json_array_get(im, 0), "image[0]", &c->c, e)) < 0 ||
        (rc = need_int(json_array_get(im, 1), "image[1]", &c->h, e)) < 0 ||
        (rc = need_int(json_array_get(im, 2), "image[2]", &c->w, e)) < 0)
        return rc;
    return 0;
}

static int read_meta_at(struct gcase *c, struct errbuf *e)
{
    const json_t *list = json_object_get(c->doc, "meta_at");
    if (!list)
        return 0;
    if (!json_is_array(list) || json_array_size(list) > CASE_MAX_META)
        return err_set(e, ERR_INPUT, "meta_at: must be a list of at most %d [step, weight] pairs", CASE_MAX_META);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i), *s = json_array_get(pair, 0), *wt = json_array_get(pair, 1);
        if (!json_is_array(pair) || json_array_size(pair) != 2 || !json_is_integer(s) || !json_is_number(wt))
            return err_set(e, ERR_INPUT, "meta_at[%zu]: must be [step, weight]", i);
        if (json_integer_value(s) < 1 || json_integer_value(s) > c->T)
            return err_set(e, ERR_INPUT, "meta_at[%zu]: step must be from 1 to T = %d", i, c->T);
        c->meta_step[i] = (int)json_integer_value(s);
        c->meta_weight[i] = json_number_value(wt);
    }
    c->n_meta_at = (int)json_array_size(list);
    return 0;
}

/* learner_params, generator_params: what the file says about names and shapes must be what the layers give. */
static int check_params(const struct gcase *c, const char *key, const char *prefix, const struct net *n, struct errbuf *e)
{
    const json_t *list = json_object_get(c->doc, key);
    if (!list)
        return 0;
    if (!json_is_array(list))
        return err_set(e, ERR_INPUT, "%s: must be a list", key);
    if ((int)json_array_size(list) != n->n_params)
        return err_set(e, ERR_INPUT, "%s: lists %zu parameters, the layers have %d", key, json_array_size(list), n->n_params);
    for (int i = 0; i < n->n_params; i++) {
        const struct net_param *p = &n->param[i];
        const json_t *row = json_array_get(list, (size_t)i), *shape = json_object_get(row, "shape");
        const char *name = json_string_value(json_object_get(row, "name"));
        size_t skip = strlen(prefix);
        if (!json_is_object(row) || json_object_size(row) != 2 || !name || !json_is_array(shape))
            return err_set(e, ERR_INPUT, "%s[%d]: must have name and shape alone", key, i);
        if (strncmp(name, prefix, skip) != 0 || strcmp(name + skip, p->name) != 0)
            return err_set(e, ERR_INPUT, "%s[%d]: name is %s, the layers give %s%s", key, i, name, prefix, p->name);
        bool same = (int)json_array_size(shape) == p->ndim;
        for (int d = 0; same && d < p->ndim; d++)
            same = json_is_integer(json_array_get(shape, (size_t)d)) &&
                   json_integer_value(json_array_get(shape, (size_t)d)) == p->dim[d];
        if (!same)
            return err_set(e, ERR_INPUT, "%s[%d]: shape of %s is not that of its layer", key, i, name);
    }
    return 0;
}

static int read_nets(struct gcase *c, struct errbuf *e)
{
    const json_t *layers = json_object_get(c->doc, "learner");
    if (!json_is_array(layers))
        return err_set(e, ERR_INPUT, "learner: %s", layers ? "must be a list of layers" : "is missing");
    int rc = net_init(&c->learner, c->c, c->h, c->w, e);
    if (rc < 0 || (rc = net_from_json(&c->learner, layers, "learner", e)) < 0)
        return rc;
    const struct net_shape *s = &c->learner.node[c->learner.out].shape;
    if (!s->flat || s->c != c->K)
        return err_set(e, ERR_SHAPE, "learner: its output must be a vector of %d classes", c->K);
    if ((rc = check_params(c, "learner_params", "w0.", &c->learner, e)) < 0)
        return rc;

    layers = json_object_get(c->doc, "generator");
    const char *extra = layers ? "generator" : json_object_get(c->doc, "zdim") ? "zdim" :
                        json_object_get(c->doc, "generator_params") ? "generator_params" : NULL;
    if (!c->generator_mode)
        return extra ? err_set(e, ERR_INPUT, "%s: is for mode \"generator\" alone", extra) : 0;
    if (!json_is_array(layers))
        return err_set(e, ERR_INPUT, "generator: %s", layers ? "must be a list of layers" : "is missing");
    if ((rc = key_int(c->doc, "zdim", &c->zdim, e)) < 0 || (rc = net_init(&c->generator, c->zdim + c->K, 0, 0, e)) < 0 ||
        (rc = net_from_json(&c->generator, layers, "generator", e)) < 0)
        return rc;
    s = &c->generator.node[c->generator.out].shape;
    if (s->flat || s->c != c->c || s->h != c->h || s->w != c->w)
        return err_set(e, ERR_SHAPE, "generator: its output must be an image of %dx%dx%d", c->c, c->h, c->w);
    return check_params(c, "generator_params", "phi.", &c->generator, e);
}

static int check_strings(const struct gcase *c, const char *key, struct errbuf *e)
{
    const json_t *list = json_object_get(c->doc, key);
    if (!json_is_array(list))
        return err_set(e, ERR_INPUT, "%s: %s", key, list ? "must be a list of names" : "is missing");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (!s || !*s || strlen(s) >= sizeof ((struct st_tensor *)0)->name)
            return err_set(e, ERR_INPUT, "%s[%zu]: must be a tensor's name", key, i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(json_string_value(json_array_get(list, k)), s) == 0)
                return err_set(e, ERR_INPUT, "%s[%zu]: %s is listed twice", key, i, s);
    }
    return 0;
}

static int check_notes(const struct gcase *c, struct errbuf *e)
{
    const json_t *name = json_object_get(c->doc, "case"), *files = json_object_get(c->doc, "files");
    const json_t *checks = json_object_get(c->doc, "checks"), *rel = json_object_get(checks, "float32_torch_rel_l2");
    const char *key;
    json_t *v;
    if (name && !json_is_string(name))
        return err_set(e, ERR_INPUT, "case: must be a string");
    if (files && !json_is_object(files))
        return err_set(e, ERR_INPUT, "files: must be an object");
    if (checks && !json_is_object(checks))
        return err_set(e, ERR_INPUT, "checks: must be an object");
    if (rel && !json_is_object(rel))
        return err_set(e, ERR_INPUT, "checks.float32_torch_rel_l2: must be an object");
    json_object_foreach((json_t *)rel, key, v)
        if (!json_is_number(v) || !(json_number_value(v) >= 0))
            return err_set(e, ERR_INPUT, "checks.float32_torch_rel_l2.%s: must be a number from 0", key);
    return 0;
}

static int read_doc(struct gcase *c, struct errbuf *e)
{
    const char *mode = json_string_value(json_object_get(c->doc, "mode"));
    const json_t *soft = json_object_get(c->doc, "soft_labels");
    int rc = check_keys(c->doc, e);
    if (rc < 0)
        return rc;
    if (!mode || (strcmp(mode, "direct") != 0 && strcmp(mode, "generator") != 0))
        return err_set(e, ERR_INPUT, "mode: must be \"direct\" or \"generator\"");
    c->generator_mode = *mode == 'g';
    if (soft && !json_is_boolean(soft))
        return err_set(e, ERR_INPUT, "soft_labels: must be true or false");
    c->soft_labels = json_is_true(soft);
    if (c->soft_labels && c->generator_mode)
        return err_set(e, ERR_INPUT, "soft_labels: mode \"generator\" has integer labels");
    if ((rc = read_image(c, e)) < 0 || (rc = key_int(c->doc, "classes", &c->K, e)) < 0 ||
        (rc = key_int(c->doc, "batch", &c->B, e)) < 0 || (rc = key_int(c->doc, "T", &c->T, e)) < 0 ||
        (rc = key_int(c->doc, "meta_batch", &c->meta_batch, e)) < 0 || (rc = read_meta_at(c, e)) < 0 ||
        (rc = inner_from_json(&c->inner, json_object_get(c->doc, "inner"), "inner", e)) < 0 || (rc = read_nets(c, e)) < 0 ||
        (rc = check_strings(c, "inputs", e)) < 0 || (rc = check_strings(c, "outputs", e)) < 0)
        return rc;
    return check_notes(c, e);
}

/* The precision is that of the first parameter; the others are checked against it when they are read. */
static int find_dtype(struct gcase *c, struct errbuf *e)
{
    char name[sizeof c->file.tensor->name];
    c->dtype = ENG_F32;
    if (c->learner.n_params == 0)
        return err_set(e, ERR_INPUT, "learner: has no parameters to train");
    snprintf(name, sizeof name, "w0.%s", c->learner.param[0].name);
    const struct st_tensor *t = st_find(&c->file, name);
    if (!t)
        return err_set(e, ERR_INPUT, "tensor %s is missing", name);
    if (t->dtype != ST_F32 && t->dtype != ST_F64)
        return err_set(e, ERR_INPUT, "tensor %s must be F32 or F64", name);
    c->dtype = t->dtype == ST_F64 ? ENG_F64 : ENG_F32;
    return 0;
}

static int read_networks(struct gcase *c, struct errbuf *e)
{
    const struct { const char *key; int *to, usual; } sizes[] = { { "batch", &c->B, 128 }, { "T", &c->T, 32 }, { "meta_batch", &c->meta_batch, 512 } };
    const json_t *inner = json_object_get(c->doc, "inner");
    int rc = check_keys(c->doc, e);
    c->generator_mode = json_object_get(c->doc, "generator") != NULL;
    c->inner = inner_default();
    if (rc < 0 || (rc = read_image(c, e)) < 0 || (rc = key_int(c->doc, "classes", &c->K, e)) < 0)
        return rc;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].to = sizes[i].usual;
        if (json_object_get(c->doc, sizes[i].key) && (rc = key_int(c->doc, sizes[i].key, sizes[i].to, e)) < 0)
            return rc;
    }
    if (inner && (rc = inner_from_json(&c->inner, inner, "inner", e)) < 0)
        return rc;
    return read_nets(c, e);
}

static int load_doc(struct gcase *c, const char *json_path, int (*read)(struct gcase *c, struct errbuf *e), struct errbuf *e)
{
    memset(c, 0, sizeof *c);
    json_error_t je;
    c->doc = json_load_file(json_path, JSON_REJECT_DUPLICATES, &je);
    if (!c->doc)
        return err_set(e, ERR_INPUT, "%s: line %d: %s", json_path, je.line, je.text);
    if (!json_is_object(c->doc))
        return err_set(e, ERR_INPUT, "%s: must be an object", json_path);
    int rc = read(c, e);
    return rc < 0 ? err_wrap(e, rc, "%s", json_path) : 0;
}

int case_load_networks(struct gcase *c, const char *json_path, struct errbuf *e) { return load_doc(c, json_path, read_networks, e); }

int case_load(struct gcase *c, const char *json_path, const char *tensor_path, struct errbuf *e)
{
    int rc = load_doc(c, json_path, read_doc, e);
    if (rc < 0)
        return rc;
    if ((rc = st_open(&c->file, tensor_path, e)) < 0 || (rc = find_dtype(c, e)) < 0)
        return rc;
    return 0;
}

void case_fini(struct gcase *c)
{
    for (int i = 0; i < c->n_out; i++)
        free((void *)c->out[i].data);
    free(c->out);
    st_close(&c->file);
    net_fini(&c->learner);
    net_fini(&c->generator);
    json_decref(c->doc);
    memset(c, 0, sizeof *c);
}

int case_write(const struct gcase *c, const char *path, struct errbuf *e)
{
    return st_write(path, c->out, c->n_out, NULL, 0, e);
}
