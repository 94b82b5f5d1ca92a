/* A plan may lay things out as it likes, keep what it likes and compute what it likes again: the bits are the same. */
#include "worker/engine/plan.h"

#include "tests/support/randnet.h"

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- what is asked of the C library's allocator while `counting`: these definitions come before the shared library's ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CAN_COUNT 0
#else
#define CAN_COUNT 1
#endif

static bool    counting;
static int64_t alive, peak; /* bytes */

#if CAN_COUNT
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void  __libc_free(void *p);

static void *count(void *p, int sign)
{
    if (counting && p)
        alive += sign * (int64_t)malloc_usable_size(p);
    if (alive > peak)
        peak = alive;
    return p;
}
void *malloc(size_t n) { return count(__libc_malloc(n), 1); }
void *calloc(size_t n, size_t size) { return count(__libc_calloc(n, size), 1); }
void *realloc(void *p, size_t n)
{
    count(p, -1);
    return count(__libc_realloc(p, n), 1);
}
void *aligned_alloc(size_t align, size_t n) { return count(__libc_memalign(align, n), 1); }
void  free(void *p) { __libc_free(count(p, -1)); }
#endif

static int start(void **state)
{
    (void)state;
    return eng_init(NULL, NULL);
}

/* ---- plans ---- */

enum { RESULTS = 7 };
struct results { size_t bytes[RESULTS]; char *of[RESULTS]; };

static void results_fini(struct results *r)
{
    for (int i = 0; i < RESULTS; i++)
        free(r->of[i]);
}

/* Everything a plan gives, on numbers that depend on the seed alone. */
static struct results compute(struct eng_plan *p, const struct net *n, int B, uint64_t seed)
{
    const struct net_shape in = n->node[0].shape;
    const size_t image = (size_t)in.c * (size_t)in.h * (size_t)in.w, K = (size_t)n->node[n->out].shape.c, P = (size_t)n->param_count;
    const size_t elems[RESULTS] = { P, P, P, P, (size_t)B * image, (size_t)B * image, (size_t)B * K };
    struct results r;
    struct rng g;
    for (int i = 0; i < RESULTS; i++) {
        r.bytes[i] = elems[i] * sizeof(float);
        r.of[i] = calloc(elems[i] + 1, sizeof(float));
        assert_non_null(r.of[i]);
    }
    rng_init(&g, seed, RNG_TEST, 7);
    void *w = rand_weights(&g, ENG_F32, n), *u = rand_weights(&g, ENG_F32, n);
    void *x = rand_normal(&g, ENG_F32, (size_t)B * image, 1), *y = rand_labels(&g, ENG_F32, (size_t)B, (int)K, true);
    memset(p->arena, 0xff, (size_t)p->bytes); /* NaNs: whoever reads what nobody wrote shows */
    plan_grad(p, w, x, y, r.of[0], r.of[4], r.of[6]);
    eng_tangent(p, w, x, y, u, r.of[1], r.of[5], NULL, r.of[2]);
    eng_forward(p, w, x, NULL);
    eng_backward(p, w, x, y, r.of[3], NULL);
    free(w);
    free(u);
    free(x);
    free(y);
    return r;
}

static void what_is_computed_again_has_the_same_bits(void **state)
{
    (void)state;
    const unsigned need = ENG_TANGENT | ENG_INPUT_GRAD;
    int again = 0, smaller = 0;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct net n;
        struct eng_plan *plain;
        const int B = 2 + (int)(seed % 5);
        randnet(&n, seed, seed % 2 ? &randnet_small : &randnet_wide);
        assert_int_equal(eng_plan_new(&n, B, ENG_F32, need, &plain, NULL), 0);
        struct results expected = compute(plain, &n, B, seed);
        const uint64_t aims[] = { 0, plain->bytes / 2, plain->bytes * 9 / 10, plain->bytes };
        for (size_t k = 0; k < sizeof aims / sizeof aims[0]; k++) {
            struct eng_plan *p;
            assert_int_equal(plan_compile(&n, B, ENG_F32, need, &(struct plan_wish){ .at_most = aims[k] }, &p, NULL), 0);
            void *arena = eng_alloc(p->bytes);
            assert_non_null(arena);
            plan_attach(p, arena);
            struct results got = compute(p, &n, B, seed);
            for (int i = 0; i < RESULTS; i++)
                if (memcmp(got.of[i], expected.of[i], got.bytes[i]) != 0) {
                    randnet_print(&n);
                    fail_msg("seed %d, at most %llu bytes: result %d differs", (int)seed, (unsigned long long)aims[k], i);
                }
            if (aims[k] == plain->bytes)
                assert_int_equal(p->n_redo, 0); /* nothing without need */
            again += p->n_redo;
            smaller += p->bytes < plain->bytes;
            results_fini(&got);
            eng_plan_free(p);
            free(arena);
        }
        results_fini(&expected);
        eng_plan_free(plain);
        net_fini(&n);
    }
    assert_true(again > 100 && smaller > 60);
}

/* Two separable blocks and a sum: of nine activations that the way back reads, three are kept. */
static void a_separable_cell_keeps_what_its_products_and_norms_made(void **state)
{
    (void)state;
    struct net n;
    uint64_t plain;
    struct eng_plan *p;
    assert_int_equal(net_init(&n, 3, 16, 16, NULL), 0);
    int first = net_bn(&n, net_conv(&n, 0, 16, 3, 1, 1, NULL, NULL), false, NULL, NULL), x = first;
    for (int i = 0; i < 2; i++) {
        x = net_dwconv(&n, net_lrelu(&n, x, 0, NULL, NULL), 3, 1, 1, NULL, NULL);
        x = net_bn(&n, net_conv(&n, x, 16, 1, 1, 0, NULL, NULL), false, NULL, NULL);
    }
    x = net_unary(&n, NET_GAP, net_add2(&n, first, x, NULL, NULL), NULL, NULL);
    assert_true(net_linear(&n, x, 10, NULL, NULL) > 0);
    assert_int_equal(eng_plan_predict(&n, 64, ENG_F32, ENG_GRAD, &plain, NULL), 0);
    assert_int_equal(plan_compile(&n, 64, ENG_F32, ENG_GRAD, &(struct plan_wish){ .at_most = 0 }, &p, NULL), 0);
    assert_true(p->n_redo == 5);
    int passing = 0; /* at least what the two depthwise convolutions write and their gradients */
    for (int t = 0; t < p->n_tensors; t++)
        for (int i = 0; i < N_USES; i++)
            passing += p->tensor[t].passing[i] > 0 && p->tensor[t].passing[i] < 64;
    assert_true(passing >= 8);
    assert_true(p->bytes < plain * 4 / 5);
    eng_plan_free(p);
    net_fini(&n);
}

/* ---- unrolls ---- */

enum { GRADS = 7 };
struct grads { size_t bytes[GRADS]; char *of[GRADS]; double loss; };

static void grads_fini(struct grads *g)
{
    for (int i = 0; i < GRADS; i++)
        free(g->of[i]);
}

static struct grads meta_grad(struct randrun *r, struct unroll *u)
{
    const size_t T = (size_t)r->cfg.T, TB = T * (size_t)r->cfg.B;
    const size_t elems[GRADS] = { r->P, r->P, TB * r->image, TB * r->K, T, T, (size_t)r->cfg.meta_batch * r->K };
    struct grads g;
    for (int i = 0; i < GRADS; i++) {
        g.bytes[i] = elems[i] * sizeof(double);
        g.of[i] = calloc(elems[i] + 1, sizeof(double));
        assert_non_null(g.of[i]);
    }
    struct unroll_out out = { .wT = g.of[0], .dw0 = g.of[1], .dx = g.of[2], .dy = g.of[3], .dlr = (double *)(void *)g.of[4],
                              .dmu = (double *)(void *)g.of[5], .logits = g.of[6] };
    assert_int_equal(unroll_meta_grad(u, &r->in, &out, NULL), 0);
    g.loss = out.meta_loss;
    return g;
}

static void the_budget_shows_in_the_memory_alone(void **state)
{
    (void)state;
    int refused = 0, partly = 0, wholly = 0;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct randrun r;
        struct unroll *u;
        struct errbuf e;
        uint64_t usual, most;
        randrun_init(&r, seed, &randnet_small);
        assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
        usual = unroll_bytes(u);
        struct grads expected = meta_grad(&r, u);
        unroll_free(u);
        r.cfg.budget_bytes = UINT64_MAX / 2;
        assert_int_equal(unroll_predict(&r.cfg, &most, NULL), 0);
        const uint64_t budgets[] = { usual / 2, usual * 7 / 8, usual, (usual + most) / 2, most - 1, most, UINT64_MAX / 2 };
        for (size_t k = 0; k < sizeof budgets / sizeof budgets[0]; k++) {
            r.cfg.budget_bytes = budgets[k];
            int rc = unroll_new(&r.cfg, &u, &e);
            if (rc < 0) {
                assert_int_equal(rc, -ERR_NOMEM);
                assert_true(budgets[k] < usual && strstr(e.text, "the budget is"));
                refused++;
                continue;
            }
            assert_true(unroll_bytes(u) <= budgets[k]);
            partly += k == 3 && unroll_bytes(u) > usual;
            wholly += unroll_bytes(u) == most;
            for (int run = 0; run < 2; run++) { /* the second finds what the first has left lying */
                struct grads got = meta_grad(&r, u);
                assert_true(got.loss == expected.loss);
                for (int i = 0; i < GRADS; i++)
                    if (memcmp(got.of[i], expected.of[i], got.bytes[i]) != 0) {
                        randnet_print(&r.net);
                        fail_msg("seed %d, a budget of %llu bytes: result %d differs", (int)seed, (unsigned long long)budgets[k], i);
                    }
                grads_fini(&got);
            }
            unroll_free(u);
        }
        grads_fini(&expected);
        randrun_fini(&r);
    }
    assert_true(refused > 60 && partly > 60 && wholly >= 240);
}

/* ---- sizes ---- */

/* The most that is allocated at any time, from planning on, what plans themselves take on the heap included. */
static void the_predicted_memory_is_what_is_allocated(void **state)
{
    (void)state;
    if (!CAN_COUNT) {
        print_message("the allocator is a sanitizer's\n");
        skip();
    }
    int kept = 0, judged = 0;
    for (uint64_t seed = 1; seed <= 60; seed++)
        for (int mode = 0; mode < 4; mode++) {
            struct net n;
            struct unroll *u;
            uint64_t usual, predicted;
            randnet(&n, seed, &randnet_wide);
            struct unroll_cfg c = { .learner = &n, .dtype = seed % 3 ? ENG_F32 : ENG_F64, .T = 1 + (int)(seed % 6), .B = 256, .meta_batch = mode == 3 ? 0 : 1024,
                                    .want_dx = seed % 2, .inner = inner_defaults((enum inner_type)(seed % INNER_TYPE_COUNT)) };
            assert_int_equal(unroll_predict(&c, &usual, NULL), 0);
            c.budget_bytes = mode == 1 ? usual * 3 / 2 : mode == 2 ? UINT64_MAX / 2 : 0;
            assert_int_equal(unroll_predict(&c, &predicted, NULL), 0);
            alive = peak = 0;
            counting = true;
            int rc = unroll_new(&c, &u, NULL);
            counting = false;
            assert_int_equal(rc, 0);
            assert_true(peak >= (int64_t)predicted && unroll_bytes(u) == predicted);
            kept += unroll_view(u).n_kept > 0;
            judged += predicted > 4 << 20; /* below that, the plans' own 60 kB may be more than 2 % */
            if (predicted > 4 << 20 && (double)peak > 1.02 * (double)predicted) {
                randnet_print(&n);
                fail_msg("seed %d, mode %d: %llu bytes predicted, %lld allocated", (int)seed, mode, (unsigned long long)predicted, (long long)peak);
            }
            unroll_free(u);
            net_fini(&n);
        }
    assert_true(kept >= 60 && judged >= 80);
}

static void a_plan_takes_the_same_room_on_every_machine(void **state)
{
    (void)state;
    static const char *const isa[] = { "portable", "avx2", "avx512", "neon" };
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct net n;
        uint64_t first = 0, bytes;
        randnet(&n, seed, seed % 2 ? &randnet_small : &randnet_wide);
        const struct unroll_cfg c = { .learner = &n, .dtype = ENG_F32, .T = 3, .B = 2 + (int)(seed % 7), .meta_batch = 5, .want_dx = true, .inner = inner_default() };
        for (size_t i = 0; i < sizeof isa / sizeof isa[0]; i++) {
            if (eng_init(isa[i], NULL) < 0)
                continue;
            assert_int_equal(unroll_predict(&c, &bytes, NULL), 0);
            first = first ? first : bytes;
            assert_int_equal(bytes, first);
        }
        net_fini(&n);
    }
    assert_int_equal(eng_init(NULL, NULL), 0);
}

/* ---- the leaky ReLU's mask ---- */

static void a_leaky_relu_goes_back_by_the_sign_of_its_input(void **state)
{
    (void)state;
    const float  x[] = { 0.0f, -0.0f, 1.0f, -1.0f, INFINITY, -INFINITY, NAN, 1e-30f, -1e-30f, 1e-40f, -1e-40f, 3e38f, -3e38f };
    const double slopes[] = { 0, -0.0, 1e-30, 0.01, 1, 2, -0.5 };
    enum { N = sizeof x / sizeof x[0] };
    const struct op_rules *rules = &eng_kernels(ENG_F32)->op[OP_LRELU];
    for (size_t s = 0; s < sizeof slopes / sizeof slopes[0]; s++) {
        const float slope = (float)slopes[s];
        float in[N], y[N], yd[N], gx[N], gxd[N], one[N];
        memcpy(in, x, sizeof x);
        for (int i = 0; i < N; i++)
            one[i] = 1;
        struct op_call c = { .batch = 1, .n_in = 1, .at.slope = slopes[s], .in[0] = { .val = in, .dot = one, .adj = gx, .adj_dot = gxd, .s = { N, 1, 1, true } },
                             .out = { .val = y, .dot = yd, .adj = one, .adj_dot = one, .s = { N, 1, 1, true } } };
        rules->dual_forward(&c);
        if (slopes[s] >= 0)
            memset(in, 0x7f, sizeof in); /* nobody keeps it */
        rules->dual_backward(&c);
        for (int i = 0; i < N; i++) {
            const float mask = x[i] > 0 ? 1 : slope; /* under the same flushing of denormals as the kernel */
            assert_true(yd[i] == mask && gx[i] == mask && gxd[i] == mask);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_computed_again_has_the_same_bits),
        cmocka_unit_test(a_separable_cell_keeps_what_its_products_and_norms_made),
        cmocka_unit_test(the_budget_shows_in_the_memory_alone),
        cmocka_unit_test(the_predicted_memory_is_what_is_allocated),
        cmocka_unit_test(a_plan_takes_the_same_room_on_every_machine),
        cmocka_unit_test(a_leaky_relu_goes_back_by_the_sign_of_its_input),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
