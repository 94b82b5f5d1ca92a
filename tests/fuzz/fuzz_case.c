/* A case: the JSON, a 0, and the bytes of its tensor file. What is accepted and small is computed, and every output is there. */
#include "tests/fuzz/fuzz.h"
#include "worker/case.h"

#include <string.h>

#define COMPUTE_MACS  200000
#define COMPUTE_ELEMS 100000

static bool small(const struct gcase *c)
{
    uint64_t macs = net_macs(&c->learner), steps = (uint64_t)c->T * (uint64_t)c->B + (uint64_t)c->meta_batch;
    uint64_t image = (uint64_t)c->c * (uint64_t)c->h * (uint64_t)c->w + (uint64_t)c->K + (uint64_t)c->zdim;
    if (c->generator_mode)
        macs += net_macs(&c->generator);
    return c->learner.n_nodes < 100 && c->generator.n_nodes < 100 && macs < COMPUTE_MACS && steps < COMPUTE_ELEMS &&
           macs * steps < COMPUTE_MACS && image < COMPUTE_ELEMS && image * steps < COMPUTE_ELEMS &&
           (net_activation_elems(&c->learner) + net_activation_elems(&c->generator)) * steps < 10 * COMPUTE_ELEMS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    const uint8_t *cut = memchr(data, 0, size);
    size_t n = cut ? (size_t)(cut - data) : size;
    struct gcase c;
    struct errbuf e = { 0 };
    if (!started)
        FUZZ_CHECK(eng_init(NULL, NULL) == 0);
    started = true;
    const char *json = fuzz_file(0, data, n), *tensors = fuzz_file(1, cut ? cut + 1 : data, cut ? size - n - 1 : 0);
    int rc = case_load(&c, json, tensors, &e);
    if (rc == 0 && small(&c) && (rc = case_compute(&c, 1, NULL, &e)) == 0)
        for (int i = 0; i < c.n_out; i++)
            FUZZ_CHECK(c.out[i].data && c.out[i].count > 0);
    FUZZ_CHECK(rc == 0 || e.text[0]);
    case_fini(&c);
    return 0;
}
