/* space_draw.h - architectures of a space for programs that search it from outside: samples, mutations, neighbours, as a document. A table,
 * so that HTTP and the command line have the same ones.
 * Thread: pure. */
#ifndef DIDACT_SPACE_DRAW_H
#define DIDACT_SPACE_DRAW_H

#include "common/space.h"

#define SPACE_DRAW_MAX 100000 /* architectures of one document */

struct space_draw {
    const char *name;     /* "sample" "mutate" "neighbours" */
    bool        of_arch;  /* takes an architecture */
    /* {space, seed, archs:[{arch, arch_hash}…]} or, of neighbours, {space, arch, archs:[…]}: all of them. The k-th draw is a function of
     * (seed, k) alone, so that a longer list opens with the shorter one. -ERR_INPUT names what is wrong with `arch`. The caller owns *out. */
    int       (*list)(const struct space *s, const char *arch, int64_t n, uint64_t seed, struct json_t **out, struct errbuf *e);
};
const struct space_draw *space_draw_find(const char *name); /* NULL: none */

#endif
