#include "worker/engine/cpu/product.h"

/* A tile is MR pixels by one or two vectors of channels, all in registers: AVX-512 has 32, AVX2 and NEON fewer. The tile
 * does not show in the result: each output keeps its own chain. */
#define MR_MAX 14
#define WR     8 /* rows of a weight gradient in one tile */
#define UNROLL _Pragma("GCC unroll 16")

struct tile {
    int              n_seg, n_runs, run_len, n_pix; /* n_pix <= MR: pixels that are really there */
    const ptrdiff_t *run_off;
    ptrdiff_t        a_col, c_col;
    const real      *a[2][MR_MAX];
    const real      *b0, *b1;
    real            *c[MR_MAX];
    int              n0, n1;                        /* lanes of the first and second vector */
    bool             acc;
};

struct wtile {
    const struct wprod *p;
    const real *a[2][WR];
    real       *d;
    int         n, n0, n1, n_rows;
};

#define TILE(n) n##_whole
#define T_      vr
#define t_zero  vzero
#define t_set   vset
#define t_ld    vld
#define t_load  vload
#define t_store vstore
#define t_fma   vfma
#define t_add   vadd
#include "worker/engine/cpu/product_tile.h"
#undef TILE
#undef T_
#undef t_zero
#undef t_set
#undef t_ld
#undef t_load
#undef t_store
#undef t_fma
#undef t_add

#ifdef HL
#define TILE(n) n##_half
#define T_      hr
#define t_zero  hzero
#define t_set   hset
#define t_ld    hld
#define t_load  hload
#define t_store hstore
#define t_fma   hfma
#define t_add   hadd
#include "worker/engine/cpu/product_tile.h"
#else
#define HL 0
#define strided_half   strided_whole
#define scattered_half scattered_whole
#define wtile_half     wtile_whole
#endif

/* ---- which tile ---- */

typedef void (*tile_fn)(const struct tile *t);
struct shape { int mr; tile_fn strided, scattered; };
enum { MAX_SHAPES = 3 }; /* of one width, larger ones first */

#define SHAPE(name, half, mr, nv)                                                               \
    static void strided_##name(const struct tile *t) { strided_##half(t, mr, nv); }             \
    static void scattered_##name(const struct tile *t) { scattered_##half(t, mr, nv); }
#define ROW(name, mr) { mr, strided_##name, scattered_##name }

#if defined(KV_AVX512)
SHAPE(w2_14, whole, 14, 2) SHAPE(w2_8, whole, 8, 2) SHAPE(w2_7, whole, 7, 2) SHAPE(w1_14, whole, 14, 1) SHAPE(w1_8, whole, 8, 1)
SHAPE(h1_14, half, 14, 1) SHAPE(h1_8, half, 8, 1)
static const struct shape two[MAX_SHAPES] = { ROW(w2_14, 14), ROW(w2_8, 8), ROW(w2_7, 7) }, one[MAX_SHAPES] = { ROW(w1_14, 14), ROW(w1_8, 8) }, half[MAX_SHAPES] = { ROW(h1_14, 14), ROW(h1_8, 8) };
#elif defined(KV_AVX2)
SHAPE(w2_6, whole, 6, 2) SHAPE(w2_4, whole, 4, 2) SHAPE(w1_14, whole, 14, 1) SHAPE(w1_8, whole, 8, 1)
static const struct shape two[MAX_SHAPES] = { ROW(w2_6, 6), ROW(w2_4, 4) }, one[MAX_SHAPES] = { ROW(w1_14, 14), ROW(w1_8, 8) };
#define half one
#elif defined(KV_NEON)
SHAPE(w2_12, whole, 12, 2) SHAPE(w2_8, whole, 8, 2) SHAPE(w1_14, whole, 14, 1) SHAPE(w1_8, whole, 8, 1)
static const struct shape two[MAX_SHAPES] = { ROW(w2_12, 12), ROW(w2_8, 8) }, one[MAX_SHAPES] = { ROW(w1_14, 14), ROW(w1_8, 8) };
#define half one
#else
SHAPE(w2_4, whole, 4, 2) SHAPE(w2_2, whole, 2, 2) SHAPE(w1_8, whole, 8, 1) SHAPE(w1_4, whole, 4, 1)
static const struct shape two[MAX_SHAPES] = { ROW(w2_4, 4), ROW(w2_2, 2) }, one[MAX_SHAPES] = { ROW(w1_8, 8), ROW(w1_4, 4) };
#define half one
#endif

/* The shape that wastes fewest pixels on a run of so many; ties to the larger. */
static const struct shape *fit(const struct shape *s, int n)
{
    const struct shape *best = s;
    for (int i = 1; i < MAX_SHAPES && s[i].mr; i++)
        if ((s[i].mr - n % s[i].mr) % s[i].mr < (best->mr - n % best->mr) % best->mr)
            best = &s[i];
    return best;
}

static void run_strided(const struct prod *p, struct tile *t, const struct shape *s, int n)
{
    for (int row = 0; row < p->rows; row++)
        for (int col = 0; col < p->cols; col += s->mr) {
            const ptrdiff_t ao = row * p->a_row + col * p->a_col;
            t->n_pix = p->cols - col < s->mr ? p->cols - col : s->mr;
            /* The last tile of a row would read past it: read MR pixels back from the row's end where there are so many. */
            if (t->n_pix < s->mr) {
                for (int g = 0; g < p->n_seg; g++)
                    for (int i = 0; i < s->mr; i++)
                        t->a[g][i] = p->a[g] + ao + (i < t->n_pix ? i : t->n_pix - 1) * p->a_col;
                for (int i = 0; i < t->n_pix; i++)
                    t->c[i] = p->c + row * p->c_row + (col + i) * p->c_col + n;
                s->scattered(t);
                continue;
            }
            for (int g = 0; g < p->n_seg; g++)
                t->a[g][0] = p->a[g] + ao;
            t->c[0] = p->c + row * p->c_row + col * p->c_col + n;
            s->strided(t);
        }
}

static void run_scattered(const struct prod *p, struct tile *t, const struct shape *s, int n)
{
    const int n_pix = p->rows * p->cols;
    int row = 0, col = 0;
    for (int pix = 0; pix < n_pix; pix += s->mr) {
        t->n_pix = n_pix - pix < s->mr ? n_pix - pix : s->mr;
        for (int i = 0; i < s->mr; i++)
            if (i < t->n_pix) {
                const ptrdiff_t ao = row * p->a_row + col * p->a_col;
                for (int g = 0; g < p->n_seg; g++)
                    t->a[g][i] = p->a[g] + ao;
                t->c[i] = p->c + row * p->c_row + col * p->c_col + n;
                if (++col == p->cols) {
                    col = 0;
                    row++;
                }
            } else
                for (int g = 0; g < p->n_seg; g++)
                    t->a[g][i] = t->a[g][i - 1];
        s->scattered(t);
    }
}

void KN(prod_run)(const struct prod *p)
{
    const size_t K = (size_t)p->n_seg * (size_t)p->n_runs * (size_t)p->run_len;
    struct tile  t = { .n_seg = p->n_seg, .n_runs = p->n_runs, .run_len = p->run_len, .run_off = p->run_off, .acc = p->acc,
                       .a_col = p->a_col, .c_col = p->c_col };
    for (int n = 0; n < p->N;) {
        const int  left = p->N - n;
        const bool pair = left > VL + HL, small = left <= HL;
        const struct shape *s = pair ? two : small ? half : one;
        t.b0 = p->b + (size_t)(n / VL) * K * VL;
        t.b1 = t.b0 + (pair ? K * VL : 0);
        t.n0 = lanes(left);
        t.n1 = pair ? lanes(left - VL) : 0;
        s = fit(s, p->cols >= 7 ? p->cols : p->rows * p->cols);
        if (p->cols >= 7)
            run_strided(p, &t, s, n);
        else
            run_scattered(p, &t, s, n);
        n += pair ? 2 * VL : VL;
    }
}

/* ---- gradient with respect to the weights ---- */

static void wt_two_1(const struct wtile *t) { wtile_whole(t, 2, true); }
static void wt_two_0(const struct wtile *t) { wtile_whole(t, 2, false); }
static void wt_one_1(const struct wtile *t) { wtile_whole(t, 1, true); }
static void wt_one_0(const struct wtile *t) { wtile_whole(t, 1, false); }
static void wt_half_1(const struct wtile *t) { wtile_half(t, 1, true); }
static void wt_half_0(const struct wtile *t) { wtile_half(t, 1, false); }

/* Columns outside: a chunk's pixels of two vectors of G stay in the nearest cache while the rows of A pass by. */
void KN(wprod_run)(const struct wprod *p)
{
    for (int n = 0, step; n < p->N; n += step) {
        const int  left = p->N - n;
        const bool pair = left > VL + HL, small = left <= HL;
        void (*const tile[2])(const struct wtile *) = { pair ? wt_two_0 : small ? wt_half_0 : wt_one_0, pair ? wt_two_1 : small ? wt_half_1 : wt_one_1 };
        step = pair ? 2 * VL : VL;
        for (int r = p->r0; r < p->r1; r += WR) {
            struct wtile t = { .p = p, .n_rows = p->r1 - r < WR ? p->r1 - r : WR, .n = n, .n0 = lanes(left), .n1 = pair ? lanes(left - VL) : 0,
                               .d = p->d + r * p->ldd + n };
            for (int i = 0; i < WR; i++) {
                int ri = i < t.n_rows ? r + i : p->r1 - 1;
                for (int s = 0; s < p->n_seg; s++)
                    t.a[s][i] = p->a[s] + p->run_off[ri / p->run_len] + ri % p->run_len;
            }
            tile[t.n_rows == WR && r / p->run_len == (r + WR - 1) / p->run_len](&t);
        }
    }
}
