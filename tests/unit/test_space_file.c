#include "common/space_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char text_file[] =
    "name: mine\n"
    "norm: [bn, wn]\n"
    "slots:\n"
    "  - {name: stem, op: conv, width: [8, 16], kernel: 3}\n"
    "  - name: body\n"
    "    op: [conv, sep, none]\n"
    "    width: [16, 32]\n"
    "    depth: [1, 2]\n"
    "    stride: 2\n"
    "    connect: [none, add]\n"
    "  - {name: tail, op: [neck, max], width: 32, kernel: [3, 5], connect: concat, when: {body.op: [conv, sep], stem.width: 8}}\n"
    "head: [gap, flat]\n";

/* Every key once, stages, and connections from afar. */
static const char rich_file[] =
    "name: rich\n"
    "norm: [bn, wn, none]\n"
    "act: [relu, tanh]\n"
    "slots:\n"
    "  - {name: stem, op: conv, width: [8, 12], kernel: [3, 5], pad: [zero, reflect]}\n"
    "  - stage: body\n"
    "    repeat: [1, 2, 3]\n"
    "    widen: [1, 2]\n"
    "    slots:\n"
    "      - {name: mix, op: [conv, sep, neck, dw], width: [8, 16], stride: 2, groups: [1, 2, 4], dilation: [1, 2], order: [post, pre], connect: [none, add, concat]}\n"
    "      - {name: more, op: [none, conv, max, avg], width: 8, norm: [bn, none], act: [none, lrelu], from: [none, stem, input, mix], join: [add, concat]}\n"
    "  - {name: wide, op: [none, up], when: {body.repeat: [2, 3]}}\n"
    "  - {name: tail, op: conv, width: 16, kernel: 1, from: [none, stem, mix, more], join: [add, concat]}\n"
    "  - {name: hidden, op: [none, dense], width: [16, 32], depth: [1, 2], connect: [none, add], from: [none, stem]}\n"
    "head: [gap, flat]\n";

static struct space *must_parse(const char *yaml)
{
    struct space *s;
    struct errbuf e = { 0 };
    if (space_file_parse(yaml, strlen(yaml), "my.yaml", &s, &e) < 0)
        fail_msg("%s", e.text);
    return s;
}

static void expect_all_read(const struct net *n, const char *text)
{
    bool *read = calloc((size_t)n->n_nodes, sizeof *read);
    for (int node = 0; node < n->n_nodes; node++)
        for (int in = 0; in < n->node[node].n_in; in++)
            read[n->node[node].in[in]] = true;
    for (int node = 0; node < n->n_nodes; node++)
        if (!read[node] && node != n->out)
            fail_msg("%s: nothing reads %s", text, n->node[node].path);
    free(read);
}

static void every_random_architecture_is_canonical_and_builds(void **state)
{
    (void)state;
    static const int size[][3] = { { 1, 28, 28 }, { 3, 32, 32 }, { 1, 8, 8 }, { 3, 17, 9 } };
    for (int file = 0; file < 2; file++) {
        struct space *s = must_parse(file ? rich_file : text_file);
        int unbuilt = 0;
        struct rng r;
        rng_init(&r, 41, RNG_TEST, 0);
        for (int k = 0; k < 1000; k++) {
            char text[4][ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
            s->random(s, &r, text[0]);
            s->mutate(s, &r, text[0], text[1]);
            s->random(s, &r, text[2]);
            s->crossover(s, &r, text[0], text[2], text[3]);
            assert_string_not_equal(text[0], text[1]);
            for (int i = 0; i < 4; i++) {
                struct errbuf e = { 0 };
                struct net n;
                const int *z = size[(k + i) % 4];
                int rc = s->canon(s, text[i], again, &e);
                if (rc == 0)
                    rc = space_build(s, text[i], z[0], z[1], z[2], 10, NULL, &n, &e);
                /* what was doubled from an odd side is a place too large for what it would join */
                bool odd = rc == -ERR_SHAPE && strstr(text[i], "wide.op=up") && strstr(e.text, "cannot be made");
                if (rc < 0 && !odd)
                    fail_msg("%s: %s", text[i], e.text);
                assert_string_equal(text[i], again);
                if (rc == 0) {
                    expect_all_read(&n, text[i]);
                    net_fini(&n);
                }
                unbuilt += odd;
            }
        }
        assert_true(file ? unbuilt < 400 : unbuilt == 0);
        space_file_free(s);
    }
}

static void choices_are_live_where_their_conditions_hold(void **state)
{
    (void)state;
    struct space *s = must_parse(text_file);
    static const struct { const char *in, *out; } same[] = {
        { "head=gap stem.width=16  body.op=none norm=bn", "norm=bn stem.width=16 body.op=none head=gap" },
        /* a slot that is not there has no choices, whatever is written; max reads no width, and its one width is no choice anyway */
        { "norm=bn stem.width=16 body.op=none body.width=32 body.depth=2 tail.op=max tail.kernel=5 head=gap", "norm=bn stem.width=16 body.op=none head=gap" },
        { "norm=wn stem.width=8 body.op=sep body.width=16 body.depth=1 body.connect=add tail.op=max tail.kernel=5 head=flat",
          "norm=wn stem.width=8 body.op=sep body.width=16 body.depth=1 body.connect=add tail.op=max tail.kernel=5 head=flat" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        if (s->canon(s, same[i].in, text, &e) < 0)
            fail_msg("%s: %s", same[i].in, e.text);
        assert_string_equal(text, same[i].out);
    }
    space_file_free(s);
}

static void architectures_are_checked(void **state)
{
    (void)state;
    struct space *s = must_parse(text_file);
    static const struct { const char *in, *say; } bad[] = {
        { "", "'norm' is not chosen" },
        { "norm=bn stem.width=16 body.op=none", "'head' is not chosen" },
        { "norm=bn stem.widht=16", "'stem.widht=16' is no choice of this space, such as norm=… (did you mean 'stem.width'?)" },
        { "norm=bn norm=wn", "'norm' is chosen twice" },
        { "norm=bn stem.width=24", "the space has no such value of 'stem.width'" },
        { "stem.kernel=3", "'stem.kernel=3' is no choice" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        assert_int_equal(s->canon(s, bad[i].in, text, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].in, e.text, bad[i].say);
    }
    space_file_free(s);
}

static void moves_are_uniform(void **state)
{
    (void)state;
    struct space *s = must_parse(text_file);
    const char *parent = "norm=wn stem.width=8 body.op=sep body.width=16 body.depth=1 body.connect=add tail.op=max tail.kernel=5 head=flat";
    struct arch_list l = { 0 };
    struct rng r;
    int count[16] = { 0 };
    enum { DRAWS = 6000 };
    assert_int_equal(s->neighbours(s, parent, &l, NULL), 0);
    assert_int_equal(l.n, 1 + 1 + 2 + 1 + 1 + 1 + 1 + 1 + 1);
    rng_init(&r, 42, RNG_TEST, 0);
    for (int k = 0; k < DRAWS; k++) {
        char child[ARCH_TEXT_MAX];
        size_t i = 0;
        s->mutate(s, &r, parent, child);
        while (i < l.n && strcmp(l.text[i], child) != 0)
            i++;
        assert_true(i < l.n);
        count[i]++;
    }
    double chi = 0, want = (double)DRAWS / (double)l.n;
    for (size_t i = 0; i < l.n; i++)
        chi += (count[i] - want) * (count[i] - want) / want;
    assert_true(chi < 9 + 4 * sqrt(18) + 6);
    arch_list_fini(&l);
    space_file_free(s);
}

static void expect_canon(const struct space *s, const char *in, const char *out)
{
    char text[ARCH_TEXT_MAX];
    struct errbuf e = { 0 };
    if (s->canon(s, in, text, &e) < 0)
        fail_msg("%s: %s", in, e.text);
    assert_string_equal(text, out);
}

static const char from_file[] =
    "name: far\n"
    "slots:\n"
    "  - {name: a, op: conv, width: [8, 16]}\n"
    "  - {name: b, op: [none, conv], width: 8}\n"
    "  - {name: c, op: [conv, avg], width: 8, kernel: [1, 3], dilation: [1, 2], pad: [zero, reflect], from: [none, input, a, b], join: [add, concat]}\n";

/* Equal networks, equal texts: a source that is not there is the one above it; a slot's own input joins nothing; what is around
 * nothing is not read. */
static void what_has_no_effect_disappears(void **state)
{
    (void)state;
    struct space *s = must_parse(from_file);
    expect_canon(s, "a.width=8 b.op=none c.op=conv c.kernel=1 c.from=b c.join=concat", "a.width=8 b.op=none c.op=conv c.kernel=1 c.from=none");
    expect_canon(s, "a.width=8 b.op=none c.op=conv c.kernel=1 c.from=a c.join=concat", "a.width=8 b.op=none c.op=conv c.kernel=1 c.from=none");
    expect_canon(s, "a.width=8 b.op=conv c.op=conv c.kernel=1 c.from=b c.join=add", "a.width=8 b.op=conv c.op=conv c.kernel=1 c.from=none");
    expect_canon(s, "a.width=8 b.op=conv c.op=conv c.kernel=1 c.from=a c.join=add", "a.width=8 b.op=conv c.op=conv c.kernel=1 c.from=a c.join=add");
    expect_canon(s, "a.width=8 b.op=none c.op=conv c.kernel=3 c.dilation=2 c.pad=reflect c.from=input c.join=add",
                 "a.width=8 b.op=none c.op=conv c.kernel=3 c.dilation=2 c.pad=reflect c.from=input c.join=add");
    expect_canon(s, "a.width=8 b.op=none c.op=avg c.kernel=3 c.dilation=2 c.pad=reflect c.from=none", "a.width=8 b.op=none c.op=avg c.kernel=3 c.from=none");
    space_file_free(s);
    s = must_parse(rich_file);
    const char *rest = " wide.op=none tail.from=none hidden.op=none head=gap";
    char in[ARCH_TEXT_MAX], out[ARCH_TEXT_MAX];
    /* norm and act are read by the stem, widen only by a second repeat; a stage's first slot may join its own last output */
    snprintf(in, sizeof in, "norm=wn act=relu stem.width=8 stem.kernel=3 stem.pad=zero body.repeat=1 body.widen=2 mix.op=dw mix.dilation=1 mix.order=post"
             " mix.connect=none more.op=max more.from=mix more.join=add%s", rest);
    expect_canon(s, in, "norm=wn act=relu stem.width=8 stem.kernel=3 stem.pad=zero body.repeat=1 mix.op=dw mix.dilation=1 mix.order=post mix.connect=none"
                 " more.op=max more.from=none tail.from=none hidden.op=none head=gap");
    snprintf(in, sizeof in, "norm=wn act=relu stem.width=8 stem.kernel=3 stem.pad=zero body.repeat=2 body.widen=2 mix.op=conv mix.width=8 mix.groups=2 mix.dilation=1"
             " mix.order=post mix.connect=none more.op=none%s", rest);
    snprintf(out, sizeof out, "norm=wn act=relu stem.width=8 stem.kernel=3 stem.pad=zero body.repeat=2 body.widen=2 mix.op=conv mix.width=8 mix.groups=2 mix.dilation=1"
             " mix.order=post mix.connect=none more.op=none%s", rest);
    expect_canon(s, in, out);
    space_file_free(s);
}

/* Conditions on what stands for many slots: a stage, its repeats, the activation of the whole. */
static void conditions_reach_stages_and_the_whole(void **state)
{
    (void)state;
    struct space *s = must_parse("name: x\nact: [relu, tanh]\nslots:\n"
                                 "  - {name: a, op: conv, width: [4, 8], act: none}\n"
                                 "  - {stage: s, repeat: [1, 2], widen: [1, 2], when: {a.width: 8}, slots: [{name: b, op: [none, max]}]}\n"
                                 "  - {name: c, op: [none, avg], when: {s.repeat: 2}}\n"
                                 "  - {name: d, op: [none, avg], when: {act: tanh}}\n");
    /* every slot has its own act, or none; a condition asks for it all the same */
    expect_canon(s, "act=relu a.width=4", "act=relu a.width=4");
    expect_canon(s, "act=tanh a.width=4 s.repeat=2 d.op=avg", "act=tanh a.width=4 d.op=avg");
    expect_canon(s, "act=relu a.width=8 s.repeat=2 s.widen=2 b.op=none c.op=avg", "act=relu a.width=8 s.repeat=2 b.op=none c.op=avg"); /* no width in it */
    expect_canon(s, "act=relu a.width=8 s.repeat=1 b.op=max c.op=avg d.op=avg", "act=relu a.width=8 s.repeat=1 b.op=max");
    space_file_free(s);
    s = must_parse("name: x\nslots:\n  - {name: a, op: conv, width: [4, 8]}\n  - {stage: s, repeat: [1, 2], slots: [{name: b, op: [none, max]}]}\n");
    expect_canon(s, "a.width=4 s.repeat=2 b.op=none", "a.width=4 b.op=none"); /* so often nothing */
    expect_canon(s, "a.width=4 s.repeat=2 b.op=max", "a.width=4 s.repeat=2 b.op=max");
    space_file_free(s);
}

static void expect_shares(const struct space *s, struct rng *r, const char *parent, const char *other, const char *const *child, const double *share, int n)
{
    double all = 0, chi = 0;
    int count[16] = { 0 };
    enum { DRAWS = 8000 };
    for (int k = 0; k < DRAWS; k++) {
        char text[ARCH_TEXT_MAX];
        int i = 0;
        if (other)
            s->crossover(s, r, parent, other, text);
        else
            s->mutate(s, r, parent, text);
        while (i < n && strcmp(child[i], text) != 0)
            i++;
        if (i == n)
            fail_msg("'%s' is not among the children of '%s'", text, parent);
        count[i]++;
    }
    for (int i = 0; i < n; i++)
        all += share[i];
    for (int i = 0; i < n; i++) {
        double want = DRAWS * share[i] / all;
        chi += (count[i] - want) * (count[i] - want) / want;
    }
    if (chi > n - 1 + 4 * sqrt(2.0 * (n - 1)) + 6)
        fail_msg("%s: chi-square %.1f for %d children", parent, chi, n);
}

/* Every combination, written out in full, has one canonical text; drawn at random each comes as often as it has combinations. */
static void random_architectures_are_uniform_over_the_choices(void **state)
{
    (void)state;
    static const char *const key[] = { "a.width", "b.op", "c.op", "c.kernel", "c.dilation", "c.pad", "c.from", "c.join" };
    static const char *const value[][4] = { { "8", "16" }, { "none", "conv" }, { "conv", "avg" }, { "1", "3" }, { "1", "2" }, { "zero", "reflect" },
                                            { "none", "input", "a", "b" }, { "add", "concat" } };
    enum { COMBINATIONS = 512, DRAWS = 60000 };
    struct space *s = must_parse(from_file);
    struct arch_list all = { 0 }, list = { 0 };
    double chi = 0, share[COMBINATIONS] = { 0 }, count[COMBINATIONS] = { 0 };
    char text[ARCH_TEXT_MAX];
    struct rng r;
    assert_true(s->size == COMBINATIONS);
    for (int i = 0; i < COMBINATIONS; i++) {
        char in[ARCH_TEXT_MAX];
        size_t n = 0;
        for (int k = 0, rest = i; k < 8; k++) {
            int values = k == 6 ? 4 : 2;
            n += (size_t)snprintf(in + n, sizeof in - n, "%s=%s ", key[k], value[k][rest % values]);
            rest /= values;
        }
        assert_int_equal(s->canon(s, in, text, NULL), 0);
        assert_int_equal(arch_list_add(&all, text, NULL), 0);
        assert_int_equal(arch_list_add(&list, text, NULL), 0);
    }
    arch_list_sort(&list);
    /* c is conv (1x1: one; else dilation and pad: four) or avg (two kernels), and joins 5 ways where b is there, 3 where it is not */
    assert_int_equal(list.n, 2 * (5 + 3) * (5 + 2));
    for (size_t k = 0; k < list.n; k++)
        for (int i = 0; i < COMBINATIONS; i++)
            share[k] += strcmp(all.text[i], list.text[k]) == 0;
    rng_init(&r, 45, RNG_TEST, 0);
    for (int i = 0; i < DRAWS; i++) {
        size_t k = 0;
        s->random(s, &r, text);
        while (k < list.n && strcmp(list.text[k], text) != 0)
            k++;
        assert_true(k < list.n);
        count[k]++;
    }
    for (size_t k = 0; k < list.n; k++) {
        double want = DRAWS * share[k] / COMBINATIONS;
        chi += (count[k] - want) * (count[k] - want) / want;
    }
    if (chi > (double)list.n - 1 + 4 * sqrt(2.0 * (double)(list.n - 1)) + 6)
        fail_msg("chi-square %.1f for %zu networks", chi, list.n);
    arch_list_fini(&all);
    arch_list_fini(&list);
    space_file_free(s);
}

static void neighbours_are_what_mutation_gives(void **state)
{
    (void)state;
    struct space *s = must_parse(rich_file);
    for (uint64_t k = 0; k < 6; k++) {
        struct arch_list l = { 0 };
        bool reached[128] = { false };
        char parent[ARCH_TEXT_MAX], child[ARCH_TEXT_MAX];
        struct rng r;
        rng_init(&r, 46, RNG_TEST, k);
        s->random(s, &r, parent);
        assert_int_equal(s->neighbours(s, parent, &l, NULL), 0);
        assert_true(l.n >= 8 && l.n < 128);
        for (size_t i = 0; i < l.n; i++)
            assert_string_not_equal(l.text[i], parent);
        for (int draw = 0; draw < 4000; draw++) {
            size_t i = 0;
            s->mutate(s, &r, parent, child);
            while (i < l.n && strcmp(l.text[i], child) != 0)
                i++;
            if (i == l.n)
                fail_msg("'%s' is no neighbour of '%s'", child, parent);
            reached[i] = true;
        }
        for (size_t i = 0; i < l.n; i++)
            assert_true(reached[i]);
        arch_list_fini(&l);
    }
    space_file_free(s);
}

/* Uniform over the changes that give another network: where two changes give one, it comes twice as often. */
static void moves_of_connections_are_uniform(void **state)
{
    (void)state;
    struct space *s = must_parse(from_file);
    struct arch_list l = { 0 };
    struct rng r;
    const char *parent = "a.width=8 b.op=none c.op=avg c.kernel=1 c.from=input c.join=concat";
    static const char *const child[] = {
        "a.width=16 b.op=none c.op=avg c.kernel=1 c.from=input c.join=concat", "a.width=8 b.op=conv c.op=avg c.kernel=1 c.from=input c.join=concat",
        "a.width=8 b.op=none c.op=conv c.kernel=1 c.from=input c.join=concat", "a.width=8 b.op=none c.op=avg c.kernel=3 c.from=input c.join=concat",
        "a.width=8 b.op=none c.op=avg c.kernel=1 c.from=none",                 "a.width=8 b.op=none c.op=avg c.kernel=1 c.from=input c.join=add",
    };
    static const double share[] = { 1, 1, 1, 1, 3, 1 }; /* from none, a and b are one */
    assert_int_equal(s->neighbours(s, parent, &l, NULL), 0);
    assert_int_equal(l.n, 6);
    for (int i = 0; i < 6; i++) {
        size_t k = 0;
        while (k < l.n && strcmp(l.text[k], child[i]) != 0)
            k++;
        assert_true(k < l.n);
    }
    arch_list_fini(&l);
    rng_init(&r, 43, RNG_TEST, 0);
    expect_shares(s, &r, parent, NULL, child, share, 6);
    /* Crossing: width from one of them; b of the second is there, so its from=a is a choice; join is the first's alone where it is read. */
    static const char *const both[] = {
        "a.width=8 b.op=none c.op=avg c.kernel=1 c.from=input c.join=concat",  "a.width=16 b.op=none c.op=avg c.kernel=1 c.from=input c.join=concat",
        "a.width=8 b.op=conv c.op=avg c.kernel=1 c.from=input c.join=concat",  "a.width=16 b.op=conv c.op=avg c.kernel=1 c.from=input c.join=concat",
        "a.width=8 b.op=none c.op=avg c.kernel=1 c.from=none",                 "a.width=16 b.op=none c.op=avg c.kernel=1 c.from=none",
        "a.width=8 b.op=conv c.op=avg c.kernel=1 c.from=none",                 "a.width=16 b.op=conv c.op=avg c.kernel=1 c.from=none",
    };
    static const double equal[] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    expect_shares(s, &r, parent, "a.width=16 b.op=conv c.op=avg c.kernel=1 c.from=none", both, equal, 8);
    space_file_free(s);
}

static const struct net_node *layer(const struct net *n, const char *path)
{
    for (int i = 0; i < n->n_nodes; i++)
        if (strcmp(n->node[i].path, path) == 0)
            return &n->node[i];
    fail_msg("no layer %s", path);
    return NULL;
}

static void slots_are_built_as_written(void **state)
{
    (void)state;
    struct space *s = must_parse(text_file);
    struct net n;
    struct errbuf e = { 0 };
    if (space_build(s, "norm=wn stem.width=8 body.op=sep body.width=32 body.depth=2 body.connect=add tail.op=max tail.kernel=5 head=gap", 1, 28, 28, 10,
                    NULL, &n, &e) < 0)
        fail_msg("%s", e.text);
    static const struct { const char *path; enum net_op op; int c, side; } want[] = {
        { "stem1.conv", NET_CONV, 8, 28 },  { "body1.dw", NET_CONV, 8, 14 },      { "body1.shortcut", NET_CONV, 32, 14 }, { "body1.add", NET_ADD, 32, 14 },
        { "body2.pw", NET_CONV, 32, 14 },   { "body2.add", NET_ADD, 32, 14 },     { "tail1.pool", NET_MAXPOOL, 32, 14 },
        { "tail1.concat", NET_CONCAT, 64, 14 }, { "head.linear", NET_LINEAR, 10, 1 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct net_node *l = layer(&n, want[i].path);
        if (l->op != want[i].op || l->shape.c != want[i].c || l->shape.h != want[i].side)
            fail_msg("%s is %s of %d channels, side %d", want[i].path, net_op_name(l->op), l->shape.c, l->shape.h);
    }
    assert_true(layer(&n, "stem1.conv")->at.wn);
    net_fini(&n);
    space_file_free(s);
}

static void expect_layers(const struct space *s, const char *text, int side, const struct net_node *want, size_t n_want)
{
    struct net n;
    struct errbuf e = { 0 };
    if (space_build(s, text, 1, side, side, 10, NULL, &n, &e) < 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < n_want; i++) {
        const struct net_node *w = &want[i], *l = layer(&n, w->path);
        if (l->op != w->op || l->shape.c != w->shape.c || l->shape.h != w->shape.h || (w->at.groups && l->at.groups != w->at.groups) ||
            (w->at.dilation && l->at.dilation != w->at.dilation))
            fail_msg("%s is %s of %d channels, side %d, %d groups, dilation %d", w->path, net_op_name(l->op), l->shape.c, l->shape.h, l->at.groups,
                     l->at.dilation);
    }
    net_fini(&n);
}

#define LAYER(o, name, ch, side, ...) { .op = o, .path = name, .shape = { .c = ch, .h = side }, .at = { __VA_ARGS__ } }

static void stages_and_connections_are_built_as_written(void **state)
{
    (void)state;
    struct space *s = must_parse(rich_file);
    static const struct net_node one[] = {
        LAYER(NET_REFLECTPAD, "stem1.conv_pad", 1, 32), LAYER(NET_CONV, "stem1.conv", 8, 28),
        LAYER(NET_CONV, "body1.mix1.conv", 16, 14, .groups = 4, .dilation = 2), LAYER(NET_BN, "body1.mix1.conv_bn", 8, 28), /* pre: of the input */
        LAYER(NET_CONCAT, "body1.mix1.concat", 24, 14), LAYER(NET_CONV, "body1.more.fit", 8, 14), LAYER(NET_CONCAT, "body1.more.join", 32, 14),
        LAYER(NET_CONV, "body1.more1.conv", 8, 14),
        LAYER(NET_CONV, "body2.mix1.conv", 32, 7, .groups = 4), LAYER(NET_CONV, "body2.more.fit", 8, 7), LAYER(NET_CONV, "body2.more1.conv", 16, 7),
        LAYER(NET_UP2, "wide1.up", 16, 14),
        LAYER(NET_CONV, "tail.fit", 16, 14), LAYER(NET_ADD, "tail.join", 16, 14), LAYER(NET_CONV, "tail1.conv", 16, 14),
        LAYER(NET_GAP, "head.gap", 16, 1), LAYER(NET_GAP, "hidden.fit_gap", 8, 1), LAYER(NET_LINEAR, "hidden.fit", 16, 1), LAYER(NET_ADD, "hidden.join", 16, 1),
        LAYER(NET_LINEAR, "hidden1.linear", 32, 1), LAYER(NET_LINEAR, "hidden1.shortcut", 32, 1), LAYER(NET_ADD, "hidden2.add", 32, 1),
        LAYER(NET_LINEAR, "head.linear", 10, 1),
    };
    /* hidden joins by add: join has one value for it. tail joins what left the stem, at half its side. */
    expect_layers(s, "norm=bn act=tanh stem.width=8 stem.kernel=5 stem.pad=reflect body.repeat=2 body.widen=2 mix.op=conv mix.width=16 mix.groups=4 mix.dilation=2"
                  " mix.order=pre mix.connect=concat more.op=conv more.norm=none more.act=lrelu more.from=stem more.join=concat wide.op=up tail.from=stem tail.join=add"
                  " hidden.op=dense hidden.width=32 hidden.depth=2 hidden.connect=add hidden.from=stem head=gap", 28, one, sizeof one / sizeof *one);
    struct net n;
    struct errbuf e = { 0 };
    /* 25, 13, 7, and doubled 14: no stride makes 14 of 25. Refused, with the slot named */
    assert_int_equal(space_build(s, "norm=bn act=relu stem.width=8 stem.kernel=3 stem.pad=zero body.repeat=2 body.widen=1 mix.op=dw mix.dilation=1 mix.order=post"
                                 " mix.connect=none more.op=none wide.op=up tail.from=stem tail.join=add hidden.op=none head=gap", 1, 25, 25, 10, NULL, &n, &e), -ERR_SHAPE);
    assert_non_null(strstr(e.text, "slot tail"));
    space_file_free(s);
}

/* A key that holds for one operation of a slot means nothing to the others. */
static void keys_that_an_operation_does_not_read_do_nothing(void **state)
{
    (void)state;
    struct space *s = must_parse("name: x\nslots:\n  - {name: a, op: [conv, up, max], width: 4, connect: add, order: pre, stride: 2, groups: 2}\n"
                                 "  - {name: b, op: [none, dense], width: 8, order: pre, stride: 2}\nhead: [gap, flat]\n");
    static const struct net_node want[] = {
        LAYER(NET_UP2, "a1.up", 1, 16), LAYER(NET_LINEAR, "b1.linear", 8, 1), LAYER(NET_LRELU, "b1.act", 8, 1), LAYER(NET_LINEAR, "head.linear", 10, 1),
    };
    struct net n;
    expect_layers(s, "a.op=up b.op=dense head=gap", 8, want, sizeof want / sizeof *want);
    assert_int_equal(space_build(s, "a.op=up b.op=none head=gap", 1, 8, 8, 10, NULL, &n, NULL), 0);
    assert_int_equal(n.n_nodes, 4); /* input, up, gap, linear: nothing was connected */
    net_fini(&n);
    space_file_free(s);
}

/* What a name means is its content: in one process, over several, for hashes of architectures. */
static void a_space_is_its_content(void **state)
{
    (void)state;
    char other[sizeof text_file + 8], hash[2][ARCH_HASH_LEN + 1];
    const struct space *a, *b, *again;
    struct errbuf e = { 0 };
    snprintf(other, sizeof other, "%s# v2\n", text_file);
    assert_int_equal(space_file_register(text_file, strlen(text_file), "a.yaml", &a, &e), 0);
    assert_int_equal(space_file_register(other, strlen(other), "b.yaml", &b, &e), 0);
    assert_int_equal(space_file_register(text_file, strlen(text_file), "c.yaml", &again, &e), 0);
    assert_ptr_equal(a, again);
    assert_ptr_not_equal(a, b);
    assert_string_equal(space_file_name(a), "mine");
    assert_string_equal(space_file_name(b), "mine");
    assert_string_not_equal(a->name, b->name);
    assert_int_equal(strlen(a->name), strlen("mine@0123456789abcdef"));
    assert_memory_equal(a->name + 5, a->hash, 16);
    assert_ptr_equal(space_find(a->name), a);
    assert_ptr_equal(space_find(b->name), b);
    assert_null(space_find("mine"));
    assert_null(space_find("mine@0123456789abcdef"));
    arch_hash(a->name, "x", hash[0]);
    arch_hash(b->name, "x", hash[1]);
    assert_string_not_equal(hash[0], hash[1]);
    assert_true(space_means_hash(a->name, a->hash) && space_means_hash(a->hash, a->hash) && !space_means_hash(a->name, b->hash) && !space_means_hash("mine", a->hash));
    assert_true(space_is_path("./x") && space_is_path("x.yaml") && space_is_path("x.yml") && !space_is_path("x.y") && !space_is_path(".yaml"));
    struct space *wrong;
    assert_int_equal(space_file_parse("name: x\n", 8, "d.yaml", &wrong, &e), -ERR_INPUT);
    assert_int_equal(space_file_register("name: x\n", 8, "d.yaml", &b, &e), -ERR_INPUT);
    assert_null(b);
}

static void *register_many(void *arg) /* what it is given comes back where it failed */
{
    char text[sizeof text_file + 16];
    for (int i = 0; i < 24; i++) {
        const struct space *s;
        snprintf(text, sizeof text, "%s# t%d\n", text_file, i);
        if (space_file_register(text, strlen(text), "t.yaml", &s, NULL) < 0 || space_find(s->name) != s)
            return arg;
    }
    return NULL;
}

static void threads_share_the_registry(void **state)
{
    (void)state;
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, register_many, (void *)(uintptr_t)text_file), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        assert_null(failed);
    }
}

/* A slot may take 99 characters: ten of them fit, eleven do not. */
static void texts_that_could_be_too_long_are_refused(void **state)
{
    (void)state;
    for (int slots = 10; slots <= 11; slots++) {
        char yaml[8192];
        struct errbuf e = { 0 };
        struct space *s;
        size_t n = (size_t)snprintf(yaml, sizeof yaml, "name: long\nslots:\n");
        for (int i = 0; i < slots; i++)
            n += (size_t)snprintf(yaml + n, sizeof yaml - n, " - {name: abcdefghijklmn%c, op: [conv, sep], width: [8, 16], kernel: [3, 11], depth: [1, 2]}\n", 'a' + i);
        int rc = space_file_parse(yaml, n, "l.yaml", &s, &e);
        if (slots == 10) {
            assert_int_equal(rc, 0);
            struct rng r;
            char text[ARCH_TEXT_MAX];
            rng_init(&r, 44, RNG_TEST, 0);
            for (int k = 0; k < 300; k++)
                s->random(s, &r, text);
            space_file_free(s);
        } else {
            assert_int_equal(rc, -ERR_INPUT);
            assert_non_null(strstr(e.text, "too many choices"));
        }
    }
}

/* What a condition names must be there for it to hold, and so on upwards. */
static void conditions_that_never_hold_are_refused(void **state)
{
    (void)state;
    static const struct { const char *slots, *say; } some[] = {
        /* the last slot's condition, and what has no value left; NULL: it may hold */
        { " - {name: b, op: max, when: {a.op: none, a.width: 8}}\n", "line 4: 'when' of b never holds: no value of 'a.op' goes" },
        { " - {name: b, op: max, when: {a.op: [none, conv], a.width: 8}}\n", NULL },
        { " - {name: b, op: max, when: {a.groups: 2}}\n", NULL },
        { " - {name: b, op: max, when: {a.op: sep, a.groups: 2}}\n", "line 4: 'when' of b never holds: no value of 'a.op' goes" },
        { " - {name: b, op: max, when: {a.kernel: 1, a.pad: zero}}\n", "line 4: 'when' of b never holds: no value of 'a.kernel' goes" },
        { " - {name: b, op: max, when: {a.kernel: 3, a.pad: zero}}\n", NULL },
        { " - {name: b, op: max, kernel: [3, 5], when: {a.op: sep}}\n - {name: c, op: max, when: {a.op: conv, b.kernel: 3}}\n",
          "line 5: 'when' of c never holds: no value of 'a.op' goes" },
        { " - {name: b, op: max, kernel: [3, 5], when: {a.op: sep}}\n - {name: c, op: max, when: {a.op: [conv, sep], b.kernel: 3}}\n", NULL },
        { " - {name: b, op: max, from: none, join: [add, concat]}\n - {name: c, op: max, when: {b.join: add}}\n",
          "line 5: 'when' of c never holds: no value of 'b.from' goes" },
        { " - {name: b, op: max, from: [none, input], join: [add, concat]}\n - {name: c, op: max, when: {b.join: add}}\n", NULL },
        { " - {name: b, op: max, kernel: [3, 5], when: {a.op: sep}}\n - {name: c, op: max, kernel: [3, 5], when: {b.kernel: 3}}\n - {name: d, op: max, when: {c.kernel: 3, a.op: none}}\n",
          "line 6: 'when' of d never holds: no value of 'a.op' goes" },
        { " - stage: s\n   repeat: [1, 2]\n   when: {a.op: sep}\n   slots:\n   - {name: b, op: max,\n      when: {a.op: conv}}\n", "line 9: 'when' of b never holds: no value of 'a.op' goes" },
        { " - {stage: s, repeat: [1, 2], when: {a.op: sep}, slots: [{name: b, op: max}]}\n - {name: c, op: max, when: {s.repeat: 2, a.op: none}}\n",
          "line 5: 'when' of c never holds: no value of 'a.op' goes" },
        { " - {stage: s, repeat: [1, 2], when: {a.op: sep}, slots: [{name: b, op: max}]}\n - {name: c, op: max, when: {s.repeat: 2, a.width: 8}}\n", NULL },
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        char yaml[1024];
        struct errbuf e = { 0 };
        struct space *s;
        snprintf(yaml, sizeof yaml, "name: x\nslots:\n - {name: a, op: [none, conv, sep], width: [8, 16], kernel: [1, 3], groups: [1, 2], pad: [zero, reflect]}\n%s", some[i].slots);
        int rc = space_file_parse(yaml, strlen(yaml), "my.yaml", &s, &e);
        if (!some[i].say && rc < 0)
            fail_msg("%s: %s", some[i].slots, e.text);
        if (some[i].say && (rc != -ERR_INPUT || !strstr(e.text, some[i].say)))
            fail_msg("%s: '%s' does not say '%s'", some[i].slots, e.text, some[i].say);
        space_file_free(s);
    }
}

static void about_is_one_line(void **state)
{
    (void)state;
    static const struct { const char *about, *is; } some[] = {
        { "", "a space from a file" },          { "about: for the tests\n", "for the tests" },
        { "about: \" a\\tb\\n\\nc \"\n", "a b c" }, { "about: |\n  one\n  two é\n", "one two é" },
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        char yaml[256];
        snprintf(yaml, sizeof yaml, "name: x\n%sslots:\n - {name: a, op: conv, width: [8, 16]}\n", some[i].about);
        struct space *s = must_parse(yaml);
        assert_string_equal(s->about, some[i].is);
        space_file_free(s);
    }
}

static void mistakes_name_the_line(void **state)
{
    (void)state;
    static const struct { const char *in, *say; } bad[] = {
        { "name: x\n", "a space has a 'name' and a list of 'slots'" },
        { "name: chain\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 1: 'name' must be" },
        { "name: x\nslot: 3\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 2: a space has no key 'slot' (did you mean 'slots'?)" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - {name: a, op: max}\n", "line 4: there is a slot 'a' already (line 3)" },
        { "name: x\nslots:\n - {name: a, op: konv, width: [8, 16]}\n", "line 3: 'a.op' must be of none, conv, sep, neck, dw, max, avg, up, dense, not 'konv' (did you mean 'conv'?)" },
        { "name: x.yaml\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 1: 'name' must be 1 to 46 of letters" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16], from: b}\n", "line 3: 'a.from' must be of none, input, not 'b'" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - {name: b, op: max, from: [aa, none]}\n", "line 4: 'b.from' must be of none, input, a, not 'aa'" },
        { "name: x\nslots:\n - {name: a, op: dense, width: [8, 16]}\n - {name: b, op: conv, width: 8}\n", "line 4: 'b' follows a hidden layer" },
        { "name: x\nslots:\n - {name: a, op: [dense, conv], width: [8, 16]}\n", "line 3: 'a.op': dense goes with none alone" },
        { "name: x\nslots:\n - stage: s\n   slots:\n   - {name: a, op: conv, width: [8, 16]}\n   - {name: b, op: dense, width: 8}\n", "line 6: 'b' is a hidden layer" },
        { "name: x\nslots:\n - stage: s\n   repeat: 9\n   slots:\n   - {name: a, op: conv, width: [8, 16]}\n", "line 4: 's.repeat' must be numbers from 1 to 8" },
        { "name: x\nslots:\n - stage: s\n   repaet: 2\n   slots:\n   - {name: a, op: conv, width: [8, 16]}\n", "line 4: s has no key 'repaet' (did you mean 'repeat'?)" },
        { "name: x\nslots:\n - {stage: s, repeat: 2}\n", "line 3: a stage must be {stage: NAME" },
        { "name: x\nslots:\n - stage: s\n   slots: [{stage: t, slots: []}]\n", "my.yaml: line 4: a stage cannot stand in a stage, as here in 's'" },
        { "name: x\nslots: []\n", "my.yaml: line 2: 'slots' of the space is an empty list" },
        { "name: x\nslots: {a: b}\n", "line 2: 'slots' of the space must be a list" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - stage: s\n   repeat: 2\n   slots: []\n", "line 6: 'slots' of s is an empty list" },
        { "name: x\nabout: [a, b]\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 2: 'about' must be a line of text, not a list" },
        { "name: x\nabout: \"a\\e[2Jb\"\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 2: 'about' has a control character" },
        { "name: x\nabout: \"a\\x9b2Jb\"\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 2: 'about' has a control character" },
        { "name: x\nnorm: {a: b}\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 2: 'norm' must be of bn, mbn, wn, none, not a mapping" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, [16]]}\n", "line 3: 'a.width' must be numbers from 1 to 1024, not a list" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n---\nname: y\n", "my.yaml: line 4: a second document; one file is one space" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]\n - b\n", "my.yaml: line 4: not valid YAML" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - name: b\n   op: max\n   when:\n    a.width: []\n", "line 7: 'when' of b: 'a.width' is an empty list" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - {name: b, op: max,\n    when: {a.width: 8, a.width: 16}}\n", "line 5: 'when' of b: 'a.width' is given twice" },
        { "name: x\nslots:\n - stage: s\n   slots:\n   - {name: s, op: conv, width: [8, 16]}\n", "line 5: there is a stage 's' already (line 3)" },
        { "name: x\nslots:\n - {name: none, op: conv, width: [8, 9]}\n", "line 3: a slot's name is" },
        { "name: x\nslots:\n - stage: s\n   repeat: [1, 2]\n   slots:\n   - {name: a, op: conv, width: 8}\n", "nothing to choose" },
        { "name: x\nslots:\n - name: a\n   op: [conv,\n     conv]\n   width: 8\n", "line 5: 'a.op' lists conv twice" },
        { "name: x\nslots:\n - name: a\n   op: [conv, max]\n", "line 3: 'a.width' is missing: conv needs it" },
        { "name: x\nslots:\n - name: a\n   op: conv\n   width: [8, 0]\n", "line 5: 'a.width' must be numbers from 1 to 1024" },
        { "name: x\nslots:\n - name: a\n   op: conv\n   width: [8, 12]\n   kernel: 4\n", "line 6: 'a.kernel' must be odd numbers from 1 to 11" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - {name: b, op: max,\n    when: {a.widht: 8}}\n", "line 5: 'when' of b: no slot above has 'a.widht'" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - {name: b, op: max,\n    when: {a.width: 24}}\n", "line 5: 'when' of b: 'a.width' is never 24" },
        { "name: x\nslots:\n - {name: b, op: [max, avg],\n    when: {b.op: max}}\n", "line 4: 'when' of b: no slot above has 'b.op'" },
        { "name: x\nslots:\n - {name: a, op: conv, width: 8}\n", "nothing to choose" },
        { "name: x\nslots:\n - {name: A1, op: conv, width: [8, 9]}\n", "line 3: a slot's name is" },
        { "name: x\nslots:\n - {name: a, op: conv, width: []}\n", "line 3: 'a.width' is an empty list" },
        { "name: x\nslots: [\n", "not valid YAML" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct errbuf e = { 0 };
        struct space *s;
        assert_int_equal(space_file_parse(bad[i].in, strlen(bad[i].in), "my.yaml", &s, &e), -ERR_INPUT);
        assert_null(s);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].in, e.text, bad[i].say);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_random_architecture_is_canonical_and_builds),
        cmocka_unit_test(choices_are_live_where_their_conditions_hold),
        cmocka_unit_test(architectures_are_checked),
        cmocka_unit_test(what_has_no_effect_disappears),
        cmocka_unit_test(conditions_reach_stages_and_the_whole),
        cmocka_unit_test(moves_are_uniform),
        cmocka_unit_test(random_architectures_are_uniform_over_the_choices),
        cmocka_unit_test(neighbours_are_what_mutation_gives),
        cmocka_unit_test(moves_of_connections_are_uniform),
        cmocka_unit_test(slots_are_built_as_written),
        cmocka_unit_test(stages_and_connections_are_built_as_written),
        cmocka_unit_test(keys_that_an_operation_does_not_read_do_nothing),
        cmocka_unit_test(a_space_is_its_content),
        cmocka_unit_test(threads_share_the_registry),
        cmocka_unit_test(texts_that_could_be_too_long_are_refused),
        cmocka_unit_test(conditions_that_never_hold_are_refused),
        cmocka_unit_test(about_is_one_line),
        cmocka_unit_test(mistakes_name_the_line),
    };
    return cmocka_run_group_tests_name("space_file", tests, NULL, NULL);
}
