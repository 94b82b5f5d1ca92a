/* isa.c - which kernel variant serves this process. The table lists best first; `cap` bars what stands above it. */
#include "worker/engine/op.h"

#include <cblas.h>
#include <string.h>
#include <strings.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define DECLARE(v) const struct kernels *kernels_##v(void);
DECLARE(f64)
DECLARE(f32_portable)
DECLARE(f32_avx2)
DECLARE(f32_avx512)
DECLARE(f32_neon)

struct isa {
    const char *name;
    const struct kernels *(*kernels)(void);
    bool (*here)(void);
};

#if defined(HAVE_KV_f32_avx512)
static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
}
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
static bool yes(void) { return true; }

static const struct isa isas[] = {
#if defined(HAVE_KV_f32_avx512)
    { "avx512", kernels_f32_avx512, has_avx512 },
    { "avx2", kernels_f32_avx2, has_avx2 },
#endif
#if defined(HAVE_KV_f32_neon)
    { "neon", kernels_f32_neon, yes },
#endif
    { "portable", kernels_f32_portable, yes },
};
enum { N_ISAS = sizeof isas / sizeof isas[0] };

/* OpenBLAS serves a CPU that it does not know with kernels of 2004 (its core is then called Prescott), at a third of the speed of
 * our own products where the CPU has AVX2. These are the cores whose kernels use it. */
static bool blas_serves;
static bool find_blas(void)
{
#if defined(HAVE_KV_f32_avx512)
    static const char *const modern[] = { "Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids" };
    const char *core = openblas_get_corename();
    for (size_t i = 0; i < sizeof modern / sizeof modern[0]; i++)
        if (strcasecmp(core, modern[i]) == 0)
            return true;
    return !has_avx2();
#else
    return true;
#endif
}

static const struct isa *chosen = &isas[N_ISAS - 1];

int eng_init(const char *cap, struct errbuf *e)
{
    static const char *const known[] = { "avx512", "avx2", "neon", "portable" };
    eng_thread_init();
    openblas_set_num_threads(1);
    blas_serves = find_blas();
    bool name_ok = !cap || !cap[0], reached = name_ok;
    for (size_t i = 0; i < sizeof known / sizeof known[0] && !name_ok; i++)
        name_ok = strcmp(cap, known[i]) == 0;
    if (!name_ok)
        return err_set(e, ERR_USAGE, "instruction set '%s' is not known (avx512, avx2, neon, portable)", cap);
    for (int i = 0; i < N_ISAS; i++) {
        bool named = cap && strcmp(cap, isas[i].name) == 0;
        if (named && !isas[i].here())
            break;
        reached |= named;
        if (reached && isas[i].here()) {
            chosen = &isas[i];
            return 0;
        }
    }
    return err_set(e, ERR_UNAVAILABLE, "instruction set '%s' is not available on this machine", cap);
}

const char *eng_isa(void) { return chosen->name; }
bool        eng_blas_serves(void) { return blas_serves; }

const struct kernels *eng_kernels(enum eng_dtype t)
{
    return t == ENG_F64 ? kernels_f64() : chosen->kernels();
}

void eng_thread_init(void)
{
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (1u << 24)));
#endif
}

void   eng_axpy(enum eng_dtype t, uint64_t n, double a, const void *x, void *y) { eng_kernels(t)->axpy(n, a, x, y); }
double eng_dot(enum eng_dtype t, uint64_t n, const void *x, const void *y) { return eng_kernels(t)->dot(n, x, y); }
bool   eng_finite(enum eng_dtype t, uint64_t n, const void *x) { return eng_kernels(t)->finite(n, x); }
int    eng_count_correct(enum eng_dtype t, const void *logits, int n, int K, const int *label)
{
    return eng_kernels(t)->count_correct(logits, n, K, label);
}
