#include "common/net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

static void expect_shape(const struct net *n, int node, int c, int h, int w, bool flat)
{
    assert_true(node >= 0);
    const struct net_shape *s = &n->node[node].shape;
    assert_int_equal(s->c, c);
    assert_int_equal(s->h, h);
    assert_int_equal(s->w, w);
    assert_int_equal(s->flat, flat);
}

static void expect_refused(int rc, enum err code, const struct errbuf *e, const char *word)
{
    assert_int_equal(rc, -(int)code);
    if (!strstr(e->text, word))
        fail_msg("'%s' does not say '%s'", e->text, word);
}

static void a_small_network_has_the_shapes_and_costs_worked_out_by_hand(void **state)
{
    (void)state;
    struct net n;
    assert_int_equal(net_init(&n, 1, 28, 28, NULL), 0);
    int c1 = net_conv(&n, 0, 8, 3, 1, 1, "0", NULL);
    expect_shape(&n, c1, 8, 28, 28, false);
    int b1 = net_bn(&n, c1, false, "1", NULL), p1 = net_pool(&n, NET_MAXPOOL, b1, 2, 0, 0, "2", NULL);
    expect_shape(&n, p1, 8, 14, 14, false);
    int d = net_dwconv(&n, p1, 5, 2, 2, "3", NULL);
    expect_shape(&n, d, 8, 7, 7, false);
    int f = net_unary(&n, NET_FLATTEN, d, "4", NULL);
    expect_shape(&n, f, 8 * 49, 1, 1, true);
    int l = net_linear(&n, f, 10, "5", NULL);
    expect_shape(&n, l, 10, 1, 1, true);
    assert_int_equal(n.out, l);
    assert_int_equal(net_node_macs(&n, c1), 8 * 9 * 28 * 28);
    assert_int_equal(net_node_macs(&n, b1), 0);
    assert_int_equal(net_macs(&n), 8 * 9 * 784 + 8 * 25 * 49 + 3920);
    assert_int_equal(n.param_count, 72 + 16 + 200 + 3920 + 10);
    assert_int_equal(net_activation_elems(&n), 784 + 2 * 8 * 784 + 8 * 196 + 8 * 49 + 392 + 10);
    assert_int_equal(n.param[n.node[d].param0].fan_in, 25);
    assert_int_equal(n.param[n.node[l].param0].fan_in, 392);
    net_fini(&n);
}

static void defaults_are_filled_in_and_unused_attributes_dropped(void **state)
{
    (void)state;
    struct net n;
    int in = 0;
    assert_int_equal(net_init(&n, 4, 9, 9, NULL), 0);
    struct net_attr at = { .out = 6, .k = 3, .slope = 7, .mean_only = true };
    int c = net_add(&n, NET_CONV, &in, 1, &at, NULL, NULL);
    const struct net_attr *got = &n.node[c].at;
    assert_int_equal(got->stride, 1);
    assert_int_equal(got->dilation, 1);
    assert_int_equal(got->groups, 1);
    assert_false(got->mean_only);
    assert_true(got->slope == 0);
    assert_string_equal(got->weight_name, "weight");
    assert_string_equal(n.node[c].path, "node1");
    int p = net_pool(&n, NET_AVGPOOL, c, 3, 0, 0, NULL, NULL);
    assert_int_equal(n.node[p].at.stride, 3);
    int b = net_bn(&n, p, true, NULL, NULL);
    assert_true(n.node[b].at.eps == 1e-5);
    net_fini(&n);
}

static void parameters_follow_the_layers_and_weight_norm_splits_a_weight(void **state)
{
    (void)state;
    struct net n;
    int in = 0;
    assert_int_equal(net_init(&n, 2, 8, 8, NULL), 0);
    struct net_attr at = { .out = 4, .k = 3, .pad = 2, .dilation = 2, .groups = 2, .wn = true, .bias = true };
    int c = net_add(&n, NET_CONV, &in, 1, &at, "0", NULL);
    expect_shape(&n, c, 4, 8, 8, false);
    int b = net_bn(&n, c, true, "1", NULL);
    int dw = net_add(&n, NET_CONV, &b, 1, &(struct net_attr){ .out = 4, .groups = 4, .k = 3, .weight_name = "dw" }, "2", NULL);
    assert_true(net_add(&n, NET_CONV, &dw, 1, &(struct net_attr){ .out = 5, .k = 1, .weight_name = "pw" }, "2", NULL) > 0);
    static const char *const names[] = { "0.weight_v", "0.weight_g", "0.bias", "1.bias", "2.dw", "2.pw" };
    static const uint64_t sizes[] = { 4 * 1 * 9, 4, 4, 4, 4 * 9, 20 };
    static const enum net_role roles[] = { NET_WEIGHT_V, NET_WEIGHT_G, NET_BIAS, NET_BN_BIAS, NET_WEIGHT, NET_WEIGHT };
    uint64_t offset = 0;
    assert_int_equal(n.n_params, 6);
    for (int i = 0; i < 6; i++) {
        assert_string_equal(n.param[i].name, names[i]);
        assert_int_equal(n.param[i].size, sizes[i]);
        assert_int_equal(n.param[i].offset, offset);
        assert_int_equal(n.param[i].role, roles[i]);
        offset += sizes[i];
    }
    assert_int_equal(n.param_count, offset);
    assert_int_equal(n.param[0].dim[1], 1);
    assert_int_equal(n.param[0].fan_in, 9);
    net_fini(&n);
}

static void merging_needs_agreeing_shapes(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e;
    assert_int_equal(net_init(&n, 3, 8, 8, NULL), 0);
    int a = net_conv(&n, 0, 4, 3, 1, 1, "a", &e), b = net_conv(&n, 0, 5, 3, 1, 1, "b", &e), s = net_conv(&n, 0, 4, 3, 2, 1, "s", &e);
    int before = n.n_nodes;
    expect_refused(net_add2(&n, a, b, "sum", &e), ERR_SHAPE, &e, "sum: add: inputs [4,8,8] and [5,8,8]");
    expect_refused(net_add(&n, NET_CONCAT, (int[]){ a, s }, 2, NULL, "cat", &e), ERR_SHAPE, &e, "cat: concat");
    expect_refused(net_add(&n, NET_ADD, (int[]){ a, 99 }, 2, NULL, "sum", &e), ERR_INPUT, &e, "not an earlier layer");
    expect_refused(net_add(&n, NET_ADD, &a, 1, NULL, "sum", &e), ERR_INPUT, &e, "takes 2 to");
    assert_int_equal(n.n_nodes, before);
    expect_shape(&n, net_add(&n, NET_CONCAT, (int[]){ a, b, 0 }, 3, NULL, "cat", &e), 12, 8, 8, false);
    expect_shape(&n, net_add2(&n, a, a, "twice", &e), 4, 8, 8, false);
    net_fini(&n);
}

static void what_cannot_be_is_refused_with_the_path_and_leaves_the_net_alone(void **state)
{
    (void)state;
    static const struct bad {
        enum net_op     op;
        struct net_attr at;
        enum err        code;
        const char     *word;
    } bad[] = {
        { NET_CONV, { .out = 0, .k = 3 }, ERR_INPUT, "out must be" },
        { NET_CONV, { .out = -4, .k = 3 }, ERR_INPUT, "out must be" },
        { NET_CONV, { .out = 4, .k = 0 }, ERR_INPUT, "k must be" },
        { NET_CONV, { .out = 4, .k = 3, .pad = -1 }, ERR_INPUT, "pad must be" },
        { NET_CONV, { .out = 4, .k = 3, .stride = -1 }, ERR_INPUT, "stride must be" },
        { NET_CONV, { .out = 4, .k = 9 }, ERR_SHAPE, "reaches over 9" },
        { NET_CONV, { .out = 4, .k = 3, .dilation = 5, .pad = 1 }, ERR_SHAPE, "reaches over 11 places, the padded input has 10" },
        { NET_CONV, { .out = 4, .k = 3, .dilation = 65536 }, ERR_SHAPE, "reaches over" },
        { NET_CONV, { .out = 4, .k = 3, .groups = 4 }, ERR_SHAPE, "groups do not divide" },
        { NET_CONV, { .out = 5, .k = 3, .groups = 3 }, ERR_SHAPE, "groups do not divide" },
        { NET_CONV, { .out = 70000, .k = 3 }, ERR_SHAPE, "out must be" },
        { NET_CONV, { .out = 65536, .k = 65536, .pad = 65536 }, ERR_SHAPE, "too large" },
        { NET_CONV, { .out = 65536, .k = 100, .pad = 46 }, ERR_SHAPE, "more than" },
        { NET_CONV, { .out = 4, .k = 3, .groups = -1 }, ERR_INPUT, "groups must be" },
        { NET_CONV, { .out = 4, .k = 3, .dilation = -1 }, ERR_INPUT, "dilation must be" },
        { NET_CONV, { .out = 4, .k = 3, .pad = 65537 }, ERR_SHAPE, "pad must be" },
        { NET_CONV, { .out = 4, .k = 2147483647, .pad = 65536 }, ERR_SHAPE, "k must be" },
        { NET_MAXPOOL, { .k = 9 }, ERR_SHAPE, "reaches over 9 places, the padded input has 8" },
        { NET_AVGPOOL, { .k = 65536, .stride = 1, .pad = 65535 }, ERR_SHAPE, "too large" },
        { NET_MAXPOOL, { .k = 2, .stride = -2 }, ERR_INPUT, "stride must be" },
        { NET_RESHAPE, { .c = 0, .h = 8, .w = 8 }, ERR_INPUT, "c must be" },
        { NET_RESHAPE, { .c = 3, .h = -8, .w = -8 }, ERR_INPUT, "h must be" },
        { NET_REFLECTPAD, { .pad = -1 }, ERR_INPUT, "pad must be" },
        { NET_BN, { .eps = NAN }, ERR_INPUT, "eps must be" },
        { NET_MAXPOOL, { .k = 2, .pad = 2 }, ERR_SHAPE, "must be smaller than k" },
        { NET_AVGPOOL, { .k = 0 }, ERR_INPUT, "k must be" },
        { NET_LINEAR, { .out = 4 }, ERR_SHAPE, "needs a flat vector" },
        { NET_RESHAPE, { .c = 3, .h = 8, .w = 8 }, ERR_SHAPE, "does not become" },
        { NET_REFLECTPAD, { .pad = 8 }, ERR_SHAPE, "smaller than both sides" },
        { NET_BN, { .eps = -1 }, ERR_INPUT, "eps must be" },
        { NET_LRELU, { .slope = INFINITY }, ERR_INPUT, "slope must be" },
        { NET_INPUT, { 0 }, ERR_INPUT, "cannot be added" },
    };
    struct net n;
    int in = 0;
    assert_int_equal(net_init(&n, 3, 8, 8, NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct errbuf e = { 0 };
        expect_refused(net_add(&n, bad[i].op, &in, 1, &bad[i].at, "7.body.1", &e), bad[i].code, &e, bad[i].word);
        assert_memory_equal(e.text, "7.body.1: ", 10);
        assert_int_equal(n.n_nodes, 1);
        assert_int_equal(n.n_params, 0);
        assert_int_equal(n.param_count, 0);
    }
    net_fini(&n);
}

/* Nodes stand in evaluation order: a later layer, or the layer itself, is no input, and so no cycle can be written. */
static void references_forward_are_refused_with_the_path(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e;
    assert_int_equal(net_init(&n, 3, 8, 8, NULL), 0);
    int a = net_conv(&n, 0, 3, 3, 1, 1, "a", &e);
    for (int ahead = 0; ahead < 3; ahead++)
        for (int op = NET_CONV; op < NET_OP_COUNT; op++) {
            int in[2] = { a, n.n_nodes + ahead };
            const bool merge = op == NET_ADD || op == NET_CONCAT;
            e.text[0] = 0;
            expect_refused(net_add(&n, (enum net_op)op, merge ? in : in + 1, merge ? 2 : 1, &(struct net_attr){ .out = 1, .k = 1 }, "loop", &e),
                           ERR_INPUT, &e, "is not an earlier layer");
            assert_memory_equal(e.text, "loop: ", 6);
        }
    assert_int_equal(n.n_nodes, 2);
    net_fini(&n);
}

static void the_sum_of_the_parameters_is_bounded(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e = { 0 };
    int last = 0, rc = 0;
    assert_int_equal(net_init(&n, 16384, 0, 0, NULL), 0);
    for (int i = 0; i < 17 && rc >= 0; i++) { /* 2^30 weights each, and biases */
        last = net_linear(&n, last, i % 2 ? 16384 : 65536, i % 2 ? "narrow" : "wide", &e);
        rc = last;
    }
    expect_refused(rc, ERR_SHAPE, &e, "narrow: linear: the network would have 171");
    assert_true(n.param_count <= NET_MAX_PARAMS && n.n_nodes < 18);
    net_fini(&n);
}

static void nested_calls_hand_the_first_error_through(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e = { 0 };
    assert_int_equal(net_init(&n, 3, 8, 8, NULL), 0);
    int rc = net_bn(&n, net_lrelu(&n, net_dwconv(&n, net_conv(&n, 0, 4, 11, 1, 1, "first", &e), 3, 1, 1, "dw", &e), 0, "second", &e),
                    false, "third", &e);
    expect_refused(rc, ERR_SHAPE, &e, "first: conv");
    assert_int_equal(n.n_nodes, 1);
    net_fini(&n);
}

static void inputs_and_flat_vectors_are_bounded(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e;
    assert_int_equal(net_init(&n, 0, 8, 8, &e), -ERR_SHAPE);
    assert_int_equal(net_init(&n, 1, 8, 0, &e), -ERR_SHAPE);
    assert_int_equal(net_init(&n, 65536, 65536, 65536, &e), -ERR_SHAPE);
    assert_int_equal(net_init(&n, 1, 1024, 1024, &e), 0);
    expect_refused(net_unary(&n, NET_FLATTEN, 0, "f", &e), ERR_SHAPE, &e, "too many");
    net_fini(&n);
    assert_int_equal(net_init(&n, 26, 0, 0, &e), 0);
    expect_shape(&n, 0, 26, 1, 1, true);
    int l = net_linear(&n, 0, 512, "0", &e);
    int in = l;
    int r = net_add(&n, NET_RESHAPE, &in, 1, &(struct net_attr){ .c = 128, .h = 2, .w = 2 }, "1", &e);
    expect_shape(&n, r, 128, 2, 2, false);
    expect_shape(&n, net_unary(&n, NET_UP2, r, "2", &e), 128, 4, 4, false);
    expect_refused(net_conv(&n, 0, 3, 1, 1, 0, "c", &e), ERR_SHAPE, &e, "needs an image");
    expect_refused(net_unary(&n, NET_GAP, 0, "g", &e), ERR_SHAPE, &e, "needs an image");
    expect_shape(&n, net_unary(&n, NET_GAP, r, "g", &e), 128, 1, 1, true);
    net_fini(&n);
}

static void long_paths_and_endless_networks_are_refused(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e;
    assert_int_equal(net_init(&n, 1, 4, 4, NULL), 0);
    expect_refused(net_unary(&n, NET_TANH, 0, "a.path.that.is.much.longer.than.the.fifty.five.characters.a.node.holds", &e), ERR_INPUT, &e,
                   "longer than 55");
    int last = 0;
    while (n.n_nodes < NET_MAX_NODES)
        assert_true((last = net_unary(&n, NET_TANH, last, NULL, &e)) > 0);
    expect_refused(net_unary(&n, NET_TANH, last, "x", &e), ERR_INPUT, &e, "at most 4096");
    net_fini(&n);
}

static void a_copy_stands_alone(void **state)
{
    (void)state;
    struct net a, b;
    assert_int_equal(net_init(&a, 1, 8, 8, NULL), 0);
    net_bn(&a, net_conv(&a, 0, 4, 3, 1, 1, "0", NULL), false, "1", NULL);
    assert_int_equal(net_copy(&b, &a, NULL), 0);
    net_conv(&b, b.out, 6, 3, 1, 1, "2", NULL);
    assert_int_equal(a.n_nodes, 3);
    assert_int_equal(b.n_nodes, 4);
    assert_int_equal(a.param_count, 36 + 8);
    assert_int_equal(b.param_count, 36 + 8 + 216);
    assert_int_equal(net_set_out(&b, 1, NULL), 0);
    assert_int_equal(b.out, 1);
    assert_int_equal(net_set_out(&b, 4, NULL), -ERR_INPUT);
    net_fini(&a);
    assert_string_equal(b.param[0].name, "0.weight");
    net_fini(&b);
    net_fini(NULL);
}

static void pruning_leaves_what_the_output_reads(void **state)
{
    (void)state;
    static const char *const path[] = { "input", "a", "b", "sum", "flat", "head" };
    static const struct { const char *name; int stream; uint64_t size, offset; } param[] = {
        { "a.weight", 1, 36, 0 }, { "b.weight", 2, 36, 36 }, { "head.weight", 4, 128, 72 }, { "head.bias", 5, 2, 200 } };
    struct net n;
    assert_int_equal(net_init(&n, 1, 4, 4, NULL), 0);
    int dead = net_conv(&n, 0, 8, 3, 1, 1, "dead", NULL), a = net_conv(&n, 0, 4, 3, 1, 1, "a", NULL), b = net_conv(&n, 0, 4, 3, 1, 1, "b", NULL);
    net_conv(&n, net_lrelu(&n, dead, 0, "dead.relu", NULL), 8, 1, 1, 0, "dead.too", NULL);
    int head = net_linear(&n, net_unary(&n, NET_FLATTEN, net_add2(&n, a, b, "sum", NULL), "flat", NULL), 2, "head", NULL);
    net_unary(&n, NET_TANH, head, "after", NULL);
    assert_int_equal(net_set_out(&n, head, NULL), 0);
    for (int again = 0; again < 2; again++) { /* and then there is nothing to prune */
        net_prune(&n);
        assert_int_equal(n.n_nodes, 6);
        assert_int_equal(n.out, 5);
        for (int i = 0; i < 6; i++)
            assert_string_equal(n.node[i].path, path[i]);
        assert_true(n.node[3].in[0] == 1 && n.node[3].in[1] == 2 && n.node[5].in[0] == 4 && n.node[5].param0 == 2);
        assert_int_equal(n.n_params, 4);
        for (int k = 0; k < 4; k++) {
            assert_string_equal(n.param[k].name, param[k].name);
            assert_int_equal(n.param[k].stream, param[k].stream);
            assert_int_equal(n.param[k].size, param[k].size);
            assert_int_equal(n.param[k].offset, param[k].offset);
            assert_int_equal(n.param[k].node, k < 2 ? k + 1 : 5);
        }
        assert_int_equal(n.param_count, 202);
    }
    net_fini(&n);
}

static void small_net(struct net *n, const char *name, int out, double slope)
{
    assert_int_equal(net_init(n, 1, 4, 4, NULL), 0);
    const int x = net_lrelu(n, net_conv(n, 0, 4, 3, 1, 1, name, NULL), slope, NULL, NULL);
    assert_true(net_linear(n, net_unary(n, NET_FLATTEN, x, NULL, NULL), out, NULL, NULL) > 0);
}

/* Whatever its layers are called; any other difference counts. */
static void equal_networks_are_the_same(void **state)
{
    (void)state;
    struct net a, b[5];
    small_net(&a, "a", 2, 0);
    small_net(&b[0], "b", 2, 0);
    small_net(&b[1], "a", 3, 0);
    small_net(&b[2], "a", 2, 0.1);
    small_net(&b[3], "a", 2, 0);
    net_linear(&b[3], b[3].out, 2, "more", NULL);
    small_net(&b[4], "a", 2, 0);
    b[4].param[1].stream++; /* other initial values */
    assert_true(net_same(&a, &a) && net_same(&a, &b[0]));
    for (int i = 1; i < 5; i++)
        assert_false(net_same(&a, &b[i]) || net_same(&b[i], &a));
    net_fini(&a);
    for (int i = 0; i < 5; i++)
        net_fini(&b[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_network_has_the_shapes_and_costs_worked_out_by_hand),
        cmocka_unit_test(defaults_are_filled_in_and_unused_attributes_dropped),
        cmocka_unit_test(parameters_follow_the_layers_and_weight_norm_splits_a_weight),
        cmocka_unit_test(merging_needs_agreeing_shapes),
        cmocka_unit_test(what_cannot_be_is_refused_with_the_path_and_leaves_the_net_alone),
        cmocka_unit_test(references_forward_are_refused_with_the_path),
        cmocka_unit_test(the_sum_of_the_parameters_is_bounded),
        cmocka_unit_test(nested_calls_hand_the_first_error_through),
        cmocka_unit_test(inputs_and_flat_vectors_are_bounded),
        cmocka_unit_test(long_paths_and_endless_networks_are_refused),
        cmocka_unit_test(a_copy_stands_alone),
        cmocka_unit_test(equal_networks_are_the_same),
        cmocka_unit_test(pruning_leaves_what_the_output_reads),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
