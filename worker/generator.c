#include "worker/generator.h"

#include "worker/engine/lanes.h"
#include "worker/mem.h"
#include "worker/par.h"

#include <pthread.h>

#define SLOPE 0.1

struct lane { /* what one thread needs */
    struct eng_plan *plan;
    float *in, *din; /* [B, z_dim + K] */
    float *g;        /* [G] */
};
struct generator {
    struct generator_cfg cfg;
    struct net   net;
    int          n_lanes;
    struct lane *lane;
    struct lanes *there;    /* on a device, in place of `lane` */
    float *in;              /* [T, B, z_dim + K], of a device */
    pthread_mutex_t lock;
    pthread_cond_t  turned;
    int             turn;   /* which t may add to the sum next */
};
struct call {
    struct generator *g;
    const float *phi, *z, *dx;
    const int   *label;
    float       *x, *dphi, *dz;
};

static int add(struct net *n, enum net_op op, struct net_attr at, struct errbuf *e)
{
    int in = n->out;
    return net_add(n, op, &in, 1, &at, NULL, e);
}

static int norm_act(struct net *n, struct errbuf *e)
{
    int rc = net_bn(n, n->out, false, NULL, e);
    return rc < 0 ? rc : net_lrelu(n, n->out, SLOPE, NULL, e);
}

static int grow(struct net *n, int channels, bool bias, struct errbuf *e)
{
    int rc = net_unary(n, NET_UP2, n->out, NULL, e);
    if (rc < 0 || (rc = add(n, NET_REFLECTPAD, (struct net_attr){ .pad = 1 }, e)) < 0)
        return rc;
    return add(n, NET_CONV, (struct net_attr){ .out = channels, .k = 3, .stride = 1, .dilation = 1, .groups = 1, .wn = true, .bias = bias },
               e);
}

int generator_net(const struct generator_cfg *c, struct net *n, struct errbuf *e)
{
    if (c->h < 8 || c->w < 8 || c->h % 4 || c->w % 4)
        return err_set(e, ERR_INPUT, "the generator needs images whose sides are divisible by 4 and at least 8, not %dx%d", c->h, c->w);
    int h = c->h / 4, w = c->w / 4, rc = net_init(n, c->z_dim + c->K, 0, 0, e);
    if (rc < 0 || (rc = add(n, NET_LINEAR, (struct net_attr){ .out = c->hidden, .wn = true }, e)) < 0 || (rc = norm_act(n, e)) < 0 ||
        (rc = add(n, NET_LINEAR, (struct net_attr){ .out = c->channels1 * h * w, .wn = true }, e)) < 0 ||
        (rc = add(n, NET_RESHAPE, (struct net_attr){ .c = c->channels1, .h = h, .w = w }, e)) < 0 || (rc = norm_act(n, e)) < 0 ||
        (rc = grow(n, c->channels2, false, e)) < 0 || (rc = norm_act(n, e)) < 0 || (rc = grow(n, c->c, true, e)) < 0 ||
        (rc = net_unary(n, NET_TANH, n->out, NULL, e)) < 0)
        return err_wrap(e, rc, "generator");
    return 0;
}

static int start_there(struct generator *g, struct errbuf *e)
{
    const struct generator_cfg *c = &g->cfg;
    const struct device *d = c->device;
    struct lanes_cfg l = { .net = &g->net, .device = d, .n = c->T, .B = c->B, .lanes = 1, .want_dx = true, .out = c->x_there, .dout = c->dx_there };
    uint64_t bytes;
    int rc = lanes_fit(&l, c->device_room, &l.lanes, e);
    if (rc == 0 && l.lanes == 0) {
        l.lanes = 1;
        if ((rc = lanes_predict(&l, &bytes, e)) == 0)
            rc = err_set(e, ERR_NOMEM, "the generator needs %llu MiB on the device, where it may take %llu MiB", (unsigned long long)((bytes + 1048575) >> 20),
                         (unsigned long long)(c->device_room >> 20));
    }
    if (rc == 0 && !(g->in = mem_array((uint64_t)c->T * (uint64_t)c->B * (uint64_t)(c->z_dim + c->K), sizeof *g->in)))
        rc = err_set(e, ERR_NOMEM, "generator");
    return rc < 0 ? rc : lanes_new(&l, &g->there, e);
}

int generator_new(const struct generator_cfg *c, struct generator **out, struct errbuf *e)
{
    struct generator *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g)
        return err_set(e, ERR_NOMEM, "generator");
    g->cfg = *c;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->turned, NULL);
    int rc = generator_net(c, &g->net, e), lanes = c->device ? 0 : c->threads < 1 ? 1 : c->threads > c->T ? c->T : c->threads;
    if (rc == 0 && c->device)
        rc = start_there(g, e);
    if (rc == 0 && !(g->lane = calloc((size_t)lanes + 1, sizeof *g->lane)))
        rc = err_set(e, ERR_NOMEM, "generator");
    for (; rc == 0 && g->n_lanes < lanes; g->n_lanes++) {
        struct lane *l = &g->lane[g->n_lanes];
        uint64_t in = (uint64_t)c->B * (uint64_t)(c->z_dim + c->K);
        rc = eng_plan_new(&g->net, c->B, ENG_F32, ENG_GRAD | ENG_INPUT_GRAD, &l->plan, e);
        l->in = mem_array(in, sizeof(float));
        l->din = mem_array(in, sizeof(float));
        l->g = mem_array(g->net.param_count, sizeof(float));
        if (rc == 0 && (!l->in || !l->din || !l->g))
            rc = err_set(e, ERR_NOMEM, "generator");
    }
    if (rc < 0)
        generator_free(g);
    else
        *out = g;
    return rc;
}

void generator_free(struct generator *g)
{
    if (!g)
        return;
    for (int i = 0; g->lane && i < g->n_lanes; i++) {
        eng_plan_free(g->lane[i].plan);
        free(g->lane[i].in);
        free(g->lane[i].din);
        free(g->lane[i].g);
    }
    free(g->lane);
    lanes_free(g->there);
    free(g->in);
    net_fini(&g->net);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->turned);
    free(g);
}

const struct net *generator_get_net(const struct generator *g) { return &g->net; }

uint64_t generator_bytes_there(const struct generator *g) { return g->there ? lanes_bytes(g->there) : 0; }

uint64_t generator_bytes(const struct generator *g)
{
    uint64_t in = (uint64_t)g->cfg.B * (uint64_t)(g->cfg.z_dim + g->cfg.K);
    if (g->there)
        return (uint64_t)g->cfg.T * in * sizeof(float);
    return (uint64_t)g->n_lanes * (eng_plan_bytes(g->lane[0].plan) + (2 * in + g->net.param_count) * sizeof(float));
}

static void fill_input(const struct call *c, int t, float *in)
{
    const struct generator_cfg *k = &c->g->cfg;
    size_t row = (size_t)(k->z_dim + k->K), zn = (size_t)k->z_dim;
    for (size_t b = 0; b < (size_t)k->B; b++) {
        size_t i = (size_t)t * (size_t)k->B + b;
        memcpy(in + b * row, c->z + i * zn, zn * sizeof *in);
        memset(in + b * row + zn, 0, (size_t)k->K * sizeof *in);
        in[b * row + zn + (size_t)c->label[i]] = 1;
    }
}

static size_t step_elems(const struct generator_cfg *k)
{
    return (size_t)k->B * (size_t)k->c * (size_t)k->h * (size_t)k->w;
}

static void forward_one(void *arg, int t, int thread)
{
    struct call *c = arg;
    struct lane *l = &c->g->lane[thread];
    fill_input(c, t, l->in);
    eng_forward(l->plan, c->phi, l->in, c->x + (size_t)t * step_elems(&c->g->cfg));
}

static void backward_one(void *arg, int t, int thread)
{
    struct call *c = arg;
    struct generator *g = c->g;
    struct lane *l = &g->lane[thread];
    size_t row = (size_t)(g->cfg.z_dim + g->cfg.K), zn = (size_t)g->cfg.z_dim;
    fill_input(c, t, l->in);
    eng_forward(l->plan, c->phi, l->in, NULL);
    eng_backward(l->plan, c->phi, l->in, c->dx + (size_t)t * step_elems(&g->cfg), l->g, l->din);
    for (size_t b = 0; b < (size_t)g->cfg.B; b++)
        memcpy(c->dz + ((size_t)t * (size_t)g->cfg.B + b) * zn, l->din + b * row, zn * sizeof *l->din);
    /* Items are handed out in rising order, so whoever has the turn is at work: no deadlock. */
    pthread_mutex_lock(&g->lock);
    while (g->turn != t)
        pthread_cond_wait(&g->turned, &g->lock);
    pthread_mutex_unlock(&g->lock);
    eng_axpy(ENG_F32, g->net.param_count, 1.0, l->g, c->dphi);
    pthread_mutex_lock(&g->lock);
    g->turn++;
    pthread_cond_broadcast(&g->turned);
    pthread_mutex_unlock(&g->lock);
}

static int forward_there(const struct call *c, struct errbuf *e)
{
    struct generator *g = c->g;
    const struct generator_cfg *k = &g->cfg;
    for (int t = 0; t < k->T; t++)
        fill_input(c, t, g->in + (size_t)t * (size_t)k->B * (size_t)(k->z_dim + k->K));
    int rc = lanes_forward(g->there, c->phi, g->in, e);
    if (rc == 0 && c->x)
        rc = k->device->get(lanes_queue(g->there), c->x, k->x_there, (uint64_t)k->T * step_elems(k) * sizeof(float), e);
    return rc;
}

static int backward_there(const struct call *c, struct errbuf *e)
{
    struct generator *g = c->g;
    const struct generator_cfg *k = &g->cfg;
    const size_t row = (size_t)(k->z_dim + k->K), zn = (size_t)k->z_dim;
    if (c->dx)
        k->device->put(lanes_queue(g->there), k->dx_there, c->dx, (uint64_t)k->T * step_elems(k) * sizeof(float));
    int rc = lanes_backward(g->there, c->dphi, g->in, e); /* the input is not needed any more: its gradient takes its place */
    for (size_t i = 0; rc == 0 && i < (size_t)k->T * (size_t)k->B; i++)
        memcpy(c->dz + i * zn, g->in + i * row, zn * sizeof *c->dz);
    return rc;
}

int generator_forward(struct generator *g, const float *phi, const float *z, const int *label, float *x, struct errbuf *e)
{
    struct call c = { .g = g, .phi = phi, .z = z, .label = label, .x = x };
    if (g->there)
        return forward_there(&c, e);
    par_run(g->n_lanes, g->cfg.T, forward_one, &c);
    return 0;
}

int generator_backward(struct generator *g, const float *phi, const float *z, const int *label, const float *dx, float *dphi, float *dz, struct errbuf *e)
{
    struct call c = { .g = g, .phi = phi, .z = z, .label = label, .dx = dx, .dphi = dphi, .dz = dz };
    if (g->there)
        return backward_there(&c, e);
    memset(dphi, 0, g->net.param_count * sizeof *dphi);
    g->turn = 0;
    par_run(g->n_lanes, g->cfg.T, backward_one, &c);
    return 0;
}

void *generator_queue(const struct generator *g) { return g->there ? lanes_queue(g->there) : NULL; }
