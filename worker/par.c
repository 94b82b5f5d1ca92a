#include "worker/par.h"

#include "worker/engine/engine.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAR_MAX 256

struct crew {
    void (*fn)(void *, int, int);
    void      *arg;
    int        n;
    atomic_int next;
};
struct hand { struct crew *crew; int id; pthread_t thread; };

static void work(struct crew *c, int id)
{
    int i;
    while ((i = atomic_fetch_add(&c->next, 1)) < c->n)
        c->fn(c->arg, i, id);
}

static void *body(void *p)
{
    struct hand *h = p;
    eng_thread_init();
    work(h->crew, h->id);
    return NULL;
}

void par_run(int threads, int n, void (*fn)(void *, int, int), void *arg)
{
    struct crew c = { .fn = fn, .arg = arg, .n = n };
    struct hand hand[PAR_MAX];
    int started = 0;
    atomic_init(&c.next, 0);
    threads = threads > n ? n : threads > PAR_MAX ? PAR_MAX : threads;
    for (int i = 1; i < threads; i++) {
        hand[started] = (struct hand){ .crew = &c, .id = i };
        if (pthread_create(&hand[started].thread, NULL, body, &hand[started]) != 0)
            break;
        started++;
    }
    eng_thread_init();
    work(&c, 0);
    for (int i = 0; i < started; i++)
        pthread_join(hand[i].thread, NULL);
}
