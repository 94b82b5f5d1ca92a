/* blob.h - a folder of immutable files named by the BLAKE2b-256 of their content, in hex.
 * Written to a temporary name in the same folder, synced, renamed: a blob is whole or absent.
 * Used by the coordinator (datasets, curricula, weights) and as the worker's cache.
 * Thread: a blob_dir has no state but its path; a blob_writer is owned by one thread. */
#ifndef DIDACT_BLOB_H
#define DIDACT_BLOB_H

#include "common/err.h"
#include "common/job.h"

#include <stdint.h>

#define BLOB_CHUNK (256 * 1024) /* bytes of one chunk on the wire */

struct blob_dir { char path[4000]; };

int  blob_dir_open(struct blob_dir *d, const char *path, struct errbuf *e);  /* creates it; removes stale temporaries */
bool blob_valid_hash(const char *hex);
void blob_path(const struct blob_dir *d, const char *hash, char *out, size_t cap);
bool blob_exists(const struct blob_dir *d, const char *hash, uint64_t *size);
/* Read the whole content and compare: -ERR_CORRUPT names the blob (and renames it to *.corrupt). */
int  blob_verify(const struct blob_dir *d, const char *hash, struct errbuf *e);
int  blob_read(const struct blob_dir *d, const char *hash, uint64_t off, void *buf, size_t cap, size_t *got, uint64_t *total,
               struct errbuf *e);
int  blob_put_file(const struct blob_dir *d, const char *src, hash_str hash, struct errbuf *e); /* copy in */
int  blob_put_bytes(const struct blob_dir *d, const void *p, size_t n, hash_str hash, struct errbuf *e);

/* Chunks in order; commit fails with -ERR_CORRUPT unless the content has the expected hash ("" : any). */
struct blob_writer;
int  blob_writer_open(const struct blob_dir *d, struct blob_writer **out, struct errbuf *e);
int  blob_writer_add(struct blob_writer *w, const void *p, size_t n, struct errbuf *e);
int  blob_writer_commit(struct blob_writer *w, const char *expect, hash_str hash, struct errbuf *e); /* frees w */
void blob_writer_abort(struct blob_writer *w);                                                       /* frees w; NULL is fine */

int  hash_file(const char *path, hash_str hash, struct errbuf *e);
void hash_bytes(const void *p, size_t n, hash_str hash);

#endif
