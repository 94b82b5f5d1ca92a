/* blobcache.h - blobs to and from the coordinator, in chunks, across reconnections.
 * Fetching: asked for by hash, written beside the cache, committed under its hash only when the content has it. A cached blob is
 * verified once in the life of the process before it is used. Content that does not match is fetched once more, then given up.
 * Sending: files of the uploads folder go out chunk by chunk; the coordinator says from where on; a sent file is removed.
 * Hashing and syncing whole files happens on libuv's worker threads, everything else on the loop's thread.
 * One chunk of each blob is under way at a time; an unanswered one is asked again, an answer to an older question is ignored. */
#ifndef DIDACT_WORKER_BLOBCACHE_H
#define DIDACT_WORKER_BLOBCACHE_H

#include "common/blob.h"
#include "common/wire.h"

#include <uv.h>

#define NEED_MAX 16

struct blobcache_io {
    /* Send a message; gives its seq a fresh number and writes it to m->seq. -ERR_UNREACHABLE where there is no session. */
    int  (*send)(void *arg, struct wire_msg *m);
    /* All blobs of blobcache_need are there (rc 0), or one is not to be had: -ERR_INPUT, the coordinator does not have it or only
     * damaged; -ERR_IO, this machine's trouble or the coordinator's, to be tried again later. */
    void (*ready)(void *arg, void *who, int rc, const struct errbuf *e);
    void (*sent)(void *arg, const char *hash, int rc, const struct errbuf *e); /* a file of the uploads folder: done, or refused */
    void *arg;
};

struct blobcache;
int  blobcache_new(const char *cache_dir, const char *uploads_dir, uv_loop_t *loop, const struct blobcache_io *io,
                   struct blobcache **out, struct errbuf *e);
/* Stops. The memory may be freed when the loop has run dry. */
void blobcache_stop(struct blobcache *c);
void blobcache_free(struct blobcache *c);

const struct blob_dir *blobcache_uploads(const struct blobcache *c);
void blobcache_path(const struct blobcache *c, const char *hash, char *out, size_t cap);

/* 1: all of them are here and verified. 0: `ready` is called once for `who`, later. */
int  blobcache_need(struct blobcache *c, void *who, const hash_str *hash, int n, struct errbuf *e);
void blobcache_forget(struct blobcache *c, void *who); /* no call any more */
/* Send a file of the uploads folder. Asking again is fine. */
int  blobcache_send(struct blobcache *c, const char *hash, const char *kind, struct errbuf *e);
bool blobcache_unsent(const struct blobcache *c, const char *hash); /* it lies in the uploads folder */

void blobcache_on_message(struct blobcache *c, const struct wire_msg *m); /* BLOB_CHUNK, BLOB_PUT_ACK */
bool blobcache_on_error(struct blobcache *c, const struct wire_msg *m);   /* true: it was about one of our questions */
void blobcache_reset(struct blobcache *c);              /* a new session: ask again whatever was under way */
void blobcache_tick(struct blobcache *c, int64_t now_ms);

#endif
