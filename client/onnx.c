/* onnx.c - struct net -> onnx.ModelProto -> bytes.
 * Everything that the message points to comes from one list of blocks that is freed at the end, so that no
 * error path has anything to undo. Tensor data are borrowed from the weights file wherever no folding is needed. */
#include "client/onnx.h"

#include "common/fsio.h"
#include "onnx.pb-c.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONNX_IR_VERSION 7
#define ONNX_OPSET      13
#define ONNX_MAX_BYTES  (2000u << 20) /* protobuf ends at 2 GiB */

typedef Onnx__NodeProto      Node;
typedef Onnx__TensorProto    Tensor;
typedef Onnx__AttributeProto Attr;

struct block { struct block *next; };

struct writer {
    const struct net     *n;
    const struct st_file *weights;
    struct errbuf        *e;
    struct block         *blocks;      /* owned: all memory of the message */
    int                   rc;          /* sticky: the first error of a layer */
    char                **name;        /* name of each layer's output */
    Node                **node;
    size_t                n_node, cap_node;
    Tensor              **init;
    size_t                n_init, cap_init;
};

/* Zeroed memory that lives as long as the writer. NULL sets w->rc, so that callers need only keep from using it. */
static void *take(struct writer *w, size_t bytes)
{
    struct block *b = calloc(1, sizeof *b + 16 + bytes);
    if (!b) {
        if (w->rc == 0)
            w->rc = err_set(w->e, ERR_NOMEM, "out of memory for an ONNX model");
        return NULL;
    }
    b->next = w->blocks;
    w->blocks = b;
    return (char *)b + 16; /* keeps the alignment of calloc */
}

static char *text(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static char *text(struct writer *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = take(w, (size_t)n + 1);
    if (!s)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

/* Append to a growing array of pointers; older arrays stay in the block list. */
static void push(struct writer *w, void ***list, size_t *n, size_t *cap, void *item)
{
    if (*n == *cap) {
        size_t more = *cap ? 2 * *cap : 32;
        void **bigger = take(w, more * sizeof *bigger);
        if (!bigger)
            return;
        if (*n)
            memcpy(bigger, *list, *n * sizeof *bigger);
        *list = bigger;
        *cap = more;
    }
    (*list)[(*n)++] = item;
}

/* ---- nodes and attributes ---- */

static Node *add_node(struct writer *w, const char *op, char *output, int n_in)
{
    Node *d = take(w, sizeof *d);
    char **in = take(w, (size_t)n_in * sizeof *in), **out = take(w, sizeof *out);
    if (!d || !in || !out)
        return NULL;
    onnx__node_proto__init(d);
    d->op_type = text(w, "%s", op);
    d->name = text(w, "%s", output ? output : "");
    d->input = in;
    d->n_input = 0; /* filled by add_input */
    d->output = out;
    d->output[0] = output;
    d->n_output = 1;
    push(w, (void ***)&w->node, &w->n_node, &w->cap_node, d);
    return d;
}

static void add_input(Node *d, char *name)
{
    if (d)
        d->input[d->n_input++] = name;
}

static Attr *add_attr(struct writer *w, Node *d, const char *name, Onnx__AttributeProto__AttributeType type)
{
    enum { MOST = 8 }; /* no operator here has more */
    if (!d)
        return NULL;
    if (!d->attribute)
        d->attribute = take(w, MOST * sizeof *d->attribute);
    Attr *a = take(w, sizeof *a);
    if (!a || !d->attribute)
        return NULL;
    onnx__attribute_proto__init(a);
    a->name = text(w, "%s", name);
    a->has_type = true;
    a->type = type;
    d->attribute[d->n_attribute++] = a;
    return a;
}

static void attr_int(struct writer *w, Node *d, const char *name, int64_t v)
{
    Attr *a = add_attr(w, d, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (a) {
        a->has_i = true;
        a->i = v;
    }
}

static void attr_float(struct writer *w, Node *d, const char *name, double v)
{
    Attr *a = add_attr(w, d, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (a) {
        a->has_f = true;
        a->f = (float)v;
    }
}

static void attr_text(struct writer *w, Node *d, const char *name, const char *v)
{
    Attr *a = add_attr(w, d, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    if (a) {
        a->has_s = true;
        a->s.data = (uint8_t *)text(w, "%s", v);
        a->s.len = a->s.data ? strlen(v) : 0;
    }
}

static void attr_ints(struct writer *w, Node *d, const char *name, int n, const int64_t *v)
{
    Attr *a = add_attr(w, d, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    int64_t *copy = a ? take(w, (size_t)n * sizeof *copy) : NULL;
    if (!copy)
        return;
    memcpy(copy, v, (size_t)n * sizeof *copy);
    a->ints = copy;
    a->n_ints = (size_t)n;
}

/* ---- initialisers ---- */

/* `data` must live as long as the writer. Returns the name to use as an input. */
static char *add_tensor(struct writer *w, char *name, int32_t type, int ndim, const int64_t *dim, const void *data, size_t bytes)
{
    Tensor *t = take(w, sizeof *t);
    int64_t *dims = take(w, (size_t)(ndim ? ndim : 1) * sizeof *dims);
    if (!t || !dims || !name)
        return NULL;
    onnx__tensor_proto__init(t);
    memcpy(dims, dim, (size_t)ndim * sizeof *dims);
    t->name = name;
    t->dims = dims;
    t->n_dims = (size_t)ndim;
    t->has_data_type = true;
    t->data_type = type;
    t->has_raw_data = true; /* little-endian, as everything here */
    t->raw_data.data = (uint8_t *)data;
    t->raw_data.len = bytes;
    push(w, (void ***)&w->init, &w->n_init, &w->cap_init, t);
    return name;
}

static char *add_ints(struct writer *w, char *name, int n, const int64_t *v)
{
    int64_t *copy = take(w, (size_t)n * sizeof *copy);
    if (!copy)
        return NULL;
    memcpy(copy, v, (size_t)n * sizeof *copy);
    return add_tensor(w, name, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, 1, &(int64_t){ n }, copy, (size_t)n * sizeof *copy);
}

static char *add_floats(struct writer *w, char *name, int ndim, const int64_t *dim, const float *v)
{
    size_t n = 1;
    for (int i = 0; i < ndim; i++)
        n *= (size_t)dim[i];
    return add_tensor(w, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, ndim, dim, v, n * sizeof *v);
}

/* Values of the tensor NAME in the weights file, of this shape; NULL (and w->rc) where there is none. */
static const float *stored(struct writer *w, const char *name, int ndim, const int64_t *dim)
{
    const struct st_tensor *t;
    struct errbuf *e = w->e;
    int rc = st_need(w->weights, name, ST_F32, ndim, dim, &t, e);
    if (rc < 0) {
        if (w->rc == 0)
            w->rc = rc;
        return NULL;
    }
    return t->data;
}

static const struct net_param *param_of(const struct net *n, const struct net_node *d, enum net_role role)
{
    for (int i = 0; i < d->n_params; i++)
        if (n->param[d->param0 + i].role == role)
            return &n->param[d->param0 + i];
    return NULL;
}

static const float *stored_param(struct writer *w, const struct net_param *p, int64_t dim[4])
{
    for (int i = 0; i < p->ndim; i++)
        dim[i] = p->dim[i];
    return stored(w, p->name, p->ndim, dim);
}

/* weight = g * v / |v|, the norm taken over each output channel in double. */
static const float *folded(struct writer *w, const struct net_param *pv, const struct net_param *pg)
{
    int64_t dv[4], dg[4];
    const float *v = stored_param(w, pv, dv), *g = stored_param(w, pg, dg);
    float *out = v && g ? take(w, pv->size * sizeof *out) : NULL;
    if (!out)
        return NULL;
    uint64_t row = pv->size / (uint64_t)pv->dim[0];
    for (uint64_t o = 0; o < (uint64_t)pv->dim[0]; o++) {
        double sum = 0;
        for (uint64_t i = 0; i < row; i++)
            sum += (double)v[o * row + i] * (double)v[o * row + i];
        double scale = sum > 0 ? (double)g[o] / sqrt(sum) : 0;
        for (uint64_t i = 0; i < row; i++)
            out[o * row + i] = (float)(scale * (double)v[o * row + i]);
    }
    return out;
}

/* The weight of a convolution or linear layer as an initialiser called PATH.weight (or dw, pw). */
static char *weight_input(struct writer *w, const struct net_node *d)
{
    const struct net_param *p = param_of(w->n, d, NET_WEIGHT), *v = param_of(w->n, d, NET_WEIGHT_V);
    const struct net_param *shape = v ? v : p;
    int64_t dim[4];
    for (int i = 0; i < shape->ndim; i++)
        dim[i] = shape->dim[i];
    const float *data = v ? folded(w, v, param_of(w->n, d, NET_WEIGHT_G)) : stored_param(w, p, dim);
    if (!data)
        return NULL;
    return add_floats(w, text(w, "%s.%s", d->path, d->at.weight_name), shape->ndim, dim, data);
}

static char *vector_input(struct writer *w, const struct net_param *p)
{
    int64_t dim[4];
    const float *data = stored_param(w, p, dim);
    return data ? add_floats(w, text(w, "%s", p->name), 1, dim, data) : NULL;
}

/* ---- layers ---- */

static void emit_window(struct writer *w, Node *o, const struct net_attr *at)
{
    attr_ints(w, o, "kernel_shape", 2, (int64_t[]){ at->k, at->k });
    attr_ints(w, o, "strides", 2, (int64_t[]){ at->stride, at->stride });
    attr_ints(w, o, "pads", 4, (int64_t[]){ at->pad, at->pad, at->pad, at->pad });
}

static void emit_conv(struct writer *w, const struct net_node *d, char *in, char *out)
{
    const struct net_param *bias = param_of(w->n, d, NET_BIAS);
    Node *o = add_node(w, "Conv", out, 3);
    add_input(o, in);
    add_input(o, weight_input(w, d));
    if (bias)
        add_input(o, vector_input(w, bias));
    emit_window(w, o, &d->at);
    attr_ints(w, o, "dilations", 2, (int64_t[]){ d->at.dilation, d->at.dilation });
    attr_int(w, o, "group", d->at.groups);
}

static void emit_linear(struct writer *w, const struct net_node *d, char *in, char *out)
{
    const struct net_param *bias = param_of(w->n, d, NET_BIAS);
    Node *o = add_node(w, "Gemm", out, 3);
    add_input(o, in);
    add_input(o, weight_input(w, d));
    if (bias)
        add_input(o, vector_input(w, bias));
    attr_int(w, o, "transB", 1);
}

/* A per-channel vector that broadcasts over [N,C,H,W] or [N,C]. */
static char *channel_input(struct writer *w, const struct net_node *d, char *name, const float *data)
{
    int64_t dim[4] = { 1, d->shape.c, 1, 1 };
    return data ? add_floats(w, name, d->shape.flat ? 2 : 4, dim, data) : NULL;
}

static void emit_bn(struct writer *w, const struct net_node *d, char *in, char *out)
{
    int64_t c = d->shape.c, dim[4];
    const struct net_param *gain = param_of(w->n, d, NET_BN_GAIN), *bias = param_of(w->n, d, NET_BN_BIAS);
    char *mean_name = text(w, "%s.running_mean", d->path), *var_name = text(w, "%s.running_var", d->path);
    if (!mean_name || !var_name)
        return;
    const float *mean = stored(w, mean_name, 1, &c);
    if (d->at.mean_only) {
        char *centred = text(w, "%s.centred", d->path);
        Node *sub = add_node(w, "Sub", centred, 2), *add = add_node(w, "Add", out, 2);
        add_input(sub, in);
        add_input(sub, channel_input(w, d, mean_name, mean));
        add_input(add, centred);
        add_input(add, channel_input(w, d, text(w, "%s", bias->name), stored_param(w, bias, dim)));
        return;
    }
    const float *var = stored(w, var_name, 1, &c);
    Node *o = add_node(w, "BatchNormalization", out, 5);
    add_input(o, in);
    add_input(o, vector_input(w, gain));
    add_input(o, vector_input(w, bias));
    add_input(o, mean ? add_floats(w, mean_name, 1, &c, mean) : NULL);
    add_input(o, var ? add_floats(w, var_name, 1, &c, var) : NULL);
    attr_float(w, o, "epsilon", d->at.eps);
}

static void emit_up2(struct writer *w, const struct net_node *d, char *in, char *out)
{
    float *scale = take(w, 4 * sizeof *scale);
    Node  *o = add_node(w, "Resize", out, 3);
    if (!scale)
        return;
    scale[0] = scale[1] = 1;
    scale[2] = scale[3] = 2;
    add_input(o, in);
    add_input(o, text(w, "%s", "")); /* no region of interest */
    add_input(o, add_floats(w, text(w, "%s.scales", d->path), 1, &(int64_t){ 4 }, scale));
    attr_text(w, o, "mode", "nearest");
    attr_text(w, o, "coordinate_transformation_mode", "asymmetric");
    attr_text(w, o, "nearest_mode", "floor");
}

/* Layers of one input and no parameters. */
static void emit_plain(struct writer *w, const struct net_node *d, char *in, char *out)
{
    Node *o = NULL;
    int64_t p = d->at.pad;
    switch (d->op) {
    case NET_LRELU:
        o = add_node(w, d->at.slope == 0 ? "Relu" : "LeakyRelu", out, 1);
        if (d->at.slope != 0)
            attr_float(w, o, "alpha", d->at.slope);
        break;
    case NET_TANH:
        o = add_node(w, "Tanh", out, 1);
        break;
    case NET_MAXPOOL:
    case NET_AVGPOOL:
        o = add_node(w, d->op == NET_MAXPOOL ? "MaxPool" : "AveragePool", out, 1);
        emit_window(w, o, &d->at);
        if (d->op == NET_AVGPOOL)
            attr_int(w, o, "count_include_pad", 0);
        break;
    case NET_FLATTEN:
        o = add_node(w, "Flatten", out, 1);
        attr_int(w, o, "axis", 1);
        break;
    case NET_GAP: { /* gives [N,C,1,1]; ours is a flat vector */
        char *pooled = text(w, "%s.pooled", d->path);
        o = add_node(w, "GlobalAveragePool", pooled, 1);
        Node *f = add_node(w, "Flatten", out, 1);
        add_input(f, pooled);
        attr_int(w, f, "axis", 1);
        break;
    }
    case NET_RESHAPE:
        o = add_node(w, "Reshape", out, 2);
        add_input(o, in);
        add_input(o, add_ints(w, text(w, "%s.shape", d->path), 4, (int64_t[]){ -1, d->at.c, d->at.h, d->at.w }));
        return;
    case NET_REFLECTPAD:
        o = add_node(w, "Pad", out, 2);
        add_input(o, in);
        add_input(o, add_ints(w, text(w, "%s.pads", d->path), 8, (int64_t[]){ 0, 0, p, p, 0, 0, p, p }));
        attr_text(w, o, "mode", "reflect");
        return;
    default:
        if (w->rc == 0)
            w->rc = err_set(w->e, ERR_INTERNAL, "%s: %s has no ONNX form", d->path, net_op_name(d->op));
        return;
    }
    add_input(o, in);
}

static void emit_merge(struct writer *w, const struct net_node *d, char *out)
{
    const char *op = d->op == NET_CONCAT ? "Concat" : d->n_in == 2 ? "Add" : "Sum";
    Node *o = add_node(w, op, out, d->n_in);
    for (int i = 0; i < d->n_in; i++)
        add_input(o, w->name[d->in[i]]);
    if (d->op == NET_CONCAT)
        attr_int(w, o, "axis", 1);
}

static void emit(struct writer *w, int i)
{
    const struct net_node *d = &w->n->node[i];
    char *in = d->n_in ? w->name[d->in[0]] : NULL, *out = w->name[i];
    switch (d->op) {
    case NET_CONV:   emit_conv(w, d, in, out); break;
    case NET_LINEAR: emit_linear(w, d, in, out); break;
    case NET_BN:     emit_bn(w, d, in, out); break;
    case NET_UP2:    emit_up2(w, d, in, out); break;
    case NET_ADD:
    case NET_CONCAT: emit_merge(w, d, out); break;
    default:         emit_plain(w, d, in, out); break;
    }
}

/* ---- the model around them ---- */

static void add_dim(struct writer *w, Onnx__TensorShapeProto *s, const char *param, int64_t value)
{
    Onnx__TensorShapeProto__Dimension *d = take(w, sizeof *d);
    if (!d)
        return;
    onnx__tensor_shape_proto__dimension__init(d);
    if (param) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        d->dim_param = text(w, "%s", param);
    } else {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = value;
    }
    s->dim[s->n_dim++] = d;
}

static Onnx__ValueInfoProto **value_info(struct writer *w, const char *name, const struct net_shape *shape, const char *doc)
{
    Onnx__ValueInfoProto **list = take(w, sizeof *list), *v = take(w, sizeof *v);
    Onnx__TypeProto *t = take(w, sizeof *t);
    Onnx__TypeProto__Tensor *tt = take(w, sizeof *tt);
    Onnx__TensorShapeProto *s = take(w, sizeof *s);
    Onnx__TensorShapeProto__Dimension **dim = take(w, 4 * sizeof(Onnx__TensorShapeProto__Dimension *));
    if (!list || !v || !t || !tt || !s || !dim)
        return NULL;
    onnx__value_info_proto__init(v);
    onnx__type_proto__init(t);
    onnx__type_proto__tensor__init(tt);
    onnx__tensor_shape_proto__init(s);
    s->dim = dim;
    add_dim(w, s, "N", 0);
    add_dim(w, s, NULL, shape->c);
    if (!shape->flat) {
        add_dim(w, s, NULL, shape->h);
        add_dim(w, s, NULL, shape->w);
    }
    tt->has_elem_type = true;
    tt->elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tt->shape = s;
    t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    t->tensor_type = tt;
    v->name = text(w, "%s", name);
    v->doc_string = text(w, "%s", doc);
    v->type = t;
    list[0] = v;
    return list;
}

static void add_meta(struct writer *w, Onnx__ModelProto *m, const char *key, const char *value)
{
    enum { MOST = 8 };
    if (!m->metadata_props)
        m->metadata_props = take(w, MOST * sizeof *m->metadata_props);
    Onnx__StringStringEntryProto *p = take(w, sizeof *p);
    if (!p || !m->metadata_props || !value || m->n_metadata_props == MOST)
        return;
    onnx__string_string_entry_proto__init(p);
    p->key = text(w, "%s", key);
    p->value = text(w, "%s", value);
    m->metadata_props[m->n_metadata_props++] = p;
}

/* Name the outputs of the layers that reach the network's output; the others keep NULL. */
static void name_layers(struct writer *w)
{
    const struct net *n = w->n;
    w->name = take(w, (size_t)n->n_nodes * sizeof *w->name);
    if (!w->name)
        return;
    w->name[n->out] = text(w, "logits");
    for (int i = n->out; i > 0; i--)
        for (int k = 0; w->name[i] && k < n->node[i].n_in; k++) {
            int src = n->node[i].in[k];
            if (!w->name[src])
                w->name[src] = src == 0 ? text(w, "image") : text(w, "%s/out", n->node[src].path);
        }
}

static void build_graph(struct writer *w, Onnx__GraphProto *g)
{
    const struct net *n = w->n;
    for (int i = 1; i <= n->out && w->rc == 0; i++)
        if (w->name[i])
            emit(w, i);
    g->name = text(w, "didact");
    g->node = w->node;
    g->n_node = w->n_node;
    g->initializer = w->init;
    g->n_initializer = w->n_init;
    g->input = value_info(w, "image", &n->node[0].shape, "8-bit pixels p as p / 127.5 - 1");
    g->output = value_info(w, "logits", &n->node[n->out].shape, "unnormalised log-probabilities of the classes");
    g->n_input = g->input ? 1 : 0;
    g->n_output = g->output ? 1 : 0;
}

static void build_model(struct writer *w, Onnx__ModelProto *m, Onnx__GraphProto *g)
{
    Onnx__OperatorSetIdProto *ops = take(w, sizeof *ops), **list = take(w, sizeof *list);
    if (!ops || !list)
        return;
    onnx__operator_set_id_proto__init(ops);
    ops->domain = text(w, "%s", "");
    ops->has_version = true;
    ops->version = ONNX_OPSET;
    list[0] = ops;
    m->has_ir_version = true;
    m->ir_version = ONNX_IR_VERSION;
    m->opset_import = list;
    m->n_opset_import = 1;
    m->producer_name = text(w, "didact");
    m->producer_version = text(w, "%s", DIDACT_VERSION);
    m->doc_string = text(w, "Input \"image\": float32 [N,C,H,W], 8-bit pixels p as p / 127.5 - 1. Output \"logits\": float32 [N,K].");
    m->graph = g;
    add_meta(w, m, "input_range", "p / 127.5 - 1");
    static const char *const copied[] = { "space", "arch", "dataset", "channels", "cells" };
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        add_meta(w, m, copied[i], st_meta(w->weights, copied[i]));
}

static int save(struct writer *w, const Onnx__ModelProto *m, const char *path)
{
    size_t size = onnx__model_proto__get_packed_size(m);
    if (size > ONNX_MAX_BYTES)
        return err_set(w->e, ERR_INPUT, "%s: the model would have %zu bytes, more than ONNX allows", path, size);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return err_set(w->e, ERR_NOMEM, "out of memory for an ONNX model of %zu bytes", size);
    onnx__model_proto__pack(m, bytes);
    int rc = fs_write_atomic(path, bytes, size, w->e);
    free(bytes);
    return rc;
}

int onnx_write(const struct net *n, const struct st_file *weights, const char *path, struct errbuf *e)
{
    struct writer w = { .n = n, .weights = weights, .e = e };
    Onnx__ModelProto m = ONNX__MODEL_PROTO__INIT;
    Onnx__GraphProto g = ONNX__GRAPH_PROTO__INIT;
    if (n->out <= 0)
        return err_set(e, ERR_INPUT, "a network without layers has no ONNX form");
    name_layers(&w);
    if (w.rc == 0)
        build_graph(&w, &g);
    if (w.rc == 0)
        build_model(&w, &m, &g);
    int rc = w.rc < 0 ? w.rc : save(&w, &m, path);
    while (w.blocks) {
        struct block *next = w.blocks->next;
        free(w.blocks);
        w.blocks = next;
    }
    return rc;
}
