/* A dataset file: the splits share no row and cover all, every label is a class. */
#include "common/dataset.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dataset d;
    struct errbuf e = { 0 };
    if (dataset_open(&d, fuzz_file(0, data, size), &e) < 0) {
        FUZZ_CHECK(e.text[0]);
        return 0;
    }
    unsigned sum = 0;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        FUZZ_CHECK(d.n[s] > 0);
        for (uint32_t i = 0; i < d.n[s]; i++) {
            int label = dataset_label(&d, (enum split)s, i);
            FUZZ_CHECK(label >= 0 && label < d.n_classes);
            const uint8_t *x = dataset_image(&d, (enum split)s, i);
            sum += x[0] + x[(size_t)d.c * (size_t)d.h * (size_t)d.w - 1];
        }
    }
    FUZZ_CHECK(sum < UINT32_MAX);
    dataset_close(&d);
    return 0;
}
