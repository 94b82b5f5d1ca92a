#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 4

const char *fuzz_file(int slot, const void *data, size_t size)
{
    static int  fd[SLOTS];
    static char path[SLOTS][32];
    if (!fd[slot]) {
        fd[slot] = memfd_create("fuzz", MFD_CLOEXEC);
        FUZZ_CHECK(fd[slot] > 0);
        snprintf(path[slot], sizeof path[slot], "/proc/self/fd/%d", fd[slot]);
    }
    FUZZ_CHECK(ftruncate(fd[slot], 0) == 0);
    FUZZ_CHECK(pwrite(fd[slot], data, size, 0) == (ssize_t)size);
    return path[slot];
}

char *fuzz_text(const uint8_t *data, size_t size)
{
    char *s = malloc(size + 1);
    FUZZ_CHECK(s);
    memcpy(s, data, size);
    s[size] = 0;
    return s;
}
