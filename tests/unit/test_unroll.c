#include "worker/engine/engine.h"

#include "tests/support/randnet.h"

#include <float.h>
#include <jansson.h>
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

static void an_unroll_without_a_real_batch_has_no_way_back(void **state)
{
    (void)state;
    struct randrun r;
    struct unroll *u;
    struct unroll_out out = { 0 };
    struct errbuf e = { 0 };
    randrun_init(&r, 3, &randnet_small);
    int M = r.cfg.meta_batch;
    r.cfg.meta_batch = 0;
    assert_int_equal(unroll_new(&r.cfg, &u, &e), 0);
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), -ERR_INTERNAL);
    assert_int_equal(unroll_train(u, &r.in, NULL, NULL, NULL, NULL, NULL, &e), 0);
    unroll_free(u);
    r.cfg.meta_batch = M;
    assert_int_equal(unroll_new(&r.cfg, &u, &e), 0);
    for (int bad = 0; bad < 2; bad++) {
        r.meta[0].step = bad ? r.cfg.T + 1 : 0;
        assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), -ERR_INPUT);
    }
    unroll_free(u);
    randrun_fini(&r);
}

static void divergence_names_the_step(void **state)
{
    (void)state;
    struct randrun r;
    struct unroll *u;
    struct errbuf e = { 0 };
    for (uint64_t seed = 1;; seed++) { /* a network and an unroll of enough steps */
        randrun_init(&r, seed, &randnet_small);
        if (r.cfg.T >= 4)
            break;
        randrun_fini(&r);
    }
    double *losses = zeros((size_t)r.cfg.T);
    struct unroll_out out = { .inner_loss = losses, .failed_step = -1 };
    assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
    r.lr[2] = INFINITY;
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), -ERR_DIVERGED);
    assert_int_equal(out.failed_step, 2);
    assert_non_null(strstr(e.text, "step 3"));
    assert_true(isfinite(losses[2]));
    int failed = -1;
    assert_int_equal(unroll_train(u, &r.in, losses, NULL, NULL, NULL, &failed, &e), -ERR_DIVERGED);
    assert_int_equal(failed, 2);
    r.lr[2] = 0.1;
    double keep = r.x[(size_t)r.cfg.B * r.image + 1];
    r.x[(size_t)r.cfg.B * r.image + 1] = NAN; /* a pixel of step 1 (from 0) */
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), -ERR_DIVERGED);
    assert_int_equal(out.failed_step, 1);
    assert_non_null(strstr(e.text, ": the images"));
    r.x[(size_t)r.cfg.B * r.image + 1] = keep;
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), 0);
    r.meta[0].weight = INFINITY;
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), -ERR_DIVERGED);
    assert_non_null(strstr(e.text, "not finite in the real loss after step"));
    assert_non_null(strstr(e.text, "weighted gradient of"));
    r.meta[0].weight = 1;
    r.X[0][0] = NAN;
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, &e), -ERR_DIVERGED);
    free(losses);
    unroll_free(u);
    randrun_fini(&r);
}

/* ---- which op ---- */

enum { SIDE = 6, IN_CH = 2, CLASSES = 3, STEPS = 3, BATCH = 4, META = 5 };

/* A learner in float with every kind of rule, small positive weights and one parameter that the test may blow up. */
struct victim {
    struct net net;
    struct unroll_cfg cfg;
    struct unroll_in in;
    struct unroll_meta meta;
    struct unroll *u;
    float *w0, *x, *y, *X, *Y;
    double lr[STEPS], mu[STEPS];
};

static float *filled(size_t n, float least, float step)
{
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = least + step * (float)(i % 7);
    return p;
}

static void victim_init(struct victim *v, enum inner_type type)
{
    static const char layers[] = "[{\"type\":\"conv\",\"in\":2,\"out\":4,\"k\":3,\"pad\":1},{\"type\":\"bn\",\"c\":4},"
                                 "{\"type\":\"residual\",\"body\":[{\"type\":\"relu\"},{\"type\":\"dwconv\",\"c\":4,\"k\":3,\"pad\":1}]},"
                                 "{\"type\":\"gap\"},{\"type\":\"linear\",\"in\":4,\"out\":3}]";
    json_t *j = json_loads(layers, 0, NULL);
    struct errbuf e = { 0 };
    memset(v, 0, sizeof *v);
    assert_int_equal(net_init(&v->net, IN_CH, SIDE, SIDE, &e), 0);
    assert_int_equal(net_from_json(&v->net, j, "learner", &e), 0);
    json_decref(j);
    v->w0 = filled(v->net.param_count, 0.05F, 0.01F);
    v->x = filled((size_t)STEPS * BATCH * IN_CH * SIDE * SIDE, -0.5F, 0.17F);
    v->X = filled((size_t)META * IN_CH * SIDE * SIDE, -0.4F, 0.13F);
    v->y = filled((size_t)STEPS * BATCH * CLASSES, 0, 1.0F / 3);
    v->Y = filled((size_t)META * CLASSES, 0, 1.0F / 3);
    for (int t = 0; t < STEPS; t++) {
        v->lr[t] = 0.01;
        v->mu[t] = 0.5;
    }
    v->meta = (struct unroll_meta){ .step = STEPS, .weight = 1, .x = v->X, .y = v->Y };
    v->in = (struct unroll_in){ v->w0, v->x, v->y, v->lr, v->mu, &v->meta, 1 };
    v->cfg = (struct unroll_cfg){ .learner = &v->net, .dtype = ENG_F32, .T = STEPS, .B = BATCH, .meta_batch = META, .want_dx = true,
                                  .want_dy = true, .inner = inner_defaults(type) };
    assert_int_equal(unroll_new(&v->cfg, &v->u, &e), 0);
}

static void victim_fini(struct victim *v)
{
    float *all[] = { v->w0, v->x, v->y, v->X, v->Y };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    unroll_free(v->u);
    net_fini(&v->net);
}

static void set_param(struct victim *v, const char *name, float value)
{
    for (int i = 0; i < v->net.n_params; i++)
        if (strcmp(v->net.param[i].name, name) == 0) {
            for (uint64_t k = 0; k < v->net.param[i].size; k++)
                v->w0[v->net.param[i].offset + k] = value;
            return;
        }
    fail_msg("no parameter %s", name);
}

/* Both ways of training, or the meta-gradient alone (`trains`), end with this message. */
static void expect(struct victim *v, bool trains, int step, const char *message)
{
    float *dx = filled((size_t)STEPS * BATCH * IN_CH * SIDE * SIDE, 0, 0), *dy = filled((size_t)STEPS * BATCH * CLASSES, 0, 0);
    double dlr[STEPS], dmu[STEPS];
    struct unroll_out out = { .failed_step = -1, .dx = dx, .dy = dy, .dlr = dlr, .dmu = dmu };
    struct errbuf e = { 0 }, e2 = { 0 };
    int failed = -1;
    assert_int_equal(unroll_meta_grad(v->u, &v->in, &out, &e), -ERR_DIVERGED);
    assert_string_equal(e.text, message);
    assert_int_equal(out.failed_step, step);
    int rc = unroll_train(v->u, &v->in, NULL, NULL, NULL, NULL, &failed, &e2);
    assert_int_equal(rc, trains ? 0 : -ERR_DIVERGED);
    if (!trains) {
        assert_string_equal(e2.text, message);
        assert_int_equal(failed, step);
    }
    free(dx);
    free(dy);
}

static void divergence_forward_names_the_first_op(void **state)
{
    (void)state;
    static const struct { const char *param; float value; int step; const char *where; } rows[] = {
        { "0.weight", FLT_MAX, 1, "output of layer 0 (conv)" },
        { "1.weight", FLT_MAX, 1, "output of layer 1 (bn)" },
        { "2.body.1.weight", FLT_MAX, 1, "output of layer 2.body.1 (dwconv)" },
        { "4.weight", FLT_MAX, 2, "output of layer 4 (linear)" },
        { "2.body.1.weight", NAN, 1, "weight 2.body.1.weight" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct victim v;
        char message[160];
        victim_init(&v, INNER_SGD);
        set_param(&v, rows[i].param, rows[i].value);
        snprintf(message, sizeof message, "not finite at inner step %d of 3: %s", rows[i].step, rows[i].where);
        expect(&v, false, rows[i].step - 1, message);
        victim_fini(&v);
    }
}

static void divergence_at_a_later_step_names_that_step(void **state)
{
    (void)state;
    struct victim v;
    victim_init(&v, INNER_SGD);
    v.lr[0] = 1e37; /* the weights stay finite, their products do not */
    expect(&v, false, 1, "not finite at inner step 2 of 3: output of layer 2.body.1 (dwconv)");
    v.lr[0] = 0.01;
    v.lr[2] = INFINITY;
    expect(&v, false, 2, "not finite at inner step 3 of 3: sgd update (step size inf) of 0.weight");
    v.lr[2] = 0.01;
    v.y[BATCH * CLASSES] = NAN;
    expect(&v, false, 1, "not finite at inner step 2 of 3: the labels");
    victim_fini(&v);
}

static void divergence_of_the_loss_and_behind_it_is_named(void **state)
{
    (void)state;
    struct victim v;
    victim_init(&v, INNER_SGD);
    set_param(&v, "4.bias", 3e38F);
    v.w0[v.net.param_count - 1] = -3e38F; /* the logits are finite, their difference is not */
    expect(&v, false, 0, "not finite at inner step 1 of 3: the loss (softmax cross-entropy)");
    victim_fini(&v);

    victim_init(&v, INNER_SGD); /* small numbers forward, large weights backward */
    set_param(&v, "0.weight", 1e-30F);
    set_param(&v, "1.weight", 1e-30F);
    set_param(&v, "1.bias", 0);
    for (uint64_t i = 0; i < 12; i++)
        v.w0[v.net.param[4].offset + i] = i % 2 ? 1e38F : -1e38F;
    set_param(&v, "2.body.1.weight", 1e3F);
    expect(&v, false, 0, "not finite at inner step 1 of 3: gradient of layer 2.body.1 by its input (dwconv, backward)");
    victim_fini(&v);
}

/* The second moment of a large gradient is infinite where its step is still small: w - lr g / inf = w would hide it. */
static void an_overflowing_second_moment_is_seen(void **state)
{
    (void)state;
    struct victim v;
    victim_init(&v, INNER_ADAM);
    for (int i = 0; i < STEPS * BATCH * CLASSES; i++)
        v.y[i] *= i % 3 ? 1e22F : 0;
    expect(&v, false, 0, "not finite at inner step 1 of 3: adam update (step size 0.01) of 4.weight");
    victim_fini(&v);
}

static void divergence_of_the_real_loss_is_named(void **state)
{
    (void)state;
    struct victim v;
    victim_init(&v, INNER_SGD);
    v.X[3] = NAN;
    expect(&v, true, STEPS, "not finite in the real loss after step 3 of 3: the images");
    for (int i = 0; i < META * IN_CH * SIDE * SIDE; i++)
        v.X[i] = FLT_MAX;
    expect(&v, true, STEPS, "not finite in the real loss after step 3 of 3: output of layer 0 (conv)");
    for (int i = 0; i < META * IN_CH * SIDE * SIDE; i++)
        v.X[i] = 0.1F * (float)(i % 5);
    v.Y[1] = INFINITY;
    expect(&v, true, STEPS, "not finite in the real loss after step 3 of 3: the labels");
    v.Y[1] = 1;
    v.meta.weight = INFINITY;
    expect(&v, true, STEPS, "not finite in the real loss after step 3 of 3: weighted gradient of 0.weight");
    victim_fini(&v);
}

static void divergence_on_the_way_back_names_the_rule(void **state)
{
    (void)state;
    struct victim v;
    victim_init(&v, INNER_SGD);
    v.meta.weight = 1e37; /* a finite adjoint whose products are not */
    for (int i = 2 * BATCH * IN_CH * SIDE * SIDE; i < 3 * BATCH * IN_CH * SIDE * SIDE; i++)
        v.x[i] *= 1e10F;
    expect(&v, true, STEPS - 1, "not finite on the way back through step 3 of 3: tangent of the output of layer 0 (conv, dual forward)");
    victim_fini(&v);
}

/* The walk that looks for the op leaves no trace: the same unroll then gives the same bits as a fresh one. */
static void an_unroll_works_on_after_a_divergence(void **state)
{
    (void)state;
    struct victim v, fresh;
    victim_init(&v, INNER_SGD);
    victim_init(&fresh, INNER_SGD);
    const float keep = v.x[0];
    v.x[0] = NAN;
    expect(&v, false, 0, "not finite at inner step 1 of 3: the images");
    v.x[0] = keep;
    float *a = filled(v.net.param_count, 0, 0), *b = filled(v.net.param_count, 0, 0);
    struct unroll_out oa = { .dw0 = a }, ob = { .dw0 = b };
    assert_int_equal(unroll_meta_grad(v.u, &v.in, &oa, NULL), 0);
    assert_int_equal(unroll_meta_grad(fresh.u, &fresh.in, &ob, NULL), 0);
    assert_memory_equal(a, b, v.net.param_count * sizeof *a);
    assert_true(oa.meta_loss == ob.meta_loss);
    free(a);
    free(b);
    victim_fini(&v);
    victim_fini(&fresh);
}

/* One linear layer without bias on one feature and two classes: l(w) with s = w x, all derivatives by hand. With q =
 * softmax(s)_1 - y_1 the gradient is (-q x, q x); one step of size lr gives w1 = w0 - lr g, and dJ/dlr = -<J'(w1), g>. */
static void one_softmax_step_has_its_derivatives(void **state)
{
    (void)state;
    struct net n;
    struct unroll *u;
    assert_int_equal(net_init(&n, 1, 0, 0, NULL), 0);
    net_add(&n, NET_LINEAR, (int[]){ 0 }, 1, &(struct net_attr){ .out = 2 }, NULL, NULL);
    struct unroll_cfg c = { .learner = &n, .dtype = ENG_F64, .T = 1, .B = 1, .meta_batch = 1, .want_dx = true, .want_dy = true, .inner = inner_default() };
    const double w0[] = { 0.3, -0.4 }, x = 1.7, y[] = { 0.25, 0.75 }, X = -0.6, Y[] = { 1, 0 }, lr = 0.8, mu = 0.5;
    struct unroll_meta m = { .step = 1, .weight = 1, .x = &X, .y = Y };
    struct unroll_in in = { w0, &x, y, &lr, &mu, &m, 1 };
    double dw[2], dx, dy[2], dlr, dmu, inner, wT[2], vT[2];
    struct unroll_out out = { .dw0 = dw, .dx = &dx, .dy = dy, .dlr = &dlr, .dmu = &dmu, .inner_loss = &inner, .wT = wT, .vT = vT };
    assert_int_equal(unroll_new(&c, &u, NULL), 0);
    assert_int_equal(unroll_meta_grad(u, &in, &out, NULL), 0);

    double p = 1 / (1 + exp((w0[0] - w0[1]) * x)), q = p - y[1], g[2] = { -q * x, q * x }; /* p: of class 1 */
    double w1[2] = { w0[0] - lr * g[0], w0[1] - lr * g[1] }, P = 1 / (1 + exp((w1[0] - w1[1]) * X)), a[2] = { -P * X, P * X };
    const double tiny = 1e-14;
    assert_true(fabs(inner + y[0] * log(1 - p) + y[1] * log(p)) < tiny);
    assert_true(fabs(out.meta_loss + log(1 - P)) < tiny);
    for (int i = 0; i < 2; i++) {
        assert_true(fabs(wT[i] - w1[i]) < tiny);
        assert_true(fabs(vT[i] - g[i]) < tiny);
    }
    assert_true(fabs(dlr + a[0] * g[0] + a[1] * g[1]) < tiny);
    assert_true(dmu == 0); /* the first velocity is zero */
    double h = p * (1 - p), ua = a[1] - a[0]; /* d q = h x (dw_1 - dw_0) + h (w_1 - w_0) dx - dy_1, with a sum of y that stays 1 */
    assert_true(fabs(dw[0] - (a[0] + lr * h * x * x * ua)) < tiny);
    assert_true(fabs(dw[1] - (a[1] - lr * h * x * x * ua)) < tiny);
    assert_true(fabs(dx + lr * ua * (q + x * h * (w0[1] - w0[0]))) < tiny);
    assert_true(fabs((dy[1] - dy[0]) - lr * ua * x) < tiny); /* along a change that keeps the sum */
    unroll_free(u);
    net_fini(&n);
}

/* The recurrences of common/inner.h, in a loop of its own around eng_grad. */
static void momentum_and_weight_decay_follow_their_recurrence(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct randrun r;
        struct unroll *u;
        struct eng_plan *p;
        randrun_init(&r, seed, &randnet_small);
        r.cfg.inner = inner_default();
        r.cfg.inner.type = seed % 2 ? INNER_SGD : INNER_LARS;
        r.cfg.inner.eps = 1e-3;
        r.cfg.inner.weight_decay = seed % 3 ? 0.03 : 0;
        const struct inner_cfg *c = &r.cfg.inner;
        const size_t B = (size_t)r.cfg.B;
        double *w = zeros(r.P), *v = zeros(r.P), *g = zeros(r.P), *wT = zeros(r.P), *vT = zeros(r.P), *w2 = zeros(r.P), losses[8];
        struct unroll_out out = { .wT = wT, .vT = vT, .inner_loss = losses };
        memcpy(w, r.w0, r.P * sizeof *w);
        assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
        assert_int_equal(eng_plan_new(&r.net, r.cfg.B, ENG_F64, ENG_GRAD, &p, NULL), 0);
        assert_int_equal(unroll_meta_grad(u, &r.in, &out, NULL), 0);
        assert_int_equal(unroll_train(u, &r.in, NULL, w2, NULL, NULL, NULL, NULL), 0);
        assert_memory_equal(w2, wT, r.P * sizeof *w2);
        for (int t = 0; t < r.cfg.T; t++) {
            double loss = eng_grad(p, w, r.x + (size_t)t * B * r.image, r.y + (size_t)t * B * r.K, g, NULL);
            if (!(fabs(loss - losses[t]) <= 1e-10 * (1 + fabs(loss))))
                fail_msg("seed %llu: the loss of step %d is %.15g, not %.15g", (unsigned long long)seed, t, losses[t], loss);
            for (int k = 0; k < r.net.n_params; k++) {
                const struct net_param *q = &r.net.param[k];
                double nw = 0, ng = 0, scale = 1;
                for (uint64_t i = q->offset; i < q->offset + q->size; i++) {
                    g[i] += c->weight_decay * w[i];
                    nw += w[i] * w[i];
                    ng += g[i] * g[i];
                }
                if (c->type == INNER_LARS)
                    scale = q->ndim >= 2 ? sqrt(nw) / (sqrt(ng) + c->eps) : c->scale_1d;
                for (uint64_t i = q->offset; i < q->offset + q->size; i++) {
                    v[i] = r.mu[t] * v[i] + scale * g[i];
                    w[i] -= r.lr[t] * v[i];
                }
            }
        }
        for (size_t i = 0; i < r.P; i++) {
            assert_true(fabs(w[i] - wT[i]) <= 1e-9 * (1 + fabs(w[i])));
            assert_true(fabs(v[i] - vT[i]) <= 1e-8 * (1 + fabs(v[i])));
        }
        double *all[] = { w, v, g, wT, vT, w2 };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            free(all[i]);
        unroll_free(u);
        eng_plan_free(p);
        randrun_fini(&r);
    }
}

static bool stop_at_two(void *arg, int t, const void *w, double loss)
{
    (void)w;
    *(double *)arg = loss;
    return t < 2;
}

static void training_stops_when_told(void **state)
{
    (void)state;
    struct randrun r;
    struct unroll *u, *two;
    uint64_t seed = 1;
    for (randrun_init(&r, seed, &randnet_small); r.cfg.T < 4; randrun_init(&r, ++seed, &randnet_small))
        randrun_fini(&r);
    double *a = zeros(r.P), *b = zeros(r.P), last = 0, losses[8] = { 0 };
    assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
    assert_int_equal(unroll_train(u, &r.in, losses, a, stop_at_two, &last, NULL, NULL), 0);
    assert_true(last == losses[1] && losses[2] == 0);
    r.cfg.T = 2;
    assert_int_equal(unroll_new(&r.cfg, &two, NULL), 0);
    assert_int_equal(unroll_train(two, &r.in, NULL, b, NULL, NULL, NULL, NULL), 0);
    assert_memory_equal(a, b, r.P * sizeof *a);
    free(a);
    free(b);
    unroll_free(u);
    unroll_free(two);
    randrun_fini(&r);
}

/* Logits of the real batch after the last step are the forward pass of w_T. */
static void the_real_batchs_logits_are_those_of_the_last_weights(void **state)
{
    (void)state;
    struct randrun r;
    struct unroll *u;
    struct eng_plan *p;
    randrun_init(&r, 9, &randnet_small);
    const size_t n = (size_t)r.cfg.meta_batch * r.K;
    double *wT = zeros(r.P), *a = zeros(n), *b = zeros(n);
    struct unroll_out out = { .wT = wT, .logits = a };
    r.in.n_meta = 1;
    assert_int_equal(unroll_new(&r.cfg, &u, NULL), 0);
    assert_int_equal(unroll_meta_grad(u, &r.in, &out, NULL), 0);
    assert_int_equal(eng_plan_new(&r.net, r.cfg.meta_batch, ENG_F64, ENG_FORWARD, &p, NULL), 0);
    eng_forward(p, wT, r.X[0], b);
    assert_memory_equal(a, b, n * sizeof *a);
    assert_true(fabs(out.meta_loss - eng_loss(p, b, r.Y[0])) < 1e-12);
    free(wT);
    free(a);
    free(b);
    unroll_free(u);
    eng_plan_free(p);
    randrun_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unroll_without_a_real_batch_has_no_way_back),
        cmocka_unit_test(divergence_names_the_step),
        cmocka_unit_test(divergence_forward_names_the_first_op),
        cmocka_unit_test(divergence_at_a_later_step_names_that_step),
        cmocka_unit_test(divergence_of_the_loss_and_behind_it_is_named),
        cmocka_unit_test(an_overflowing_second_moment_is_seen),
        cmocka_unit_test(divergence_of_the_real_loss_is_named),
        cmocka_unit_test(divergence_on_the_way_back_names_the_rule),
        cmocka_unit_test(an_unroll_works_on_after_a_divergence),
        cmocka_unit_test(one_softmax_step_has_its_derivatives),
        cmocka_unit_test(momentum_and_weight_decay_follow_their_recurrence),
        cmocka_unit_test(training_stops_when_told),
        cmocka_unit_test(the_real_batchs_logits_are_those_of_the_last_weights),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
