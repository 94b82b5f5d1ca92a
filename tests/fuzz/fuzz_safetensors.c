/* A safetensors file: whatever is accepted lies inside the file, and can be written and read again. */
#include "common/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct st_file f;
    struct errbuf e = { 0 };
    if (st_open(&f, fuzz_file(0, data, size), &e) < 0) {
        FUZZ_CHECK(e.text[0]);
        return 0;
    }
    unsigned sum = 0;
    for (int i = 0; i < f.n; i++) {
        const struct st_tensor *t = &f.tensor[i];
        uint64_t count = 1;
        for (int d = 0; d < t->ndim; d++)
            count *= t->dim[d];
        FUZZ_CHECK(count == t->count && t->bytes == count * st_dtype_size(t->dtype));
        FUZZ_CHECK((const char *)t->data >= (const char *)f.map && (const char *)t->data + t->bytes <= (const char *)f.map + f.map_len);
        for (uint64_t k = 0; k < t->bytes; k++) /* every byte can be read */
            sum += ((const uint8_t *)t->data)[k];
        FUZZ_CHECK(st_find(&f, t->name) == t);
    }
    for (int i = 0; i < f.n_meta; i++)
        FUZZ_CHECK(st_meta(&f, f.meta[2 * i]));
    FUZZ_CHECK(sum < UINT32_MAX);
    st_close(&f);
    return 0;
}
