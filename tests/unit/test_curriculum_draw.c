/* The picture of a curriculum, read back: images are looked for in it pixel by pixel, wherever they are. */
#include "client/curriculum_draw.h"

#include "common/fsio.h"
#include "common/image_file.h"
#include "tests/support/tmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct errbuf e;

/* ---- curricula ---- */

/* Images of noise, each unlike any other; image b of a step is of class (b + t) % K. */
static struct curriculum made(int T, int B, int C, int H, int W, int K)
{
    struct curriculum u = { .T = T, .B = B, .c = C, .h = H, .w = W, .K = K };
    const size_t n_pixels = (size_t)(T * B * C * H * W);
    u.images = malloc(n_pixels);
    u.labels = calloc((size_t)(T * B * K), sizeof *u.labels);
    u.lr = calloc((size_t)T, sizeof *u.lr);
    u.mu = calloc((size_t)T, sizeof *u.mu);
    assert_true(u.images && u.labels && u.lr && u.mu);
    uint32_t r = 1;
    for (size_t i = 0; i < n_pixels; i++) {
        r = r * 1664525u + 1013904223u;
        u.images[i] = (uint8_t)(r >> 24);
    }
    for (int t = 0; t < T; t++) {
        u.lr[t] = 0.1f / (float)(t + 1);
        u.mu[t] = 0.5f;
        for (int b = 0; b < B; b++)
            u.labels[(t * B + b) * K + (b + t) % K] = 0.9f;
    }
    snprintf(u.provenance, sizeof u.provenance, "{\"config\":{\"kind\":\"distilled\"}}");
    snprintf(u.hash, sizeof u.hash, "0123456789abcdef");
    return u;
}

static uint8_t pixel(const struct curriculum *u, int t, int b, int k, int y, int x)
{
    return u->images[(size_t)((((t * u->B + b) * u->c + (u->c == 3 ? k : 0)) * u->h + y) * u->w + x)];
}

/* ---- pictures ---- */

struct picture { int h, w, zoom; /* of all its images; 0: none was found yet */ uint8_t *px; /* [3,h,w] */ };

static struct picture drawn(void **state, const struct curriculum *u)
{
    struct image_info info;
    struct picture p;
    const char *path = tmp_path(*state, "a.png");
    if (curriculum_draw(u, "a name", path, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(image_probe(path, &info, &e), 0);
    assert_int_equal(info.c, 3);
    p = (struct picture){ info.h, info.w, 0, malloc((size_t)(3 * info.h * info.w)) };
    assert_int_equal(image_read(path, &info, p.px, &e), 0);
    return p;
}

static uint8_t at(const struct picture *p, int k, int y, int x) { return p->px[((size_t)k * (size_t)p->h + (size_t)y) * (size_t)p->w + (size_t)x]; }

struct place { int x, y, zoom; }; /* zoom 0: nowhere */

static bool is_at(const struct picture *p, const struct curriculum *u, int t, int b, struct place q)
{
    for (int y = 0; y < u->h * q.zoom; y++)
        for (int x = 0; x < u->w * q.zoom; x++)
            for (int k = 0; k < 3; k++)
                if (at(p, k, q.y + y, q.x + x) != pixel(u, t, b, k, y / q.zoom, x / q.zoom))
                    return false;
    return true;
}

/* The one place where the image is, enlarged by a whole factor: at first any of at least 2, then the same for all. */
static struct place find(struct picture *p, const struct curriculum *u, int t, int b)
{
    struct place found = { 0 };
    for (int zoom = p->zoom ? p->zoom : 60; zoom >= (p->zoom ? p->zoom : 2); zoom--)
        for (int y = 0; y + u->h * zoom <= p->h; y++)
            for (int x = 0; x + u->w * zoom <= p->w; x++)
                if (at(p, 0, y, x) == pixel(u, t, b, 0, 0, 0) && is_at(p, u, t, b, (struct place){ x, y, zoom })) {
                    if (found.zoom)
                        fail_msg("image %d of step %d is there twice", b, t);
                    found = (struct place){ x, y, zoom };
                }
    p->zoom = found.zoom ? found.zoom : p->zoom;
    return found;
}

static int count(const struct picture *p, uint32_t rgb)
{
    int n = 0;
    for (int y = 0; y < p->h; y++)
        for (int x = 0; x < p->w; x++)
            n += at(p, 0, y, x) == rgb >> 16 && at(p, 1, y, x) == (rgb >> 8 & 0xff) && at(p, 2, y, x) == (rgb & 0xff);
    return n;
}

/* ---- tests ---- */

static void images_stand_in_the_row_of_their_step_and_the_column_of_their_class(void **state)
{
    enum { T = 3, B = 4, K = 4 };
    struct curriculum u = made(T, B, 1, 5, 7, K);
    struct picture p = drawn(state, &u);
    struct place q[T][K]; /* by class */
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) {
            q[t][(b + t) % K] = find(&p, &u, t, b);
            if (q[t][(b + t) % K].zoom < 2)
                fail_msg("image %d of step %d is not there", b, t);
        }
    for (int t = 0; t < T; t++)
        for (int k = 0; k < K; k++) {
            assert_int_equal(q[t][k].y, q[t][0].y);
            assert_int_equal(q[t][k].x, q[0][k].x);
            assert_true(k == 0 || q[t][k].x >= q[t][k - 1].x + u.w * q[t][k].zoom);
            assert_true(t == 0 || q[t][k].y >= q[t - 1][k].y + u.h * q[t][k].zoom);
        }
    free(p.px);
    curriculum_fini(&u);
}

static void colours_are_kept(void **state)
{
    struct curriculum u = made(2, 3, 3, 4, 4, 3);
    struct picture p = drawn(state, &u);
    for (int t = 0; t < 2; t++)
        for (int b = 0; b < 3; b++)
            assert_true(find(&p, &u, t, b).zoom >= 2);
    free(p.px);
    curriculum_fini(&u);
}

static void of_many_steps_the_first_and_the_last_are_among_those_shown(void **state)
{
    enum { T = 19 };
    struct curriculum u = made(T, 2, 1, 3, 3, 2);
    struct picture p = drawn(state, &u);
    int shown = 0, y = -1;
    for (int t = 0; t < T; t++) {
        struct place q = find(&p, &u, t, 0);
        shown += q.zoom > 0;
        assert_true(q.zoom == 0 || q.y > y);
        y = q.zoom ? q.y : y;
        assert_true(q.zoom > 0 || (t > 0 && t < T - 1));
    }
    assert_int_equal(shown, CURRICULUM_ROWS);
    free(p.px);
    curriculum_fini(&u);
}

static void of_more_classes_than_columns_a_batch_is_sampled_in_the_order_of_classes(void **state)
{
    enum { B = 50, K = 60 };
    struct curriculum u = made(2, B, 1, 3, 3, K);
    struct picture p = drawn(state, &u);
    int shown = 0, x = -1;
    for (int b = 0; b < B; b++) {
        struct place q = find(&p, &u, 0, b);
        shown += q.zoom > 0;
        assert_true(q.zoom == 0 || q.x > x);
        x = q.zoom ? q.x : x;
        assert_true(q.zoom > 0 || (b > 0 && b < B - 1));
    }
    assert_int_equal(shown, CURRICULUM_COLS);
    free(p.px);
    curriculum_fini(&u);
}

static void a_class_that_a_batch_has_not_leaves_its_place_empty(void **state)
{
    struct curriculum u = made(2, 4, 1, 3, 3, 2);
    for (int b = 0; b < 4; b++) { /* step 0 is all of class 1 */
        u.labels[2 * b] = 0;
        u.labels[2 * b + 1] = 1;
    }
    struct picture p = drawn(state, &u);
    struct place of_0 = find(&p, &u, 1, 1), of_1 = find(&p, &u, 1, 0), q = find(&p, &u, 0, 0);
    assert_true(of_0.zoom && of_1.zoom && q.zoom);
    assert_int_equal(q.x, of_1.x);
    assert_int_equal(at(&p, 0, q.y + 1, of_0.x + 1), 255);
    free(p.px);
    curriculum_fini(&u);
}

static void another_curriculum_is_another_picture(void **state)
{
    struct curriculum u = made(3, 4, 1, 5, 7, 4);
    const char *first = tmp_path(*state, "a.svg"), *second = tmp_path(*state, "b.svg");
    float *const numbers[] = { &u.lr[1], &u.mu[2], &u.labels[0] };
    size_t n, m;
    assert_int_equal(curriculum_draw(&u, "a name", first, &e), 0);
    assert_int_equal(curriculum_draw(&u, "a name", second, &e), 0);
    char *a = tmp_read(first, &n), *b = tmp_read(second, &m);
    assert_true(n == m && memcmp(a, b, n) == 0);
    free(b);
    for (size_t i = 0; i < 4; i++) {
        if (i < 3)
            *numbers[i] += 0.25f;
        else
            u.images[0] ^= 1;
        assert_int_equal(curriculum_draw(&u, "a name", second, &e), 0);
        b = tmp_read(second, &m);
        if (n == m && memcmp(a, b, n) == 0)
            fail_msg("change %zu does not show", i);
        free(a);
        a = b;
        n = m;
    }
    free(a);
    curriculum_fini(&u);
}

static void words_say_what_it_is(void **state)
{
    static const char *const words[] = { ">a name<", ">distilled, 3 steps x 4 images of 1 x 5 x 7 (C x H x W), 4 classes, inner optimiser sgd, hash 0123456789ab<",
        ">t = 0<", ">t = 2<", ">eta_t<", ">mu_t<", ">step t<", ">sum of y<", ">class<" };
    struct curriculum u = made(3, 4, 1, 5, 7, 4);
    kind_str kind;
    size_t n;
    assert_int_equal(curriculum_draw(&u, "a name", tmp_path(*state, "a.svg"), &e), 0);
    char *svg = tmp_read(tmp_path(*state, "a.svg"), &n);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(svg, words[i]))
            fail_msg("nothing says %s", words[i]);
    assert_null(strstr(svg, "nan"));
    free(svg);
    static const char *const silent[] = { "", "[1]", "{\"config\":3}", "{\"config\":{\"kind\":4}}" };
    for (size_t i = 0; i < 4; i++) {
        snprintf(u.provenance, sizeof u.provenance, "%s", silent[i]);
        curriculum_kind(&u, kind);
        assert_string_equal(kind, "");
    }
    curriculum_fini(&u);
}

/* Sizes at the edges: nothing is divided by zero, and every bar and line has its colour. */
static void extreme_ones_are_drawn_too(void **state)
{
    static const struct { int T, B, C, H, W, K; } sizes[] = { { 1, 1, 1, 1, 1, 2 }, { 1, 3, 2, 9, 1, 21 }, { 2, 1, 4, 1, 300, 20 }, { 2500, 1, 1, 1, 1, 2 },
        { 2, 2, 1, 2, 2, 3000 }, { 3, 5, 3, 130, 120, 2 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct curriculum u = made(sizes[i].T, sizes[i].B, sizes[i].C, sizes[i].H, sizes[i].W, sizes[i].K);
        if (i == 0) /* and nothing but zeros */
            u.lr[0] = u.mu[0] = u.labels[0] = 0;
        if (i == 1) /* and labels whose sum is negative */
            for (int k = 0; k < 3 * 21; k++)
                u.labels[k] = -1 - (float)k;
        struct picture p = drawn(state, &u);
        assert_true(p.w < 3000 && p.h < 3000);
        assert_true(count(&p, 0x1f5fa8) > 10 && count(&p, 0x222222) > 1000);
        free(p.px);
        curriculum_fini(&u);
    }
}

static void what_cannot_be_written_is_named(void **state)
{
    struct curriculum u = made(1, 2, 1, 2, 2, 2);
    const char *path = tmp_path(*state, "none/a.png");
    assert_int_equal(curriculum_draw(&u, "a name", path, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "none"));
    assert_int_equal(curriculum_draw(&u, "a name", tmp_path(*state, "a.gif"), &e), -ERR_USAGE);
    assert_int_equal(tmp_count(((struct tmp *)*state)->dir), 0);
    curriculum_fini(&u);
}

#define T(name) cmocka_unit_test_setup_teardown(name, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(images_stand_in_the_row_of_their_step_and_the_column_of_their_class), T(colours_are_kept),
        T(of_many_steps_the_first_and_the_last_are_among_those_shown), T(of_more_classes_than_columns_a_batch_is_sampled_in_the_order_of_classes),
        T(a_class_that_a_batch_has_not_leaves_its_place_empty), T(another_curriculum_is_another_picture), T(words_say_what_it_is),
        T(extreme_ones_are_drawn_too), T(what_cannot_be_written_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
