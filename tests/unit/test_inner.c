#include "common/inner.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static int parse(const char *text, struct inner_cfg *c, struct errbuf *e)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(j);
    int rc = inner_from_json(c, j, "inner", e);
    json_decref(j);
    return rc;
}

static void nothing_given_means_plain_sgd(void **state)
{
    (void)state;
    struct inner_cfg c;
    assert_int_equal(inner_from_json(&c, NULL, "inner", NULL), 0);
    assert_int_equal(c.type, INNER_SGD);
    assert_true(c.weight_decay == 0);
    assert_string_equal(inner_name(INNER_LARS), "lars");
    assert_string_equal(inner_name(INNER_TYPE_COUNT), "?");
}

static void every_field_survives_the_way_to_json_and_back(void **state)
{
    (void)state;
    struct inner_cfg a, b;
    assert_int_equal(parse("{\"type\": \"lars\", \"eps\": 1e-4, \"scale_1d\": 0.5, \"weight_decay\": 0.01}", &a, NULL), 0);
    json_t *j = inner_to_json(&a);
    assert_non_null(j);
    assert_int_equal(inner_from_json(&b, j, "inner", NULL), 0);
    json_decref(j);
    assert_int_equal(b.type, INNER_LARS);
    assert_true(b.eps == 1e-4 && b.scale_1d == 0.5 && b.weight_decay == 0.01);
}

static void each_optimiser_has_its_own_constants_and_keeps_them(void **state)
{
    (void)state;
    static const char *const names[] = { "sgd", "lars", "nesterov", "rmsprop", "adam" };
    assert_int_equal(sizeof names / sizeof *names, INNER_TYPE_COUNT);
    for (int i = 0; i < INNER_TYPE_COUNT; i++) {
        struct inner_cfg a = inner_defaults((enum inner_type)i), b;
        assert_string_equal(inner_name(a.type), names[i]);
        a.clip = 2;
        a.label_smoothing = 0.1;
        if (a.type == INNER_ADAM)
            a.beta2 = 0.9;
        json_t *j = inner_to_json(&a);
        assert_int_equal(inner_from_json(&b, j, "inner", NULL), 0);
        json_decref(j);
        assert_memory_equal(&a, &b, sizeof a);
    }
    assert_true(inner_defaults(INNER_ADAM).eps == 1e-5 && inner_defaults(INNER_RMSPROP).beta2 == 0.99);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct { const char *text, *say; } bad[] = {
        { "[]", "inner: must be an object" },
        { "{\"type\": \"adamm\"}", "unknown type 'adamm' (did you mean 'adam'?)" },
        { "{\"type\": \"adam\", \"beta2\": 1}", "'beta2' must be at most" },
        { "{\"type\": \"larss\"}", "did you mean 'lars'?" },
        { "{\"type\": 1}", "'type' must be a string" },
        { "{\"type\": \"sgd\", \"weigth_decay\": 0}", "unknown key 'weigth_decay' (did you mean 'weight_decay'?)" },
        { "{\"type\": \"lars\", \"eps\": 0}", "'eps' must be a number above 0" },
        { "{\"type\": \"lars\", \"scale_1d\": -1}", "'scale_1d' must be a number of at least 0" },
        { "{\"weight_decay\": \"0\"}", "'weight_decay' must be a number" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct inner_cfg c;
        struct errbuf e = { 0 };
        assert_int_equal(parse(bad[i].text, &c, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].say))
            fail_msg("'%s' does not say '%s'", e.text, bad[i].say);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_means_plain_sgd),
        cmocka_unit_test(every_field_survives_the_way_to_json_and_back),
        cmocka_unit_test(each_optimiser_has_its_own_constants_and_keeps_them),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests_name("inner", tests, NULL, NULL);
}
