/* simd.h - the one vector vocabulary of the kernels. Every file in op/ and cpu/ is compiled once a kernel variant
 * (KV: f64, f32_portable, f32_avx2, f32_avx512, f32_neon) against these few inline functions.
 *
 * Kernels vectorise over outputs (channels), never inside one output's sum, and use fused multiply-add exactly where
 * vfma/rfma is written. So the width of a vector does not show in the result: every f32 variant gives the same bits.
 * VL = 1 (portable, f64) is the plain loop that the others answer to. */
#ifndef DIDACT_ENGINE_SIMD_H
#define DIDACT_ENGINE_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KV_CAT2(a, b) a##_##b
#define KV_CAT(a, b) KV_CAT2(a, b)
#define KN(name) KV_CAT(name, KV) /* a symbol of this variant */

#ifdef KV_F64
typedef double real;
#define KV_DTYPE ENG_F64
static inline real rfma(real a, real b, real c) { return a * b + c; } /* double need not be canonical */
#else
typedef float real;
#define KV_DTYPE ENG_F32
static inline real rfma(real a, real b, real c) { return __builtin_fmaf(a, b, c); }
#endif

#if defined(KV_AVX512)
#include <immintrin.h>
#define VL 16
typedef __m512 vr;
static inline vr   vzero(void) { return _mm512_setzero_ps(); }
static inline vr   vset(real x) { return _mm512_set1_ps(x); }
static inline vr   vld(const real *p) { return _mm512_loadu_ps(p); }
static inline void vst(real *p, vr v) { _mm512_storeu_ps(p, v); }
static inline vr   vldn(const real *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p); }
static inline void vstn(real *p, vr v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), v); }
static inline vr   vfma(vr a, vr b, vr c) { return _mm512_fmadd_ps(a, b, c); }
static inline vr   vadd(vr a, vr b) { return _mm512_add_ps(a, b); }
static inline vr   vsub(vr a, vr b) { return _mm512_sub_ps(a, b); }
static inline vr   vmul(vr a, vr b) { return _mm512_mul_ps(a, b); }
/* p > q ? a : b and p == q ? a : b, lane by lane */
static inline vr   vgt(vr p, vr q, vr a, vr b) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(p, q, _CMP_GT_OQ), b, a); }
static inline vr   veq(vr p, vr q, vr a, vr b) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(p, q, _CMP_EQ_OQ), b, a); }
/* half a vector: as fast twice over, for the channels that fill no whole one */
#define HL 8
typedef __m256 hr;
static inline hr   hzero(void) { return _mm256_setzero_ps(); }
static inline hr   hset(real x) { return _mm256_set1_ps(x); }
static inline hr   hld(const real *p) { return _mm256_loadu_ps(p); }
static inline hr   hldn(const real *p, int n) { return _mm256_maskz_loadu_ps((__mmask8)((1u << n) - 1u), p); }
static inline void hst(real *p, hr v) { _mm256_storeu_ps(p, v); }
static inline void hstn(real *p, hr v, int n) { _mm256_mask_storeu_ps(p, (__mmask8)((1u << n) - 1u), v); }
static inline hr   hfma(hr a, hr b, hr c) { return _mm256_fmadd_ps(a, b, c); }
static inline hr   hadd(hr a, hr b) { return _mm256_add_ps(a, b); }
#elif defined(KV_AVX2)
#include <immintrin.h>
#define VL 8
typedef __m256 vr;
static inline __m256i vmask(int n)
{
    static const int32_t m[16] = { -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0 };
    return _mm256_loadu_si256((const __m256i *)(const void *)(m + 8 - n));
}
static inline vr   vzero(void) { return _mm256_setzero_ps(); }
static inline vr   vset(real x) { return _mm256_set1_ps(x); }
static inline vr   vld(const real *p) { return _mm256_loadu_ps(p); }
static inline void vst(real *p, vr v) { _mm256_storeu_ps(p, v); }
static inline vr   vldn(const real *p, int n) { return _mm256_maskload_ps(p, vmask(n)); }
static inline void vstn(real *p, vr v, int n) { _mm256_maskstore_ps(p, vmask(n), v); }
static inline vr   vfma(vr a, vr b, vr c) { return _mm256_fmadd_ps(a, b, c); }
static inline vr   vadd(vr a, vr b) { return _mm256_add_ps(a, b); }
static inline vr   vsub(vr a, vr b) { return _mm256_sub_ps(a, b); }
static inline vr   vmul(vr a, vr b) { return _mm256_mul_ps(a, b); }
static inline vr   vgt(vr p, vr q, vr a, vr b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(p, q, _CMP_GT_OQ)); }
static inline vr   veq(vr p, vr q, vr a, vr b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(p, q, _CMP_EQ_OQ)); }
#elif defined(KV_NEON)
#include <arm_neon.h>
#define VL 4
typedef float32x4_t vr;
static inline vr   vzero(void) { return vdupq_n_f32(0); }
static inline vr   vset(real x) { return vdupq_n_f32(x); }
static inline vr   vld(const real *p) { return vld1q_f32(p); }
static inline void vst(real *p, vr v) { vst1q_f32(p, v); }
static inline vr   vldn(const real *p, int n) { real t[4] = { 0 }; memcpy(t, p, (size_t)n * sizeof *p); return vld1q_f32(t); }
static inline void vstn(real *p, vr v, int n) { real t[4]; vst1q_f32(t, v); memcpy(p, t, (size_t)n * sizeof *p); }
static inline vr   vfma(vr a, vr b, vr c) { return vfmaq_f32(c, a, b); }
static inline vr   vadd(vr a, vr b) { return vaddq_f32(a, b); }
static inline vr   vsub(vr a, vr b) { return vsubq_f32(a, b); }
static inline vr   vmul(vr a, vr b) { return vmulq_f32(a, b); }
static inline vr   vgt(vr p, vr q, vr a, vr b) { return vbslq_f32(vcgtq_f32(p, q), a, b); }
static inline vr   veq(vr p, vr q, vr a, vr b) { return vbslq_f32(vceqq_f32(p, q), a, b); }
#else
#define VL 1
typedef real vr;
static inline vr   vzero(void) { return 0; }
static inline vr   vset(real x) { return x; }
static inline vr   vld(const real *p) { return *p; }
static inline void vst(real *p, vr v) { *p = v; }
static inline vr   vldn(const real *p, int n) { (void)n; return *p; }
static inline void vstn(real *p, vr v, int n) { (void)n; *p = v; }
static inline vr   vfma(vr a, vr b, vr c) { return rfma(a, b, c); }
static inline vr   vadd(vr a, vr b) { return a + b; }
static inline vr   vsub(vr a, vr b) { return a - b; }
static inline vr   vmul(vr a, vr b) { return a * b; }
static inline vr   vgt(vr p, vr q, vr a, vr b) { return p > q ? a : b; }
static inline vr   veq(vr p, vr q, vr a, vr b) { return p == q ? a : b; }
#endif

static inline vr   vpos(vr x, vr a, vr b) { return vgt(x, vzero(), a, b); }
#ifdef HL
static inline hr   hload(const real *p, int n) { return n == HL ? hld(p) : hldn(p, n); }
static inline void hstore(real *p, hr v, int n) { if (n == HL) hst(p, v); else hstn(p, v, n); }
#endif

/* n = VL: whole vector; the branch is outside the hot loops or well predicted. */
static inline vr   vload(const real *p, int n) { return n == VL ? vld(p) : vldn(p, n); }
static inline void vstore(real *p, vr v, int n) { if (n == VL) vst(p, v); else vstn(p, v, n); }
static inline int  lanes(int left) { return left < VL ? left : VL; }

#endif
