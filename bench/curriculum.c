/* curriculum.c - what learners make of a curriculum, on the official test images (docs/RESULTS.md, "Curricula"):
 *   build/bench/curriculum DATASET CURRICULUM [archs] [inits] [max_macs] [threads]
 * Fresh draws of the space `chain` (seeds that no teacher uses) and the held-out list, each trained from so many
 * initialisations through all steps of the curriculum and tested with batch statistics, 500 images a batch. One line an
 * architecture, then the means over architectures with the standard error over them. */
#include "common/space.h"
#include "worker/datacache.h"
#include "worker/engine/engine.h"
#include "worker/evaluate.h"
#include "worker/heldout.h"
#include "worker/par.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct report {
    const struct real_data *data;
    const struct lessons   *l;
    int      archs, inits, n;
    uint64_t max_macs;
    char   (*name)[ARCH_TEXT_MAX];
    double  *acc;            /* [n][inits] */
    uint64_t *macs;
};

enum { SEED = 424242 };

static int build(const struct report *r, int i, struct net *n, char *name, struct errbuf *e)
{
    const struct dataset *d = &r->data->d;
    if (i >= r->archs) {
        snprintf(name, ARCH_TEXT_MAX, "(held out) %s", heldout_name(i - r->archs));
        return heldout_build(i - r->archs, d->c, d->h, d->w, d->n_classes, n, e);
    }
    struct rng g;
    rng_init(&g, SEED, RNG_TEST, (uint64_t)i);
    for (;;) {
        space_chain.random(&space_chain, &g, name);
        int rc = space_build(&space_chain, name, d->c, d->h, d->w, d->n_classes, NULL, n, e);
        if (rc < 0 || !r->max_macs || net_macs(n) <= r->max_macs)
            return rc;
        net_fini(n);
    }
}

/* The test split in place of the validation images: the one use outside `verify`, for this report. */
static double test_accuracy(const struct report *r, const struct net *n, const float *w)
{
    enum { B = 500 };
    const struct dataset *d = &r->data->d;
    const size_t image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
    struct eng_plan *p = NULL;
    int label[B], good = 0, total = (int)d->n[SPLIT_TEST] / B * B;
    uint32_t index[B];
    float *x = malloc(B * image * sizeof *x), *logits = malloc(B * (size_t)d->n_classes * sizeof *logits);
    if (!x || !logits || eng_plan_new(n, B, ENG_F32, ENG_FORWARD, &p, NULL) < 0)
        abort();
    for (int at = 0; at < total; at += B) {
        for (int i = 0; i < B; i++) {
            index[i] = (uint32_t)(at + i);
            label[i] = dataset_label(d, SPLIT_TEST, index[i]);
        }
        data_batch(d, SPLIT_TEST, index, B, x, NULL);
        eng_forward(p, w, x, logits);
        good += eng_count_correct(ENG_F32, logits, B, d->n_classes, label);
    }
    eng_plan_free(p);
    free(x);
    free(logits);
    return (double)good / total;
}

static void one(void *arg, int item, int thread)
{
    struct report *r = arg;
    const struct curriculum *c = &r->l->c;
    const int i = item / r->inits;
    struct net n = { 0 };
    struct unroll *u = NULL;
    struct errbuf e = { 0 };
    (void)thread;
    if (build(r, i, &n, r->name[i], &e) < 0)
        abort();
    r->macs[i] = net_macs(&n);
    struct unroll_cfg cfg = { .learner = &n, .dtype = ENG_F32, .T = c->T, .B = c->B, .inner = c->inner };
    float *w = malloc(2 * n.param_count * sizeof *w);
    if (!w || unroll_new(&cfg, &u, &e) < 0)
        abort();
    struct unroll_in in = { .w0 = w, .x = r->l->x, .y = c->labels, .lr = r->l->lr, .mu = r->l->mu };
    int failed;
    eng_params_init(&n, ENG_F32, rng_derive(SEED, RNG_WEIGHTS, (uint64_t)item), w);
    r->acc[item] = unroll_train(u, &in, NULL, w + n.param_count, NULL, NULL, &failed, &e) == 0 ? test_accuracy(r, &n, w + n.param_count)
                                                                                                 : 1.0 / c->K;
    free(w);
    unroll_free(u);
    net_fini(&n);
}

static void summary(const struct report *r, const char *what, int from, int to)
{
    double sum = 0, sq = 0, worst = 1;
    int n = to - from;
    for (int i = from; i < to; i++) {
        double m = 0;
        for (int k = 0; k < r->inits; k++)
            m += r->acc[i * r->inits + k] / r->inits;
        sum += m;
        sq += m * m;
        worst = m < worst ? m : worst;
    }
    double mean = sum / n, sd = n > 1 ? sqrt(fmax(sq - n * mean * mean, 0) / (n - 1)) : 0;
    printf("%-22s %d architectures x %d initialisations: mean %.4f, standard error over architectures %.4f, spread %.4f, worst %.4f\n", what, n,
           r->inits, mean, sd / sqrt(n), sd, worst);
}

int main(int argc, char **argv)
{
    struct errbuf e = { 0 };
    if (argc < 3) {
        fprintf(stderr, "usage: curriculum DATASET CURRICULUM [archs 20] [inits 5] [max_macs 500000] [threads 2]\n");
        return 64;
    }
    struct report r = { .archs = argc > 3 ? atoi(argv[3]) : 20, .inits = argc > 4 ? atoi(argv[4]) : 5,
                        .max_macs = argc > 5 ? strtoull(argv[5], NULL, 10) : 500000 };
    int rc = eng_init(getenv("DIDACT_ISA"), &e);
    if (rc == 0) rc = datacache_data(argv[1], &r.data, &e);
    if (rc == 0) rc = datacache_lessons(argv[2], &r.l, &e);
    if (rc < 0) {
        fprintf(stderr, "curriculum: %s\n", err_message(&e, rc));
        return err_exit_status(rc);
    }
    r.n = r.archs + heldout_count();
    r.name = calloc((size_t)r.n, sizeof *r.name);
    r.acc = calloc((size_t)(r.n * r.inits), sizeof *r.acc);
    r.macs = calloc((size_t)r.n, sizeof *r.macs);
    if (!r.name || !r.acc || !r.macs)
        return 75;
    par_run(argc > 6 ? atoi(argv[6]) : 2, r.n * r.inits, one, &r);
    for (int i = 0; i < r.n; i++) {
        double m = 0, lo = 1, hi = 0;
        for (int k = 0; k < r.inits; k++) {
            double a = r.acc[i * r.inits + k];
            m += a / r.inits;
            lo = a < lo ? a : lo;
            hi = a > hi ? a : hi;
        }
        printf("%.4f  [%.4f %.4f]  %7llu  %s\n", m, lo, hi, (unsigned long long)r.macs[i], r.name[i]);
    }
    summary(&r, "training distribution", 0, r.archs);
    summary(&r, "held out", r.archs, r.n);
    return 0;
}
