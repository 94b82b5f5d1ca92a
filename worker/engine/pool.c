/* pool.c - helpers that share the tasks of one call. Who takes which does not matter to the result, since outputs are disjoint and every sum's
 * order is fixed by the task. It matters to the caches: what a thread's task of the last op wrote lies in its own. So tasks are cut into even
 * shares, one a thread; who is through with its own takes from the others'.
 *
 * An op on a block of images lasts some tens of microseconds, about as long as it takes to wake a thread. So whoever waits looks for a while
 * before it sleeps, longer than the caller is at work alone between two calls: Linux likes to wake a thread on the waker's own processor,
 * where it comes too late every time. And a call waits for the helpers that came, not for those that are still waking up: a
 * gate counts who is inside, and is closed when no task is left. */
#include "worker/engine/op.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8 };        /* ops size their scratch for KERNEL_THREADS (cpu/geom.h) threads: no more take part */
enum { LOOKS = 20000, YIELD = 1000 }; /* a millisecond; every 50 microseconds whoever else wants the processor may have it */
#define CLOSED (1u << 16) /* of the gate; below it: helpers inside */

struct share { _Alignas(64) atomic_int next; int end; }; /* tasks next … end - 1 are to be taken */

struct eng_pool {
    struct share    share[MOST];
    int             n_helpers;
    pthread_t      *thread;
    pthread_mutex_t lock;
    pthread_cond_t  work, done;
    atomic_uint     round;     /* of work */
    atomic_uint     gate;
    atomic_int      sleeping;  /* helpers that want `work` signalled */
    atomic_bool     waiting;   /* the caller wants `done` signalled */
    atomic_bool     stop;
    void          (*fn)(void *arg, int i, int thread); /* these, and the ends of shares, change while nobody is inside */
    void           *arg;
};
struct helper { struct eng_pool *pool; int number; };

static inline void look_again(int i)
{
    if (i % YIELD == YIELD - 1)
        sched_yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void drain(struct eng_pool *p, int thread)
{
    const int threads = p->n_helpers + 1;
    for (int k = 0; k < threads; k++) {
        struct share *s = &p->share[(thread + k) % threads];
        for (int i; (i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed)) < s->end;)
            p->fn(p->arg, i, thread);
    }
}

/* Until there is a round after `seen`, or an end. */
static void await_work(struct eng_pool *p, unsigned seen)
{
    for (int i = 0; i < LOOKS; i++) {
        if (atomic_load(&p->round) != seen || atomic_load(&p->stop))
            return;
        look_again(i);
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1); /* before the last look: begin_round looks here after it has changed the round */
    while (atomic_load(&p->round) == seen && !atomic_load(&p->stop))
        pthread_cond_wait(&p->work, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
}

static bool enter(struct eng_pool *p)
{
    unsigned now = atomic_load(&p->gate);
    while (!(now & CLOSED))
        if (atomic_compare_exchange_weak(&p->gate, &now, now + 1))
            return true;
    return false;
}

static void leave(struct eng_pool *p)
{
    if (atomic_fetch_sub(&p->gate, 1) == (CLOSED | 1) && atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

static void *helper_main(void *arg)
{
    struct helper h = *(struct helper *)arg;
    struct eng_pool *p = h.pool;
    unsigned seen = 0;
    free(arg);
    eng_thread_init();
    for (;;) {
        await_work(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->round);
        if (enter(p)) { /* this round or, who was slow, the next one */
            drain(p, h.number);
            leave(p);
        }
    }
}

int eng_pool_new(int n_threads, struct eng_pool **out, struct errbuf *e)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > 1024)
        return err_set(e, ERR_USAGE, "threads must be 1 to 1024, not %d", n_threads);
    struct eng_pool *p = aligned_alloc(_Alignof(struct eng_pool), sizeof *p);
    if (p)
        memset(p, 0, sizeof *p);
    if (!p || !(p->thread = calloc((size_t)n_threads, sizeof *p->thread))) {
        free(p);
        return err_set(e, ERR_NOMEM, "no memory for %d threads", n_threads);
    }
    atomic_init(&p->gate, CLOSED);
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
    atomic_store(&p->stop, true);
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

static void begin_round(struct eng_pool *p, int n)
{
    const int threads = p->n_helpers + 1;
    for (int t = 0; t < threads; t++) {
        atomic_store_explicit(&p->share[t].next, (int)((int64_t)n * t / threads), memory_order_relaxed);
        p->share[t].end = (int)((int64_t)n * (t + 1) / threads);
    }
    atomic_store(&p->gate, 0);
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
}

/* Nobody comes in any more; until everybody is out. */
static void end_round(struct eng_pool *p)
{
    unsigned inside = atomic_fetch_or(&p->gate, CLOSED) & ~CLOSED;
    for (int i = 0; i < LOOKS && inside; i++) {
        look_again(i);
        inside = atomic_load(&p->gate) & ~CLOSED;
    }
    if (!inside)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, true); /* before the last look: who leaves looks here after that */
    while (atomic_load(&p->gate) & ~CLOSED)
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->lock);
}

void eng_pool_for(struct eng_pool *p, int n, void (*fn)(void *arg, int i, int thread), void *arg)
{
    if (!p || p->n_helpers == 0 || n <= 1) {
        for (int i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    begin_round(p, n);
    drain(p, 0);
    end_round(p);
}
