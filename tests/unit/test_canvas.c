#include "client/canvas.h"

#include "common/fsio.h"
#include "tests/support/tmp.h"

#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct canvas *drawing(void)
{
    struct canvas *c = canvas_new(60, 40);
    assert_non_null(c);
    canvas_box(c, 4, 4, 10, 6, 0x102030);
    canvas_disc(c, 40, 20, 5, 0xff0000);
    canvas_line(c, 2, 30, 58, 30, 2, 0x00ff00);
    canvas_text(c, 30, 39, ANCHOR_MIDDLE, 10, 0x0000ff, "%s", "I<&>\xc3");
    return c;
}

static void a_png_has_each_mark_where_it_was_drawn(void **state)
{
    struct tmp *t = *state;
    char path[300];
    struct errbuf e;
    struct canvas *c = drawing();
    snprintf(path, sizeof path, "%s/a.png", t->dir);
    assert_int_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
    png_image im = { .version = PNG_IMAGE_VERSION };
    assert_true(png_image_begin_read_from_file(&im, path));
    assert_true(im.width == 120 && im.height == 80); /* two pixels for one */
    im.format = PNG_FORMAT_RGB;
    uint8_t *px = malloc(PNG_IMAGE_SIZE(im));
    assert_true(png_image_finish_read(&im, NULL, px, 0, NULL));
    static const struct { int x, y; uint32_t rgb; } want[] = {
        { 0, 0, 0xffffff }, { 8, 8, 0x102030 }, { 27, 19, 0x102030 }, { 28, 20, 0xffffff }, { 7, 8, 0xffffff }, { 80, 40, 0xff0000 },
        { 80, 31, 0xff0000 }, { 80, 27, 0xffffff }, { 60, 60, 0x00ff00 }, { 60, 63, 0xffffff }, { 60, 57, 0xffffff } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const uint8_t *p = px + (want[i].y * 120 + want[i].x) * 3;
        uint32_t rgb = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        if (rgb != want[i].rgb)
            fail_msg("(%d, %d) is %06x, not %06x", want[i].x, want[i].y, rgb, want[i].rgb);
    }
    int blue = 0;
    for (int i = 0; i < 120 * 80; i++)
        blue += px[3 * i] == 0 && px[3 * i + 1] == 0 && px[3 * i + 2] == 0xff;
    assert_true(blue > 60); /* the letters: an I alone has 11 dots of 4 pixels */
    free(px);
}

static void an_svg_escapes_what_xml_reserves(void **state)
{
    struct tmp *t = *state;
    char path[300], *text;
    size_t n;
    struct errbuf e;
    struct canvas *c = drawing();
    snprintf(path, sizeof path, "%s/a.svg", t->dir);
    assert_int_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
    assert_int_equal(fs_read_all(path, 100000, &text, &n, &e), 0);
    assert_non_null(strstr(text, "<rect x=\"4.00\" y=\"4.00\" width=\"10.00\" height=\"6.00\" fill=\"#102030\"/>"));
    assert_non_null(strstr(text, "<circle cx=\"40.00\" cy=\"20.00\" r=\"5.00\" fill=\"#ff0000\"/>"));
    assert_non_null(strstr(text, ">I&lt;&amp;&gt;?</text>"));
    free(text);
}

static void another_ending_is_refused_and_writes_nothing(void **state)
{
    struct tmp *t = *state;
    char path[300];
    struct errbuf e;
    struct canvas *c = drawing();
    snprintf(path, sizeof path, "%s/a.gif", t->dir);
    assert_int_equal(canvas_write(c, path, &e), -ERR_USAGE);
    assert_null(fopen(path, "r"));
    snprintf(path, sizeof path, "%s/none/a.svg", t->dir);
    assert_int_not_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
}

#define T(name) cmocka_unit_test_setup_teardown(name, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_png_has_each_mark_where_it_was_drawn), T(an_svg_escapes_what_xml_reserves), T(another_ending_is_refused_and_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
