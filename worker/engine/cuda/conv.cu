// conv.cu - convolution and linear layers, and a doubling before one (../op/conv.c, ../op/fold.c).
//
// Both products are implicit GEMMs on tiles in shared memory: rows are pixels (of all images), columns output channels, the inner
// dimension runs over (segment, tap, input channel). Two segments make one sum of a tangent's two terms. The gradient with respect
// to the image is the same product over the taps that reach a pixel; with stride s there are s * s kinds of pixel (phases). A launch takes several
// products of one shape, a value's and its tangent's, all phases. A weight gradient's inner dimension is the pixels: cut into splits whose number the
// shape fixes, added up in order.
#include "products.cuh"

struct geom { int N, H, W, Ci, Ho, Wo, Co, k, s, p, d, G; };

static geom geom_of(const op_call *c)
{
    const net_shape &x = c->in[0].s, &y = c->out.s;
    return { c->batch, x.h, x.w, x.c, y.h, y.w, y.c, c->at.k > 0 ? c->at.k : 1, c->at.stride > 0 ? c->at.stride : 1, c->at.pad,
             c->at.dilation > 0 ? c->at.dilation : 1, c->at.groups > 0 ? c->at.groups : 1 };
}

enum { TM = 64, ROWS = THREADS / TK }; // pixels of a tile; threads lie along the inner dimension, ROWS of them beside each other

// ---- dst (+)= src * w ----

struct map {
    geom g;
    bool transposed, acc;
    int  n_seg, inner, outer;      // channels of a group on either side
    int  src_h, src_w, src_c, dst_h, dst_w, dst_c;
    int  r0, c0, step, rows, cols; // the phase: pixels (r0 + step i, c0 + step j) of dst
    int  nh, nw, kh, kw, every;    // its taps: kh + every i, i < nh, by kw + every j, j < nw
    buf  src[2], w[2], dst;
};
enum { MOST_MAPS = 12 };           // 4 KiB are what a launch takes as arguments
struct maps { int n; map of[MOST_MAPS]; };
static_assert(sizeof(maps) <= 4096, "a launch's arguments");

__device__ static inline int floor_div(int a, int b) { return b == 1 ? a : a >= 0 ? a / b : -((-a + b - 1) / b); }

// Source row (or column) of tap k for dst row i; -1 outside.
__device__ static inline int source(const map &m, int i, int k, int n)
{
    int at;
    if (m.transposed)
        at = floor_div(i + m.g.p - k * m.g.d, m.g.s); // exact: taps of other residues are not in the list
    else
        at = i * m.g.s - m.g.p + k * m.g.d;
    return at >= 0 && at < n ? at : -1;
}

template <class P, int TN> __global__ static void __launch_bounds__(THREADS) map_tile(const __grid_constant__ maps all)
{
    enum { DEEP = THREADS / TN }; // inner places of w that are read at once
    typedef typename P::template sums<TM, TN> sums;
    __shared__ typename P::template room<TM, TN> room;
    __shared__ int row_n[TM], row_h[TM], row_w[TM];
    const map &m = all.of[(int)blockIdx.z % all.n];
    const int t = (int)threadIdx.x, learner = (int)blockIdx.z / all.n, across = (m.outer + TN - 1) / TN, cog = m.g.Co / m.g.G;
    const int grp = (int)blockIdx.y / across, n0 = (int)blockIdx.y % across * TN;
    const int M = m.g.N * m.rows * m.cols, m0 = (int)blockIdx.x * TM, K = m.nh * m.nw * m.inner;
    if (m0 >= M) // another of the maps has more pixels
        return;
    if (t < TM) { // one division a pixel
        const int i = m0 + t;
        row_n[t] = i < M ? i / (m.rows * m.cols) : -1;
        row_h[t] = m.r0 + m.step * (i / m.cols % m.rows);
        row_w[t] = m.c0 + m.step * (i % m.cols);
    }
    sums sum;
    sum.clear();
    const int tm = t / 8 * sums::PM, tn = t % 8 * sums::PN, lane = t % TK, row = t / TK;
    __syncthreads();
    for (int seg = 0; seg < m.n_seg; seg++) {
        const float *src = m.src[seg](learner), *w = m.w[seg](learner);
        for (int k0 = 0; k0 < K; k0 += TK) {
            // this thread's inner place: one tap and channel
            const int kk = k0 + lane, tap = kk / m.inner, c = kk - tap * m.inner;
            const int kh = kk < K ? m.kh + m.every * (tap / m.nw) : 0, kw = kk < K ? m.kw + m.every * (tap % m.nw) : 0;
            for (int r = row; r < TM; r += ROWS) { // neighbours read neighbouring channels
                float v = 0;
                if (kk < K && row_n[r] >= 0) {
                    const int y = source(m, row_h[r], kh, m.src_h), x = source(m, row_w[r], kw, m.src_w);
                    if (y >= 0 && x >= 0)
                        v = src[(((uint32_t)row_n[r] * (uint32_t)m.src_h + (uint32_t)y) * (uint32_t)m.src_w + (uint32_t)x) * (uint32_t)m.src_c + (uint32_t)(grp * m.inner + c)];
                }
                room.s.A[lane][r] = P::rounded(v);
            }
            if (m.transposed) // w[tap][n][inner place]
                for (int n = row; n < TN; n += ROWS)
                    room.s.B[lane][n] = P::rounded(kk < K && n0 + n < m.outer
                        ? w[((uint32_t)(kh * m.g.k + kw) * (uint32_t)m.outer + (uint32_t)(n0 + n)) * (uint32_t)m.g.Co + (uint32_t)(grp * cog + c)] : 0);
            else // w[inner place][n]: all taps, in order
                for (int i = t / TN, n = n0 + t % TN; i < TK; i += DEEP)
                    room.s.B[i][t % TN] = P::rounded(k0 + i < K && n < m.outer ? w[(uint32_t)(k0 + i) * (uint32_t)m.g.Co + (uint32_t)(grp * cog + n)] : 0);
            __syncthreads();
            sum.add(room, t);
            __syncthreads();
        }
    }
    sum.deal(room, t);
    float *dst = m.dst(learner);
    for (int i = 0; i < sums::PM; i++) {
        const int r = tm + i;
        if (row_n[r] < 0)
            continue;
        float *d = dst + (((uint32_t)row_n[r] * (uint32_t)m.dst_h + (uint32_t)row_h[r]) * (uint32_t)m.dst_w + (uint32_t)row_w[r]) * (uint32_t)m.dst_c + (uint32_t)(grp * m.outer);
        for (int j = 0; j < sums::PN; j++)
            if (n0 + tn + j < m.outer)
                put(&d[n0 + tn + j], sum.acc[i][j], m.acc);
    }
}

// Taps that reach pixels i with i mod s = residue; the first one in *first.
static int reaching(const geom &g, int residue, int *first)
{
    int n = 0;
    for (int k = g.k - 1; k >= 0; k--)
        if ((residue + g.p - k * g.d) % g.s == 0) {
            *first = k;
            n++;
        }
    return n;
}
static int gcd(int a, int b) { return b ? gcd(b, a % b) : a; }

// One product of two segments at most.
struct product { int n_seg; buf src[2], w[2], dst; };
static product product_of(buf src, buf w, buf dst) { return { 1, { src }, { w }, dst }; }
// The tangent of src * w: the first segment is left out where src has none.
static product tangent_of(buf src, buf dot, buf w, buf wdot, buf dst)
{
    if (!dot)
        return product_of(src, wdot, dst);
    return { 2, { dot, src }, { w, wdot }, dst };
}

template <class P> static void launch_maps(const dev_call *d, const maps &all)
{
    const map &m = all.of[0];
    uint64_t pixels = 0;
    for (int i = 0; i < all.n; i++) {
        const uint64_t n = (uint64_t)m.g.N * (uint64_t)all.of[i].rows * (uint64_t)all.of[i].cols;
        pixels = n > pixels ? n : pixels;
    }
    auto kernel = m.outer > 32 ? map_tile<P, 64> : m.outer > 16 ? map_tile<P, 32> : map_tile<P, 16>;
    const int TN = m.outer > 32 ? 64 : m.outer > 16 ? 32 : 16;
    LAUNCH(kernel, dim3((unsigned)((pixels + TM - 1) / TM), (unsigned)(m.g.G * ((m.outer + TN - 1) / TN)), (unsigned)(d->K * all.n)), dim3(THREADS), d->queue, all);
}

template <class P> static void run_maps(const dev_call *d, const op_call *c, bool transposed, const product *p, int n, bool acc)
{
    maps all = {};
    map  m = {};
    const geom g = m.g = geom_of(c);
    m.transposed = transposed;
    m.acc = acc;
    m.src_c = transposed ? g.Co : g.Ci;
    m.dst_c = transposed ? g.Ci : g.Co;
    m.inner = m.src_c / g.G;
    m.outer = m.dst_c / g.G;
    m.src_h = transposed ? g.Ho : g.H;
    m.src_w = transposed ? g.Wo : g.W;
    m.dst_h = transposed ? g.H : g.Ho;
    m.dst_w = transposed ? g.W : g.Wo;
    m.step = transposed ? g.s : 1;
    m.nh = m.nw = g.k; // there; back it depends on the phase
    m.every = transposed ? g.s / gcd(g.s, g.d) : 1;
    for (m.r0 = 0; m.r0 < m.step && m.r0 < m.dst_h; m.r0++)
        for (m.c0 = 0; m.c0 < m.step && m.c0 < m.dst_w; m.c0++) {
            m.rows = (m.dst_h - 1 - m.r0) / m.step + 1;
            m.cols = (m.dst_w - 1 - m.c0) / m.step + 1;
            if (transposed) {
                m.nh = reaching(g, m.r0, &m.kh);
                m.nw = reaching(g, m.c0, &m.kw);
            }
            for (int i = 0; i < n; i++) {
                m.n_seg = p[i].n_seg;
                m.dst = p[i].dst;
                for (int s = 0; s < 2; s++) {
                    m.src[s] = p[i].src[s];
                    m.w[s] = p[i].w[s];
                }
                if (!m.dst) // not wanted
                    continue;
                all.of[all.n++] = m;
                if (all.n == MOST_MAPS) {
                    launch_maps<P>(d, all);
                    all.n = 0;
                }
            }
        }
    if (all.n)
        launch_maps<P>(d, all);
}

// ---- gw = sum over pixels of x * gy ----

struct corr {
    geom g;
    int  n_seg, splits, chunk;     // pixels of a split
    buf  x[2], gy[2], parts;       // [splits][k, k, Ci / G, Co]
};
static uint64_t weights(const geom &g) { return (uint64_t)g.k * (uint64_t)g.k * (uint64_t)(g.Ci / g.G) * (uint64_t)g.Co; }

static int splits_of(const geom &g)
{
    const uint64_t pixels = (uint64_t)g.N * (uint64_t)g.Ho * (uint64_t)g.Wo, room = (4u << 20) / (weights(g) * sizeof(float)), wish = (pixels + 1023) / 1024;
    const uint64_t n = wish < room ? wish : room;
    return n < 1 ? 1 : n > 64 ? 64 : (int)n;
}

// CM rows (tap, input channel) by CN output channels; a thread has CM / 16 by CN / 8 of them.
template <class P, int CM, int CN> __global__ static void __launch_bounds__(THREADS) corr_tile(const corr q)
{
    enum { DEEP_M = THREADS / CM, DEEP_N = THREADS / CN };
    typedef typename P::template sums<CM, CN> sums;
    __shared__ typename P::template room<CM, CN> room;
    __shared__ int at_n[TK], at_h[TK], at_w[TK];
    const geom &g = q.g;
    const int cig = g.Ci / g.G, cog = g.Co / g.G, R = g.k * g.k * cig, across = (cog + CN - 1) / CN, t = (int)threadIdx.x;
    const int grp = (int)blockIdx.y / across, n0 = (int)blockIdx.y % across * CN, r0 = (int)blockIdx.x * CM;
    const int learner = (int)blockIdx.z / q.splits, split = (int)blockIdx.z % q.splits;
    const int pixels = g.N * g.Ho * g.Wo, from = split * q.chunk, to = from + q.chunk < pixels ? from + q.chunk : pixels;
    const int tm = t / 8 * sums::PM, tn = t % 8 * sums::PN, r = r0 + t % CM, tap = r / cig, c = r - tap * cig, dh = tap / g.k * g.d - g.p, dw = tap % g.k * g.d - g.p;
    sums sum;
    sum.clear();
    for (int seg = 0; seg < q.n_seg; seg++) {
        const float *x = q.x[seg](learner), *gy = q.gy[seg](learner);
        for (int p0 = from; p0 < to; p0 += TK) {
            if (t < TK) { // one division a pixel
                const int p = p0 + t;
                at_n[t] = p / (g.Ho * g.Wo);
                at_h[t] = p / g.Wo % g.Ho * g.s;
                at_w[t] = p % g.Wo * g.s;
            }
            __syncthreads();
            for (int i = t / CM; i < TK; i += DEEP_M) { // neighbours read neighbouring channels
                const int h = at_h[i] + dh, w = at_w[i] + dw;
                room.s.A[i][t % CM] = P::rounded(r < R && p0 + i < to && h >= 0 && h < g.H && w >= 0 && w < g.W
                    ? x[(((uint32_t)at_n[i] * (uint32_t)g.H + (uint32_t)h) * (uint32_t)g.W + (uint32_t)w) * (uint32_t)g.Ci + (uint32_t)(grp * cig + c)] : 0);
            }
            for (int i = t / CN, n = n0 + t % CN; i < TK; i += DEEP_N)
                room.s.B[i][t % CN] = P::rounded(n < cog && p0 + i < to ? gy[(uint32_t)(p0 + i) * (uint32_t)g.Co + (uint32_t)(grp * cog + n)] : 0);
            __syncthreads();
            sum.add(room, t);
            __syncthreads();
        }
    }
    sum.deal(room, t);
    float *d = q.parts(learner) + (uint64_t)split * (uint64_t)R * (uint64_t)g.Co;
    for (int i = 0; i < sums::PM; i++)
        for (int j = 0; j < sums::PN; j++)
            if (r0 + tm + i < R && n0 + tn + j < cog)
                d[(uint32_t)(r0 + tm + i) * (uint32_t)g.Co + (uint32_t)(grp * cog + n0 + tn + j)] = sum.acc[i][j];
}

template <class P> static void run_corr(const dev_call *d, const op_call *c, int n_seg, const buf *x, const buf *gy, buf gw)
{
    corr q = {};
    const geom g = q.g = geom_of(c);
    q.n_seg = n_seg;
    q.splits = splits_of(g);
    q.chunk = ((g.N * g.Ho * g.Wo + q.splits - 1) / q.splits + TK - 1) / TK * TK;
    q.parts = q.splits > 1 ? scratch_of(d) : gw;
    for (int s = 0; s < n_seg; s++) {
        q.x[s] = x[s];
        q.gy[s] = gy[s];
    }
    const int cog = g.Co / g.G, R = g.k * g.k * (g.Ci / g.G);
    const unsigned at = (R > 32 ? 3u : 0u) + (cog > 32 ? 2u : cog > 16 ? 1u : 0u);
    static const struct { int rows, wide; void (*kernel)(const corr); } tiles_of[] = { // by rows above 32, then by columns above 16 and 32
        { 32, 16, corr_tile<P, 32, 16> }, { 32, 32, corr_tile<P, 32, 32> }, { 32, 64, corr_tile<P, 32, 64> },
        { 64, 16, corr_tile<P, 64, 16> }, { 64, 32, corr_tile<P, 64, 32> }, { 64, 64, corr_tile<P, 64, 64> },
    };
    const auto &tile = tiles_of[at];
    LAUNCH(tile.kernel, dim3((unsigned)((R + tile.rows - 1) / tile.rows), (unsigned)(g.G * ((cog + tile.wide - 1) / tile.wide)), (unsigned)(d->K * q.splits)), dim3(THREADS), d->queue, q);
    if (q.splits > 1)
        sum_splits(d->queue, d->K, q.parts, q.splits, weights(g), gw);
}

// ---- the rules, of the convolution and of what follows a doubling: the transposed convolution of folded weights ----

static op_call turned(const op_call *c)
{
    op_call t = *c;
    t.at.k = 4;
    t.at.stride = 2;
    t.at.pad = c->at.pad == 1 ? 1 : 3;
    t.at.dilation = t.at.groups = 1;
    t.in[0].s = c->out.s;
    t.out.s = c->in[0].s;
    return t;
}

template <class P> static void products(const dev_call *d, bool turn, bool transposed, const product *p, int n, bool acc)
{
    const op_call c = turn ? turned(&d->c) : d->c;
    run_maps<P>(d, &c, transposed != turn, p, n, acc);
}
template <class P> static void weight_gradient(const dev_call *d, bool turn, int n, const buf *x, const buf *gy, buf gw)
{
    const op_call c = turn ? turned(&d->c) : d->c;
    if (gw)
        run_corr<P>(d, &c, n, turn ? gy : x, turn ? x : gy, gw);
}

template <class P> static void go_forth(const dev_call *d, bool turn, bool dual)
{
    const product p[] = { product_of(in_val(d, 0), in_val(d, 1), out_val(d)), tangent_of(in_val(d, 0), in_dot(d, 0), in_val(d, 1), in_dot(d, 1), out_dot(d)) };
    products<P>(d, turn, false, p, dual ? 2 : 1, false);
}
template <class P> static void go_back(const dev_call *d, bool turn, bool dual)
{
    const product p[] = { product_of(out_adj(d), in_val(d, 1), in_adj(d, 0)),
                          tangent_of(out_adj(d), out_adj_dot(d), in_val(d, 1), in_dot(d, 1), in_adj_dot(d, 0)) };
    const buf x[] = { in_val(d, 0), in_dot(d, 0) }, gy[] = { out_adj(d), out_adj_dot(d) }, other[] = { gy[1], gy[0] };
    products<P>(d, turn, true, p, dual ? 2 : 1, d->c.in[0].acc);
    weight_gradient<P>(d, turn, 1, x, gy, in_adj(d, 1));
    if (dual) // x gydot + xdot gy
        weight_gradient<P>(d, turn, x[1] ? 2 : 1, x, other, in_adj_dot(d, 1));
}

static size_t scratch(const op_call *c)
{
    const geom g = geom_of(c);
    const int  n = splits_of(g);
    return n > 1 ? (size_t)n * (size_t)weights(g) * sizeof(float) : 0;
}
static size_t turned_scratch(const op_call *c)
{
    const op_call t = turned(c);
    return scratch(&t);
}

template <class P> static void rules_of(device *d)
{
    const dev_rule conv[DEV_RULES] = { [](const dev_call *c) { go_forth<P>(c, false, false); }, [](const dev_call *c) { go_back<P>(c, false, false); },
                                       [](const dev_call *c) { go_forth<P>(c, false, true); }, [](const dev_call *c) { go_back<P>(c, false, true); } };
    const dev_rule upconv[DEV_RULES] = { [](const dev_call *c) { go_forth<P>(c, true, false); }, [](const dev_call *c) { go_back<P>(c, true, false); },
                                         [](const dev_call *c) { go_forth<P>(c, true, true); }, [](const dev_call *c) { go_back<P>(c, true, true); } };
    memcpy(d->rule[OP_CONV], conv, sizeof conv);
    memcpy(d->rule[OP_UPCONV], upconv, sizeof upconv);
    d->scratch[OP_CONV] = scratch;
    d->scratch[OP_UPCONV] = turned_scratch;
}

void rules_conv(device *d, rounding r)
{
    static void (*const of[ROUNDINGS])(device *) = { rules_of<in_float32>, rules_of<in_tf32>, rules_of<in_bf16> };
    of[r](d);
}
