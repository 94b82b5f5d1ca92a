/* layout.c - between the outside's row-major order and the engine's own (engine.h): weights [out,in,k,k] <-> [k,k,in,out],
 * images [c,h,w] <-> [h,w,c]; and the first weights of a learner. */
#include "common/rng.h"
#include "worker/engine/op.h"

#include <math.h>
#include <string.h>

#define COPY(T, d, i, s, j) ((T *)(d))[i] = ((const T *)(s))[j]

static inline void copy1(enum eng_dtype t, void *d, uint64_t i, const void *s, uint64_t j)
{
    if (t == ENG_F64)
        COPY(double, d, i, s, j);
    else
        COPY(float, d, i, s, j);
}

/* Inside place of element (o, i, kh, kw) of a weight; vectors stay as they are. */
static uint64_t inside(const struct net_param *p, uint64_t outside)
{
    if (p->ndim < 2)
        return outside;
    uint64_t out = (uint64_t)p->dim[0], in = (uint64_t)p->dim[1], kk = p->ndim == 4 ? (uint64_t)p->dim[2] * (uint64_t)p->dim[3] : 1;
    uint64_t place = outside % kk, i = outside / kk % in, o = outside / kk / in;
    return (place * in + i) * out + o;
}

void eng_params_import(const struct net *n, enum eng_dtype t, const void *outside, void *internal)
{
    for (int k = 0; k < n->n_params; k++)
        for (uint64_t i = 0, o = n->param[k].offset; i < n->param[k].size; i++)
            copy1(t, internal, o + inside(&n->param[k], i), outside, o + i);
}

void eng_params_export(const struct net *n, enum eng_dtype t, const void *internal, void *outside)
{
    for (int k = 0; k < n->n_params; k++)
        for (uint64_t i = 0, o = n->param[k].offset; i < n->param[k].size; i++)
            copy1(t, outside, o + i, internal, o + inside(&n->param[k], i));
}

static void move_images(enum eng_dtype t, size_t n, int c, int h, int w, const void *from, void *to, bool in)
{
    const size_t hw = (size_t)h * (size_t)w, C = (size_t)c;
    if (C == 1) {
        memcpy(to, from, n * hw * eng_dtype_size(t));
        return;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < hw; p++)
            for (size_t k = 0; k < C; k++) {
                size_t outside = (i * C + k) * hw + p, inner = (i * hw + p) * C + k;
                copy1(t, to, in ? inner : outside, from, in ? outside : inner);
            }
}

void eng_images_import(enum eng_dtype t, size_t n, int c, int h, int w, const void *outside, void *internal)
{
    move_images(t, n, c, h, w, outside, internal, true);
}

void eng_images_export(enum eng_dtype t, size_t n, int c, int h, int w, const void *internal, void *outside)
{
    move_images(t, n, c, h, w, internal, outside, false);
}

void eng_images_from_u8(size_t n, int c, int h, int w, const uint8_t *pixels, float *internal)
{
    const size_t hw = (size_t)h * (size_t)w, C = (size_t)c;
    float level[256];
    for (int i = 0; i < 256; i++)
        level[i] = (float)i / 127.5f - 1.0f;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < C; k++)
            for (size_t p = 0; p < hw; p++)
                internal[(i * hw + p) * C + k] = level[pixels[(i * C + k) * hw + p]];
}

static void put(enum eng_dtype t, void *w, uint64_t i, double x)
{
    if (t == ENG_F64)
        ((double *)w)[i] = (double)(float)x; /* the same numbers in both precisions */
    else
        ((float *)w)[i] = (float)x;
}

static double get(enum eng_dtype t, const void *w, uint64_t i)
{
    return t == ENG_F64 ? ((const double *)w)[i] : (double)((const float *)w)[i];
}

void eng_params_init(const struct net *n, enum eng_dtype t, uint64_t seed, void *w)
{
    for (int k = 0; k < n->n_params; k++) {
        const struct net_param *p = &n->param[k];
        if (p->role == NET_WEIGHT || p->role == NET_WEIGHT_V) {
            struct rng r;
            const double bound = sqrt(6.0 / (double)(p->fan_in ? p->fan_in : 1));
            rng_init(&r, seed, RNG_WEIGHTS, (uint64_t)p->stream);
            for (uint64_t i = 0; i < p->size; i++)
                put(t, w, p->offset + inside(p, i), (2 * rng_uniform(&r) - 1) * bound);
        } else if (p->role == NET_WEIGHT_G) {
            const struct net_param *v = &n->param[k - 1]; /* weight_v stands just before */
            for (uint64_t o = 0; o < p->size; o++) {
                double s = 0;
                for (uint64_t i = o; i < v->size; i += p->size)
                    s += get(t, w, v->offset + i) * get(t, w, v->offset + i);
                put(t, w, p->offset + o, sqrt(s));
            }
        } else
            for (uint64_t i = 0; i < p->size; i++)
                put(t, w, p->offset + i, p->role == NET_BN_GAIN ? 1 : 0);
    }
}
