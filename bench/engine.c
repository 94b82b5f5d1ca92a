/* engine.c - time the engine on the standard workloads W1, W2, W3 (the networks of docs/RESULTS.md):
 *   build/bench/engine W1|W2|W3 inner|unroll|direct|outer [threads] [runs] [T=n] [K=n] [mib=n] [--serve] [--ops]
 * inner: plain training; direct: training and all meta-gradients with the images as parameters; unroll: the same without the
 * meta-batch; outer: with the generator, K learners a meta-step side by side (each on its own thread where K > 1).
 * One JSON line: seconds (median, min, max; gen_s: of the generator alone), model GFLOP (2 a multiply-add, nothing recomputed
 * counted), GFLOP/s, bytes planned and resident at the peak.
 * mib: the unroll's memory budget, which decides what is kept (engine.h).
 * --serve: a timed run for every line on stdin, answered by its seconds; the JSON line comes at the end (bench/run.py).
 * --ops: a JSON line with the time of every op of one run in place of it (bench/ops.c). */
#include "bench/ops.h"
#include "bench/workload.h"
#include "worker/par.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum what { INNER, UNROLL, DIRECT, OUTER };
static const char *const whats[] = { "inner", "unroll", "direct", "outer" };

struct bench {
    const struct workload *w;
    enum what what;
    int T, learners, crew;     /* learners a meta-step, and how many of them at a time */
    struct net learner, gen;
    struct unroll **u;         /* [crew] */
    struct eng_plan *g;
    float *w0, *phi, *x, *y, *X, *Y, *dx, *z, *dz, *gphi, *gsum;  /* dx: one for each learner */
    double *lr, *mu, gen_s;    /* gen_s: since it was last cleared */
    size_t image;
    uint64_t budget;  /* bytes of one unroll; 0: the engine's default */
};

static void train_learner(void *arg, int k, int thread)
{
    struct bench *b = arg;
    struct errbuf e = { 0 };
    double dlr[64], dmu[64];
    struct unroll_meta m = { b->T, 1, b->X, b->Y };
    struct unroll_in in = { b->w0 + (size_t)k * b->learner.param_count, b->x, b->y, b->lr, b->mu, &m, b->what > UNROLL };
    struct unroll_out out = { .dx = b->dx + (size_t)k * (size_t)b->T * (size_t)b->w->B * b->image, .dlr = dlr, .dmu = dmu };
    die(b->what == INNER ? unroll_train(b->u[thread], &in, NULL, NULL, NULL, NULL, NULL, &e) : unroll_meta_grad(b->u[thread], &in, &out, &e), &e);
}

static void step(struct bench *b)
{
    const size_t batch = (size_t)b->w->B * b->image, zb = (size_t)b->w->B * (Z + K), n = batch * (size_t)b->T;
    const int T = b->what == OUTER ? b->T : 0;
    double t0 = now();
    for (int t = 0; t < T; t++)
        eng_forward(b->g, b->phi, b->z + (size_t)t * zb, b->x + (size_t)t * batch);
    b->gen_s += now() - t0;
    if (b->learners > 1)
        par_run(b->crew, b->learners, train_learner, b);
    else
        train_learner(b, 0, 0);
    for (int k = 1; k < b->learners; k++)
        eng_axpy(ENG_F32, n, 1, b->dx + (size_t)k * n, b->dx);
    t0 = now();
    for (int t = 0; t < T; t++) {
        eng_forward(b->g, b->phi, b->z + (size_t)t * zb, NULL);
        eng_backward(b->g, b->phi, b->z + (size_t)t * zb, b->dx + (size_t)t * batch, b->gphi, b->dz + (size_t)t * zb);
        eng_axpy(ENG_F32, b->gen.param_count, 1, b->gphi, b->gsum);
    }
    b->gen_s += now() - t0;
}

/* Everything a run needs; the last that allocates. */
static void prepare(struct bench *b, int threads)
{
    const struct workload *w = b->w;
    struct errbuf e = { 0 };
    struct eng_pool *pool = NULL;
    b->image = (size_t)w->c * (size_t)w->h * (size_t)w->w;
    const size_t n = (size_t)b->T * (size_t)w->B, learners = (size_t)b->learners;
    die(eng_init(getenv("DIDACT_ISA"), &e), &e);
    die(eng_pool_new(threads, &pool, &e), &e);
    die(net_init(&b->learner, w->c, w->h, w->w, &e), &e);
    parse(&b->learner, w->learner);
    struct unroll_cfg cfg = { .learner = &b->learner, .T = b->T, .B = w->B, .meta_batch = b->what ? META : 0, .want_dx = true, .inner = inner_default(), .budget_bytes = b->budget };
    b->crew = b->learners > 1 && threads < b->learners ? threads : b->learners;
    b->u = need((size_t)b->crew, sizeof(struct unroll *));
    for (int i = 0; i < b->crew; i++) {
        die(unroll_new(&cfg, &b->u[i], &e), &e);
        unroll_set_pool(b->u[i], b->learners == 1 ? pool : NULL);
    }
    b->w0 = need(learners * b->learner.param_count, sizeof(float));
    for (size_t k = 0; k < learners; k++)
        eng_params_init(&b->learner, ENG_F32, 1 + k, b->w0 + k * b->learner.param_count);
    if (b->what == OUTER) {
        die(net_init(&b->gen, Z + K, 0, 0, &e), &e);
        parse_generator(&b->gen, w);
        die(eng_plan_new(&b->gen, w->B, ENG_F32, ENG_GRAD | ENG_INPUT_GRAD, &b->g, &e), &e);
        eng_plan_set_pool(b->g, pool);
        b->phi = need(b->gen.param_count, sizeof(float));
        b->gphi = need(b->gen.param_count, sizeof(float));
        b->gsum = need(b->gen.param_count, sizeof(float));
        eng_params_init(&b->gen, ENG_F32, 1000, b->phi);
        b->z = noise(n * (Z + K), 5);
        b->dz = need(n * (Z + K), sizeof(float));
    }
    b->x = noise(n * b->image, 3);
    b->y = labels(n);
    if (b->what) {
        b->X = noise(META * b->image, 4);
        b->Y = labels(META);
        b->dx = need(learners * n * b->image, sizeof(float));
    }
    b->lr = need(2 * (size_t)b->T, sizeof(double));
    b->mu = b->lr + b->T;
    for (int t = 0; t < b->T; t++) {
        b->lr[t] = w->lr;
        b->mu[t] = w->mu;
    }
}

/* A layer of forward cost f: 3 f a training step, 6 f in the second-order way back, 3 f in the meta-batch; one that reads the
 * input f, 2 f and f less. */
static double model_gflop(const struct bench *b)
{
    double n = 2e-9 * b->T * b->w->B, macs = (double)net_macs(&b->learner), first = 0;
    for (int i = 1; i < b->learner.n_nodes; i++)
        first += b->learner.node[i].in[0] == 0 ? (double)net_node_macs(&b->learner, i) : 0;
    double f = n * (3 * macs - first);
    if (b->what >= UNROLL) f += n * (6 * macs - 2 * first);
    if (b->what >= DIRECT) f += 2e-9 * META * (3 * macs - first);
    return f * b->learners + (b->what == OUTER ? n * 3 * (double)net_macs(&b->gen) : 0);
}

/* A run for every line on stdin, or `runs` of them; returns how many. */
static int timed_runs(struct bench *b, bool serve, int runs, double *s, double *gen, int cap)
{
    char line[64];
    int n = 0;
    if (serve) {
        puts("ready");
        fflush(stdout);
    }
    while (n < cap && (serve ? fgets(line, sizeof line, stdin) != NULL : n < runs)) {
        b->gen_s = 0;
        double t0 = now();
        step(b);
        s[n] = now() - t0;
        gen[n] = b->gen_s;
        if (serve) {
            printf("%.6f\n", s[n]);
            fflush(stdout);
        }
        n++;
    }
    return n;
}

static void report(struct bench *b, int threads, double *s, double *gen, int runs)
{
    struct rusage ru;
    double gflop = model_gflop(b);
    getrusage(RUSAGE_SELF, &ru);
    qsort(s, (size_t)runs, sizeof *s, by_value);
    qsort(gen, (size_t)runs, sizeof *gen, by_value);
    printf("{\"impl\":\"didact\",\"version\":\"" DIDACT_VERSION "\",\"w\":\"%s\",\"what\":\"%s\",\"threads\":%d,\"variant\":\"%s\",\"T\":%d,\"K\":%d,\"runs\":%d,"
           "\"median_s\":%.4f,\"min_s\":%.4f,\"max_s\":%.4f,\"gen_s\":%.4f,\"gflop\":%.2f,\"gflops\":%.2f,\"planned_mib\":%.0f,\"peak_rss_mib\":%ld}\n",
           b->w->name, whats[b->what], threads, eng_isa(), b->T, b->learners, runs, s[runs / 2], s[0], s[runs - 1], gen[runs / 2], gflop,
           gflop / s[runs / 2], (double)unroll_bytes(b->u[0]) * b->crew / 1048576, ru.ru_maxrss / 1024);
}

int main(int argc, char **argv)
{
    enum { CAP = 1000 };
    struct bench b = { .learners = 1 };
    int what = -1, threads = 1, runs = 5, at = 0;
    bool serve = false, ops = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--serve") == 0) serve = true;
        else if (strcmp(argv[i], "--ops") == 0) ops = true;
        else if (strncmp(argv[i], "T=", 2) == 0) b.T = atoi(argv[i] + 2);
        else if (strncmp(argv[i], "mib=", 4) == 0) b.budget = strtoull(argv[i] + 4, NULL, 10) << 20;
        else if (strncmp(argv[i], "K=", 2) == 0) b.learners = atoi(argv[i] + 2);
        else if (at == 2) threads = atoi(argv[i]), at++;
        else if (at == 3) runs = atoi(argv[i]), at++;
        else at++;
        for (size_t k = 0; at == 1 && k < 3; k++)
            if (strcmp(argv[i], workloads[k].name) == 0) b.w = &workloads[k];
        for (int k = 0; at == 2 && k < 4; k++)
            if (strcmp(argv[i], whats[k]) == 0) what = k;
    }
    if (b.w && b.T == 0)
        b.T = b.w->T;
    if (!b.w || what < 0 || at > 4 || b.T < 1 || b.T > 64 || b.learners < 1 || threads < 1 || runs < 1 || runs > CAP || (b.learners > 1 && what == INNER)) {
        fprintf(stderr, "usage: engine W1|W2|W3 inner|unroll|direct|outer [threads 1] [runs 5] [T=1..64] [K=n] [mib=n] [--serve] [--ops]\n");
        return 64;
    }
    b.what = (enum what)what;
    prepare(&b, threads);
    double *s = need(2 * CAP, sizeof *s), *gen = s + CAP, t0;
    step(&b);
    if (ops) {
        struct ops_profile *p = ops_start(b.u[0], b.g);
        t0 = now();
        step(&b);
        ops_print(p, b.w->name, whats[what], threads, now() - t0);
        return 0;
    }
    int n = timed_runs(&b, serve, runs, s, gen, CAP);
    if (n > 0)
        report(&b, threads, s, gen, n);
    return 0;
}
