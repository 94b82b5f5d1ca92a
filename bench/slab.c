/* slab.c - time slabs of learners on a device, on the workloads of bench/engine.c:
 *   build/bench/slab W1|W2|W3 inner|direct|outer [K 1] [runs 5] [T=n] [B=n] [lanes=n] [device=cuda] [check]
 * B: so many images a step and in the meta-batch, for a quick look, by the emulator too; no workload's own.
 * inner: plain training of K learners; direct: with all meta-gradients; outer: a teacher's whole meta-step but for the draw of its data and
 * the outer optimiser: the generator's images, K learners on them, their votes, the generator's way back, `lanes` batches of it at a time (as
 * many as half of the device's memory holds). One JSON line: seconds (median, min, max; gen_s: the generator alone, there and back), model
 * GFLOP/s, device bytes: the plan's, and how much less of the device's memory was free after the two first runs (used_mib; with what their code and graphs take, and
 * what others took meanwhile). These runs load code and record, and are not timed. check: instead, how far what K = 1
 * gives is from the CPU's engine in float32 and in double; status 70 where that is too far. device: cuda-tf32 and cuda-bf16 round the products'
 * factors; the backend is DIDACT_CUDA's, or the one beside the program. */
#include "bench/workload.h"
#include "worker/engine/lanes.h"
#include "worker/engine/slab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct workload *w;
    const struct device *d;
    bool   back, outer;
    int    T, B, M, K, n_lanes; /* M: images of the meta-batch; n_lanes 0: as many as there is room for */
    struct net learner;
    struct slab *s;
    struct slab_in in;
    struct slab_out out;
    size_t n, image, images_bytes; /* of all steps' images and their gradients on the device: outer */
    struct net gen;             /* outer, with all below */
    struct lanes *lanes;
    float  *there, *x, *y, *dx; /* on the device; owned: there */
    float  *phi, *z, *dphi, *dz;
    double *dx2, *weight, gen_s;
};

/* A lane for every step, as far as half of the memory goes. */
static void prepare_generator(struct job *j)
{
    const struct workload *w = j->w;
    struct errbuf e = { 0 };
    const size_t x = j->n * j->image, y = j->n * K;
    die(net_init(&j->gen, Z + K, 0, 0, &e), &e);
    parse_generator(&j->gen, w);
    j->images_bytes = (2 * x + y) * sizeof(float);
    if (!(j->there = j->d->alloc(j->images_bytes)))
        die(err_set(&e, ERR_NOMEM, "the images do not fit on the device"), &e);
    j->x = j->there;
    j->dx = j->x + x;
    j->y = j->dx + x;
    struct lanes_cfg cfg = { .net = &j->gen, .device = j->d, .n = j->T, .B = j->B, .want_dx = true, .out = j->x, .dout = j->dx, .lanes = 1 };
    if (j->n_lanes)
        cfg.lanes = j->n_lanes;
    else
        die(lanes_fit(&cfg, j->d->free_bytes() / 2, &cfg.lanes, &e), &e);
    j->n_lanes = cfg.lanes;
    die(lanes_new(&cfg, &j->lanes, &e), &e);
    j->phi = need(j->gen.param_count, sizeof(float));
    j->dphi = need(j->gen.param_count, sizeof(float));
    eng_params_init(&j->gen, ENG_F32, 1000, j->phi);
    j->z = noise(j->n * (Z + K), 5);
    j->dz = need(j->n * (Z + K), sizeof(float));
    j->dx2 = need((size_t)j->K, sizeof(double));
    j->weight = need((size_t)j->K, sizeof(double));
    float *y_host = labels(j->n);
    j->d->put(lanes_queue(j->lanes), j->y, y_host, y * sizeof(float));
    free(y_host);
}

static void prepare(struct job *j)
{
    const struct workload *w = j->w;
    struct errbuf e = { 0 };
    die(net_init(&j->learner, w->c, w->h, w->w, &e), &e);
    parse(&j->learner, w->learner);
    const size_t P = j->learner.param_count, learners = (size_t)j->K;
    j->image = (size_t)w->c * (size_t)w->h * (size_t)w->w;
    j->n = (size_t)j->T * (size_t)j->B;
    struct slab_cfg cfg = { .learner = &j->learner, .device = j->d, .K = j->K, .T = j->T, .B = j->B, .inner = inner_default() };
    if (j->back) {
        cfg.meta_batch = j->M;
        cfg.n_meta = 1;
        cfg.meta[0].step = j->T;
        cfg.meta[0].weight = 1;
        cfg.want_dx = true;
        cfg.apart = j->outer;
    }
    if (j->outer)
        prepare_generator(j);
    die(slab_new(&cfg, &j->s, &e), &e);
    float *w0 = need(learners * P, sizeof *w0);
    double *lr = need(2 * (size_t)j->T, sizeof *lr);
    for (int k = 0; k < j->K; k++)
        eng_params_init(&j->learner, ENG_F32, 1 + (uint64_t)k, w0 + (size_t)k * P);
    for (int t = 0; t < j->T; t++) {
        lr[t] = w->lr;
        lr[j->T + t] = w->mu;
    }
    j->in = (struct slab_in){ .w0 = w0, .lr = lr, .mu = lr + j->T };
    j->in.x = j->outer ? j->x : noise(j->n * j->image, 3);
    j->in.y = j->outer ? j->y : labels(j->n);
    j->in.after = j->outer ? lanes_queue(j->lanes) : NULL;
    if (j->back) {
        j->in.meta[0].x = noise((size_t)j->M * j->image, 4);
        j->in.meta[0].y = labels((size_t)j->M);
        j->out.dx = j->outer ? NULL : need(j->n * j->image, sizeof(float));
        j->out.dw0 = j->outer ? NULL : need(learners * P, sizeof(float));
        j->out.dx2 = j->dx2;
        j->out.dlr = need(learners * (size_t)j->T, sizeof(double));
    }
    j->out.inner_loss = need(learners * (size_t)j->T, sizeof(double));
    j->out.failed = need(learners, sizeof(int));
}

/* Images; learners; the mean of their gradients at unit length; to the generator's parameters and inputs. */
static void outer(struct job *j)
{
    struct errbuf e = { 0 };
    void *q = lanes_queue(j->lanes);
    die(lanes_forward(j->lanes, j->phi, j->z, &e), &e);
    die(slab_start(j->s, &j->in, &e), &e);
    die(slab_wait(j->s, &j->out, &e), &e);
    for (int k = 0; k < j->K; k++)
        j->weight[k] = j->dx2[k] > 0 && isfinite(j->dx2[k]) ? 1 / (sqrt(j->dx2[k]) * j->K) : 0;
    j->d->zero(q, 1, (struct dev_rows){ j->dx, 0 }, j->n * j->image * sizeof(float));
    slab_weigh(j->s, q, j->weight, j->dx, NULL);
    die(lanes_backward(j->lanes, j->dphi, j->dz, &e), &e);
}

/* What is left when the learners are taken away. */
static double generator_alone(struct job *j)
{
    struct errbuf e = { 0 };
    const double t0 = now();
    die(lanes_forward(j->lanes, j->phi, j->z, &e), &e);
    die(lanes_backward(j->lanes, j->dphi, j->dz, &e), &e);
    return now() - t0;
}

static double run(struct job *j)
{
    struct errbuf e = { 0 };
    const double t0 = now();
    if (j->outer)
        outer(j);
    else
        die(slab_run(j->s, &j->in, &j->out, &e), &e);
    return now() - t0;
}

/* As in engine.c: 3 f a training step, 6 f in the way back, 3 f in the meta-batch; what reads the input, 2 f and f less. */
static double gflop(const struct job *j)
{
    const double n = 2e-9 * (double)j->n, macs = (double)net_macs(&j->learner);
    double first = 0;
    for (int i = 1; i < j->learner.n_nodes; i++)
        first += j->learner.node[i].in[0] == 0 ? (double)net_node_macs(&j->learner, i) : 0;
    const double gen = j->outer ? n * 3 * (double)net_macs(&j->gen) : 0;
    return gen + j->K * (n * (3 * macs - first) + (j->back ? n * (6 * macs - 2 * first) + 2e-9 * j->M * (3 * macs - first) : 0));
}

/* A copy of [n] floats in the other precision, or in theirs. */
static void *as(enum eng_dtype t, size_t n, const float *from)
{
    double *d = need(n, eng_dtype_size(t));
    if (t == ENG_F32)
        memcpy(d, from, n * sizeof *from);
    for (size_t i = 0; t == ENG_F64 && i < n; i++)
        d[i] = (double)from[i];
    return d;
}
/* The largest difference, over the largest number; in *length that of the whole difference, over that of the whole: one rectifier on the
 * other side of its kink is all of the first and little of the second. */
static double far(enum eng_dtype ta, enum eng_dtype tb, size_t n, const void *a, const void *b, double *length)
{
    double most = 0, off = 0, all = 0, off2 = 0;
    for (size_t i = 0; i < n; i++) {
        const double got = ta == ENG_F64 ? ((const double *)a)[i] : (double)((const float *)a)[i];
        const double want = tb == ENG_F64 ? ((const double *)b)[i] : (double)((const float *)b)[i];
        most = fmax(most, fabs(want));
        off = fmax(off, isfinite(got) ? fabs(got - want) : HUGE_VAL);
        all += want * want;
        off2 += (got - want) * (got - want);
    }
    *length = sqrt(off2 / all);
    return off / most;
}

/* One learner's gradients, of the CPU in either precision or of the device. */
struct answer {
    enum eng_dtype dtype;
    void   *dx, *dw0;
    double *inner_loss;
};
struct distance { double inner_loss, dx, dw0, dx_length, dw0_length; };

static struct distance between(const struct job *j, const struct answer *a, const struct answer *b)
{
    struct distance d = { 0 };
    d.dx = far(a->dtype, b->dtype, j->n * j->image, a->dx, b->dx, &d.dx_length);
    d.dw0 = far(a->dtype, b->dtype, j->learner.param_count, a->dw0, b->dw0, &d.dw0_length);
    for (int t = 0; t < j->T; t++) {
        const double off = fabs(a->inner_loss[t] - b->inner_loss[t]) / fabs(b->inner_loss[t]);
        d.inner_loss = isfinite(off) ? fmax(d.inner_loss, off) : HUGE_VAL;
    }
    return d;
}

static struct answer on_cpu(const struct job *j, enum eng_dtype dtype)
{
    struct errbuf e = { 0 };
    struct unroll *u;
    const size_t P = j->learner.param_count, n_x = j->n * j->image, size = eng_dtype_size(dtype);
    struct unroll_cfg cfg = { .learner = &j->learner, .dtype = dtype, .T = j->T, .B = j->B, .meta_batch = j->M, .want_dx = true, .inner = inner_default() };
    struct unroll_meta m = { j->T, 1, as(dtype, (size_t)j->M * j->image, j->in.meta[0].x), as(dtype, (size_t)j->M * K, j->in.meta[0].y) };
    struct unroll_in in = { as(dtype, P, j->in.w0), as(dtype, n_x, j->in.x), as(dtype, j->n * K, j->in.y), j->in.lr, j->in.mu, &m, 1 };
    struct unroll_out out = { .dx = need(n_x, size), .dw0 = need(P, size), .inner_loss = need((size_t)j->T, sizeof(double)) };
    die(unroll_new(&cfg, &u, &e), &e);
    die(unroll_meta_grad(u, &in, &out, &e), &e);
    unroll_free(u);
    const void *made[] = { m.x, m.y, in.w0, in.x, in.y };
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        free((void *)(uintptr_t)made[i]);
    return (struct answer){ dtype, out.dx, out.dw0, out.inner_loss };
}

/* How far is too far, of the length. Over CHECKED steps the CPU's own float32 is 2e-4 (W3) to 1e-3 (W2) from double, the device's as much; TF32 factors
 * make it 0.03 (W1) and 0.06 (W3), bf16's 0.09 and 0.16, on the emulator; W2 has room for 3 times W1's. More steps carry a rectifier's other side farther
 * (W3's 16 make 0.05 of float32), the device's and the CPU's alike: there a distance from double may be up to 3 times the CPU's own (`own`, of the same
 * number), one from the CPU's float32 that and `own` once more, and rounded factors in the proportion of the rows. A wrong kernel is off by its whole length,
 * so more than half of it is never near. */
enum { CHECKED = 4 };
static double limit(const struct job *j, enum eng_dtype against, double own)
{
    static const struct { const char *kind; double most; } limits[] = { { "cuda", 3e-3 }, { "cuda-tf32", 0.2 }, { "cuda-bf16", 0.4 } };
    const double more = j->T > CHECKED ? fmax(1, (against == ENG_F64 ? 3 : 4) * own / limits[0].most) : 1; /* fmax(1, NaN) is 1 */
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (strcmp(j->d->kind, limits[i].kind) == 0)
            return fmin(0.5, more * limits[i].most);
    return 0;
}

static double said(double x) { return fmin(x, 1e99); } /* JSON knows neither inf nor nan */

/* Whether the device's answer is near the CPU's; own: the CPU's float32 from its double. */
static bool near(const struct job *j, const struct answer *device, const struct answer *cpu, const struct distance *own)
{
    const struct distance d = between(j, device, cpu);
    const double loss = limit(j, cpu->dtype, own->inner_loss), dx = limit(j, cpu->dtype, own->dx_length), dw0 = limit(j, cpu->dtype, own->dw0_length);
    const bool ok = d.inner_loss <= loss && d.dx_length <= dx && d.dw0_length <= dw0; /* false for what is not a number */
    printf("{\"impl\":\"didact\",\"device\":\"%s\",\"w\":\"%s\",\"what\":\"check\",\"kind\":\"%s\",\"against\":\"%s\",\"T\":%d,\"inner_loss\":%.2g,\"dx\":%.2g,\"dw0\":%.2g,"
           "\"dx_length\":%.2g,\"dw0_length\":%.2g,\"dx_limit\":%.2g,\"dw0_limit\":%.2g,\"cpu_dx_length\":%.2g,\"cpu_dw0_length\":%.2g,\"near\":%s}\n",
           j->d->name(), j->w->name, j->d->kind, cpu->dtype == ENG_F64 ? "double" : "float32", j->T, said(d.inner_loss), said(d.dx), said(d.dw0), said(d.dx_length),
           said(d.dw0_length), dx, dw0, said(own->dx_length), said(own->dw0_length), ok ? "true" : "false");
    return ok;
}

/* The first learner against the CPU, twice. */
static bool check_it(const struct job *j)
{
    const struct answer device = { ENG_F32, j->out.dx, j->out.dw0, j->out.inner_loss }, f32 = on_cpu(j, ENG_F32), f64 = on_cpu(j, ENG_F64);
    const struct distance own = between(j, &f32, &f64);
    const bool ok = near(j, &device, &f32, &own);
    return near(j, &device, &f64, &own) && ok;
}

int main(int argc, char **argv)
{
    enum { CAP = 1000 };
    struct job j = { .K = 1 };
    struct errbuf e = { 0 };
    int runs = 5, at = 0;
    bool check = false;
    const char *what = "", *device = "cuda";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "check") == 0) check = true;
        else if (strncmp(argv[i], "T=", 2) == 0) j.T = atoi(argv[i] + 2);
        else if (strncmp(argv[i], "B=", 2) == 0) j.M = j.B = whole(argv[i] + 2, 2, META);
        else if (strncmp(argv[i], "lanes=", 6) == 0) j.n_lanes = atoi(argv[i] + 6);
        else if (strncmp(argv[i], "device=", 7) == 0) device = argv[i] + 7;
        else if (at == 1) what = argv[i], at++;
        else if (at == 2) j.K = atoi(argv[i]), at++;
        else if (at == 3) runs = atoi(argv[i]), at++;
        else at++;
        for (size_t k = 0; at == 1 && k < N_WORKLOADS; k++)
            if (strcmp(argv[i], workloads[k].name) == 0) j.w = &workloads[k];
    }
    j.outer = strcmp(what, "outer") == 0;
    j.back = j.outer || strcmp(what, "direct") == 0;
    if (j.w && j.T == 0)
        j.T = j.w->T;
    if (j.w && j.B == 0) {
        j.B = j.w->B;
        j.M = META;
    }
    if (!j.w || (!j.back && strcmp(what, "inner") != 0) || j.K < 1 || j.T < 1 || j.B < 1 || j.n_lanes < 0 || j.n_lanes > j.T || runs < 1 || runs > CAP || (check && (!j.back || j.outer || j.K != 1))) {
        fprintf(stderr, "usage: slab W1|W2|W3 inner|direct|outer [K 1] [runs 5] [T=n] [B=n] [lanes=n] [device=cuda] [check: direct, K 1]\n");
        return 64;
    }
    die(device_open(device, &j.d, &e), &e);
    if (!j.d)
        die(err_set(&e, ERR_USAGE, "slabs are a device's"), &e);
    void *first = j.d->queue_new(); /* what the device's own library takes at its first work is no learner's */
    const double free_before = (double)j.d->free_bytes();
    prepare(&j);
    run(&j);
    if (check) {
        die(eng_init(NULL, &e), &e);
        return check_it(&j) ? 0 : 70;
    }
    run(&j);
    const double used = free_before - (double)j.d->free_bytes();
    double *s = need(CAP, sizeof *s);
    for (int i = 0; i < runs; i++)
        s[i] = run(&j);
    qsort(s, (size_t)runs, sizeof *s, by_value);
    j.gen_s = j.outer ? generator_alone(&j) : 0;
    printf("{\"impl\":\"didact\",\"device\":\"%s\",\"kind\":\"%s\",\"w\":\"%s\",\"what\":\"%s\",\"T\":%d,\"K\":%d,\"runs\":%d,\"median_s\":%.5f,\"min_s\":%.5f,\"max_s\":%.5f,\"gen_s\":%.5f,"
           "\"gflops\":%.1f,\"lanes\":%d,\"device_mib\":%.0f,\"used_mib\":%.0f}\n",
           j.d->name(), j.d->kind, j.w->name, what, j.T, j.K, runs, s[runs / 2], s[0], s[runs - 1], j.gen_s, gflop(&j) / s[runs / 2], j.n_lanes,
           (double)(slab_bytes(j.s) + (j.outer ? lanes_bytes(j.lanes) + j.images_bytes : 0)) / 1048576, used / 1048576);
    j.d->queue_free(first);
    return 0;
}
