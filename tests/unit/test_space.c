/* Statistical tests use fixed seeds: they are deterministic. A chi-square statistic of d degrees of freedom stays below
 * d + 4 sqrt(2d) + 6 with a probability far above 0.999. */
#include "common/space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS 2000

static void must_build(const struct space *s, const char *text, int c, int h, int w, struct net *n)
{
    struct errbuf e = { 0 };
    if (space_build(s, text, c, h, w, 10, NULL, n, &e) < 0)
        fail_msg("%s '%s' at %dx%dx%d: %s", s->name, text, c, h, w, e.text);
    assert_true(n->node[n->out].shape.flat);
    assert_int_equal(n->node[n->out].shape.c, 10);
}

static void every_random_architecture_is_canonical_and_builds_at_every_size(void **state)
{
    (void)state;
    static const int size[][3] = { { 1, 28, 28 }, { 3, 32, 32 }, { 1, 8, 8 }, { 3, 17, 9 } };
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++) {
        struct rng r;
        rng_init(&r, 7, RNG_TEST, (uint64_t)i);
        for (int k = 0; k < DRAWS; k++) {
            char text[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
            struct errbuf e = { 0 };
            memset(text, 'x', sizeof text);
            s->random(s, &r, text);
            assert_true(strnlen(text, sizeof text) < ARCH_TEXT_MAX);
            if (s->canon(s, text, again, &e) < 0)
                fail_msg("%s: %s", text, e.text);
            assert_string_equal(text, again);
            for (size_t j = 0; j < sizeof size / sizeof *size; j++) {
                struct net n;
                must_build(s, text, size[j][0], size[j][1], size[j][2], &n);
                net_fini(&n);
            }
        }
    }
}

static void a_mutation_is_canonical_and_another_network(void **state)
{
    (void)state;
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++) {
        struct rng r;
        char text[ARCH_TEXT_MAX], child[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
        rng_init(&r, 8, RNG_TEST, (uint64_t)i);
        s->random(s, &r, text);
        for (int k = 0; k < 5000; k++) {
            struct net n;
            s->mutate(s, &r, text, child);
            assert_string_not_equal(text, child);
            assert_int_equal(s->canon(s, child, again, NULL), 0);
            assert_string_equal(child, again);
            must_build(s, child, 1, 28, 28, &n);
            net_fini(&n);
            strcpy(text, child);
        }
    }
}

static void the_output_depends_on_every_layer(void **state)
{
    (void)state;
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++)
        for (uint64_t k = 0; k < 500; k++) {
            struct proxy p = { .cells = s->has_cells ? (int)(k % 4) : 0 };
            char text[ARCH_TEXT_MAX];
            struct rng r;
            struct net n;
            rng_init(&r, 23, RNG_TEST, k);
            s->random(s, &r, text);
            assert_int_equal(space_build(s, text, 1, 28, 28, 10, &p, &n, NULL), 0);
            bool *read = calloc((size_t)n.n_nodes, sizeof *read);
            for (int node = 0; node < n.n_nodes; node++)
                for (int in = 0; in < n.node[node].n_in; in++)
                    read[n.node[node].in[in]] = true; /* read by a later layer, which is read in turn */
            for (int node = 0; node < n.n_nodes; node++)
                if (!read[node] && node != n.out)
                    fail_msg("%s: nothing reads %s", text, n.node[node].path);
            free(read);
            net_fini(&n);
        }
}

static void the_same_stream_proposes_the_same(void **state)
{
    (void)state;
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++) {
        char a[2][ARCH_TEXT_MAX], b[2][ARCH_TEXT_MAX];
        for (int k = 0; k < 2; k++) {
            struct rng r;
            rng_init(&r, 9, RNG_TEST, 0);
            s->random(s, &r, a[k]);
            s->mutate(s, &r, a[k], b[k]);
        }
        assert_string_equal(a[0], a[1]);
        assert_string_equal(b[0], b[1]);
    }
}

static void expect_uniform(const char *what, const int *count, int n)
{
    double sum = 0, chi = 0;
    for (int i = 0; i < n; i++)
        sum += count[i];
    for (int i = 0; i < n; i++)
        chi += (count[i] - sum / n) * (count[i] - sum / n) / (sum / n);
    if (sum < 200 * n || chi > n - 1 + 4 * sqrt(2.0 * (n - 1)) + 6)
        fail_msg("%s: chi-square %.1f for %d values, %g draws", what, chi, n, sum);
}

/* Which of the words the text has; -1: none or several. */
static int which(const char *text, const char *const *words, int n)
{
    char padded[ARCH_TEXT_MAX + 2], word[32];
    int  found = -1;
    snprintf(padded, sizeof padded, " %s ", text);
    for (int i = 0; i < n; i++) {
        snprintf(word, sizeof word, " %s ", words[i]);
        if (strstr(padded, word)) {
            if (found >= 0)
                return -1;
            found = i;
        }
    }
    return found;
}

static void chain_draws_free_choices_uniformly(void **state)
{
    (void)state;
    static const char *const norms[] = { "bn", "mbn", "wn" }, *const acts[] = { "relu", "lrelu" };
    int norm[3] = { 0 }, act[2] = { 0 };
    struct rng r;
    rng_init(&r, 10, RNG_TEST, 0);
    for (int k = 0; k < 6000; k++) { /* norm hardly enters the cap on size, the activation not at all */
        char text[ARCH_TEXT_MAX];
        space_chain.random(&space_chain, &r, text);
        int a = which(text, norms, 3), b = which(text, acts, 2);
        assert_true(a >= 0 && b >= 0);
        norm[a]++;
        act[b]++;
    }
    expect_uniform("norm", norm, 3);
    expect_uniform("act", act, 2);
}

/* Mutations of `parent` counted by child; expects `want` different ones, equally often. */
static void expect_uniform_children(const struct space *s, const char *parent, int want)
{
    static char child[256][ARCH_TEXT_MAX];
    int    count[256] = { 0 }, n = 0;
    struct rng r;
    rng_init(&r, 11, RNG_TEST, 0);
    for (int k = 0; k < 400 * want; k++) {
        char text[ARCH_TEXT_MAX];
        int  i = 0;
        s->mutate(s, &r, parent, text);
        while (i < n && strcmp(child[i], text) != 0)
            i++;
        assert_true(i < 256);
        if (i == n)
            strcpy(child[n++], text);
        count[i]++;
    }
    if (n != want)
        fail_msg("%s: %d different children, not %d", parent, n, want);
    expect_uniform(parent, count, n);
}

static void mutation_is_uniform_over_the_single_changes(void **state)
{
    (void)state;
    /* Six edges, four other ops each. */
    expect_uniform_children(&space_nasbench201,
                            "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|", 24);
    /* Four stages, so none can be inserted. Whole: 2 + 1 + 3 + 1 + 2 + 3 = 12. A stage: op 2, width 6, kernel 1, repeat 1, pool 3,
     * skip 1 = 14, and its removal; skips of stages 1 to 4 (8 to 12 to 16 to 24 channels, one block) have no effect: -4. Widths
     * that turn neighbours into equal blocks still differ from the parent, and give texts of their own. */
    expect_uniform_children(&space_chain, "bn relu | c8k3 max2 | max2 s12k3 | max2 b16k3 | s24k3 | max2 b32k3 | gap", 12 + 4 * 14 - 4 + 4);
}

static void chain_texts_of_equal_networks_are_equal(void **state)
{
    (void)state;
    static const struct { const char *in, *out; } same[] = {
        { "bn relu|c16k3|s32k3|gap", "bn relu | c16k3 | s32k3 | gap" },
        { "  lrelu   mbn |max2 c16k5| skip s32k3x1 avg2 |flat", "mbn lrelu | c16k5 max2 | avg2 s32k3 | flat" },
        { "bn relu | c16k3 | c24k3 skip | gap", "bn relu | c16k3 | c24k3 | gap" },             /* shapes differ */
        { "bn relu | c16k3 | str2 c16k3 skip | gap", "bn relu | c16k3 | str2 c16k3 | gap" },   /* a stride: shapes differ */
        { "bn relu | c16k3 | max2 c16k3 skip | gap", "bn relu | c16k3 | max2 c16k3 skip | gap" },
        { "bn relu | c16k3 | c24k3 | c24k3 | gap", "bn relu | c16k3 | c24k3x2 | gap" },
        { "bn relu | c16k3 | c24k3 | c24k3 skip | gap", "bn relu | c16k3 | c24k3x2 skip | gap" },
        { "bn relu | c16k3 | c24k3 skip | c24k3 | gap", "bn relu | c16k3 | c24k3x2 | gap" },
        { "bn relu | c16k3 | c16k3 | c16k3 skip | gap", "bn relu | c16k3 | c16k3 | c16k3 skip | gap" },
        { "bn relu | c16k3 | c24k3 | c24k3x2 | gap", "bn relu | c16k3 | c24k3x2 | c24k3 | gap" },
        { "bn relu | c16k3 | c24k3 | max2 c24k3 | gap", "bn relu | c16k3 | c24k3 | max2 c24k3 | gap" },
        { "wn relu | c8k5 str2 | str2 b64k5x2 skip | fc64", "wn relu | c8k5 str2 | str2 b64k5x2 skip | fc64" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        if (space_chain.canon(&space_chain, same[i].in, text, &e) < 0)
            fail_msg("%s: %s", same[i].in, e.text);
        assert_string_equal(text, same[i].out);
    }
}

/* Two nets are the same list of nodes, parameters included. */
static bool same_net(const struct net *a, const struct net *b)
{
    if (a->n_nodes != b->n_nodes || a->param_count != b->param_count || a->out != b->out)
        return false;
    for (int i = 0; i < a->n_nodes; i++) {
        const struct net_node *x = &a->node[i], *y = &b->node[i];
        if (x->op != y->op || memcmp(x->in, y->in, sizeof x->in) != 0 || x->at.out != y->at.out || x->at.k != y->at.k ||
            x->at.stride != y->at.stride || x->at.groups != y->at.groups || x->at.wn != y->at.wn ||
            x->at.mean_only != y->at.mean_only || x->at.slope != y->at.slope || strcmp(x->path, y->path) != 0)
            return false;
    }
    return true;
}

static void chain_texts_that_differ_are_different_networks(void **state)
{
    (void)state;
    enum { N = 300 };
    struct rng r;
    static char text[N][ARCH_TEXT_MAX];
    static struct net net[N];
    int pairs = 0;
    rng_init(&r, 12, RNG_TEST, 0);
    for (int i = 0; i < N; i++) {
        if (i % 3)
            space_chain.mutate(&space_chain, &r, text[i - 1], text[i]); /* near ones are the likeliest to collide */
        else
            space_chain.random(&space_chain, &r, text[i]);
        must_build(&space_chain, text[i], 1, 64, 64, &net[i]); /* large enough for every pool */
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) {
            bool same_text = strcmp(text[i], text[j]) == 0;
            if (same_text != same_net(&net[i], &net[j]))
                fail_msg("'%s' and '%s'", text[i], text[j]);
            pairs += !same_text;
        }
    assert_true(pairs > N * (N - 1) / 2 - N);
    for (int i = 0; i < N; i++)
        net_fini(&net[i]);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void chain_networks_cost_what_the_space_promises(void **state)
{
    (void)state;
    static uint64_t macs[DRAWS], params[DRAWS];
    struct rng r;
    rng_init(&r, 13, RNG_TEST, 0);
    for (int k = 0; k < DRAWS; k++) {
        char text[ARCH_TEXT_MAX];
        struct net n;
        space_chain.random(&space_chain, &r, text);
        must_build(&space_chain, text, 1, 28, 28, &n);
        macs[k] = net_macs(&n);
        params[k] = n.param_count;
        net_fini(&n);
    }
    qsort(macs, DRAWS, sizeof *macs, by_size);
    qsort(params, DRAWS, sizeof *params, by_size);
    print_message("chain at 1x28x28: macs %llu %llu %llu %llu %llu, params %llu %llu %llu (least, 5 %%, median, 95 %%, most; 5 %%, median, most)\n",
                  (unsigned long long)macs[0], (unsigned long long)macs[DRAWS / 20], (unsigned long long)macs[DRAWS / 2],
                  (unsigned long long)macs[DRAWS - DRAWS / 20], (unsigned long long)macs[DRAWS - 1],
                  (unsigned long long)params[DRAWS / 20], (unsigned long long)params[DRAWS / 2], (unsigned long long)params[DRAWS - 1]);
    assert_true(macs[DRAWS / 2] >= 300000 && macs[DRAWS / 2] <= 500000);
    assert_true(macs[0] >= 10000 && macs[DRAWS - 1] <= 3000000 && macs[DRAWS - 1] > 2500000);
    assert_true(params[DRAWS - 1] <= 150000 && params[DRAWS - 1] > 100000);
}

static void chain_mistakes_name_the_section(void **state)
{
    (void)state;
    static const struct { const char *in, *say; } bad[] = {
        { "", "at least four sections" },
        { "bn relu | c16k3 | gap", "at least four sections" },
        { "bn | c16k3 | s16k3 | gap", "section 1: needs one of" },
        { "bn wn | c16k3 | s16k3 | gap", "section 1: 'wn' is out of place" },
        { "bn relu | s16k3 | s16k3 | gap", "section 2: 's16k3': the stem is one plain convolution" },
        { "bn relu | c32k3 | s16k3 | gap", "section 2: 'c32k3': the width must be 8, 12, 16, 24 in the stem" },
        { "bn relu | c16k3 | s17k3 | gap", "section 3: 's17k3': the width must be" },
        { "bn relu | c16k3 | s16k7 | gap", "section 3: 's16k7': the kernel must be 3 or 5" },
        { "bn relu | c16k3 | s16k3x3 | gap", "section 3: 's16k3x3': a stage repeats at most x2" },
        { "bn relu | c16k3 | s16k3y | gap", "section 3: 's16k3y' has 'y' after the block" },
        { "bn relu | c16k3 | q16k3 | gap", "section 3: 'q16k3' is not a block" },
        { "bn relu | c16k3 | max2 | gap", "section 3: has no block" },
        { "bn relu | c16k3 | max2 avg2 s16k3 | gap", "section 3: 'avg2' is a second pooling" },
        { "bn relu | c16k3 | s16k3 s16k3 | gap", "section 3: 's16k3' is neither" },
        { "bn relu | c16k3 | s16k3 | gap gap", "section 4: the last section must be" },
        { "bn relu | c16k3 | s16k3 | s16k3 | s16k3 | s16k3 | s16k3 | gap", "at most 4 stages" },
        { "bn relu | c16k3 | s99999999999999999999k3 | gap", "'s9999999999" },
    };
    char text[ARCH_TEXT_MAX], longest[4000];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct errbuf e = { 0 };
        struct net n;
        assert_int_equal(space_chain.canon(&space_chain, bad[i].in, text, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].in, e.text, bad[i].say);
        assert_int_equal(space_build(&space_chain, bad[i].in, 1, 28, 28, 10, NULL, &n, NULL), -ERR_INPUT);
    }
    memset(longest, ' ', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(space_chain.canon(&space_chain, longest, text, NULL), -ERR_INPUT);
}

static void a_chain_is_built_as_written(void **state)
{
    (void)state;
    struct net n;
    must_build(&space_chain, "wn lrelu | c16k5 max2 | str2 s32k3x2 skip | fc32", 1, 28, 28, &n);
    static const struct { const char *path; int c, side; } want[] = {
        { "stem.conv", 16, 28 }, { "stem.pool", 16, 14 }, { "block1.dw", 16, 7 }, { "block1.pw", 32, 7 }, { "block2.add", 32, 7 },
        { "head.pool", 32, 3 }, { "head.flatten", 288, 1 }, { "head.fc", 32, 1 }, { "head.linear", 10, 1 },
    };
    int at = 0;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        while (at < n.n_nodes && strcmp(n.node[at].path, want[i].path) != 0)
            at++;
        if (at == n.n_nodes)
            fail_msg("no %s in its place", want[i].path);
        assert_int_equal(n.node[at].shape.c, want[i].c);
        assert_int_equal(n.node[at].shape.h, want[i].side);
    }
    assert_string_equal(n.param[0].name, "stem.conv.weight_v");
    assert_true(n.node[2].at.mean_only);
    net_fini(&n);
}

static void cells_are_read_and_pruned(void **state)
{
    (void)state;
    static const struct { const char *in, *out; } same[] = {
        { "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
          "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|" },
        /* node 2 feeds nothing: what enters it is dead */
        { "|nor_conv_3x3~0| + |nor_conv_1x1~0|avg_pool_3x3~1| + |skip_connect~0|none~1|none~2|",
          "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|" },
        /* node 1 has no input: what leaves it is dead */
        { "|none~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|skip_connect~2|",
          "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|" },
        /* node 1 is the input again, node 2 is node 1: the input and two convolutions of it */
        { "|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
          "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|skip_connect~1|skip_connect~2|" },
        /* nodes 1 and 2 are alike: the smaller text */
        { "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|none~0|nor_conv_3x3~1|nor_conv_1x1~2|",
          "|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|" },
        { "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        if (space_nasbench201.canon(&space_nasbench201, same[i].in, text, &e) < 0)
            fail_msg("%s: %s", same[i].in, e.text);
        assert_string_equal(text, same[i].out);
    }
}

static void every_cell_keeps_its_cost_in_canonical_form(void **state)
{
    (void)state;
    static const char *const op[] = { "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3" };
    int pathless = 0;
    for (int code = 0; code < 15625; code += 7) { /* 7 and 5 share no factor: all ops at all edges */
        int  o[6], c = code;
        char text[ARCH_TEXT_MAX], canon[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
        for (int i = 0; i < 6; i++, c /= 5)
            o[i] = c % 5;
        snprintf(text, sizeof text, "|%s~0|+|%s~0|%s~1|+|%s~0|%s~1|%s~2|", op[o[0]], op[o[1]], op[o[2]], op[o[3]], op[o[4]], op[o[5]]);
        assert_int_equal(space_nasbench201.canon(&space_nasbench201, text, canon, NULL), 0);
        assert_int_equal(space_nasbench201.canon(&space_nasbench201, canon, again, NULL), 0);
        assert_string_equal(canon, again);
        struct net a, b;
        struct errbuf e = { 0 };
        bool path = o[3] || (o[0] && o[4]) || (o[1] && o[5]) || (o[0] && o[2] && o[5]);
        int rc = space_build(&space_nasbench201, text, 1, 28, 28, 10, NULL, &a, &e);
        assert_int_equal(rc, path ? 0 : -ERR_SHAPE);
        if (!path) {
            assert_non_null(strstr(e.text, "no path from input to output"));
            pathless++;
            continue;
        }
        must_build(&space_nasbench201, canon, 1, 28, 28, &b);
        assert_true(same_net(&a, &b));
        /* What NAS-Bench-201 counts: live 3x3 and 1x1 convolutions in all three cells. */
        int live3 = 0, live1 = 0;
        for (const char *p = canon; (p = strstr(p, "nor_conv_3x3")); p++)
            live3++;
        for (const char *p = canon; (p = strstr(p, "nor_conv_1x1")); p++)
            live1++;
        assert_int_equal(net_macs(&a), 8 * 9 * 784 + (live3 * 9 + live1) * (64 * 784 + 256 * 196 + 1024 * 49) +
                                           (8 * 16 * 9 + 256 * 9 + 8 * 16) * 196 + (16 * 32 * 9 + 1024 * 9 + 16 * 32) * 49 + 320);
        net_fini(&a);
        net_fini(&b);
    }
    assert_true(pathless > 30);
}

static void cell_mistakes_name_the_edge(void **state)
{
    (void)state;
    static const struct { const char *in, *say; } bad[] = {
        { "", "the edges of node 1 must open with '|'" },
        { "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|", "edge 1 of node 1: 'nor_conv_5x5' is none of" },
        { "|none~0|+|none~1|none~1|+|none~0|none~1|none~2|", "edge 1 of node 2 must end in '~0|'" },
        { "|none~0|+|none~0|+|none~0|none~1|none~2|", "edge 2 of node 2: '' is none of" },
        { "|none~0|+|none~0|none~1|", "the edges of node 3 must open with '+|'" },
        { "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|", "'+|none~0|' after the last edge" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        assert_int_equal(space_nasbench201.canon(&space_nasbench201, bad[i].in, text, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].in, e.text, bad[i].say);
    }
}

/* What an architecture is built for may be as wrong as the architecture: refused by the layer's path, and nothing is left behind. */
static void impossible_images_and_classes_are_refused_with_the_path(void **state)
{
    (void)state;
    static const struct { int c, h, w, classes; const char *say; } bad[] = {
        { 0, 8, 8, 10, "input: input: the output would be empty" },
        { 1, 8, -8, 10, "input: input: the output would be empty" },
        { 3, 65537, 8, 10, "input: input: the output [3,65537,8] is too large" },
        { 65536, 65536, 65536, 10, "input: input: the output [65536,65536,65536] is too large" },
        { 3, 8, 8, 0, "head.linear: linear: out must be 1 to 65536, not 0" },
        { 3, 8, 8, -3, "head.linear: linear: out must be" },
        { 3, 8, 8, 65537, "head.linear: linear: out must be" },
        { 3, 65536, 4096, 10, "stem.conv: conv: the output [8,65536,4096] is too large" },
    };
    const struct { const struct space *space; const char *text; } arch[] = {
        { &space_chain, "bn relu | c8k3 | s16k3 | gap" },
        { &space_nasbench201, "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|" },
    };
    for (size_t s = 0; s < sizeof arch / sizeof *arch; s++)
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            struct errbuf e = { 0 };
            struct net n;
            int rc = space_build(arch[s].space, arch[s].text, bad[i].c, bad[i].h, bad[i].w, bad[i].classes, NULL, &n, &e);
            assert_true(rc == -ERR_SHAPE || rc == -ERR_INPUT);
            if (strncmp(e.text, bad[i].say, strlen(bad[i].say)) != 0)
                fail_msg("%s, row %zu: %s", arch[s].space->name, i, e.text);
            assert_null(n.node);
        }
}

static void a_hash_names_space_and_text(void **state)
{
    (void)state;
    char a[ARCH_HASH_LEN + 1], b[ARCH_HASH_LEN + 1];
    arch_hash("chain", "bn relu | c16k3 | s32k3 | gap", a);
    assert_string_equal(a, "dfc4e110ef3f5dda1ed20aa7e8032aaf"); /* b2sum -l 128 */
    arch_hash("nasbench201", "bn relu | c16k3 | s32k3 | gap", b);
    assert_string_not_equal(a, b);
    assert_ptr_equal(space_find("chain"), &space_chain);
    assert_null(space_find("chains"));
    assert_null(space_at(-1));
    assert_null(space_at(3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_random_architecture_is_canonical_and_builds_at_every_size),
        cmocka_unit_test(a_mutation_is_canonical_and_another_network),
        cmocka_unit_test(the_output_depends_on_every_layer),
        cmocka_unit_test(the_same_stream_proposes_the_same),
        cmocka_unit_test(chain_draws_free_choices_uniformly),
        cmocka_unit_test(mutation_is_uniform_over_the_single_changes),
        cmocka_unit_test(chain_texts_of_equal_networks_are_equal),
        cmocka_unit_test(chain_texts_that_differ_are_different_networks),
        cmocka_unit_test(chain_networks_cost_what_the_space_promises),
        cmocka_unit_test(chain_mistakes_name_the_section),
        cmocka_unit_test(a_chain_is_built_as_written),
        cmocka_unit_test(cells_are_read_and_pruned),
        cmocka_unit_test(every_cell_keeps_its_cost_in_canonical_form),
        cmocka_unit_test(cell_mistakes_name_the_edge),
        cmocka_unit_test(impossible_images_and_classes_are_refused_with_the_path),
        cmocka_unit_test(a_hash_names_space_and_text),
    };
    return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
