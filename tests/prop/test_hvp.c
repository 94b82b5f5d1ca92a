/* The tangent pass on random networks in double: the Hessian is symmetric, it is the derivative of eng_grad, and the
 * mixed derivatives in x and y are the ones of <grad_w l, u>. Differences are Richardson's, taken at two steps: where these
 * disagree the step crosses a kink, another is tried, and what no step serves is counted.
 * HVP_NETS=N sets how many networks; a failure prints its seed, HVP_SEED=S runs that one alone. */
#include "tests/support/randnet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NETS = 800 };

struct bench {
    uint64_t         seed;
    struct net       net;
    struct eng_plan *plan;
    struct rng       r;
    size_t           P, X, Y;
    int              B, K;
    double          *w, *x, *y, *u, *v;        /* the point, two directions */
    double          *hu, *hv, *xu, *yu, *g, *gx;
    double           loss;
};

struct tally { int checked, left_out; double worst; };

static double *zeros(size_t n)
{
    double *p = calloc(n ? n : 1, sizeof *p);
    assert_non_null(p);
    return p;
}

static double dot(size_t n, const double *a, const double *b) { return eng_dot(ENG_F64, n, a, b); }
static double norm(size_t n, const double *a) { return sqrt(dot(n, a, a)); }

static void bench_init(struct bench *b, uint64_t seed)
{
    struct errbuf e = { 0 };
    memset(b, 0, sizeof *b);
    b->seed = seed;
    randnet(&b->net, seed, &randnet_small);
    rng_init(&b->r, seed, RNG_TEST, 3);
    b->B = 2 + (int)rng_below(&b->r, 5);
    b->K = b->net.node[b->net.out].shape.c;
    assert_int_equal(eng_plan_new(&b->net, b->B, ENG_F64, ENG_TANGENT | ENG_INPUT_GRAD, &b->plan, &e), 0);
    const struct net_shape in = b->net.node[0].shape;
    b->P = (size_t)b->net.param_count;
    b->X = (size_t)b->B * (size_t)(in.c * in.h * in.w);
    b->Y = (size_t)b->B * (size_t)b->K;
    b->w = rand_weights(&b->r, ENG_F64, &b->net);
    b->x = rand_normal(&b->r, ENG_F64, b->X, 1);
    b->y = rand_labels(&b->r, ENG_F64, (size_t)b->B, b->K, rng_below(&b->r, 2));
    b->u = rand_normal(&b->r, ENG_F64, b->P, 1);
    b->v = rand_normal(&b->r, ENG_F64, b->P, 1);
    b->hu = zeros(b->P);
    b->hv = zeros(b->P);
    b->g = zeros(b->P);
    b->xu = zeros(b->X);
    b->gx = zeros(b->X);
    b->yu = zeros(b->Y);
    double len = norm(b->P, b->u);
    for (size_t i = 0; i < b->P; i++)
        b->u[i] /= len;
    b->loss = eng_grad(b->plan, b->w, b->x, b->y, b->g, b->gx);
    eng_tangent(b->plan, b->w, b->x, b->y, b->u, b->hu, b->xu, b->yu, NULL);
}

static void bench_fini(struct bench *b)
{
    double *all[] = { b->w, b->x, b->y, b->u, b->v, b->hu, b->hv, b->xu, b->yu, b->g, b->gx };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    eng_plan_free(b->plan);
    net_fini(&b->net);
}

static void on_every_net(void (*check)(struct bench *b, struct tally *t), int left_out_percent)
{
    const char *nets = getenv("HVP_NETS"), *one = getenv("HVP_SEED");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, n = one ? 1 : nets ? strtoull(nets, NULL, 10) : NETS;
    struct tally t = { 0 };
    assert_int_equal(eng_init(NULL, NULL), 0);
    for (uint64_t seed = first; seed < first + n; seed++) {
        struct bench b;
        bench_init(&b, seed);
        if (one)
            randnet_print(&b.net);
        check(&b, &t);
        bench_fini(&b);
    }
    if (left_out_percent)
        print_message("%d checked, %d left out, worst relative error %.2g\n", t.checked, t.left_out, t.worst);
    assert_true(t.left_out * 100 <= t.checked * left_out_percent);
}

static void near(struct bench *b, const char *what, double got, double expected, double scale, double tolerance)
{
    if (fabs(got - expected) <= tolerance * fmax(fabs(expected), scale)) /* false for NaN */
        return;
    randnet_print(&b->net);
    fail_msg("HVP_SEED=%llu: %s is %.15g, expected %.15g (scale %.3g)", (unsigned long long)b->seed, what, got, expected, scale);
}

/* ---- exact properties ---- */

static void symmetric(struct bench *b, struct tally *t)
{
    (void)t;
    eng_tangent(b->plan, b->w, b->x, b->y, b->v, b->hv, NULL, NULL, NULL);
    /* what rounding may cost is measured by the terms of the products, not by their difference */
    double scale = 1e-2 * fmax(norm(b->P, b->u) * norm(b->P, b->hv), norm(b->P, b->v) * norm(b->P, b->hu));
    near(b, "u.Hv", dot(b->P, b->u, b->hv), dot(b->P, b->v, b->hu), fmax(scale, 1e-9), 1e-10);
}

static void linear_in_the_direction(struct bench *b, struct tally *t)
{
    (void)t;
    double *s = zeros(b->P), *hs = zeros(b->P), *xv = zeros(b->X), *xs = zeros(b->X);
    eng_tangent(b->plan, b->w, b->x, b->y, b->v, b->hv, xv, NULL, NULL);
    for (size_t i = 0; i < b->P; i++)
        s[i] = 0.5 * b->u[i] - 2 * b->v[i];
    eng_tangent(b->plan, b->w, b->x, b->y, s, hs, xs, NULL, NULL);
    double top = fmax(norm(b->P, b->hv), 1e-2), topx = fmax(norm(b->X, xv), 1e-2);
    for (size_t i = 0; i < b->P; i++)
        near(b, "H(u/2 - 2v)", hs[i], 0.5 * b->hu[i] - 2 * b->hv[i], top, 1e-10);
    for (size_t i = 0; i < b->X; i++)
        near(b, "the same in x", xs[i], 0.5 * b->xu[i] - 2 * xv[i], topx, 1e-10);
    free(s);
    free(hs);
    free(xv);
    free(xs);
}

static void same_gradient(struct bench *b, struct tally *t)
{
    (void)t;
    double *g = zeros(b->P);
    double loss = eng_tangent(b->plan, b->w, b->x, b->y, b->u, b->hu, b->xu, b->yu, g);
    assert_true(loss == b->loss);
    if (memcmp(g, b->g, b->P * sizeof *g) != 0)
        fail_msg("HVP_SEED=%llu: the gradient of a tangent pass has other bits", (unsigned long long)b->seed);
    free(g);
}

/* A pass that does not want x's or y's derivatives, and a plan that has no room for them, give the same H u. */
static void same_without_the_rest(struct bench *b, struct tally *t)
{
    (void)t;
    struct eng_plan *p;
    double *hu = zeros(b->P), *g = zeros(b->P);
    eng_tangent(b->plan, b->w, b->x, b->y, b->u, hu, NULL, NULL, NULL);
    assert_memory_equal(hu, b->hu, b->P * sizeof *hu);
    assert_int_equal(eng_plan_new(&b->net, b->B, ENG_F64, ENG_TANGENT, &p, NULL), 0);
    eng_tangent(p, b->w, b->x, b->y, b->u, hu, NULL, NULL, NULL);
    assert_memory_equal(hu, b->hu, b->P * sizeof *hu);
    eng_grad(p, b->w, b->x, b->y, g, NULL);
    assert_memory_equal(g, b->g, b->P * sizeof *g);
    eng_plan_free(p);
    assert_int_equal(eng_plan_new(&b->net, b->B, ENG_F64, ENG_GRAD, &p, NULL), 0);
    memset(g, 0, b->P * sizeof *g);
    eng_grad(p, b->w, b->x, b->y, g, NULL);
    assert_memory_equal(g, b->g, b->P * sizeof *g);
    eng_plan_free(p);
    free(hu);
    free(g);
}

/* g is linear in y, so a difference of any length is the derivative. */
static void labels(struct bench *b, struct tally *t)
{
    (void)t;
    double *y2 = zeros(b->Y), *g2 = zeros(b->P), *dy = rand_normal(&b->r, ENG_F64, b->Y, 1);
    for (size_t i = 0; i < b->Y; i++)
        y2[i] = b->y[i] + dy[i];
    eng_grad(b->plan, b->w, b->x, y2, g2, NULL);
    double expected = dot(b->P, g2, b->u) - dot(b->P, b->g, b->u);
    near(b, "yu along a direction", dot(b->Y, b->yu, dy), expected, 1e-2 * norm(b->P, g2) + 1e-9, 1e-10);
    free(y2);
    free(g2);
    free(dy);
}

/* eng_forward and eng_backward with the loss's own adjoint are eng_grad; and backward is linear. */
static void backward_is_linear_and_gives_the_gradient(struct bench *b, struct tally *t)
{
    (void)t;
    double *s = zeros(b->Y), *a1 = zeros(b->Y), *a2 = rand_normal(&b->r, ENG_F64, b->Y, 1), *a3 = zeros(b->Y);
    double *g[3], *gx[3], *adj[3] = { a1, a2, a3 };
    eng_forward(b->plan, b->w, b->x, s);
    for (int i = 0; i < b->B; i++) {
        double *si = s + i * b->K, z = 0, sy = 0;
        for (int k = 0; k < b->K; k++) {
            z += exp(si[k]);
            sy += b->y[i * b->K + k];
        }
        for (int k = 0; k < b->K; k++)
            a1[i * b->K + k] = (exp(si[k]) / z * sy - b->y[i * b->K + k]) / b->B;
    }
    for (size_t i = 0; i < b->Y; i++)
        a3[i] = 3 * a1[i] - 0.25 * a2[i];
    for (int i = 0; i < 3; i++) {
        g[i] = zeros(b->P);
        gx[i] = zeros(b->X);
        eng_forward(b->plan, b->w, b->x, NULL);
        eng_backward(b->plan, b->w, b->x, adj[i], g[i], gx[i]);
    }
    /* 1e-2: a batch norm may cancel all but rounding of what comes back through it */
    double top = norm(b->P, b->g) + norm(b->P, g[1]) + 1e-2, topx = norm(b->X, b->gx) + norm(b->X, gx[1]) + 1e-2;
    for (size_t i = 0; i < b->P; i++) {
        near(b, "the gradient through eng_backward", g[0][i], b->g[i], top, 1e-10);
        near(b, "backward of a sum", g[2][i], 3 * g[0][i] - 0.25 * g[1][i], top, 1e-10);
    }
    for (size_t i = 0; i < b->X; i++) {
        near(b, "the input's gradient through eng_backward", gx[0][i], b->gx[i], topx, 1e-10);
        near(b, "backward of a sum, in x", gx[2][i], 3 * gx[0][i] - 0.25 * gx[1][i], topx, 1e-10);
    }
    double *all[] = { s, a1, a2, a3, g[0], g[1], g[2], gx[0], gx[1], gx[2] };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void the_hessian_is_symmetric(void **s) { (void)s; on_every_net(symmetric, 0); }
static void a_tangent_pass_is_linear_in_its_direction(void **s) { (void)s; on_every_net(linear_in_the_direction, 0); }
static void the_gradient_of_a_tangent_pass_is_eng_grads(void **s) { (void)s; on_every_net(same_gradient, 0); }
static void smaller_plans_give_the_same_bits(void **s) { (void)s; on_every_net(same_without_the_rest, 0); }
static void the_label_derivative_is_exact(void **s) { (void)s; on_every_net(labels, 0); }
static void backward_is_linear_and_agrees_with_grad(void **s) { (void)s; on_every_net(backward_is_linear_and_gives_the_gradient, 0); }

/* ---- against differences ---- */

enum what { LOSS, GRADIENT, ALONG_U };

/* The quantity (one number, or the gradient [P]) with w or x moved by h d. */
static void evaluate(struct bench *b, enum what what, bool move_x, const double *d, double h, double *out)
{
    size_t n = move_x ? b->X : b->P;
    double *p = zeros(n), *g = zeros(b->P), *base = move_x ? b->x : b->w;
    for (size_t i = 0; i < n; i++)
        p[i] = base[i] + h * d[i];
    double loss = eng_grad(b->plan, move_x ? b->w : p, move_x ? p : b->x, b->y, g, NULL);
    if (what == GRADIENT)
        memcpy(out, g, b->P * sizeof *g);
    else
        *out = what == LOSS ? loss : dot(b->P, g, b->u);
    free(p);
    free(g);
}

static void difference(struct bench *b, enum what what, bool move_x, const double *d, double h, size_t n, double *out)
{
    double *lo = zeros(n);
    evaluate(b, what, move_x, d, h, out);
    evaluate(b, what, move_x, d, -h, lo);
    for (size_t i = 0; i < n; i++)
        out[i] = (out[i] - lo[i]) / (2 * h);
    free(lo);
}

static double gap(const double *a, const double *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(s);
}

/* got [n] against the derivative of `what` along d; size: of what is differentiated, for its rounding. */
static void agree(struct bench *b, struct tally *t, const char *name, enum what what, bool move_x, const double *d, const double *got, size_t n,
                  double size)
{
    static const double steps[] = { 1e-4, 1e-5, 1e-3, 2e-6 };
    const double tolerance = 1e-7, scale = fmax(norm(n, got), fmax(1e-3 * size, 1e-9));
    double *d1 = zeros(n), *d2 = zeros(n), *d4 = zeros(n);
    bool served = false;
    t->checked++;
    for (size_t k = 0; k < sizeof steps / sizeof steps[0] && !served; k++) {
        double h = steps[k];
        difference(b, what, move_x, d, h, n, d1);
        difference(b, what, move_x, d, h / 2, n, d2);
        difference(b, what, move_x, d, h / 4, n, d4);
        for (size_t i = 0; i < n; i++) {
            d1[i] = (4 * d2[i] - d1[i]) / 3;
            d4[i] = (4 * d4[i] - d2[i]) / 3;
        }
        served = gap(d1, d4, n) + 2e-15 * size / h < 0.3 * tolerance * scale;
    }
    double err = gap(got, d4, n) / scale;
    if (!served)
        t->left_out++;
    else {
        t->worst = fmax(t->worst, err);
        if (!(err <= tolerance)) {
            randnet_print(&b->net);
            fail_msg("HVP_SEED=%llu: %s differs from differences by %.3g", (unsigned long long)b->seed, name, err);
        }
    }
    free(d1);
    free(d2);
    free(d4);
}

static void first_order(struct bench *b, struct tally *t)
{
    double *d = rand_normal(&b->r, ENG_F64, b->X, 1), slope_w = dot(b->P, b->g, b->v), slope_x = dot(b->X, b->gx, d);
    double len_v = norm(b->P, b->v), len_d = norm(b->X, d);
    for (size_t i = 0; i < b->P; i++) b->v[i] /= len_v;
    for (size_t i = 0; i < b->X; i++) d[i] /= len_d;
    slope_w /= len_v;
    slope_x /= len_d;
    agree(b, t, "the gradient", LOSS, false, b->v, &slope_w, 1, fmax(b->loss, 1));
    agree(b, t, "the input's gradient", LOSS, true, d, &slope_x, 1, fmax(b->loss, 1));
    free(d);
}

static void second_order(struct bench *b, struct tally *t)
{
    double *d = rand_normal(&b->r, ENG_F64, b->X, 1), len = norm(b->X, d), mixed = dot(b->X, b->xu, d) / len;
    for (size_t i = 0; i < b->X; i++) d[i] /= len;
    agree(b, t, "H u", GRADIENT, false, b->u, b->hu, b->P, fmax(norm(b->P, b->g), 0.1));
    agree(b, t, "xu", ALONG_U, true, d, &mixed, 1, fmax(norm(b->P, b->g), 0.1));
    free(d);
}

static void gradients_are_differences_of_the_loss(void **s) { (void)s; on_every_net(first_order, 5); }
static void tangents_are_differences_of_the_gradient(void **s) { (void)s; on_every_net(second_order, 5); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hessian_is_symmetric),
        cmocka_unit_test(a_tangent_pass_is_linear_in_its_direction),
        cmocka_unit_test(the_gradient_of_a_tangent_pass_is_eng_grads),
        cmocka_unit_test(smaller_plans_give_the_same_bits),
        cmocka_unit_test(the_label_derivative_is_exact),
        cmocka_unit_test(backward_is_linear_and_agrees_with_grad),
        cmocka_unit_test(gradients_are_differences_of_the_loss),
        cmocka_unit_test(tangents_are_differences_of_the_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
