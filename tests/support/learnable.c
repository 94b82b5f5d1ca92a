#include "tests/support/learnable.h"

#include "common/blob.h"
#include "common/curriculum.h"
#include "common/dataset.h"
#include "common/fsio.h"
#include "common/rng.h"
#include "common/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = LEARNABLE_SIDE, K = LEARNABLE_CLASSES, IMAGE = SIDE * SIDE, TRAIN = 600, TEST = 120 };

static void draw(uint8_t *image, int label, uint64_t index)
{
    struct rng r;
    rng_init(&r, 5, RNG_TEST, index);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            int quadrant = (y >= SIDE / 2) * 2 + (x >= SIDE / 2);
            image[y * SIDE + x] = (uint8_t)((quadrant == label ? 130 : 40) + (int)rng_below(&r, 90));
        }
}

static struct st_tensor tensor(const char *name, int ndim, uint64_t n, const void *data)
{
    struct st_tensor t = { .dtype = ST_U8, .ndim = ndim, .dim = { n, 1, SIDE, SIDE }, .data = data };
    snprintf(t.name, sizeof t.name, "%s", name);
    t.count = t.bytes = ndim == 4 ? n * IMAGE : n;
    return t;
}

void learnable_write(const char *path, hash_str hash)
{
    static uint8_t images[(TRAIN + TEST) * IMAGE], labels[TRAIN + TEST];
    for (int i = 0; i < TRAIN + TEST; i++) {
        labels[i] = (uint8_t)(i % K);
        draw(images + i * IMAGE, i % K, (uint64_t)i);
    }
    struct st_tensor t[] = { tensor("train.images", 4, TRAIN, images), tensor("train.labels", 1, TRAIN, labels),
                             tensor("test.images", 4, TEST, images + TRAIN * IMAGE), tensor("test.labels", 1, TEST, labels + TRAIN) };
    const char *meta[] = { "format", "didact-dataset-1", "classes", "4" };
    assert_int_equal(st_write(path, t, 4, meta, 2, NULL), 0);
    assert_int_equal(hash_file(path, hash, NULL), 0);
}

void learnable_curriculum(const char *dataset, const char *path, int T, int B, double lr, hash_str hash)
{
    struct dataset d;
    struct curriculum c = { .T = T, .B = B, .c = 1, .h = SIDE, .w = SIDE, .K = K, .inner = inner_default(), .provenance = "{}" };
    assert_int_equal(dataset_open(&d, dataset, NULL), 0);
    c.images = malloc((size_t)(T * B * IMAGE));
    c.labels = calloc((size_t)(T * B * K), sizeof *c.labels);
    c.lr = calloc((size_t)T, sizeof *c.lr);
    c.mu = calloc((size_t)T, sizeof *c.mu);
    for (int i = 0; i < T * B; i++) {
        uint32_t row = (uint32_t)i % d.n[SPLIT_TRAIN];
        memcpy(c.images + i * IMAGE, dataset_image(&d, SPLIT_TRAIN, row), IMAGE);
        c.labels[i * K + dataset_label(&d, SPLIT_TRAIN, row)] = 1;
    }
    for (int t = 0; t < T; t++) {
        c.lr[t] = (float)lr;
        c.mu[t] = 0.5f;
    }
    assert_int_equal(curriculum_save(&c, path, NULL), 0);
    memcpy(hash, c.hash, sizeof c.hash);
    curriculum_fini(&c);
    dataset_close(&d);
}

/* ---- desk ---- */

const char *desk_path(struct desk *d, const char *hash)
{
    for (int i = 0; i < d->n; i++)
        if (strcmp(d->hash[i], hash) == 0)
            return d->path[i];
    return NULL;
}

static const char *on_blob_path(void *arg, const char *hash) { return *hash ? desk_path(arg, hash) : NULL; }

static bool on_cancelled(void *arg)
{
    struct desk *d = arg;
    if (d->polls_left > 0)
        d->polls_left--;
    return d->polls_left == 0;
}

static void on_progress(void *arg, const struct task_progress *p)
{
    struct desk *d = arg;
    d->last = *p;
    d->n_progress++;
}

static int on_upload(void *arg, const char *file, const char *kind, hash_str hash, struct errbuf *e)
{
    struct desk *d = arg;
    size_t n;
    int rc = hash_file(file, hash, e);
    if (rc < 0)
        return rc;
    char *bytes = tmp_read(file, &n);
    const char *to = tmp_path(d->tmp, "%s-%s", kind, hash);
    tmp_write(to, bytes, n);
    free(bytes);
    if (!desk_path(d, hash)) {
        d->n %= (int)(sizeof d->hash / sizeof d->hash[0]);
        desk_add(d, hash, to);
    }
    return 0;
}

void desk_init(struct desk *d, struct tmp *t, int threads)
{
    memset(d, 0, sizeof *d);
    d->tmp = t;
    d->polls_left = -1;
    snprintf(d->work, sizeof d->work, "%s", tmp_path(t, "work%d", threads));
    assert_int_equal(fs_mkdir_p(d->work, NULL), 0);
    d->env = (struct task_env){ .arg = d, .blob_path = on_blob_path, .cancelled = on_cancelled, .progress = on_progress,
                                .upload = on_upload, .work_dir = d->work, .threads = threads };
}

void desk_add(struct desk *d, const char *hash, const char *path)
{
    assert_true(d->n < (int)(sizeof d->hash / sizeof d->hash[0]));
    snprintf(d->hash[d->n], sizeof d->hash[0], "%s", hash);
    snprintf(d->path[d->n++], sizeof d->path[0], "%s", path);
}
