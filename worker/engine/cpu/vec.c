/* vec.c - whole-vector operations. Sums are cut into chunks of 4096, eight chains a chunk, chunks added in order, in double. */
#include "worker/engine/cpu/variant.h"

void KN(affine)(uint64_t n, double a, double b, const void *xp, void *yp)
{
    const real *x = xp, f = (real)a, g = (real)b;
    real *y = yp;
    for (uint64_t i = 0; i < n; i++)
        y[i] = f * x[i] + g;
}

void KN(axpy)(uint64_t n, double a, const void *xp, void *yp)
{
    const real *restrict x = xp, f = (real)a;
    real *restrict y = yp;
    for (uint64_t i = 0; i < n; i++)
        y[i] = y[i] + f * x[i];
}

double KN(dot)(uint64_t n, const void *xp, const void *yp)
{
    const real *x = xp, *y = yp;
    double total = 0;
    for (uint64_t at = 0; at < n; at += 4096) {
        double   s[8] = { 0 };
        uint64_t end = n - at < 4096 ? n : at + 4096, i = at;
        for (; i + 8 <= end; i += 8)
            for (int k = 0; k < 8; k++)
                s[k] += (double)x[i + (uint64_t)k] * (double)y[i + (uint64_t)k];
        for (int k = 0; i < end; i++, k++)
            s[k] += (double)x[i] * (double)y[i];
        total += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
    return total;
}

bool KN(finite)(uint64_t n, const void *xp)
{
    const real *x = xp;
    for (uint64_t at = 0; at < n; at += 4096) {
        uint64_t end = n - at < 4096 ? n : at + 4096;
        int bad = 0;
        for (uint64_t i = at; i < end; i++)
            bad |= !(x[i] - x[i] == 0);
        if (bad)
            return false;
    }
    return true;
}
