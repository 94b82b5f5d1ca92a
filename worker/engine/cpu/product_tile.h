/* product_tile.h - the inner loops of product.c for one vector type, included once for whole vectors and once for halves.
 * Before: TILE(name) makes a symbol, T_ the type, t_zero … its functions. No include guard on purpose.
 *
 * strided: MR pixels side by side, MR known to the compiler. Their addresses are kept as a pointer to every third and one
 *   stride, for x86 adds a scaled register to a pointer for nothing and has only sixteen of them.
 * scattered: MR pixels anywhere (an image row ends inside the tile).
 * wtile: WR rows of a weight gradient. */

static inline __attribute__((always_inline)) void TILE(strided)(const struct tile *t, const int mr, const int nv)
{
    T_ acc0[MR_MAX], acc1[MR_MAX];
    UNROLL for (int i = 0; i < mr; i++) acc0[i] = acc1[i] = t_zero();
    const real *b0 = t->b0, *b1 = t->b1;
    const ptrdiff_t step = t->a_col;
    for (int s = 0; s < t->n_seg; s++)
        for (int r = 0; r < t->n_runs; r++) {
            const real *p[(MR_MAX + 2) / 3];
            UNROLL for (int g = 0; g < (mr + 2) / 3; g++) p[g] = t->a[s][0] + t->run_off[r] + 3 * g * step;
            int k = t->run_len;
#define ONE(kk)                                                                              \
    {                                                                                        \
        T_ v0 = t_ld(b0 + (kk) * VL), v1 = nv == 2 ? t_ld(b1 + (kk) * VL) : v0;              \
        UNROLL for (int i = 0; i < mr; i++) {                                                \
            T_ x = t_set(p[i / 3][(i % 3) * step + (kk)]);                                   \
            acc0[i] = t_fma(x, v0, acc0[i]);                                                 \
            if (nv == 2) acc1[i] = t_fma(x, v1, acc1[i]);                                    \
        }                                                                                    \
    }
            for (; k >= 4; k -= 4) {
                ONE(0) ONE(1) ONE(2) ONE(3)
                b0 += 4 * VL;
                b1 += 4 * VL;
                UNROLL for (int g = 0; g < (mr + 2) / 3; g++) p[g] += 4;
            }
            for (; k > 0; k--) {
                ONE(0)
                b0 += VL;
                b1 += VL;
                UNROLL for (int g = 0; g < (mr + 2) / 3; g++) p[g]++;
            }
#undef ONE
        }
    real *c = t->c[0]; /* a strided tile is always full */
    UNROLL for (int i = 0; i < mr; i++, c += t->c_col) {
        T_ u0 = acc0[i], u1 = acc1[i];
        if (t->acc) {
            u0 = t_add(t_load(c, t->n0), u0);
            if (nv == 2) u1 = t_add(t_load(c + VL, t->n1), u1);
        }
        t_store(c, u0, t->n0);
        if (nv == 2) t_store(c + VL, u1, t->n1);
    }
}

static inline __attribute__((always_inline)) void TILE(scattered)(const struct tile *t, const int mr, const int nv)
{
    T_ acc0[MR_MAX], acc1[MR_MAX];
    UNROLL for (int i = 0; i < mr; i++) acc0[i] = acc1[i] = t_zero();
    const real *b0 = t->b0, *b1 = t->b1;
    for (int s = 0; s < t->n_seg; s++)
        for (int r = 0; r < t->n_runs; r++) {
            const real *a[MR_MAX];
            UNROLL for (int i = 0; i < mr; i++) a[i] = t->a[s][i] + t->run_off[r];
            for (ptrdiff_t k = 0; k < t->run_len; k++) {
                T_ v0 = t_ld(b0), v1 = nv == 2 ? t_ld(b1) : v0;
                b0 += VL;
                b1 += VL;
                UNROLL for (int i = 0; i < mr; i++) {
                    T_ x = t_set(a[i][k]);
                    acc0[i] = t_fma(x, v0, acc0[i]);
                    if (nv == 2) acc1[i] = t_fma(x, v1, acc1[i]);
                }
            }
        }
    UNROLL for (int i = 0; i < mr; i++) {
        if (i >= t->n_pix)
            break;
        real *c = t->c[i];
        T_ u0 = acc0[i], u1 = acc1[i];
        if (t->acc) {
            u0 = t_add(t_load(c, t->n0), u0);
            if (nv == 2) u1 = t_add(t_load(c + VL, t->n1), u1);
        }
        t_store(c, u0, t->n0);
        if (nv == 2) t_store(c + VL, u1, t->n1);
    }
}

/* one_run: the rows are neighbours in memory, one pointer serves all. */
static inline __attribute__((always_inline)) void TILE(wtile)(const struct wtile *t, const int nv, const bool one_run)
{
    const struct wprod *p = t->p;
    T_ acc0[WR], acc1[WR];
    UNROLL for (int i = 0; i < WR; i++) acc0[i] = acc1[i] = t_zero();
    for (int s = 0; s < p->n_seg; s++)
        for (int row = 0; row < p->rows; row++) {
            const real *a[WR];
            UNROLL for (int i = 0; i < WR; i++) a[i] = (one_run ? t->a[s][0] + i : t->a[s][i]) + row * p->a_row;
            const real *g = p->g[s] + row * p->g_row + t->n, *a0 = a[0];
            const ptrdiff_t a_col = p->a_col;
            ptrdiff_t off = 0;
            for (int col = 0; col < p->cols; col++, off += a_col, a0 += a_col, g += p->g_col) {
                T_ g0 = t_load(g, t->n0), g1 = nv == 2 ? t_load(g + VL, t->n1) : g0;
                UNROLL for (int i = 0; i < WR; i++) {
                    T_ x = t_set(one_run ? a0[i] : a[i][off]);
                    acc0[i] = t_fma(x, g0, acc0[i]);
                    if (nv == 2) acc1[i] = t_fma(x, g1, acc1[i]);
                }
            }
        }
    UNROLL for (int i = 0; i < WR; i++) {
        if (i >= t->n_rows)
            break;
        real *d = t->d + i * p->ldd;
        T_ u0 = acc0[i], u1 = acc1[i];
        if (p->acc) {
            u0 = t_add(t_load(d, t->n0), u0);
            if (nv == 2) u1 = t_add(t_load(d + VL, t->n1), u1);
        }
        t_store(d, u0, t->n0);
        if (nv == 2) t_store(d + VL, u1, t->n1);
    }
}
