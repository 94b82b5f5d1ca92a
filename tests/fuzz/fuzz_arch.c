/* An architecture's text, given to every space: what is canonical stays canonical, builds for any sensible image or says why
 * not, and has children. */
#include "common/space.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void build(const struct space *s, const char *text)
{
    static const struct { int c, h, w, classes; } images[] = { { 1, 28, 28, 10 }, { 3, 9, 14, 2 }, { 2, 1, 3, 5 } };
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        struct net n;
        struct errbuf e = { 0 };
        int rc = space_build(s, text, images[i].c, images[i].h, images[i].w, images[i].classes, NULL, &n, &e);
        FUZZ_CHECK(rc == 0 || (rc == -ERR_SHAPE && e.text[0]));
        if (rc < 0)
            continue;
        FUZZ_CHECK(n.node[n.out].shape.flat && n.node[n.out].shape.c == images[i].classes);
        FUZZ_CHECK(n.param_count > 0 && net_macs(&n) > 0);
        net_fini(&n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), canon[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX], child[ARCH_TEXT_MAX];
    for (int i = 0; space_at(i); i++) {
        const struct space *s = space_at(i);
        struct errbuf e = { 0 };
        int rc = s->canon(s, text, canon, &e);
        FUZZ_CHECK(rc == 0 || (rc == -ERR_INPUT && e.text[0]));
        if (rc < 0)
            continue;
        struct rng r;
        FUZZ_CHECK(s->canon(s, canon, again, &e) == 0 && strcmp(canon, again) == 0);
        build(s, canon);
        rng_init(&r, size, RNG_TEST, 0);
        s->mutate(s, &r, canon, child);
        FUZZ_CHECK(strcmp(canon, child) != 0 && s->canon(s, child, again, &e) == 0 && strcmp(child, again) == 0);
        build(s, child);
    }
    free(text);
    return 0;
}
