/* A folder of IDX files, plain or gzipped: four bytes (little endian) say how long the images' file is, the labels' follows. */
#include "common/import.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <unistd.h>

static char dir[64];
static const char *const names[2] = { "train-images-idx3-ubyte", "train-labels-idx1-ubyte" };

static void remove_folder(void)
{
    char path[128];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* The folder holds two links to files in memory. */
static void make_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char path[128];
    snprintf(dir, sizeof dir, "%.40s/fuzz-idx-XXXXXX", tmp ? tmp : "/tmp");
    FUZZ_CHECK(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        FUZZ_CHECK(symlink(fuzz_file(i, "", 0), path) == 0);
    }
    atexit(remove_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!dir[0])
        make_folder();
    if (size < 4)
        return 0;
    size_t rest = size - 4, n = (size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;
    n = n < rest ? n : rest;
    fuzz_file(0, data + 4, n);
    fuzz_file(1, data + 4 + n, rest - n);
    struct raw_set s = { 0 };
    struct errbuf e = { 0 };
    FUZZ_CHECK(import_idx.detect(dir));
    int rc = import_idx.read(dir, &s, &e);
    FUZZ_CHECK(rc == 0 || e.text[0]);
    if (rc == 0) {
        const struct raw_part *p = &s.part[PART_TRAIN];
        unsigned sum = 0;
        FUZZ_CHECK(p->n > 0 && s.c > 0 && s.h > 0 && s.w > 0);
        for (size_t i = 0; i < (size_t)p->n * (size_t)s.c * (size_t)s.h * (size_t)s.w; i++)
            sum += p->images[i];
        for (uint32_t i = 0; i < p->n; i++)
            sum += p->labels[i];
        FUZZ_CHECK(sum < UINT32_MAX);
    }
    raw_set_fini(&s);
    return 0;
}
