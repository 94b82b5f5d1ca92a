/* The oracle's layer lists, and everything a layer list can have wrong. Runs in the repository root. */
#include "common/net.h"
#include "common/suggest.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static json_t *load(const char *name)
{
    char path[200];
    json_error_t je;
    snprintf(path, sizeof path, "tests/oracle/cases/%s.json", name);
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
    if (!j)
        fail_msg("%s: %s (run this in the repository root)", path, je.text);
    return j;
}

static void expect_params(const struct net *n, const json_t *want)
{
    assert_int_equal(n->n_params, json_array_size(want));
    for (int i = 0; i < n->n_params; i++) {
        const json_t *w = json_array_get(want, (size_t)i), *shape = json_object_get(w, "shape");
        const char *name = json_string_value(json_object_get(w, "name"));
        assert_string_equal(strchr(name, '.') + 1, n->param[i].name); /* "w0." and "phi." are the case's */
        assert_int_equal(n->param[i].ndim, json_array_size(shape));
        for (int d = 0; d < n->param[i].ndim; d++)
            assert_int_equal(n->param[i].dim[d], json_integer_value(json_array_get(shape, (size_t)d)));
    }
}

static int at(const json_t *list, size_t i)
{
    return (int)json_integer_value(json_array_get(list, i));
}

static void every_oracle_case_has_the_parameters_it_lists(void **state)
{
    (void)state;
    static const char *const cases[] = { "a_mlp_direct", "b_conv_bn_direct", "c_sepconv_residual_momentum", "d_generator",
                                         "e_weightnorm_meanbn_early", "f_cell_concat" };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct net n;
        struct errbuf e = { 0 };
        json_t *j = load(cases[i]);
        const json_t *image = json_object_get(j, "image"), *gen = json_object_get(j, "generator");
        int classes = (int)json_integer_value(json_object_get(j, "classes"));
        assert_int_equal(net_init(&n, at(image, 0), at(image, 1), at(image, 2), &e), 0);
        if (net_from_json(&n, json_object_get(j, "learner"), "learner", &e) < 0)
            fail_msg("%s: %s", cases[i], e.text);
        expect_params(&n, json_object_get(j, "learner_params"));
        assert_true(n.node[n.out].shape.flat);
        assert_int_equal(n.node[n.out].shape.c, classes);
        net_fini(&n);
        if (gen) {
            assert_int_equal(net_init(&n, (int)json_integer_value(json_object_get(j, "zdim")) + classes, 0, 0, &e), 0);
            if (net_from_json(&n, gen, "generator", &e) < 0)
                fail_msg("%s: %s", cases[i], e.text);
            expect_params(&n, json_object_get(j, "generator_params"));
            assert_int_equal(n.node[n.out].shape.c, at(image, 0));
            assert_int_equal(n.node[n.out].shape.h, at(image, 1));
            net_fini(&n);
        }
        json_decref(j);
    }
}

/* Parse a layer list for a 3x8x8 image. */
static int parse(const char *text, struct net *n, struct errbuf *e)
{
    json_error_t je;
    json_t *j = json_loads(text, JSON_DECODE_ANY, &je);
    if (!j)
        fail_msg("%s: %s", text, je.text);
    assert_int_equal(net_init(n, 3, 8, 8, NULL), 0);
    int rc = net_from_json(n, j, "learner", e);
    json_decref(j);
    return rc;
}

static void mistakes_are_refused_naming_the_layer(void **state)
{
    (void)state;
    static const struct { const char *text, *say; } bad[] = {
        { "{}", "learner: must be a list" },
        { "[]", "learner: has no layers" },
        { "[]", "learner: has no layers" },
        { "\"conv\"", "learner: must be a list of layers, not a string" },
        { "[null]", "learner 0: a layer must be an object, not null" },
        { "[[]]", "learner 0: a layer must be an object, not a list" },
        { "[{\"type\": 3}]", "learner 0: 'type' must be a string, not an integer" },
        { "[{\"type\": \"\"}]", "learner 0: unknown type ''" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 0, \"k\": 3}]", "learner 0: 'out' must be 1 to 65536, not 0" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": -8, \"k\": 3}]", "learner 0: 'out' must be 1 to 65536, not -8" },
        { "[{\"type\": \"conv\", \"in\": 0, \"out\": 8, \"k\": 3}]", "learner 0: 'in' must be 1 to 65536, not 0" },
        { "[{\"type\": \"dwconv\", \"c\": 0, \"k\": 3}]", "learner 0: 'c' must be 1 to 65536, not 0" },
        { "[{\"type\": \"dwconv\", \"c\": 3, \"k\": 9}]", "learner 0: conv: the kernel reaches over 9 places, the padded input has 8" },
        { "[{\"type\": \"sepconv\", \"in\": 3, \"out\": 4, \"k\": 5, \"dilation\": 3}]", "learner 0: conv: the kernel reaches over 13" },
        { "[{\"type\": \"relu\"}, {\"type\": \"maxpool\", \"k\": 9}]", "learner 1: maxpool: the kernel reaches over 9" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 3, \"pad\": -1}]", "learner 0: 'pad' must be 0 to 65536, not -1" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 3, \"groups\": 2}]", "learner 0: conv: 2 groups do not divide" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": null}]", "learner 0: 'k' must be an integer, not null" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": true}]", "learner 0: 'k' must be an integer, not true" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 3, \"bias\": \"yes\"}]", "learner 0: 'bias' must be 0 or 1, not a string" },
        { "[{\"type\": \"lrelu\", \"slope\": \"0.1\"}]", "learner 0: 'slope' must be a number, not a string" },
        { "[{\"type\": \"residual\", \"body\": {}}]", "learner 0: 'body' must be a list, not an object" },
        { "[{\"type\": \"residual\", \"shortcut\": []}]", "learner 0: residual needs 'body'" },
        { "[{\"type\": \"residual\", \"body\": [{\"type\": \"conv\", \"in\": 3, \"out\": 3, \"k\": 3}]}]", "learner 0: add: inputs [3,6,6] and [3,8,8]" },
        { "[{\"type\": \"concat\", \"branches\": [[], [{\"type\": \"maxpool\", \"k\": 2}]]}]", "learner 0: concat: inputs [3,8,8] and [3,4,4]" },
        { "[{\"type\": \"reshape\", \"shape\": [3, 0, 8]}]", "learner 0: 'shape' must be 1 to 65536, not 0" },
        { "[{\"type\": \"reshape\", \"shape\": [3, 8, \"8\"]}]", "learner 0: 'shape' must be an integer, not a string" },
        { "[{\"type\": \"reflectpad\", \"pad\": 8}]", "learner 0: reflectpad: pad 8 must be smaller than both sides" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 65536, \"k\": 1, \"pad\": 100}]", "learner 0: conv: the output [65536,208,208] is too large" },
        { "[{\"type\": \"relu\"}, {\"type\": \"conv\", \"in\": 3, \"out\": 65536, \"k\": 100, \"pad\": 46}]", "learner 1: conv: weight has more than 1073741824 elements" },
        { "[3]", "learner 0: a layer must be an object, not an integer" },
        { "[{\"k\": 3}]", "learner 0: 'type' must be a string, not nothing" },
        { "[{\"type\": \"relu\"}, {\"type\": \"cnov\"}]", "learner 1: unknown type 'cnov' (did you mean 'conv'?)" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 3, \"strid\": 2}]", "learner 0: unknown key 'strid' (did you mean 'stride'?)" },
        { "[{\"type\": \"relu\", \"slope\": 0.1}]", "learner 0: unknown key 'slope'" },
        { "[{\"type\": \"conv\", \"in\": 3, \"k\": 3}]", "learner 0: conv needs 'out'" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4.0, \"k\": 3}]", "learner 0: 'out' must be an integer, not a fraction" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": \"4\", \"k\": 3}]", "'out' must be an integer, not a string" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 3, \"stride\": 0}]", "'stride' must be 1 to 65536, not 0" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 99999999999}]", "'k' must be 1 to 65536, not 99999999999" },
        { "[{\"type\": \"conv\", \"in\": 4, \"out\": 4, \"k\": 3}]", "learner 0: 'in' is 4, the input has 3" },
        { "[{\"type\": \"bn\", \"c\": 4}]", "learner 0: 'c' is 4, the input has 3" },
        { "[{\"type\": \"bn\", \"c\": 3, \"eps\": 0}]", "'eps' must be positive" },
        { "[{\"type\": \"bn\", \"c\": 3, \"mean_only\": 2}]", "'mean_only' must be 0 or 1" },
        { "[{\"type\": \"reshape\", \"shape\": [3, 8]}]", "'shape' must be [c, h, w]" },
        { "[{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 9}]", "learner 0: conv: the kernel reaches over 9" },
        { "[{\"type\": \"residual\", \"body\": [{\"type\": \"relu\"}, {\"type\": \"conv\", \"in\": 3, \"out\": 3, \"k\": 3, \"strid\": 1}]}]",
          "learner 0.body.1: unknown key 'strid' (did you mean 'stride'?)" },
        { "[{\"type\": \"residual\", \"body\": [], \"shortcut\": [{\"type\": \"gep\"}]}]",
          "learner 0.shortcut.0: unknown type 'gep' (did you mean 'gap'?)" },
        { "[{\"type\": \"residual\", \"body\": [{\"type\": \"conv\", \"in\": 3, \"out\": 4, \"k\": 1}]}]", "learner 0: add: inputs" },
        { "[{\"type\": \"concat\", \"branches\": [[{\"type\": \"relu\"}, {\"type\": \"bn\", \"c\": 9}]]}]", "learner 0.0.1: 'c' is 9" },
        { "[{\"type\": \"concat\", \"branches\": []}]", "'branches' must hold 1 to 16 lists, not 0" },
        { "[{\"type\": \"concat\", \"branches\": [{}]}]", "learner 0.0: a branch must be a list" },
        { "[{\"type\": \"linear\", \"in\": 3, \"out\": 2}]", "learner 0: linear: needs a flat vector" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct net n;
        struct errbuf e = { 0 };
        int rc = parse(bad[i].text, &n, &e);
        if (rc != -ERR_INPUT && rc != -ERR_SHAPE)
            fail_msg("%s was accepted", bad[i].text);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].text, e.text, bad[i].say);
        net_fini(&n);
    }
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    char text[8192] = "";
    struct net n;
    struct errbuf e = { 0 };
    for (int i = 0; i < 60; i++)
        strcat(text, "[{\"type\":\"residual\",\"body\":");
    strcat(text, "[{\"type\":\"relu\"}]");
    for (int i = 0; i < 60; i++)
        strcat(text, "}]");
    assert_int_equal(parse(text, &n, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "nested"));
    net_fini(&n);
}

static void booleans_may_be_written_as_words(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e = { 0 };
    assert_int_equal(parse("[{\"type\":\"conv\",\"in\":3,\"out\":4,\"k\":3,\"bias\":true},{\"type\":\"gap\"},"
                           "{\"type\":\"linear\",\"in\":4,\"out\":2,\"bias\":0}]", &n, &e), 0);
    assert_int_equal(n.n_params, 3);
    assert_string_equal(n.param[1].name, "0.bias");
    assert_string_equal(n.param[2].name, "2.weight");
    net_fini(&n);
}

static void the_nearest_word_is_suggested_only_when_it_is_near(void **state)
{
    (void)state;
    static const char *const known[] = { "stride", "pad", "dilation" };
    assert_string_equal(suggest("strdie", known, 3), "stride");
    assert_string_equal(suggest("pda", known, 3), "pad");
    assert_string_equal(suggest("dilations", known, 3), "dilation");
    assert_null(suggest("colour", known, 3));
    assert_null(suggest("", known, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_oracle_case_has_the_parameters_it_lists),
        cmocka_unit_test(mistakes_are_refused_naming_the_layer),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(booleans_may_be_written_as_words),
        cmocka_unit_test(the_nearest_word_is_suggested_only_when_it_is_near),
    };
    return cmocka_run_group_tests_name("net_json", tests, NULL, NULL);
}
