#include "common/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void setting_an_error_returns_its_negative_code_and_keeps_the_text(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    assert_int_equal(err_set(&e, ERR_IO, "%s: %d", "disk", 7), -ERR_IO);
    assert_int_equal(e.code, ERR_IO);
    assert_string_equal(e.text, "disk: 7");
    assert_int_equal(err_set(NULL, ERR_SHAPE, "nobody listens"), -ERR_SHAPE);
}

static void wrapping_puts_the_context_first_and_keeps_the_code(void **state)
{
    (void)state;
    struct errbuf e;
    err_set(&e, ERR_NOTFOUND, "no such tensor");
    assert_int_equal(err_wrap(&e, -ERR_NOTFOUND, "file %s", "a.st"), -ERR_NOTFOUND);
    assert_string_equal(e.text, "file a.st: no such tensor");
    assert_int_equal(err_wrap(NULL, -ERR_BUSY, "context"), -ERR_BUSY);
}

static void a_text_that_is_too_long_is_cut_not_overrun(void **state)
{
    (void)state;
    struct { struct errbuf e; char guard[8]; } s;
    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    memset(s.guard, 'g', sizeof s.guard);
    err_set(&s.e, ERR_INPUT, "%s", big);
    err_wrap(&s.e, -ERR_INPUT, "%s", big);
    assert_int_equal(strlen(s.e.text), sizeof s.e.text - 1);
    for (size_t i = 0; i < sizeof s.guard; i++)
        assert_int_equal(s.guard[i], 'g');
}

static void every_code_has_a_name_a_text_and_an_exit_status_that_is_not_success(void **state)
{
    (void)state;
    for (int c = 1; c < ERR_COUNT; c++) {
        assert_memory_equal(err_name(c), "ERR_", 4);
        assert_string_equal(err_name(-c), err_name(c));
        assert_true(strlen(err_text(c)) > 3);
        assert_in_range(err_exit_status(c), 1, 78);
    }
    assert_int_equal(err_exit_status(0), 0);
    assert_string_equal(err_name(-ERR_COUNT), "ERR_?");
}

static void the_documented_exit_statuses_and_retry_hints_hold(void **state)
{
    (void)state;
    assert_int_equal(err_exit_status(-ERR_USAGE), 64);
    assert_int_equal(err_exit_status(-ERR_INPUT), 65);
    assert_int_equal(err_exit_status(-ERR_UNREACHABLE), 69);
    assert_int_equal(err_exit_status(-ERR_INTERNAL), 70);
    assert_int_equal(err_exit_status(-ERR_IO), 74);
    assert_int_equal(err_exit_status(-ERR_BUSY), 75);
    assert_true(err_can_retry(-ERR_TIMEOUT));
    assert_false(err_can_retry(-ERR_INPUT));
}

static void the_message_falls_back_to_the_table_where_the_buffer_is_empty(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    assert_string_equal(err_message(&e, -ERR_STALE), err_text(ERR_STALE));
    assert_string_equal(err_message(NULL, -ERR_STALE), err_text(ERR_STALE));
    err_set(&e, ERR_STALE, "attempt 2 of trial 7 expired");
    assert_string_equal(err_message(&e, -ERR_STALE), "attempt 2 of trial 7 expired");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setting_an_error_returns_its_negative_code_and_keeps_the_text),
        cmocka_unit_test(wrapping_puts_the_context_first_and_keeps_the_code),
        cmocka_unit_test(a_text_that_is_too_long_is_cut_not_overrun),
        cmocka_unit_test(every_code_has_a_name_a_text_and_an_exit_status_that_is_not_success),
        cmocka_unit_test(the_documented_exit_statuses_and_retry_hints_hold),
        cmocka_unit_test(the_message_falls_back_to_the_table_where_the_buffer_is_empty),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
