/* Kernel variants against each other. Every float variant that this machine has gives the same bits, for any number of
 * threads; and floats agree with doubles as far as rounding lets them. Networks are random over shapes that use every
 * path of the kernels: narrow and wide, flat, grouped, strided with every residue, many panels, dilated, padded beyond reach.
 * KERNEL_SEEDS=N scales the number of random ones; a failure prints its seed. */
#include "common/space.h"
#include "tests/support/randnet.h"
#include "tests/support/refnet.h"
#include "worker/engine/plan.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int threads_of[] = { 1, 2, 3, 7 };
enum { N_POOLS = sizeof threads_of / sizeof threads_of[0], N_OUT = 8 };
static struct eng_pool *pools[N_POOLS];
static int arena_byte; /* what the arena is filled with before a pass: 0xff makes NaN of both types */
static unsigned more_need;
static bool small_blocks; /* runs of ops go by the smallest blocks of images that they may, not by those that fill a cache */
static long n_blocks;     /* passed in blocks beside the first of a run */

/* Everything an engine call gives for one network at one point. */
struct answer {
    size_t n[N_OUT];
    void  *p[N_OUT];
    double loss[2];
};
static const char *const answer_name[N_OUT] = { "logits", "g", "gx", "hu", "xu", "yu", "g of an output adjoint", "gx of an output adjoint" };

struct problem {
    const struct net *net;
    int     batch, K;
    size_t  P, X, Y;
    double *w, *x, *y, *u, *adj;
};

static void problem_init(struct problem *q, const struct net *n, int batch, uint64_t seed)
{
    struct rng r;
    const struct net_shape in = n->node[0].shape, out = n->node[n->out].shape;
    rng_init(&r, seed, RNG_TEST, 4);
    *q = (struct problem){ .net = n, .batch = batch, .K = out.c, .P = (size_t)n->param_count };
    assert_true(out.flat);
    q->X = (size_t)batch * (size_t)(in.c * in.h * in.w);
    q->Y = (size_t)batch * (size_t)out.c;
    q->w = rand_weights(&r, ENG_F64, n);
    q->x = rand_normal(&r, ENG_F64, q->X, 1);
    q->y = rand_labels(&r, ENG_F64, (size_t)batch, out.c, true);
    q->u = rand_normal(&r, ENG_F64, q->P, 0.3);
    q->adj = rand_normal(&r, ENG_F64, q->Y, 1);
}

static void problem_fini(struct problem *q)
{
    free(q->w);
    free(q->x);
    free(q->y);
    free(q->u);
    free(q->adj);
}

static void *given(enum eng_dtype t, const double *x, size_t n)
{
    if (t == ENG_F32)
        return in_float(x, n);
    void *p = malloc(n * sizeof *x);
    assert_non_null(p);
    return memcpy(p, x, n * sizeof *x);
}

static void cut_small(struct eng_plan *p, struct step *s, int n)
{
    for (int i = 0; i < n; i += s[i].run) {
        s[i].images[0] = s[i].images[1] = s[i].least;
        n_blocks += s[i].run > 1 ? (p->batch - 1) / s[i].least : 0;
    }
}

static void answer_of(const struct problem *q, enum eng_dtype t, struct eng_pool *pool, struct answer *a)
{
    struct eng_plan *p;
    struct errbuf e = { 0 };
    const size_t n[N_OUT] = { q->Y, q->P, q->X, q->P, q->X, q->Y, q->P, q->X };
    void *w = given(t, q->w, q->P), *x = given(t, q->x, q->X), *y = given(t, q->y, q->Y), *u = given(t, q->u, q->P), *adj = given(t, q->adj, q->Y);
    if (eng_plan_new(q->net, q->batch, t, ENG_TANGENT | ENG_INPUT_GRAD | more_need, &p, &e) < 0)
        fail_msg("%s", e.text);
    eng_plan_set_pool(p, pool);
    if (small_blocks) {
        cut_small(p, p->forth, p->n_forth);
        cut_small(p, p->back, p->n_back);
    }
    /* What a pass finds in the arena is not its business: NaN there shows a buffer that is read before it is written. */
    memset(p->arena, arena_byte, p->bytes);
    for (int i = 0; i < N_OUT; i++) {
        a->n[i] = n[i];
        a->p[i] = malloc(n[i] * eng_dtype_size(t));
        assert_non_null(a->p[i]);
        memset(a->p[i], 0xff, n[i] * eng_dtype_size(t)); /* NaN: what is left unwritten shows */
    }
    eng_forward(p, w, x, a->p[0]);
    eng_backward(p, w, x, adj, a->p[6], a->p[7]);
    memset(p->arena, arena_byte, p->bytes);
    a->loss[0] = eng_grad(p, w, x, y, a->p[1], a->p[2]);
    memset(p->arena, arena_byte, p->bytes);
    a->loss[1] = eng_tangent(p, w, x, y, u, a->p[3], a->p[4], a->p[5], NULL);
    eng_plan_free(p);
    free(w);
    free(x);
    free(y);
    free(u);
    free(adj);
}

static void answer_fini(struct answer *a)
{
    for (int i = 0; i < N_OUT; i++)
        free(a->p[i]);
}

static void same_bits(const struct problem *q, const char *who, const struct answer *a, const struct answer *b)
{
    for (int i = 0; i < N_OUT; i++)
        if (memcmp(a->p[i], b->p[i], a->n[i] * sizeof(float)) != 0) {
            randnet_print(q->net);
            fail_msg("%s: other bits in %s", who, answer_name[i]);
        }
    if (a->loss[0] != b->loss[0] || a->loss[1] != b->loss[1] || a->loss[0] != a->loss[1])
        fail_msg("%s: other losses", who);
}

static int isas(const char *name[3])
{
    static const char *const all[] = { "portable", "neon", "avx2", "avx512" };
    int n = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (eng_init(all[i], NULL) == 0)
            name[n++] = all[i];
    return n;
}

/* Portable on one thread is what the others answer to. */
static void check_bits(const struct problem *q, uint64_t seed, struct answer *first)
{
    const char *isa[3];
    char who[96];
    int n = isas(isa);
    assert_int_equal(eng_init("portable", NULL), 0);
    arena_byte = 0;
    answer_of(q, ENG_F32, NULL, first);
    arena_byte = 0xff;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < N_POOLS; k++) {
            struct answer a;
            if ((i == 0 && k == 0) || (i < n - 1 && (seed + (uint64_t)i) % N_POOLS != (uint64_t)k))
                continue; /* the best on every pool, the others on one: threads wait for each other on a busy machine */
            assert_int_equal(eng_init(isa[i], NULL), 0);
            assert_string_equal(eng_isa(), isa[i]);
            small_blocks = (i + k + (int)seed) % 2;
            answer_of(q, ENG_F32, pools[k], &a);
            small_blocks = false;
            snprintf(who, sizeof who, "seed %llu, %s on %d threads", (unsigned long long)seed, isa[i], threads_of[k]);
            same_bits(q, who, first, &a);
            answer_fini(&a);
        }
}

/* Relative to the largest number of a tensor, or to `least` where that is smaller: what is left of larger terms. */
static double distance(const float *a, const double *b, size_t n, double least)
{
    double top = least, worst = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs(b[i]));
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]) / top;
        if (!(d <= worst)) /* NaN too */
            worst = d;
    }
    return worst;
}

static double worst_distance(const struct problem *q, const struct answer *f32, int *which)
{
    struct answer f64;
    double worst = 0;
    answer_of(q, ENG_F64, NULL, &f64);
    for (int i = 0; i < N_OUT; i++) {
        double d = distance(f32->p[i], f64.p[i], f64.n[i], 1e-2);
        if (!(d <= worst)) {
            worst = d;
            *which = i;
        }
    }
    if (!(fabs(f64.loss[0] - f32->loss[0]) <= 1e-4 * (1 + fabs(f64.loss[0]))))
        worst = INFINITY;
    answer_fini(&f64);
    return worst;
}

static int n_seeds(int base)
{
    const char *s = getenv("KERNEL_SEEDS");
    return s ? atoi(s) : base;
}

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < N_POOLS; i++)
        assert_int_equal(eng_pool_new(threads_of[i], &pools[i], NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    printf("%ld further blocks of images\n", n_blocks);
    assert_true(n_blocks > 1000 || getenv("KERNEL_SEEDS"));
    for (int i = 0; i < N_POOLS; i++)
        eng_pool_free(pools[i]);
    return 0;
}

/* ---- one op family at a time, many shapes ---- */

/* A 1x1 convolution gives the op an input with a tangent, `op` is what is tested, a linear layer or nothing ends it. */
typedef int (*family)(struct net *n, int x, struct rng *r);

static int add1(struct net *n, enum net_op op, int x, struct net_attr at) { return net_add(n, op, &x, 1, &at, NULL, NULL); }
static int draw(struct rng *r, int lo, int hi) { return lo + (int)rng_below(r, (uint32_t)(hi - lo + 1)); }
static bool coin(struct rng *r) { return rng_below(r, 2); }
static int any_width(struct rng *r)
{
    static const int c[] = { 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 65 };
    return c[rng_below(r, sizeof c / sizeof c[0])];
}

static int f_conv(struct net *n, int x, struct rng *r)
{
    int k = 1 + 2 * draw(r, 0, 2);
    return add1(n, NET_CONV, x, (struct net_attr){ .out = any_width(r), .k = k, .stride = draw(r, 1, 4), .pad = draw(r, 0, k), .dilation = draw(r, 1, 2),
                                                   .bias = coin(r), .wn = coin(r) });
}
static int f_conv_even(struct net *n, int x, struct rng *r)
{
    return add1(n, NET_CONV, x, (struct net_attr){ .out = any_width(r), .k = 2 * draw(r, 1, 2), .stride = draw(r, 1, 2), .pad = draw(r, 0, 3), .dilation = draw(r, 1, 3) });
}
static int f_pointwise(struct net *n, int x, struct rng *r)
{
    return add1(n, NET_CONV, x, (struct net_attr){ .out = any_width(r), .k = 1, .stride = draw(r, 1, 2), .pad = draw(r, 0, 1) });
}
static int f_narrow_out(struct net *n, int x, struct rng *r)
{
    int k = 3 + 2 * draw(r, 0, 1);
    return add1(n, NET_CONV, x, (struct net_attr){ .out = draw(r, 1, 4), .k = k, .pad = draw(r, 0, k + 1), .dilation = draw(r, 1, 2) });
}
static int f_grouped(struct net *n, int x, struct rng *r)
{
    int C = n->node[x].shape.c, g = draw(r, 2, C > 2 ? C : 2), k = 1 + 2 * draw(r, 0, 1);
    while (g > 1 && C % g)
        g--;
    return add1(n, NET_CONV, x, (struct net_attr){ .out = g * draw(r, 1, 5), .groups = g, .k = k, .stride = draw(r, 1, 3), .pad = draw(r, 0, k), .dilation = draw(r, 1, 2) });
}
static int f_depthwise(struct net *n, int x, struct rng *r)
{
    int C = n->node[x].shape.c, k = 1 + 2 * draw(r, 0, 2);
    return add1(n, NET_CONV, x, (struct net_attr){ .out = C, .groups = C, .k = k, .stride = draw(r, 1, 4), .pad = draw(r, 0, k), .dilation = draw(r, 1, 2), .wn = coin(r) });
}
static int f_linear(struct net *n, int x, struct rng *r)
{
    x = add1(n, NET_FLATTEN, x, (struct net_attr){ 0 });
    return add1(n, NET_LINEAR, x, (struct net_attr){ .out = any_width(r), .bias = coin(r), .wn = coin(r) });
}
static int f_bn(struct net *n, int x, struct rng *r)
{
    x = add1(n, NET_BN, x, (struct net_attr){ .mean_only = coin(r) });
    return coin(r) ? add1(n, NET_LRELU, x, (struct net_attr){ .slope = coin(r) ? 0 : 0.2 }) : x;
}
static int f_lrelu(struct net *n, int x, struct rng *r) { return add1(n, NET_LRELU, x, (struct net_attr){ .slope = coin(r) ? 0 : 0.3 }); }
static int f_tanh(struct net *n, int x, struct rng *r) { (void)r; return add1(n, NET_TANH, x, (struct net_attr){ 0 }); }
static int f_maxpool(struct net *n, int x, struct rng *r)
{
    int k = draw(r, 1, 4);
    return add1(n, NET_MAXPOOL, x, (struct net_attr){ .k = k, .stride = draw(r, 1, k + 1), .pad = draw(r, 0, k - 1) });
}
static int f_avgpool(struct net *n, int x, struct rng *r)
{
    int k = draw(r, 1, 4);
    return add1(n, NET_AVGPOOL, x, (struct net_attr){ .k = k, .stride = draw(r, 1, k + 1), .pad = draw(r, 0, k - 1) });
}
static int f_gap(struct net *n, int x, struct rng *r) { (void)r; return add1(n, NET_GAP, x, (struct net_attr){ 0 }); }
static int f_up2(struct net *n, int x, struct rng *r) { (void)r; return add1(n, NET_UP2, x, (struct net_attr){ 0 }); }
static int f_reflectpad(struct net *n, int x, struct rng *r)
{
    struct net_shape s = n->node[x].shape;
    return add1(n, NET_REFLECTPAD, x, (struct net_attr){ .pad = draw(r, 0, (s.h < s.w ? s.h : s.w) - 1) });
}
static int f_merge(struct net *n, int x, struct rng *r)
{
    int y = add1(n, NET_TANH, x, (struct net_attr){ 0 }), in[4] = { x, y, coin(r) ? x : y, coin(r) ? 0 : x };
    int z = net_add(n, NET_CONCAT, in, draw(r, 2, 4), NULL, NULL, NULL), two[2] = { z, z };
    return coin(r) ? z : net_add(n, NET_ADD, two, 2, NULL, NULL, NULL);
}
static int f_reshape(struct net *n, int x, struct rng *r)
{
    struct net_shape s = n->node[x].shape;
    x = add1(n, NET_FLATTEN, x, (struct net_attr){ 0 });
    x = add1(n, NET_RESHAPE, x, coin(r) ? (struct net_attr){ .c = s.w, .h = s.c, .w = s.h } : (struct net_attr){ .c = s.c * s.h, .h = s.w, .w = 1 });
    return add1(n, NET_TANH, x, (struct net_attr){ 0 });
}

static const struct { const char *name; family make; double tolerance; } families[] = {
    { "conv", f_conv, 5e-5 }, { "conv, even k", f_conv_even, 5e-5 }, { "pointwise", f_pointwise, 5e-5 }, { "few outputs", f_narrow_out, 5e-5 },
    { "grouped", f_grouped, 5e-5 }, { "depthwise", f_depthwise, 5e-5 }, { "linear", f_linear, 5e-5 }, { "bn", f_bn, 1e-4 },
    { "lrelu", f_lrelu, 5e-5 }, { "tanh", f_tanh, 5e-5 }, { "maxpool", f_maxpool, 5e-5 }, { "avgpool", f_avgpool, 5e-5 },
    { "gap", f_gap, 5e-5 }, { "up2", f_up2, 5e-5 }, { "reflectpad", f_reflectpad, 5e-5 }, { "merge", f_merge, 5e-5 }, { "reshape", f_reshape, 5e-5 },
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

/* With `direct` the op reads the network's input itself: no tangent comes in, and the input's adjoint goes out. */
static bool family_net(struct net *n, int f, struct rng *r, bool direct)
{
    int side = draw(r, 1, 13), x = 0;
    assert_int_equal(net_init(n, direct ? any_width(r) : 3, side, draw(r, 1, 13), NULL), 0);
    if (!direct)
        x = add1(n, NET_CONV, x, (struct net_attr){ .out = any_width(r), .k = 1, .bias = true });
    x = families[f].make(n, x, r);
    if (x >= 0 && !n->node[x].shape.flat)
        x = add1(n, rng_below(r, 3) ? NET_GAP : NET_FLATTEN, x, (struct net_attr){ 0 });
    x = add1(n, NET_LINEAR, x, (struct net_attr){ .out = draw(r, 2, 6), .bias = true });
    if (x >= 0 && net_macs(n) < 3000000 && net_activation_elems(n) < 12000)
        return true;
    net_fini(n);
    return false;
}

static void every_family_has_the_same_bits_and_agrees_with_double(void **state)
{
    (void)state;
    for (int f = 0; f < N_FAMILIES; f++) {
        double worst = 0;
        int done = 0;
        for (uint64_t seed = 1; done < n_seeds(24); seed++) {
            struct net n;
            struct rng r;
            struct problem q;
            struct answer a;
            int which = 0;
            rng_init(&r, seed, RNG_TEST, 100 + (uint64_t)f);
            if (!family_net(&n, f, &r, seed % 4 == 0))
                continue;
            done++;
            problem_init(&q, &n, draw(&r, 1, 5) + (f == 7), seed); /* a batch norm of one number is no norm */
            check_bits(&q, seed, &a);
            double d = worst_distance(&q, &a, &which);
            if (!(d <= families[f].tolerance)) {
                randnet_print(&n);
                fail_msg("%s, seed %llu: %s in float is off by %.3g of its size", families[f].name, (unsigned long long)seed, answer_name[which], d);
            }
            worst = fmax(worst, d);
            answer_fini(&a);
            problem_fini(&q);
            net_fini(&n);
        }
        print_message("%-14s float against double: %.2g\n", families[f].name, worst);
    }
}

/* ---- whole networks ---- */

static void random_networks_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (uint64_t)n_seeds(24); seed++) {
        struct net n;
        struct rng r;
        struct problem q;
        struct answer a;
        randnet(&n, seed, &randnet_wide);
        rng_init(&r, seed, RNG_TEST, 5);
        problem_init(&q, &n, draw(&r, 1, 9), seed);
        check_bits(&q, seed, &a);
        answer_fini(&a);
        problem_fini(&q);
        net_fini(&n);
    }
}

/* Logits and gradient of a plan for `need`, in blocks as small as they may be, as they are, or op by op over the whole batch. */
enum cut { CUT_SMALL, CUT_AS_IS, CUT_NOT };
static void answer_in(const struct problem *q, unsigned need, enum cut cut, float *logits, float *g)
{
    struct eng_plan *p;
    float *w = given(ENG_F32, q->w, q->P), *x = given(ENG_F32, q->x, q->X), *y = given(ENG_F32, q->y, q->Y);
    assert_int_equal(eng_plan_new(q->net, q->batch, ENG_F32, need | (cut == CUT_NOT ? ENG_WHOLE : 0u), &p, NULL), 0);
    if (cut == CUT_SMALL) {
        cut_small(p, p->forth, p->n_forth);
        cut_small(p, p->back, p->n_back);
    }
    memset(p->arena, 0xff, p->bytes);
    eng_forward(p, w, x, logits);
    if (need & ENG_GRAD)
        eng_grad(p, w, x, y, g, NULL);
    eng_plan_free(p);
    free(w);
    free(x);
    free(y);
}

/* The less a plan keeps the more buffers share a place, and the more of these meet in one run of blocks. Architectures of a
 * space, for they are what is scored; weight norms make their weights in the arena. */
static void plans_that_keep_less_have_the_same_bits_in_blocks(void **state)
{
    static const unsigned needs[] = { ENG_FORWARD, ENG_GRAD, ENG_GRAD | ENG_INPUT_GRAD };
    static const char *const known[] = { "wn relu | c16k3 avg2 | s16k3 | gap", "wn lrelu | c16k3 avg2 | max2 s16k3x2 | flat" };
    const struct space *chain = space_find("chain");
    (void)state;
    assert_int_equal(eng_init(NULL, NULL), 0);
    for (uint64_t seed = 1; seed <= 2 + 2 * (uint64_t)n_seeds(30); seed++) {
        char text[ARCH_TEXT_MAX];
        struct net n;
        struct rng r;
        struct problem q;
        rng_init(&r, seed, RNG_TEST, 21);
        if (seed <= 2)
            snprintf(text, sizeof text, "%s", known[seed - 1]);
        else
            chain->random(chain, &r, text);
        assert_int_equal(space_build(chain, text, 1, 12, 12, 4, NULL, &n, NULL), 0);
        problem_init(&q, &n, 33 + (int)(seed % 3) * 16, seed);
        float *logits[3], *g[3];
        for (size_t k = 0; k < sizeof needs / sizeof needs[0]; k++) {
            for (int c = 0; c < 3; c++) {
                logits[c] = calloc(q.Y, sizeof(float));
                g[c] = calloc(q.P, sizeof(float));
                assert_true(logits[c] && g[c]);
                answer_in(&q, needs[k], (enum cut)c, logits[c], g[c]);
            }
            for (int c = 0; c < 2; c++)
                if (memcmp(logits[c], logits[CUT_NOT], q.Y * sizeof(float)) != 0 || memcmp(g[c], g[CUT_NOT], q.P * sizeof(float)) != 0)
                    fail_msg("%s, need %u: other bits in %s blocks", text, needs[k], c == CUT_SMALL ? "small" : "its own");
            for (int c = 0; c < 3; c++) {
                free(logits[c]);
                free(g[c]);
            }
        }
        problem_fini(&q);
        net_fini(&n);
    }
}

/* In double, against the plain definition; parameters and images go through import. */
static void forward_is_what_the_definition_says(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10 * (uint64_t)n_seeds(40); seed++) {
        struct net n;
        struct rng r;
        struct eng_plan *p;
        randnet(&n, seed, seed % 10 ? &randnet_small : &randnet_wide);
        rng_init(&r, seed, RNG_TEST, 13);
        const int B = draw(&r, 1, 4), K = n.node[n.out].shape.c;
        const struct net_shape in = n.node[0].shape;
        const size_t P = (size_t)n.param_count, X = (size_t)B * (size_t)(in.c * in.h * in.w), Y = (size_t)B * (size_t)K;
        double *w = rand_weights(&r, ENG_F64, &n), *x = rand_normal(&r, ENG_F64, X, 1);
        double *wo = malloc(P * sizeof *wo), *xo = malloc(X * sizeof *xo), *y = malloc(Y * sizeof *y), *yo = malloc(Y * sizeof *yo);
        assert_true(wo && xo && y && yo);
        eng_params_export(&n, ENG_F64, w, wo);
        eng_images_export(ENG_F64, (size_t)B, in.c, in.h, in.w, x, xo);
        assert_int_equal(eng_plan_new(&n, B, ENG_F64, ENG_FORWARD, &p, NULL), 0);
        memset(p->arena, 0xff, p->bytes);
        eng_forward(p, w, x, y);
        refnet_forward(&n, B, wo, xo, yo);
        double top = 0;
        for (size_t i = 0; i < Y; i++)
            top = fmax(top, fabs(yo[i]));
        for (size_t i = 0; i < Y; i++)
            if (!(fabs(y[i] - yo[i]) <= 1e-11 * (1 + top))) {
                randnet_print(&n);
                fail_msg("seed %llu: output %zu is %.15g, defined as %.15g", (unsigned long long)seed, i, y[i], yo[i]);
            }
        double *all[] = { w, x, wo, xo, y, yo };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            free(all[i]);
        eng_plan_free(p);
        net_fini(&n);
    }
}

/* Large enough for several tasks of every kind: blocks of 512 pixels, chunks of 256 rows, more images than threads. */
static void a_larger_network_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    struct net n;
    struct problem q;
    struct answer a;
    assert_int_equal(net_init(&n, 3, 24, 20, NULL), 0);
    int x = net_conv(&n, 0, 40, 3, 1, 1, NULL, NULL);
    x = net_lrelu(&n, net_bn(&n, x, false, NULL, NULL), 0, NULL, NULL);
    x = net_conv(&n, x, 70, 1, 1, 0, NULL, NULL);
    x = net_bn(&n, x, true, NULL, NULL);
    x = net_pool(&n, NET_MAXPOOL, x, 2, 2, 0, NULL, NULL);
    x = net_dwconv(&n, x, 3, 1, 1, NULL, NULL);
    int y = net_conv(&n, x, 70, 3, 1, 1, NULL, NULL);
    x = net_lrelu(&n, net_add2(&n, x, y, NULL, NULL), 0.1, NULL, NULL);
    x = net_conv(&n, x, 3, 5, 1, 2, NULL, NULL);
    x = net_linear(&n, net_unary(&n, NET_FLATTEN, x, NULL, NULL), 10, NULL, NULL);
    assert_true(x > 0);
    problem_init(&q, &n, n_seeds(11) < 11 ? 2 : 11, 1); /* fewer images where instrumented code takes minutes for them */
    check_bits(&q, 1, &a);
    answer_fini(&a);
    problem_fini(&q);
    net_fini(&n);
}

/* Products that another library makes (ENG_BLAS): no canonical order, but the same sums. */
static void blas_gives_the_same_products(void **state)
{
    (void)state;
    struct net n;
    struct problem q;
    struct answer mine, blas, again;
    int which = 0;
    assert_int_equal(net_init(&n, 40, 9, 8, NULL), 0);
    int x = net_conv(&n, 0, 100, 1, 1, 0, NULL, NULL);
    int y = net_conv(&n, net_unary(&n, NET_TANH, x, NULL, NULL), 100, 1, 1, 0, NULL, NULL);
    x = net_pool(&n, NET_AVGPOOL, net_add2(&n, x, y, NULL, NULL), 3, 2, 0, NULL, NULL);
    x = net_linear(&n, net_unary(&n, NET_FLATTEN, x, NULL, NULL), 150, NULL, NULL);
    x = net_linear(&n, net_unary(&n, NET_TANH, x, NULL, NULL), 10, NULL, NULL);
    assert_true(x > 0);
    problem_init(&q, &n, 13, 1);
    assert_int_equal(eng_init(NULL, NULL), 0);
    answer_of(&q, ENG_F64, NULL, &mine);
    more_need = ENG_BLAS;
    answer_of(&q, ENG_F64, NULL, &blas);
    answer_of(&q, ENG_F32, NULL, &again);
    more_need = 0;
    bool other = false;
    for (int i = 0; i < N_OUT; i++) {
        const double *a = mine.p[i], *b = blas.p[i];
        double top = 0;
        for (size_t k = 0; k < mine.n[i]; k++)
            top = fmax(top, fabs(a[k]));
        for (size_t k = 0; k < mine.n[i]; k++) {
            assert_true(fabs(a[k] - b[k]) <= 1e-11 * top);
            other |= a[k] != b[k];
        }
    }
    assert_true(other == eng_blas_serves()); /* else it was not asked; OPENBLAS_CORETYPE says which CPU it takes this for */
    assert_true(worst_distance(&q, &again, &which) < 5e-5);
    answer_fini(&mine);
    answer_fini(&blas);
    answer_fini(&again);
    problem_fini(&q);
    net_fini(&n);
}

/* The inner optimisers and the walk back, in float. */
static void random_unrolls_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (uint64_t)n_seeds(24); seed++) {
        struct randrun r;
        const char *isa[3];
        randrun_init(&r, seed, seed % 8 ? &randnet_small : &randnet_wide);
        const size_t T = (size_t)r.cfg.T, TB = T * (size_t)r.cfg.B, M = (size_t)r.cfg.meta_batch;
        const size_t total = 3 * r.P + TB * (r.image + r.K) + M * r.K;
        float *first = NULL, *w0 = in_float(r.w0, r.P), *x = in_float(r.x, TB * r.image), *y = in_float(r.y, TB * r.K), *X[3], *Y[3];
        r.cfg.dtype = ENG_F32;
        r.in.w0 = w0;
        r.in.x = x;
        r.in.y = y;
        for (int i = 0; i < r.in.n_meta; i++) {
            r.meta[i].x = X[i] = in_float(r.X[i], M * r.image);
            r.meta[i].y = Y[i] = in_float(r.Y[i], M * r.K);
        }
        double rates[2][10] = { { 0 } };
        for (int i = 0, n = isas(isa); i < n; i++)
            for (int k = 0; k < N_POOLS; k += 2) {
                struct unroll *u;
                double d[10] = { 0 };
                float *o = calloc(total, sizeof *o);
                assert_non_null(o);
                struct unroll_out out = { .dw0 = o, .wT = o + r.P, .vT = o + 2 * r.P, .dx = o + 3 * r.P, .dy = o + 3 * r.P + TB * r.image,
                                          .logits = o + 3 * r.P + TB * (r.image + r.K), .dlr = d, .dmu = d + 5 };
                assert_int_equal(eng_init(isa[i], NULL), 0);
                assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
                unroll_set_pool(u, pools[k]);
                int rc = unroll_meta_grad(u, &r.in, &out, NULL);
                assert_true(rc == 0 || rc == -ERR_DIVERGED);
                unroll_free(u);
                if (!first) {
                    first = o;
                    memcpy(rates[0], d, sizeof d);
                    continue;
                }
                if (memcmp(first, o, total * sizeof *o) != 0 || memcmp(rates[0], d, sizeof d) != 0)
                    fail_msg("seed %llu: %s on %d threads gives other bits", (unsigned long long)seed, isa[i], threads_of[k]);
                free(o);
            }
        free(first);
        free(w0);
        free(x);
        free(y);
        for (int i = 0; i < r.in.n_meta; i++) {
            free(X[i]);
            free(Y[i]);
        }
        randrun_fini(&r);
    }
}

/* A float gives its double's argmax, sums and combinations. */
static void vector_operations_agree(void **state)
{
    (void)state;
    const char *isa[3];
    static const size_t sizes[] = { 1, 7, 8, 9, 63, 4095, 4096, 4097, 20001 };
    int n_isa = isas(isa);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct rng r;
        const size_t n = sizes[s];
        rng_init(&r, s, RNG_TEST, 6);
        double *x = rand_normal(&r, ENG_F64, n, 1), *y = rand_normal(&r, ENG_F64, n, 1), plain = 0, size = 0;
        float *fx = in_float(x, n), *first = NULL;
        for (size_t i = 0; i < n; i++) {
            plain += x[i] * y[i];
            size += fabs(x[i] * y[i]);
        }
        for (int i = 0; i < n_isa; i++) {
            float *fy = in_float(y, n);
            assert_int_equal(eng_init(isa[i], NULL), 0);
            double d = eng_dot(ENG_F32, n, fx, fy);
            assert_true(fabs(d - plain) <= 1e-14 * size);
            assert_true(d == eng_dot(ENG_F64, n, x, y)); /* products of floats are exact in double, the order is the same */
            eng_axpy(ENG_F32, n, -0.75, fx, fy);
            for (size_t k = 0; k < n; k++)
                assert_true(fabs((double)fy[k] - (y[k] - 0.75 * x[k])) <= 2e-7 * (fabs(y[k]) + fabs(x[k])));
            if (first) {
                assert_memory_equal(first, fy, n * sizeof *fy);
                free(fy);
            } else
                first = fy;
            assert_true(eng_finite(ENG_F32, n, fx));
            for (size_t k = 0; k < n; k += 1 + n / 5) {
                static const float bad[] = { NAN, INFINITY, -INFINITY };
                float keep = fx[k];
                fx[k] = bad[k % 3];
                assert_false(eng_finite(ENG_F32, n, fx));
                fx[k] = keep;
            }
        }
        free(x);
        free(y);
        free(fx);
        free(first);
    }
}

/* ---- what the random networks do not reach ---- */

static void tanh_is_the_libraries_to_two_units(void **state)
{
    (void)state;
    enum { N = 4001 };
    static float x[N], y[N], first[N];
    const char *isa[3];
    struct net n;
    assert_int_equal(net_init(&n, N, 0, 0, NULL), 0);
    net_unary(&n, NET_TANH, 0, NULL, NULL);
    for (int i = 0; i < N; i++)
        x[i] = (float)((i - N / 2) * 0.006);
    x[0] = -INFINITY;
    x[1] = 1e30f;
    x[2] = NAN;
    x[3] = 1e-20f;
    for (int i = 0, m = isas(isa); i < m; i++) {
        struct eng_plan *p;
        assert_int_equal(eng_init(isa[i], NULL), 0);
        assert_int_equal(eng_plan_new(&n, 1, ENG_F32, ENG_FORWARD, &p, NULL), 0);
        eng_forward(p, NULL, x, y);
        eng_plan_free(p);
        assert_true(y[0] == -1 && y[1] == 1 && isnan(y[2]));
        for (int k = 3; k < N; k++)
            assert_true(fabs((double)y[k] - tanh((double)x[k])) <= 2.4e-7 * fabs(tanh((double)x[k])));
        if (i == 0)
            memcpy(first, y, sizeof y);
        assert_memory_equal(first, y, sizeof y);
    }
    net_fini(&n);
}

static void losses_and_counts_of_extreme_logits_agree(void **state)
{
    (void)state;
    enum { ROWS = 8, K = 3 };
    static const float s[ROWS][K] = { { 0, -100, 5 }, { 300, 1, -4 }, { -90, -88, -87.5f }, { 1e20f, 1e20f, 0 }, { 0, 0, 0 },
                                      { INFINITY, 0, 1 }, { 0, NAN, 1 }, { 2, -INFINITY, 1 } };
    static const float y[K] = { 0.2f, 0.5f, 0.3f };
    static const int label[ROWS] = { 2, 0, 2, 0, 0, 0, 2, 0 };
    const char *isa[3];
    struct net n;
    assert_int_equal(net_init(&n, 1, 0, 0, NULL), 0);
    net_linear(&n, 0, K, NULL, NULL);
    for (int i = 0, m = isas(isa); i < m; i++) {
        struct eng_plan *p, *exact;
        assert_int_equal(eng_init(isa[i], NULL), 0);
        assert_int_equal(eng_plan_new(&n, 1, ENG_F32, ENG_GRAD, &p, NULL), 0);
        assert_int_equal(eng_plan_new(&n, 1, ENG_F64, ENG_GRAD, &exact, NULL), 0);
        for (int r = 0; r < ROWS; r++) {
            double sd[K], yd[K], f = eng_loss(p, s[r], y), d;
            for (int k = 0; k < K; k++) {
                sd[k] = (double)s[r][k];
                yd[k] = (double)y[k];
            }
            d = eng_loss(exact, sd, yd);
            if (r < 5)
                assert_true(fabs(f - d) <= 1e-6 * (1 + fabs(d)));
            else
                assert_true(!isfinite(f) && !isfinite(d));
        }
        assert_int_equal(eng_count_correct(ENG_F32, s, ROWS, K, label), ROWS - 1); /* all but the row with a NaN */
        eng_plan_free(p);
        eng_plan_free(exact);
    }
    net_fini(&n);
}

static void running_statistics_have_the_same_bits_and_agree_with_double(void **state)
{
    (void)state;
    enum { B = 7, STATS = 2 * 19 + 2 * 19 };
    struct net n;
    struct rng r;
    const char *isa[3];
    float first[B * 5 + STATS], got[B * 5 + STATS];
    assert_int_equal(net_init(&n, 3, 6, 7, NULL), 0);
    int x = net_bn(&n, net_conv(&n, 0, 19, 3, 1, 1, NULL, NULL), false, NULL, NULL);
    x = net_bn(&n, net_dwconv(&n, net_lrelu(&n, x, 0.1, NULL, NULL), 3, 2, 1, NULL, NULL), true, NULL, NULL);
    net_linear(&n, net_unary(&n, NET_GAP, x, NULL, NULL), 5, NULL, NULL);
    assert_int_equal(eng_running_count(&n), STATS);
    rng_init(&r, 1, RNG_TEST, 12);
    const size_t P = (size_t)n.param_count, X = B * 3 * 6 * 7;
    double *w = rand_weights(&r, ENG_F64, &n), *img = rand_normal(&r, ENG_F64, X, 1), *y = rand_labels(&r, ENG_F64, B, 5, true), exact[B * 5 + STATS];
    double *g = calloc(P, sizeof *g);
    float *fw = in_float(w, P), *fx = in_float(img, X), *fy = in_float(y, B * 5);
    assert_non_null(g);
    for (int i = -1, m = isas(isa); i < m; i++) { /* -1: double */
        struct eng_plan *p;
        const bool d = i < 0;
        assert_int_equal(eng_init(d ? NULL : isa[i], NULL), 0);
        assert_int_equal(eng_plan_new(&n, B, d ? ENG_F64 : ENG_F32, ENG_RUNNING, &p, NULL), 0);
        eng_plan_set_pool(p, d ? NULL : pools[i % N_POOLS]);
        for (int step = 0; step < 3; step++)
            eng_grad(p, d ? (void *)w : fw, d ? (void *)img : fx, d ? (void *)y : fy, g, NULL);
        eng_set_evaluation(p, true);
        eng_forward(p, d ? (void *)w : fw, d ? (void *)img : fx, d ? (void *)exact : got);
        eng_running_get(p, d ? (void *)(exact + B * 5) : got + B * 5);
        eng_plan_free(p);
        if (i == 0)
            memcpy(first, got, sizeof got);
        if (i >= 0)
            assert_memory_equal(first, got, sizeof got);
        for (int k = 0; k < B * 5 + STATS && i >= 0; k++)
            assert_true(fabs((double)got[k] - exact[k]) <= 1e-5 * (1 + fabs(exact[k])));
    }
    void *all[] = { w, img, y, g, fw, fx, fy };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    net_fini(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_has_the_same_bits_and_agrees_with_double),
        cmocka_unit_test(forward_is_what_the_definition_says),
        cmocka_unit_test(random_networks_have_the_same_bits_everywhere),
        cmocka_unit_test(plans_that_keep_less_have_the_same_bits_in_blocks),
        cmocka_unit_test(a_larger_network_has_the_same_bits_everywhere),
        cmocka_unit_test(blas_gives_the_same_products),
        cmocka_unit_test(random_unrolls_have_the_same_bits_everywhere),
        cmocka_unit_test(vector_operations_agree),
        cmocka_unit_test(tanh_is_the_libraries_to_two_units),
        cmocka_unit_test(losses_and_counts_of_extreme_logits_agree),
        cmocka_unit_test(running_statistics_have_the_same_bits_and_agree_with_double),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
