#include "worker/engine/plan.h"

#include "tests/support/randnet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int start(void **state)
{
    (void)state;
    return eng_init(NULL, NULL);
}

static double *zeros(size_t n)
{
    double *p = calloc(n ? n : 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* conv 3x3 with bias and weight norm, bn, lrelu, maxpool, depthwise, flatten, linear */
static void sample(struct net *n)
{
    struct errbuf e = { 0 };
    assert_int_equal(net_init(n, 3, 8, 6, &e), 0);
    int x = net_add(n, NET_CONV, (int[]){ 0 }, 1, &(struct net_attr){ .out = 6, .k = 3, .pad = 1, .bias = true, .wn = true }, "0", &e);
    x = net_lrelu(n, net_bn(n, x, false, "1", &e), 0.1, "2", &e);
    x = net_pool(n, NET_MAXPOOL, x, 2, 2, 0, "3", &e);
    x = net_dwconv(n, x, 3, 1, 1, "4", &e);
    x = net_bn(n, x, true, "5", &e);
    x = net_linear(n, net_unary(n, NET_FLATTEN, x, "6", &e), 4, "7", &e);
    if (x < 0)
        fail_msg("%s", e.text);
}

/* ---- instruction sets and threads ---- */

static void an_unknown_instruction_set_is_a_usage_error(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    assert_int_equal(eng_init("sse9", &e), -ERR_USAGE);
    assert_non_null(strstr(e.text, "sse9"));
}

static void a_foreign_instruction_set_is_unavailable(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
#if defined(__x86_64__)
    const char *foreign = "neon";
#else
    const char *foreign = "avx2";
#endif
    const char *before = eng_isa();
    assert_int_equal(eng_init(foreign, &e), -ERR_UNAVAILABLE);
    assert_non_null(strstr(e.text, foreign));
    assert_string_equal(eng_isa(), before);
}

static void portable_is_everywhere_and_the_cap_holds(void **state)
{
    (void)state;
    assert_int_equal(eng_init("portable", NULL), 0);
    assert_string_equal(eng_isa(), "portable");
    assert_int_equal(eng_init("", NULL), 0);
    const char *best = eng_isa();
    assert_int_equal(eng_init(NULL, NULL), 0);
    assert_string_equal(eng_isa(), best);
    assert_int_equal(eng_init(best, NULL), 0);
    assert_string_equal(eng_isa(), best);
}

static void a_pool_of_no_threads_is_refused(void **state)
{
    (void)state;
    struct eng_pool *p = (void *)1;
    struct errbuf e = { 0 };
    assert_int_equal(eng_pool_new(0, &p, &e), -ERR_USAGE);
    assert_null(p);
    assert_int_equal(eng_pool_new(-3, &p, &e), -ERR_USAGE);
    assert_int_equal(eng_pool_new(1 << 20, &p, &e), -ERR_USAGE);
    assert_int_equal(eng_pool_new(64, &p, &e), 0);
    eng_pool_free(p);
    eng_pool_free(NULL);
}

static void freeing_nothing_is_fine(void **state)
{
    (void)state;
    eng_plan_free(NULL);
    unroll_free(NULL);
}

/* ---- layouts ---- */

static void parameters_go_in_and_out_unchanged(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct net n;
        struct rng r;
        randnet(&n, seed, &randnet_small);
        rng_init(&r, seed, RNG_TEST, 7);
        for (int t = ENG_F32; t <= ENG_F64; t++) {
            size_t bytes = (size_t)n.param_count * eng_dtype_size((enum eng_dtype)t);
            void *a = rand_normal(&r, (enum eng_dtype)t, (size_t)n.param_count, 1), *b = malloc(bytes), *c = malloc(bytes);
            eng_params_import(&n, (enum eng_dtype)t, a, b);
            eng_params_export(&n, (enum eng_dtype)t, b, c);
            assert_memory_equal(a, c, bytes);
            free(a);
            free(b);
            free(c);
        }
        net_fini(&n);
    }
}

static void a_convolutions_weight_lies_as_documented(void **state)
{
    (void)state;
    struct net n;
    assert_int_equal(net_init(&n, 4, 5, 5, NULL), 0);
    net_add(&n, NET_CONV, (int[]){ 0 }, 1, &(struct net_attr){ .out = 6, .k = 3, .groups = 2, .bias = true }, NULL, NULL);
    double *out = zeros((size_t)n.param_count), *in = zeros((size_t)n.param_count);
    for (uint64_t i = 0; i < n.param_count; i++)
        out[i] = (double)i;
    eng_params_import(&n, ENG_F64, out, in);
    for (int o = 0; o < 6; o++) /* outside [out, in/groups, k, k], inside [k, k, in/groups, out] */
        for (int i = 0; i < 2; i++)
            for (int kh = 0; kh < 3; kh++)
                for (int kw = 0; kw < 3; kw++)
                    assert_true(in[((kh * 3 + kw) * 2 + i) * 6 + o] == out[((o * 2 + i) * 3 + kh) * 3 + kw]);
    for (int o = 0; o < 6; o++)
        assert_true(in[108 + o] == out[108 + o]);
    free(out);
    free(in);
    net_fini(&n);
}

static void images_go_in_and_out_unchanged(void **state)
{
    (void)state;
    enum { N = 3, C = 3, H = 4, W = 5, ALL = N * C * H * W };
    float a[ALL], b[ALL], c[ALL];
    double d[ALL], f[ALL], g[ALL];
    for (int i = 0; i < ALL; i++)
        d[i] = a[i] = (float)i;
    eng_images_import(ENG_F32, N, C, H, W, a, b);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < C; k++)
            for (int p = 0; p < H * W; p++)
                assert_true(b[(n * H * W + p) * C + k] == a[(n * C + k) * H * W + p]);
    eng_images_export(ENG_F32, N, C, H, W, b, c);
    assert_memory_equal(a, c, sizeof a);
    eng_images_import(ENG_F64, N, C, H, W, d, f);
    eng_images_export(ENG_F64, N, C, H, W, f, g);
    assert_memory_equal(d, g, sizeof d);
    eng_images_import(ENG_F64, N, 1, H, W, d, f); /* one channel: the two orders are one */
    assert_memory_equal(d, f, N * H * W * sizeof *d);
}

static void pixels_become_minus_one_to_one(void **state)
{
    (void)state;
    enum { N = 2, C = 3, HW = 4 };
    uint8_t p[N * C * HW];
    float x[N * C * HW];
    for (int i = 0; i < N * C * HW; i++)
        p[i] = (uint8_t)(i * 11);
    p[0] = 0;
    p[1] = 255;
    eng_images_from_u8(N, C, 2, 2, p, x);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < C; k++)
            for (int i = 0; i < HW; i++)
                assert_true(x[(n * HW + i) * C + k] == (float)p[(n * C + k) * HW + i] / 127.5f - 1.0f);
    assert_true(x[0] == -1.0f && x[C] == 1.0f);
}

/* ---- first weights ---- */

static void first_weights_are_kaiming_uniform(void **state)
{
    (void)state;
    struct net n;
    assert_int_equal(net_init(&n, 16, 4, 4, NULL), 0);
    int x = net_conv(&n, 0, 64, 3, 1, 1, NULL, NULL);
    x = net_bn(&n, x, false, NULL, NULL);
    net_linear(&n, net_unary(&n, NET_GAP, x, NULL, NULL), 10, NULL, NULL);
    double *w = zeros((size_t)n.param_count), sum = 0, sq = 0, top = 0;
    eng_params_init(&n, ENG_F64, 7, w);
    const struct net_param *p = &n.param[0];
    const double bound = sqrt(3) * sqrt(2) / sqrt(16 * 9);
    for (uint64_t i = 0; i < p->size; i++) {
        sum += w[i];
        sq += w[i] * w[i];
        top = fmax(top, fabs(w[i]));
    }
    double N = (double)p->size; /* 9216 draws: a mean is good to 0.6 % of the bound, a variance to 1 % */
    assert_true(top <= bound * (1 + 1e-7) && top > 0.99 * bound);
    assert_true(fabs(sum / N) < 5 * bound / sqrt(3 * N));
    assert_true(fabs(sq / N / (bound * bound / 3) - 1) < 0.06);
    for (int k = 1; k < n.n_params; k++)
        for (uint64_t i = 0; i < n.param[k].size; i++) {
            double v = w[n.param[k].offset + i];
            if (n.param[k].role == NET_BN_GAIN) assert_true(v == 1);
            if (n.param[k].role == NET_BN_BIAS || n.param[k].role == NET_BIAS) assert_true(v == 0);
        }
    free(w);
    net_fini(&n);
}

static void first_weights_are_the_same_in_both_precisions_and_follow_the_seed(void **state)
{
    (void)state;
    struct net n;
    sample(&n);
    const size_t P = (size_t)n.param_count;
    double *a = zeros(P), *b = zeros(P);
    float *f = malloc(P * sizeof *f), *g = malloc(P * sizeof *g);
    eng_params_init(&n, ENG_F64, 3, a);
    eng_params_init(&n, ENG_F64, 3, b);
    assert_memory_equal(a, b, P * sizeof *a);
    eng_params_init(&n, ENG_F32, 3, f);
    const struct net_param *v = &n.param[0], *gain = &n.param[1];
    assert_int_equal(gain->role, NET_WEIGHT_G);
    for (size_t i = 0; i < P; i++)
        assert_true(fabs((double)f[i] - a[i]) <= 1e-7 * fabs(a[i]));
    for (uint64_t o = 0; o < gain->size; o++) { /* g = |v| */
        double s = 0;
        for (uint64_t i = o; i < v->size; i += gain->size)
            s += a[v->offset + i] * a[v->offset + i];
        assert_true(fabs(a[gain->offset + o] - sqrt(s)) <= 1e-6 * sqrt(s));
    }
    eng_params_init(&n, ENG_F32, 4, g);
    assert_true(memcmp(f, g, 16 * sizeof *f) != 0);
    free(a);
    free(b);
    free(f);
    free(g);
    net_fini(&n);
}

/* ---- memory ---- */

static void predictions_are_exact(void **state)
{
    (void)state;
    static const unsigned needs[] = { ENG_FORWARD, ENG_GRAD, ENG_GRAD | ENG_INPUT_GRAD, ENG_TANGENT, ENG_TANGENT | ENG_INPUT_GRAD, ENG_RUNNING };
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct randrun r;
        struct eng_plan *p;
        struct unroll *u;
        uint64_t said, last = 0;
        randrun_init(&r, seed, &randnet_small);
        for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
            assert_int_equal(eng_plan_predict(&r.net, r.cfg.B, ENG_F32, needs[i], &said, NULL), 0);
            assert_int_equal(eng_plan_new(&r.net, r.cfg.B, ENG_F32, needs[i], &p, NULL), 0);
            assert_int_equal(eng_plan_bytes(p), said);
            eng_plan_free(p);
            if (i == 1) assert_true(said >= last);
            last = said;
        }
        for (int back = 0; back < 2; back++) {
            r.cfg.meta_batch = back ? 5 : 0;
            assert_int_equal(unroll_predict(&r.cfg, &said, NULL), 0);
            assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
            assert_int_equal(unroll_bytes(u), said);
            unroll_free(u);
        }
        randrun_fini(&r);
    }
}

static void a_forward_plan_forgets_what_nobody_needs(void **state)
{
    (void)state;
    struct net n;
    uint64_t forward, grad, tangent;
    assert_int_equal(net_init(&n, 8, 16, 16, NULL), 0);
    int x = 0;
    for (int i = 0; i < 12; i++)
        x = net_lrelu(&n, net_conv(&n, x, 8, 3, 1, 1, NULL, NULL), 0, NULL, NULL);
    net_linear(&n, net_unary(&n, NET_GAP, x, NULL, NULL), 3, NULL, NULL);
    assert_int_equal(eng_plan_predict(&n, 32, ENG_F32, ENG_FORWARD, &forward, NULL), 0);
    assert_int_equal(eng_plan_predict(&n, 32, ENG_F32, ENG_GRAD, &grad, NULL), 0);
    assert_int_equal(eng_plan_predict(&n, 32, ENG_F32, ENG_TANGENT, &tangent, NULL), 0);
    const uint64_t one = 32 * 16 * 16 * 8 * 4;
    assert_true(forward < 4 * one + (1 << 20)); /* two activations at a time, not 24 */
    assert_true(grad > 12 * one && grad < 28 * one);
    assert_true(tangent > grad && tangent < 2 * grad + 4 * one);
    net_fini(&n);
}

/* ---- what is refused ---- */

static void malformed_networks_and_sizes_are_refused(void **state)
{
    (void)state;
    struct net n;
    struct eng_plan *p = (void *)1;
    struct unroll *u = (void *)1;
    struct errbuf e = { 0 };
    uint64_t bytes;
    assert_int_equal(net_init(&n, 1, 300, 300, &e), 0);
    assert_int_equal(eng_plan_new(&n, 4, ENG_F32, ENG_GRAD, &p, &e), -ERR_SHAPE); /* nothing computes */
    assert_null(p);
    assert_true(net_add(&n, NET_FLATTEN, (int[]){ 0 }, 1, NULL, "0", &e) < 0); /* 90000 features */
    assert_non_null(strstr(e.text, "0: flatten"));
    assert_true(net_conv(&n, 0, 2, 257, 1, 0, "3.body.1", &e) > 0);
    assert_int_equal(eng_plan_predict(&n, 4, ENG_F32, ENG_GRAD, &bytes, &e), -ERR_SHAPE);
    assert_non_null(strstr(e.text, "3.body.1"));
    assert_int_equal(eng_plan_new(&n, 4, ENG_F32, ENG_GRAD, &p, &e), -ERR_SHAPE);
    net_fini(&n);

    assert_int_equal(net_init(&n, 4, 5, 5, &e), 0); /* no parameter: runs, but cannot learn */
    net_unary(&n, NET_GAP, 0, NULL, &e);
    assert_int_equal(eng_plan_new(&n, 4, ENG_F32, ENG_GRAD, &p, &e), -ERR_SHAPE);
    assert_int_equal(eng_plan_new(&n, 4, ENG_F32, ENG_TANGENT | ENG_INPUT_GRAD, &p, &e), -ERR_SHAPE);
    assert_int_equal(eng_plan_new(&n, 4, ENG_F32, ENG_FORWARD, &p, &e), 0);
    eng_plan_free(p);
    net_fini(&n);

    sample(&n);
    assert_int_equal(eng_plan_new(&n, 0, ENG_F32, ENG_GRAD, &p, &e), -ERR_SHAPE);
    assert_int_equal(eng_plan_new(&n, -1, ENG_F32, ENG_GRAD, &p, &e), -ERR_SHAPE);
    struct unroll_cfg c = { .learner = &n, .T = 0, .B = 2, .inner = inner_default() };
    assert_int_equal(unroll_new(&c, &u, &e), -ERR_SHAPE);
    assert_null(u);
    c.T = 1;
    c.B = 0;
    assert_int_equal(unroll_new(&c, &u, &e), -ERR_SHAPE);
    c.B = 2;
    c.inner.type = INNER_TYPE_COUNT;
    assert_int_equal(unroll_new(&c, &u, &e), -ERR_INPUT);
    net_fini(&n);
}

/* A layer whose output nobody reads has no gradient, and does not disturb the others'. */
static void unread_layers_do_not_matter(void **state)
{
    (void)state;
    struct net live, dead;
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 8);
    for (int k = 0; k < 2; k++) {
        struct net *n = k ? &dead : &live;
        assert_int_equal(net_init(n, 2, 5, 5, NULL), 0);
        int a = net_lrelu(n, net_conv(n, 0, 3, 3, 1, 1, NULL, NULL), 0.1, NULL, NULL);
        int last = net_linear(n, net_unary(n, NET_GAP, a, NULL, NULL), 3, NULL, NULL);
        if (k) { /* two layers beside the way to the output, one of them reading a live tensor */
            net_conv(n, a, 4, 3, 1, 1, NULL, NULL);
            net_bn(n, 0, false, NULL, NULL);
            assert_int_equal(net_set_out(n, last, NULL), 0);
        }
    }
    const size_t P = (size_t)live.param_count, Q = (size_t)dead.param_count, X = 3 * 50;
    double *w = rand_weights(&r, ENG_F64, &dead), *x = rand_normal(&r, ENG_F64, X, 1), *y = rand_labels(&r, ENG_F64, 3, 3, true),
           *u = rand_normal(&r, ENG_F64, Q, 1), *g[2], *hu[2], *gx[2], *xu[2];
    assert_true(Q > P);
    for (int k = 0; k < 2; k++) {
        struct eng_plan *p;
        assert_int_equal(eng_plan_new(k ? &dead : &live, 3, ENG_F64, ENG_TANGENT | ENG_INPUT_GRAD, &p, NULL), 0);
        g[k] = zeros(Q);
        hu[k] = zeros(Q);
        gx[k] = zeros(X);
        xu[k] = zeros(X);
        for (size_t i = P; i < Q; i++)
            g[k][i] = hu[k][i] = k; /* must be overwritten by zero where there is such a parameter */
        eng_grad(p, w, x, y, g[k], gx[k]);
        eng_tangent(p, w, x, y, u, hu[k], xu[k], NULL, NULL);
        eng_plan_free(p);
    }
    assert_memory_equal(g[0], g[1], Q * sizeof **g);
    assert_memory_equal(hu[0], hu[1], Q * sizeof **g);
    assert_memory_equal(gx[0], gx[1], X * sizeof **g);
    assert_memory_equal(xu[0], xu[1], X * sizeof **g);
    double *all[] = { w, x, y, u, g[0], g[1], hu[0], hu[1], gx[0], gx[1], xu[0], xu[1] };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    net_fini(&live);
    net_fini(&dead);
}

/* A doubling and its 3 x 3 convolution are one op, with a border of zeros or a reflection between them. With a 5 x 5 kernel whose rim is zero
 * it is the same function, and two ops. */
static size_t in_wider(const struct net *small, const struct net *wide, int conv, size_t i)
{
    for (int q = 0; q < small->n_params; q++) {
        const size_t at = i - (size_t)small->param[q].offset;
        if (i < (size_t)small->param[q].offset || at >= (size_t)small->param[q].size)
            continue;
        if (q != conv)
            return (size_t)wide->param[q].offset + at;
        const size_t inner = (size_t)small->param[q].size / 9, place = at / inner;
        return (size_t)wide->param[q].offset + ((place / 3 + 1) * 5 + place % 3 + 1) * inner + at % inner;
    }
    fail();
    return 0;
}

static void a_doubling_is_part_of_its_convolution(void **state)
{
    (void)state;
    enum { B = 3, K = 3, X = B * 2 * 5 * 7 };
    for (int way = 0; way < 8; way++) {
        const bool wn = way & 1, reflect = way & 2;
        const int  out = way & 4 ? 1 : 9; /* few channels go another way */
        struct net n[2];
        struct rng r;
        double *w[2], *u[2], *g[2], *hu[2], *gx[2], *xu[2], loss[2];
        int conv = 0, fused[2] = { 0 };
        rng_init(&r, 1, RNG_TEST, 11);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(net_init(&n[k], 2, 5, 7, NULL), 0);
            int a = net_unary(&n[k], NET_UP2, net_bn(&n[k], net_conv(&n[k], 0, 6, 3, 1, 1, NULL, NULL), false, NULL, NULL), NULL, NULL);
            conv = n[k].n_params;
            if (reflect)
                a = net_add(&n[k], NET_REFLECTPAD, &a, 1, &(struct net_attr){ .pad = k ? 2 : 1 }, NULL, NULL);
            a = net_add(&n[k], NET_CONV, &a, 1, &(struct net_attr){ .k = k ? 5 : 3, .pad = reflect ? 0 : k ? 2 : 1, .out = out, .stride = 1, .dilation = 1, .groups = 1, .wn = wn, .bias = true },
                        NULL, NULL);
            assert_true(net_linear(&n[k], net_unary(&n[k], NET_FLATTEN, a, NULL, NULL), K, NULL, NULL) > 0);
        }
        const size_t P[] = { (size_t)n[0].param_count, (size_t)n[1].param_count };
        double *x = rand_normal(&r, ENG_F64, X, 1), *y = rand_labels(&r, ENG_F64, B, K, true), *small_w = rand_weights(&r, ENG_F64, &n[0]),
               *small_u = rand_normal(&r, ENG_F64, P[0], 1);
        for (int k = 0; k < 2; k++) {
            struct eng_plan *p;
            w[k] = zeros(P[k]);
            u[k] = zeros(P[k]);
            g[k] = zeros(P[k]);
            hu[k] = zeros(P[k]);
            gx[k] = zeros(X);
            xu[k] = zeros(X);
            for (size_t i = 0; i < P[0]; i++) {
                w[k][k ? in_wider(&n[0], &n[1], conv, i) : i] = small_w[i];
                u[k][k ? in_wider(&n[0], &n[1], conv, i) : i] = small_u[i];
            }
            assert_int_equal(eng_plan_new(&n[k], B, ENG_F64, ENG_TANGENT | ENG_INPUT_GRAD, &p, NULL), 0);
            for (int i = 0; i < p->n_nodes; i++)
                fused[k] += p->node[i].op == OP_UPCONV;
            loss[k] = eng_grad(p, w[k], x, y, g[k], gx[k]);
            eng_tangent(p, w[k], x, y, u[k], hu[k], xu[k], NULL, NULL);
            eng_plan_free(p);
        }
        assert_true(fused[0] == 1 && fused[1] == 0 && fabs(loss[0] - loss[1]) < 1e-12);
        for (size_t i = 0; i < P[0]; i++) {
            const size_t j = in_wider(&n[0], &n[1], conv, i);
            assert_true(fabs(g[0][i] - g[1][j]) < 1e-10 && fabs(hu[0][i] - hu[1][j]) < 1e-9);
        }
        for (size_t i = 0; i < X; i++)
            assert_true(fabs(gx[0][i] - gx[1][i]) < 1e-10 && fabs(xu[0][i] - xu[1][i]) < 1e-9);
        double *all[] = { x, y, small_w, small_u, w[0], w[1], u[0], u[1], g[0], g[1], hu[0], hu[1], gx[0], gx[1], xu[0], xu[1] };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            free(all[i]);
        net_fini(&n[0]);
        net_fini(&n[1]);
    }
}

/* More classes than any stack array: the loss has no room of its own. */
static void many_classes_are_no_limit(void **state)
{
    (void)state;
    enum { K = 20000, B = 2 };
    struct net n;
    struct eng_plan *p;
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 9);
    assert_int_equal(net_init(&n, 2, 0, 0, NULL), 0);
    net_linear(&n, 0, K, NULL, NULL);
    const size_t P = (size_t)n.param_count;
    double *w = rand_weights(&r, ENG_F64, &n), *x = rand_normal(&r, ENG_F64, 2 * B, 1), *y = rand_labels(&r, ENG_F64, B, K, true),
           *s = zeros(B * K), *g = zeros(P), *hu = zeros(P), expected = 0;
    assert_int_equal(eng_plan_new(&n, B, ENG_F64, ENG_TANGENT, &p, NULL), 0);
    eng_forward(p, w, x, s);
    for (int b = 0; b < B; b++) {
        double z = 0;
        for (int k = 0; k < K; k++)
            z += exp(s[b * K + k]);
        for (int k = 0; k < K; k++)
            expected -= y[b * K + k] * (s[b * K + k] - log(z)) / B;
    }
    assert_true(fabs(eng_loss(p, s, y) - expected) < 1e-9);
    assert_true(fabs(eng_grad(p, w, x, y, g, NULL) - expected) < 1e-9);
    assert_true(fabs(eng_tangent(p, w, x, y, w, hu, NULL, NULL, NULL) - expected) < 1e-9);
    double *all[] = { w, x, y, s, g, hu };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    eng_plan_free(p);
    net_fini(&n);
}

/* ---- NaN ---- */

static void a_nan_pixel_never_gets_lost(void **state)
{
    (void)state;
    struct net n;
    struct rng r;
    static const enum net_op first[] = { NET_MAXPOOL, NET_AVGPOOL, NET_LRELU, NET_TANH, NET_BN, NET_CONV };
    rng_init(&r, 1, RNG_TEST, 10);
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++)
        for (int place = 0; place < 16; place += 5) {
            struct eng_plan *p;
            assert_int_equal(net_init(&n, 1, 4, 4, NULL), 0);
            int x = net_add(&n, first[i], (int[]){ 0 }, 1, &(struct net_attr){ .k = 2, .out = 2, .stride = first[i] == NET_CONV ? 1 : 2 }, NULL, NULL);
            net_linear(&n, net_unary(&n, NET_FLATTEN, x, NULL, NULL), 2, NULL, NULL);
            assert_int_equal(eng_plan_new(&n, 1, ENG_F32, ENG_GRAD, &p, NULL), 0);
            float *w = rand_weights(&r, ENG_F32, &n), *pixels = rand_normal(&r, ENG_F32, 16, 1), *y = rand_labels(&r, ENG_F32, 1, 2, false);
            float *g = malloc((size_t)n.param_count * sizeof *g);
            pixels[place] = NAN;
            double loss = eng_grad(p, w, pixels, y, g, NULL);
            if (!isnan(loss))
                fail_msg("a NaN at place %d went through %s as %g", place, net_op_name(first[i]), loss);
            free(w);
            free(pixels);
            free(y);
            free(g);
            eng_plan_free(p);
            net_fini(&n);
        }
}

static void a_row_with_nan_is_never_correct(void **state)
{
    (void)state;
    const float s[] = { 0.1f, 0.9f, 0.3f,  NAN, 0.9f, 0.3f,  0.1f, 0.9f, NAN,  2, 2, 1,  -INFINITY, 0, INFINITY };
    const double d[] = { 0.1, 0.9, 0.3,  NAN, 0.9, 0.3,  0.1, 0.9, NAN,  2, 2, 1,  -INFINITY, 0, INFINITY };
    const int label[] = { 1, 1, 1, 0, 2 }, other[] = { 0, 0, 0, 1, 1 };
    assert_int_equal(eng_count_correct(ENG_F32, s, 5, 3, label), 3); /* the first of equals wins */
    assert_int_equal(eng_count_correct(ENG_F64, d, 5, 3, label), 3);
    assert_int_equal(eng_count_correct(ENG_F32, s, 5, 3, other), 0);
    assert_int_equal(eng_count_correct(ENG_F32, s, 0, 3, label), 0);
}

/* ---- running statistics ---- */

static void running_statistics_follow_the_batches(void **state)
{
    (void)state;
    enum { N = 3, C = 2, HW = 6, M = N * HW };
    struct net n;
    struct eng_plan *p, *plain;
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 11);
    assert_int_equal(net_init(&n, C, 2, 3, NULL), 0);
    int b = net_bn(&n, 0, false, NULL, NULL);
    net_linear(&n, net_unary(&n, NET_FLATTEN, b, NULL, NULL), 2, NULL, NULL);
    assert_int_equal(eng_running_count(&n), 2 * C);
    assert_int_equal(eng_plan_new(&n, N, ENG_F64, ENG_RUNNING, &p, NULL), 0);
    assert_int_equal(eng_plan_new(&n, N, ENG_F64, ENG_GRAD, &plain, NULL), 0);
    double *w = rand_weights(&r, ENG_F64, &n), *x = rand_normal(&r, ENG_F64, M * C, 2), *y = rand_labels(&r, ENG_F64, N, 2, false);
    double *g = zeros((size_t)n.param_count), *g2 = zeros((size_t)n.param_count), stats[2 * C], expected[2 * C] = { 0, 0, 1, 1 }, s[N * 2], s2[N * 2];
    eng_running_get(p, stats);
    assert_memory_equal(stats, expected, sizeof stats); /* mean 0, variance 1 */
    for (int step = 0; step < 3; step++) {
        double loss = eng_grad(p, w, x, y, g, NULL);
        assert_true(loss == eng_grad(plain, w, x, y, g2, NULL)); /* keeping statistics changes nothing else */
        assert_memory_equal(g, g2, (size_t)n.param_count * sizeof *g);
        for (int c = 0; c < C; c++) {
            double mean = 0, var = 0;
            for (int i = 0; i < M; i++) mean += x[i * C + c] / M;
            for (int i = 0; i < M; i++) var += (x[i * C + c] - mean) * (x[i * C + c] - mean) / (M - 1); /* unbiased */
            expected[c] = 0.9 * expected[c] + 0.1 * mean;
            expected[C + c] = 0.9 * expected[C + c] + 0.1 * var;
        }
        eng_running_get(p, stats);
        for (int i = 0; i < 2 * C; i++)
            assert_true(fabs(stats[i] - expected[i]) < 1e-12);
        for (int i = 0; i < M * C; i++)
            x[i] = 0.5 * x[i] + 1;
    }
    const double set[2 * C] = { 0.3, -0.2, 2.5, 0.7 };
    eng_running_set(p, set);
    eng_set_evaluation(p, true);
    eng_forward(p, w, x, s);
    eng_running_get(p, stats);
    assert_memory_equal(stats, set, sizeof set); /* looking does not change them */
    for (int i = 0; i < N; i++) /* linear of gain (x - mean) / sqrt(var + eps) + bias */
        for (int k = 0; k < 2; k++) {
            double sum = w[4 + 2 * HW * C + k];
            for (int c = 0; c < C; c++)
                for (int q = 0; q < HW; q++)
                    sum += (w[c] * (x[(i * HW + q) * C + c] - set[c]) / sqrt(set[C + c] + 1e-5) + w[C + c]) * w[4 + (c * HW + q) * 2 + k];
            assert_true(fabs(sum - s[i * 2 + k]) < 1e-12);
        }
    eng_set_evaluation(p, false);
    eng_forward(p, w, x, s);
    eng_forward(plain, w, x, s2);
    assert_memory_equal(s, s2, sizeof s);
    double *all[] = { w, x, y, g, g2 };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    eng_plan_free(p);
    eng_plan_free(plain);
    net_fini(&n);
}

/* Sizes that overflow or fit no machine are refused by name before anything is allocated for them. */
static void sizes_beyond_any_memory_are_refused_naming_the_layer(void **state)
{
    (void)state;
    struct net n;
    struct errbuf e = { 0 };
    struct eng_plan *p;
    uint64_t bytes;
    assert_int_equal(net_init(&n, 1, 1024, 1024, NULL), 0);
    int last = net_conv(&n, 0, 1024, 1, 1, 0, "wide", NULL);
    for (int i = 0; i < 40; i++)
        last = net_unary(&n, NET_TANH, last, i ? NULL : "deep", NULL);
    last = net_linear(&n, net_unary(&n, NET_GAP, last, NULL, NULL), 10, NULL, NULL);
    assert_true(last > 0);
    assert_int_equal(eng_plan_predict(&n, 1 << 20, ENG_F64, ENG_TANGENT, &bytes, &e), -ERR_NOMEM);
    assert_string_equal(e.text, "layer wide: the activations of 1048576 images take more than 70368744177664 bytes up to here");
    assert_int_equal(eng_plan_new(&n, 1 << 14, ENG_F32, ENG_GRAD, &p, &e), -ERR_NOMEM);
    assert_non_null(strstr(e.text, "layer deep: the activations of 16384 images"));
    assert_int_equal(eng_plan_predict(&n, (1 << 20) + 1, ENG_F32, ENG_GRAD, &bytes, &e), -ERR_SHAPE);
    assert_int_equal(eng_plan_predict(&n, 16, ENG_F32, ENG_TANGENT, &bytes, &e), 0); /* large, and honestly counted */
    assert_true(bytes > UINT64_C(2) * 40 * 16 * (1 << 30) * 4);
    struct unroll_cfg c = { .learner = &n, .dtype = ENG_F32, .B = 1, .meta_batch = 1, .inner = inner_default() };
    struct unroll *u;
    for (int bad = 0; bad < 3; bad++) {
        c.T = bad == 0 ? 0 : bad == 1 ? -1 : 2147483647;
        assert_int_equal(unroll_new(&c, &u, &e), -ERR_SHAPE);
    }
    net_fini(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_beyond_any_memory_are_refused_naming_the_layer),
        cmocka_unit_test(an_unknown_instruction_set_is_a_usage_error),
        cmocka_unit_test(a_foreign_instruction_set_is_unavailable),
        cmocka_unit_test(portable_is_everywhere_and_the_cap_holds),
        cmocka_unit_test(a_pool_of_no_threads_is_refused),
        cmocka_unit_test(freeing_nothing_is_fine),
        cmocka_unit_test(parameters_go_in_and_out_unchanged),
        cmocka_unit_test(a_convolutions_weight_lies_as_documented),
        cmocka_unit_test(images_go_in_and_out_unchanged),
        cmocka_unit_test(pixels_become_minus_one_to_one),
        cmocka_unit_test(first_weights_are_kaiming_uniform),
        cmocka_unit_test(first_weights_are_the_same_in_both_precisions_and_follow_the_seed),
        cmocka_unit_test(predictions_are_exact),
        cmocka_unit_test(a_forward_plan_forgets_what_nobody_needs),
        cmocka_unit_test(malformed_networks_and_sizes_are_refused),
        cmocka_unit_test(unread_layers_do_not_matter),
        cmocka_unit_test(many_classes_are_no_limit),
        cmocka_unit_test(a_doubling_is_part_of_its_convolution),
        cmocka_unit_test(a_nan_pixel_never_gets_lost),
        cmocka_unit_test(a_row_with_nan_is_never_correct),
        cmocka_unit_test(running_statistics_follow_the_batches),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
