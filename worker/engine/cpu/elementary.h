/* elementary.h - exp, log and tanh of our own for the float variants, so that a score does not depend on which libm a
 * machine has: polynomials evaluated with explicit fused multiply-adds (coefficients after Cephes; error below 2 ulp).
 * The double variant uses libm. */
#ifndef DIDACT_ENGINE_ELEMENTARY_H
#define DIDACT_ENGINE_ELEMENTARY_H

#include "worker/engine/cpu/simd.h"

#ifdef KV_F64
static inline real r_exp(real x) { return exp(x); }
static inline real r_log(real x) { return log(x); }
static inline real r_tanh(real x) { return tanh(x); }
#else
static inline real r_exp(real x)
{
    if (!(x > -87.0f))
        return x != x ? x : 0.0f;
    if (x > 88.5f)
        return INFINITY;
    float n = rintf(x * 1.44269504088896341f);
    float r = rfma(n, -0.693359375f, x);
    r = rfma(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = rfma(p, r, 1.3981999507e-3f);
    p = rfma(p, r, 8.3334519073e-3f);
    p = rfma(p, r, 4.1665795894e-2f);
    p = rfma(p, r, 1.6666665459e-1f);
    p = rfma(p, r, 5.0000001201e-1f);
    p = rfma(p, r * r, r) + 1.0f;
    int32_t  i = (int32_t)n;
    uint32_t lo = (uint32_t)(i / 2 + 127) << 23, hi = (uint32_t)(i - i / 2 + 127) << 23; /* two factors: n may reach 128 */
    float a, b;
    memcpy(&a, &lo, 4);
    memcpy(&b, &hi, 4);
    return p * a * b;
}

static inline real r_log(real x) /* x > 0 and normal, or the obvious limits */
{
    if (!(x > 0))
        return x == 0 ? -INFINITY : NAN;
    if (x > 3.4e38f)
        return x;
    uint32_t u;
    memcpy(&u, &x, 4);
    int e = (int)(u >> 23) - 126;
    u = (u & 0x007FFFFFu) | 0x3F000000u;
    float m;
    memcpy(&m, &u, 4);
    if (m < 0.70710678f) {
        e--;
        m = m + m - 1.0f;
    } else
        m = m - 1.0f;
    float z = m * m, p = 7.0376836292e-2f;
    p = rfma(p, m, -1.1514610310e-1f);
    p = rfma(p, m, 1.1676998740e-1f);
    p = rfma(p, m, -1.2420140846e-1f);
    p = rfma(p, m, 1.4249322787e-1f);
    p = rfma(p, m, -1.6668057665e-1f);
    p = rfma(p, m, 2.0000714765e-1f);
    p = rfma(p, m, -2.4999993993e-1f);
    p = rfma(p, m, 3.3333331174e-1f);
    float y = p * m * z, fe = (float)e;
    y = rfma(fe, -2.12194440e-4f, y);
    y = rfma(z, -0.5f, y);
    return rfma(fe, 0.693359375f, m + y);
}

static inline real r_tanh(real x)
{
    float a = fabsf(x);
    if (a < 0.625f) {
        float z = x * x, p = -5.70498872745e-3f;
        p = rfma(p, z, 2.06390887954e-2f);
        p = rfma(p, z, -5.37397155531e-2f);
        p = rfma(p, z, 1.33314422036e-1f);
        p = rfma(p, z, -3.33332819422e-1f);
        return rfma(p * z, x, x);
    }
    float t = a > 9.0f ? 1.0f : 1.0f - 2.0f / (r_exp(a + a) + 1.0f);
    return x != x ? x : copysignf(t, x);
}
#endif

#endif
