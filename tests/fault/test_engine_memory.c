/* Who allocates, and what happens where nothing is left. */
#include "worker/engine/engine.h"

#include "tests/support/randnet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- who allocates ----
 * The C library's allocator, counted while `counting`, and made to fail at one call: these definitions come before the
 * shared library's. The sanitizers bring an allocator of their own, and there is nothing to count then. */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CAN_COUNT 0
#else
#define CAN_COUNT 1
#endif

static atomic_bool counting;
static atomic_int  allocations;
static int         fail_at = -1; /* which allocation, counted from 0 */

#if CAN_COUNT
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static bool passes(void) { return !counting || allocations++ != fail_at; }
void *malloc(size_t n) { return passes() ? __libc_malloc(n) : NULL; }
void *calloc(size_t n, size_t size) { return passes() ? __libc_calloc(n, size) : NULL; }
void *realloc(void *p, size_t n) { return passes() ? __libc_realloc(p, n) : NULL; }
void *aligned_alloc(size_t align, size_t n) { return passes() ? __libc_memalign(align, n) : NULL; }
void *memalign(size_t align, size_t n) { return passes() ? __libc_memalign(align, n) : NULL; }
#endif

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

struct stop { int n; };
static bool keep_going(void *arg, int t, const void *w, double loss)
{
    (void)t;
    (void)w;
    (void)loss;
    ((struct stop *)arg)->n++;
    return true;
}

static void nothing_is_allocated_inside_a_step(void **state)
{
    (void)state;
    if (!CAN_COUNT) {
        print_message("the allocator is a sanitizer's\n");
        skip();
    }
    struct eng_pool *pool;
    assert_int_equal(eng_pool_new(3, &pool, NULL), 0);
    allocations = 0;
    counting = true;
    void *volatile probe = calloc(3, 5); /* the counter counts */
    free(probe);
    counting = false;
    assert_true(allocations > 0);
    for (uint64_t seed = 1; seed <= 25; seed++) {
        struct randrun r;
        struct unroll *u;
        struct eng_plan *p;
        struct stop s = { 0 };
        randrun_init(&r, seed, &randnet_small);
        r.cfg.budget_bytes = seed % 2 ? UINT64_MAX / 2 : 0; /* every step keeps, none does */
        size_t B = (size_t)r.cfg.B, T = (size_t)r.cfg.T, TB = T * B;
        assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
        assert_int_equal(eng_plan_new(&r.net, r.cfg.B, ENG_F64, ENG_TANGENT | ENG_INPUT_GRAD | ENG_RUNNING, &p, NULL), 0);
        unroll_set_pool(u, pool);
        eng_plan_set_pool(p, pool);
        double *dw = zeros(r.P), *dx = zeros(TB * r.image), *dy = zeros(TB * r.K), *rates = zeros(2 * T), *logits = zeros(B * r.K);
        struct unroll_out out = { .dw0 = dw, .dx = dx, .dy = dy, .dlr = rates, .dmu = rates + T };
        allocations = 0;
        counting = true;
        eng_forward(p, r.w0, r.x, logits);
        eng_loss(p, logits, r.y);
        eng_backward(p, r.w0, r.x, r.y, dw, dx);
        eng_grad(p, r.w0, r.x, r.y, dw, dx);
        eng_tangent(p, r.w0, r.x, r.y, r.w0, dw, dx, dy, NULL);
        int rc = unroll_meta_grad(u, &r.in, &out, NULL);
        int rc2 = unroll_train(u, &r.in, NULL, dw, keep_going, &s, NULL, NULL);
        counting = false;
        assert_int_equal(rc, 0);
        assert_int_equal(rc2, 0);
        assert_int_equal(s.n, r.cfg.T);
        assert_int_equal(allocations, 0);
        double *all[] = { dw, dx, dy, rates, logits };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            free(all[i]);
        unroll_free(u);
        eng_plan_free(p);
        randrun_fini(&r);
    }
    eng_pool_free(pool);
}

enum { MAKE_PLAN, MAKE_UNROLL, MAKE_KEEPING, PREDICT, MAKE_POOL, N_MAKES };

static int make(int what, struct randrun *r, void **out)
{
    struct errbuf e = { 0 };
    uint64_t bytes;
    r->cfg.budget_bytes = what == MAKE_KEEPING ? UINT64_MAX / 2 : 0;
    switch (what) {
    case MAKE_PLAN: return eng_plan_new(&r->net, r->cfg.B, ENG_F64, ENG_TANGENT | ENG_RUNNING, (struct eng_plan **)out, &e);
    case MAKE_UNROLL:
    case MAKE_KEEPING: return unroll_new(&r->cfg, (struct unroll **)out, &e);
    case PREDICT: return unroll_predict(&r->cfg, &bytes, &e);
    default: return eng_pool_new(2, (struct eng_pool **)out, &e);
    }
}

/* Use it, and let it go. g [P]: what it computes, zero where it computes nothing. */
static void use(int what, struct randrun *r, void *made, double *g)
{
    memset(g, 0, r->P * sizeof *g);
    if (what == MAKE_PLAN) {
        eng_grad(made, r->w0, r->x, r->y, g, NULL);
        eng_plan_free(made);
    } else if (what == MAKE_UNROLL || what == MAKE_KEEPING) {
        struct unroll_out out = { .dw0 = g };
        assert_int_equal(unroll_meta_grad(made, &r->in, &out, NULL), 0);
        unroll_free(made);
    } else if (what == MAKE_POOL)
        eng_pool_free(made);
}

static bool has(const struct net *n, enum net_op op)
{
    for (int i = 0; i < n->n_nodes; i++)
        if (n->node[i].op == op)
            return true;
    return false;
}

/* The n-th allocation fails, for every n: an error, or (qsort can do without) an object as good as any. */
static void running_out_of_memory_is_an_error_wherever_it_happens(void **state)
{
    (void)state;
    if (!CAN_COUNT) {
        print_message("the allocator is a sanitizer's\n");
        skip();
    }
    struct randrun r;
    uint64_t seed = 1; /* a network whose adjoints are added up */
    for (randrun_init(&r, seed, &randnet_small); !has(&r.net, NET_ADD); randrun_init(&r, ++seed, &randnet_small))
        randrun_fini(&r);
    double *g = zeros(r.P), *expected = zeros(r.P);
    for (int what = 0; what < N_MAKES; what++) {
        void *made = NULL;
        int refused = 0;
        assert_int_equal(make(what, &r, &made), 0);
        use(what, &r, made, expected);
        bool reached = true;
        for (int n = 0; reached; n++) {
            made = NULL;
            allocations = 0;
            fail_at = n;
            counting = true;
            int rc = make(what, &r, &made);
            counting = false;
            fail_at = -1;
            reached = allocations > n;
            refused += rc != 0;
            if (rc == 0) {
                use(what, &r, made, g);
                assert_memory_equal(g, expected, r.P * sizeof *g);
            } else {
                assert_int_equal(rc, -ERR_NOMEM);
                assert_null(made);
            }
        }
        assert_true(refused >= 3);
    }
    free(g);
    free(expected);
    randrun_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_allocated_inside_a_step),
        cmocka_unit_test(running_out_of_memory_is_an_error_wherever_it_happens),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
