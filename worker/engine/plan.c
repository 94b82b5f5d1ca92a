/* plan.c - compile a network: layers to ops, tensors to buffers. Where each buffer lies: place.c. */
#include "worker/engine/plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const struct op_traits op_traits[OP_COUNT] = {
    [OP_CONV] = { .name = "conv", .by_image = true, .keeps_in = true, .keeps_adj = true },
    [OP_UPCONV] = { .name = "upconv", .by_image = true, .keeps_in = true, .keeps_adj = true },
    [OP_FOLD] = { .name = "fold" },
    [OP_DWCONV] = { .name = "dwconv", .by_image = true, .keeps_in = true, .keeps_adj = true, .again = 9 },
    [OP_BIAS] = { .name = "bias", .again = 1 },
    [OP_WNORM] = { .name = "wnorm", .keeps_in = true, .keeps_adj = true },
    [OP_BN] = { .name = "bn", .by_image = true, .gathers = true, .keeps_in = true, .keeps_adj = true, .again = 3 },
    [OP_LRELU] = { .name = "lrelu", .by_image = true, .keeps_out = true, .again = 1 },
    [OP_TANH] = { .name = "tanh", .by_image = true, .keeps_out = true, .keeps_adj = true },
    [OP_MAXPOOL] = { .name = "maxpool", .by_image = true },
    [OP_AVGPOOL] = { .name = "avgpool", .by_image = true, .again = 4 },
    [OP_GAP] = { .name = "gap", .by_image = true },
    [OP_FLATTEN] = { .name = "flatten", .by_image = true, .again = 2 },
    [OP_UNFLATTEN] = { .name = "unflatten", .by_image = true, .again = 2 },
    [OP_UP2] = { .name = "up2", .by_image = true, .again = 1 },
    [OP_REFLECTPAD] = { .name = "reflectpad", .by_image = true, .again = 1 },
    [OP_EDGEPAD] = { .name = "edgepad", .by_image = true, .again = 1 },
    [OP_ADD] = { .name = "add", .by_image = true, .again = 2 },
    [OP_CONCAT] = { .name = "concat", .by_image = true, .again = 1 },
};

/* A leaky ReLU's output has the sign of its input, so that it can tell which side it was on; not so under a negative slope. */
bool plan_keeps_in(const struct node *n) { return op_traits[n->op].keeps_in || (n->op == OP_LRELU && n->at.slope < 0); }
bool plan_keeps_out(const struct node *n) { return op_traits[n->op].keeps_out && !plan_keeps_in(n); }

/* Large memory asks for large pages, where whole ones fit: an arena is read from end to end, and small pages cost address look-ups
 * and stop the prefetcher. Nothing more becomes resident than is touched anyway. */
void *eng_alloc(uint64_t bytes)
{
    enum { LINE = 64, LARGE = 2 << 20 };
    if (bytes > SIZE_MAX - LINE)
        return NULL;
    char *p = aligned_alloc(LINE, ((size_t)bytes + LINE - 1) & ~(size_t)(LINE - 1));
    const size_t skip = (LARGE - (uintptr_t)p % LARGE) % LARGE; /* to the first whole large page */
    if (p && bytes >= skip + LARGE)
        madvise(p + skip, ((size_t)bytes - skip) / LARGE * LARGE, MADV_HUGEPAGE); /* a wish: its failure changes nothing */
    return p;
}

/* ---- layers to ops ---- */

struct builder {
    struct eng_plan *p;
    int *of_node;              /* tensor of each layer's output */
    int *n_consumers;          /* of each layer, among those that the output depends on; 0: left out of the plan */
    uint64_t running;
};

static int add_tensor(struct eng_plan *p, struct net_shape s, bool batched)
{
    int t = p->n_tensors++;
    p->tensor[t] = (struct tensor){ .s = s, .root = t, .producer = -1, .batched = batched,
                                    .elems = (uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w * (batched ? (uint64_t)p->batch : 1),
                                    .place = { NO_PLACE, NO_PLACE, NO_PLACE, NO_PLACE }, .again = { NO_PLACE, NO_PLACE } };
    return t;
}

/* The last dimension inside is the output channel; the others make the rows. */
static int add_param(struct eng_plan *p, const struct net_param *q)
{
    int c = q->dim[0];
    int t = add_tensor(p, (struct net_shape){ .c = c, .h = (int)(q->size / (uint64_t)c), .w = 1 }, false);
    p->tensor[t].param = true;
    p->tensor[t].offset = q->offset;
    return t;
}

static int add_node(struct eng_plan *p, enum op op, int net_node, const int *in, int n_in, int out)
{
    struct node *n = &p->node[p->n_nodes];
    *n = (struct node){ .op = op, .at = p->net.node[net_node].at, .n_in = n_in, .out = out, .net_node = net_node, .aux = NO_PLACE };
    memcpy(n->in, in, (size_t)n_in * sizeof *in);
    p->tensor[out].producer = p->n_nodes;
    return p->n_nodes++;
}

static int alias(struct eng_plan *p, int of, struct net_shape s)
{
    int t = add_tensor(p, s, true);
    p->tensor[t].root = p->tensor[of].root;
    return t;
}

/* The doubling that convolution i alone reads, so that both are one (op/fold.c); -1: none. A reflection by one pixel may stand between
 * them: of a doubled image it repeats the edge, which is the small image's edge repeated (OP_EDGEPAD). */
static int doubling_of(const struct builder *b, int i)
{
    const struct net_node *l = &b->p->net.node[i], *x;
    if (l->op != NET_CONV || l->at.k != 3 || l->at.stride > 1 || l->at.dilation > 1 || l->at.groups > 1)
        return -1;
    int in = l->in[0], pad = l->at.pad;
    x = &b->p->net.node[in];
    if (pad == 0 && x->op == NET_REFLECTPAD && b->n_consumers[in] == 1) {
        pad = x->at.pad;
        in = x->in[0];
        x = &b->p->net.node[in];
    }
    return pad == 1 && x->op == NET_UP2 && b->n_consumers[in] == 1 ? in : -1;
}

/* Is layer i, a doubling or what pads it, part of a convolution? */
static bool is_doubled(const struct builder *b, int i)
{
    for (int j = i + 1; j < b->p->net.n_nodes; j++) {
        const int up = b->n_consumers[j] ? doubling_of(b, j) : -1;
        if (up >= 0 && (up == i || b->p->net.node[j].in[0] == i))
            return true;
    }
    return false;
}

static int product(struct builder *b, int i, int x)
{
    struct eng_plan *p = b->p;
    const struct net_node *l = &p->net.node[i];
    const bool up = doubling_of(b, i) >= 0; /* then x is the doubling's input, its edge repeated where a reflection was */
    int param = l->param0, w = add_param(p, &p->net.param[param]);
    if (l->at.wn) {
        int vg[2] = { w, add_param(p, &p->net.param[param + 1]) };
        w = add_tensor(p, p->tensor[w].s, false);
        add_node(p, OP_WNORM, i, vg, 2, w);
        param++;
    }
    if (up) {
        const struct net_shape s = p->tensor[w].s;
        const int f = add_tensor(p, (struct net_shape){ .c = s.h / 9, .h = 16 * s.c, .w = 1 }, false);
        add_node(p, OP_FOLD, i, &w, 1, f);
        w = f;
    }
    const bool depthwise = l->op == NET_CONV && l->at.groups > 1 && l->at.groups == p->tensor[x].s.c && l->at.groups == l->shape.c;
    int y = add_tensor(p, l->shape, true), xw[2] = { x, w };
    struct node *n = &p->node[add_node(p, up ? OP_UPCONV : depthwise ? OP_DWCONV : OP_CONV, i, xw, 2, y)];
    if (l->op == NET_LINEAR)
        n->at.k = n->at.stride = n->at.dilation = n->at.groups = 1;
    if (l->at.bias) {
        int xb[2] = { y, add_param(p, &p->net.param[param + 1]) };
        y = add_tensor(p, l->shape, true);
        add_node(p, OP_BIAS, i, xb, 2, y);
    }
    return y;
}

/* A leaky ReLU that alone reads a batch norm is folded into it. */
static bool folds(const struct builder *b, int i)
{
    const struct net_node *l = &b->p->net.node[i];
    return l->op == NET_LRELU && b->p->net.node[l->in[0]].op == NET_BN && b->n_consumers[l->in[0]] == 1;
}

static int norm(struct builder *b, int i, int x)
{
    struct eng_plan *p = b->p;
    const struct net_node *l = &p->net.node[i];
    int in[3] = { x, add_param(p, &p->net.param[l->param0]), -1 };
    if (!l->at.mean_only)
        in[2] = add_param(p, &p->net.param[l->param0 + 1]);
    int y = add_tensor(p, l->shape, true);
    struct node *n = &p->node[add_node(p, OP_BN, i, in, l->at.mean_only ? 2 : 3, y)];
    n->at.slope = 1;
    n->running = b->running;
    b->running += 2 * (uint64_t)l->shape.c;
    return y;
}

static int lower(struct builder *b, int i)
{
    static const enum op plain[NET_OP_COUNT] = {
        [NET_LRELU] = OP_LRELU, [NET_TANH] = OP_TANH, [NET_MAXPOOL] = OP_MAXPOOL, [NET_AVGPOOL] = OP_AVGPOOL, [NET_GAP] = OP_GAP,
        [NET_FLATTEN] = OP_FLATTEN, [NET_RESHAPE] = OP_UNFLATTEN, [NET_UP2] = OP_UP2, [NET_REFLECTPAD] = OP_REFLECTPAD,
        [NET_ADD] = OP_ADD, [NET_CONCAT] = OP_CONCAT,
    };
    struct eng_plan *p = b->p;
    const struct net_node *l = &p->net.node[i];
    int in[OP_MAX_IN];
    for (int k = 0; k < l->n_in; k++)
        in[k] = b->of_node[l->in[k]];
    const struct net_shape xs = l->n_in ? p->tensor[in[0]].s : l->shape;
    if (l->op == NET_CONV || l->op == NET_LINEAR)
        return product(b, i, in[0]);
    if (l->op == NET_BN)
        return norm(b, i, in[0]);
    if (l->op == NET_UP2 && is_doubled(b, i))
        return in[0];
    if (folds(b, i)) {
        p->node[p->tensor[in[0]].producer].at.slope = l->at.slope;
        return in[0];
    }
    if (l->op == NET_FLATTEN && (xs.c == 1 || xs.h * xs.w == 1))
        return alias(p, in[0], l->shape);
    if (l->op == NET_RESHAPE && (l->shape.c == 1 || l->shape.h * l->shape.w == 1))
        return alias(p, in[0], l->shape);
    if (l->op == NET_REFLECTPAD && is_doubled(b, i)) {
        int y = add_tensor(p, (struct net_shape){ .c = xs.c, .h = xs.h + 2, .w = xs.w + 2 }, true);
        add_node(p, OP_EDGEPAD, i, in, 1, y);
        return y;
    }
    int y = add_tensor(p, l->shape, true);
    add_node(p, plain[l->op], i, in, l->n_in, y);
    return y;
}

static void leave_out(struct builder *b, int i)
{
    const struct net_node *l = &b->p->net.node[i];
    for (int k = 0; k < l->n_params; k++)
        b->p->unread[l->param0 + k] = true;
    if (l->op == NET_BN) /* its statistics keep their place, for eng_running_count knows nothing of plans */
        b->running += 2 * (uint64_t)l->shape.c;
}

static int build(struct eng_plan *p, struct errbuf *e)
{
    const struct net *n = &p->net;
    struct builder b = { .p = p, .of_node = calloc((size_t)n->n_nodes, sizeof(int)), .n_consumers = calloc((size_t)n->n_nodes, sizeof(int)) };
    /* a layer makes at most three ops, and a tensor for each and for each parameter */
    p->node = calloc((size_t)n->n_nodes * 3, sizeof *p->node);
    p->tensor = calloc((size_t)(n->n_nodes * 3 + n->n_params), sizeof *p->tensor);
    int rc = 0;
    p->unread = calloc((size_t)n->n_params + 1, sizeof *p->unread);
    if (!b.of_node || !b.n_consumers || !p->node || !p->tensor || !p->unread) {
        rc = err_set(e, ERR_NOMEM, "no memory to plan %d layers", n->n_nodes);
        goto done;
    }
    b.n_consumers[n->out]++;
    for (int i = n->n_nodes - 1; i > 0; i--)
        for (int k = 0; k < n->node[i].n_in && b.n_consumers[i]; k++)
            b.n_consumers[n->node[i].in[k]]++;
    for (int i = 0; i < n->n_nodes; i++) {
        if (!b.n_consumers[i]) {
            leave_out(&b, i);
            continue;
        }
        if (n->node[i].at.k > 255 && n->node[i].op == NET_CONV) {
            rc = err_set(e, ERR_SHAPE, "layer %s: kernel %d is larger than the engine's 255", n->node[i].path, n->node[i].at.k);
            goto done;
        }
        b.of_node[i] = i == 0 ? add_tensor(p, n->node[0].shape, true) : lower(&b, i);
    }
    p->input = b.of_node[0];
    p->output = b.of_node[n->out];
    if (p->n_nodes == 0 || p->tensor[p->output].root == p->input)
        rc = err_set(e, ERR_SHAPE, "the network has no layer that computes anything");
done:
    free(b.of_node);
    free(b.n_consumers);
    return rc;
}

/* Far beyond any memory, but not yet where sums of places overflow. */
static int check_sizes(const struct eng_plan *p, struct errbuf *e)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->n_nodes; i++) {
        sum += p->tensor[p->node[i].out].elems * eng_dtype_size(p->dtype); /* each at most 2^30 * 2^20 * 8 */
        if (sum > PLAN_MAX_BYTES)
            return err_set(e, ERR_NOMEM, "layer %s: the activations of %d images take more than %llu bytes up to here",
                           p->net.node[p->node[i].net_node].path, p->batch, (unsigned long long)PLAN_MAX_BYTES);
    }
    return 0;
}

/* ---- what flows where ---- */

static int mark_flow(struct eng_plan *p, struct errbuf *e)
{
    bool *seen = calloc((size_t)p->n_tensors, sizeof *seen);
    if (!seen)
        return err_set(e, ERR_NOMEM, "no memory to plan %d ops", p->n_nodes);
    for (int t = 0; t < p->n_tensors; t++)
        if (p->tensor[t].param) {
            p->tensor[t].has_dot = p->need & ENG_TANGENT;
            p->tensor[t].needs_adj = p->need & ENG_GRAD;
        }
    p->tensor[p->input].needs_adj = p->need & ENG_INPUT_GRAD;
    for (int i = 0; i < p->n_nodes; i++) {
        struct node *n = &p->node[i];
        struct tensor *y = &p->tensor[n->out];
        for (int k = 0; k < n->n_in; k++) {
            y->has_dot |= p->tensor[p->tensor[n->in[k]].root].has_dot;
            y->needs_adj |= p->tensor[p->tensor[n->in[k]].root].needs_adj;
        }
    }
    /* Backward runs from the last node: the first to touch an adjoint writes it, later ones add. */
    for (int i = p->n_nodes - 1; i >= 0; i--) {
        struct node *n = &p->node[i];
        for (int k = 0; k < n->n_in; k++) {
            int root = p->tensor[n->in[k]].root;
            n->acc[k] = seen[root];
            seen[root] |= p->tensor[n->out].needs_adj;
        }
    }
    free(seen);
    const struct tensor *y = &p->tensor[p->tensor[p->output].root];
    if (((p->need & ENG_GRAD) && !y->needs_adj) || ((p->need & ENG_TANGENT) && !y->has_dot))
        return err_set(e, ERR_SHAPE, "the network's output depends on no parameter: there is nothing to learn");
    return 0;
}

struct op_call plan_call(const struct eng_plan *p, const struct node *n)
{
    struct op_call c = { .batch = p->batch, .total = p->batch, .at = n->at, .n_in = n->n_in, .pool = p->pool, .blas = (p->need & ENG_BLAS) && eng_blas_serves(), .evaluation = p->evaluation, .running_momentum = 0.1 };
    for (int k = 0; k < n->n_in; k++) {
        c.in[k].s = p->tensor[n->in[k]].s;
        c.in[k].acc = n->acc[k];
    }
    c.out.s = p->tensor[n->out].s;
    return c;
}

/* ---- the plan ---- */

int plan_compile(const struct net *net, int batch, enum eng_dtype t, unsigned need, const struct plan_wish *wish, struct eng_plan **out, struct errbuf *e)
{
    *out = NULL;
    if (batch < 1 || batch > 1 << 20)
        return err_set(e, ERR_SHAPE, "a batch of %d images", batch);
    if (need & (ENG_INPUT_GRAD | ENG_TANGENT | ENG_RUNNING))
        need |= ENG_GRAD;
    struct eng_plan *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "no memory for a plan");
    p->batch = batch;
    p->dtype = t;
    p->need = need;
    p->k = eng_kernels(t);
    int rc = net_copy(&p->net, net, e);
    if (rc == 0)
        rc = build(p, e);
    if (rc == 0)
        rc = check_sizes(p, e);
    if (rc == 0)
        rc = mark_flow(p, e);
    if (rc == 0)
        rc = plan_place(p, wish ? wish : &(struct plan_wish){ .at_most = UINT64_MAX }, e);
    if (rc < 0) {
        eng_plan_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void plan_attach(struct eng_plan *p, void *arena) { p->arena = arena; }

int eng_plan_new(const struct net *net, int batch, enum eng_dtype t, unsigned need, struct eng_plan **out, struct errbuf *e)
{
    int rc = plan_compile(net, batch, t, need, NULL, out, e);
    if (rc < 0)
        return rc;
    struct eng_plan *p = *out;
    size_t running = eng_running_count(net), esz = eng_dtype_size(t);
    p->arena = eng_alloc(p->bytes);
    p->owns_arena = true;
    if (need & ENG_RUNNING)
        p->running = calloc(running ? running : 1, esz);
    if (!p->arena || ((need & ENG_RUNNING) && !p->running)) {
        rc = err_set(e, ERR_NOMEM, "a plan of %llu bytes does not fit in memory", (unsigned long long)p->bytes);
        eng_plan_free(p);
        *out = NULL;
        return rc;
    }
    if (p->running) { /* mean 0, variance 1 */
        char *at = p->running;
        for (int i = 0; i < net->n_nodes; i++)
            for (int c = 0; net->node[i].op == NET_BN && c < 2 * net->node[i].shape.c; c++, at += esz) {
                double one = c >= net->node[i].shape.c;
                if (t == ENG_F64) memcpy(at, &one, sizeof one);
                else memcpy(at, &(float){ (float)one }, sizeof(float));
            }
    }
    return 0;
}

void eng_plan_free(struct eng_plan *p)
{
    if (!p)
        return;
    net_fini(&p->net);
    free(p->node);
    free(p->tensor);
    free(p->unread);
    free(p->redo);
    free(p->alive);
    free(p->forth);
    free(p->back);
    free(p->running);
    if (p->owns_arena)
        free(p->arena);
    free(p);
}

uint64_t eng_plan_bytes(const struct eng_plan *p) { return p->bytes; }
void     eng_plan_set_pool(struct eng_plan *p, struct eng_pool *pool) { p->pool = pool; }

int eng_plan_predict(const struct net *net, int batch, enum eng_dtype t, unsigned need, uint64_t *bytes, struct errbuf *e)
{
    struct eng_plan *p;
    int rc = plan_compile(net, batch, t, need, NULL, &p, e);
    if (rc == 0)
        *bytes = p->bytes;
    if (rc == 0)
        eng_plan_free(p);
    return rc;
}

void eng_set_evaluation(struct eng_plan *p, bool on) { p->evaluation = on; }

size_t eng_running_count(const struct net *n)
{
    size_t count = 0;
    for (int i = 0; i < n->n_nodes; i++)
        count += n->node[i].op == NET_BN ? 2 * (size_t)n->node[i].shape.c : 0;
    return count;
}

void eng_running_get(const struct eng_plan *p, void *stats) { memcpy(stats, p->running, eng_running_count(&p->net) * eng_dtype_size(p->dtype)); }
void eng_running_set(struct eng_plan *p, const void *stats) { memcpy(p->running, stats, eng_running_count(&p->net) * eng_dtype_size(p->dtype)); }
