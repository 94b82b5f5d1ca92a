/* replay.c - calls a fuzz target without libFuzzer: every file of its corpus, and of each some damaged copies (bytes changed,
 * cut off, doubled), the same ones every time. So what fuzzing once found stays found wherever the tests run, with any
 * compiler. Speaks TAP; runs in the repository root, or on the files that are named. */
#include "common/rng.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>

#define DAMAGED 40 /* copies of each */
#define LONGEST 65536

static int is_seed(const struct dirent *d) { return d->d_name[0] != '.'; }

static size_t damage(struct rng *r, uint8_t *p, size_t n)
{
    if (n == 0)
        return 0;
    for (uint32_t i = 0, changes = 1 + rng_below(r, 4); i < changes; i++) {
        uint32_t at = rng_below(r, (uint32_t)n);
        switch (rng_below(r, 4)) {
        case 0: p[at] = (uint8_t)rng_below(r, 256); break;
        case 1: p[at] ^= (uint8_t)(1u << rng_below(r, 8)); break;
        case 2: p[at] = (uint8_t)"0-9{}[]\",:\xff"[rng_below(r, 12)]; break;
        default: memmove(p + at, p + at / 2, n - at); /* a piece twice */
        }
    }
    return rng_below(r, 4) ? n : rng_below(r, (uint32_t)n + 1);
}

static void replay(const char *path, int number)
{
    static uint8_t whole[LONGEST];
    FILE *f = fopen(path, "rb");
    FUZZ_CHECK(f);
    size_t n = fread(whole, 1, sizeof whole, f);
    fclose(f);
    printf("# %s\n", path); /* what to look at when it dies */
    fflush(stdout);
    for (int i = 0; i <= DAMAGED; i++) {
        struct rng r;
        uint8_t *copy = malloc(n ? n : 1); /* exactly as long as the input: a reader that goes on is seen */
        FUZZ_CHECK(copy);
        memcpy(copy, whole, n);
        rng_init(&r, (uint64_t)i, RNG_TEST, (uint64_t)number);
        LLVMFuzzerTestOneInput(copy, i ? damage(&r, copy, n) : n);
        free(copy);
    }
    printf("ok %d - %s\n", number, path);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/');
    char dir[256];
    snprintf(dir, sizeof dir, "tests/fuzz/corpus/%s", (name ? name + 1 : argv[0]) + strlen("fuzz_"));
    if (argc > 1) {
        for (int i = 1; i < argc; i++)
            replay(argv[i], i);
        return 0;
    }
    struct dirent **seed = NULL;
    int n = scandir(dir, &seed, is_seed, alphasort);
    if (n <= 0) {
        printf("Bail out! %s has no seeds (run this in the repository root)\n", dir);
        return 1;
    }
    printf("1..%d\n", n);
    for (int i = 0; i < n; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", dir, seed[i]->d_name);
        replay(path, i + 1);
        free(seed[i]);
    }
    free(seed);
    return 0;
}
