#include "common/space.h"
#include "worker/engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S (&space_nasnet)
static const char *const op_name[] = { "skip", "sep3", "sep5", "max3", "avg3" };

#define REST " | reduce: max3~0+skip~1 sep3~0+sep3~2 avg3~2+skip~3 skip~2+sep5~3 skip~0+skip~5"

static void must_canon(const char *in, char *text)
{
    struct errbuf e = { 0 };
    if (S->canon(S, in, text, &e) < 0)
        fail_msg("%s: %s", in, e.text);
}

static void equal_cells_have_equal_text(void **state)
{
    (void)state;
    static const struct { const char *in, *out; } same[] = {
        /* terms swapped, blanks */
        { " normal:  sep3~1+skip~0 max3~1+max3~0 skip~3+skip~2\nsep5~0+sep3~4 avg3~1+avg3~1 | reduce: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1",
          "normal: skip~0+sep3~1 max3~0+max3~1 skip~2+skip~3 sep5~0+sep3~4 avg3~1+avg3~1 | reduce: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1" },
        /* nodes 2 and 3 change places, with them who reads them */
        { "normal: max3~0+max3~1 skip~0+sep3~1 sep3~2+skip~3 skip~2+skip~2 avg3~1+avg3~1 | reduce: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1",
          "normal: skip~0+sep3~1 max3~0+max3~1 skip~2+sep3~3 skip~3+skip~3 avg3~1+avg3~1 | reduce: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char text[2][ARCH_TEXT_MAX];
        must_canon(same[i].in, text[0]);
        must_canon(same[i].out, text[1]);
        assert_string_equal(text[0], text[1]);
    }
}

struct term { int in, op; };

/* Write a cell with its nodes in another order that puts inputs first, and its terms swapped by chance. */
static size_t shuffled(struct rng *r, struct term t[5][2], char *out, size_t cap)
{
    int number[7] = { 0, 1, -1, -1, -1, -1, -1 };
    size_t n = 0;
    for (int at = 0; at < 5;) {
        int node = (int)rng_below(r, 5), swap = (int)rng_below(r, 2);
        const struct term *a = &t[node][swap], *b = &t[node][!swap];
        if (number[2 + node] >= 0 || number[a->in] < 0 || number[b->in] < 0)
            continue;
        n += (size_t)snprintf(out + n, cap - n, " %s~%d+%s~%d", op_name[a->op], number[a->in], op_name[b->op], number[b->in]);
        number[2 + node] = 2 + at++;
    }
    return n;
}

static void any_numbering_of_the_nodes_gives_the_same_text(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 31, RNG_TEST, 0);
    for (int k = 0; k < 300; k++) {
        struct term t[2][5][2];
        char first[ARCH_TEXT_MAX] = "", text[ARCH_TEXT_MAX], in[ARCH_TEXT_MAX];
        for (int i = 0; i < 20; i++)
            t[i / 10][i / 2 % 5][i % 2] = (struct term){ (int)rng_below(&r, (uint32_t)(2 + i / 2 % 5)), (int)rng_below(&r, 5) };
        for (int again = 0; again < 8; again++) {
            size_t n = (size_t)snprintf(in, sizeof in, "normal:");
            n += shuffled(&r, t[0], in + n, sizeof in - n);
            n += (size_t)snprintf(in + n, sizeof in - n, " | reduce:");
            shuffled(&r, t[1], in + n, sizeof in - n);
            must_canon(in, text);
            if (again)
                assert_string_equal(first, text);
            strcpy(first, text);
        }
    }
}

static void mistakes_name_the_cell_and_the_node(void **state)
{
    (void)state;
    static const struct { const char *in, *say; } bad[] = {
        { "", "the first cell must open with 'normal:'" },
        { "normal: sep7~0+skip~1", "normal cell, node 2: 'sep7' is none of skip, sep3, sep5, max3, avg3" },
        { "normal: sep3~2+skip~1", "normal cell, node 2: sep3 must end in ~0 to ~1" },
        { "normal: sep3~1+skip~12", "normal cell, node 2: skip must end in ~0 to ~1" },
        { "normal: sep3~1 skip~0", "normal cell, node 2: must be two operations" },
        { "normal: sep3~1+skip~0 skip~3+skip~0", "normal cell, node 3: skip must end in ~0 to ~2" },
        { "normal: sep3~1+skip~0", "normal cell, node 3: '' is none of" },
        { "normal: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1", "'|' must follow the five nodes" },
        { "normal: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 | normal:", "the second cell must open with 'reduce:'" },
        { "normal: skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1 skip~0+skip~1" REST " x", "there is 'x' after" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        struct net n;
        assert_int_equal(S->canon(S, bad[i].in, text, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].in, e.text, bad[i].say);
        assert_int_equal(space_build(S, bad[i].in, 1, 28, 28, 10, NULL, &n, NULL), -ERR_INPUT);
    }
}

static const struct net_node *layer(const struct net *n, const char *path)
{
    for (int i = 0; i < n->n_nodes; i++)
        if (strcmp(n->node[i].path, path) == 0)
            return &n->node[i];
    fail_msg("no layer %s", path);
    return NULL;
}

static void cells_are_built_as_written(void **state)
{
    (void)state;
    static const struct { const char *path; enum net_op op; int c, side; } want[] = {
        { "stem.conv", NET_CONV, 8, 28 },        { "cell1.in0.conv", NET_CONV, 8, 28 },    { "cell1.n2b.dw1", NET_CONV, 8, 28 },
        { "cell1.concat", NET_CONCAT, 24, 28 },  { "reduce1.in1.conv", NET_CONV, 16, 28 }, { "reduce1.n2a.pool", NET_MAXPOOL, 16, 14 },
        { "reduce1.n2b.pool", NET_AVGPOOL, 16, 14 }, { "reduce1.n3b.dw1", NET_CONV, 16, 14 }, { "cell2.in0.pool", NET_AVGPOOL, 24, 14 },
        { "cell2.in1.conv", NET_CONV, 16, 14 },  { "reduce2.in0.conv", NET_CONV, 32, 14 }, { "cell3.concat", NET_CONCAT, 96, 7 },
        { "head.linear", NET_LINEAR, 10, 1 },
    };
    struct net n;
    struct errbuf e = { 0 };
    const char *arch = "normal: skip~0+sep3~1 max3~0+max3~1 skip~2+skip~3 sep5~0+avg3~1 avg3~1+avg3~1" REST;
    if (space_build(S, arch, 1, 28, 28, 10, NULL, &n, &e) < 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct net_node *l = layer(&n, want[i].path);
        if (l->op != want[i].op || l->shape.c != want[i].c || l->shape.h != want[i].side)
            fail_msg("%s is %s of %d channels, side %d", want[i].path, net_op_name(l->op), l->shape.c, l->shape.h);
    }
    /* The first cell: two projections of 8 to 8, sep3 and sep5 twice each; 784 places. The first reads the stem twice. */
    uint64_t macs = 0;
    for (int i = 0; i < n.n_nodes; i++)
        if (strncmp(n.node[i].path, "cell1.", 6) == 0)
            macs += net_node_macs(&n, i);
    assert_int_equal(macs, 784 * (2 * 64 + 2 * (8 * 9 + 64) + 2 * (8 * 25 + 64)));
    net_fini(&n);
}

static void the_skeleton_grows_with_the_proxy(void **state)
{
    (void)state;
    static const struct space *const spaces[] = { &space_nasnet, &space_nasbench201 };
    static const char *const arch[] = { "normal: skip~0+sep3~1 max3~0+max3~1 skip~2+skip~3 sep5~0+avg3~1 avg3~1+avg3~1" REST,
                                        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|" };
    for (int i = 0; i < 2; i++) {
        struct net plain, same, large, small;
        struct proxy stated = { .channels = 8, .cells = 1, .downsample = 1 }, more = { .channels = 16, .cells = 5 }, less = { .downsample = 2 };
        assert_int_equal(space_build(spaces[i], arch[i], 3, 32, 32, 10, NULL, &plain, NULL), 0);
        assert_int_equal(space_build(spaces[i], arch[i], 3, 32, 32, 10, &stated, &same, NULL), 0);
        assert_int_equal(space_build(spaces[i], arch[i], 3, 32, 32, 10, &more, &large, NULL), 0);
        assert_int_equal(space_build(spaces[i], arch[i], 3, 32, 32, 10, &less, &small, NULL), 0);
        assert_true(plain.n_nodes == same.n_nodes && plain.param_count == same.param_count && net_macs(&plain) == net_macs(&same));
        assert_int_equal(layer(&large, "stem.conv")->shape.c, 16);
        layer(&large, i ? "cell15.e01.conv" : "cell15.in0.conv"); /* five cells a stage */
        assert_int_equal(small.param_count, plain.param_count);
        assert_int_equal(layer(&small, "stem.conv")->shape.h, 16);
        assert_true(net_macs(&large) > 10 * net_macs(&plain) && 3 * net_macs(&small) < net_macs(&plain));
        net_fini(&plain);
        net_fini(&same);
        net_fini(&large);
        net_fini(&small);
    }
}

/* What `build` makes before space_build prunes it. */
static void build_all(const char *arch, const struct proxy *p, struct net *n)
{
    struct arch_frame f = { 1, 28, 28, 10, *p };
    assert_int_equal(S->build(S, arch, &f, n, NULL), 0);
}

static void layers_that_nothing_reads_are_not_there(void **state)
{
    (void)state;
    /* Every cell reads only the last but one: reduction cells stand beside the way to the output. */
    const char *arch = "normal: skip~0+sep3~0 max3~0+max3~0 skip~2+skip~3 sep5~0+avg3~0 avg3~0+avg3~0"
                       " | reduce: max3~0+skip~1 sep3~0+sep3~2 avg3~2+skip~3 skip~2+sep5~3 skip~0+skip~5";
    struct net all, n;
    build_all(arch, &(struct proxy){ 0 }, &all);
    assert_int_equal(space_build(S, arch, 1, 28, 28, 10, NULL, &n, NULL), 0);
    layer(&all, "reduce1.in1.conv");
    for (int i = 0; i < n.n_nodes; i++)
        if (strncmp(n.node[i].path, "reduce", 6) == 0 || strstr(n.node[i].path, ".in1."))
            fail_msg("%s is there", n.node[i].path);
    layer(&n, "cell2.in0.conv");
    assert_true(n.param_count < all.param_count && net_macs(&n) < net_macs(&all));
    net_fini(&n);
    net_fini(&all);
}

/* What was scored before layers were left out is scored the same. */
static void what_is_left_has_the_weights_that_it_had(void **state)
{
    (void)state;
    int pruned = 0;
    for (uint64_t i = 0; i < 40; i++) {
        struct proxy p = { .cells = 1 + (int)(i % 3) };
        char arch[ARCH_TEXT_MAX];
        struct net all, n;
        struct rng r;
        rng_init(&r, 5, RNG_TEST, i);
        S->random(S, &r, arch);
        build_all(arch, &p, &all);
        assert_int_equal(space_build(S, arch, 1, 28, 28, 10, &p, &n, NULL), 0);
        float *a = calloc(all.param_count, sizeof *a), *b = calloc(n.param_count, sizeof *b);
        eng_params_init(&all, ENG_F32, 9, a);
        eng_params_init(&n, ENG_F32, 9, b);
        for (int k = 0, was = 0; k < n.n_params; k++, was++) {
            while (was < all.n_params && strcmp(all.param[was].name, n.param[k].name) != 0)
                was++;
            assert_true(was < all.n_params && all.param[was].size == n.param[k].size);
            assert_memory_equal(a + all.param[was].offset, b + n.param[k].offset, n.param[k].size * sizeof *b);
        }
        pruned += n.n_params < all.n_params;
        free(a);
        free(b);
        net_fini(&n);
        net_fini(&all);
    }
    assert_true(pruned > 0 && pruned < 40);
}

static void a_published_cell_has_its_published_cost(void **state)
{
    (void)state;
    /* Row 11 of NAS-Bench-201's table at the benchmark's own size: 802,426 parameters, 113.951370 million multiply-adds of
     * convolutions, normalisation and pooling; ours counts products only. */
    struct net n;
    struct proxy full = { .channels = 16, .cells = 5 };
    assert_int_equal(space_build(&space_nasbench201, "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|",
                                 3, 32, 32, 10, &full, &n, NULL), 0);
    assert_int_equal(n.param_count, 802426);
    assert_true(net_macs(&n) < 113951370 && (double)net_macs(&n) > 0.97 * 113951370);
    net_fini(&n);
}

static void a_proxy_out_of_range_or_place_is_refused(void **state)
{
    (void)state;
    static const struct { const struct space *s; struct proxy p; const char *say; } bad[] = {
        { &space_nasnet, { .channels = 257 }, "fidelity.channels must be from 0 to 256, not 257" },
        { &space_nasnet, { .cells = -1 }, "fidelity.cells must be from 0 to 8, not -1" },
        { &space_nasbench201, { .downsample = 9 }, "fidelity.downsample must be from 0 to 8, not 9" },
        { &space_chain, { .channels = 16 }, "fidelity.channels: networks of the space chain state their own" },
        { &space_chain, { .cells = 2 }, "fidelity.cells: networks of the space chain state their own" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct errbuf e = { 0 };
        assert_int_equal(space_proxy_check(bad[i].s, &bad[i].p, "fidelity", &e), -ERR_INPUT);
        assert_string_equal(e.text, bad[i].say);
    }
    struct net n;
    struct proxy quarter = { .downsample = 4 };
    struct errbuf e = { 0 };
    assert_int_equal(space_build(&space_chain, "bn relu | c16k3 max2 | s32k3 | gap", 1, 32, 32, 10, &quarter, &n, &e), 0);
    assert_int_equal(layer(&n, "stem.conv")->shape.h, 8);
    net_fini(&n);
    quarter.channels = 16;
    assert_int_equal(space_build(&space_chain, "bn relu | c16k3 max2 | s32k3 | gap", 1, 32, 32, 10, &quarter, &n, &e), -ERR_INPUT);
    assert_null(n.node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_cells_have_equal_text),
        cmocka_unit_test(any_numbering_of_the_nodes_gives_the_same_text),
        cmocka_unit_test(mistakes_name_the_cell_and_the_node),
        cmocka_unit_test(cells_are_built_as_written),
        cmocka_unit_test(the_skeleton_grows_with_the_proxy),
        cmocka_unit_test(layers_that_nothing_reads_are_not_there),
        cmocka_unit_test(what_is_left_has_the_weights_that_it_had),
        cmocka_unit_test(a_published_cell_has_its_published_cost),
        cmocka_unit_test(a_proxy_out_of_range_or_place_is_refused),
    };
    return cmocka_run_group_tests_name("space_nasnet", tests, NULL, NULL);
}
