#include "worker/datacache.h"

#include "common/rng.h"
#include "worker/engine/engine.h"
#include "worker/mem.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#define KEEP_UNUSED 3 /* entries of each kind that stay open without a holder */

enum kind { KIND_DATA, KIND_LESSONS };
struct entry {
    union { /* first: the address handed out is the entry's own */
        struct real_data data;
        struct lessons   lessons;
    };
    enum kind     kind;
    dev_t         dev;
    ino_t         ino;
    off_t         size;
    struct timespec changed;
    int           holders;
    uint64_t      used;     /* clock of last release */
    struct entry *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *entries;
static uint64_t clock_now;

void lessons_fini(struct lessons *l)
{
    curriculum_fini(&l->c);
    free(l->x);
    free(l->lr);
    free(l->mu);
    memset(l, 0, sizeof *l);
}

static void entry_free(struct entry *n)
{
    if (n->kind == KIND_DATA) {
        dataset_close(&n->data.d);
        free(n->data.valid_x);
        free(n->data.valid_y);
    } else {
        lessons_fini(&n->lessons);
    }
    free(n);
}

int lessons_convert(struct lessons *l, struct errbuf *e)
{
    const struct curriculum *c = &l->c;
    size_t n = (size_t)c->T * (size_t)c->B;
    l->x = mem_array(n * (size_t)c->c * (size_t)c->h * (size_t)c->w, sizeof *l->x);
    l->lr = mem_array((uint64_t)c->T, sizeof *l->lr);
    l->mu = mem_array((uint64_t)c->T, sizeof *l->mu);
    if (!l->x || !l->lr || !l->mu)
        return err_set(e, ERR_NOMEM, "a curriculum of %zu images", n);
    eng_images_from_u8(n, c->c, c->h, c->w, c->images, l->x);
    for (int t = 0; t < c->T; t++) {
        l->lr[t] = (double)c->lr[t];
        l->mu[t] = (double)c->mu[t];
    }
    return 0;
}

void data_batch(const struct dataset *d, enum split s, const uint32_t *index, int n, float *x, float *y)
{
    size_t image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
    for (int i = 0; i < n; i++) {
        eng_images_from_u8(1, d->c, d->h, d->w, dataset_image(d, s, index[i]), x + (size_t)i * image);
        for (int k = 0; y && k < d->n_classes; k++)
            y[(size_t)i * (size_t)d->n_classes + (size_t)k] = k == dataset_label(d, s, index[i]);
    }
}

void data_rows(const struct dataset *d, enum split s, struct rng *r, int n, int *row)
{
    for (int i = 0; i < n; i++)
        row[i] = (int)d->index[s][rng_below(r, d->n[s])];
}

void data_draw(const struct dataset *d, enum split s, struct rng *r, int n, float *x, float *y)
{
    size_t image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
    for (int i = 0; i < n; i++) {
        uint32_t row = rng_below(r, d->n[s]);
        data_batch(d, s, &row, 1, x + (size_t)i * image, y ? y + (size_t)i * (size_t)d->n_classes : NULL);
    }
}

static int load_data(struct entry *n, const char *path, struct errbuf *e)
{
    struct dataset *d = &n->data.d;
    int rc = dataset_open(d, path, e);
    if (rc < 0)
        return rc;
    uint32_t count = d->n[SPLIT_VALID];
    n->data.valid_x = mem_array((uint64_t)count * (uint64_t)d->c * (uint64_t)d->h * (uint64_t)d->w, sizeof *n->data.valid_x);
    n->data.valid_y = mem_array(count, sizeof *n->data.valid_y);
    if (!n->data.valid_x || !n->data.valid_y)
        return err_set(e, ERR_NOMEM, "%s: %u validation images", path, count);
    for (uint32_t i = 0; i < count; i++) {
        data_batch(d, SPLIT_VALID, &i, 1, n->data.valid_x + (size_t)i * (size_t)d->c * (size_t)d->h * (size_t)d->w, NULL);
        n->data.valid_y[i] = dataset_label(d, SPLIT_VALID, i);
    }
    return 0;
}

static int load(struct entry *n, const char *path, struct errbuf *e)
{
    if (n->kind == KIND_DATA)
        return load_data(n, path, e);
    int rc = curriculum_load(&n->lessons.c, path, e);
    return rc < 0 ? rc : lessons_convert(&n->lessons, e);
}

/* Drop the entry that nobody has held for longest, until few enough are left. */
static void trim(enum kind kind)
{
    for (;;) {
        struct entry **victim = NULL;
        int unused = 0;
        for (struct entry **p = &entries; *p; p = &(*p)->next)
            if ((*p)->kind == kind && (*p)->holders == 0) {
                unused++;
                if (!victim || (*p)->used < (*victim)->used)
                    victim = p;
            }
        if (unused <= KEEP_UNUSED)
            return;
        struct entry *n = *victim;
        *victim = n->next;
        entry_free(n);
    }
}

/* The lock is held while a file is read: whoever else needs it would wait for the same bytes anyway. */
static int get(enum kind kind, const char *path, struct entry **out, struct errbuf *e)
{
    struct stat st;
    struct entry *n;
    int rc = 0;
    if (stat(path, &st) != 0)
        return err_set(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    pthread_mutex_lock(&lock);
    for (n = entries; n; n = n->next)
        if (n->kind == kind && n->dev == st.st_dev && n->ino == st.st_ino && n->size == st.st_size &&
            n->changed.tv_sec == st.st_mtim.tv_sec && n->changed.tv_nsec == st.st_mtim.tv_nsec)
            break;
    if (!n) {
        if (!(n = calloc(1, sizeof *n)))
            rc = err_set(e, ERR_NOMEM, "%s", path);
        else {
            n->kind = kind;
            n->dev = st.st_dev;
            n->ino = st.st_ino;
            n->size = st.st_size;
            n->changed = st.st_mtim;
            if ((rc = load(n, path, e)) < 0) {
                entry_free(n);
            } else {
                n->next = entries;
                entries = n;
            }
        }
    }
    if (rc == 0) {
        n->holders++;
        *out = n;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int datacache_data(const char *path, const struct real_data **out, struct errbuf *e)
{
    struct entry *n = NULL;
    int rc = get(KIND_DATA, path, &n, e);
    *out = rc == 0 ? &n->data : NULL;
    return rc;
}

int datacache_lessons(const char *path, const struct lessons **out, struct errbuf *e)
{
    struct entry *n = NULL;
    int rc = get(KIND_LESSONS, path, &n, e);
    *out = rc == 0 ? &n->lessons : NULL;
    return rc;
}

void datacache_release(const void *entry)
{
    if (!entry)
        return;
    struct entry *n = (struct entry *)entry;
    pthread_mutex_lock(&lock);
    n->holders--;
    n->used = ++clock_now;
    trim(n->kind);
    pthread_mutex_unlock(&lock);
}
