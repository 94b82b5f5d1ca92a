/* curriculum.c - what learners make of a curriculum, on the official test images (docs/RESULTS.md, "Curricula"):
 *   build/bench/curriculum DATASET CURRICULUM [--draws 20] [--space chain] [--arch TEXT] [--inits 5] [--max-macs 500000] [--at 8,16] [--threads 2] [--no-held-out]
 * Fresh draws of a space (a built-in one or a file; seeds that no teacher uses) or one architecture of it, and the held-out list, each trained from so many
 * initialisations through all steps of the curriculum and tested with batch statistics, 500 images a batch (all, where there are fewer); after the steps
 * `at`, too.
 * One line an architecture (the mean over initialisations at each step, their standard deviation at the end), then the means over architectures
 * with the standard error over them. A learner that diverges counts as guessing. */
#include "bench/workload.h"
#include "common/space_file.h"
#include "worker/datacache.h"
#include "worker/engine/engine.h"
#include "worker/evaluate.h"
#include "worker/heldout.h"
#include "worker/par.h"
#include "worker/spaces.h"

#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 424242, MOST_AT = 64, MOST_DRAWS = 4096, MOST_INITS = 1000, MOST_THREADS = 256, MOST_TRIES = 10000 };

struct report {
    const struct real_data *data;
    const struct lessons   *l;
    const struct space     *space;
    const char *arch;        /* of it, instead of draws; NULL: draws */
    int      draws, inits, threads, n;
    uint64_t max_macs;
    int      at[MOST_AT], n_at; /* rising; the last is T */
    char   (*name)[ARCH_TEXT_MAX];
    struct net *net;         /* [n] */
    double  *acc;            /* [n][inits][n_at] */
};

static int build(const struct report *r, int i, struct net *n, char *name, struct errbuf *e)
{
    const struct dataset *d = &r->data->d;
    if (i >= r->draws) {
        snprintf(name, ARCH_TEXT_MAX, "(held out) %s", heldout_name(i - r->draws));
        return heldout_build(i - r->draws, d->c, d->h, d->w, d->n_classes, n, e);
    }
    struct rng g;
    rng_init(&g, SEED, RNG_TEST, (uint64_t)i);
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        if (r->arch)
            snprintf(name, ARCH_TEXT_MAX, "%s", r->arch);
        else
            r->space->random(r->space, &g, name);
        int rc = space_build(r->space, name, d->c, d->h, d->w, d->n_classes, NULL, n, e);
        if (rc < 0 || r->arch || !r->max_macs || net_macs(n) <= r->max_macs)
            return rc;
        net_fini(n);
    }
    return err_set(e, ERR_INPUT, "none of %d draws has at most %llu multiply-adds", MOST_TRIES, (unsigned long long)r->max_macs);
}

/* The test split in place of the validation images: the one use outside `verify`, for this report. */
static double test_accuracy(const struct report *r, const struct net *n, const float *w)
{
    enum { MOST = 500 };
    const struct dataset *d = &r->data->d;
    const int B = d->n[SPLIT_TEST] < MOST ? (int)d->n[SPLIT_TEST] : MOST;
    const size_t image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
    struct eng_plan *p = NULL;
    int label[MOST], good = 0, total = (int)d->n[SPLIT_TEST] / B * B;
    uint32_t index[MOST];
    float *x = malloc((size_t)B * image * sizeof *x), *logits = malloc((size_t)B * (size_t)d->n_classes * sizeof *logits);
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

struct watch {
    const struct report *r;
    const struct net    *n;
    double              *acc; /* [n_at] */
};

static bool after_step(void *arg, int t, const void *w, double loss)
{
    const struct watch *at = arg;
    (void)loss;
    for (int k = 0; k < at->r->n_at; k++)
        if (at->r->at[k] == t)
            at->acc[k] = test_accuracy(at->r, at->n, w);
    return true;
}

static void one(void *arg, int item, int thread)
{
    struct report *r = arg;
    const struct curriculum *c = &r->l->c;
    const struct net *n = &r->net[item / r->inits];
    struct unroll *u = NULL;
    struct errbuf e = { 0 };
    (void)thread;
    struct unroll_cfg cfg = { .learner = n, .dtype = ENG_F32, .T = c->T, .B = c->B, .inner = c->inner };
    float *w = malloc(n->param_count * sizeof *w);
    if (!w || unroll_new(&cfg, &u, &e) < 0)
        abort();
    struct unroll_in in = { .w0 = w, .x = r->l->x, .y = c->labels, .lr = r->l->lr, .mu = r->l->mu };
    struct watch at = { .r = r, .n = n, .acc = r->acc + (size_t)item * (size_t)r->n_at };
    int failed;
    for (int k = 0; k < r->n_at; k++)
        at.acc[k] = 1.0 / c->K;
    eng_params_init(n, ENG_F32, rng_derive(SEED, RNG_WEIGHTS, (uint64_t)item), w);
    if (unroll_train(u, &in, NULL, NULL, after_step, &at, &failed, &e) < 0)
        at.acc[r->n_at - 1] = 1.0 / c->K;
    free(w);
    unroll_free(u);
}

static double mean_at(const struct report *r, int i, int k)
{
    double m = 0;
    for (int j = 0; j < r->inits; j++)
        m += r->acc[(i * r->inits + j) * r->n_at + k] / r->inits;
    return m;
}

static void line(const struct report *r, int i)
{
    const int last = r->n_at - 1;
    double mean = mean_at(r, i, last), sq = 0;
    for (int j = 0; j < r->inits; j++)
        sq += pow(r->acc[(i * r->inits + j) * r->n_at + last] - mean, 2);
    for (int k = 0; k < r->n_at; k++)
        printf("%.4f ", mean_at(r, i, k));
    printf("(%.4f)  %7llu  %s\n", r->inits > 1 ? sqrt(sq / (r->inits - 1)) : 0, (unsigned long long)net_macs(&r->net[i]), r->name[i]);
}

static void summary(const struct report *r, const char *what, int from, int to)
{
    const int n = to - from;
    double sum = 0, sq = 0, worst = 1;
    if (n == 0)
        return;
    printf("%s, %d x %d initialisations:", what, n, r->inits);
    for (int k = 0; k < r->n_at; k++) {
        sum = 0;
        for (int i = from; i < to; i++)
            sum += mean_at(r, i, k);
        printf(" %.4f", sum / n);
    }
    for (int i = from; i < to; i++) {
        const double m = mean_at(r, i, r->n_at - 1);
        sq += m * m;
        worst = m < worst ? m : worst;
    }
    const double sd = n > 1 ? sqrt(fmax(sq - sum * sum / n, 0) / (n - 1)) : 0;
    printf("; standard error over architectures %.4f, spread %.4f, worst %.4f\n", sd / sqrt(n), sd, worst);
}

/* What the learners are trained on and what they are tested on. */
static int agree(const struct dataset *d, const struct curriculum *c, struct errbuf *e)
{
    if (c->c != d->c || c->h != d->h || c->w != d->w || c->K != d->n_classes)
        return err_set(e, ERR_INPUT, "the curriculum has images of %dx%dx%d and %d classes, the dataset of %dx%dx%d and %d", c->c, c->h, c->w, c->K, d->c, d->h, d->w, d->n_classes);
    return d->n[SPLIT_TEST] == 0 ? err_set(e, ERR_INPUT, "the dataset has no test images") : 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: curriculum DATASET CURRICULUM [--draws 20] [--space chain] [--arch TEXT] [--inits 5] [--max-macs 500000] [--at 8,16] [--threads 2] [--no-held-out]\n");
    return 64;
}

/* "1,2,4" and the last step; false: not rising numbers, or too many. */
static bool parse_at(struct report *r, const char *list, int T)
{
    for (const char *p = list; p && *p;) {
        char *end;
        const long t = strtol(p, &end, 10);
        if (end == p || t < 1 || t > T || (r->n_at && t <= r->at[r->n_at - 1]) || (*end && *end != ',') || (t < T && r->n_at == MOST_AT - 1))
            return false;
        if (t < T)
            r->at[r->n_at++] = (int)t;
        p = *end ? end + 1 : end;
    }
    r->at[r->n_at++] = T;
    return true;
}

int main(int argc, char **argv)
{
    static const struct option opts[] = { { "draws", 1, NULL, 'd' }, { "space", 1, NULL, 's' }, { "arch", 1, NULL, 'a' }, { "inits", 1, NULL, 'i' },
                                          { "max-macs", 1, NULL, 'm' }, { "at", 1, NULL, 't' }, { "threads", 1, NULL, 'n' },
                                          { "no-held-out", 0, NULL, 'o' }, { 0 } };
    struct errbuf e = { 0 };
    struct report r = { .draws = 20, .inits = 5, .threads = 2 };
    const char *space = "chain", *at = NULL;
    int others = heldout_count(), max_macs = 500000;
    for (int o; (o = getopt_long(argc, argv, "", opts, NULL)) != -1;) {
        switch (o) {
        case 'd': r.draws = whole(optarg, 0, MOST_DRAWS); break;
        case 's': space = optarg; break;
        case 'a': r.arch = optarg; break;
        case 'i': r.inits = whole(optarg, 1, MOST_INITS); break;
        case 'm': max_macs = whole(optarg, 0, INT_MAX); break;
        case 't': at = optarg; break;
        case 'n': r.threads = whole(optarg, 1, MOST_THREADS); break;
        case 'o': others = 0; break;
        default: return usage();
        }
    }
    if (argc - optind != 2 || r.draws < 0 || r.inits < 0 || r.threads < 0 || max_macs < 0)
        return usage();
    r.max_macs = (uint64_t)max_macs;
    if (r.arch)
        r.draws = 1;
    int rc = eng_init(getenv("DIDACT_ISA"), &e);
    if (rc == 0) rc = datacache_data(argv[optind], &r.data, &e);
    if (rc == 0) rc = datacache_lessons(argv[optind + 1], &r.l, &e);
    if (rc == 0) rc = agree(&r.data->d, &r.l->c, &e);
    if (rc == 0) rc = spaces_given(space, NULL, &r.space, &e);
    die(rc, &e);
    if (!parse_at(&r, at, r.l->c.T))
        return usage();
    r.n = r.draws + others;
    r.name = need((size_t)r.n, sizeof *r.name);
    r.net = need((size_t)r.n, sizeof *r.net);
    r.acc = need((size_t)r.n * (size_t)r.inits * (size_t)r.n_at, sizeof *r.acc);
    for (int i = 0; i < r.n; i++)
        if ((rc = build(&r, i, &r.net[i], r.name[i], &e)) < 0)
            die(r.arch ? err_wrap(&e, rc, "%s", r.name[i]) : rc, &e);
    par_run(r.threads, r.n * r.inits, one, &r);
    printf("test accuracy after step");
    for (int k = 0; k < r.n_at; k++)
        printf(" %d", r.at[k]);
    printf(" (standard deviation over initialisations), multiply-adds\n");
    for (int i = 0; i < r.n; i++)
        line(&r, i);
    summary(&r, r.arch ? "this architecture" : "fresh draws", 0, r.draws);
    summary(&r, "held out", r.draws, r.n);
    return 0;
}
