#include "worker/teacher_device.h"

#include "worker/engine/slab.h"
#include "worker/mem.h"
#include "worker/par.h"
#include "worker/teacher_int.h"

#include <math.h>

#define REAL      0.25 /* of the memory: the dataset stays there if it takes no more */
#define GENERATOR 0.5  /* of what is left beside the images: the rest is the learners' */
enum { CACHE = 64 };

/* A slab with the network that it is for. */
struct kept {
    struct net   net;         /* owned */
    struct slab *slab;        /* owned; NULL: this place is free */
    int          n, K;        /* as slab_fit has cut n learners for `budget` */
    uint64_t     budget, used; /* used: when, by the device's clock */
    bool         busy;
};
struct at_work { struct kept *in; int first, n; };  /* learners order[first …] */
struct bucket { int first, n, K; uint64_t bytes; }; /* of equal networks, and what a slab of K of them takes */

struct teacher_device {
    const struct device *d;   /* borrowed */
    void    *queue;           /* of what is done beside the slabs */
    float   *mem, *x, *y, *dx, *dy; /* mem owned, the others inside */
    struct dev_data real;     /* the dataset's train part; images NULL: no room for it, real batches come from the host */
    void    *real_mem;        /* owned: what it points at, of real_bytes */
    uint64_t real_bytes;
    uint64_t own;             /* bytes of all these */
    uint64_t budget, taken, clock;  /* bytes of slabs: at most, now */
    struct kept    kept[CACHE];
    struct at_work run[CACHE];      /* in the order in which they were started */
    int            n_run;
    struct bucket  bucket[TEACH_MAX_LEARNERS];
    int            n_buckets;
    int            order[TEACH_MAX_LEARNERS]; /* learners, those of one network beside each other */
    float         *staging;   /* owned: what a slab is brought */
    int           *rows;      /* owned: and its real batches by their rows */
    uint64_t       n_staging, n_rows;
};

static uint64_t up(uint64_t floats) { return (floats + 63) & ~(uint64_t)63; } /* 256 bytes */

/* The dataset's train part with what its bytes are worth, where it takes no more than REAL of the room. 0 where it does not. */
static int bring_data(const struct teacher *t, struct teacher_device *v, uint64_t room, struct errbuf *e)
{
    const struct dataset *d = &t->data->d;
    const uint64_t rows = (uint64_t)d->n[SPLIT_TRAIN] + d->n[SPLIT_VALID] + (d->images[1] ? 0 : d->n[SPLIT_TEST]), images = (rows * t->image + 255) & ~(uint64_t)255, labels = rows * sizeof(int);
    const uint64_t bytes = images + labels + 256 * sizeof(float), left = room > v->own ? room - v->own : 0;
    uint8_t level[256];
    float   value[256];
    int    *label;
    if (bytes > (uint64_t)(REAL * (double)left) || !(v->real_mem = v->d->alloc(bytes)))
        return 0;
    if (!(label = mem_array(rows, sizeof *label)))
        return err_set(e, ERR_NOMEM, "%llu labels", (unsigned long long)rows);
    for (int i = 0; i < 256; i++)
        level[i] = (uint8_t)i;
    eng_images_from_u8(256, 1, 1, 1, level, value);
    for (int s = SPLIT_TRAIN; s <= SPLIT_VALID; s++)
        for (uint32_t i = 0; i < d->n[s]; i++)
            label[d->index[s][i]] = dataset_label(d, (enum split)s, i);
    char *at = v->real_mem;
    v->d->put(v->queue, at, d->images[0], rows * t->image);
    v->d->put(v->queue, at + images, label, labels);
    v->d->put(v->queue, at + images + labels, value, sizeof value);
    free(label);
    v->real = (struct dev_data){ (const uint8_t *)at, (const int *)(const void *)(at + images), (const float *)(const void *)(at + images + labels), d->c, d->h * d->w, d->n_classes };
    v->own += v->real_bytes = bytes;
    return v->d->get(v->queue, value, v->real.value, sizeof value, e); /* slabs have queues of their own */
}

int teacher_device_new(const struct teacher *t, const struct device *device, struct teacher_device **out, struct errbuf *e)
{
    struct teacher_device *v = calloc(1, sizeof *v);
    const uint64_t x = up(t->n_x), y = up(t->n_y), dx = t->kind->learns_images ? x : 0, dy = t->cfg.learn_labels ? y : 0;
    *out = NULL;
    if (!v)
        return err_set(e, ERR_NOMEM, "a teacher on a device");
    v->d = device;
    v->own = (x + y + dx + dy) * sizeof *v->mem;
    const uint64_t room = t->device_bytes ? t->device_bytes : device->free_bytes(), own = v->own;
    if (own > room || !(v->queue = device->queue_new()) || !(v->mem = device->alloc(own))) {
        teacher_device_free(v);
        return err_set(e, ERR_NOMEM, "the images need %llu MiB on the device, where they may take %llu MiB", (unsigned long long)((own + 1048575) >> 20), (unsigned long long)(room >> 20));
    }
    v->x = v->mem;
    v->y = v->x + x;
    v->dx = dx ? v->y + y : NULL;
    v->dy = dy ? v->y + y + dx : NULL;
    int rc = bring_data(t, v, room, e);
    if (rc < 0)
        teacher_device_free(v);
    else
        *out = v;
    return rc;
}

/* What stands in the queue reads slabs, too (slab_weigh): their memory is nobody else's before that is done. */
static void settle(struct teacher_device *v) { v->d->wait(v->queue); }

static void drop(struct teacher_device *v, struct kept *k)
{
    settle(v);
    v->taken -= slab_bytes(k->slab);
    slab_free(k->slab);
    net_fini(&k->net);
    *k = (struct kept){ 0 };
}

void teacher_device_free(struct teacher_device *v)
{
    if (!v)
        return;
    for (int i = 0; i < CACHE; i++)
        if (v->kept[i].slab)
            drop(v, &v->kept[i]);
    if (v->mem) {
        settle(v);
        v->d->release(v->mem);
    }
    if (v->real_mem)
        v->d->release(v->real_mem);
    if (v->queue)
        v->d->queue_free(v->queue);
    free(v->staging);
    free(v->rows);
    free(v);
}

float *teacher_device_x(const struct teacher_device *v) { return v->x; }
float *teacher_device_dx(const struct teacher_device *v) { return v->dx; }

static uint64_t without(uint64_t all, uint64_t part) { return all > part ? all - part : 0; }

uint64_t teacher_device_room(const struct teacher *t)
{
    const struct teacher_device *v = t->dev;
    return (uint64_t)(GENERATOR * (double)(t->device_bytes ? without(t->device_bytes, v->own) : v->d->free_bytes()));
}

void teacher_device_ready(struct teacher *t)
{
    struct teacher_device *v = t->dev;
    const uint64_t beside = v->own + (t->gen ? generator_bytes_there(t->gen) : 0);
    v->budget = t->device_bytes ? without(t->device_bytes, beside) : (uint64_t)(DEVICE_SHARE * (double)v->d->free_bytes());
}

/* ---- one slab: what it is brought, and what it says ---- */

static struct slab_cfg slab_of(const struct teacher *t, const struct net *net, int K)
{
    const struct teach_cfg *c = &t->cfg;
    struct slab_cfg s = { .learner = net, .device = t->dev->d, .K = K, .T = c->steps, .B = c->batch, .meta_batch = c->meta_batch, .n_meta = c->n_meta_at + 1, .own_meta = true,
                          .want_dx = t->kind->learns_images, .want_dy = c->learn_labels, .apart = true, .inner = c->inner };
    for (int j = 0; j < s.n_meta; j++) {
        s.meta[j].step = learner_real_step(t, j);
        s.meta[j].weight = learner_real_weight(t, j);
    }
    return s;
}

struct filling { const struct teacher *t; const int *who; int n, K; uint64_t P, bx, by; float *w0, *x, *y; int *row; };

/* Place i of a slab. The last learner fills what is over, and nobody looks at these. */
static void fill(void *arg, int i, int thread)
{
    const struct filling *f = arg;
    const int k = f->who[i < f->n ? i : f->n - 1];
    (void)thread;
    learner_begin(f->t, k, f->w0 + (uint64_t)i * f->P);
    for (int j = 0; j <= f->t->cfg.n_meta_at; j++) {
        const uint64_t at = (uint64_t)j * (uint64_t)f->K + (uint64_t)i;
        if (f->row)
            learner_rows(f->t, k, j, f->row + at * (uint64_t)f->t->cfg.meta_batch);
        else
            learner_real(f->t, k, j, f->x + at * f->bx, f->y + at * f->by);
    }
}

/* Room for n of `size` bytes in place of p, where that has less; NULL: there is no memory. */
static void *hold(void *p, uint64_t *have, uint64_t n, size_t size)
{
    if (n <= *have)
        return p;
    free(p);
    p = mem_array(n, size);
    *have = p ? n : 0;
    return p;
}

static int start(struct teacher *t, struct kept *in, int first, int n, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    const bool there = v->real.images;
    const uint64_t K = (uint64_t)in->K, n_meta = (uint64_t)t->cfg.n_meta_at + 1, M = (uint64_t)t->cfg.meta_batch;
    struct filling f = { .t = t, .who = v->order + first, .n = n, .K = in->K, .P = in->net.param_count, .bx = M * t->image, .by = M * (uint64_t)t->data->d.n_classes };
    v->staging = hold(v->staging, &v->n_staging, K * (f.P + (there ? 0 : n_meta * (f.bx + f.by))), sizeof *v->staging);
    v->rows = hold(v->rows, &v->n_rows, K * n_meta * M, sizeof *v->rows);
    if (!v->staging || !v->rows)
        return err_set(e, ERR_NOMEM, "what %d learners begin with", in->K);
    f.w0 = v->staging;
    f.x = f.w0 + K * f.P;
    f.y = f.x + K * n_meta * f.bx;
    f.row = there ? v->rows : NULL;
    par_run(t->threads, in->K, fill, &f);
    struct slab_in s = { .w0 = f.w0, .x = v->x, .y = v->y, .after = v->queue, .lr = t->lr, .mu = t->mu, .real = there ? &v->real : NULL };
    for (uint64_t j = 0; j < n_meta; j++) {
        s.meta[j].x = there ? NULL : f.x + j * K * f.bx;
        s.meta[j].y = there ? NULL : f.y + j * K * f.by;
        s.meta[j].row = there ? f.row + j * K * M : NULL;
    }
    int rc = slab_start(in->slab, &s, e);
    if (rc < 0)
        return rc;
    in->busy = true;
    in->used = ++v->clock;
    v->run[v->n_run++] = (struct at_work){ in, first, n };
    return 0;
}

/* What place i of a slab says about its learner; returns the learner's weight in the sum. */
static double judge(const struct teacher *t, struct learner_run *r, const struct slab_out *o, int i)
{
    const int T = t->cfg.steps;
    memcpy(r->dlr, o->dlr + (size_t)i * (size_t)T, (size_t)T * sizeof *r->dlr);
    memcpy(r->dmu, o->dmu + (size_t)i * (size_t)T, (size_t)T * sizeof *r->dmu);
    r->loss = o->meta_loss[i];
    r->rc = 0;
    if (o->failed[i] >= T)
        r->rc = err_set(&r->err, ERR_DIVERGED, "not finite on the way back through %d steps", T);
    else if (o->failed[i] >= 0)
        r->rc = err_set(&r->err, ERR_DIVERGED, "not finite at inner step %d of %d", o->failed[i] + 1, T);
    else if (!(learner_norm(t, r, o->dx2[i] + o->dy2[i]) && isfinite(r->loss)))
        r->rc = err_set(&r->err, ERR_DIVERGED, "the meta-gradient is not finite");
    return r->rc == 0 && r->norm > 0 ? 1 / r->norm : 0;
}

/* Wait for the slab that was started first, and add what its learners say. */
static int finish(struct teacher *t, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    const struct at_work a = v->run[0];
    const size_t K = (size_t)a.in->K, T = (size_t)t->cfg.steps;
    double *told = mem_array(K * 2 * T, sizeof *told), *weight = mem_array(K, sizeof *weight), *each = mem_array(K * 3, sizeof *each);
    int    *failed = mem_array(K, sizeof *failed), rc = told && weight && each && failed ? 0 : err_set(e, ERR_NOMEM, "what %zu learners say", K);
    struct slab_out o = { .failed = failed };
    if (rc == 0) {
        o.dlr = told;
        o.dmu = told + K * T;
        o.meta_loss = each;
        o.dx2 = each + K;
        o.dy2 = each + 2 * K;
        rc = slab_wait(a.in->slab, &o, e);
    }
    memmove(v->run, v->run + 1, (size_t)--v->n_run * sizeof v->run[0]);
    a.in->busy = false;
    for (int i = 0; rc == 0 && i < a.n; i++)
        weight[i] = judge(t, &t->run[v->order[a.first + i]], &o, i);
    if (rc == 0 && (v->dx || v->dy))
        slab_weigh(a.in->slab, v->queue, weight, v->dx, v->dy);
    free(told);
    free(weight);
    free(each);
    free(failed);
    return rc;
}

/* ---- slabs by network ---- */

static struct kept *find(struct teacher_device *v, const struct net *net, int n)
{
    for (int i = 0; i < CACHE; i++)
        if (v->kept[i].slab && v->kept[i].n == n && v->kept[i].budget == v->budget && net_same(&v->kept[i].net, net))
            return &v->kept[i];
    return NULL;
}

static struct kept *oldest_idle(struct teacher_device *v)
{
    struct kept *old = NULL;
    for (int i = 0; i < CACHE; i++)
        if (v->kept[i].slab && !v->kept[i].busy && (!old || v->kept[i].used < old->used))
            old = &v->kept[i];
    return old;
}

static struct kept *free_place(struct teacher_device *v)
{
    for (int i = 0; i < CACHE; i++)
        if (!v->kept[i].slab)
            return &v->kept[i];
    return NULL;
}

/* One slab less, or one less at work. False: there is none. */
static int give_way(struct teacher *t, bool *gave, struct errbuf *e)
{
    struct kept *old = oldest_idle(t->dev);
    *gave = old || t->dev->n_run;
    if (!old)
        return *gave ? finish(t, e) : 0;
    drop(t->dev, old);
    return 0;
}

/* Before a learner does not fit the dataset goes: real batches come from the host from now on. */
static int drop_data(struct teacher *t, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    int rc = 0;
    while (rc == 0 && v->n_run) /* what is at work draws from it */
        rc = finish(t, e);
    if (rc < 0)
        return rc;
    v->d->release(v->real_mem);
    v->real_mem = NULL;
    v->real.images = NULL;
    v->own -= v->real_bytes;
    v->budget += v->real_bytes;
    return 0;
}

/* How a bucket is cut, and what its slab takes. */
static int measure(struct teacher *t, struct bucket *b, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    const struct learner_run *r = &t->run[v->order[b->first]];
    struct slab_cfg cfg = slab_of(t, &r->net, 1);
    int rc = slab_fit(&cfg, v->budget, b->n, &b->K, &b->bytes, e);
    if (rc == 0 && b->K == 0 && v->real.images && (rc = drop_data(t, e)) == 0)
        rc = slab_fit(&cfg, v->budget, b->n, &b->K, &b->bytes, e);
    if (rc == 0 && b->K == 0)
        return err_set(e, ERR_NOMEM, "learner %s needs %llu MiB on the device, which has %llu MiB for learners: lower batch, meta_batch, steps or max_params", r->arch,
                       (unsigned long long)(b->bytes >> 20), (unsigned long long)(v->budget >> 20));
    return rc < 0 ? err_wrap(e, rc, "learner %s", r->arch) : 0;
}

/* *out NULL: the device had less free than was thought; the budget says now how much, b is to be measured again. */
static int make(struct teacher *t, const struct bucket *b, struct kept **out, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    const struct net *net = &t->run[v->order[b->first]].net;
    const struct slab_cfg cfg = slab_of(t, net, b->K);
    struct errbuf why = { 0 };
    struct slab *s = NULL;
    bool gave = true;
    int  rc = 0, made = -ERR_NOMEM;
    *out = NULL;
    while (rc == 0 && gave && (v->taken + b->bytes > v->budget || !free_place(v)))
        rc = give_way(t, &gave, e);
    for (gave = true; rc == 0 && made == -ERR_NOMEM && gave;)
        if ((made = slab_new(&cfg, &s, &why)) == -ERR_NOMEM)
            rc = give_way(t, &gave, e);
    if (rc < 0)
        return rc;
    if (made == -ERR_NOMEM) {
        if (b->bytes - 1 < v->budget)
            v->budget = b->bytes - 1;
        return 0;
    }
    if (made < 0)
        return err_set(e, (enum err)-made, "%s", why.text);
    struct kept *k = free_place(v);
    *k = (struct kept){ .slab = s, .n = b->n, .K = b->K, .budget = v->budget };
    v->taken += slab_bytes(s);
    if ((rc = net_copy(&k->net, net, e)) < 0)
        drop(v, k);
    else
        *out = k;
    return rc;
}

/* An idle slab for learners of a bucket: the same one whenever its network and size are the same. */
static int acquire(struct teacher *t, struct bucket *b, struct kept **out, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    int rc = 0;
    for (*out = NULL; rc == 0 && !*out;) {
        struct kept *same = find(v, &t->run[v->order[b->first]].net, b->n);
        while (rc == 0 && same && same->busy)
            rc = finish(t, e);
        *out = same;
        if (rc == 0 && !same && b->bytes > v->budget) /* another bucket found less room */
            rc = measure(t, b, e);
        else if (rc == 0 && !same && (rc = make(t, b, out, e)) == 0 && !*out)
            rc = measure(t, b, e);
    }
    return rc;
}

/* ---- a meta-step ---- */

/* Equal networks beside each other, in the order of their first learners. */
static int sort_into_buckets(struct teacher *t, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    bool taken[TEACH_MAX_LEARNERS] = { false };
    int  rc = 0, n = 0;
    v->n_buckets = 0;
    for (int lead = 0; rc == 0 && lead < t->n_learners; lead++) {
        if (taken[lead])
            continue;
        struct bucket *b = &v->bucket[v->n_buckets++];
        *b = (struct bucket){ .first = n };
        for (int k = lead; k < t->n_learners; k++)
            if (!taken[k] && net_same(&t->run[k].net, &t->run[lead].net)) {
                taken[k] = true;
                v->order[n++] = k;
                b->n++;
            }
        const struct kept *k = find(v, &t->run[lead].net, b->n);
        if (k) {
            b->K = k->K;
            b->bytes = slab_bytes(k->slab);
        } else
            rc = measure(t, b, e);
    }
    return rc;
}

/* Slabs that this meta-step does not use go now, as far as it needs their room: later, drop() would wait for learners at work. */
static void clear_the_way(struct teacher *t)
{
    struct teacher_device *v = t->dev;
    const uint64_t before = v->clock;
    uint64_t need = 0;
    int places = 0;
    struct kept *k;
    for (int i = 0; i < v->n_buckets; i++) {
        const struct bucket *b = &v->bucket[i];
        if ((k = find(v, &t->run[v->order[b->first]].net, b->n)))
            k->used = ++v->clock;
        else
            need += b->bytes;
    }
    for (int i = 0; i < CACHE; i++)
        places += !v->kept[i].slab;
    for (; (v->taken + need > v->budget || places < v->n_buckets) && (k = oldest_idle(v)) && k->used <= before; places++)
        drop(v, k);
}

static int run_bucket(struct teacher *t, struct bucket *b, struct errbuf *e)
{
    int rc = 0;
    for (int done = 0, some; rc == 0 && done < b->n; done += some) {
        struct kept *in;
        if ((rc = acquire(t, b, &in, e)) < 0)
            break;
        some = b->n - done < in->K ? b->n - done : in->K;
        if ((rc = start(t, in, b->first + done, some, e)) < 0)
            rc = err_wrap(e, rc, "learner %s", t->run[t->dev->order[b->first]].arch);
    }
    return rc;
}

static void show(struct teacher *t)
{
    struct teacher_device *v = t->dev;
    if (t->gen)
        v->d->after(v->queue, generator_queue(t->gen));
    else
        v->d->put(v->queue, v->x, t->x, t->n_x * sizeof *v->x);
    v->d->put(v->queue, v->y, t->y, t->n_y * sizeof *v->y);
    if (v->dx)
        v->d->zero(v->queue, 1, (struct dev_rows){ v->dx, 0 }, t->n_x * sizeof *v->dx);
    if (v->dy)
        v->d->zero(v->queue, 1, (struct dev_rows){ v->dy, 0 }, t->n_y * sizeof *v->dy);
}

int teacher_device_run(struct teacher *t, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    int rc = sort_into_buckets(t, e);
    if (rc < 0)
        return rc;
    clear_the_way(t);
    show(t);
    for (int i = 0; rc == 0 && i < v->n_buckets; i++)
        rc = run_bucket(t, &v->bucket[i], e);
    while (rc == 0 && v->n_run)
        rc = finish(t, e);
    return rc;
}

void teacher_device_scale(struct teacher *t, double f)
{
    const struct teacher_device *v = t->dev;
    const struct dev_rows dx = { v->dx, 0 }, dy = { v->dy, 0 };
    if (v->dx)
        v->d->affine(v->queue, 1, t->n_x, f, 0, dx, dx);
    if (v->dy)
        v->d->affine(v->queue, 1, t->n_y, f, 0, dy, dy);
}

int teacher_device_get(struct teacher *t, float *dx, float *dy, struct errbuf *e)
{
    const struct teacher_device *v = t->dev;
    int rc = dx && v->dx ? v->d->get(v->queue, dx, v->dx, t->n_x * sizeof *dx, e) : 0;
    return rc == 0 && dy && v->dy ? v->d->get(v->queue, dy, v->dy, t->n_y * sizeof *dy, e) : rc;
}

void teacher_device_before(struct teacher *t, void *queue) { t->dev->d->after(queue, t->dev->queue); }

/* ---- evaluations ---- */

/* Kept slabs go before an evaluation fails for want of room. */
static bool make_room(struct teacher_device *v)
{
    struct kept *old = oldest_idle(v);
    if (old)
        drop(v, old);
    return old;
}

int teacher_device_exam(struct teacher *t, const struct net *net, const struct lessons *l, const float *w0, int batch, int n_batches, int *right, struct errbuf *e)
{
    struct teacher_device *v = t->dev;
    const struct slab_cfg cfg = { .learner = net, .device = v->d, .K = 1, .T = l->c.T, .B = l->c.B, .inner = l->c.inner };
    const struct slab_in in = { .w0 = w0, .x = l->x, .y = l->c.labels, .lr = l->lr, .mu = l->mu };
    float *w = mem_array(net->param_count, sizeof *w);
    struct slab *s = NULL;
    int failed, rc = w ? 0 : err_set(e, ERR_NOMEM, "%llu weights", (unsigned long long)net->param_count);
    while (rc == 0 && !s && (rc = slab_new(&cfg, &s, e)) == -ERR_NOMEM && make_room(v))
        rc = 0;
    if (rc == 0)
        rc = slab_run(s, &in, &(struct slab_out){ .wT = w, .failed = &failed }, e);
    slab_free(s);
    *right = -1;
    if (rc == 0 && failed < 0)
        do
            rc = slab_accuracy(v->d, net, 1, batch, batch * n_batches, w, t->data->valid_x, t->data->valid_y, right, e);
        while (rc == -ERR_NOMEM && make_room(v));
    free(w);
    return rc;
}
