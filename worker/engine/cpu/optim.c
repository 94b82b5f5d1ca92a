/* optim.c - inner optimisers. A row is an update and its adjoint; G is the gradient as the network gives it, lr and mu belong
 * to the step. Every row sees g, the shaped gradient:
 *
 *   shape     g = G min(1, clip / |G|) + wd w                       (clip 0: off)
 *   back      from q = adjoint of g:  a += wd q;  where |G| > clip: q <- clip/|G| (q - G <q,G> / |G|^2)
 *
 * Below a = dJ/dw', b = dJ/d(state'), q = adjoint of g; a also receives what reaches w directly (H q comes from the caller).
 *
 * sgd       v' = mu v + g                 w' = w - lr v'
 *   back    u = b - lr a     dlr = -<a,v'>   dmu = <u,v>   q = u   b = mu u
 * nesterov  v' = mu v + g                 w' = w - lr (g + mu v')
 *   back    d = -lr a        u = b + mu d    dlr = -<a, g + mu v'>   dmu = <d,v'> + <u,v>   q = d + u   b = mu u
 * lars      g~ = s g, s = |w| / (|g| + eps), for tensors of two or more dimensions; s = scale_1d for the others; then as sgd
 *   back    u as sgd's, t = <u,g>:  q = s u - t |w| / (|g| + eps)^2 g/|g|     a += t / (|g| + eps) w/|w|
 *           (a zero w or g passes no such term: the norm has no gradient there, and s g is 0)
 * rmsprop   r' = beta2 r + (1 - beta2) g^2   n = g / (sqrt(r' + eps) + eps)   v' = mu v + n   w' = w - lr v'
 *   back    u as sgd's with n for g;  R = sqrt(r' + eps), D = R + eps:  rb = b_r - u n / (2 R D)
 *           q = u / D + 2 (1 - beta2) g rb     b_r = beta2 rb
 * adam      m' = mu m + (1 - mu) g   r' = beta2 r + (1 - beta2) g^2   c1 = 1 - prod_{i<=t} mu_i   c2 = 1 - beta2^(t+1)
 *           n = (m'/c1) / (sqrt(r'/c2 + eps) + eps)          w' = w - lr n
 *   back    d = -lr a, R = sqrt(r'/c2 + eps), D = R + eps:   dlr = -<a,n>   um = b_m + d / (c1 D)   rb = b_r - d n / (2 R D c2)
 *           dmu = <um, m - g> + pb prod_{i<t} mu_i,  pb += <d,n>/c1 (adjoint of the product), then pb <- pb mu
 *           q = (1 - mu) um + 2 (1 - beta2) g rb    b_m = mu um    b_r = beta2 rb
 * eps stands inside the root too, so that the derivative stays finite where g is 0 (as in the GTN authors' code). */
#include "worker/engine/cpu/variant.h"

void KN(shape_gradient)(const struct optim_ctx *c, const void *wp, const void *gp, void *out)
{
    const real *w = wp, *g = gp;
    real *o = out;
    const double clip = c->cfg->clip, n = clip > 0 ? sqrt(KN(dot)(c->P, g, g)) : 0;
    const real f = clip > 0 && n > clip ? (real)(clip / n) : 1, wd = (real)c->cfg->weight_decay;
    for (uint64_t i = 0; i < c->P; i++)
        o[i] = f * g[i] + wd * w[i];
}

void KN(unshape_gradient)(const struct optim_ctx *c, const void *gp, void *ap, void *qp)
{
    const real *g = gp, wd = (real)c->cfg->weight_decay;
    real *a = ap, *q = qp;
    if (wd != 0)
        for (uint64_t i = 0; i < c->P; i++)
            a[i] += wd * q[i];
    const double clip = c->cfg->clip, n = clip > 0 ? sqrt(KN(dot)(c->P, g, g)) : 0;
    if (!(clip > 0 && n > clip))
        return;
    const real f = (real)(clip / n), along = (real)(KN(dot)(c->P, q, g) / (n * n));
    for (uint64_t i = 0; i < c->P; i++)
        q[i] = f * (q[i] - along * g[i]);
}

static void descend(uint64_t n, real lr, real mu, real s, const real *restrict w, const real *restrict v, const real *restrict g,
                    real *restrict w2, real *restrict v2)
{
    for (uint64_t i = 0; i < n; i++) {
        real step = mu * v[i] + s * g[i];
        v2[i] = step;
        w2[i] = w[i] - lr * step;
    }
}

/* The part that all with v' = mu v + (something) share: dlr, dmu, u, b. */
static void momentum_back(const struct optim_ctx *c, const struct optim_at *t, const real *v, const real *v2, const real *a, real *b,
                          real *u, double *dlr, double *dmu)
{
    const real lr = (real)t->lr, mu = (real)t->mu;
    *dlr = -KN(dot)(c->P, a, v2);
    for (uint64_t i = 0; i < c->P; i++)
        u[i] = b[i] - lr * a[i];
    *dmu = KN(dot)(c->P, u, v);
    for (uint64_t i = 0; i < c->P; i++)
        b[i] = mu * u[i];
}

/* ---- sgd ---- */

static void sgd_step(const struct optim_ctx *c, const struct optim_at *t, const void *w, const void *v, const void *g, void *w2, void *v2)
{
    descend(c->P, (real)t->lr, (real)t->mu, 1, w, v, g, w2, v2);
}

static void sgd_adjoint(const struct optim_ctx *c, struct optim_at *t, const struct optim_back *k)
{
    momentum_back(c, t, k->s, k->s2, k->a, k->b, k->q, k->dlr, k->dmu);
}

/* ---- nesterov ---- */

static void nesterov_step(const struct optim_ctx *c, const struct optim_at *t, const void *wp, const void *vp, const void *gp, void *w2p, void *v2p)
{
    const real *w = wp, *v = vp, *g = gp, lr = (real)t->lr, mu = (real)t->mu;
    real *w2 = w2p, *v2 = v2p;
    for (uint64_t i = 0; i < c->P; i++) {
        v2[i] = mu * v[i] + g[i];
        w2[i] = w[i] - lr * (g[i] + mu * v2[i]);
    }
}

static void nesterov_adjoint(const struct optim_ctx *c, struct optim_at *t, const struct optim_back *k)
{
    const real *v = k->s, *v2 = k->s2, *a = k->a, lr = (real)t->lr, mu = (real)t->mu;
    real *b = k->b, *q = k->q;
    *k->dlr = -(KN(dot)(c->P, a, k->g) + t->mu * KN(dot)(c->P, a, v2));
    for (uint64_t i = 0; i < c->P; i++)
        q[i] = b[i] - mu * lr * a[i]; /* u */
    *k->dmu = KN(dot)(c->P, q, v) - t->lr * KN(dot)(c->P, a, v2);
    for (uint64_t i = 0; i < c->P; i++) {
        b[i] = mu * q[i];
        q[i] = q[i] - lr * a[i];
    }
}

/* ---- lars ---- */

static double lars_scale(const struct optim_ctx *c, const struct optim_tensor *t, const real *w, const real *g, double *nw, double *ng)
{
    if (t->ndim < 2)
        return c->cfg->scale_1d;
    *nw = sqrt(KN(dot)(t->size, w, w));
    *ng = sqrt(KN(dot)(t->size, g, g));
    return *nw / (*ng + c->cfg->eps);
}

static void lars_step(const struct optim_ctx *c, const struct optim_at *at, const void *wp, const void *vp, const void *gp, void *w2, void *v2)
{
    const real *w = wp, *v = vp, *g = gp;
    for (int i = 0; i < c->n_tensors; i++) {
        const struct optim_tensor *t = &c->tensor[i];
        const uint64_t o = t->offset;
        double nw, ng, s = lars_scale(c, t, w + o, g + o, &nw, &ng);
        descend(t->size, (real)at->lr, (real)at->mu, (real)s, w + o, v + o, g + o, (real *)w2 + o, (real *)v2 + o);
    }
}

static void lars_adjoint(const struct optim_ctx *c, struct optim_at *at, const struct optim_back *k)
{
    const real *w = k->w, *g = k->g;
    real *a = k->a, *q = k->q;
    momentum_back(c, at, k->s, k->s2, a, k->b, q, k->dlr, k->dmu);
    for (int j = 0; j < c->n_tensors; j++) {
        const struct optim_tensor *t = &c->tensor[j];
        const uint64_t o = t->offset;
        double nw = 0, ng = 0, s = lars_scale(c, t, w + o, g + o, &nw, &ng), on_g = 0, on_w = 0;
        if (t->ndim >= 2) {
            double d = ng + c->cfg->eps, ug = KN(dot)(t->size, q + o, g + o);
            on_g = ng > 0 ? ug * nw / (d * d * ng) : 0;
            on_w = nw > 0 ? ug / (d * nw) : 0;
        }
        for (uint64_t i = o; i < o + t->size; i++) {
            a[i] += (real)on_w * w[i];
            q[i] = (real)s * q[i] - (real)on_g * g[i];
        }
    }
}

/* ---- rmsprop: states v, r ---- */

static void rmsprop_step(const struct optim_ctx *c, const struct optim_at *t, const void *wp, const void *sp, const void *gp, void *w2p, void *s2p)
{
    const real *w = wp, *v = sp, *r = v + c->stride, *g = gp;
    const real lr = (real)t->lr, mu = (real)t->mu, beta = (real)c->cfg->beta2, eps = (real)c->cfg->eps;
    real *w2 = w2p, *v2 = s2p, *r2 = v2 + c->stride;
    for (uint64_t i = 0; i < c->P; i++) {
        r2[i] = beta * r[i] + (1 - beta) * g[i] * g[i];
        v2[i] = mu * v[i] + g[i] / ((real)sqrt((double)(r2[i] + eps)) + eps);
        w2[i] = w[i] - lr * v2[i];
    }
}

static void rmsprop_adjoint(const struct optim_ctx *c, struct optim_at *t, const struct optim_back *k)
{
    const real *g = k->g, *r2 = (const real *)k->s2 + c->stride, beta = (real)c->cfg->beta2, eps = (real)c->cfg->eps;
    real *q = k->q, *br = (real *)k->b + c->stride;
    momentum_back(c, t, k->s, k->s2, k->a, k->b, q, k->dlr, k->dmu);
    for (uint64_t i = 0; i < c->P; i++) {
        real root = (real)sqrt((double)(r2[i] + eps)), d = root + eps, n = g[i] / d, rb = br[i] - q[i] * n / (2 * root * d);
        q[i] = q[i] / d + 2 * (1 - beta) * g[i] * rb;
        br[i] = beta * rb;
    }
}

/* ---- adam: states m, r ---- */

static void adam_step(const struct optim_ctx *c, const struct optim_at *t, const void *wp, const void *sp, const void *gp, void *w2p, void *s2p)
{
    const real *w = wp, *m = sp, *r = m + c->stride, *g = gp;
    const real lr = (real)t->lr, mu = (real)t->mu, beta = (real)c->cfg->beta2, eps = (real)c->cfg->eps;
    const real c1 = (real)(1 - t->prod * t->mu), c2 = (real)(1 - pow(c->cfg->beta2, t->t + 1));
    real *w2 = w2p, *m2 = s2p, *r2 = m2 + c->stride;
    for (uint64_t i = 0; i < c->P; i++) {
        m2[i] = mu * m[i] + (1 - mu) * g[i];
        r2[i] = beta * r[i] + (1 - beta) * g[i] * g[i];
        w2[i] = w[i] - lr * (m2[i] / c1 / ((real)sqrt((double)(r2[i] / c2 + eps)) + eps));
    }
}

static void adam_adjoint(const struct optim_ctx *c, struct optim_at *t, const struct optim_back *k)
{
    const real *m = k->s, *m2 = k->s2, *r2 = m2 + c->stride, *g = k->g, *a = k->a;
    const real lr = (real)t->lr, mu = (real)t->mu, beta = (real)c->cfg->beta2, eps = (real)c->cfg->eps;
    const double full1 = 1 - t->prod * t->mu;
    const real c1 = (real)full1, c2 = (real)(1 - pow(c->cfg->beta2, t->t + 1));
    real *bm = k->b, *br = bm + c->stride, *q = k->q;
    double an = 0, umg = 0;
    for (uint64_t i = 0; i < c->P; i++) {
        real root = (real)sqrt((double)(r2[i] / c2 + eps)), d = root + eps, n = m2[i] / c1 / d, on = -lr * a[i];
        real um = bm[i] + on / (c1 * d), rb = br[i] - on * n / (2 * root * d * c2);
        an += (double)a[i] * (double)n;
        umg += (double)um * ((double)m[i] - (double)g[i]);
        q[i] = (1 - mu) * um + 2 * (1 - beta) * g[i] * rb;
        bm[i] = mu * um;
        br[i] = beta * rb;
    }
    t->prod_bar += -t->lr * an / full1;
    *k->dlr = -an;
    *k->dmu = umg + t->prod_bar * t->prod;
    t->prod_bar *= t->mu;
}

const struct optim_row KN(optim_rows)[INNER_TYPE_COUNT] = {
    [INNER_SGD] = { 1, false, sgd_step, sgd_adjoint },
    [INNER_NESTEROV] = { 1, true, nesterov_step, nesterov_adjoint },
    [INNER_LARS] = { 1, true, lars_step, lars_adjoint },
    [INNER_RMSPROP] = { 2, true, rmsprop_step, rmsprop_adjoint },
    [INNER_ADAM] = { 2, true, adam_step, adam_adjoint },
};
