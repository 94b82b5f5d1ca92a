/* candidates.c - train many different small networks, as a scoring worker does: one network a thread.
 *   build/bench/candidates [threads 2] [runs 3] [n=64] [inits=1] [T=32] [B=64] [device=cuda] [--serve]   one JSON line, as bench/engine.c
 *   build/bench/candidates --check [threads 2] [n=64] … device=cuda    instead, how far each learner's way differs from the CPU's, at most
 *   build/bench/candidates --list [n=64] [inits=1] [T=32] [B=64] [data=FILE]     the same networks as JSON, for the peers
 * The networks are draws of the space `chain` for 1x28x28 images and 10 classes, by a fixed seed, no two alike; each is trained from `inits`
 * initialisations. On a device these are one slab: networks of one shape are batched, those of different shapes run side by side as far as
 * there are threads. Plans and slabs are made inside the timed run, for each candidate needs its own. `value` is the mean length of
 * w_T - w_0, by which the peers' runs on the same data (FILE: float32, the images and every learner's w_0 in the outside order) show that they
 * compute the same. */
#include "bench/workload.h"
#include "common/rng.h"
#include "common/space.h"
#include "worker/engine/engine.h"
#include "worker/engine/slab.h"
#include "worker/par.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SEED = 64064, SIDE = 28, MOST_THREADS = 256, MOST_STEPS = 1024, MOST_BATCH = 4096 };
static const double LR = 0.001, MU = 0.9; /* small: no draw diverges on noise, and all steps are taken */

struct bench {
    int n, inits, T, B, threads;
    const struct device *device; /* NULL: the CPU */
    struct net *net;
    char  (*text)[ARCH_TEXT_MAX];
    float  *x, *y;
    double *lr, *mu;
    double *moved;               /* [n,inits] |w_T - w_0| */
    uint64_t room;               /* of the device, a thread's share */
    pthread_mutex_t lock;        /* of the two below */
    uint64_t bytes, most;        /* on the device: now, and at most */
};

static void draw(struct bench *b)
{
    const struct space *s = space_find("chain");
    struct errbuf e = { 0 };
    b->net = need((size_t)b->n, sizeof *b->net);
    b->text = need((size_t)b->n, sizeof *b->text);
    for (int i = 0, try = 0; i < b->n; try++) {
        struct rng r;
        bool fresh = true;
        rng_init(&r, SEED, RNG_TEST, (uint64_t)try);
        s->random(s, &r, b->text[i]);
        for (int k = 0; k < i; k++)
            fresh &= strcmp(b->text[k], b->text[i]) != 0;
        if (fresh) {
            die(space_build(s, b->text[i], 1, SIDE, SIDE, K, NULL, &b->net[i], &e), &e);
            i++;
        }
    }
}

static void fill(struct bench *b)
{
    const size_t images = (size_t)b->T * (size_t)b->B;
    struct rng r;
    rng_init(&r, SEED, RNG_TEST, 1u << 30);
    b->x = need(images * SIDE * SIDE, sizeof *b->x);
    b->y = need(images * K, sizeof *b->y);
    b->lr = need(2 * (size_t)b->T, sizeof *b->lr);
    b->mu = b->lr + b->T;
    b->moved = need((size_t)b->n * (size_t)b->inits, sizeof *b->moved);
    for (size_t i = 0; i < images * SIDE * SIDE; i++)
        b->x[i] = (float)(2 * rng_uniform(&r) - 1);
    for (size_t i = 0; i < images; i++)
        b->y[i * K + i % K] = 1;
    for (int t = 0; t < b->T; t++) {
        b->lr[t] = LR;
        b->mu[t] = MU;
    }
}

static void first_weights(const struct bench *b, int i, int init, float *w) { eng_params_init(&b->net[i], ENG_F32, (uint64_t)i * (uint64_t)b->inits + (uint64_t)init, w); }

static double distance(size_t n, const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

static void train(void *arg, int i, int thread)
{
    const struct bench *b = arg;
    const struct net *n = &b->net[i];
    const size_t P = n->param_count;
    struct unroll_cfg cfg = { .learner = n, .dtype = ENG_F32, .T = b->T, .B = b->B, .inner = inner_default() };
    struct unroll *u;
    struct errbuf e = { 0 };
    (void)thread;
    float *w0 = need(2 * P, sizeof *w0);
    die(unroll_new(&cfg, &u, &e), &e);
    struct unroll_in in = { .w0 = w0, .x = b->x, .y = b->y, .lr = b->lr, .mu = b->mu };
    for (int k = 0; k < b->inits; k++) {
        first_weights(b, i, k, w0);
        die(unroll_train(u, &in, NULL, w0 + P, NULL, NULL, NULL, &e), &e);
        b->moved[(size_t)i * (size_t)b->inits + (size_t)k] = distance(P, w0, w0 + P);
    }
    unroll_free(u);
    free(w0);
}

static void count_bytes(struct bench *b, uint64_t more, uint64_t less)
{
    pthread_mutex_lock(&b->lock);
    b->bytes += more - less;
    b->most = b->bytes > b->most ? b->bytes : b->most;
    pthread_mutex_unlock(&b->lock);
}

static void train_slab(struct bench *b, const struct slab_cfg *cfg, int i, int first)
{
    const size_t P = cfg->learner->param_count, n = (size_t)cfg->K * P;
    struct errbuf e = { 0 };
    struct slab *s;
    die(slab_new(cfg, &s, &e), &e);
    const uint64_t bytes = slab_bytes(s);
    count_bytes(b, bytes, 0);
    float *w0 = need(2 * n, sizeof *w0);
    for (int k = 0; k < cfg->K; k++)
        first_weights(b, i, first + k, w0 + (size_t)k * P);
    const struct slab_in in = { .w0 = w0, .x = b->x, .y = b->y, .lr = b->lr, .mu = b->mu };
    const struct slab_out out = { .wT = w0 + n };
    die(slab_run(s, &in, &out, &e), &e);
    for (int k = 0; k < cfg->K; k++)
        b->moved[(size_t)i * (size_t)b->inits + (size_t)(first + k)] = distance(P, w0 + (size_t)k * P, w0 + n + (size_t)k * P);
    slab_free(s);
    count_bytes(b, 0, bytes);
    free(w0);
}

static void train_there(void *arg, int i, int thread)
{
    struct bench *b = arg;
    struct slab_cfg cfg = { .learner = &b->net[i], .device = b->device, .T = b->T, .B = b->B, .inner = inner_default() };
    struct errbuf e = { 0 };
    uint64_t bytes;
    int most;
    (void)thread;
    die(slab_fit(&cfg, b->room, b->inits, &most, &bytes, &e), &e);
    if (most == 0)
        die(err_set(&e, ERR_NOMEM, "%s needs %llu MiB on the device", b->text[i], (unsigned long long)(bytes >> 20)), &e);
    for (int done = 0; done < b->inits; done += cfg.K) {
        cfg.K = b->inits - done < most ? b->inits - done : most;
        train_slab(b, &cfg, i, done);
    }
}

static void train_all(struct bench *b) { par_run(b->threads, b->n, b->device ? train_there : train, b); }

static double mean_moved(const struct bench *b)
{
    const int learners = b->n * b->inits;
    double sum = 0;
    for (int i = 0; i < learners; i++)
        sum += b->moved[i];
    return sum / learners;
}

/* The device's learners against the CPU's. Not a number is not near; nor is one that has not moved there and here: nothing trained it. */
static int check(struct bench *b)
{
    const size_t learners = (size_t)b->n * (size_t)b->inits;
    double *there = need(learners, sizeof *there), off = 0;
    const struct device *d = b->device;
    train_all(b);
    memcpy(there, b->moved, learners * sizeof *there);
    b->device = NULL;
    train_all(b);
    for (size_t i = 0; i < learners; i++) {
        const double far = fabs(there[i] - b->moved[i]) / b->moved[i];
        off = isnan(far) ? HUGE_VAL : fmax(off, far);
    }
    printf("{\"w\":\"candidates\",\"device\":\"%s\",\"n\":%d,\"inits\":%d,\"T\":%d,\"moved\":%.2g}\n", d->name(), b->n, b->inits, b->T, off);
    free(there);
    return off <= 0.01 ? 0 : 70;
}

static uint64_t first_macs(const struct net *n)
{
    uint64_t sum = 0;
    for (int i = 1; i < n->n_nodes; i++)
        sum += n->node[i].in[0] == 0 ? net_node_macs(n, i) : 0;
    return sum;
}

/* ---- the list for the peers: the node form of bench/peers/workloads.py ---- */

static json_t *json_param(const struct net_param *q)
{
    json_t *dims = json_array();
    for (int i = 0; i < q->ndim; i++)
        json_array_append_new(dims, json_integer(q->dim[i]));
    long long fan = q->role == NET_WEIGHT || q->role == NET_WEIGHT_V ? (long long)q->fan_in : q->role == NET_BIAS || q->role == NET_BN_BIAS ? 0 : -1;
    return json_pack("[s, o, I]", q->name, dims, (json_int_t)fan);
}

static json_t *json_node(const struct net *n, int i)
{
    const struct net_node *l = &n->node[i];
    json_t *src = json_array(), *params = json_array();
    for (int k = 0; k < l->n_in; k++)
        json_array_append_new(src, json_integer(l->in[k]));
    for (int k = 0; k < l->n_params; k++)
        json_array_append_new(params, json_param(&n->param[l->param0 + k]));
    return json_pack("{s:s, s:o, s:o, s:[iii], s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f}", "op", net_op_name(l->op), "src", src, "params", params,
                     "shape", l->shape.c, l->shape.h, l->shape.w, "macs", (json_int_t)net_node_macs(n, i), "k", l->at.k, "stride", l->at.stride, "pad", l->at.pad,
                     "dilation", l->at.dilation, "groups", l->at.groups, "bias", l->at.bias, "wn", l->at.wn, "mean_only", l->at.mean_only, "eps", l->at.eps,
                     "slope", l->at.slope);
}

static void write_data(const struct bench *b, const char *path)
{
    const size_t images = (size_t)b->T * (size_t)b->B;
    struct errbuf e = { 0 };
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(b->x, sizeof(float) * SIDE * SIDE, images, f) == images; /* one channel: both orders are one */
    for (int i = 0; ok && i < b->n * b->inits; i++) {
        const struct net *n = &b->net[i / b->inits];
        const size_t P = n->param_count;
        float *w = need(2 * P, sizeof *w);
        first_weights(b, i / b->inits, i % b->inits, w);
        eng_params_export(n, ENG_F32, w, w + P);
        ok = fwrite(w + P, sizeof *w, P, f) == P;
        free(w);
    }
    if (f && fclose(f) != 0)
        ok = false;
    if (!ok)
        die(err_set(&e, ERR_IO, "%s: cannot be written", path), &e);
}

static void print_list(const struct bench *b)
{
    json_t *nets = json_array();
    for (int i = 0; i < b->n; i++) {
        json_t *nodes = json_array();
        for (int k = 0; k < b->net[i].n_nodes; k++)
            json_array_append_new(nodes, json_node(&b->net[i], k));
        json_array_append_new(nets, json_pack("{s:s, s:I, s:I, s:o}", "text", b->text[i], "macs", (json_int_t)net_macs(&b->net[i]), "first_macs",
                                              (json_int_t)first_macs(&b->net[i]), "nodes", nodes));
    }
    json_t *j = json_pack("{s:i, s:i, s:i, s:i, s:[iii], s:f, s:f, s:o}", "inits", b->inits, "steps", b->T, "batch", b->B, "classes", K, "image", 1, SIDE, SIDE, "lr", LR, "mu", MU, "nets", nets);
    if (!j)
        die(-ERR_NOMEM, NULL);
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
}

static void time_runs(struct bench *b, int runs, bool serve)
{
    enum { CAP = 1000 };
    double s[CAP], gflop = 0;
    char line[64];
    int done = 0;
    struct rusage ru;
    for (int i = 0; i < b->n; i++)
        gflop += 2e-9 * b->inits * b->T * b->B * (3 * (double)net_macs(&b->net[i]) - (double)first_macs(&b->net[i]));
    train_all(b);
    if (serve) {
        puts("ready");
        fflush(stdout);
    }
    while (done < CAP && (serve ? fgets(line, sizeof line, stdin) != NULL : done < runs)) {
        double t0 = now();
        train_all(b);
        s[done] = now() - t0;
        if (serve) {
            printf("%.6f\n", s[done]);
            fflush(stdout);
        }
        done++;
    }
    if (done == 0)
        return;
    qsort(s, (size_t)done, sizeof *s, by_value);
    getrusage(RUSAGE_SELF, &ru);
    printf("{\"impl\":\"didact\",\"version\":\"" DIDACT_VERSION "\",\"w\":\"candidates\",\"what\":\"%d x %d\",\"inits\":%d,\"threads\":%d,\"variant\":\"%s\",\"T\":%d,\"runs\":%d,"
           "\"median_s\":%.4f,\"min_s\":%.4f,\"max_s\":%.4f,\"gflop\":%.2f,\"gflops\":%.2f,\"value\":[%.7g],\"peak_rss_mib\":%ld",
           b->n * b->inits, b->T, b->inits, b->threads, b->device ? b->device->kind : eng_isa(), b->T, done, s[done / 2], s[0], s[done - 1], gflop, gflop / s[done / 2], mean_moved(b),
           ru.ru_maxrss / 1024);
    if (b->device)
        printf(",\"device\":\"%s\",\"device_mib\":%.0f", b->device->name(), (double)b->most / 1048576);
    puts("}");
}

int main(int argc, char **argv)
{
    struct bench b = { .n = 64, .inits = 1, .T = 32, .B = 64, .lock = PTHREAD_MUTEX_INITIALIZER };
    struct errbuf e = { 0 };
    int number[2] = { 2, 3 }, at = 0;
    bool list = false, serve = false, compare = false;
    const char *device = "cpu", *data = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) list = true;
        else if (strcmp(argv[i], "--serve") == 0) serve = true;
        else if (strcmp(argv[i], "--check") == 0) compare = true;
        else if (strncmp(argv[i], "n=", 2) == 0) b.n = whole(argv[i] + 2, 1, 4096);
        else if (strncmp(argv[i], "inits=", 6) == 0) b.inits = whole(argv[i] + 6, 1, SLAB_MAX_LEARNERS);
        else if (strncmp(argv[i], "T=", 2) == 0) b.T = whole(argv[i] + 2, 1, MOST_STEPS);
        else if (strncmp(argv[i], "B=", 2) == 0) b.B = whole(argv[i] + 2, 2, MOST_BATCH);
        else if (strncmp(argv[i], "device=", 7) == 0) device = argv[i] + 7;
        else if (strncmp(argv[i], "data=", 5) == 0) data = argv[i] + 5;
        else if (at < 2) number[at] = whole(argv[i], 1, at ? 1000 : MOST_THREADS), at++;
        else at++;
    }
    if (at > 2 || number[0] < 0 || number[1] < 0 || b.n < 0 || b.inits < 0 || b.T < 0 || b.B < 0 || (data && !list) || (compare && strcmp(device, "cpu") == 0)) {
        fprintf(stderr, "usage: candidates [threads 2] [runs 3] [n=64] [inits=1] [T=32] [B=64] [device=cuda] [--serve | --check | --list [data=FILE]]\n");
        return 64;
    }
    die(eng_init(getenv("DIDACT_ISA"), &e), &e);
    b.threads = number[0];
    draw(&b);
    fill(&b);
    if (list) {
        if (data)
            write_data(&b, data);
        print_list(&b);
        return 0;
    }
    die(device_open(device, &b.device, &e), &e);
    b.room = b.device ? (uint64_t)(DEVICE_SHARE * (double)b.device->free_bytes()) / (uint64_t)b.threads : 0;
    if (compare)
        return check(&b);
    time_runs(&b, number[1], serve);
    return 0;
}
