#include "common/space_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
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

static struct space *must_parse(const char *yaml)
{
    struct space *s;
    struct errbuf e = { 0 };
    if (space_file_parse(yaml, strlen(yaml), "my.yaml", &s, &e) < 0)
        fail_msg("%s", e.text);
    return s;
}

static void every_random_architecture_is_canonical_and_builds(void **state)
{
    (void)state;
    static const int size[][3] = { { 1, 28, 28 }, { 3, 32, 32 }, { 1, 8, 8 }, { 3, 17, 9 } };
    struct space *s = must_parse(text_file);
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
            if (s->canon(s, text[i], again, &e) < 0 || space_build(s, text[i], z[0], z[1], z[2], 10, NULL, &n, &e) < 0)
                fail_msg("%s: %s", text[i], e.text);
            assert_string_equal(text[i], again);
            net_fini(&n);
        }
    }
    space_file_free(s);
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

static void mistakes_name_the_line(void **state)
{
    (void)state;
    static const struct { const char *in, *say; } bad[] = {
        { "name: x\n", "a space has a 'name' and a list of 'slots'" },
        { "name: chain\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 1: 'name' must be" },
        { "name: x\nslot: 3\nslots:\n - {name: a, op: conv, width: [8, 16]}\n", "line 2: a space has no key 'slot' (did you mean 'slots'?)" },
        { "name: x\nslots:\n - {name: a, op: conv, width: [8, 16]}\n - {name: a, op: max}\n", "line 4: there is a slot 'a' already (line 3)" },
        { "name: x\nslots:\n - {name: a, op: konv, width: [8, 16]}\n", "line 3: 'a.op' must be of none, conv, sep, neck, dw, max, avg, not 'konv' (did you mean 'conv'?)" },
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
        cmocka_unit_test(moves_are_uniform),
        cmocka_unit_test(slots_are_built_as_written),
        cmocka_unit_test(mistakes_name_the_line),
    };
    return cmocka_run_group_tests_name("space_file", tests, NULL, NULL);
}
