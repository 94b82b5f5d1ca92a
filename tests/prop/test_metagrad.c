/* Every meta-gradient of an unroll against the engine's own differences, on random networks in double.
 *
 * J is computed by plain inner training (unroll_train) and forward passes alone, so nothing of the way back is in it.
 * Along a unit direction, central differences at h, h/2, h/4 give two Richardson values; where they disagree the step
 * crosses a kink (ReLU, max pooling: J itself jumps there, since the inner gradient does) or h is too coarse, or so small
 * that J's rounding shows, and another h is tried. A direction on which no h serves is left out and counted.
 * METAGRAD_NETS=N sets how many networks, METAGRAD_SEED=S runs that one alone and prints it. */
#include "tests/support/randnet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NETS = 600, PARTS = 5 };
static const double TOLERANCE = 1e-7;

static const char *const part_name[PARTS] = { "dw0", "dx", "dy", "dlr", "dmu" };

struct bench {
    struct randrun   run;
    struct unroll   *u;
    struct eng_plan *real;
    double          *logits;
    size_t           n[PARTS];
    double          *at[PARTS], *grad[PARTS], *saved[PARTS]; /* the point, the answer, a copy of the point */
    double           J, J_seen, top;                         /* top: the largest gradient norm */
};

static bool on_step(void *arg, int t, const void *w, double loss)
{
    struct bench *b = arg;
    (void)loss;
    for (int i = 0; i < b->run.in.n_meta; i++) {
        const struct unroll_meta *m = &b->run.meta[i];
        if (m->step != t)
            continue;
        eng_forward(b->real, w, m->x, b->logits);
        b->J_seen += m->weight * eng_loss(b->real, b->logits, m->y);
    }
    return true;
}

static double J(struct bench *b)
{
    b->J_seen = 0;
    int rc = unroll_train(b->u, &b->run.in, NULL, NULL, on_step, b, NULL, NULL);
    return rc < 0 ? NAN : b->J_seen;
}

static void bench_init(struct bench *b, uint64_t seed)
{
    struct errbuf e = { 0 };
    memset(b, 0, sizeof *b);
    struct randrun *r = &b->run;
    randrun_init(r, seed, &randnet_small);
    const size_t T = (size_t)r->cfg.T, TB = T * (size_t)r->cfg.B;
    assert_int_equal(unroll_new(&r->cfg, &b->u, &e), 0);
    assert_int_equal(eng_plan_new(&r->net, r->cfg.meta_batch, ENG_F64, ENG_FORWARD, &b->real, &e), 0);
    b->logits = calloc((size_t)r->cfg.meta_batch * r->K, sizeof *b->logits);
    double *at[PARTS] = { r->w0, r->x, r->y, r->lr, r->mu };
    size_t   n[PARTS] = { r->P, TB * r->image, TB * r->K, T, T };
    for (int i = 0; i < PARTS; i++) {
        b->n[i] = n[i];
        b->at[i] = at[i];
        b->grad[i] = calloc(n[i], sizeof(double));
        b->saved[i] = malloc(n[i] * sizeof(double));
        assert_true(b->grad[i] && b->saved[i] && b->logits);
        memcpy(b->saved[i], at[i], n[i] * sizeof(double));
    }
}

static void bench_fini(struct bench *b)
{
    unroll_free(b->u);
    eng_plan_free(b->real);
    free(b->logits);
    for (int i = 0; i < PARTS; i++) {
        free(b->grad[i]);
        free(b->saved[i]);
    }
    randrun_fini(&b->run);
}

static double J_moved(struct bench *b, int part, const double *d, double h)
{
    for (size_t i = 0; i < b->n[part]; i++)
        b->at[part][i] = b->saved[part][i] + h * d[i];
    double j = J(b);
    memcpy(b->at[part], b->saved[part], b->n[part] * sizeof(double));
    return j;
}

static double difference(struct bench *b, int part, const double *d, double h)
{
    return (J_moved(b, part, d, h) - J_moved(b, part, d, -h)) / (2 * h);
}

struct tally { int checked, left_out, failed, nets, diverged; double worst; };

/* One unit direction of one part. */
static void check(struct bench *b, int part, const double *d, uint64_t seed, struct tally *t)
{
    static const double steps[] = { 1e-4, 1e-5, 1e-3, 2e-6, 1e-2 };
    double got = 0;
    for (size_t i = 0; i < b->n[part]; i++)
        got += b->grad[part][i] * d[i];
    const double scale = fmax(fmax(fabs(got), 1e-3 * b->top), 1e-12);
    t->checked++;
    for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
        double h = steps[k], d1 = difference(b, part, d, h), d2 = difference(b, part, d, h / 2), d4 = difference(b, part, d, h / 4);
        double coarse = (4 * d2 - d1) / 3, fine = (4 * d4 - d2) / 3;
        double rounding = 2e-15 * fmax(fabs(b->J), 1e-3) / h;
        if (!(fabs(coarse - fine) + rounding < 0.3 * TOLERANCE * scale))
            continue;
        double err = fabs(fine - got) / scale;
        t->worst = fmax(t->worst, err);
        if (err > TOLERANCE) {
            fprintf(stderr, "METAGRAD_SEED=%llu: %s is %.12g, differences give %.12g (h %g, relative %.3g)\n", (unsigned long long)seed,
                    part_name[part], got, fine, h, err);
            t->failed++;
        }
        return;
    }
    t->left_out++;
}

static void check_net(uint64_t seed, struct tally *t, bool print)
{
    struct bench b;
    struct errbuf e = { 0 };
    struct rng r;
    bench_init(&b, seed);
    if (print)
        randnet_print(&b.run.net);
    struct unroll_out out = { .dw0 = b.grad[0], .dx = b.grad[1], .dy = b.grad[2], .dlr = b.grad[3], .dmu = b.grad[4] };
    int rc = unroll_meta_grad(b.u, &b.run.in, &out, &e);
    t->nets++;
    if (rc < 0) { /* a random learning rate may be too much for a random network: nothing to compare */
        assert_int_equal(rc, -ERR_DIVERGED);
        t->diverged++;
        bench_fini(&b);
        return;
    }
    b.J = J(&b);
    if (!(fabs(out.meta_loss - b.J) <= 1e-12 * (1 + fabs(b.J)))) {
        fprintf(stderr, "METAGRAD_SEED=%llu: J is %.15g on the way there and back, %.15g by training\n", (unsigned long long)seed, out.meta_loss, b.J);
        t->failed++;
    }
    for (int i = 0; i < PARTS; i++)
        b.top = fmax(b.top, sqrt(eng_dot(ENG_F64, b.n[i], b.grad[i], b.grad[i])));
    rng_init(&r, seed, RNG_TEST, 2);
    for (int i = 0; i < PARTS; i++) {
        double *d = rand_normal(&r, ENG_F64, b.n[i], 1), len = sqrt(eng_dot(ENG_F64, b.n[i], d, d));
        for (size_t k = 0; k < b.n[i]; k++)
            d[k] /= len;
        check(&b, i, d, seed, t);
        for (int k = 0; k < 2; k++) {
            memset(d, 0, b.n[i] * sizeof *d);
            d[rng_below(&r, (uint32_t)b.n[i])] = 1;
            check(&b, i, d, seed, t);
        }
        free(d);
    }
    bench_fini(&b);
}

static void every_meta_gradient_agrees_with_differences(void **state)
{
    (void)state;
    const char *nets = getenv("METAGRAD_NETS"), *one = getenv("METAGRAD_SEED");
    struct tally t = { 0 };
    assert_int_equal(eng_init(NULL, NULL), 0);
    if (one)
        check_net(strtoull(one, NULL, 10), &t, true);
    else
        for (int i = 0, n = nets ? atoi(nets) : NETS; i < n; i++)
            check_net((uint64_t)i + 1, &t, false);
    print_message("%d networks (%d diverged), %d directions, %d left out, worst relative error %.2g\n", t.nets, t.diverged, t.checked,
                  t.left_out, t.worst);
    assert_int_equal(t.failed, 0);
    assert_true(t.nets > 0);
    assert_true(one || t.left_out * 100 < t.checked * 5);
    assert_true(one || t.diverged * 10 < t.nets + 9);
}

/* What the other test's networks are made of: if the generator stops drawing something, nothing checks it any more. */
static void the_generator_covers_the_vocabulary(void **state)
{
    (void)state;
    enum { GROUPED = NET_OP_COUNT, DEPTHWISE, STRIDED, DILATED, NORMED, MEAN_ONLY, WITH_BIAS, LINEAR_NORMED, LINEAR_BARE, TWICE,
           FLAT_NORM, POOL_OVERLAP, POOL_PADDED, POOL_GAPS, PAD_WIDE, MANY_ADDED, SEEN };
    int seen[SEEN] = { 0 };
    for (uint64_t seed = 1; seed <= NETS; seed++) {
        struct net n;
        randnet(&n, seed, &randnet_small);
        for (int i = 0; i < n.n_nodes; i++) {
            const struct net_node *l = &n.node[i];
            const struct net_attr *a = &l->at;
            const bool conv = l->op == NET_CONV, pool = l->op == NET_MAXPOOL || l->op == NET_AVGPOOL;
            const bool depthwise = conv && a->groups > 1 && a->groups == a->out && a->groups == n.node[l->in[0]].shape.c;
            seen[l->op]++;
            seen[DEPTHWISE] += depthwise;
            seen[GROUPED] += conv && a->groups > 1 && !depthwise;
            seen[STRIDED] += conv && a->stride > 1;
            seen[DILATED] += conv && a->dilation > 1 && a->k > 1;
            seen[PAD_WIDE] += conv && a->pad > (a->k - 1) * a->dilation;
            seen[NORMED] += conv && a->wn;
            seen[WITH_BIAS] += conv && a->bias;
            seen[LINEAR_NORMED] += l->op == NET_LINEAR && a->wn;
            seen[LINEAR_BARE] += l->op == NET_LINEAR && !a->bias;
            seen[MEAN_ONLY] += l->op == NET_BN && a->mean_only;
            seen[FLAT_NORM] += l->op == NET_BN && l->shape.flat;
            seen[TWICE] += l->op == NET_ADD && l->in[0] == l->in[1];
            seen[MANY_ADDED] += l->op == NET_ADD && l->n_in == 4;
            seen[POOL_OVERLAP] += pool && a->stride < a->k;
            seen[POOL_GAPS] += pool && a->stride > a->k;
            seen[POOL_PADDED] += pool && a->pad > 0;
        }
        net_fini(&n);
    }
    for (int i = 0; i < SEEN; i++)
        if (seen[i] < 3)
            fail_msg("feature %d (%s) is in %d of %d networks", i, i < NET_OP_COUNT ? net_op_name((enum net_op)i) : "a property", seen[i], NETS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generator_covers_the_vocabulary),
        cmocka_unit_test(every_meta_gradient_agrees_with_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
