#include "worker/zerocost_int.h"

#include "tests/support/learnable.h"
#include "tests/support/randnet.h"
#include "tests/support/refnet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BIT(zc) (1u << (zc))

/* A network in both the engine's words and the reference's, with images and labels. */
struct sample {
    struct net net;
    int     B, K;
    size_t  P, image;
    double *w, *x[2], *y[2];       /* outside order */
    float  *fw, *fx[2], *fy[2];    /* internal, the same numbers */
    struct zc_input in;
};

static double *drawn(struct rng *r, size_t n)
{
    double *v = calloc(n, sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = (double)(float)(0.7 * rng_normal(r));
    return v;
}

/* Takes s->net; h = w = 1 images of c channels are the same inside and outside, others are imported. */
static void fill(struct sample *s, int B, uint64_t seed)
{
    struct rng r;
    const struct net_shape in = s->net.node[0].shape, out = s->net.node[s->net.out].shape;
    assert_int_equal(eng_init(NULL, NULL), 0);
    rng_init(&r, seed, RNG_TEST, 0);
    s->B = B;
    s->K = out.c * out.h * out.w;
    s->P = (size_t)s->net.param_count;
    s->image = (size_t)in.c * (size_t)in.h * (size_t)in.w;
    s->w = drawn(&r, s->P);
    s->fw = calloc(s->P, sizeof *s->fw);
    float *flat = in_float(s->w, s->P);
    eng_params_import(&s->net, ENG_F32, flat, s->fw);
    free(flat);
    for (int b = 0; b < 2; b++) {
        s->x[b] = drawn(&r, (size_t)B * s->image);
        s->y[b] = calloc((size_t)(B * s->K), sizeof(double));
        for (int i = 0; i < B; i++)
            s->y[b][i * s->K + (i + b) % s->K] = 1;
        s->fx[b] = calloc((size_t)B * s->image, sizeof(float));
        flat = in_float(s->x[b], (size_t)B * s->image);
        eng_images_import(ENG_F32, (size_t)B, in.c, in.h, in.w, flat, s->fx[b]);
        free(flat);
        s->fy[b] = in_float(s->y[b], (size_t)(B * s->K));
    }
    s->in = (struct zc_input){ .net = &s->net, .w = s->fw, .batch = B, .x = { s->fx[0], s->fx[1] }, .y = { s->fy[0], s->fy[1] } };
}

static void empty(struct sample *s)
{
    net_fini(&s->net);
    free(s->w);
    free(s->fw);
    for (int b = 0; b < 2; b++) {
        free(s->x[b]);
        free(s->y[b]);
        free(s->fx[b]);
        free(s->fy[b]);
    }
}

static struct zero_cost_scores compute(const struct zc_input *in, uint32_t wanted)
{
    struct zero_cost_scores s;
    struct errbuf e = { 0 };
    int rc = zerocost_compute(in, wanted, &s, &e);
    if (rc < 0)
        fail_msg("%s", err_message(&e, rc));
    return s;
}

static double one(const struct zc_input *in, enum zero_cost zc)
{
    struct zero_cost_scores s = compute(in, BIT(zc));
    assert_int_equal(s.known, BIT(zc));
    return s.value[zc];
}

static void near(double a, double b, double rel)
{
    if (!(fabs(a - b) <= rel * (fabs(b) + 1e-300)))
        fail_msg("%.17g is not %.17g within %g", a, b, rel);
}

/* Smooth, with a batch norm and a weight norm: differences of it are good to many digits. */
static void smooth_net(struct net *n)
{
    assert_int_equal(net_init(n, 2, 5, 5, NULL), 0);
    int c = net_add(n, NET_CONV, (int[]){ 0 }, 1, &(struct net_attr){ .out = 3, .k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1, .wn = true }, NULL, NULL);
    int b = net_bn(n, c, false, NULL, NULL), t = net_unary(n, NET_TANH, b, NULL, NULL);
    int p = net_pool(n, NET_AVGPOOL, t, 2, 2, 0, NULL, NULL), f = net_unary(n, NET_FLATTEN, p, NULL, NULL);
    assert_true(net_linear(n, f, 4, NULL, NULL) > 0);
}

/* ---- log and factor ---- */

static void our_log_is_the_logarithm(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 0);
    for (int i = 0; i < 20000; i++) {
        double x = ldexp(0.5 + rng_uniform(&r), (int)rng_below(&r, 2000) - 1000);
        near(zc_log(x), log(x), 4e-16);
        x = 1 + ldexp(rng_uniform(&r) - 0.5, -(int)rng_below(&r, 40));
        near(zc_log(x), log(x), 4e-16);
    }
    assert_true(zc_log(1) == 0);
    assert_true(zc_log(0) == -INFINITY && zc_log(INFINITY) == INFINITY && isnan(zc_log(-1)));
}

/* ---- synflow ---- */

static double sum_of_outputs(const struct net *n, const double *w, size_t image, int outputs)
{
    double *x = calloc(image, sizeof *x), *y = calloc((size_t)outputs, sizeof *y), sum = 0;
    for (size_t i = 0; i < image; i++)
        x[i] = 1;
    refnet_forward(n, 1, w, x, y);
    for (int i = 0; i < outputs; i++)
        sum += y[i];
    free(x);
    free(y);
    return sum;
}

/* Two inputs, two hidden units, one output, by hand: w1 = [[1,-2],[3,0.5]], w2 = [[-1,2]]; |w1| on ones is (3, 3.5), R = 3 + 7 = 10,
 * and each of the two layers carries all of R. */
static void synflow_of_a_perceptron_by_hand(void **state)
{
    (void)state;
    struct sample s = { 0 };
    assert_int_equal(net_init(&s.net, 2, 0, 0, NULL), 0);
    int h = net_lrelu(&s.net, net_linear(&s.net, 0, 2, NULL, NULL), 0, NULL, NULL);
    assert_true(net_linear(&s.net, h, 1, NULL, NULL) > 0);
    fill(&s, 2, 1);
    const float outside[] = { 1, -2, 3, 0.5f, 0, 0, -1, 2, 0 };
    assert_int_equal(s.P, 9);
    eng_params_import(&s.net, ENG_F32, outside, s.fw);
    near(one(&s.in, ZC_SYNFLOW), 20, 1e-15);
    empty(&s);
}

static void synflow_is_the_sum_of_differences(void **state)
{
    (void)state;
    struct sample s = { 0 };
    assert_int_equal(net_init(&s.net, 2, 6, 6, NULL), 0);
    int a = net_lrelu(&s.net, net_conv(&s.net, 0, 4, 3, 1, 1, NULL, NULL), 0, NULL, NULL);
    int b = net_pool(&s.net, NET_MAXPOOL, net_add2(&s.net, a, net_conv(&s.net, a, 4, 1, 1, 0, NULL, NULL), NULL, NULL), 2, 2, 0, NULL, NULL);
    assert_true(net_linear(&s.net, net_unary(&s.net, NET_FLATTEN, b, NULL, NULL), 3, NULL, NULL) > 0);
    fill(&s, 2, 2);
    double want = 0;
    for (size_t i = 0; i < s.P; i++)
        s.w[i] = fabs(s.w[i]);
    for (int k = 0; k < s.net.n_params; k++)
        for (size_t i = s.net.param[k].offset; s.net.param[k].role == NET_WEIGHT && i < s.net.param[k].offset + s.net.param[k].size; i++) {
            const double w = s.w[i], h = 1e-4;
            s.w[i] = w + h;
            double up = sum_of_outputs(&s.net, s.w, s.image, s.K);
            s.w[i] = w - h;
            want += fabs(w * (up - sum_of_outputs(&s.net, s.w, s.image, s.K)) / (2 * h));
            s.w[i] = w;
        }
    near(one(&s.in, ZC_SYNFLOW), want, 1e-7);
    empty(&s);
}

/* conv, bn, relu, conv, bn, relu, linear; norms and the weight norm's gains do not count. */
static void build_normed(struct net *n, bool normed)
{
    const struct net_attr conv = { .out = 5, .k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1, .wn = normed };
    assert_int_equal(net_init(n, 1, 6, 6, NULL), 0);
    int x = 0;
    for (int i = 0; i < 2; i++) {
        x = net_add(n, NET_CONV, &x, 1, &conv, NULL, NULL);
        if (normed)
            x = net_bn(n, x, i == 1, NULL, NULL);
        x = net_lrelu(n, x, 0.1, NULL, NULL);
    }
    assert_true(net_linear(n, net_unary(n, NET_GAP, x, NULL, NULL), 3, NULL, NULL) > 0);
}

static void synflow_leaves_out_norms_and_their_weights(void **state)
{
    (void)state;
    struct sample plain = { 0 }, normed = { 0 };
    build_normed(&plain.net, false);
    build_normed(&normed.net, true);
    fill(&plain, 2, 3);
    fill(&normed, 2, 4);
    for (int i = 0, k = 0; i < plain.net.n_params; i++, k++) {
        while (normed.net.param[k].size != plain.net.param[i].size || normed.net.param[k].role == NET_WEIGHT_G ||
               normed.net.param[k].role == NET_BN_GAIN || normed.net.param[k].role == NET_BN_BIAS)
            k++;
        memcpy(normed.fw + normed.net.param[k].offset, plain.fw + plain.net.param[i].offset, (size_t)plain.net.param[i].size * sizeof(float));
    }
    assert_true(one(&plain.in, ZC_SYNFLOW) == one(&normed.in, ZC_SYNFLOW));
    empty(&plain);
    empty(&normed);
}

/* A layer twice as large before one half as large: the same function, the same flow. */
static void synflow_does_not_see_a_rescaling_between_layers(void **state)
{
    (void)state;
    struct sample s = { 0 };
    build_normed(&s.net, false);
    fill(&s, 2, 5);
    const double before = one(&s.in, ZC_SYNFLOW);
    for (uint64_t i = 0; i < s.net.param[0].size; i++)
        s.fw[s.net.param[0].offset + i] *= 4;
    for (uint64_t i = 0; i < s.net.param[1].size; i++)
        s.fw[s.net.param[1].offset + i] /= 4;
    near(one(&s.in, ZC_SYNFLOW), before, 1e-14);
    empty(&s);
}

/* ---- naswot ---- */

/* Codes 11, 10, 01: K = [[2,1,1],[1,2,0],[1,0,2]], det K = 4. */
static void naswot_of_three_codes_by_hand(void **state)
{
    (void)state;
    struct sample s = { 0 };
    assert_int_equal(net_init(&s.net, 2, 0, 0, NULL), 0);
    assert_true(net_lrelu(&s.net, net_linear(&s.net, 0, 2, NULL, NULL), 0, NULL, NULL) > 0);
    fill(&s, 3, 1);
    memcpy(s.fw, (float[]){ 1, 0, 0, 1, 0, 0 }, 6 * sizeof(float));
    memcpy(s.fx[0], (float[]){ 1, 1, 1, -1, -1, 1 }, 6 * sizeof(float));
    near(one(&s.in, ZC_NASWOT), log(4), 1e-15);
    memcpy(s.fx[0] + 4, (float[]){ 3, -0.5f }, 2 * sizeof(float)); /* the second code again: no inverse, no score */
    assert_int_equal(compute(&s.in, BIT(ZC_NASWOT)).known, 0);
    empty(&s);
}

/* log |det| by elimination with pivots, the plain way. */
static double plain_log_det(double *a, int n)
{
    double sum = 0;
    for (int j = 0; j < n; j++) {
        int p = j;
        for (int i = j; i < n; i++)
            if (fabs(a[i * n + j]) > fabs(a[p * n + j]))
                p = i;
        for (int k = 0; k < n; k++) {
            double t = a[j * n + k];
            a[j * n + k] = a[p * n + k];
            a[p * n + k] = t;
        }
        sum += log(fabs(a[j * n + j]));
        for (int i = j + 1; i < n; i++)
            for (int k = n - 1; k >= j; k--)
                a[i * n + k] -= a[i * n + j] / a[j * n + j] * a[j * n + k];
    }
    return sum;
}

static void naswot_counts_the_signs_of_every_rectifier_folded_or_not(void **state)
{
    (void)state;
    enum { B = 6 };
    struct sample s = { 0 };
    double kernel[B * B] = { 0 };
    assert_int_equal(space_build(&space_chain, "bn relu | c8k3 | max2 c12k3x2 | fc32", 1, 12, 12, 4, NULL, &s.net, NULL), 0);
    fill(&s, B, 6);
    int rectifiers = 0;
    for (int i = 0; i < s.net.n_nodes; i++) {
        if (s.net.node[i].op != NET_LRELU)
            continue;
        struct net cut;
        const struct net_shape sh = s.net.node[i].shape;
        const int units = sh.c * sh.h * sh.w;
        double *y = calloc((size_t)(B * units), sizeof *y);
        assert_int_equal(net_copy(&cut, &s.net, NULL), 0);
        assert_int_equal(net_set_out(&cut, i, NULL), 0);
        refnet_forward(&cut, B, s.w, s.x[0], y);
        for (int a = 0; a < B; a++)
            for (int b = 0; b < B; b++)
                for (int u = 0; u < units; u++)
                    kernel[a * B + b] += (y[a * units + u] > 0) == (y[b * units + u] > 0);
        rectifiers++;
        free(y);
        net_fini(&cut);
    }
    assert_true(rectifiers >= 3);
    near(one(&s.in, ZC_NASWOT), plain_log_det(kernel, B), 1e-12);
    empty(&s);
}

static void without_rectifiers_there_is_no_naswot(void **state)
{
    (void)state;
    struct sample s = { 0 };
    smooth_net(&s.net);
    fill(&s, 4, 7);
    assert_int_equal(compute(&s.in, ZC_ALL).known, ZC_ALL & ~BIT(ZC_NASWOT));
    empty(&s);
}

/* ---- jacob_cov ---- */

/* Eigenvalues onto the diagonal by plain rotations (Jacobi). */
static void diagonalise(double *a, int n)
{
    for (int sweep = 0; sweep < 30; sweep++)
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                const double t = 0.5 * atan2(2 * a[p * n + q], a[p * n + p] - a[q * n + q]), c = cos(t), s = sin(t);
                for (int k = 0; k < n; k++) {
                    double u = a[k * n + p], v = a[k * n + q];
                    a[k * n + p] = c * u + s * v;
                    a[k * n + q] = c * v - s * u;
                }
                for (int k = 0; k < n; k++) {
                    double u = a[p * n + k], v = a[q * n + k];
                    a[p * n + k] = c * u + s * v;
                    a[q * n + k] = c * v - s * u;
                }
            }
}

static double batch_sum(struct sample *s)
{
    double *y = calloc((size_t)(s->B * s->K), sizeof *y), sum = 0;
    refnet_forward(&s->net, s->B, s->w, s->x[0], y);
    for (int i = 0; i < s->B * s->K; i++)
        sum += y[i];
    free(y);
    return sum;
}

static void jacob_cov_is_its_formula_on_differences_and_eigenvalues(void **state)
{
    (void)state;
    enum { B = 5, D = 50 };
    struct sample s = { 0 };
    static double g[B][D];
    double c[B * B] = { 0 }, want = 0;
    smooth_net(&s.net);
    fill(&s, B, 8);
    assert_int_equal(s.image, D);
    for (int i = 0; i < B * D; i++) {
        const double x = s.x[0][i], h = 1e-5;
        s.x[0][i] = x + h;
        double up = batch_sum(&s);
        s.x[0][i] = x - h;
        g[i / D][i % D] = (up - batch_sum(&s)) / (2 * h);
        s.x[0][i] = x;
    }
    for (int i = 0; i < B; i++) {
        double mean = 0, sq = 0;
        for (int k = 0; k < D; k++)
            mean += g[i][k] / D;
        for (int k = 0; k < D; k++)
            sq += pow(g[i][k] - mean, 2);
        for (int k = 0; k < D; k++)
            g[i][k] = (g[i][k] - mean) / sqrt(sq);
    }
    for (int i = 0; i < B * B; i++)
        for (int k = 0; k < D; k++)
            c[i] += g[i / B][k] * g[i % B][k];
    diagonalise(c, B);
    for (int i = 0; i < B; i++)
        want -= log(c[i * B + i] + 1e-5) + 1 / (c[i * B + i] + 1e-5);
    near(one(&s.in, ZC_JACOB_COV), want, 1e-4);
    empty(&s);
}

static void jacob_cov_does_not_see_the_size_of_the_last_layer(void **state)
{
    (void)state;
    struct sample s = { 0 };
    smooth_net(&s.net);
    fill(&s, 5, 9);
    const double before = one(&s.in, ZC_JACOB_COV);
    const struct net_param *last = &s.net.param[s.net.n_params - 2];
    for (uint64_t i = 0; i < last->size; i++)
        s.fw[last->offset + i] *= 8; /* exact in binary */
    near(one(&s.in, ZC_JACOB_COV), before, 1e-12);
    empty(&s);
}

/* ---- scores of the gradient ---- */

static double loss(struct sample *s, int b)
{
    double *y = calloc((size_t)(s->B * s->K), sizeof *y), sum = 0;
    refnet_forward(&s->net, s->B, s->w, s->x[b], y);
    for (int i = 0; i < s->B; i++) {
        double z = 0, hit = 0;
        for (int k = 0; k < s->K; k++) {
            z += exp(y[i * s->K + k]);
            hit += s->y[b][i * s->K + k] * y[i * s->K + k];
        }
        sum += (log(z) - hit) / s->B;
    }
    free(y);
    return sum;
}

static void snip_grad_norm_and_zico_are_their_formulas_on_differences(void **state)
{
    (void)state;
    struct sample s = { 0 };
    double snip = 0, norm = 0, zico = 0;
    smooth_net(&s.net);
    fill(&s, 5, 10);
    for (int k = 0; k < s.net.n_params; k++) {
        const struct net_param *p = &s.net.param[k];
        double sq = 0, ratio = 0;
        if (p->role != NET_WEIGHT && p->role != NET_WEIGHT_V)
            continue;
        for (size_t i = p->offset; i < p->offset + p->size; i++) {
            const double w = s.w[i], h = 1e-5;
            double g[2];
            for (int b = 0; b < 2; b++) {
                s.w[i] = w + h;
                double up = loss(&s, b);
                s.w[i] = w - h;
                g[b] = (up - loss(&s, b)) / (2 * h);
                s.w[i] = w;
            }
            snip += fabs(w * g[0]);
            sq += g[0] * g[0];
            const double mean = (g[0] + g[1]) / 2, sd = sqrt((pow(g[0] - mean, 2) + pow(g[1] - mean, 2)) / 2);
            ratio += (fabs(g[0]) + fabs(g[1])) / 2 / sd;
        }
        norm += sqrt(sq);
        zico += log(ratio);
    }
    near(one(&s.in, ZC_SNIP), snip, 1e-4);
    near(one(&s.in, ZC_GRAD_NORM), norm, 1e-4);
    near(one(&s.in, ZC_ZICO), zico, 1e-3);
    empty(&s);
}

/* The second batch the same as the first: no spread in any layer, nothing to sum. */
static void zico_of_one_batch_twice_is_zero(void **state)
{
    (void)state;
    struct sample s = { 0 };
    smooth_net(&s.net);
    fill(&s, 5, 11);
    s.in.x[1] = s.in.x[0];
    s.in.y[1] = s.in.y[0];
    assert_true(one(&s.in, ZC_ZICO) == 0);
    empty(&s);
}

/* ---- on a dataset ---- */

struct set { struct real_data const *data; struct net net; };

static void open_set(void **state, struct set *s)
{
    const char *path = tmp_path(*state, "data.st");
    hash_str h;
    assert_int_equal(eng_init(NULL, NULL), 0);
    learnable_write(path, h);
    assert_int_equal(datacache_data(path, &s->data, NULL), 0);
    assert_int_equal(space_build(&space_chain, "bn relu | c8k3 | max2 c12k3 | flat", 1, 8, 8, 4, NULL, &s->net, NULL), 0);
}

static void close_set(struct set *s)
{
    net_fini(&s->net);
    datacache_release(s->data);
}

static void scores_have_the_same_bits_again_alone_and_with_more_threads(void **state)
{
    struct set s;
    struct zero_cost_scores first, again;
    struct eng_pool *pool;
    open_set(state, &s);
    assert_int_equal(zerocost_scores(&s.net, s.data, 5, NULL, ZC_ALL, &first, NULL), 0);
    assert_int_equal(first.known, ZC_ALL);
    assert_int_equal(eng_pool_new(3, &pool, NULL), 0);
    assert_int_equal(zerocost_scores(&s.net, s.data, 5, pool, ZC_ALL, &again, NULL), 0);
    assert_memory_equal(&first, &again, sizeof first);
    for (int i = 0; i < ZC_COUNT; i++) {
        assert_int_equal(zerocost_scores(&s.net, s.data, 5, NULL, BIT(i), &again, NULL), 0);
        assert_int_equal(again.known, BIT(i));
        assert_true(again.value[i] == first.value[i]);
    }
    assert_int_equal(zerocost_scores(&s.net, s.data, 6, NULL, ZC_ALL, &again, NULL), 0);
    for (int i = 0; i < ZC_COUNT; i++)
        assert_true(again.value[i] != first.value[i]); /* other weights */
    eng_pool_free(pool);
    close_set(&s);
}

static void every_score_has_a_name_that_finds_it(void **state)
{
    (void)state;
    for (int i = 0; i < ZC_COUNT; i++) {
        assert_int_equal(zero_cost_from(zero_cost_table[i].name), i);
        assert_true(zero_cost_table[i].passes > 0 && zero_cost_table[i].about);
    }
    assert_int_equal(zero_cost_from("zen"), -1);
}

static void memory_is_known_beforehand(void **state)
{
    struct set s;
    uint64_t all, synflow, codes;
    open_set(state, &s);
    assert_int_equal(zerocost_predict(&s.net, s.data, ZC_ALL, &all, NULL), 0);
    assert_int_equal(zerocost_predict(&s.net, s.data, BIT(ZC_SYNFLOW), &synflow, NULL), 0);
    assert_int_equal(zerocost_predict(&s.net, s.data, BIT(ZC_NASWOT), &codes, NULL), 0);
    assert_true(synflow < codes && codes < all);
    close_set(&s);
}

int main(void)
{
#define DATA(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_log_is_the_logarithm),
        cmocka_unit_test(synflow_of_a_perceptron_by_hand),
        cmocka_unit_test(synflow_is_the_sum_of_differences),
        cmocka_unit_test(synflow_leaves_out_norms_and_their_weights),
        cmocka_unit_test(synflow_does_not_see_a_rescaling_between_layers),
        cmocka_unit_test(naswot_of_three_codes_by_hand),
        cmocka_unit_test(naswot_counts_the_signs_of_every_rectifier_folded_or_not),
        cmocka_unit_test(without_rectifiers_there_is_no_naswot),
        cmocka_unit_test(jacob_cov_is_its_formula_on_differences_and_eigenvalues),
        cmocka_unit_test(jacob_cov_does_not_see_the_size_of_the_last_layer),
        cmocka_unit_test(snip_grad_norm_and_zico_are_their_formulas_on_differences),
        cmocka_unit_test(zico_of_one_batch_twice_is_zero),
        DATA(scores_have_the_same_bits_again_alone_and_with_more_threads),
        cmocka_unit_test(every_score_has_a_name_that_finds_it),
        DATA(memory_is_known_beforehand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
