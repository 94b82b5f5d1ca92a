/* Axes: what stands at their ticks. Read from the SVG, where a tick's text is a <text> element. */
#include "client/plot.h"

#include "tests/support/tmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* All words of a drawing of these axes, each between bars; free it. */
static char *words_of(void **state, struct plot p)
{
    struct canvas *c = canvas_new(400, 400);
    const char *path = tmp_path(*state, "a.svg");
    struct errbuf e;
    size_t n;
    p.x = p.y = 60;
    p.w = p.h = 300;
    plot_axes(c, &p, "x name", "y name");
    assert_int_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
    char *svg = tmp_read(path, &n), *words = calloc(1, n + 1);
    for (char *at = svg; (at = strstr(at, "<text ")); at++) {
        char *from = strchr(at, '>') + 1;
        strcat(words, "|");
        strncat(words, from, strcspn(from, "<"));
    }
    strcat(words, "|");
    free(svg);
    return words;
}

static void says(void **state, struct plot p, const char *want)
{
    char *words = words_of(state, p);
    assert_string_equal(words, want);
    free(words);
}

static void ticks_stand_at_round_numbers(void **state)
{
    says(state, (struct plot){ .x0 = -0.013, .x1 = 0.98, .y0 = 41.3, .y1 = 118 }, "|0.0|0.2|0.4|0.6|0.8|60|80|100|x name|y name|");
    says(state, (struct plot){ .x0 = 0, .x1 = 31999, .y0 = -1e-7, .y1 = 1.1e-6 }, "|0|10.0k|20.0k|30.0k|0|2e-07|4e-07|6e-07|8e-07|1e-06|x name|y name|");
}

static void steps_and_classes_have_whole_ticks(void **state)
{
    says(state, (struct plot){ .x0 = -0.5, .x1 = 2.5, .y0 = -0.5, .y1 = 9.5, .whole_x = true, .whole_y = true },
         "|0|1|2|0|1|2|3|4|5|6|7|8|9|x name|y name|");
    says(state, (struct plot){ .x0 = -0.5, .x1 = 0.5, .y0 = 0, .y1 = 1, .whole_x = true }, "|0|0.0|0.2|0.4|0.6|0.8|1.0|x name|y name|");
}

static void a_range_that_cannot_be_divided_has_no_ticks(void **state)
{
    says(state, (struct plot){ .x0 = -1e308, .x1 = 1e308, .y0 = 0, .y1 = 5e-324 }, "|x name|y name|");
    char *words = words_of(state, (struct plot){ .x0 = 1e18, .x1 = 1e18 + 256, .y0 = 0, .y1 = 1 }); /* one more is the same number */
    assert_non_null(strstr(words, "x name"));
    free(words);
}

static void a_range_is_a_little_wider_than_its_values(void **state)
{
    (void)state;
    static const double some[] = { 3, 1, 2 }, same[] = { 4, 4 }, zero[] = { 0 };
    double low, high;
    plot_range(some, 3, &low, &high);
    assert_true(low == 1 - 0.1 && high == 3 + 0.1);
    plot_range(same, 2, &low, &high);
    assert_true(low < 4 && high > 4);
    plot_range(zero, 1, &low, &high);
    assert_true(low < 0 && high > 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(ticks_stand_at_round_numbers), T(steps_and_classes_have_whole_ticks), T(a_range_that_cannot_be_divided_has_no_ticks),
        T(a_range_is_a_little_wider_than_its_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
