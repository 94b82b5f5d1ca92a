/* space.h - search spaces and architectures. A space is one file and one row in the table of space.c.
 * An architecture is its canonical text: equal networks have equal text, hence equal hash.
 * Thread: everything here is pure. */
#ifndef DIDACT_SPACE_H
#define DIDACT_SPACE_H

#include "common/err.h"
#include "common/net.h"
#include "common/rng.h"

#define ARCH_TEXT_MAX 1024 /* bytes with the final 0 */
#define ARCH_HASH_LEN 32   /* hex characters: BLAKE2b-128 of "space\ntext" */

struct space {
    const char *name, *about;
    double      size; /* number of points, for people; an upper bound where equal ones are not known */
    /* Draw uniformly over the choices. text has ARCH_TEXT_MAX bytes; always canonical, always buildable
     * on an image of at least 8x8. */
    void (*random)(struct rng *r, char *text);
    /* One uniformly drawn change of one choice; the result differs from `parent` (canonical). */
    void (*mutate)(struct rng *r, const char *parent, char *text);
    /* Check and canonicalise what a person wrote: -ERR_INPUT naming the part that is wrong. */
    int (*canon)(const char *in, char *text, struct errbuf *e);
    /* The network for images [c,h,w] and K classes (a fresh net; fini it). -ERR_SHAPE where it cannot be. */
    int (*build)(const char *text, int c, int h, int w, int n_classes, struct net *out, struct errbuf *e);
};

extern const struct space space_chain, space_nasbench201; /* one file each */

const struct space *space_find(const char *name);      /* NULL: no such space */
const struct space *space_at(int i);                   /* the table, NULL past its end */
void arch_hash(const char *space, const char *text, char hex[ARCH_HASH_LEN + 1]);

#endif
