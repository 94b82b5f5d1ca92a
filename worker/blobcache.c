#include "worker/blobcache.h"

#include "common/fsio.h"
#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MS  10000 /* a chunk unanswered for so long is asked again */
#define PAUSE_MS   500   /* after "not now"; doubled up to PAUSE_MAX */
#define PAUSE_MAX  15000
#define TRIES      8     /* refusals by the coordinator that may pass, until the blob is given up for now */

enum fetch_state { FETCH_VERIFY, FETCH_ASK, FETCH_COMMIT };

struct fetch {
    struct fetch       *next;
    struct blobcache   *cache;
    hash_str            hash;
    enum fetch_state    state;
    struct blob_writer *writer;
    uint64_t            offset, total, seq; /* seq 0: nothing asked */
    int64_t             asked_ms, not_before_ms;
    int                 refusals, mismatches;
    bool                busy;               /* a worker thread has it */
    uv_work_t           work;
    int                 rc;
    struct errbuf       e;
};

struct put {
    struct put *next;
    hash_str    hash;
    name_str    kind;
    uint64_t    offset, seq;
    int64_t     asked_ms, not_before_ms;
    int         refusals;
};

struct need {
    struct need *next;
    void        *who;
    int          n;
    hash_str     hash[NEED_MAX];
};

struct blobcache {
    struct blob_dir     cache, uploads;
    uv_loop_t          *loop;      /* borrowed */
    struct blobcache_io io;
    struct fetch       *fetch;
    struct put         *put;
    struct need        *need;
    hash_str           *good;      /* verified in the life of this process */
    int                 n_good, cap_good;
    int64_t             now_ms;
    bool                stopped;
    uint8_t             chunk[BLOB_CHUNK];
};

static int64_t pause_ms(int refusals)
{
    int64_t p = PAUSE_MS;
    while (refusals-- > 1 && p < PAUSE_MAX)
        p *= 2;
    return p < PAUSE_MAX ? p : PAUSE_MAX;
}

/* ---- what is known to be good ---- */
static bool is_good(struct blobcache *c, const char *hash)
{
    for (int i = 0; i < c->n_good; i++)
        if (strcmp(c->good[i], hash) == 0)
            return blob_exists(&c->cache, hash, NULL);
    return false;
}

static void set_good(struct blobcache *c, const char *hash)
{
    for (int i = 0; i < c->n_good; i++)
        if (strcmp(c->good[i], hash) == 0)
            return;
    if (c->n_good == c->cap_good) {
        int       cap = c->cap_good ? 2 * c->cap_good : 16;
        hash_str *p = realloc(c->good, (size_t)cap * sizeof *p);
        if (!p)
            return; /* it is verified again the next time; `settle` has its own look */
        c->good = p;
        c->cap_good = cap;
    }
    memcpy(c->good[c->n_good++], hash, sizeof(hash_str));
}

/* ---- who waits for what ---- */
static bool wants(const struct need *n, const char *hash)
{
    for (int i = 0; i < n->n; i++)
        if (strcmp(n->hash[i], hash) == 0)
            return true;
    return false;
}

static void start_fetch(struct blobcache *c, const char *hash);

/* Tell everybody whose blobs are all there; `hash` failed when rc < 0. */
static void settle(struct blobcache *c, const char *hash, int rc, const struct errbuf *e)
{
    struct need **p = &c->need;
    while (*p) {
        struct need *n = *p;
        bool         over = rc < 0 && wants(n, hash), all = true;
        for (int i = 0; i < n->n && !over; i++)
            all = all && (is_good(c, n->hash[i]) || (rc == 0 && strcmp(n->hash[i], hash) == 0));
        if (!over && !all) {
            p = &n->next;
            continue;
        }
        *p = n->next;
        c->io.ready(c->io.arg, n->who, over ? rc : 0, over ? e : NULL);
        free(n);
        p = &c->need; /* the call may have changed the list */
    }
}

static void end_fetch(struct fetch *f, int rc)
{
    struct blobcache *c = f->cache;
    struct fetch    **p = &c->fetch;
    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
    blob_writer_abort(f->writer);
    if (rc == 0)
        set_good(c, f->hash);
    if (!c->stopped)
        settle(c, f->hash, rc, &f->e);
    free(f);
}

/* ---- work on libuv's threads ---- */
static void on_work(uv_work_t *w)
{
    struct fetch *f = w->data;
    hash_str      hash;
    if (f->state == FETCH_VERIFY) {
        f->rc = blob_verify(&f->cache->cache, f->hash, &f->e);
        return;
    }
    f->rc = blob_writer_commit(f->writer, f->hash, hash, &f->e); /* frees the writer, whatever comes of it */
    f->writer = NULL;
}

static void ask_from_start(struct fetch *f)
{
    blob_writer_abort(f->writer);
    f->writer = NULL;
    f->state = FETCH_ASK;
    f->offset = f->total = f->seq = 0;
}

static void on_work_done(uv_work_t *w, int status)
{
    struct fetch *f = w->data;
    f->busy = false;
    if (status < 0 || f->cache->stopped) {
        end_fetch(f, -ERR_CANCELLED);
        return;
    }
    if (f->rc == 0) {
        end_fetch(f, 0);
    } else if (f->state == FETCH_VERIFY) {
        log_warn("blob_corrupt", "blob=%s why=\"%s\" next=\"fetching it again\"", f->hash, f->e.text);
        ask_from_start(f);
    } else if (f->rc == -ERR_CORRUPT && ++f->mismatches < 2) {
        log_warn("blob_corrupt", "blob=%s why=\"%s\" next=\"fetching it once more\"", f->hash, f->e.text);
        ask_from_start(f);
    } else if (f->rc == -ERR_CORRUPT) {
        log_error("blob_corrupt", "blob=%s why=\"%s\" next=\"its trials fail\"", f->hash, f->e.text);
        end_fetch(f, err_set(&f->e, ERR_INPUT, "blob %s: what the coordinator sends is corrupt, twice", f->hash));
    } else {
        end_fetch(f, err_set(&f->e, ERR_IO, "blob %s: cannot be stored", f->hash));
    }
}

static void to_thread(struct fetch *f, enum fetch_state state)
{
    f->state = state;
    f->seq = 0;
    f->work.data = f;
    f->busy = uv_queue_work(f->cache->loop, &f->work, on_work, on_work_done) == 0;
    if (!f->busy) /* cannot happen with valid arguments; the tick tries again */
        f->not_before_ms = f->cache->now_ms + PAUSE_MS;
}

/* ---- fetching ---- */
static void ask(struct fetch *f)
{
    struct blobcache *c = f->cache;
    struct wire_msg   m = { .kind = WIRE_BLOB_GET, .blob_get = { .offset = f->offset } };
    memcpy(m.blob_get.hash, f->hash, sizeof m.blob_get.hash);
    if (c->io.send(c->io.arg, &m) == 0) {
        f->seq = m.seq;
        f->asked_ms = c->now_ms;
    }
}

static void start_fetch(struct blobcache *c, const char *hash)
{
    for (struct fetch *f = c->fetch; f; f = f->next)
        if (strcmp(f->hash, hash) == 0)
            return;
    struct fetch *f = calloc(1, sizeof *f);
    if (!f)
        return; /* the tick of whoever needs it asks again */
    f->cache = c;
    memcpy(f->hash, hash, sizeof f->hash);
    f->next = c->fetch;
    c->fetch = f;
    if (blob_exists(&c->cache, hash, NULL)) {
        to_thread(f, FETCH_VERIFY);
    } else {
        f->state = FETCH_ASK;
        ask(f);
    }
}

static void on_chunk(struct blobcache *c, const struct wire_msg *m)
{
    struct fetch *f = c->fetch;
    while (f && (f->state != FETCH_ASK || f->seq == 0 || f->seq != m->seq || strcmp(f->hash, m->blob.hash) != 0))
        f = f->next;
    if (!f || m->blob.offset != f->offset)
        return;
    f->seq = 0;
    int rc = 0;
    if (f->offset == 0) {
        f->total = m->blob.total;
        rc = f->writer ? 0 : blob_writer_open(&c->cache, &f->writer, &f->e);
    }
    if (m->blob.total != f->total || (m->blob.len == 0 && f->offset < f->total)) {
        ask_from_start(f); /* it changed under us, or the answer makes no sense: later, from the beginning */
        f->not_before_ms = c->now_ms + pause_ms(++f->refusals);
        return;
    }
    if (rc == 0)
        rc = blob_writer_add(f->writer, m->blob.data ? m->blob.data : c->chunk, m->blob.len, &f->e);
    if (rc < 0) {
        log_error("blob_store", "blob=%s why=\"%s\"", f->hash, f->e.text);
        f->e.code = ERR_IO;
        end_fetch(f, -ERR_IO);
        return;
    }
    f->offset += m->blob.len;
    f->refusals = 0;
    if (f->offset == f->total)
        to_thread(f, FETCH_COMMIT);
    else
        ask(f);
}

static void fetch_refused(struct fetch *f, const struct wire_msg *m)
{
    f->seq = 0;
    if (!err_can_retry(m->reply.code)) {
        end_fetch(f, err_set(&f->e, ERR_INPUT, "blob %s: the coordinator says: %.300s", f->hash, m->reply.text));
    } else if (++f->refusals >= TRIES) {
        end_fetch(f, err_set(&f->e, ERR_IO, "blob %s: the coordinator says: %.300s", f->hash, m->reply.text));
    } else {
        f->not_before_ms = f->cache->now_ms + pause_ms(f->refusals);
    }
}

/* ---- sending ---- */
static void end_put(struct blobcache *c, struct put *p, int rc, const struct errbuf *e)
{
    char         path[FS_PATH_MAX], aside[FS_PATH_MAX + 16];
    hash_str     hash;
    struct put **at = &c->put;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    memcpy(hash, p->hash, sizeof hash);
    free(p);
    blob_path(&c->uploads, hash, path, sizeof path);
    snprintf(aside, sizeof aside, "%s.refused", path);
    if (rc == 0)
        unlink(path);
    else
        rename(path, aside); /* kept for people; nobody waits for its transfer any more */
    c->io.sent(c->io.arg, hash, rc, e);
}

static void send_chunk(struct blobcache *c, struct put *p)
{
    struct wire_msg m = { .kind = WIRE_BLOB_PUT };
    struct errbuf   e = { 0 };
    size_t          n = 0;
    uint64_t        total = 0;
    int             rc = blob_read(&c->uploads, p->hash, p->offset, c->chunk, sizeof c->chunk, &n, &total, &e);
    if (rc == -ERR_IO) {
        p->not_before_ms = c->now_ms + pause_ms(++p->refusals);
        log_warn("upload_read", "blob=%s why=\"%s\"", p->hash, e.text);
        return;
    }
    if (rc < 0) {
        end_put(c, p, rc, &e);
        return;
    }
    memcpy(m.blob.hash, p->hash, sizeof m.blob.hash);
    memcpy(m.blob.kind, p->kind, sizeof m.blob.kind);
    m.blob.offset = p->offset;
    m.blob.total = total;
    m.blob.data = c->chunk;
    m.blob.len = n;
    if (c->io.send(c->io.arg, &m) == 0) {
        p->seq = m.seq;
        p->asked_ms = c->now_ms;
    }
}

int blobcache_send(struct blobcache *c, const char *hash, const char *kind, struct errbuf *e)
{
    for (struct put *p = c->put; p; p = p->next)
        if (strcmp(p->hash, hash) == 0)
            return 0;
    struct put *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "upload");
    snprintf(p->hash, sizeof p->hash, "%s", hash);
    snprintf(p->kind, sizeof p->kind, "%s", kind);
    p->next = c->put;
    c->put = p;
    return 0; /* the tick sends: the caller may hold a list that `sent` would change */
}

bool blobcache_unsent(const struct blobcache *c, const char *hash)
{
    return blob_exists(&c->uploads, hash, NULL);
}

static struct put *put_of(struct blobcache *c, uint64_t seq)
{
    struct put *p = c->put;
    while (p && (p->seq == 0 || p->seq != seq))
        p = p->next;
    return p;
}

static void on_put_ack(struct blobcache *c, const struct wire_msg *m)
{
    uint64_t    total = 0;
    struct put *p = put_of(c, m->seq);
    if (!p || strcmp(p->hash, m->blob_put_ack.hash) != 0)
        return;
    p->seq = 0;
    if (m->blob_put_ack.complete) {
        log_debug("upload_done", "blob=%s", p->hash);
        end_put(c, p, 0, NULL);
        return;
    }
    bool onward = m->blob_put_ack.have > p->offset && blob_exists(&c->uploads, p->hash, &total) &&
                  m->blob_put_ack.have <= total;
    p->offset = m->blob_put_ack.have <= total ? m->blob_put_ack.have : 0;
    if (onward) {
        p->refusals = 0;
        send_chunk(c, p);
    } else { /* it went back, or stands still: the coordinator threw away what it had */
        p->not_before_ms = c->now_ms + pause_ms(++p->refusals);
    }
}

static void put_refused(struct blobcache *c, struct put *p, const struct wire_msg *m)
{
    struct errbuf e = { 0 };
    p->seq = 0;
    p->offset = 0;
    log_warn("upload_refused", "blob=%s why=\"%s\"", p->hash, m->reply.text);
    if (err_can_retry(m->reply.code))
        p->not_before_ms = c->now_ms + pause_ms(++p->refusals);
    else
        end_put(c, p, err_set(&e, (enum err)m->reply.code, "blob %s: %.300s", p->hash, m->reply.text), &e);
}

/* ---- the public rest ---- */
void blobcache_on_message(struct blobcache *c, const struct wire_msg *m)
{
    if (m->kind == WIRE_BLOB_CHUNK)
        on_chunk(c, m);
    else if (m->kind == WIRE_BLOB_PUT_ACK)
        on_put_ack(c, m);
}

bool blobcache_on_error(struct blobcache *c, const struct wire_msg *m)
{
    if (m->seq == 0)
        return false;
    for (struct fetch *f = c->fetch; f; f = f->next)
        if (f->seq == m->seq) {
            fetch_refused(f, m);
            return true;
        }
    struct put *p = put_of(c, m->seq);
    if (p)
        put_refused(c, p, m);
    return p;
}

void blobcache_reset(struct blobcache *c)
{
    for (struct fetch *f = c->fetch; f; f = f->next)
        f->seq = 0; /* what was written stays: the next chunk is asked for at the same offset */
    for (struct put *p = c->put; p; p = p->next)
        p->seq = 0;
}

static void tick_fetches(struct blobcache *c)
{
    for (struct fetch *f = c->fetch; f; f = f->next) {
        if (f->busy || c->now_ms < f->not_before_ms)
            continue;
        if (f->state != FETCH_ASK)
            to_thread(f, f->state);
        else if (f->seq == 0 || c->now_ms - f->asked_ms > ANSWER_MS)
            ask(f);
    }
}

static void tick_puts(struct blobcache *c)
{
    struct put *next;
    for (struct put *p = c->put; p; p = next) {
        next = p->next;
        if (c->now_ms >= p->not_before_ms && (p->seq == 0 || c->now_ms - p->asked_ms > ANSWER_MS))
            send_chunk(c, p);
    }
}

void blobcache_tick(struct blobcache *c, int64_t now_ms)
{
    c->now_ms = now_ms;
    for (struct need *n = c->need; n; n = n->next)
        for (int i = 0; i < n->n; i++)
            if (!is_good(c, n->hash[i]))
                start_fetch(c, n->hash[i]);
    if (c->need)
        settle(c, "", 0, NULL);
    tick_fetches(c);
    tick_puts(c);
}

int blobcache_need(struct blobcache *c, void *who, const hash_str *hash, int n, struct errbuf *e)
{
    int n_good = 0;
    if (n > NEED_MAX)
        return err_set(e, ERR_INTERNAL, "a task with %d blobs", n);
    for (int i = 0; i < n; i++)
        n_good += is_good(c, hash[i]);
    if (n_good == n)
        return 1;
    struct need *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "blobs of a task");
    w->who = who;
    w->n = n;
    memcpy(w->hash, hash, (size_t)n * sizeof *hash);
    w->next = c->need;
    c->need = w;
    for (int i = 0; i < n; i++)
        if (!is_good(c, hash[i]))
            start_fetch(c, hash[i]);
    return 0;
}

void blobcache_forget(struct blobcache *c, void *who)
{
    struct need **p = &c->need;
    while (*p) {
        struct need *n = *p;
        if (n->who == who) {
            *p = n->next;
            free(n);
        } else {
            p = &n->next;
        }
    }
}

const struct blob_dir *blobcache_uploads(const struct blobcache *c) { return &c->uploads; }

void blobcache_path(const struct blobcache *c, const char *hash, char *out, size_t cap)
{
    blob_path(&c->cache, hash, out, cap);
}

int blobcache_new(const char *cache_dir, const char *uploads_dir, uv_loop_t *loop, const struct blobcache_io *io,
                  struct blobcache **out, struct errbuf *e)
{
    struct blobcache *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_set(e, ERR_NOMEM, "blob cache");
    c->loop = loop;
    c->io = *io;
    int rc = blob_dir_open(&c->cache, cache_dir, e);
    if (rc == 0)
        rc = blob_dir_open(&c->uploads, uploads_dir, e);
    if (rc < 0)
        free(c);
    else
        *out = c;
    return rc;
}

void blobcache_stop(struct blobcache *c)
{
    c->stopped = true;
    while (c->need)
        blobcache_forget(c, c->need->who);
}

void blobcache_free(struct blobcache *c)
{
    if (!c)
        return;
    while (c->fetch) {
        struct fetch *f = c->fetch;
        c->fetch = f->next;
        blob_writer_abort(f->writer);
        free(f);
    }
    while (c->put) {
        struct put *p = c->put;
        c->put = p->next;
        free(p);
    }
    while (c->need)
        blobcache_forget(c, c->need->who);
    free(c->good);
    free(c);
}
