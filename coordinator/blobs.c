/* blobs.c - uploads and downloads of datasets, curricula, search spaces, weights and checkpoints.
 * Upload: chunks in order; every answer says how much we have, so that an interrupted one goes on where it was, and two that
 * send the same content share one. The last chunk is answered after the file is checked, synced, renamed and its name saved.
 * Download: a chunk an answer. The first request for a blob in the life of this process has its content checked against its
 * name; those that ask meanwhile wait. Hashing and syncing run in libuv's pool. */
#include "coordinator/coord.h"

#include "common/curriculum.h"
#include "common/log.h"
#include "common/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define MAX_UPLOADS   64
#define MAX_WAITING   256          /* requests that wait for one check */
#define UPLOAD_IDLE_MS (10 * 60 * 1000)
#define BLOB_MAX_BYTES (64ull << 30)

struct waiter { struct reply_to to; uint64_t offset; name_str kind, name; };

struct upload {
    struct link         all;
    struct coord       *c;
    hash_str            hash;
    struct blob_writer *w;      /* NULL once committing */
    uint64_t            have, total;
    int64_t             last_ms;
    struct waiter       waiter[16];
    int                 n_waiters;
    uv_work_t           work;
    int                 rc;
    struct errbuf       e;
};

struct check {
    struct link    all;
    struct coord  *c;
    hash_str       hash;
    struct waiter *waiter;      /* owned */
    int            n, cap;
    uv_work_t      work;
    int            rc;
    struct errbuf  e;
};

struct blobs {
    struct blob_dir dir;
    struct link     uploads, checks;
    int             n_uploads;
    hash_str       *good;       /* checked in this process: sorted */
    size_t          n_good, cap_good;
};

static bool good_find(const struct blobs *b, const char *hash, size_t *at)
{
    size_t lo = 0, hi = b->n_good;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int d = strcmp(b->good[mid], hash);
        if (d == 0) {
            *at = mid;
            return true;
        }
        if (d < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *at = lo;
    return false;
}

static void good_add(struct blobs *b, const char *hash)
{
    size_t at;
    if (good_find(b, hash, &at))
        return;
    if (b->n_good == b->cap_good) {
        size_t cap = b->cap_good ? 2 * b->cap_good : 64;
        hash_str *bigger = realloc(b->good, cap * sizeof *bigger);
        if (!bigger)
            return; /* it will be checked again: slow, not wrong */
        b->good = bigger;
        b->cap_good = cap;
    }
    memmove(b->good + at + 1, b->good + at, (b->n_good - at) * sizeof *b->good);
    memcpy(b->good[at], hash, sizeof b->good[at]);
    b->n_good++;
}

int blobs_open(struct coord *c, struct errbuf *e)
{
    struct blobs *b = calloc(1, sizeof *b);
    char path[3200];
    if (!b)
        return err_set(e, ERR_NOMEM, "blobs");
    list_init(&b->uploads);
    list_init(&b->checks);
    snprintf(path, sizeof path, "%s/blobs", c->opts.dir);
    int rc = blob_dir_open(&b->dir, path, e);
    if (rc < 0) {
        free(b);
        return rc;
    }
    c->blobs = b;
    return 0;
}

static void upload_free(struct coord *c, struct upload *u)
{
    blob_writer_abort(u->w);
    list_remove(&u->all);
    c->blobs->n_uploads--;
    free(u);
}

void blobs_close(struct coord *c) /* after the loop has run dry: nothing is in the pool */
{
    if (!c->blobs)
        return;
    list_each(l, &c->blobs->uploads)
        upload_free(c, list_entry(l, struct upload, all));
    free(c->blobs->good);
    free(c->blobs);
    c->blobs = NULL;
}

bool blobs_has(struct coord *c, const char *hash, uint64_t *bytes)
{
    uint64_t size = 0;
    return blob_exists(&c->blobs->dir, hash, bytes ? bytes : &size);
}

void blobs_path(struct coord *c, const char *hash, char *out, size_t cap)
{
    blob_path(&c->blobs->dir, hash, out, cap);
}

void blobs_tick(struct coord *c)
{
    int64_t now = clock_ms();
    list_each(l, &c->blobs->uploads) {
        struct upload *u = list_entry(l, struct upload, all);
        if (u->w && now - u->last_ms > UPLOAD_IDLE_MS) {
            log_info("upload_dropped", "hash=%s have=%llu total=%llu", u->hash, (unsigned long long)u->have, (unsigned long long)u->total);
            upload_free(c, u);
        }
    }
}

/* ---- download ---- */
static void send_chunk(struct coord *c, const struct reply_to *to, const char *hash, uint64_t offset)
{
    struct errbuf e = { 0 };
    struct wire_msg m = { .kind = WIRE_BLOB_CHUNK, .seq = to->seq };
    uint8_t *buf = malloc(BLOB_CHUNK);
    int rc = buf ? blob_read(&c->blobs->dir, hash, offset, buf, BLOB_CHUNK, &m.blob.len, &m.blob.total, &e)
                 : err_set(&e, ERR_NOMEM, "chunk");
    if (rc == 0) {
        memcpy(m.blob.hash, hash, sizeof m.blob.hash);
        m.blob.offset = offset;
        m.blob.data = buf;
        session_send(c, &to->peer, &m);
    } else {
        session_error(c, to, rc, &e);
    }
    free(buf);
}

static void check_work(uv_work_t *w)
{
    struct check *k = w->data;
    k->rc = blob_verify(&k->c->blobs->dir, k->hash, &k->e);
}

static void on_checked(uv_work_t *w, int status)
{
    struct check *k = w->data;
    (void)status;
    if (k->rc == 0)
        good_add(k->c->blobs, k->hash);
    else
        log_error("blob_corrupt", "hash=%s error=\"%s\" next=\"set aside; import or upload it again\"", k->hash, err_message(&k->e, k->rc));
    for (int i = 0; i < k->n && !k->c->stopping; i++) {
        if (k->rc == 0)
            send_chunk(k->c, &k->waiter[i].to, k->hash, k->waiter[i].offset);
        else
            session_error(k->c, &k->waiter[i].to, k->rc, &k->e);
    }
    list_remove(&k->all);
    free(k->waiter);
    free(k);
}

static struct check *check_of(struct coord *c, const char *hash)
{
    list_each(l, &c->blobs->checks) {
        struct check *k = list_entry(l, struct check, all);
        if (strcmp(k->hash, hash) == 0)
            return k;
    }
    struct check *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->c = c;
    k->work.data = k;
    snprintf(k->hash, sizeof k->hash, "%s", hash);
    if (uv_queue_work(&c->loop, &k->work, check_work, on_checked) != 0) {
        free(k);
        return NULL;
    }
    list_append(&c->blobs->checks, &k->all);
    return k;
}

void blobs_get(struct coord *c, const struct reply_to *to, const char *hash, uint64_t offset)
{
    struct errbuf e = { 0 };
    size_t at;
    if (!blobs_has(c, hash, NULL)) {
        session_error(c, to, err_set(&e, ERR_NOTFOUND, "there is no blob %s", hash), &e);
        return;
    }
    if (good_find(c->blobs, hash, &at)) {
        send_chunk(c, to, hash, offset);
        return;
    }
    struct check *k = check_of(c, hash);
    if (k && k->n == k->cap && k->cap < MAX_WAITING) {
        int cap = k->cap ? 2 * k->cap : 4;
        struct waiter *bigger = realloc(k->waiter, (size_t)cap * sizeof *bigger);
        if (bigger) {
            k->waiter = bigger;
            k->cap = cap;
        }
    }
    if (!k || k->n == k->cap) {
        session_error(c, to, err_set(&e, ERR_BUSY, "blob %s is being checked", hash), &e);
        return;
    }
    k->waiter[k->n++] = (struct waiter){ .to = *to, .offset = offset };
}

/* ---- upload ---- */
static void ack(struct coord *c, const struct reply_to *to, const char *hash, uint64_t have, bool complete)
{
    struct wire_msg m = { .kind = WIRE_BLOB_PUT_ACK, .seq = to->seq, .blob_put_ack = { .have = have, .complete = complete } };
    snprintf(m.blob_put_ack.hash, sizeof m.blob_put_ack.hash, "%s", hash);
    session_send(c, &to->peer, &m);
}

struct naming { struct coord *c; struct reply_to to; };

static void on_named(struct store_op *op)
{
    struct naming *n = op->arg;
    if (sched_saved(n->c->sched, op)) {
        log_info("blob_named", "kind=%s name=\"%s\" hash=%s", op->blob.kind, op->blob.name, op->blob.hash);
        ack(n->c, &n->to, op->blob.hash, op->blob.bytes, true);
    } else {
        session_error(n->c, &n->to, op->rc, &op->err);
    }
    free(n);
}

static const char *const kinds[] = { "dataset", "curriculum", "space", "weights", "checkpoint" };

/* What the jobs will need of it must be there before it gets a name. Headers only. */
static int check_kind(struct coord *c, const char *kind, const char *name, const char *hash, struct errbuf *e)
{
    char path[4200];
    bool known = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        known |= strcmp(kinds[i], kind) == 0;
    if (!known)
        return err_set(e, ERR_INPUT, "\"%s\" is no kind of blob; there are dataset, curriculum, space, weights and checkpoint", kind);
    struct image_shape img;
    if (strcmp(kind, "dataset") == 0)
        return coord_image_shape(c, hash, &img, e);
    if (strcmp(kind, "space") == 0)
        return spaces_check(c, name, hash, e);
    if (strcmp(kind, "curriculum") != 0)
        return 0;
    blobs_path(c, hash, path, sizeof path);
    struct st_file f;
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    const struct st_tensor *t;
    int64_t any[5] = { -1, -1, -1, -1, -1 };
    rc = st_need(&f, "images", ST_U8, 5, any, &t, e);
    if (rc == 0)
        rc = st_need(&f, "labels", ST_F32, 3, any, &t, e);
    st_close(&f);
    return rc;
}

/* The content is here: give it its name, if it wants one, and acknowledge after the commit. */
static void register_name(struct coord *c, const struct waiter *w, const char *hash, uint64_t bytes)
{
    struct errbuf e = { 0 };
    if (!w->name[0]) {
        ack(c, &w->to, hash, bytes, true);
        return;
    }
    int rc = check_kind(c, w->kind, w->name, hash, &e);
    struct store_op *op = rc == 0 ? store_op_new(OP_BLOB_NAME) : NULL;
    struct naming *n = op ? malloc(sizeof *n) : NULL;
    if (!n) {
        free(op);
        session_error(c, &w->to, rc < 0 ? rc : err_set(&e, ERR_NOMEM, "blob"), &e);
        return;
    }
    *n = (struct naming){ c, w->to };
    memcpy(op->blob.kind, w->kind, sizeof op->blob.kind);
    memcpy(op->blob.name, w->name, sizeof op->blob.name);
    snprintf(op->blob.hash, sizeof op->blob.hash, "%s", hash);
    op->blob.bytes = bytes;
    op->blob.added_ms = clock_ms();
    op->arg = n;
    op->done = on_named;
    store_put(c->store, op);
}

static void commit_work(uv_work_t *w)
{
    struct upload *u = w->data;
    hash_str got;
    u->rc = blob_writer_commit(u->w, u->hash, got, &u->e);
    u->w = NULL;
}

static void on_committed(uv_work_t *w, int status)
{
    struct upload *u = w->data;
    struct coord *c = u->c;
    (void)status;
    if (u->rc == 0)
        good_add(c->blobs, u->hash);
    else
        log_error("upload_failed", "hash=%s error=\"%s\"", u->hash, err_message(&u->e, u->rc));
    for (int i = 0; i < u->n_waiters && !c->stopping; i++) {
        if (u->rc == 0)
            register_name(c, &u->waiter[i], u->hash, u->total);
        else
            session_error(c, &u->waiter[i].to, u->rc, &u->e);
    }
    upload_free(c, u);
}

static struct upload *upload_find(struct coord *c, const char *hash)
{
    list_each(l, &c->blobs->uploads) {
        struct upload *u = list_entry(l, struct upload, all);
        if (strcmp(u->hash, hash) == 0)
            return u;
    }
    return NULL;
}

static struct upload *upload_start(struct coord *c, const struct wire_msg *m, struct errbuf *e)
{
    if (c->blobs->n_uploads >= MAX_UPLOADS) {
        err_set(e, ERR_BUSY, "%d uploads are under way", MAX_UPLOADS);
        return NULL;
    }
    struct upload *u = calloc(1, sizeof *u);
    if (!u) {
        err_set(e, ERR_NOMEM, "upload");
        return NULL;
    }
    if (blob_writer_open(&c->blobs->dir, &u->w, e) < 0) {
        free(u);
        return NULL;
    }
    u->c = c;
    u->work.data = u;
    memcpy(u->hash, m->blob.hash, sizeof u->hash);
    u->total = m->blob.total;
    list_append(&c->blobs->uploads, &u->all);
    c->blobs->n_uploads++;
    return u;
}

static int add_chunk(struct upload *u, const struct wire_msg *m, struct errbuf *e)
{
    if (m->blob.total != u->total)
        return err_set(e, ERR_INPUT, "blob %s: %llu bytes announced before, %llu now", u->hash, (unsigned long long)u->total,
                       (unsigned long long)m->blob.total);
    u->last_ms = clock_ms();
    if (!u->w || m->blob.offset != u->have || m->blob.len == 0)
        return 0; /* the answer says where to go on */
    int rc = blob_writer_add(u->w, m->blob.data, m->blob.len, e);
    if (rc == 0)
        u->have += m->blob.len;
    return rc;
}

void blobs_put(struct coord *c, const struct reply_to *to, const struct wire_msg *m)
{
    struct errbuf e = { 0 };
    uint64_t size = 0;
    struct waiter w = { .to = *to };
    memcpy(w.kind, m->blob.kind, sizeof w.kind);
    memcpy(w.name, m->blob.name, sizeof w.name);
    struct upload *u = upload_find(c, m->blob.hash);
    if (!u && blobs_has(c, m->blob.hash, &size)) {
        register_name(c, &w, m->blob.hash, size);
        return;
    }
    if (m->blob.total == 0 || m->blob.total > BLOB_MAX_BYTES) {
        session_error(c, to, err_set(&e, ERR_INPUT, "a blob has 1 … %llu bytes", BLOB_MAX_BYTES), &e);
        return;
    }
    if (!u && !(u = upload_start(c, m, &e))) {
        session_error(c, to, -e.code, &e);
        return;
    }
    int rc = add_chunk(u, m, &e);
    if (rc < 0) {
        session_error(c, to, rc, &e);
        if (rc != -ERR_INPUT)
            upload_free(c, u); /* a full disk: what is half written goes */
        return;
    }
    if (u->have < u->total) {
        ack(c, to, u->hash, u->have, false);
        return;
    }
    if (u->n_waiters == (int)(sizeof u->waiter / sizeof *u->waiter)) {
        session_error(c, to, err_set(&e, ERR_BUSY, "blob %s is being saved", u->hash), &e);
        return;
    }
    u->waiter[u->n_waiters++] = w;
    if (u->n_waiters == 1 && (rc = uv_queue_work(&c->loop, &u->work, commit_work, on_committed)) != 0) {
        session_error(c, to, err_set(&e, ERR_NOMEM, "%s", uv_strerror(rc)), &e);
        upload_free(c, u);
    }
}
