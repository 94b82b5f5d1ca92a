/* pass.c - run a plan: forward, backward, and both with tangents. */
#include "worker/engine/plan.h"

#include <string.h>

static void *at(const struct eng_plan *p, const void *base, uint64_t elems)
{
    return base ? (char *)(uintptr_t)base + elems * eng_dtype_size(p->dtype) : NULL;
}

static struct op_view view(const struct eng_plan *p, const struct plan_bound *b, int tensor, struct op_view v)
{
    const int root = p->tensor[tensor].root;
    const struct tensor *t = &p->tensor[root];
    if (t->param) {
        v.val = at(p, b->w, t->offset);
        v.dot = at(p, b->u, t->offset);
        v.adj = at(p, b->g, t->offset);
        v.adj_dot = at(p, b->hu, t->offset);
    } else if (root == p->input) {
        v.val = at(p, b->x, 0);
        v.adj = b->gx;
        v.adj_dot = b->xu;
    } else {
        void **slot[N_BUFFERS] = { &v.val, &v.dot, &v.adj, &v.adj_dot };
        for (int i = 0; i < N_BUFFERS; i++) {
            const uint64_t place = b->back && i <= DOT ? t->again[i] : t->place[i];
            const bool missing = place == NO_PLACE || (b->kept && !t->kept[i] && (i == VAL || i == ADJ));
            *slot[i] = missing ? NULL : (t->kept[i] ? p->kept : p->arena) + place;
        }
    }
    return v;
}

static struct op_call bind(const struct eng_plan *p, const struct plan_bound *b, const struct node *n)
{
    struct op_call c = plan_call(p, n);
    for (int k = 0; k < n->n_in; k++) {
        c.in[k] = view(p, b, n->in[k], c.in[k]);
        if (b->kept)
            c.in[k].adj = NULL; /* has been found, and is not wanted again */
    }
    c.out = view(p, b, n->out, c.out);
    c.kept = b->kept;
    c.aux = n->aux == NO_PLACE ? NULL : (p->kept_bytes ? p->kept : p->arena) + n->aux;
    c.scratch = p->arena + p->scratch;
    if (p->running && n->op == OP_BN)
        c.running = at(p, p->running, n->running);
    return c;
}

enum { FORWARD, BACKWARD, DUAL_FORWARD, DUAL_BACKWARD };

/* A batch norm with a slope is one with the rectifier folded in; its output has the sign of what the rectifier saw. */
static void show_rectified(const struct eng_plan *p, const struct node *n, const struct op_call *c)
{
    if ((n->op != OP_LRELU && n->op != OP_BN) || n->at.slope == 1)
        return;
    p->watch(p->watch_arg, &(struct eng_rectified){ p->dtype, p->batch, p->tensor[n->out].elems / (uint64_t)p->batch, c->out.val });
}

static void run(const struct eng_plan *p, int i, int rule, const struct op_call *c)
{
    const struct op_rules *r = &p->k->op[p->node[i].op];
    const op_rule fn[] = { r->forward, r->backward, r->dual_forward, r->dual_backward };
    if (p->probe)
        p->probe(p->probe_arg, p, i, rule, fn[rule], c);
    else
        fn[rule](c);
    if (p->watch && rule == FORWARD && c->part != OP_GATHER)
        show_rectified(p, &p->node[i], c);
}

static void clear_unread(const struct eng_plan *p, const struct plan_bound *b)
{
    for (int i = 0; i < p->net.n_params; i++) {
        const struct net_param *q = &p->net.param[i];
        if (p->unread[i] && b->g)
            memset(at(p, b->g, q->offset), 0, (size_t)q->size * eng_dtype_size(p->dtype));
        if (p->unread[i] && b->hu)
            memset(at(p, b->hu, q->offset), 0, (size_t)q->size * eng_dtype_size(p->dtype));
    }
}

static void *moved(void *buffer, uint64_t bytes) { return buffer ? (char *)buffer + bytes : NULL; }

static void move_view(const struct eng_plan *p, int tensor, bool back, int first, struct op_view *v)
{
    const struct tensor *t = &p->tensor[p->tensor[tensor].root];
    const uint64_t bytes = t->batched ? t->elems / (uint64_t)p->batch * (uint64_t)first * eng_dtype_size(p->dtype) : 0;
    void **slot[N_BUFFERS] = { &v->val, &v->dot, &v->adj, &v->adj_dot };
    for (int i = 0; i < N_BUFFERS; i++)
        if (!t->passing[plan_use(t, i, back)])
            *slot[i] = moved(*slot[i], bytes);
}

/* The part of a call that concerns `batch` images after `first` others. */
static struct op_call slice(const struct eng_plan *p, const struct op_call *whole, int node, bool back, int first, int batch)
{
    const struct node *n = &p->node[node];
    struct op_call c = *whole;
    c.first = first;
    c.batch = batch;
    for (int k = 0; k < n->n_in; k++)
        move_view(p, n->in[k], back, first, &c.in[k]);
    move_view(p, n->out, back, first, &c.out);
    return c;
}

struct bound_step { int node, rule; bool skip; struct op_call c; };

static struct bound_step bind_step(const struct eng_plan *p, const struct plan_bound *b, const struct step *s, bool dual)
{
    struct bound_step x = { .node = s->node, .c = bind(p, b, &p->node[s->node]) };
    x.c.again = s->again;
    x.c.part = s->part;
    if (b->back && !s->again)
        x.rule = dual ? DUAL_BACKWARD : BACKWARD;
    else {
        x.rule = dual && x.c.out.dot ? DUAL_FORWARD : FORWARD;
        x.skip = b->kept && !x.c.out.dot;
    }
    return x;
}

/* A run of steps: all of it for one block of images, then for the next (blocks.c). */
static void run_blocks(const struct eng_plan *p, const struct plan_bound *b, const struct step *s, bool dual)
{
    struct bound_step bound[STEP_MOST];
    const int64_t wish = (int64_t)s->images[dual] * eng_pool_threads(p->pool);
    const int images = wish < s->most ? (int)wish : s->most;
    for (int i = 0; i < s->run; i++)
        bound[i] = bind_step(p, b, &s[i], dual);
    for (int first = 0; first < p->batch; first += images)
        for (int i = 0; i < s->run; i++) {
            const int left = p->batch - first;
            struct op_call c = slice(p, &bound[i].c, bound[i].node, b->back, first, left < images ? left : images);
            if (!bound[i].skip)
                run(p, bound[i].node, bound[i].rule, &c);
        }
}

static void walk(const struct eng_plan *p, const struct plan_bound *b, const struct step *s, int n, bool dual)
{
    for (int i = 0; i < n; i += s[i].run)
        if (s[i].run > 1)
            run_blocks(p, b, &s[i], dual);
        else {
            struct bound_step x = bind_step(p, b, &s[i], dual);
            if (!x.skip)
                run(p, x.node, x.rule, &x.c);
        }
}

void plan_forth(const struct eng_plan *p, const struct plan_bound *b, bool dual) { walk(p, b, p->forth, p->n_forth, dual); }

void plan_back(const struct eng_plan *p, const struct plan_bound *forth, bool dual)
{
    struct plan_bound b = *forth;
    b.back = true;
    walk(p, &b, p->back, p->n_back, dual);
}

static void walk_backward(const struct eng_plan *p, const struct plan_bound *b, bool dual)
{
    clear_unread(p, b);
    plan_back(p, b, dual);
}

struct op_view plan_output(const struct eng_plan *p) { return view(p, &(struct plan_bound){ 0 }, p->output, (struct op_view){ 0 }); }
static struct op_view output(const struct eng_plan *p, const struct plan_bound *b) { return view(p, b, p->output, (struct op_view){ 0 }); }
static int width(const struct eng_plan *p) { return (int)(p->tensor[p->output].elems / (uint64_t)p->batch); }
static size_t out_bytes(const struct eng_plan *p) { return (size_t)p->tensor[p->output].elems * eng_dtype_size(p->dtype); }

void eng_forward(struct eng_plan *p, const void *w, const void *x, void *logits)
{
    struct plan_bound b = { .w = w, .x = x };
    plan_forth(p, &b, false);
    if (logits)
        memcpy(logits, output(p, &b).val, out_bytes(p));
}

void eng_plan_watch(struct eng_plan *p, eng_watch fn, void *arg)
{
    p->watch = fn;
    p->watch_arg = arg;
}

double eng_loss(struct eng_plan *p, const void *logits, const void *y) { return p->k->loss(p->batch, width(p), logits, y, NULL); }

double plan_grad(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, void *gx, void *logits)
{
    struct plan_bound b = { .w = w, .x = x, .g = g, .gx = gx };
    plan_forth(p, &b, false);
    struct op_view out = output(p, &b);
    if (logits)
        memcpy(logits, out.val, out_bytes(p));
    double loss = p->k->loss(p->batch, width(p), out.val, y, out.adj);
    walk_backward(p, &b, false);
    return loss;
}

double eng_grad(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, void *gx)
{
    return plan_grad(p, w, x, y, g, gx, NULL);
}

void eng_backward(struct eng_plan *p, const void *w, const void *x, const void *gout, void *g, void *gx)
{
    struct plan_bound b = { .w = w, .x = x, .g = g, .gx = gx };
    memcpy(output(p, &b).adj, gout, out_bytes(p));
    walk_backward(p, &b, false);
}

static double tangent(struct eng_plan *p, const struct plan_bound *b, const void *y, void *yu)
{
    plan_forth(p, b, true);
    struct op_view out = output(p, b);
    double loss = p->k->dual_loss(p->batch, width(p), out.val, out.dot, y, out.adj, out.adj_dot, yu);
    walk_backward(p, b, true);
    return loss;
}

double eng_tangent(struct eng_plan *p, const void *w, const void *x, const void *y, const void *u, void *hu, void *xu, void *yu, void *g)
{
    return tangent(p, &(struct plan_bound){ .w = w, .u = u, .x = x, .g = g, .hu = hu, .xu = xu }, y, yu);
}

double plan_tangent_kept(struct eng_plan *p, const void *w, const void *x, const void *y, const void *u, void *hu, void *xu, void *yu)
{
    return tangent(p, &(struct plan_bound){ .w = w, .u = u, .x = x, .hu = hu, .xu = xu, .kept = true }, y, yu);
}
