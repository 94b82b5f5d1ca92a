/* test_lanes.c - a network over many batches on a device, against the CPU's engine: random networks in double, and the teacher's own
 * generator as generator.c makes it. The device is the emulator's, or DIDACT_CUDA's (tests/prop/test_slab.c). */
#include "tests/support/emulated.h"
#include "tests/support/randnet.h"
#include "worker/engine/lanes.h"
#include "worker/generator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct device *device;

static int find_device(void **state)
{
    (void)state;
    device = emulated_device();
    return device ? eng_init(NULL, NULL) : -1;
}

static void *zeros(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

/* The largest difference, over the largest number. */
static double far(size_t n, const float *f, const double *want)
{
    double most = 1e-4, off = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(want[i]));
        off = fmax(off, isfinite(f[i]) ? fabs((double)f[i] - want[i]) : HUGE_VAL);
    }
    return off / most;
}

/* A network, n batches and what comes out, there and back. */
struct job {
    struct lanes_cfg cfg;
    size_t  P, n_x, n_y;
    double *w, *x, *gy;                      /* [P], [n,B,…] */
    double *y, *dw, *dx;                     /* the CPU's, in double */
    float  *wf, *xf, *gf, *y_got, *dw_got, *dx_got;
};

static void answers(struct job *j, const struct net *net)
{
    struct eng_plan *p;
    double *g = zeros(j->P, sizeof *g);
    const size_t x = j->n_x / (size_t)j->cfg.n, y = j->n_y / (size_t)j->cfg.n;
    assert_int_equal(eng_plan_new(net, j->cfg.B, ENG_F64, ENG_GRAD | ENG_INPUT_GRAD, &p, NULL), 0);
    for (size_t i = 0; i < (size_t)j->cfg.n; i++) {
        eng_forward(p, j->w, j->x + i * x, j->y + i * y);
        eng_backward(p, j->w, j->x + i * x, j->gy + i * y, g, j->dx + i * x);
        eng_axpy(ENG_F64, j->P, 1, g, j->dw);
    }
    eng_plan_free(p);
    free(g);
}

static void job_init(struct job *j, const struct net *net, int n, int B, uint64_t seed)
{
    const struct net_shape *in = &net->node[0].shape, *out = &net->node[net->out].shape;
    struct rng r;
    rng_init(&r, seed, RNG_TEST, 6);
    *j = (struct job){ .cfg = { .net = net, .device = device, .n = n, .B = B, .lanes = n, .want_dx = true }, .P = (size_t)net->param_count };
    j->n_x = (size_t)n * (size_t)B * (size_t)in->c * (size_t)in->h * (size_t)in->w;
    j->n_y = (size_t)n * (size_t)B * (size_t)out->c * (size_t)out->h * (size_t)out->w;
    j->w = rand_weights(&r, ENG_F64, net);
    j->x = rand_normal(&r, ENG_F64, j->n_x, 1);
    j->gy = rand_normal(&r, ENG_F64, j->n_y, 1);
    j->y = zeros(j->n_y, sizeof *j->y);
    j->dw = zeros(j->P, sizeof *j->dw);
    j->dx = zeros(j->n_x, sizeof *j->dx);
    j->wf = in_float(j->w, j->P);
    j->xf = in_float(j->x, j->n_x);
    j->gf = in_float(j->gy, j->n_y);
    j->y_got = zeros(j->n_y, sizeof *j->y_got);
    j->dw_got = zeros(j->P, sizeof *j->dw_got);
    j->dx_got = zeros(j->n_x, sizeof *j->dx_got);
    j->cfg.out = device->alloc(2 * j->n_y * sizeof(float));
    assert_non_null(j->cfg.out);
    j->cfg.dout = j->cfg.out + j->n_y;
    answers(j, net);
}

static void job_fini(struct job *j)
{
    device->release(j->cfg.out);
    void *all[] = { j->w, j->x, j->gy, j->y, j->dw, j->dx, j->wf, j->xf, j->gf, j->y_got, j->dw_got, j->dx_got };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void there_and_back(struct job *j, struct lanes *l)
{
    struct errbuf e = { 0 };
    assert_int_equal(lanes_forward(l, j->wf, j->xf, &e), 0);
    device->put(lanes_queue(l), j->cfg.dout, j->gf, j->n_y * sizeof(float));
    assert_int_equal(lanes_backward(l, j->dw_got, j->dx_got, &e), 0);
    assert_int_equal(device->get(lanes_queue(l), j->y_got, j->cfg.out, j->n_y * sizeof(float), &e), 0);
}

/* With any number of lanes, recorded or not: the CPU's answers, and the same bits. */
static void agrees(struct job *j, uint64_t seed, double tolerance)
{
    struct errbuf e = { 0 };
    float *y = zeros(j->n_y, sizeof *y), *dx = zeros(j->n_x, sizeof *dx), *dw = zeros(j->P, sizeof *dw);
    for (int lanes = j->cfg.n; lanes > 0; lanes -= (j->cfg.n + 1) / 2) {
        struct lanes *l;
        uint64_t bytes;
        j->cfg.lanes = lanes;
        if (lanes_new(&j->cfg, &l, &e) < 0)
            fail_msg("seed %llu: %s", (unsigned long long)seed, e.text);
        assert_int_equal(lanes_predict(&j->cfg, &bytes, &e), 0);
        assert_int_equal(lanes_bytes(l), bytes);
        for (int run = 0; run < 3; run++) {
            there_and_back(j, l);
            const double off[] = { far(j->n_y, j->y_got, j->y), far(j->P, j->dw_got, j->dw), far(j->n_x, j->dx_got, j->dx) };
            for (int i = 0; i < 3; i++)
                if (off[i] > tolerance)
                    fail_msg("seed %llu, %d lanes: %s off by %.2g", (unsigned long long)seed, lanes, i == 0 ? "y" : i == 1 ? "dw" : "dx", off[i]);
            if (lanes == j->cfg.n && run == 0) {
                memcpy(y, j->y_got, j->n_y * sizeof *y);
                memcpy(dx, j->dx_got, j->n_x * sizeof *dx);
                memcpy(dw, j->dw_got, j->P * sizeof *dw);
            }
            assert_memory_equal(y, j->y_got, j->n_y * sizeof *y);
            assert_memory_equal(dx, j->dx_got, j->n_x * sizeof *dx);
            assert_memory_equal(dw, j->dw_got, j->P * sizeof *dw);
        }
        lanes_free(l);
    }
    free(y);
    free(dx);
    free(dw);
}

static void random_generators_agree_with_the_cpu_in_double(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct rng r;
        struct net net;
        struct job j;
        rng_init(&r, seed, RNG_TEST, 7);
        const struct generator_cfg g = { .z_dim = 2 + (int)rng_below(&r, 5), .K = 3, .c = 1 + 2 * (int)rng_below(&r, 2), .h = 8 + 4 * (int)rng_below(&r, 2), .w = 8,
                                         .hidden = 4 + (int)rng_below(&r, 9), .channels1 = 2 + (int)rng_below(&r, 5), .channels2 = 2 + (int)rng_below(&r, 4) };
        assert_int_equal(generator_net(&g, &net, NULL), 0);
        job_init(&j, &net, 2 + (int)rng_below(&r, 2), 4, seed);
        agrees(&j, seed, 1e-3);
        job_fini(&j);
        net_fini(&net);
    }
}

static void random_networks_agree_with_the_cpu_in_double(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 18; seed++) {
        struct net net;
        struct job j;
        randnet(&net, seed, &randnet_small);
        job_init(&j, &net, 3, 4, seed);
        agrees(&j, seed, 1e-3);
        job_fini(&j);
        net_fini(&net);
    }
}

static void as_many_lanes_as_there_is_room_for(void **state)
{
    (void)state;
    struct net net;
    struct errbuf e = { 0 };
    struct lanes *l;
    uint64_t bytes;
    int n;
    const struct generator_cfg g = { .z_dim = 4, .K = 3, .c = 1, .h = 8, .w = 8, .hidden = 8, .channels1 = 4, .channels2 = 4 };
    assert_int_equal(generator_net(&g, &net, NULL), 0);
    struct lanes_cfg c = { .net = &net, .device = device, .n = 6, .B = 4, .lanes = 4, .want_dx = true };
    float *out = device->alloc(2 * 6 * 4 * 64 * sizeof *out);
    c.out = out;
    c.dout = out + 6 * 4 * 64;
    assert_int_equal(lanes_predict(&c, &bytes, &e), 0);
    assert_int_equal(lanes_fit(&c, bytes, &n, &e), 0);
    assert_int_equal(n, 4);
    assert_int_equal(lanes_fit(&c, bytes - 1, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_int_equal(lanes_fit(&c, 1000, &n, &e), 0);
    assert_int_equal(n, 0);
    assert_int_equal(lanes_fit(&c, UINT64_MAX, &n, &e), 0);
    assert_int_equal(n, 6);
    c.lanes = 7;
    assert_int_equal(lanes_new(&c, &l, &e), -ERR_SHAPE);
    c.n = c.lanes = 1000;
    c.B = 1 << 18; /* terabytes: more than any memory */
    assert_int_equal(lanes_new(&c, &l, &e), -ERR_NOMEM);
    assert_non_null(strstr(e.text, "MiB on the device"));
    device->release(out);
    net_fini(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_generators_agree_with_the_cpu_in_double),
        cmocka_unit_test(random_networks_agree_with_the_cpu_in_double),
        cmocka_unit_test(as_many_lanes_as_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, find_device, NULL);
}
