/* net_json.c - a layer list in JSON becomes nodes. One table says which types there are, which keys each takes, which
 * of them must be there and in what range; parsing is strict, so that a typo never trains another network. */
#include "common/net.h"
#include "common/suggest.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define MAX_DEPTH 16

enum layer_type {
    L_CONV, L_DWCONV, L_SEPCONV, L_LINEAR, L_BN, L_RELU, L_LRELU, L_TANH, L_MAXPOOL, L_AVGPOOL, L_GAP, L_FLATTEN, L_RESHAPE,
    L_UP2, L_REFLECTPAD, L_RESIDUAL, L_CONCAT, L_COUNT
};

enum key_id {
    K_IN, K_OUT, K_C, K_K, K_STRIDE, K_PAD, K_DILATION, K_GROUPS, K_BIAS, K_WN, K_MEAN_ONLY, K_EPS, K_SLOPE, K_SHAPE, K_BODY,
    K_SHORTCUT, K_BRANCHES, K_COUNT
};
enum key_form { FORM_INT, FORM_BOOL, FORM_NUMBER, FORM_LIST };

static const struct key {
    const char   *name;
    enum key_form form;
    int           least; /* of integers */
} keys[K_COUNT] = {
    [K_IN] = { "in", FORM_INT, 1 },           [K_OUT] = { "out", FORM_INT, 1 },
    [K_C] = { "c", FORM_INT, 1 },             [K_K] = { "k", FORM_INT, 1 },
    [K_STRIDE] = { "stride", FORM_INT, 1 },   [K_PAD] = { "pad", FORM_INT, 0 },
    [K_DILATION] = { "dilation", FORM_INT, 1 }, [K_GROUPS] = { "groups", FORM_INT, 1 },
    [K_BIAS] = { "bias", FORM_BOOL, 0 },      [K_WN] = { "wn", FORM_BOOL, 0 },
    [K_MEAN_ONLY] = { "mean_only", FORM_BOOL, 0 }, [K_EPS] = { "eps", FORM_NUMBER, 0 },
    [K_SLOPE] = { "slope", FORM_NUMBER, 0 },  [K_SHAPE] = { "shape", FORM_LIST, 0 },
    [K_BODY] = { "body", FORM_LIST, 0 },      [K_SHORTCUT] = { "shortcut", FORM_LIST, 0 },
    [K_BRANCHES] = { "branches", FORM_LIST, 0 },
};

#define BIT(k) (1u << (k))
static const struct type {
    const char *name;
    unsigned    must, may; /* sets of keys */
} types[L_COUNT] = {
    [L_CONV] = { "conv", BIT(K_IN) | BIT(K_OUT) | BIT(K_K),
                 BIT(K_STRIDE) | BIT(K_PAD) | BIT(K_BIAS) | BIT(K_GROUPS) | BIT(K_DILATION) | BIT(K_WN) },
    [L_DWCONV] = { "dwconv", BIT(K_C) | BIT(K_K), BIT(K_STRIDE) | BIT(K_PAD) | BIT(K_DILATION) },
    [L_SEPCONV] = { "sepconv", BIT(K_IN) | BIT(K_OUT) | BIT(K_K), BIT(K_STRIDE) | BIT(K_PAD) | BIT(K_DILATION) },
    [L_LINEAR] = { "linear", BIT(K_IN) | BIT(K_OUT), BIT(K_BIAS) | BIT(K_WN) },
    [L_BN] = { "bn", BIT(K_C), BIT(K_EPS) | BIT(K_MEAN_ONLY) },
    [L_RELU] = { "relu", 0, 0 },
    [L_LRELU] = { "lrelu", 0, BIT(K_SLOPE) },
    [L_TANH] = { "tanh", 0, 0 },
    [L_MAXPOOL] = { "maxpool", BIT(K_K), BIT(K_STRIDE) | BIT(K_PAD) },
    [L_AVGPOOL] = { "avgpool", BIT(K_K), BIT(K_STRIDE) | BIT(K_PAD) },
    [L_GAP] = { "gap", 0, 0 },
    [L_FLATTEN] = { "flatten", 0, 0 },
    [L_RESHAPE] = { "reshape", BIT(K_SHAPE), 0 },
    [L_UP2] = { "up2", 0, 0 },
    [L_REFLECTPAD] = { "reflectpad", BIT(K_PAD), 0 },
    [L_RESIDUAL] = { "residual", BIT(K_BODY), BIT(K_SHORTCUT) },
    [L_CONCAT] = { "concat", BIT(K_BRANCHES), 0 },
};

struct reader {
    struct net    *n;
    const char    *where;
    struct errbuf *e;
};

/* One layer as read. */
struct layer {
    enum layer_type type;
    int             i[K_COUNT]; /* integers and booleans; 0 where absent */
    double          eps, slope;
    const json_t   *list[K_COUNT];
};

#define BAD(r, path, fmt, ...) err_set((r)->e, ERR_INPUT, "%s %s: " fmt, (r)->where, path, ##__VA_ARGS__)

static const char *json_kind(const json_t *j)
{
    static const char *const names[] = { [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",      [JSON_STRING] = "a string",
                                         [JSON_INTEGER] = "an integer", [JSON_REAL] = "a fraction", [JSON_TRUE] = "true",
                                         [JSON_FALSE] = "false",      [JSON_NULL] = "null" };
    return j ? names[json_typeof(j)] : "nothing";
}

static int read_int(const struct reader *r, const char *path, const struct key *k, const json_t *v, int *out)
{
    if (!json_is_integer(v))
        return BAD(r, path, "'%s' must be an integer, not %s", k->name, json_kind(v));
    json_int_t x = json_integer_value(v);
    if (x < k->least || x > NET_MAX_DIM)
        return BAD(r, path, "'%s' must be %d to %d, not %lld", k->name, k->least, NET_MAX_DIM, (long long)x);
    *out = (int)x;
    return 0;
}

static int read_value(const struct reader *r, const char *path, enum key_id id, const json_t *v, struct layer *l)
{
    const struct key *k = &keys[id];
    switch (k->form) {
    case FORM_INT:
        return read_int(r, path, k, v, &l->i[id]);
    case FORM_BOOL:
        if (!json_is_boolean(v) && !(json_is_integer(v) && (json_integer_value(v) == 0 || json_integer_value(v) == 1)))
            return BAD(r, path, "'%s' must be 0 or 1, not %s", k->name, json_kind(v));
        l->i[id] = json_is_true(v) || json_integer_value(v) == 1;
        return 0;
    case FORM_NUMBER:
        if (!json_is_number(v))
            return BAD(r, path, "'%s' must be a number, not %s", k->name, json_kind(v));
        if (id == K_EPS && json_number_value(v) <= 0)
            return BAD(r, path, "'eps' must be positive, not %g", json_number_value(v));
        *(id == K_EPS ? &l->eps : &l->slope) = json_number_value(v);
        return 0;
    default:
        if (!json_is_array(v))
            return BAD(r, path, "'%s' must be a list, not %s", k->name, json_kind(v));
        l->list[id] = v;
        return 0;
    }
}

static int read_type(const struct reader *r, const char *path, const json_t *j, enum layer_type *out)
{
    const char *known[L_COUNT];
    char        near[96];
    if (!json_is_object(j))
        return BAD(r, path, "a layer must be an object, not %s", json_kind(j));
    const json_t *t = json_object_get(j, "type");
    if (!json_is_string(t))
        return BAD(r, path, "'type' must be a string, not %s", json_kind(t));
    for (int i = 0; i < L_COUNT; i++) {
        known[i] = types[i].name;
        if (strcmp(json_string_value(t), known[i]) == 0) {
            *out = (enum layer_type)i;
            return 0;
        }
    }
    return BAD(r, path, "unknown type '%.60s'%s", json_string_value(t),
               suggest_text(near, sizeof near, json_string_value(t), known, L_COUNT));
}

static int unknown_key(const struct reader *r, const char *path, const struct type *t, const char *name)
{
    const char *known[K_COUNT];
    char        near[96];
    int         n = 0;
    for (int i = 0; i < K_COUNT; i++)
        if ((t->must | t->may) & BIT(i))
            known[n++] = keys[i].name;
    return BAD(r, path, "unknown key '%.60s'%s", name, suggest_text(near, sizeof near, name, known, n));
}

static int read_layer(const struct reader *r, const char *path, const json_t *j, struct layer *l)
{
    *l = (struct layer){ .slope = 0.01 };
    int rc = read_type(r, path, j, &l->type);
    if (rc < 0)
        return rc;
    l->i[K_BIAS] = l->type == L_LINEAR; /* the default of linear alone */
    const struct type *t = &types[l->type];
    unsigned           seen = 0;
    const char        *name;
    json_t            *v;
    json_object_foreach((json_t *)j, name, v) {
        int id = 0;
        if (strcmp(name, "type") == 0)
            continue;
        while (id < K_COUNT && (!((t->must | t->may) & BIT(id)) || strcmp(keys[id].name, name) != 0))
            id++;
        if (id == K_COUNT)
            return unknown_key(r, path, t, name);
        if ((rc = read_value(r, path, (enum key_id)id, v, l)) < 0)
            return rc;
        seen |= BIT(id);
    }
    for (int id = 0; id < K_COUNT; id++)
        if (t->must & ~seen & BIT(id))
            return BAD(r, path, "%s needs '%s'", t->name, keys[id].name);
    return 0;
}

/* ---- layers become nodes ---- */

static int read_list(const struct reader *r, const char *prefix, const json_t *list, int src, int depth);

/* Add one node; a refusal is said as "learner 3.body.1: conv: …". */
static int add(const struct reader *r, const char *path, enum net_op op, const int *in, int n_in, const struct net_attr *at)
{
    struct errbuf own = { 0 };
    int rc = net_add(r->n, op, in, n_in, at, path, &own);
    return rc < 0 ? err_set(r->e, (enum err)-rc, "%s %s", r->where, own.text) : rc;
}

/* What the file says of the input must be what arrives. */
static int check_in(const struct reader *r, const char *path, const char *key, int said, int src)
{
    int c = r->n->node[src].shape.c;
    if (said && said != c)
        return err_set(r->e, ERR_SHAPE, "%s %s: '%s' is %d, the input has %d", r->where, path, key, said, c);
    return 0;
}

static int add_sepconv(const struct reader *r, const char *path, const struct layer *l, int src)
{
    int c = r->n->node[src].shape.c;
    int mid = add(r, path, NET_CONV, &src, 1,
                  &(struct net_attr){ .out = c, .groups = c, .k = l->i[K_K], .stride = l->i[K_STRIDE], .pad = l->i[K_PAD],
                                      .dilation = l->i[K_DILATION], .weight_name = "dw" });
    return mid < 0 ? mid : add(r, path, NET_CONV, &mid, 1, &(struct net_attr){ .out = l->i[K_OUT], .k = 1, .weight_name = "pw" });
}

static int add_reshape(const struct reader *r, const char *path, const struct layer *l, int src)
{
    const json_t *s = l->list[K_SHAPE];
    int dim[3];
    if (json_array_size(s) != 3)
        return BAD(r, path, "'shape' must be [c, h, w]");
    for (size_t i = 0; i < 3; i++) {
        int rc = read_int(r, path, &(struct key){ "shape", FORM_INT, 1 }, json_array_get(s, i), &dim[i]);
        if (rc < 0)
            return rc;
    }
    return add(r, path, NET_RESHAPE, &src, 1, &(struct net_attr){ .c = dim[0], .h = dim[1], .w = dim[2] });
}

static int add_residual(const struct reader *r, const char *path, const struct layer *l, int src, int depth)
{
    char sub[96];
    int  in[2];
    snprintf(sub, sizeof sub, "%s.body", path);
    if ((in[0] = read_list(r, sub, l->list[K_BODY], src, depth + 1)) < 0)
        return in[0];
    in[1] = src;
    if (l->list[K_SHORTCUT]) {
        snprintf(sub, sizeof sub, "%s.shortcut", path);
        if ((in[1] = read_list(r, sub, l->list[K_SHORTCUT], src, depth + 1)) < 0)
            return in[1];
    }
    return add(r, path, NET_ADD, in, 2, NULL);
}

static int add_concat(const struct reader *r, const char *path, const struct layer *l, int src, int depth)
{
    size_t n = json_array_size(l->list[K_BRANCHES]);
    int    in[NET_MAX_IN];
    char   sub[96];
    if (n < 1 || n > NET_MAX_IN)
        return BAD(r, path, "'branches' must hold 1 to %d lists, not %zu", NET_MAX_IN, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *b = json_array_get(l->list[K_BRANCHES], i);
        snprintf(sub, sizeof sub, "%s.%zu", path, i);
        if (!json_is_array(b))
            return BAD(r, sub, "a branch must be a list of layers, not %s", json_kind(b));
        if ((in[i] = read_list(r, sub, b, src, depth + 1)) < 0)
            return in[i];
    }
    return add(r, path, NET_CONCAT, in, (int)n, NULL);
}

static int add_layer(const struct reader *r, const char *path, const struct layer *l, int src, int depth)
{
    const int *i = l->i;
    int rc;
    if ((rc = check_in(r, path, "in", i[K_IN], src)) < 0 || (rc = check_in(r, path, "c", i[K_C], src)) < 0)
        return rc;
    struct net_attr at = { .out = i[K_OUT], .k = i[K_K], .stride = i[K_STRIDE], .pad = i[K_PAD], .dilation = i[K_DILATION],
                           .groups = i[K_GROUPS], .bias = i[K_BIAS], .wn = i[K_WN], .mean_only = i[K_MEAN_ONLY], .eps = l->eps };
    switch (l->type) {
    case L_DWCONV:
        at.out = at.groups = i[K_C];
        return add(r, path, NET_CONV, &src, 1, &at);
    case L_CONV:       return add(r, path, NET_CONV, &src, 1, &at);
    case L_SEPCONV:    return add_sepconv(r, path, l, src);
    case L_LINEAR:     return add(r, path, NET_LINEAR, &src, 1, &at);
    case L_BN:         return add(r, path, NET_BN, &src, 1, &at);
    case L_RELU:       return add(r, path, NET_LRELU, &src, 1, NULL);
    case L_LRELU:      return add(r, path, NET_LRELU, &src, 1, &(struct net_attr){ .slope = l->slope });
    case L_TANH:       return add(r, path, NET_TANH, &src, 1, NULL);
    case L_MAXPOOL:    return add(r, path, NET_MAXPOOL, &src, 1, &at);
    case L_AVGPOOL:    return add(r, path, NET_AVGPOOL, &src, 1, &at);
    case L_GAP:        return add(r, path, NET_GAP, &src, 1, NULL);
    case L_FLATTEN:    return add(r, path, NET_FLATTEN, &src, 1, NULL);
    case L_RESHAPE:    return add_reshape(r, path, l, src);
    case L_UP2:        return add(r, path, NET_UP2, &src, 1, NULL);
    case L_REFLECTPAD: return add(r, path, NET_REFLECTPAD, &src, 1, &at);
    case L_RESIDUAL:   return add_residual(r, path, l, src, depth);
    default:           return add_concat(r, path, l, src, depth);
    }
}

/* The layers of `list` in a chain from `src`; returns the last node (src for an empty list). `prefix` "" at the top. */
static int read_list(const struct reader *r, const char *prefix, const json_t *list, int src, int depth)
{
    if (depth > MAX_DEPTH)
        return BAD(r, prefix, "layers are nested deeper than %d", MAX_DEPTH);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct layer l;
        char         path[sizeof r->n->node->path];
        int          len = snprintf(path, sizeof path, "%s%s%zu", prefix, *prefix ? "." : "", i);
        if (len < 0 || (size_t)len >= sizeof path)
            return BAD(r, prefix, "the layers are nested too deep to be named");
        int rc;
        if ((rc = read_layer(r, path, json_array_get(list, i), &l)) < 0 || (rc = add_layer(r, path, &l, src, depth)) < 0)
            return rc;
        src = rc;
    }
    return src;
}

int net_from_json(struct net *n, const json_t *layers, const char *where, struct errbuf *e)
{
    struct reader r = { n, where, e };
    if (!json_is_array(layers))
        return err_set(e, ERR_INPUT, "%s: must be a list of layers, not %s", where, json_kind(layers));
    if (json_array_size(layers) == 0)
        return err_set(e, ERR_INPUT, "%s: has no layers", where);
    int rc = read_list(&r, "", layers, n->out, 0);
    return rc < 0 ? rc : net_set_out(n, rc, e);
}
