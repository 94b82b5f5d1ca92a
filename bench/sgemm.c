/* sgemm.c - what this machine can do at all: OpenBLAS's single-precision product of square matrices.
 *   build/bench/sgemm THREADS [size 1536] [runs 5]
 * One JSON line: GFLOP/s of the best and the median run; library and core that OpenBLAS chose. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : 1; }

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1, n = argc > 2 ? atoi(argv[2]) : 1536, runs = argc > 3 ? atoi(argv[3]) : 5;
    if (threads < 1 || n < 1 || n > 16384 || runs < 1 || runs > 1000) {
        fprintf(stderr, "usage: sgemm THREADS [size 1536] [runs 5]\n");
        return 64;
    }
    size_t nn = (size_t)n * (size_t)n;
    float *a = malloc(nn * sizeof *a), *b = malloc(nn * sizeof *b), *c = calloc(nn, sizeof *c);
    double *s = malloc((size_t)runs * sizeof *s);
    if (!a || !b || !c || !s)
        return 75;
    for (size_t i = 0; i < nn; i++) {
        a[i] = (float)(i % 7) - 3;
        b[i] = (float)(i % 5) - 2;
    }
    openblas_set_num_threads(threads);
    for (int i = -1; i < runs; i++) {
        double t0 = now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, a, n, b, n, 0, c, n);
        if (i >= 0)
            s[i] = now() - t0;
    }
    qsort(s, (size_t)runs, sizeof *s, by_value);
    double gflop = 2e-9 * n * (double)n * n;
    printf("{\"threads\":%d,\"size\":%d,\"runs\":%d,\"best_gflops\":%.1f,\"median_gflops\":%.1f,\"core\":\"%s\",\"library\":\"%s\"}\n", threads, n, runs,
           gflop / s[0], gflop / s[runs / 2], openblas_get_corename(), openblas_get_config());
    return 0;
}
