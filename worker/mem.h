/* mem.h - zeroed, cache-line aligned arrays with an overflow check. Released with free(). */
#ifndef DIDACT_WORKER_MEM_H
#define DIDACT_WORKER_MEM_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline void *mem_array(uint64_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = bytes ? (bytes + 63) & ~(size_t)63 : 64;
    void *p = aligned_alloc(64, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

#endif
