/* Denormal numbers are flushed to zero in every thread that computes, so that no result depends on which thread it was. A
 * denormal would cost a hundred cycles an operation, too: late in a training that converges, most of its time. */
#include "tests/support/learnable.h"
#include "worker/engine/engine.h"
#include "worker/engine/op.h"
#include "worker/par.h"

#include <float.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <cmocka.h>

enum { THREADS = 4 };

/* How a thread is before anybody has told it; new threads take it from the one that starts them. */
static void denormals_on(void)
{
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() & ~0x8040u);
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr & ~(UINT64_C(1) << 24)));
#else
    skip();
#endif
}

/* Results and arguments, float and double. */
static bool flushes(void)
{
    volatile float f = FLT_MIN, denormal = 1e-45F;
    volatile double d = DBL_MIN;
    f = f * 0.5F;
    d = d * 0.5;
    denormal = denormal * 1e30F;
    return f == 0 && d == 0 && denormal == 0;
}

struct seen { pthread_barrier_t all; bool flushed[THREADS]; };

/* Nobody leaves before every thread has an item. */
static void look(void *arg, int item, int thread)
{
    struct seen *s = arg;
    (void)item;
    s->flushed[thread] = flushes();
    pthread_barrier_wait(&s->all);
}

static void expect_all(struct seen *s)
{
    for (int i = 0; i < THREADS; i++)
        assert_true(s->flushed[i]);
    memset(s->flushed, 0, sizeof s->flushed);
}

static void every_thread_that_computes_flushes(void **state)
{
    (void)state;
    struct seen s = { .flushed = { false } };
    struct eng_pool *pool;
    pthread_barrier_init(&s.all, NULL, THREADS);
    denormals_on();
    assert_false(flushes());
    assert_int_equal(eng_pool_new(THREADS, &pool, NULL), 0); /* its helpers start from here, with denormals on */
    assert_int_equal(eng_init(NULL, NULL), 0);
    assert_true(flushes());
    eng_pool_for(pool, THREADS, look, &s);
    expect_all(&s);
    eng_pool_free(pool);
    denormals_on();
    par_run(THREADS, THREADS, look, &s);
    expect_all(&s);
    pthread_barrier_destroy(&s.all);
}

/* ---- a training whose numbers are near the edge ---- */

struct tiny {
    struct net net;
    struct unroll_cfg cfg;
    struct unroll_in in;
    struct unroll_meta meta;
    float *w0, *x, *y;
    double lr[3], mu[3];
    float *dw0, *dx;     /* of one run */
    size_t P, X;
};

static float *alternating(size_t n, float scale)
{
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = scale * ((float)(i % 11) - 5.3F);
    return p;
}

/* conv, leaky ReLU, linear with weights of 1e-20: products and gradients fall below 1e-38, and are scaled up again. */
static void tiny_init(struct tiny *t)
{
    memset(t, 0, sizeof *t);
    assert_int_equal(net_init(&t->net, 2, 6, 6, NULL), 0);
    int x = net_lrelu(&t->net, net_conv(&t->net, 0, 5, 3, 1, 1, NULL, NULL), 0.1, NULL, NULL);
    x = net_bn(&t->net, net_conv(&t->net, x, 4, 3, 1, 1, NULL, NULL), false, NULL, NULL);
    assert_true(net_linear(&t->net, net_unary(&t->net, NET_GAP, x, NULL, NULL), 3, NULL, NULL) > 0);
    t->P = (size_t)t->net.param_count;
    t->X = 3 * 8 * 72;
    t->w0 = alternating(t->P, 0.1F);
    for (uint64_t i = 0; i < t->net.param[0].size; i++)
        t->w0[i] *= 1e-20F;
    for (uint64_t i = 0; i < t->net.param[1].size; i++)
        t->w0[t->net.param[1].offset + i] *= 1e-18F;
    for (uint64_t i = 0; i < t->net.param[2].size; i++)
        t->w0[t->net.param[2].offset + i] = 1e30F; /* the gain of the batch norm */
    t->x = alternating(t->X, 0.2F);
    t->y = alternating(3 * 8 * 3, 0.3F);
    t->dw0 = alternating(t->P, 0);
    t->dx = alternating(t->X, 0);
    for (int i = 0; i < 3; i++) {
        t->lr[i] = 1e-30; /* the gradient of weights of 1e-18 is 1e12 */
        t->mu[i] = 0.5;
    }
    t->meta = (struct unroll_meta){ .step = 3, .weight = 1, .x = t->x, .y = t->y };
    t->in = (struct unroll_in){ t->w0, t->x, t->y, t->lr, t->mu, &t->meta, 1 };
    t->cfg = (struct unroll_cfg){ .learner = &t->net, .dtype = ENG_F32, .T = 3, .B = 8, .meta_batch = 8, .want_dx = true,
                                  .inner = inner_default() };
}

static void tiny_fini(struct tiny *t)
{
    float *all[] = { t->w0, t->x, t->y, t->dw0, t->dx };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    net_fini(&t->net);
}

static void tiny_run(struct tiny *t, int threads)
{
    struct unroll *u;
    struct eng_pool *pool;
    struct unroll_out out = { .dw0 = t->dw0, .dx = t->dx };
    struct errbuf e = { 0 };
    assert_int_equal(unroll_new(&t->cfg, &u, NULL), 0);
    assert_int_equal(eng_pool_new(threads, &pool, NULL), 0);
    unroll_set_pool(u, pool);
    if (unroll_meta_grad(u, &t->in, &out, &e) < 0)
        fail_msg("%s", e.text);
    unroll_free(u);
    eng_pool_free(pool);
}

struct elsewhere { struct tiny *t; bool init; };

static void *run_elsewhere(void *arg)
{
    struct elsewhere *e = arg;
    denormals_on();
    if (e->init)
        eng_thread_init();
    tiny_run(e->t, 1);
    return NULL;
}

static bool same(const struct tiny *a, const struct tiny *b)
{
    return memcmp(a->dw0, b->dw0, a->P * sizeof(float)) == 0 && memcmp(a->dx, b->dx, a->X * sizeof(float)) == 0;
}

static void results_do_not_depend_on_the_thread(void **state)
{
    (void)state;
    static const char *const isas[] = { "portable", "avx2", "avx512", "neon" };
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        struct tiny here, there;
        pthread_t thread;
        if (eng_init(isas[i], NULL) < 0)
            continue;
        tiny_init(&here);
        tiny_init(&there);
        tiny_run(&here, 1);
        for (int threads = 2; threads <= 7; threads += 5) {
            tiny_run(&there, threads);
            assert_true(same(&here, &there));
        }
        for (int init = 1; init >= 0; init--) {
            struct elsewhere e = { &there, init };
            assert_int_equal(pthread_create(&thread, NULL, run_elsewhere, &e), 0);
            pthread_join(thread, NULL);
            assert_int_equal(same(&here, &there), init); /* without it the bits are others: the case is one that matters */
        }
        tiny_fini(&here);
        tiny_fini(&there);
    }
    assert_int_equal(eng_init(NULL, NULL), 0);
}

/* ---- a whole trial ---- */

static void *score_elsewhere(void *arg)
{
    struct desk *d = arg;
    struct task t = { .kind = TASK_SCORE };
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    snprintf(t.score.space, sizeof t.score.space, "chain");
    snprintf(t.score.arch, sizeof t.score.arch, "bn relu | c8k3 | max2 c12k3 | flat");
    memcpy(t.score.dataset, d->hash[0], sizeof d->hash[0]);
    memcpy(t.score.curriculum, d->hash[1], sizeof d->hash[1]);
    t.score.fidelity = (struct fidelity){ .inits = 1, .valid_images = 20 };
    denormals_on();
    if (task_score(&t, &d->env, &r, &e) < 0 || !flushes())
        return NULL;
    return d;
}

static void a_task_flushes_on_whatever_thread_it_runs(void **state)
{
    struct tmp *t = *state;
    const char *data = tmp_path(t, "data.st"), *lessons = tmp_path(t, "lessons.st");
    struct desk d;
    hash_str h;
    pthread_t thread;
    void *done;
    assert_int_equal(eng_init(NULL, NULL), 0);
    desk_init(&d, t, 1);
    learnable_write(data, h);
    desk_add(&d, h, data);
    learnable_curriculum(data, lessons, 2, 8, 0.1, h);
    desk_add(&d, h, lessons);
    assert_int_equal(pthread_create(&thread, NULL, score_elsewhere, &d), 0);
    pthread_join(thread, &done);
    assert_ptr_equal(done, &d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_that_computes_flushes),
        cmocka_unit_test(results_do_not_depend_on_the_thread),
        cmocka_unit_test_setup_teardown(a_task_flushes_on_whatever_thread_it_runs, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
