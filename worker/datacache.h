/* datacache.h - datasets and curricula of this process, opened and converted once, shared by all compute threads.
 * An entry stays while somebody holds it, and the newest few stay after that. A file is known by device, inode,
 * size and time of change, so one that was replaced is read again.
 * Thread: all functions lock; what they hand out is read-only. */
#ifndef DIDACT_WORKER_DATACACHE_H
#define DIDACT_WORKER_DATACACHE_H

#include "common/curriculum.h"
#include "common/dataset.h"
#include "common/err.h"

struct real_data {
    struct dataset d;
    float *valid_x;     /* [n valid, H, W, C], the engine's layout */
    int   *valid_y;     /* [n valid] */
};
struct lessons {
    struct curriculum c;
    float  *x;          /* [T,B,H,W,C], the engine's layout; labels are c.labels */
    double *lr, *mu;    /* [T] */
};

int  datacache_data(const char *path, const struct real_data **out, struct errbuf *e);
int  datacache_lessons(const char *path, const struct lessons **out, struct errbuf *e);
void datacache_release(const void *entry); /* what either of the two gave; NULL is fine */

/* Rows `index[0..n)` of a split as network input [n,H,W,C] and one-hot labels [n,K] (y may be NULL). */
void data_batch(const struct dataset *d, enum split s, const uint32_t *index, int n, float *x, float *y);
/* n rows drawn with replacement, by the stream; data_rows names them by their place in the train part of the file, or, of SPLIT_TEST, its test part. */
struct rng;
void data_rows(const struct dataset *d, enum split s, struct rng *r, int n, int *row);
void data_draw(const struct dataset *d, enum split s, struct rng *r, int n, float *x, float *y);
/* Fill x and y of a curriculum already in memory. */
int  lessons_convert(struct lessons *l, struct errbuf *e);
void lessons_fini(struct lessons *l); /* the curriculum too */

#endif
