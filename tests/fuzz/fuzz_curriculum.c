/* A curriculum file: what is accepted is whole and finite. */
#include "common/curriculum.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct curriculum c;
    struct errbuf e = { 0 };
    if (curriculum_load(&c, fuzz_file(0, data, size), &e) < 0) {
        FUZZ_CHECK(e.text[0]);
        return 0;
    }
    size_t n = (size_t)c.T * (size_t)c.B, pixels = n * (size_t)c.c * (size_t)c.h * (size_t)c.w;
    unsigned sum = 0;
    for (size_t i = 0; i < pixels; i++)
        sum += c.images[i];
    for (size_t i = 0; i < n * (size_t)c.K; i++)
        FUZZ_CHECK(isfinite(c.labels[i]));
    for (int t = 0; t < c.T; t++)
        FUZZ_CHECK(isfinite(c.lr[t]) && c.lr[t] >= 0 && isfinite(c.mu[t]));
    FUZZ_CHECK(sum < UINT32_MAX);
    curriculum_fini(&c);
    return 0;
}
