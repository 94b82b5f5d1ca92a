/* A user's space file. What an accepted space draws, changes or crosses is canonical, and builds or says why not. */
#include "common/space_file.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void look_at(const struct space *s, const char *text)
{
    char again[ARCH_TEXT_MAX];
    struct errbuf e = { 0 };
    struct net n;
    FUZZ_CHECK(s->canon(s, text, again, &e) == 0 && strcmp(text, again) == 0);
    int rc = space_build(s, text, 1, 28, 28, 10, NULL, &n, &e);
    FUZZ_CHECK(rc == 0 || (rc == -ERR_SHAPE && e.text[0]));
    if (rc == 0)
        net_fini(&n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[3][ARCH_TEXT_MAX];
    struct space *s = NULL;
    struct errbuf e = { 0 };
    int rc = space_file_parse((const char *)data, size, "space.yaml", &s, &e);
    FUZZ_CHECK(rc == 0 || e.text[0]);
    for (uint64_t i = 0; rc == 0 && i < 4; i++) {
        struct rng r;
        rng_init(&r, size, RNG_TEST, i);
        s->random(s, &r, text[0]);
        look_at(s, text[0]);
        s->mutate(s, &r, text[0], text[1]);
        look_at(s, text[1]);
        s->crossover(s, &r, text[0], text[1], text[2]);
        look_at(s, text[2]);
    }
    if (rc == 0)
        space_file_free(s);
    return 0;
}
