/* pool.c - helpers that share the tasks of one call. Tasks are taken from a counter: who takes which does not matter,
 * since outputs are disjoint and every sum's order is fixed by the task. */
#include "worker/engine/op.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MOST = 8 }; /* ops size their scratch for KERNEL_THREADS (cpu/geom.h) threads: no more take part */

struct eng_pool {
    int             n_helpers;
    pthread_t      *thread;
    pthread_mutex_t lock;
    pthread_cond_t  work, done;
    uint64_t        round;      /* of work, under lock */
    int             busy;       /* helpers that have not finished this round */
    bool            stop;
    void          (*fn)(void *arg, int i, int thread);
    void           *arg;
    int             n;
    atomic_int      next;
};
struct helper { struct eng_pool *pool; int number; };

static void drain(struct eng_pool *p, int thread)
{
    for (int i; (i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n;)
        p->fn(p->arg, i, thread);
}

static void *helper_main(void *arg)
{
    struct helper h = *(struct helper *)arg;
    struct eng_pool *p = h.pool;
    free(arg);
    eng_thread_init();
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->round == seen)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->stop)
            break;
        seen = p->round;
        pthread_mutex_unlock(&p->lock);
        drain(p, h.number);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int eng_pool_new(int n_threads, struct eng_pool **out, struct errbuf *e)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > 1024)
        return err_set(e, ERR_USAGE, "threads must be 1 to 1024, not %d", n_threads);
    struct eng_pool *p = calloc(1, sizeof *p);
    if (!p || !(p->thread = calloc((size_t)n_threads, sizeof *p->thread))) {
        free(p);
        return err_set(e, ERR_NOMEM, "no memory for %d threads", n_threads);
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < n_threads && i < MOST; i++) {
        struct helper *h = malloc(sizeof *h);
        if (h)
            *h = (struct helper){ p, i };
        if (!h || pthread_create(&p->thread[p->n_helpers], NULL, helper_main, h) != 0) {
            free(h);
            eng_pool_free(p);
            return err_set(e, ERR_NOMEM, "cannot start thread %d of %d", i + 1, n_threads);
        }
        p->n_helpers++;
    }
    *out = p;
    return 0;
}

void eng_pool_free(struct eng_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_helpers; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p->thread);
    free(p);
}

int eng_pool_threads(const struct eng_pool *p)
{
    return p ? p->n_helpers + 1 : 1;
}

void eng_pool_for(struct eng_pool *p, int n, void (*fn)(void *arg, int i, int thread), void *arg)
{
    if (!p || p->n_helpers == 0 || n <= 1) {
        for (int i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    atomic_store(&p->next, 0);
    p->busy = p->n_helpers;
    p->round++;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    drain(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->busy > 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
