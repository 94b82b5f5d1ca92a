/* A PNG or JPEG of somebody's folder: what is probed can be read into the room that was promised, in both numbers of channels. */
#include "common/image_file.h"
#include "tests/fuzz/fuzz.h"

#define PIXELS_MAX (1 << 18) /* a header may promise 4096 x 4096, at 40 ms a time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file(0, data, size);
    struct image_info info;
    struct errbuf e = { 0 };
    if (image_probe(path, &info, &e) < 0) {
        FUZZ_CHECK(e.text[0]);
        return 0;
    }
    FUZZ_CHECK((info.c == 1 || info.c == 3) && info.h > 0 && info.w > 0);
    if ((size_t)info.h * (size_t)info.w > PIXELS_MAX)
        return 0;
    for (int c = info.c; c <= 3; c += 2) {
        struct image_info want = { c, info.h, info.w };
        uint8_t *out = malloc((size_t)c * (size_t)info.h * (size_t)info.w);
        FUZZ_CHECK(out);
        int rc = image_read(path, &want, out, &e);
        FUZZ_CHECK(rc == 0 || e.text[0]);
        free(out);
    }
    return 0;
}
