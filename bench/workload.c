#include "bench/workload.h"
#include "common/rng.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CNN(a, b, flat) \
    "[{\"type\":\"conv\",\"in\":1,\"out\":" a ",\"k\":3,\"pad\":1},{\"type\":\"bn\",\"c\":" a "},{\"type\":\"relu\"},{\"type\":\"maxpool\",\"k\":2}," \
    "{\"type\":\"conv\",\"in\":" a ",\"out\":" b ",\"k\":3,\"pad\":1},{\"type\":\"bn\",\"c\":" b "},{\"type\":\"relu\"},{\"type\":\"maxpool\",\"k\":2}," \
    "{\"type\":\"flatten\"},{\"type\":\"linear\",\"in\":" flat ",\"out\":10}]"
#define SEP(i, o, s) "{\"type\":\"relu\"},{\"type\":\"sepconv\",\"in\":" i ",\"out\":" o ",\"k\":3,\"stride\":" s ",\"pad\":1},{\"type\":\"bn\",\"c\":" o "}"
#define CELL(c) "{\"type\":\"residual\",\"body\":[" SEP(c, c, "1") "," SEP(c, c, "1") "],\"shortcut\":[]}"
#define RED(c, d) \
    "{\"type\":\"residual\",\"body\":[" SEP(c, d, "2") "],\"shortcut\":[{\"type\":\"conv\",\"in\":" c ",\"out\":" d ",\"k\":1,\"stride\":2},{\"type\":\"bn\",\"c\":" d "}]}"

const struct workload workloads[N_WORKLOADS] = {
    { "W1", CNN("16", "32", "1568"), 1, 28, 28, 32, 128, 0.02, 0.9 },
    { "W2", CNN("64", "128", "6272"), 1, 28, 28, 32, 128, 0.002, 0.9 },
    { "W3", "[{\"type\":\"conv\",\"in\":3,\"out\":16,\"k\":3,\"pad\":1},{\"type\":\"bn\",\"c\":16}," CELL("16") "," RED("16", "32") "," CELL("32")
            "," RED("32", "64") "," CELL("64") ",{\"type\":\"relu\"},{\"type\":\"gap\"},{\"type\":\"linear\",\"in\":64,\"out\":10}]",
      3, 32, 32, 16, 64, 0.05, 0.9 },
};

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void die(int rc, const struct errbuf *e)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "bench: %s\n", err_message(e, rc));
    exit(err_exit_status(rc));
}

void parse(struct net *n, const char *text)
{
    struct errbuf e = { 0 };
    json_t *j = json_loads(text, 0, NULL);
    die(net_from_json(n, j, "workload", &e), &e);
    json_decref(j);
}

float *noise(size_t n, uint64_t seed)
{
    float *x = malloc(n * sizeof *x);
    struct rng r;
    rng_init(&r, seed, RNG_TEST, n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(2 * rng_uniform(&r) - 1);
    return x;
}

float *labels(size_t n)
{
    float *y = calloc(n * K, sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i * K + i % K] = 1;
    return y;
}

void *need(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        die(-ERR_NOMEM, NULL);
    return p;
}

int whole(const char *text, int least, int most)
{
    char *end;
    const long n = strtol(text, &end, 10);
    return end == text || *end || n < least || n > most ? -1 : (int)n;
}

int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : 1; }

void parse_generator(struct net *n, const struct workload *w)
{
    char text[1024];
    snprintf(text, sizeof text,
             "[{\"type\":\"linear\",\"in\":74,\"out\":512},{\"type\":\"lrelu\",\"slope\":0.1},"
             "{\"type\":\"linear\",\"in\":512,\"out\":%d},{\"type\":\"reshape\",\"shape\":[128,%d,%d]},{\"type\":\"bn\",\"c\":128},{\"type\":\"lrelu\",\"slope\":0.1},"
             "{\"type\":\"up2\"},{\"type\":\"conv\",\"in\":128,\"out\":64,\"k\":3,\"pad\":1},{\"type\":\"bn\",\"c\":64},{\"type\":\"lrelu\",\"slope\":0.1},"
             "{\"type\":\"up2\"},{\"type\":\"conv\",\"in\":64,\"out\":%d,\"k\":3,\"pad\":1,\"bias\":1},{\"type\":\"tanh\"}]",
             128 * w->h / 4 * w->w / 4, w->h / 4, w->w / 4, w->c);
    parse(n, text);
}
