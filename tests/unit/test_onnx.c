/* The ONNX writer: a file is read back with protobuf-c, and its nodes, attributes and tensors are compared with the network.
 * What another runtime computes from such files is the business of tests/e2e/test_export.py. */
#include "client/onnx.h"
#include "common/safetensors.h"
#include "onnx.pb-c.h"
#include "tests/support/tmp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

typedef Onnx__NodeProto   Node;
typedef Onnx__TensorProto Tensor;

enum { MAX_TENSORS = 64 };

struct fix {
    void             *tmp;     /* struct tmp */
    char              weights[300], model[300];
    struct net        net;
    struct st_file    st;
    bool              opened;
    Onnx__ModelProto *m;       /* owned; the model read back */
    struct errbuf     e;
};

static int ok(struct fix *f, int rc)
{
    if (rc < 0)
        fail_msg("%s", f->e.text);
    return rc;
}

/* A value for each element that tells which tensor and place it is. */
static float value(int tensor, uint64_t i) { return (float)(tensor + 1) + (float)(i % 97) * 0.01f; }

/* Weights for every parameter and running statistics of every batch norm, but for the tensor called `without`. */
static void write_weights(struct fix *f, const char *without)
{
    static struct st_tensor t[MAX_TENSORS];
    float *data[MAX_TENSORS];
    int n = 0;
    char name[160];
    for (int k = 0; k < f->net.n_params + 2 * f->net.n_nodes; k++) {
        const struct net_param *p = k < f->net.n_params ? &f->net.param[k] : NULL;
        int node = p ? 0 : (k - f->net.n_params) / 2, var = (k - f->net.n_params) % 2;
        if (!p && f->net.node[node].op != NET_BN)
            continue;
        if (p)
            snprintf(name, sizeof name, "%s", p->name);
        else
            snprintf(name, sizeof name, "%s.running_%s", f->net.node[node].path, var ? "var" : "mean");
        if (without && strcmp(name, without) == 0)
            continue;
        assert_true(n < MAX_TENSORS);
        t[n] = (struct st_tensor){ .dtype = ST_F32, .ndim = p ? p->ndim : 1, .count = p ? p->size : (uint64_t)f->net.node[node].shape.c };
        memcpy(t[n].name, name, sizeof name);
        for (int i = 0; p && i < p->ndim; i++)
            t[n].dim[i] = (uint64_t)p->dim[i];
        if (!p)
            t[n].dim[0] = t[n].count;
        data[n] = malloc(t[n].count * sizeof(float));
        assert_non_null(data[n]);
        for (uint64_t i = 0; i < t[n].count; i++)
            data[n][i] = value(n, i);
        t[n].bytes = t[n].count * sizeof(float);
        t[n].data = data[n];
        n++;
    }
    const char *meta[] = { "space", "chain", "arch", "some text", "dataset", "abc" };
    ok(f, st_write(f->weights, t, n, meta, 3, &f->e));
    for (int i = 0; i < n; i++)
        free(data[i]);
    ok(f, st_open(&f->st, f->weights, &f->e));
    f->opened = true;
}

static void read_model(struct fix *f)
{
    FILE *in = fopen(f->model, "rb");
    assert_non_null(in);
    fseek(in, 0, SEEK_END);
    long n = ftell(in);
    rewind(in);
    uint8_t *bytes = malloc((size_t)n);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)n, in), n);
    fclose(in);
    f->m = onnx__model_proto__unpack(NULL, (size_t)n, bytes);
    free(bytes);
    assert_non_null(f->m);
}

static void write_and_read(struct fix *f)
{
    write_weights(f, NULL);
    ok(f, onnx_write(&f->net, &f->st, f->model, &f->e));
    read_model(f);
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    if (!f || tmp_setup(&f->tmp) != 0)
        return -1;
    snprintf(f->weights, sizeof f->weights, "%s/w.safetensors", ((struct tmp *)f->tmp)->dir);
    snprintf(f->model, sizeof f->model, "%s/m.onnx", ((struct tmp *)f->tmp)->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    if (f->m)
        onnx__model_proto__free_unpacked(f->m, NULL);
    if (f->opened)
        st_close(&f->st);
    net_fini(&f->net);
    int rc = tmp_teardown(&f->tmp);
    free(f);
    return rc;
}

/* ---- looking into a model ---- */

static const Node *node_of(const struct fix *f, const char *op, int nth)
{
    for (size_t i = 0; i < f->m->graph->n_node; i++)
        if (strcmp(f->m->graph->node[i]->op_type, op) == 0 && nth-- == 0)
            return f->m->graph->node[i];
    fail_msg("no %s in the model", op);
    return NULL;
}

static const Onnx__AttributeProto *attr(const Node *d, const char *name)
{
    for (size_t i = 0; i < d->n_attribute; i++)
        if (strcmp(d->attribute[i]->name, name) == 0)
            return d->attribute[i];
    fail_msg("%s has no attribute %s", d->op_type, name);
    return NULL;
}

static void ints_are(const Node *d, const char *name, size_t n, const int64_t *want)
{
    const Onnx__AttributeProto *a = attr(d, name);
    assert_int_equal(a->type, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    assert_int_equal(a->n_ints, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(a->ints[i], want[i]);
}

static void text_is(const Node *d, const char *name, const char *want)
{
    const Onnx__AttributeProto *a = attr(d, name);
    assert_int_equal(a->type, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    assert_int_equal(a->s.len, strlen(want));
    assert_memory_equal(a->s.data, want, a->s.len);
}

static const Tensor *tensor_of(const struct fix *f, const char *name)
{
    for (size_t i = 0; i < f->m->graph->n_initializer; i++)
        if (strcmp(f->m->graph->initializer[i]->name, name) == 0)
            return f->m->graph->initializer[i];
    fail_msg("no initialiser %s", name);
    return NULL;
}

/* The initialiser holds exactly what the weights file holds. */
static void same_as_stored(const struct fix *f, const char *name)
{
    const Tensor *t = tensor_of(f, name);
    const struct st_tensor *s = st_find(&f->st, name);
    assert_non_null(s);
    assert_int_equal(t->data_type, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT);
    assert_int_equal(t->n_dims, s->ndim);
    for (int i = 0; i < s->ndim; i++)
        assert_int_equal(t->dims[i], s->dim[i]);
    assert_int_equal(t->raw_data.len, s->bytes);
    assert_memory_equal(t->raw_data.data, s->data, s->bytes);
}

/* Every input of every node is an earlier output, an initialiser or the image; no output has two makers. */
static void names_are_sound(const struct fix *f)
{
    const Onnx__GraphProto *g = f->m->graph;
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_input; k++) {
            const char *name = g->node[i]->input[k];
            bool known = !*name || strcmp(name, "image") == 0;
            for (size_t j = 0; j < i && !known; j++)
                known = strcmp(g->node[j]->output[0], name) == 0;
            for (size_t j = 0; j < g->n_initializer && !known; j++)
                known = strcmp(g->initializer[j]->name, name) == 0;
            if (!known)
                fail_msg("%s reads %s, which nobody makes", g->node[i]->name, name);
        }
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(g->node[j]->output[0], g->node[i]->output[0]);
    }
    for (size_t i = 0; i < g->n_initializer; i++)
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(g->initializer[i]->name, g->initializer[j]->name);
    assert_string_equal(g->node[g->n_node - 1]->output[0], "logits");
}

/* ---- tests ---- */

static void small_net(struct fix *f)
{
    struct errbuf *e = &f->e;
    ok(f, net_init(&f->net, 1, 8, 8, e));
    int n = ok(f, net_conv(&f->net, 0, 4, 3, 2, 1, "0", e));
    n = ok(f, net_bn(&f->net, n, false, "1", e));
    n = ok(f, net_lrelu(&f->net, n, 0, "2", e));
    n = ok(f, net_unary(&f->net, NET_FLATTEN, n, "3", e));
    ok(f, net_linear(&f->net, n, 10, "4", e));
}

static void the_frame_says_version_range_and_shapes(void **state)
{
    struct fix *f = *state;
    small_net(f);
    write_and_read(f);
    const Onnx__ModelProto *m = f->m;
    assert_int_equal(m->ir_version, 7);
    assert_int_equal(m->n_opset_import, 1);
    assert_int_equal(m->opset_import[0]->version, 13);
    assert_string_equal(m->producer_name, "didact");
    assert_non_null(strstr(m->doc_string, "p / 127.5 - 1"));
    assert_int_equal(m->graph->n_input, 1);
    assert_string_equal(m->graph->input[0]->name, "image");
    const Onnx__TypeProto__Tensor *t = m->graph->input[0]->type->tensor_type;
    assert_int_equal(t->elem_type, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT);
    assert_int_equal(t->shape->n_dim, 4);
    assert_string_equal(t->shape->dim[0]->dim_param, "N");
    assert_int_equal(t->shape->dim[1]->dim_value, 1);
    assert_int_equal(t->shape->dim[3]->dim_value, 8);
    t = m->graph->output[0]->type->tensor_type;
    assert_string_equal(m->graph->output[0]->name, "logits");
    assert_int_equal(t->shape->n_dim, 2);
    assert_int_equal(t->shape->dim[1]->dim_value, 10);
    bool arch = false;
    for (size_t i = 0; i < m->n_metadata_props; i++)
        arch |= strcmp(m->metadata_props[i]->key, "arch") == 0 && strcmp(m->metadata_props[i]->value, "some text") == 0;
    assert_true(arch);
    names_are_sound(f);
}

static void tensors_are_those_of_the_weights_file(void **state)
{
    struct fix *f = *state;
    small_net(f);
    write_and_read(f);
    static const char *const names[] = { "0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "4.weight", "4.bias" };
    assert_int_equal(f->m->graph->n_initializer, sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        same_as_stored(f, names[i]);
    const Node *conv = node_of(f, "Conv", 0), *bn = node_of(f, "BatchNormalization", 0), *gemm = node_of(f, "Gemm", 0);
    ints_are(conv, "kernel_shape", 2, (int64_t[]){ 3, 3 });
    ints_are(conv, "strides", 2, (int64_t[]){ 2, 2 });
    ints_are(conv, "pads", 4, (int64_t[]){ 1, 1, 1, 1 });
    assert_int_equal(attr(conv, "group")->i, 1);
    assert_int_equal(bn->n_input, 5);
    assert_string_equal(bn->input[3], "1.running_mean");
    assert_true(fabsf(attr(bn, "epsilon")->f - 1e-5f) < 1e-10f);
    assert_int_equal(attr(gemm, "transB")->i, 1);
    assert_int_equal(gemm->n_input, 3);
}

static void grouped_and_dilated_convolutions_keep_their_attributes(void **state)
{
    struct fix *f = *state;
    struct net_attr at = { .out = 6, .k = 3, .stride = 1, .pad = 2, .dilation = 2, .groups = 2, .bias = true };
    ok(f, net_init(&f->net, 4, 9, 9, &f->e));
    int n = ok(f, net_add(&f->net, NET_CONV, (int[]){ 0 }, 1, &at, "0", &f->e));
    at = (struct net_attr){ .out = 6, .k = 3, .pad = 1, .groups = 6, .weight_name = "dw" };
    n = ok(f, net_add(&f->net, NET_CONV, &n, 1, &at, "1", &f->e));
    write_and_read(f);
    const Node *conv = node_of(f, "Conv", 0), *dw = node_of(f, "Conv", 1);
    ints_are(conv, "dilations", 2, (int64_t[]){ 2, 2 });
    assert_int_equal(attr(conv, "group")->i, 2);
    assert_int_equal(conv->n_input, 3);
    assert_int_equal(attr(dw, "group")->i, 6);
    assert_int_equal(dw->n_input, 2);
    same_as_stored(f, "0.weight");
    same_as_stored(f, "0.bias");
    same_as_stored(f, "1.dw");
    names_are_sound(f);
}

static void weight_norm_is_folded_into_the_weight(void **state)
{
    struct fix *f = *state;
    struct net_attr at = { .out = 3, .k = 3, .pad = 1, .wn = true };
    ok(f, net_init(&f->net, 2, 6, 6, &f->e));
    int n = ok(f, net_add(&f->net, NET_CONV, (int[]){ 0 }, 1, &at, "0", &f->e));
    n = ok(f, net_unary(&f->net, NET_GAP, n, "1", &f->e));
    at = (struct net_attr){ .out = 5, .wn = true, .bias = true };
    ok(f, net_add(&f->net, NET_LINEAR, &n, 1, &at, "2", &f->e));
    write_and_read(f);
    static const char *const paths[] = { "0", "2" };
    for (int k = 0; k < 2; k++) {
        char v_name[32], g_name[32], name[32];
        snprintf(v_name, sizeof v_name, "%s.weight_v", paths[k]);
        snprintf(g_name, sizeof g_name, "%s.weight_g", paths[k]);
        snprintf(name, sizeof name, "%s.weight", paths[k]);
        const struct st_tensor *v = st_find(&f->st, v_name), *g = st_find(&f->st, g_name);
        const Tensor *t = tensor_of(f, name);
        assert_int_equal(t->n_dims, v->ndim);
        assert_int_equal(t->raw_data.len, v->bytes);
        uint64_t row = v->count / v->dim[0];
        for (uint64_t o = 0; o < v->dim[0]; o++) {
            double norm = 0;
            for (uint64_t i = 0; i < row; i++)
                norm += pow((double)((const float *)v->data)[o * row + i], 2);
            for (uint64_t i = 0; i < row; i++) {
                float got;
                memcpy(&got, t->raw_data.data + (o * row + i) * sizeof got, sizeof got);
                double want = (double)((const float *)g->data)[o] * (double)((const float *)v->data)[o * row + i] / sqrt(norm);
                assert_true(fabs((double)got - want) <= 1e-6 * fabs(want));
            }
        }
    }
    node_of(f, "GlobalAveragePool", 0);
    names_are_sound(f);
}

static void mean_only_batch_norm_subtracts_and_adds(void **state)
{
    struct fix *f = *state;
    ok(f, net_init(&f->net, 3, 4, 4, &f->e));
    int n = ok(f, net_bn(&f->net, 0, true, "0", &f->e));
    n = ok(f, net_unary(&f->net, NET_FLATTEN, n, "1", &f->e));
    n = ok(f, net_bn(&f->net, n, true, "2", &f->e));
    write_and_read(f);
    const Node *sub = node_of(f, "Sub", 0), *add = node_of(f, "Add", 0);
    assert_string_equal(sub->input[0], "image");
    assert_string_equal(sub->input[1], "0.running_mean");
    assert_string_equal(add->input[0], sub->output[0]);
    assert_string_equal(add->input[1], "0.bias");
    const Tensor *t = tensor_of(f, "0.running_mean"); /* shaped so that it broadcasts over [N,C,H,W] */
    assert_int_equal(t->n_dims, 4);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(tensor_of(f, "2.bias")->n_dims, 2);
    names_are_sound(f);
}

static void the_other_layers_have_their_operators(void **state)
{
    struct fix *f = *state;
    struct errbuf *e = &f->e;
    ok(f, net_init(&f->net, 2, 8, 8, e));
    int a = ok(f, net_pool(&f->net, NET_MAXPOOL, 0, 3, 2, 1, "0", e));
    int b = ok(f, net_pool(&f->net, NET_AVGPOOL, 0, 3, 2, 1, "1", e));
    int s = ok(f, net_add2(&f->net, a, b, "2", e));
    int sum = ok(f, net_add(&f->net, NET_ADD, (int[]){ a, b, s }, 3, NULL, "3", e));
    int c = ok(f, net_add(&f->net, NET_CONCAT, (int[]){ a, sum }, 2, NULL, "4", e));
    int t = ok(f, net_unary(&f->net, NET_TANH, c, "5", e));
    int l = ok(f, net_lrelu(&f->net, t, 0.1, "6", e));
    int u = ok(f, net_unary(&f->net, NET_UP2, l, "7", e));
    int r = ok(f, net_add(&f->net, NET_REFLECTPAD, &u, 1, &(struct net_attr){ .pad = 2 }, "8", e));
    int v = ok(f, net_unary(&f->net, NET_FLATTEN, r, "9", e));
    ok(f, net_add(&f->net, NET_RESHAPE, &v, 1, &(struct net_attr){ .c = 4, .h = 12, .w = 12 }, "10", e));
    write_and_read(f);
    ints_are(node_of(f, "MaxPool", 0), "kernel_shape", 2, (int64_t[]){ 3, 3 });
    ints_are(node_of(f, "MaxPool", 0), "pads", 4, (int64_t[]){ 1, 1, 1, 1 });
    assert_int_equal(attr(node_of(f, "AveragePool", 0), "count_include_pad")->i, 0);
    assert_int_equal(node_of(f, "Sum", 0)->n_input, 3);
    assert_int_equal(node_of(f, "Add", 0)->n_input, 2);
    assert_int_equal(attr(node_of(f, "Concat", 0), "axis")->i, 1);
    assert_true(fabsf(attr(node_of(f, "LeakyRelu", 0), "alpha")->f - 0.1f) < 1e-7f);
    const Node *up = node_of(f, "Resize", 0), *pad = node_of(f, "Pad", 0);
    text_is(up, "mode", "nearest");
    text_is(up, "coordinate_transformation_mode", "asymmetric");
    text_is(up, "nearest_mode", "floor");
    assert_string_equal(up->input[1], "");
    text_is(pad, "mode", "reflect");
    const Tensor *pads = tensor_of(f, "8.pads"), *shape = tensor_of(f, "10.shape");
    assert_int_equal(pads->data_type, ONNX__TENSOR_PROTO__DATA_TYPE__INT64);
    assert_memory_equal(pads->raw_data.data, ((int64_t[]){ 0, 0, 2, 2, 0, 0, 2, 2 }), 8 * sizeof(int64_t));
    assert_memory_equal(shape->raw_data.data, ((int64_t[]){ -1, 4, 12, 12 }), 4 * sizeof(int64_t));
    assert_int_equal(attr(node_of(f, "Flatten", 0), "axis")->i, 1);
    names_are_sound(f);
}

static void layers_that_reach_no_output_are_left_out(void **state)
{
    struct fix *f = *state;
    ok(f, net_init(&f->net, 1, 8, 8, &f->e));
    ok(f, net_conv(&f->net, 0, 4, 3, 1, 1, "dead", &f->e));
    int n = ok(f, net_unary(&f->net, NET_GAP, 0, "0", &f->e));
    ok(f, net_linear(&f->net, n, 3, "1", &f->e));
    write_and_read(f);
    for (size_t i = 0; i < f->m->graph->n_node; i++)
        assert_string_not_equal(f->m->graph->node[i]->op_type, "Conv");
    assert_int_equal(f->m->graph->n_initializer, 2);
    names_are_sound(f);
}

static void a_missing_tensor_is_named_and_no_file_appears(void **state)
{
    struct fix *f = *state;
    struct stat st;
    small_net(f);
    write_weights(f, "1.running_var");
    assert_int_equal(onnx_write(&f->net, &f->st, f->model, &f->e), -ERR_INPUT);
    assert_non_null(strstr(f->e.text, "1.running_var"));
    assert_int_not_equal(stat(f->model, &st), 0);
}

static void a_tensor_of_another_shape_is_named(void **state)
{
    struct fix *f = *state;
    struct net other;
    small_net(f);
    write_weights(f, NULL);
    ok(f, net_init(&other, 1, 8, 8, &f->e));
    int n = ok(f, net_unary(&other, NET_FLATTEN, 0, "3", &f->e));
    ok(f, net_linear(&other, n, 10, "4", &f->e));
    assert_int_equal(onnx_write(&other, &f->st, f->model, &f->e), 0); /* 64 features in both */
    net_fini(&other);
    ok(f, net_init(&other, 1, 9, 9, &f->e));
    n = ok(f, net_unary(&other, NET_FLATTEN, 0, "3", &f->e));
    ok(f, net_linear(&other, n, 10, "4", &f->e));
    assert_int_equal(onnx_write(&other, &f->st, f->model, &f->e), -ERR_INPUT);
    assert_non_null(strstr(f->e.text, "4.weight"));
    net_fini(&other);
}

static void a_folder_that_is_not_there_is_named(void **state)
{
    struct fix *f = *state;
    char path[700];
    small_net(f);
    write_weights(f, NULL);
    snprintf(path, sizeof path, "%s/no/such/m.onnx", ((struct tmp *)f->tmp)->dir);
    assert_true(onnx_write(&f->net, &f->st, path, &f->e) < 0);
    assert_non_null(strstr(f->e.text, "no/such"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_frame_says_version_range_and_shapes),
        T(tensors_are_those_of_the_weights_file),
        T(grouped_and_dilated_convolutions_keep_their_attributes),
        T(weight_norm_is_folded_into_the_weight),
        T(mean_only_batch_norm_subtracts_and_adds),
        T(the_other_layers_have_their_operators),
        T(layers_that_reach_no_output_are_left_out),
        T(a_missing_tensor_is_named_and_no_file_appears),
        T(a_tensor_of_another_shape_is_named),
        T(a_folder_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
