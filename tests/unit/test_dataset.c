#include "common/dataset.h"

#include "common/safetensors.h"
#include "tests/support/tmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h> /* before jpeglib.h */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

#define FASHION "/usr/share/datasets/fashion-mnist"

/* ---- small sources ---- */

static void put_be(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(x >> (24 - 8 * i));
}

/* n images of h x w, pixel = (image * 7 + place) & 255, label = image % 10. */
static size_t idx_images(uint8_t *out, uint32_t n, uint32_t h, uint32_t w)
{
    put_be(out, 0x803);
    put_be(out + 4, n);
    put_be(out + 8, h);
    put_be(out + 12, w);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < h * w; k++)
            out[16 + i * h * w + k] = (uint8_t)(i * 7 + k);
    return 16 + (size_t)n * h * w;
}

static size_t idx_labels(uint8_t *out, uint32_t n)
{
    put_be(out, 0x801);
    put_be(out + 4, n);
    for (uint32_t i = 0; i < n; i++)
        out[8 + i] = (uint8_t)(i % 10);
    return 8 + n;
}

static void write_gz(const char *path, const void *p, size_t n)
{
    tmp_write(path, "", 0);
    gzFile z = gzopen(path, "wb");
    assert_non_null(z);
    assert_int_equal(gzwrite(z, p, (unsigned)n), n);
    assert_int_equal(gzclose(z), Z_OK);
}

static uint8_t scratch[1 << 16];

static const char *idx_source(struct tmp *t, uint32_t n_train, uint32_t n_test)
{
    tmp_write(tmp_path(t, "idx/train-images-idx3-ubyte"), scratch, idx_images(scratch, n_train, 4, 5));
    write_gz(tmp_path(t, "idx/train-labels-idx1-ubyte.gz"), scratch, idx_labels(scratch, n_train));
    if (n_test) {
        write_gz(tmp_path(t, "idx/t10k-images-idx3-ubyte.gz"), scratch, idx_images(scratch, n_test, 4, 5));
        tmp_write(tmp_path(t, "idx/t10k-labels-idx1-ubyte"), scratch, idx_labels(scratch, n_test));
    }
    return tmp_path(t, "idx");
}

static void write_png(const char *path, int w, int h, uint32_t format, const void *pixels)
{
    png_image im = { .version = PNG_IMAGE_VERSION, .width = (png_uint_32)w, .height = (png_uint_32)h, .format = format };
    tmp_write(path, "", 0);
    assert_int_equal(png_image_write_to_file(&im, path, 0, pixels, 0, NULL), 1);
}

static void write_jpeg(const char *path, int w, int h, const uint8_t *gray)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr err;
    tmp_write(path, "", 0);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    c.err = jpeg_std_error(&err);
    jpeg_create_compress(&c);
    jpeg_stdio_dest(&c, f);
    c.image_width = (JDIMENSION)w;
    c.image_height = (JDIMENSION)h;
    c.input_components = 1;
    c.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 100, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(gray + c.next_scanline * (size_t)w);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    fclose(f);
}

static uint8_t gray8[8 * 8];

/* Two classes, three gray 8 x 8 PNG each; image k of class c is filled with 100 * c + k. */
static const char *folder_source(struct tmp *t)
{
    static const char *const classes[] = { "cat", "dog" };
    for (int c = 0; c < 2; c++)
        for (int k = 0; k < 3; k++) {
            memset(gray8, 100 * c + k, sizeof gray8);
            write_png(tmp_path(t, "f/train/%s/%d.png", classes[c], k), 8, 8, PNG_FORMAT_GRAY, gray8);
        }
    return tmp_path(t, "f");
}

static void cifar_batch(const char *path, int n, int first_label)
{
    uint8_t *p = malloc((size_t)n * 3073);
    assert_non_null(p);
    for (int i = 0; i < n; i++) {
        p[i * 3073] = (uint8_t)((first_label + i) % 10);
        for (int k = 0; k < 3072; k++)
            p[i * 3073 + 1 + k] = (uint8_t)(i + k / 1024 * 50);
    }
    tmp_write(path, p, (size_t)n * 3073);
    free(p);
}

/* ---- what every importer must do ---- */

static const char *out(struct tmp *t) { return tmp_path(t, "out.st"); }

static void import_and_open(struct tmp *t, const char *source, struct dataset *d)
{
    hash_str h;
    struct errbuf e = { 0 };
    int rc = dataset_import(source, out(t), h, &e);
    if (rc == 0)
        rc = dataset_open(d, out(t), &e);
    if (rc < 0)
        fail_msg("%s", e.text);
    assert_string_equal(d->hash, h);
}

/* The import fails as bad input, names `file` and says `what`; no output appears. */
static void refused(struct tmp *t, const char *source, const char *file, const char *what)
{
    hash_str h;
    struct errbuf e = { 0 };
    int rc = dataset_import(source, out(t), h, &e);
    if (rc != -ERR_INPUT || !strstr(e.text, file) || !strstr(e.text, what))
        fail_msg("rc %d, \"%s\" does not say \"%s\" and \"%s\"", rc, e.text, file, what);
    assert_int_not_equal(access(out(t), F_OK), 0);
}

static void cut_file(const char *path, size_t by)
{
    size_t n;
    free(tmp_read(path, &n));
    assert_true(n > by);
    assert_int_equal(truncate(path, (off_t)(n - by)), 0);
}

/* ---- splits ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The rows of these splits are together exactly 0 … n - 1. */
static void assert_covers(const struct dataset *d, int first_split, int last_split, uint32_t n)
{
    uint32_t *all = malloc(n * sizeof *all), at = 0;
    assert_non_null(all);
    for (int s = first_split; s <= last_split; s++)
        for (uint32_t i = 0; i < d->n[s]; i++) {
            assert_true(at < n);
            all[at++] = d->index[s][i];
        }
    assert_int_equal(at, n);
    qsort(all, n, sizeof *all, by_value);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(all[i], i);
    free(all);
}

static void an_official_test_set_stays_and_validation_is_a_tenth_of_the_rest(void **state)
{
    struct dataset d;
    import_and_open(*state, idx_source(*state, 200, 30), &d);
    assert_int_equal(d.n[SPLIT_TRAIN], 180);
    assert_int_equal(d.n[SPLIT_VALID], 20);
    assert_int_equal(d.n[SPLIT_TEST], 30);
    assert_covers(&d, SPLIT_TRAIN, SPLIT_VALID, 200);
    assert_covers(&d, SPLIT_TEST, SPLIT_TEST, 30);
    dataset_close(&d);
}

static void without_a_test_set_a_tenth_is_set_aside(void **state)
{
    struct dataset d;
    import_and_open(*state, idx_source(*state, 200, 0), &d);
    assert_int_equal(d.n[SPLIT_TEST], 20);
    assert_int_equal(d.n[SPLIT_VALID], 18);
    assert_int_equal(d.n[SPLIT_TRAIN], 162);
    assert_covers(&d, SPLIT_TRAIN, SPLIT_TEST, 200);
    for (int s = 0; s < SPLIT_COUNT; s++)
        for (uint32_t i = 0; i < d.n[s]; i++) /* labels and pixels follow the row */
            assert_int_equal(dataset_label(&d, (enum split)s, i), d.index[s][i] % 10);
    dataset_close(&d);
}

static void splits_depend_on_the_content_alone(void **state)
{
    struct dataset a, b;
    hash_str h;
    import_and_open(*state, idx_source(*state, 200, 0), &a);
    assert_int_equal(dataset_import(tmp_path(*state, "idx"), tmp_path(*state, "again.st"), h, NULL), 0);
    assert_int_equal(dataset_open(&b, tmp_path(*state, "again.st"), NULL), 0);
    assert_string_equal(a.hash, b.hash);
    for (int s = 0; s < SPLIT_COUNT; s++)
        assert_memory_equal(a.index[s], b.index[s], a.n[s] * sizeof *a.index[s]);
    dataset_close(&b);
    dataset_close(&a);
    dataset_close(&b);
}

static void the_smallest_set_has_an_image_in_every_split(void **state)
{
    struct dataset d;
    import_and_open(*state, idx_source(*state, 3, 0), &d);
    for (int s = 0; s < SPLIT_COUNT; s++)
        assert_int_equal(d.n[s], 1);
    dataset_close(&d);
}

/* ---- IDX ---- */

static void idx_pixels_and_labels_arrive_as_they_were(void **state)
{
    struct dataset d;
    import_and_open(*state, idx_source(*state, 40, 12), &d);
    assert_int_equal(d.c, 1);
    assert_int_equal(d.h, 4);
    assert_int_equal(d.w, 5);
    assert_int_equal(d.n_classes, 10);
    for (int s = 0; s < SPLIT_COUNT; s++)
        for (uint32_t i = 0; i < d.n[s]; i++) {
            uint32_t row = d.index[s][i];
            assert_int_equal(dataset_label(&d, (enum split)s, i), row % 10);
            for (uint32_t k = 0; k < 20; k++)
                assert_int_equal(dataset_image(&d, (enum split)s, i)[k], (uint8_t)(row * 7 + k));
        }
    dataset_close(&d);
}

static void a_truncated_idx_file_is_refused_plain_and_compressed(void **state)
{
    const char *src = idx_source(*state, 40, 12);
    cut_file(tmp_path(*state, "idx/train-images-idx3-ubyte"), 1);
    refused(*state, src, "train-images-idx3-ubyte", "cut off");
    idx_source(*state, 40, 12);
    cut_file(tmp_path(*state, "idx/t10k-images-idx3-ubyte.gz"), 30);
    refused(*state, src, "t10k-images-idx3-ubyte.gz", "cut off");
    idx_source(*state, 40, 12);
    cut_file(tmp_path(*state, "idx/t10k-images-idx3-ubyte.gz"), 4); /* all data there, the checksum is not */
    refused(*state, src, "t10k-images-idx3-ubyte.gz", "damaged gzip");
    idx_source(*state, 40, 12);
    tmp_write(tmp_path(*state, "idx/train-images-idx3-ubyte"), "\0\0\x08", 3);
    refused(*state, src, "train-images-idx3-ubyte", "header");
}

static void a_compressed_file_with_a_flipped_bit_is_refused(void **state)
{
    const char *src = idx_source(*state, 40, 12), *path = tmp_path(*state, "idx/t10k-images-idx3-ubyte.gz");
    size_t n;
    char *p = tmp_read(path, &n);
    for (size_t i = n - 8; i < n; i++) { /* the checksum and the length at its end */
        p[i] ^= 1;
        tmp_write(path, p, n);
        refused(*state, src, "t10k-images-idx3-ubyte.gz", "damaged gzip");
        p[i] ^= 1;
    }
    free(p);
}

static void an_idx_file_with_more_than_it_announces_is_refused(void **state)
{
    const char *src = idx_source(*state, 40, 0);
    size_t n = idx_images(scratch, 40, 4, 5);
    tmp_write(tmp_path(*state, "idx/train-images-idx3-ubyte"), scratch, n + 1);
    refused(*state, src, "train-images-idx3-ubyte", "more data");
}

static void idx_headers_that_disagree_are_refused(void **state)
{
    const char *src = idx_source(*state, 40, 12);
    tmp_write(tmp_path(*state, "idx/t10k-labels-idx1-ubyte"), scratch, idx_labels(scratch, 11));
    refused(*state, src, "t10k-labels-idx1-ubyte", "11 labels for the 12 images");
    idx_source(*state, 40, 12);
    write_gz(tmp_path(*state, "idx/t10k-images-idx3-ubyte.gz"), scratch, idx_images(scratch, 12, 5, 4));
    refused(*state, src, "t10k-images-idx3-ubyte.gz", "5 x 4");
    idx_source(*state, 40, 12);
    tmp_write(tmp_path(*state, "idx/train-images-idx3-ubyte"), scratch, idx_labels(scratch, 40));
    refused(*state, src, "train-images-idx3-ubyte", "magic number");
}

static void an_idx_size_beyond_all_bounds_is_refused_before_memory_is_asked_for(void **state)
{
    const char *src = idx_source(*state, 40, 0);
    idx_images(scratch, 40, 4, 5);
    put_be(scratch + 4, 0xffffffffu);
    put_be(scratch + 8, 4096);
    put_be(scratch + 12, 4096);
    tmp_write(tmp_path(*state, "idx/train-images-idx3-ubyte"), scratch, 100);
    idx_labels(scratch, 40);
    put_be(scratch + 4, 0xffffffffu);
    write_gz(tmp_path(*state, "idx/train-labels-idx1-ubyte.gz"), scratch, 48);
    refused(*state, src, "train-images-idx3-ubyte", "more than");
    idx_images(scratch, 40, 4, 5);
    put_be(scratch + 8, 0x80000001u);
    tmp_write(tmp_path(*state, "idx/train-images-idx3-ubyte"), scratch, 100);
    write_gz(tmp_path(*state, "idx/train-labels-idx1-ubyte.gz"), scratch, idx_labels(scratch, 40));
    idx_images(scratch, 40, 4, 5);
    put_be(scratch + 8, 0x80000001u);
    tmp_write(tmp_path(*state, "idx/train-images-idx3-ubyte"), scratch, 100);
    refused(*state, src, "train-images-idx3-ubyte", "2147483649 x 5");
}

static void a_missing_idx_file_is_named(void **state)
{
    const char *src = idx_source(*state, 40, 12);
    unlink(tmp_path(*state, "idx/train-labels-idx1-ubyte.gz"));
    refused(*state, src, src, "training labels are missing");
    idx_source(*state, 40, 12);
    unlink(tmp_path(*state, "idx/t10k-labels-idx1-ubyte"));
    refused(*state, src, src, "test labels are missing");
}

static void two_idx_candidates_for_one_part_are_refused(void **state)
{
    const char *src = idx_source(*state, 40, 0);
    tmp_write(tmp_path(*state, "idx/emnist-train-images-idx3-ubyte"), scratch, idx_images(scratch, 40, 4, 5));
    refused(*state, src, "emnist-train-images-idx3-ubyte", "both");
}

static void a_plain_idx_file_beside_its_own_gz_is_no_conflict(void **state)
{
    struct dataset d;
    const char *src = idx_source(*state, 40, 0);
    tmp_write(tmp_path(*state, "idx/train-labels-idx1-ubyte"), scratch, idx_labels(scratch, 40));
    import_and_open(*state, src, &d);
    dataset_close(&d);
}

static void a_set_of_one_class_is_refused(void **state)
{
    const char *src = idx_source(*state, 40, 0);
    idx_labels(scratch, 40);
    memset(scratch + 8, 0, 40);
    write_gz(tmp_path(*state, "idx/train-labels-idx1-ubyte.gz"), scratch, 48);
    refused(*state, src, src, "only one class");
}

static void fashion_mnist_is_read_whole(void **state)
{
    if (access(FASHION "/train-images-idx3-ubyte.gz", R_OK) != 0) {
        print_message("skipped: " FASHION " is not there (Debian package dataset-fashion-mnist)\n");
        skip();
    }
    struct dataset d;
    import_and_open(*state, FASHION, &d);
    assert_int_equal(d.n[SPLIT_TRAIN], 55000);
    assert_int_equal(d.n[SPLIT_VALID], 5000);
    assert_int_equal(d.n[SPLIT_TEST], 10000);
    assert_int_equal(d.n_classes, 10);
    assert_int_equal(d.c * 10000 + d.h * 100 + d.w, 12828);
    static const uint8_t first_test_labels[] = { 9, 2, 1, 1, 6, 1, 4, 6, 5, 7 };
    int count[10] = { 0 };
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(dataset_label(&d, SPLIT_TEST, i), first_test_labels[i]);
    for (uint32_t i = 0; i < 10000; i++)
        count[dataset_label(&d, SPLIT_TEST, i)]++;
    for (int k = 0; k < 10; k++)
        assert_int_equal(count[k], 1000);
    double sum = 0;
    for (size_t i = 0; i < 60000 * 784; i++)
        sum += d.images[0][i];
    assert_true(sum / (60000 * 784.0) > 72.9 && sum / (60000 * 784.0) < 73.0); /* the published mean, 0.2860 of 255 */
    dataset_close(&d);
}

/* ---- CIFAR ---- */

static void cifar_batches_are_joined_in_order_with_their_names(void **state)
{
    struct dataset d;
    static const char names[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n";
    cifar_batch(tmp_path(*state, "c/data_batch_1.bin"), 10, 0);
    cifar_batch(tmp_path(*state, "c/data_batch_2.bin"), 20, 3);
    cifar_batch(tmp_path(*state, "c/test_batch.bin"), 5, 1);
    tmp_write(tmp_path(*state, "c/batches.meta.txt"), names, sizeof names - 1);
    import_and_open(*state, tmp_path(*state, "c"), &d);
    assert_int_equal(d.c * 10000 + d.h * 100 + d.w, 33232);
    assert_int_equal(d.n[SPLIT_TRAIN] + d.n[SPLIT_VALID], 30);
    assert_int_equal(d.n[SPLIT_TEST], 5);
    assert_int_equal(d.labels8[0][9], 9);
    assert_int_equal(d.labels8[0][10], 3);
    assert_int_equal(dataset_label(&d, SPLIT_TEST, 4), 5);
    assert_int_equal(dataset_image(&d, SPLIT_TEST, 4)[2 * 1024 + 7], 4 + 100);
    dataset_close(&d);
    struct st_file f;
    assert_int_equal(st_open(&f, out(*state), NULL), 0);
    assert_string_equal(st_meta(&f, "class_names"), "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\"]");
    st_close(&f);
}

static void cifar_100_takes_the_fine_label(void **state)
{
    struct dataset d;
    uint8_t *p = calloc(5, 3074);
    assert_non_null(p);
    for (int i = 0; i < 5; i++) {
        p[i * 3074] = 3;
        p[i * 3074 + 1] = (uint8_t)(90 + i);
        p[i * 3074 + 2] = (uint8_t)(i + 1);
    }
    tmp_write(tmp_path(*state, "c/train.bin"), p, 5 * 3074);
    free(p);
    import_and_open(*state, tmp_path(*state, "c"), &d);
    assert_int_equal(d.n_classes, 100);
    assert_int_equal(d.labels8[0][4], 94);
    assert_int_equal(d.images[0][4 * 3072], 5);
    dataset_close(&d);
}

static void a_cifar_batch_cut_off_is_refused(void **state)
{
    cifar_batch(tmp_path(*state, "c/data_batch_1.bin"), 10, 0);
    cifar_batch(tmp_path(*state, "c/data_batch_2.bin"), 10, 0);
    cut_file(tmp_path(*state, "c/data_batch_2.bin"), 100);
    refused(*state, tmp_path(*state, "c"), "data_batch_2.bin", "whole number of records");
    tmp_write(tmp_path(*state, "c/data_batch_2.bin"), "", 0);
    refused(*state, tmp_path(*state, "c"), "data_batch_2.bin", "whole number of records");
}

static void a_cifar_label_out_of_range_is_refused_with_its_record(void **state)
{
    uint8_t *p = calloc(4, 3073);
    assert_non_null(p);
    p[3 * 3073] = 10;
    tmp_write(tmp_path(*state, "c/data_batch_1.bin"), p, 4 * 3073);
    free(p);
    refused(*state, tmp_path(*state, "c"), "data_batch_1.bin", "record 3 has label 10");
}

/* ---- folders of images ---- */

static void classes_are_the_sorted_folders_and_pixels_are_exact(void **state)
{
    struct dataset d;
    const char *src = folder_source(*state);
    memset(gray8, 77, sizeof gray8);
    write_png(tmp_path(*state, "f/test/dog/x.png"), 8, 8, PNG_FORMAT_GRAY, gray8);
    tmp_write(tmp_path(*state, "f/train/README.txt"), "notes", 5);
    tmp_write(tmp_path(*state, "f/train/cat/labels.csv"), "notes", 5);
    tmp_write(tmp_path(*state, "f/train/cat/.hidden.png"), "notes", 5);
    import_and_open(*state, src, &d);
    assert_int_equal(d.n_classes, 2);
    assert_int_equal(d.c, 1);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(d.labels8[0][i], i / 3);
        assert_int_equal(d.images[0][i * 64 + 63], 100 * (i / 3) + i % 3);
    }
    assert_int_equal(dataset_label(&d, SPLIT_TEST, 0), 1);
    assert_int_equal(dataset_image(&d, SPLIT_TEST, 0)[0], 77);
    dataset_close(&d);
    struct st_file f;
    assert_int_equal(st_open(&f, out(*state), NULL), 0);
    assert_string_equal(st_meta(&f, "class_names"), "[\"cat\",\"dog\"]");
    st_close(&f);
}

static void colour_is_split_into_planes_and_gray_joins_as_three_equal_ones(void **state)
{
    struct dataset d;
    const char *src = folder_source(*state);
    uint8_t rgb[8 * 8 * 3];
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 3; k++)
            rgb[3 * i + k] = (uint8_t)(i + 64 * k);
    write_png(tmp_path(*state, "f/train/dog/2.png"), 8, 8, PNG_FORMAT_RGB, rgb);
    import_and_open(*state, src, &d);
    assert_int_equal(d.c, 3);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 64; i++) {
            assert_int_equal(d.images[0][5 * 192 + k * 64 + i], i + 64 * k);
            assert_int_equal(d.images[0][1 * 192 + k * 64 + i], 1);
        }
    dataset_close(&d);
}

static void palette_alpha_and_16_bit_images_are_understood(void **state)
{
    struct dataset d;
    const char *src = folder_source(*state);
    uint8_t rgba[8 * 8 * 4], map[64], colours[6] = { 10, 20, 30, 40, 50, 60 };
    for (int i = 0; i < 64; i++) {
        memcpy(rgba + 4 * i, "\x01\x02\x03\x80", 4);
        map[i] = (uint8_t)(i & 1);
    }
    write_png(tmp_path(*state, "f/train/cat/0.png"), 8, 8, PNG_FORMAT_RGBA, rgba);
    const char *path = tmp_path(*state, "f/train/cat/1.png");
    png_image im = { .version = PNG_IMAGE_VERSION, .width = 8, .height = 8, .format = PNG_FORMAT_RGB_COLORMAP, .colormap_entries = 2 };
    assert_int_equal(png_image_write_to_file(&im, path, 0, map, 0, colours), 1);
    import_and_open(*state, src, &d);
    assert_int_equal(d.c, 3);
    assert_int_equal(d.images[0][0], 1);
    assert_int_equal(d.images[0][64], 2);
    assert_int_equal(d.images[0][128], 3);
    assert_int_equal(d.images[0][192], 10);
    assert_int_equal(d.images[0][192 + 64 + 1], 50);
    dataset_close(&d);
}

static void jpeg_images_are_decoded_and_close_to_what_they_were(void **state)
{
    struct dataset d;
    const char *src = folder_source(*state);
    for (int i = 0; i < 64; i++)
        gray8[i] = (uint8_t)(4 * i);
    unlink(tmp_path(*state, "f/train/cat/0.png"));
    write_jpeg(tmp_path(*state, "f/train/cat/0.JPG"), 8, 8, gray8);
    import_and_open(*state, src, &d);
    for (int i = 0; i < 64; i++)
        assert_in_range(d.images[0][i] + 3, 4 * i, 4 * i + 6);
    dataset_close(&d);
}

static void an_empty_class_folder_is_refused(void **state)
{
    const char *src = folder_source(*state);
    tmp_write(tmp_path(*state, "f/train/eel/notes.txt"), "x", 1);
    refused(*state, src, "train/eel", "without a PNG or JPEG");
}

static void images_of_different_sizes_are_refused_naming_both(void **state)
{
    const char *src = folder_source(*state);
    write_png(tmp_path(*state, "f/train/dog/2.png"), 4, 8, PNG_FORMAT_GRAY, gray8);
    refused(*state, src, "dog/2.png", "4 x 8 pixels");
    refused(*state, src, "cat/0.png", "one size");
}

static void a_test_class_that_train_has_not_is_refused(void **state)
{
    const char *src = folder_source(*state);
    write_png(tmp_path(*state, "f/test/fox/0.png"), 8, 8, PNG_FORMAT_GRAY, gray8);
    refused(*state, src, "test/fox", "train has not");
}

static void an_image_kind_that_is_not_read_is_refused_not_dropped(void **state)
{
    const char *src = folder_source(*state);
    tmp_write(tmp_path(*state, "f/train/dog/9.webp"), "RIFF", 4);
    refused(*state, src, "9.webp", "only PNG and JPEG");
}

static void a_truncated_png_is_refused_wherever_it_ends(void **state)
{
    const char *src = folder_source(*state), *path = tmp_path(*state, "f/train/dog/1.png");
    size_t n;
    char *p = tmp_read(path, &n);
    for (size_t k = 0; k < n; k++) {
        tmp_write(path, p, k);
        refused(*state, src, "dog/1.png", k < 8 ? "neither PNG nor JPEG" : "damaged PNG");
    }
    free(p);
}

static void a_truncated_jpeg_is_refused_wherever_it_ends(void **state)
{
    const char *src = folder_source(*state), *path = tmp_path(*state, "f/train/dog/1.jpg");
    size_t n;
    for (int i = 0; i < 64; i++)
        gray8[i] = (uint8_t)(i * 37);
    write_jpeg(path, 8, 8, gray8);
    char *p = tmp_read(path, &n);
    for (size_t k = 0; k < n; k++) {
        tmp_write(path, p, k);
        refused(*state, src, "dog/1.jpg", k < 3 ? "neither PNG nor JPEG" : "damaged JPEG");
    }
    free(p);
}

static void a_folder_with_nothing_known_in_it_says_what_was_looked_for(void **state)
{
    tmp_write(tmp_path(*state, "x/notes.txt"), "x", 1);
    refused(*state, tmp_path(*state, "x"), "/x", "images-idx3-ubyte");
    hash_str h;
    struct errbuf e;
    assert_int_equal(dataset_import(tmp_path(*state, "gone"), out(*state), h, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "gone"));
}

/* ---- a dataset file ---- */

static void a_dataset_file_comes_out_as_it_went_in(void **state)
{
    const char *const source[] = { idx_source(*state, 40, 10), idx_source(*state, 40, 0), folder_source(*state) };
    const char *again = tmp_path(*state, "again.st");
    hash_str first, second;
    struct errbuf e;
    for (size_t i = 0; i < sizeof source / sizeof source[0]; i++) { /* with a test part, without one, with names of classes */
        assert_int_equal(dataset_import(source[i], out(*state), first, NULL), 0);
        assert_int_equal(dataset_import(out(*state), again, second, &e), 0);
        assert_string_equal(first, second);
        unlink(again);
    }
    cut_file(out(*state), 3);
    assert_int_equal(dataset_import(out(*state), again, second, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "out.st"));
    tmp_write(tmp_path(*state, "words.txt"), "words", 5);
    assert_int_equal(dataset_import(tmp_path(*state, "words.txt"), again, second, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "words.txt"));
    assert_int_not_equal(access(again, F_OK), 0);
}

static void names_that_are_no_list_of_names_are_refused(void **state)
{
    static const char *const names[] = { "[\"a\",\"b\"]", "[\"a\",\"b\",3]", "{}", "[" };
    static const uint8_t images[10 * 4], classes[10] = { 0, 1, 2, 0, 1, 2, 0, 1, 2, 0 };
    const struct st_tensor v[2] = {
        { .name = "train.images", .dtype = ST_U8, .ndim = 4, .dim = { 10, 1, 2, 2 }, .data = images },
        { .name = "train.labels", .dtype = ST_U8, .ndim = 1, .dim = { 10 }, .data = classes },
    };
    const char *file = tmp_path(*state, "in.st");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *const meta[] = { "format", "didact-dataset-1", "classes", "3", "class_names", names[i] };
        assert_int_equal(st_write(file, v, 2, meta, 3, NULL), 0);
        refused(*state, file, "in.st", "class_names");
    }
}

/* ---- opening ---- */

static uint8_t pixels[40];
static uint8_t labels[10] = { 0, 1, 2, 0, 1, 2, 0, 1, 2, 0 };

/* A dataset file of ten 2 x 2 images, three classes, written as told. */
static int open_made(struct tmp *t, const char *format, const char *classes, struct st_tensor *v, int n, struct errbuf *e)
{
    struct dataset d;
    const char *const meta[] = { "format", format, "classes", classes };
    assert_int_equal(st_write(out(t), v, n, meta, 2, NULL), 0);
    int rc = dataset_open(&d, out(t), e);
    if (rc == 0)
        dataset_close(&d);
    return rc;
}

static void a_file_that_does_not_keep_the_contract_is_refused_naming_the_field(void **state)
{
    struct st_tensor v[3] = {
        { .name = "train.images", .dtype = ST_U8, .ndim = 4, .dim = { 10, 1, 2, 2 }, .data = pixels },
        { .name = "train.labels", .dtype = ST_U8, .ndim = 1, .dim = { 10 }, .data = labels },
        { .name = "test.images", .dtype = ST_U8, .ndim = 4, .dim = { 10, 1, 2, 2 }, .data = pixels },
    };
    const char *good = "didact-dataset-1";
    struct errbuf e;
    assert_int_equal(open_made(*state, good, "3", v, 2, &e), 0);
    assert_int_equal(open_made(*state, good, "2", v, 2, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "label 2 of row 2"));
    assert_non_null(strstr(e.text, "out.st"));
    assert_int_equal(open_made(*state, good, "1", v, 2, &e), -ERR_INPUT);
    assert_int_equal(open_made(*state, good, "3x", v, 2, &e), -ERR_INPUT);
    assert_int_equal(open_made(*state, good, "-3", v, 2, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "classes"));
    assert_int_equal(open_made(*state, "didact-dataset-2", "3", v, 2, &e), -ERR_VERSION);
    assert_int_equal(open_made(*state, "didact-curriculum-1", "3", v, 2, &e), -ERR_INPUT);
    assert_int_equal(open_made(*state, good, "300", v, 2, &e), -ERR_INPUT); /* more than 256 classes need 16-bit labels */
    assert_non_null(strstr(e.text, "train.labels is U8 [10], expected U16 [10]"));
    assert_int_equal(open_made(*state, good, "3", v, 1, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "train.labels is missing"));
    assert_int_equal(open_made(*state, good, "3", v, 3, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "test.labels is missing"));
    v[1].dim[0] = 9;
    assert_int_equal(open_made(*state, good, "3", v, 2, &e), -ERR_INPUT);
    v[0].dim[0] = v[1].dim[0] = 2;
    assert_int_equal(open_made(*state, good, "3", v, 2, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "fewer than 3"));
    v[0].dim[0] = v[1].dim[0] = 0;
    assert_int_equal(open_made(*state, good, "3", v, 2, &e), -ERR_INPUT);
}

static void more_than_256_classes_use_16_bit_labels(void **state)
{
    static const uint16_t wide[10] = { 299, 0, 1, 256, 4, 5, 6, 7, 8, 9 };
    const struct st_tensor v[2] = {
        { .name = "train.images", .dtype = ST_U8, .ndim = 4, .dim = { 10, 1, 2, 2 }, .data = pixels },
        { .name = "train.labels", .dtype = ST_U16, .ndim = 1, .dim = { 10 }, .data = wide },
    };
    static const char *const meta[] = { "format", "didact-dataset-1", "classes", "300" };
    struct dataset d;
    assert_int_equal(st_write(out(*state), v, 2, meta, 2, NULL), 0);
    assert_int_equal(dataset_open(&d, out(*state), NULL), 0);
    for (int s = 0; s < SPLIT_COUNT; s++)
        for (uint32_t i = 0; i < d.n[s]; i++)
            assert_int_equal(dataset_label(&d, (enum split)s, i), wide[d.index[s][i]]);
    dataset_close(&d);
}

static void a_truncated_dataset_file_is_refused_by_name(void **state)
{
    struct dataset d;
    struct errbuf e;
    import_and_open(*state, idx_source(*state, 40, 0), &d);
    dataset_close(&d);
    cut_file(out(*state), 1);
    assert_int_equal(dataset_open(&d, out(*state), &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "out.st"));
    assert_non_null(strstr(e.text, "cut off"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_official_test_set_stays_and_validation_is_a_tenth_of_the_rest),
        T(without_a_test_set_a_tenth_is_set_aside),
        T(splits_depend_on_the_content_alone),
        T(the_smallest_set_has_an_image_in_every_split),
        T(idx_pixels_and_labels_arrive_as_they_were),
        T(a_truncated_idx_file_is_refused_plain_and_compressed),
        T(a_compressed_file_with_a_flipped_bit_is_refused),
        T(an_idx_file_with_more_than_it_announces_is_refused),
        T(idx_headers_that_disagree_are_refused),
        T(an_idx_size_beyond_all_bounds_is_refused_before_memory_is_asked_for),
        T(a_missing_idx_file_is_named),
        T(two_idx_candidates_for_one_part_are_refused),
        T(a_plain_idx_file_beside_its_own_gz_is_no_conflict),
        T(a_set_of_one_class_is_refused),
        T(fashion_mnist_is_read_whole),
        T(cifar_batches_are_joined_in_order_with_their_names),
        T(cifar_100_takes_the_fine_label),
        T(a_cifar_batch_cut_off_is_refused),
        T(a_cifar_label_out_of_range_is_refused_with_its_record),
        T(classes_are_the_sorted_folders_and_pixels_are_exact),
        T(colour_is_split_into_planes_and_gray_joins_as_three_equal_ones),
        T(palette_alpha_and_16_bit_images_are_understood),
        T(jpeg_images_are_decoded_and_close_to_what_they_were),
        T(an_empty_class_folder_is_refused),
        T(images_of_different_sizes_are_refused_naming_both),
        T(a_test_class_that_train_has_not_is_refused),
        T(an_image_kind_that_is_not_read_is_refused_not_dropped),
        T(a_truncated_png_is_refused_wherever_it_ends),
        T(a_truncated_jpeg_is_refused_wherever_it_ends),
        T(a_dataset_file_comes_out_as_it_went_in), T(names_that_are_no_list_of_names_are_refused),
        T(a_folder_with_nothing_known_in_it_says_what_was_looked_for),
        T(a_file_that_does_not_keep_the_contract_is_refused_naming_the_field),
        T(more_than_256_classes_use_16_bit_labels),
        T(a_truncated_dataset_file_is_refused_by_name),
    };
    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
