#include "worker/latency.h"

#include "worker/mem.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARM_RUNS = 3, LEAST_RUNS = 15, MOST_RUNS = 501 };
#define LEAST_MS 50.0

static double thread_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int latency_measure(const struct net *n, const struct real_data *data, int batch, bool (*cancelled)(void *arg), void *arg, double *ms,
                    struct errbuf *e)
{
    const struct dataset *d = &data->d;
    const uint64_t image = (uint64_t)d->c * (uint64_t)d->h * (uint64_t)d->w;
    struct eng_plan *plan = NULL;
    double took[MOST_RUNS], sum = 0;
    if (d->n[SPLIT_VALID] < 1)
        return err_set(e, ERR_INPUT, "dataset %s has no validation images", d->hash);
    float *w = mem_array(n->param_count, sizeof *w), *x = mem_array((uint64_t)batch * image, sizeof *x);
    int rc = w && x ? eng_plan_new(n, batch, ENG_F32, ENG_RUNNING, &plan, e) : err_set(e, ERR_NOMEM, "a pass of %d images", batch);
    if (rc == 0) {
        eng_params_init(n, ENG_F32, 1, w);
        for (int i = 0; i < batch; i++)
            memcpy(x + (size_t)i * image, data->valid_x + (size_t)((uint32_t)i % d->n[SPLIT_VALID]) * image, image * sizeof *x);
        eng_set_evaluation(plan, true);
    }
    int runs = -WARM_RUNS;
    for (; rc == 0 && runs < MOST_RUNS && (runs < LEAST_RUNS || sum < LEAST_MS); runs++) {
        const double begin = thread_ms();
        eng_forward(plan, w, x, NULL);
        const double t = thread_ms() - begin;
        if (runs >= 0)
            sum += took[runs] = t;
        if (cancelled && cancelled(arg))
            rc = err_set(e, ERR_CANCELLED, "cancelled");
    }
    if (rc == 0)
        *ms = median(took, runs);
    eng_plan_free(plan);
    free(w);
    free(x);
    return rc;
}
