/* candidates.c - train many different small networks, as a scoring worker does: one learner a thread.
 *   build/bench/candidates [threads 2] [runs 3] [n=64] [T=32] [B=64] [--serve]    one JSON line, as bench/engine.c
 *   build/bench/candidates --list [n=64] [T=32] [B=64]                            the same networks as JSON, for the peers
 * The networks are draws of the space `chain` for 1x28x28 images and 10 classes, by a fixed seed; plans are made inside the
 * timed run, for each candidate needs its own. */
#include "common/rng.h"
#include "common/space.h"
#include "worker/engine/engine.h"
#include "worker/par.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { SEED = 64064, SIDE = 28, K = 10 };
static const double LR = 0.001, MU = 0.9; /* small: no draw diverges on noise, and all steps are taken */

struct bench {
    int n, T, B;
    struct net *net;
    char  (*text)[ARCH_TEXT_MAX];
    float  *x, *y;
    double *lr, *mu;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(int rc, const struct errbuf *e)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "candidates: %s\n", err_message(e, rc));
    exit(err_exit_status(rc));
}

static void *need(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        die(-ERR_NOMEM, NULL);
    return p;
}

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
    for (size_t i = 0; i < images * SIDE * SIDE; i++)
        b->x[i] = (float)(2 * rng_uniform(&r) - 1);
    for (size_t i = 0; i < images; i++)
        b->y[i * K + i % K] = 1;
    for (int t = 0; t < b->T; t++) {
        b->lr[t] = LR;
        b->mu[t] = MU;
    }
}

static void train(void *arg, int i, int thread)
{
    const struct bench *b = arg;
    const struct net *n = &b->net[i];
    struct unroll_cfg cfg = { .learner = n, .dtype = ENG_F32, .T = b->T, .B = b->B, .inner = inner_default() };
    struct unroll *u;
    struct errbuf e = { 0 };
    (void)thread;
    float *w0 = need(n->param_count, sizeof *w0);
    eng_params_init(n, ENG_F32, (uint64_t)i, w0);
    die(unroll_new(&cfg, &u, &e), &e);
    struct unroll_in in = { .w0 = w0, .x = b->x, .y = b->y, .lr = b->lr, .mu = b->mu };
    die(unroll_train(u, &in, NULL, w0, NULL, NULL, NULL, &e), &e);
    unroll_free(u);
    free(w0);
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
    json_t *j = json_pack("{s:i, s:i, s:i, s:[iii], s:f, s:f, s:o}", "steps", b->T, "batch", b->B, "classes", K, "image", 1, SIDE, SIDE, "lr", LR, "mu", MU, "nets", nets);
    if (!j)
        die(-ERR_NOMEM, NULL);
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
}

static int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : 1; }

static void time_runs(struct bench *b, int threads, int runs, bool serve)
{
    enum { CAP = 1000 };
    double s[CAP], gflop = 0;
    char line[64];
    int done = 0;
    struct rusage ru;
    for (int i = 0; i < b->n; i++)
        gflop += 2e-9 * b->T * b->B * (3 * (double)net_macs(&b->net[i]) - (double)first_macs(&b->net[i]));
    par_run(threads, b->n, train, b);
    if (serve) {
        puts("ready");
        fflush(stdout);
    }
    while (done < CAP && (serve ? fgets(line, sizeof line, stdin) != NULL : done < runs)) {
        double t0 = now();
        par_run(threads, b->n, train, b);
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
    printf("{\"impl\":\"didact\",\"version\":\"" DIDACT_VERSION "\",\"w\":\"candidates\",\"what\":\"%d x %d\",\"threads\":%d,\"variant\":\"%s\",\"T\":%d,\"runs\":%d,"
           "\"median_s\":%.4f,\"min_s\":%.4f,\"max_s\":%.4f,\"gflop\":%.2f,\"gflops\":%.2f,\"peak_rss_mib\":%ld}\n",
           b->n, b->T, threads, eng_isa(), b->T, done, s[done / 2], s[0], s[done - 1], gflop, gflop / s[done / 2], ru.ru_maxrss / 1024);
}

int main(int argc, char **argv)
{
    struct bench b = { .n = 64, .T = 32, .B = 64 };
    struct errbuf e = { 0 };
    int number[2] = { 2, 3 }, at = 0;
    bool list = false, serve = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) list = true;
        else if (strcmp(argv[i], "--serve") == 0) serve = true;
        else if (strncmp(argv[i], "n=", 2) == 0) b.n = atoi(argv[i] + 2);
        else if (strncmp(argv[i], "T=", 2) == 0) b.T = atoi(argv[i] + 2);
        else if (strncmp(argv[i], "B=", 2) == 0) b.B = atoi(argv[i] + 2);
        else if (at < 2) number[at++] = atoi(argv[i]);
        else at++;
    }
    if (at > 2 || number[0] < 1 || number[1] < 1 || number[1] > 1000 || b.n < 1 || b.n > 4096 || b.T < 1 || b.B < 2) {
        fprintf(stderr, "usage: candidates [threads 2] [runs 3] [n=64] [T=32] [B=64] [--serve | --list]\n");
        return 64;
    }
    die(eng_init(getenv("DIDACT_ISA"), &e), &e);
    draw(&b);
    if (list) {
        print_list(&b);
        return 0;
    }
    fill(&b);
    time_runs(&b, number[0], number[1], serve);
    return 0;
}
