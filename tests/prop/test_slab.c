/* test_slab.c - slabs of learners on a device, against the CPU's engine in double. The device is the GPU backend's own source by an
 * emulator, or what DIDACT_CUDA names (tests/support/emulated.h). */
#include "common/space.h"
#include "tests/support/emulated.h"
#include "tests/support/randnet.h"
#include "worker/engine/plan.h"
#include "worker/engine/slab.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEARNERS = 3, NETS = 40, WIDE_NETS = 5, LONE_NETS = 6 };

static const struct device *device;

static int find_device(void **state)
{
    (void)state;
    device = emulated_device();
    return device ? eng_init(NULL, NULL) : -1;
}

/* One random unroll for several learners; the CPU's answers in double. */
struct run {
    struct randrun r;
    struct slab_cfg cfg;
    struct slab_in in;
    struct slab_out out;
    double *w[LEARNERS];
    size_t  n_x, n_y, T;
    double  J[LEARNERS], *loss, *wT, *dw0, *dx, *dy, *dlr, *dmu;
    float  *made[24];
    int     n_made;
};

static float *hold(struct run *t, float *p)
{
    assert_non_null(p);
    t->made[t->n_made++] = p;
    return p;
}

static void *zeros(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static void answers(struct run *t)
{
    struct unroll *u;
    struct errbuf e = { 0 };
    double *dx = zeros(t->n_x, sizeof *dx), *dy = zeros(t->n_y, sizeof *dy);
    assert_int_equal(unroll_new(&t->r.cfg, &u, &e), 0);
    for (int k = 0; k < t->cfg.K; k++) {
        struct unroll_out o = { .inner_loss = t->loss + (size_t)k * t->T, .wT = t->wT + (size_t)k * t->r.P, .dw0 = t->dw0 + (size_t)k * t->r.P, .dx = dx, .dy = dy,
                                .dlr = t->dlr + (size_t)k * t->T, .dmu = t->dmu + (size_t)k * t->T };
        t->r.in.w0 = t->w[k];
        assert_int_equal(unroll_meta_grad(u, &t->r.in, &o, &e), 0);
        t->J[k] = o.meta_loss;
        for (size_t i = 0; i < t->n_x; i++)
            t->dx[i] += dx[i];
        for (size_t i = 0; i < t->n_y; i++)
            t->dy[i] += dy[i];
    }
    t->r.in.w0 = t->w[0];
    unroll_free(u);
    free(dx);
    free(dy);
}

/* What generators are made of, and random learners are not. */
static void dreamer(struct net *n, struct net_shape in, int K)
{
    struct net_attr conv = { .k = 3, .out = 9, .stride = 1, .dilation = 1, .groups = 1, .pad = 1 };
    struct errbuf e = { 0 };
    assert_int_equal(net_init(n, in.c, in.h, in.w, &e), 0);
    int x = net_unary(n, NET_UP2, net_conv(n, 0, 5, 3, 1, 1, NULL, &e), NULL, &e);
    x = net_lrelu(n, net_bn(n, net_add(n, NET_CONV, &x, 1, &conv, NULL, &e), false, NULL, &e), 0.1, NULL, &e);
    x = net_unary(n, NET_UP2, x, NULL, &e);
    x = net_add(n, NET_REFLECTPAD, &x, 1, &(struct net_attr){ .pad = 1 }, NULL, &e);
    conv.pad = 0;
    conv.out = 1;
    conv.wn = conv.bias = true;
    x = net_unary(n, NET_TANH, net_add(n, NET_CONV, &x, 1, &conv, NULL, &e), NULL, &e);
    x = net_add(n, NET_REFLECTPAD, &x, 1, &(struct net_attr){ .pad = 2 }, NULL, &e);
    x = net_unary(n, NET_FLATTEN, net_unary(n, NET_UP2, net_pool(n, NET_AVGPOOL, x, 2, 2, 0, NULL, &e), NULL, &e), NULL, &e);
    if (net_linear(n, x, K, NULL, &e) < 0)
        fail_msg("%s", e.text);
}

static void run_init(struct run *t, uint64_t seed, const struct randnet_size *size)
{
    memset(t, 0, sizeof *t);
    randrun_init(&t->r, seed, size ? size : &randnet_small);
    struct randrun *r = &t->r;
    const struct net_shape shape = r->net.node[0].shape;
    if (!size) {
        struct rng w;
        rng_init(&w, seed, RNG_TEST, 4);
        assert_false(shape.flat);
        net_fini(&r->net);
        free(r->w0);
        memset(&r->net, 0, sizeof r->net);
        dreamer(&r->net, shape, (int)r->K);
        r->P = (size_t)r->net.param_count;
        r->w0 = rand_weights(&w, ENG_F64, &r->net);
        r->in.w0 = r->w0;
    }
    const size_t T = t->T = (size_t)r->cfg.T, P = r->P, M = (size_t)r->cfg.meta_batch;
    struct rng g;
    rng_init(&g, seed, RNG_TEST, 2);
    t->n_x = T * (size_t)r->cfg.B * r->image;
    t->n_y = T * (size_t)r->cfg.B * r->K;
    t->cfg = (struct slab_cfg){ .learner = &r->net, .device = device, .K = LEARNERS, .T = r->cfg.T, .B = r->cfg.B, .meta_batch = r->cfg.meta_batch, .n_meta = r->in.n_meta,
                                .want_dx = true, .want_dy = true, .inner = r->cfg.inner };
    float *w0 = hold(t, zeros(LEARNERS * P, sizeof *w0));
    for (int k = 0; k < LEARNERS; k++) {
        t->w[k] = k == 0 ? r->w0 : rand_weights(&g, ENG_F64, &r->net);
        for (size_t i = 0; i < P; i++)
            w0[(size_t)k * P + i] = (float)t->w[k][i];
    }
    t->in = (struct slab_in){ .w0 = w0, .x = hold(t, in_float(r->x, t->n_x)), .y = hold(t, in_float(r->y, t->n_y)), .lr = r->lr, .mu = r->mu };
    for (int i = 0; i < r->in.n_meta; i++) {
        t->cfg.meta[i].step = r->meta[i].step;
        t->cfg.meta[i].weight = r->meta[i].weight;
        t->in.meta[i].x = hold(t, in_float(r->X[i], M * r->image));
        t->in.meta[i].y = hold(t, in_float(r->Y[i], M * r->K));
    }
    double **want[] = { &t->loss, &t->wT, &t->dw0, &t->dx, &t->dy, &t->dlr, &t->dmu };
    const size_t n[] = { LEARNERS * T, LEARNERS * P, LEARNERS * P, t->n_x, t->n_y, LEARNERS * T, LEARNERS * T };
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++)
        *want[i] = zeros(n[i], sizeof **want[i]);
    t->out = (struct slab_out){ .meta_loss = zeros(LEARNERS, sizeof(double)), .inner_loss = zeros(n[0], sizeof(double)), .wT = hold(t, zeros(n[1], sizeof(float))),
                                .dw0 = hold(t, zeros(n[2], sizeof(float))), .dx = hold(t, zeros(n[3], sizeof(float))), .dy = hold(t, zeros(n[4], sizeof(float))),
                                .dlr = zeros(n[5], sizeof(double)), .dmu = zeros(n[6], sizeof(double)), .failed = zeros(LEARNERS, sizeof(int)) };
}

static void run_fini(struct run *t)
{
    for (int k = 1; k < LEARNERS; k++)
        free(t->w[k]);
    for (int i = 0; i < t->n_made; i++)
        free(t->made[i]);
    void *all[] = { t->loss, t->wT, t->dw0, t->dx, t->dy, t->dlr, t->dmu, t->out.meta_loss, t->out.inner_loss, t->out.dlr, t->out.dmu, t->out.failed };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    randrun_fini(&t->r);
}

/* The largest difference, over the largest number, or over 1e-4 where all are smaller: there they are differences of larger ones. */
static double far(size_t n, const float *f, const double *d, const double *want)
{
    double most = 0, off = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = f ? (double)f[i] : d[i];
        most = fmax(most, fabs(want[i]));
        off = fmax(off, isfinite(x) ? fabs(x - want[i]) : HUGE_VAL);
    }
    return off / fmax(most, 1e-4);
}

struct distance { const char *what; double off; };
enum { N_DISTANCES = 8 };
static void distances(const struct run *t, struct distance d[N_DISTANCES])
{
    const struct slab_out *o = &t->out;
    const size_t K = (size_t)t->cfg.K;
    const struct distance all[N_DISTANCES] = {
        { "J", far(K, NULL, o->meta_loss, t->J) }, { "inner losses", far(K * t->T, NULL, o->inner_loss, t->loss) }, { "w_T", far(K * t->r.P, o->wT, NULL, t->wT) },
        { "dJ/dw_0", far(K * t->r.P, o->dw0, NULL, t->dw0) }, { "dJ/dx", far(t->n_x, o->dx, NULL, t->dx) }, { "dJ/dy", far(t->n_y, o->dy, NULL, t->dy) },
        { "dJ/dlr", far(K * t->T, NULL, o->dlr, t->dlr) }, { "dJ/dmu", far(K * t->T, NULL, o->dmu, t->dmu) },
    };
    memcpy(d, all, sizeof all);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* float32 against double: now and then a rectifier falls on the other side of its kink, a larger input wins a window. */
static bool seen[OP_COUNT];
enum { DREAMERS = 6 };

static void look_at_ops(const struct net *n)
{
    struct eng_plan *p;
    assert_int_equal(plan_compile(n, 2, ENG_F32, ENG_TANGENT | ENG_INPUT_GRAD, NULL, &p, NULL), 0);
    for (int i = 0; i < p->n_nodes; i++)
        seen[p->node[i].op] = true;
    eng_plan_free(p);
}

/* size NULL: dreamers. */
static void agrees(const struct randnet_size *size, int nets, int allowed, int K)
{
    int loose = 0;
    if (getenv("KERNEL_SEEDS")) /* under a sanitizer: fewer (tests/run) */
        nets = nets < 12 ? 1 : nets / 6;
    for (uint64_t seed = 1; seed <= (uint64_t)nets; seed++) {
        struct run t;
        struct slab *s;
        struct errbuf e = { 0 };
        struct distance d[N_DISTANCES], worst = { "", 0 };
        run_init(&t, seed, size);
        t.cfg.K = K;
        look_at_ops(&t.r.net);
        answers(&t);
        if (slab_new(&t.cfg, &s, &e) < 0)
            fail_msg("seed %llu: %s", (unsigned long long)seed, e.text);
        assert_int_equal(slab_run(s, &t.in, &t.out, &e), 0);
        distances(&t, d);
        for (int i = 0; i < N_DISTANCES; i++)
            if (d[i].off > worst.off)
                worst = d[i];
        for (int k = 0; k < K; k++)
            assert_int_equal(t.out.failed[k], -1);
        if (worst.off > 1e-3) {
            loose++;
            fprintf(stderr, "seed %llu, %s: %s off by %.2g\n", (unsigned long long)seed, inner_name(t.cfg.inner.type), worst.what, worst.off);
            if (getenv("DIDACT_TEST_VERBOSE")) {
                for (int i = 0; i < N_DISTANCES; i++)
                    fprintf(stderr, "  %s %.2g\n", d[i].what, d[i].off);
                for (int k = 0; k < K; k++)
                    fprintf(stderr, "  learner %d: J %.9g, want %.9g\n", k, t.out.meta_loss[k], t.J[k]);
                randnet_print(&t.r.net);
            }
        }
        slab_free(s);
        run_fini(&t);
    }
    if (loose > allowed)
        fail_msg("%d of %d networks are off by more than 1e-3", loose, nets);
}

static void slabs_agree_with_the_cpu_in_double(void **state)
{
    (void)state;
    agrees(&randnet_small, NETS, 1, LEARNERS);
}
static void slabs_of_wide_networks_agree(void **state)
{
    (void)state;
    agrees(&randnet_wide, WIDE_NETS, 0, LEARNERS);
}

static void slabs_of_what_generators_are_made_of_agree(void **state)
{
    (void)state;
    agrees(NULL, DREAMERS, 0, LEARNERS);
}
/* Its dx and dy are nobody's sum, and lie where the sum would. */
static void a_lone_learner_agrees(void **state)
{
    (void)state;
    agrees(&randnet_small, LONE_NETS, 0, 1);
}

/* Factors of 10 or 7 bits: how far the meta-gradient of w_0 is then, in the middle of some networks, narrow and wide. */
static void rounded_factors_cost_what_they_should(void **state)
{
    (void)state;
    enum { SMALL = 4, ALL = 5 };
    static const struct { const char *kind; double least, most; } row[] = { { "cuda-tf32", 1e-4, 1e-2 }, { "cuda-bf16", 1e-3, 1e-1 } };
    const struct device *exact = device;
    for (size_t i = 0; i < sizeof row / sizeof row[0] && !getenv("KERNEL_SEEDS"); i++) {
        struct errbuf e = { 0 };
        double off[ALL];
        if (!(device = device_find(row[i].kind, 0, &e))) {
            assert_non_null(strstr(e.text, "needs 8.0")); /* a real GPU before Ampere */
            break;
        }
        assert_string_equal(device->kind, row[i].kind);
        for (int n = 0; n < ALL; n++) {
            struct run t;
            struct slab *s;
            struct distance d[N_DISTANCES];
            run_init(&t, (uint64_t)n + 1, n < SMALL ? &randnet_small : &randnet_wide);
            answers(&t);
            assert_int_equal(slab_new(&t.cfg, &s, &e), 0);
            assert_int_equal(slab_run(s, &t.in, &t.out, &e), 0);
            distances(&t, d);
            off[n] = d[3].off;
            slab_free(s);
            run_fini(&t);
        }
        qsort(off, ALL, sizeof off[0], by_value);
        if (off[ALL / 2] < row[i].least || off[ALL / 2] > row[i].most)
            fail_msg("%s: dJ/dw_0 off by %.2g", row[i].kind, off[ALL / 2]);
    }
    device = exact;
}

static void every_op_was_among_them(void **state)
{
    (void)state;
#define NAME(e, n) #n,
    static const char *const name[] = { OP_LIST(NAME) };
    for (int i = 0; i < OP_COUNT && !getenv("KERNEL_SEEDS"); i++)
        if (!seen[i])
            fail_msg("no network had the op %s", name[i]);
}

/* The second run records and plays, the third one plays. */
static void the_same_bits_run_after_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct run t;
        struct slab *s;
        run_init(&t, seed, &randnet_small);
        assert_int_equal(slab_new(&t.cfg, &s, NULL), 0);
        assert_int_equal(slab_run(s, &t.in, &t.out, NULL), 0);
        float *dw0 = zeros(LEARNERS * t.r.P, sizeof *dw0), *dx = zeros(t.n_x, sizeof *dx);
        memcpy(dw0, t.out.dw0, LEARNERS * t.r.P * sizeof *dw0);
        memcpy(dx, t.out.dx, t.n_x * sizeof *dx);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(slab_run(s, &t.in, &t.out, NULL), 0);
            assert_memory_equal(dw0, t.out.dw0, LEARNERS * t.r.P * sizeof *dw0);
            assert_memory_equal(dx, t.out.dx, t.n_x * sizeof *dx);
        }
        t.r.lr[0] *= 2; /* recorded work takes what it is given, step sizes too */
        answers(&t);
        assert_int_equal(slab_run(s, &t.in, &t.out, NULL), 0);
        assert_true(far(LEARNERS * t.T, NULL, t.out.inner_loss, t.loss) < 1e-3);
        free(dw0);
        free(dx);
        slab_free(s);
        run_fini(&t);
    }
}

static void a_learner_that_diverges_leaves_the_others_alone(void **state)
{
    (void)state;
    struct run t;
    struct slab *s;
    run_init(&t, 2, &randnet_small);
    const size_t P = t.r.P;
    assert_int_equal(slab_new(&t.cfg, &s, NULL), 0);
    assert_int_equal(slab_run(s, &t.in, &t.out, NULL), 0);
    float *dw0 = zeros(LEARNERS * P, sizeof *dw0), *w0 = (float *)(uintptr_t)t.in.w0;
    memcpy(dw0, t.out.dw0, LEARNERS * P * sizeof *dw0);
    w0[P] = NAN; /* of the second */
    assert_int_equal(slab_run(s, &t.in, &t.out, NULL), 0);
    assert_int_equal(t.out.failed[0], -1);
    assert_int_equal(t.out.failed[1], 0);
    assert_int_equal(t.out.failed[2], -1);
    assert_memory_equal(dw0, t.out.dw0, P * sizeof *dw0);
    assert_memory_equal(dw0 + 2 * P, t.out.dw0 + 2 * P, P * sizeof *dw0);
    free(dw0);
    slab_free(s);
    run_fini(&t);
}

/* Of the last step nobody sees a loss afterwards: weights that overflow there, and a second moment that does and leaves the weights finite. */
static void what_overflows_in_the_last_step_is_seen(void **state)
{
    (void)state;
    enum { T = 2, B = 3, CLASSES = 2, PIXELS = 4 };
    struct net n;
    struct errbuf e = { 0 };
    assert_int_equal(net_init(&n, 1, 2, 2, &e), 0);
    assert_true(net_linear(&n, net_unary(&n, NET_FLATTEN, 0, NULL, &e), CLASSES, NULL, &e) >= 0);
    float w0[64] = { 0.1f, -0.2f, 0.3f, 0.4f, -0.5f }, x[T * B * PIXELS], y[T * B * CLASSES] = { 0 };
    assert_true(n.param_count <= 64);
    for (int i = 0; i < T * B; i++)
        y[i * CLASSES + i % CLASSES] = 1;
    for (int type = 0; type < INNER_TYPE_COUNT; type++)
        for (int moment = 0; moment < 2; moment++) {
            const bool second = type == INNER_RMSPROP || type == INNER_ADAM;
            struct slab_cfg c = { .learner = &n, .device = device, .K = 1, .T = T, .B = B, .inner = inner_defaults((enum inner_type)type) };
            const double lr[T] = { 0, moment ? 0 : 1e300 }, mu[T] = { 0 };
            double loss[T];
            int failed = 0;
            struct slab *s;
            for (int i = 0; i < T * B * PIXELS; i++)
                x[i] = (float)(i % 7 + 1) * (moment && i >= B * PIXELS ? 1e25f : 1);
            assert_int_equal(slab_new(&c, &s, &e), 0);
            assert_int_equal(slab_run(s, &(struct slab_in){ .w0 = w0, .x = x, .y = y, .lr = lr, .mu = mu }, &(struct slab_out){ .inner_loss = loss, .failed = &failed }, &e), 0);
            assert_true(isfinite(loss[0]) && isfinite(loss[1]));
            if (!moment || second)
                assert_int_equal(failed, T - 1);
            slab_free(s);
        }
    net_fini(&n);
}

/* Two slabs at work side by side, images already on the device, every learner with real batches of its own: what each says by itself, and
 * their weighted sum, in which one that is left out may say anything. */
static void learners_apart_have_real_batches_of_their_own(void **state)
{
    (void)state;
    const double weight[LEARNERS] = { 0.5, 0, -2 };
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct run t;
        struct slab *s[2];
        double *X[LEARNERS][3], *Y[LEARNERS][3], dx2[LEARNERS], dy2[LEARNERS], want2[LEARNERS] = { 0 };
        struct rng g;
        run_init(&t, seed, &randnet_small);
        rng_init(&g, seed, RNG_TEST, 5);
        t.cfg.own_meta = t.cfg.apart = true;
        const size_t nx = (size_t)t.cfg.meta_batch * t.r.image, ny = (size_t)t.cfg.meta_batch * t.r.K;
        for (int i = 0; i < t.cfg.n_meta; i++) {
            float *x = hold(&t, zeros(LEARNERS * nx, sizeof *x)), *y = hold(&t, zeros(LEARNERS * ny, sizeof *y));
            for (size_t k = 0; k < LEARNERS; k++) {
                X[k][i] = rand_normal(&g, ENG_F64, nx, 1);
                Y[k][i] = rand_labels(&g, ENG_F64, (size_t)t.cfg.meta_batch, (int)t.r.K, true);
                for (size_t j = 0; j < nx; j++)
                    x[k * nx + j] = (float)X[k][i][j];
                for (size_t j = 0; j < ny; j++)
                    y[k * ny + j] = (float)Y[k][i][j];
            }
            t.in.meta[i].x = x;
            t.in.meta[i].y = y;
        }
        void *queue = device->queue_new();
        float *there = device->alloc((2 * t.n_x + 2 * t.n_y) * sizeof *there), *sum = there + t.n_x + t.n_y;
        device->put(queue, there, t.in.x, t.n_x * sizeof *there);
        device->put(queue, there + t.n_x, t.in.y, t.n_y * sizeof *there);
        device->zero(queue, 1, (struct dev_rows){ sum, 0 }, (t.n_x + t.n_y) * sizeof *there);
        t.in.x = there;
        t.in.y = there + t.n_x;
        t.in.after = queue;
        struct slab_out out = { .meta_loss = t.out.meta_loss, .failed = t.out.failed, .dlr = t.out.dlr, .dx2 = dx2, .dy2 = dy2 };
        for (int i = 0; i < 2; i++) {
            assert_int_equal(slab_new(&t.cfg, &s[i], NULL), 0);
            assert_int_equal(slab_start(s[i], &t.in, NULL), 0);
        }
        for (int i = 0; i < 2; i++)
            assert_int_equal(slab_wait(s[i], &out, NULL), 0);
        slab_weigh(s[1], queue, weight, sum, sum + t.n_x);
        assert_int_equal(device->get(queue, hold(&t, zeros(t.n_x + t.n_y, sizeof *sum)), sum, (t.n_x + t.n_y) * sizeof *sum, NULL), 0);
        const float *got = t.made[t.n_made - 1];
        struct unroll *u;
        double *dx = zeros(t.n_x, sizeof *dx), *dy = zeros(t.n_y, sizeof *dy);
        assert_int_equal(unroll_new(&t.r.cfg, &u, NULL), 0);
        for (int k = 0; k < LEARNERS; k++) {
            struct unroll_out o = { .dx = dx, .dy = dy, .dlr = t.dlr + (size_t)k * t.T };
            for (int i = 0; i < t.cfg.n_meta; i++) {
                t.r.meta[i].x = X[k][i];
                t.r.meta[i].y = Y[k][i];
            }
            t.r.in.w0 = t.w[k];
            assert_int_equal(unroll_meta_grad(u, &t.r.in, &o, NULL), 0);
            t.J[k] = o.meta_loss;
            want2[k] = eng_dot(ENG_F64, t.n_x, dx, dx);
            assert_true(fabs(dy2[k] - eng_dot(ENG_F64, t.n_y, dy, dy)) < 2e-3 * dy2[k] + 1e-8);
            eng_axpy(ENG_F64, t.n_x, weight[k], dx, t.dx);
            eng_axpy(ENG_F64, t.n_y, weight[k], dy, t.dy);
        }
        assert_true(far(LEARNERS, NULL, out.meta_loss, t.J) < 1e-3);
        assert_true(far(LEARNERS, NULL, dx2, want2) < 2e-3);
        assert_true(far(LEARNERS * t.T, NULL, out.dlr, t.dlr) < 1e-3);
        assert_true(far(t.n_x, got, NULL, t.dx) < 1e-3);
        assert_true(far(t.n_y, got + t.n_x, NULL, t.dy) < 1e-3);
        for (int k = 0; k < LEARNERS; k++)
            for (int i = 0; i < t.cfg.n_meta; i++) {
                free(X[k][i]);
                free(Y[k][i]);
            }
        for (int i = 0; i < 2; i++)
            slab_free(s[i]);
        unroll_free(u);
        free(dx);
        free(dy);
        device->release(there);
        device->queue_free(queue);
        t.r.in.w0 = t.w[0];
        run_fini(&t);
    }
}

static void training_alone_gives_snapshots(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct run t;
        struct slab *s;
        struct unroll *u;
        run_init(&t, seed, &randnet_small);
        const size_t P = t.r.P;
        t.cfg.meta_batch = t.cfg.n_meta = 0;
        t.cfg.want_dx = t.cfg.want_dy = false;
        t.cfg.n_snaps = 2;
        t.cfg.snap[0] = 1;
        t.cfg.snap[1] = t.cfg.T;
        t.out.dx = t.out.dy = t.out.dw0 = NULL;
        t.out.snap = hold(&t, zeros(2 * LEARNERS * P, sizeof(float)));
        assert_int_equal(slab_new(&t.cfg, &s, NULL), 0);
        assert_int_equal(slab_run(s, &t.in, &t.out, NULL), 0);
        assert_int_equal(unroll_new(&t.r.cfg, &u, NULL), 0);
        for (int k = 0; k < LEARNERS; k++) {
            t.r.in.w0 = t.w[k];
            assert_int_equal(unroll_train(u, &t.r.in, NULL, t.wT + (size_t)k * P, NULL, NULL, NULL, NULL), 0);
        }
        t.r.in.w0 = t.w[0];
        assert_true(far(LEARNERS * P, t.out.wT, NULL, t.wT) < 1e-3);
        assert_memory_equal(t.out.snap + LEARNERS * P, t.out.wT, LEARNERS * P * sizeof(float));
        if (t.cfg.T > 1)
            assert_memory_not_equal(t.out.snap, t.out.wT, LEARNERS * P * sizeof(float));
        unroll_free(u);
        slab_free(s);
        run_fini(&t);
    }
}

static void a_slabs_size_is_known_before(void **state)
{
    (void)state;
    struct run t;
    struct slab *s;
    struct errbuf e = { 0 };
    uint64_t bytes, more, each;
    int K;
    run_init(&t, 4, &randnet_small);
    assert_int_equal(slab_predict(&t.cfg, &bytes, &e), 0);
    assert_int_equal(slab_new(&t.cfg, &s, &e), 0);
    assert_int_equal(slab_bytes(s), bytes);
    slab_free(s);
    assert_int_equal(slab_fit(&t.cfg, bytes, LEARNERS, &K, &each, &e), 0);
    assert_int_equal(K, LEARNERS);
    assert_int_equal(each, bytes);
    assert_int_equal(slab_fit(&t.cfg, 100, LEARNERS, &K, &each, &e), 0);
    assert_int_equal(K, 0);
    assert_true(each > 100 && each < bytes);
    t.cfg.K = 100;
    assert_int_equal(slab_predict(&t.cfg, &more, &e), 0);
    assert_int_equal(slab_fit(&t.cfg, more - 1, 99, &K, &each, &e), 0);
    assert_int_equal(K, 99);
    assert_int_equal(slab_fit(&t.cfg, more - 1, 100, &K, &each, &e), 0);
    assert_int_equal(K, 50); /* in two even shares */
    t.cfg.K = SLAB_MAX_LEARNERS + 1;
    assert_int_equal(slab_new(&t.cfg, &s, &e), -ERR_SHAPE);
    t.cfg.K = SLAB_MAX_LEARNERS;
    t.cfg.B = t.cfg.meta_batch = 1 << 19; /* more than any memory */
    assert_int_equal(slab_new(&t.cfg, &s, &e), -ERR_NOMEM);
    assert_non_null(strstr(e.text, "MiB on the device"));
    run_fini(&t);
}

static void what_a_devices_index_does_not_reach_is_refused(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    struct net n = { 0 };
    uint64_t bytes;
    assert_int_equal(space_build(space_find("chain"), "bn relu | c16k3 | c16k3 | gap", 3, 32, 32, 10, NULL, &n, &e), 0);
    struct slab_cfg c = { .learner = &n, .device = device, .K = 1, .T = 1, .B = 1 << 18, .inner = inner_default() };
    assert_int_equal(slab_predict(&c, &bytes, &e), -ERR_SHAPE); /* 2^18 images of 2^14 numbers */
    assert_non_null(strstr(e.text, "a device takes"));
    c.B = 1 << 16;
    assert_int_equal(slab_predict(&c, &bytes, &e), 0);
    net_fini(&n);
}

static void accuracy_is_the_cpus(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct run t;
        struct eng_plan *p;
        int right[LEARNERS], label[6];
        run_init(&t, seed, &randnet_small);
        const size_t P = t.r.P, n = 6, half = n / 2, K = t.r.K;
        struct rng g;
        rng_init(&g, seed, RNG_TEST, 3);
        float *x = rand_normal(&g, ENG_F32, n * t.r.image, 1), *logits = zeros(half * K, sizeof *logits);
        for (size_t i = 0; i < n; i++)
            label[i] = (int)rng_below(&g, (uint32_t)K);
        assert_int_equal(slab_accuracy(device, &t.r.net, LEARNERS, (int)half, (int)n, t.in.w0, x, label, right, NULL), 0);
        assert_int_equal(eng_plan_new(&t.r.net, (int)half, ENG_F32, ENG_FORWARD, &p, NULL), 0);
        for (size_t k = 0; k < LEARNERS; k++) {
            int want = 0;
            for (size_t b = 0; b < 2; b++) {
                eng_forward(p, t.in.w0 + k * P, x + b * half * t.r.image, logits);
                want += eng_count_correct(ENG_F32, logits, (int)half, (int)K, label + b * half);
            }
            assert_int_equal(right[k], want);
        }
        eng_plan_free(p);
        free(x);
        free(logits);
        run_fini(&t);
    }
}

static void a_backend_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    assert_null(device_find("cuda", 1000, &e));
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.text, "no GPU 1000"));
    assert_null(device_find("abacus", 0, &e));
    assert_non_null(strstr(e.text, "abacus"));
    assert_null(device_find("cuda-fp4", 0, &e));
    assert_non_null(strstr(e.text, "no device of kind cuda-fp4"));
    static const struct { const char *text, *kind; int rc; } row[] = {
        { "cpu", NULL, 0 }, { "cuda", "cuda", 0 }, { "cuda:0", "cuda", 0 }, { "cuda-bf16", "cuda-bf16", 0 }, { "cuda-tf32:0", "cuda-tf32", 0 },
        { "cuda:1x", NULL, -ERR_USAGE }, { "cuda:", NULL, -ERR_USAGE }, { "cuda:-1", NULL, -ERR_USAGE }, { "cuda-fp4", NULL, -ERR_USAGE }, { "", NULL, -ERR_USAGE },
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const struct device *d;
        const int rc = device_open(row[i].text, &d, &e);
        if (rc == -ERR_UNAVAILABLE && strstr(e.text, "needs 8.0"))
            continue;
        assert_int_equal(rc, row[i].rc);
        assert_string_equal(d ? d->kind : "none", row[i].kind ? row[i].kind : "none");
    }
}

/* Bytes [rows,C,H,W] become images [K,n,H,W,C] and one-hot labels, learner by learner a step apart. */
static void images_are_drawn_from_bytes(void **state)
{
    (void)state;
    enum { ROWS = 5, C = 3, HW = 6, K = 2, N = 3, CLASSES = 4, X = N * HW * C, GAP = 64 };
    static const int row[K * N] = { 4, 0, 2, 1, 1, 3 }, label[ROWS] = { 0, 3, 1, 2, 3 };
    uint8_t bytes[ROWS * C * HW], level[256];
    float   value[256], want[ROWS * HW * C], x[K * (X + GAP)], y[K * N * CLASSES];
    struct errbuf e = { 0 };
    for (int i = 0; i < 256; i++)
        level[i] = (uint8_t)i;
    for (int i = 0; i < ROWS * C * HW; i++)
        bytes[i] = (uint8_t)(i * 37);
    eng_images_from_u8(256, 1, 1, 1, level, value);
    eng_images_from_u8(ROWS, C, 2, 3, bytes, want);
    void *q = device->queue_new(), *part[6];
    const size_t size[6] = { sizeof bytes, sizeof label, sizeof value, sizeof row, sizeof x, sizeof y };
    const void *from[4] = { bytes, label, value, row };
    for (int i = 0; i < 6; i++) {
        assert_non_null(part[i] = device->alloc(size[i]));
        if (i < 4)
            device->put(q, part[i], from[i], size[i]);
    }
    device->draw(q, K, N, &(struct dev_data){ part[0], part[1], part[2], C, HW, CLASSES }, part[3], (struct dev_rows){ part[4], (X + GAP) * sizeof *x },
                 (struct dev_rows){ part[5], N * CLASSES * sizeof *y });
    assert_int_equal(device->get(q, x, part[4], sizeof x, &e), 0);
    assert_int_equal(device->get(q, y, part[5], sizeof y, &e), 0);
    for (int i = 0; i < K * N; i++) {
        assert_memory_equal(x + i / N * (X + GAP) + i % N * HW * C, want + row[i] * HW * C, HW * C * sizeof *x);
        for (int k = 0; k < CLASSES; k++)
            assert_true(y[i * CLASSES + k] == (float)(label[row[i]] == k));
    }
    for (int i = 0; i < 6; i++)
        device->release(part[i]);
    device->queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_are_drawn_from_bytes),
        cmocka_unit_test(slabs_agree_with_the_cpu_in_double),
        cmocka_unit_test(slabs_of_wide_networks_agree),
        cmocka_unit_test(slabs_of_what_generators_are_made_of_agree),
        cmocka_unit_test(a_lone_learner_agrees),
        cmocka_unit_test(rounded_factors_cost_what_they_should),
        cmocka_unit_test(every_op_was_among_them),
        cmocka_unit_test(the_same_bits_run_after_run),
        cmocka_unit_test(a_learner_that_diverges_leaves_the_others_alone),
        cmocka_unit_test(what_overflows_in_the_last_step_is_seen),
        cmocka_unit_test(learners_apart_have_real_batches_of_their_own),
        cmocka_unit_test(training_alone_gives_snapshots),
        cmocka_unit_test(a_slabs_size_is_known_before),
        cmocka_unit_test(what_a_devices_index_does_not_reach_is_refused),
        cmocka_unit_test(accuracy_is_the_cpus),
        cmocka_unit_test(a_backend_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, find_device, NULL);
}
