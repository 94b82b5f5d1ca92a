#include "client/canvas.h"

#include "common/fsio.h"
#include "common/image_file.h"
#include "tests/support/tmp.h"

#include <png.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* 2 x 2 pixels: red, green; blue, and a gray. */
static const uint8_t four[] = { 255, 0, 0, 0, 255, 0, 0, 0, 255, 90, 90, 90 };

static void an_image_keeps_its_pixels_as_equal_squares(void **state)
{
    char path[300];
    struct errbuf e;
    struct image_info info;
    struct canvas *c = canvas_new(20, 10);
    static uint8_t px[3][20][40];
    snprintf(path, sizeof path, "%s/a.png", ((struct tmp *)*state)->dir);
    canvas_image(c, 3.5, 2, 4, 3, four, 2, 2); /* so 4 x 3 pixels of the file for one */
    assert_int_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
    assert_int_equal(image_probe(path, &info, &e), 0);
    assert_true(info.c == 3 && info.h == 20 && info.w == 40);
    assert_int_equal(image_read(path, &info, &px[0][0][0], &e), 0);
    for (int y = 0; y < 20; y++)
        for (int x = 0; x < 40; x++) {
            const bool in = x >= 7 && x < 15 && y >= 4 && y < 10;
            const uint8_t *want = four + 3 * (2 * ((y - 4) / 3) + (x - 7) / 4);
            for (int k = 0; k < 3; k++)
                if (px[k][y][x] != (in ? want[k] : 255))
                    fail_msg("(%d, %d) channel %d is %d", x, y, k, px[k][y][x]);
        }
}

static void an_image_beyond_the_edge_is_cut_off(void **state)
{
    char path[300];
    struct errbuf e;
    struct image_info info;
    struct canvas *c = canvas_new(2, 2);
    uint8_t px[3][4][4];
    snprintf(path, sizeof path, "%s/a.png", ((struct tmp *)*state)->dir);
    canvas_image(c, -1, 1, 2, 2, four, 2, 2);
    assert_int_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
    assert_int_equal(image_probe(path, &info, &e), 0);
    assert_int_equal(image_read(path, &info, &px[0][0][0], &e), 0);
    assert_true(px[0][2][0] == 0 && px[1][2][0] == 255 && px[2][2][0] == 0); /* the green one's quarter */
    assert_true(px[0][2][2] == 255 && px[1][2][2] == 255 && px[2][2][2] == 255);
    assert_true(px[0][0][0] == 255 && px[1][0][0] == 255);
}

static void an_svg_holds_an_image_as_a_png(void **state)
{
    static const char opens[] = "width=\"4.00\" height=\"3.00\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,";
    struct tmp *t = *state;
    char path[300], *text;
    size_t n, len;
    unsigned char png[1000];
    struct errbuf e;
    struct image_info info;
    struct canvas *c = canvas_new(20, 10);
    uint8_t px[3][2][2];
    snprintf(path, sizeof path, "%s/a.svg", t->dir);
    canvas_image(c, 3.5, 2, 4, 3, four, 2, 2);
    assert_int_equal(canvas_write(c, path, &e), 0);
    canvas_free(c);
    assert_int_equal(fs_read_all(path, 100000, &text, &n, &e), 0);
    const char *at = strstr(text, opens);
    assert_non_null(at);
    at += strlen(opens);
    assert_int_equal(sodium_base642bin(png, sizeof png, at, strcspn(at, "\""), NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL), 0);
    free(text);
    snprintf(path, sizeof path, "%s/b.png", t->dir);
    tmp_write(path, png, len);
    assert_int_equal(image_probe(path, &info, &e), 0);
    assert_true(info.c == 3 && info.h == 2 && info.w == 2);
    assert_int_equal(image_read(path, &info, &px[0][0][0], &e), 0);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++)
            assert_int_equal(px[k][i / 2][i % 2], four[3 * i + k]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_png_has_each_mark_where_it_was_drawn), T(an_svg_escapes_what_xml_reserves), T(another_ending_is_refused_and_writes_nothing),
        T(an_image_keeps_its_pixels_as_equal_squares), T(an_image_beyond_the_edge_is_cut_off), T(an_svg_holds_an_image_as_a_png),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
