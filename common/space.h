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

/* How the built network is made smaller or larger than the space's own skeleton: part of the fidelity of a score. 0: as the space has it. */
struct proxy {
    int channels;   /* of the first stage; each later one has twice those of the stage before */
    int cells;      /* a stage */
    int downsample; /* images are averaged over so many pixels a side before the first layer; 0 and 1: not */
};
#define PROXY_MAX_CHANNELS   256
#define PROXY_MAX_CELLS      8
#define PROXY_MAX_DOWNSAMPLE 8

/* What a network is built for: images [c,h,w], K classes. */
struct arch_frame {
    int          c, h, w, n_classes;
    struct proxy proxy;
};

/* Texts, owned. Fill with arch_list_add, then sort. */
struct arch_list {
    char **text;
    size_t n, cap;
};
int  arch_list_add(struct arch_list *l, const char *text, struct errbuf *e);
void arch_list_sort(struct arch_list *l); /* by bytes; repeats are dropped */
void arch_list_fini(struct arch_list *l);

/* One edge of a cell, for drawings: node `to` sums op(from) over its edges. Static strings. */
struct arch_edge { const char *cell, *op; int from, to; };
#define ARCH_MAX_EDGES 64

struct space {
    const char *name, *about; /* of a space from a file: NAME@ and the first 16 digits of its hash, so that other content is another space */
    const char *hash;      /* of a space from a file: of its content, BLAKE2b-256 in hex; NULL: built in */
    double      size; /* number of points, for people; an upper bound where equal ones are not known */
    bool        has_cells; /* the skeleton repeats cells: proxy.channels and proxy.cells apply */
    const void *ctx;  /* the functions' own; NULL for the built-in spaces */
    /* Draw uniformly over the choices. text has ARCH_TEXT_MAX bytes; always canonical, always buildable
     * on an image of at least 8x8. */
    void (*random)(const struct space *s, struct rng *r, char *text);
    /* One uniformly drawn change of one choice; the result differs from `parent` (canonical). */
    void (*mutate)(const struct space *s, struct rng *r, const char *parent, char *text);
    /* Each choice from one of two canonical parents, uniformly drawn among the combinations that can be built and cost no
     * more than random and mutate propose, or than the larger parent. May equal a parent. */
    void (*crossover)(const struct space *s, struct rng *r, const char *a, const char *b, char *text);
    /* Append every network that `mutate` can make of `parent`, each once, sorted by text. -ERR_NOMEM. */
    int (*neighbours)(const struct space *s, const char *parent, struct arch_list *out, struct errbuf *e);
    /* Check and canonicalise what a person wrote: -ERR_INPUT naming the part that is wrong. */
    int (*canon)(const struct space *s, const char *in, char *text, struct errbuf *e);
    /* The edges of a canonical text's cells, in the order of the text; their number. NULL: no cells, the text is the drawing. */
    int (*edges)(const struct space *s, const char *text, struct arch_edge out[ARCH_MAX_EDGES]);
    /* The network (a fresh net; fini it). -ERR_SHAPE where it cannot be. Called through space_build. */
    int (*build)(const struct space *s, const char *text, const struct arch_frame *f, struct net *out, struct errbuf *e);
};

extern const struct space space_chain, space_nasbench201, space_nasnet; /* one file each */

/* A built-in space, or one from a file that this process has registered (space_file.h); NULL: no such space. Any thread. */
const struct space *space_find(const char *name);
const struct space *space_at(int i);                   /* the built-in ones, NULL past the end */
/* The network of `text` for images [c,h,w] and K classes; its output depends on every layer. proxy NULL: the space's own skeleton.
 * -ERR_INPUT where the proxy is out of range or not for this space, else as build. On an error *out is empty. */
int space_build(const struct space *s, const char *text, int c, int h, int w, int n_classes, const struct proxy *proxy,
                struct net *out, struct errbuf *e);
int space_proxy_check(const struct space *s, const struct proxy *p, const char *section, struct errbuf *e); /* names section.KEY */
/* For build(): start `n` with the image, averaged down as the proxy says; the node to go on from, or an error. */
int space_input(struct net *n, const struct arch_frame *f, struct errbuf *e);

/* The proxy that a weights file's metadata "channels" and "cells" state; NULL: absent. */
struct proxy space_proxy_from(const char *channels, const char *cells);

void arch_hash(const char *space, const char *text, char hex[ARCH_HASH_LEN + 1]);

#endif
