#include "worker/heldout.h"

enum hop { H_END, H_CONV, H_NORM, H_RELU, H_LRELU, H_TANH, H_MAX2, H_AVG2, H_GAP, H_FLAT, H_FC, H_DENSE };
struct hlayer { enum hop op; int out, k; };

#define HELDOUT_MAX 48
struct row { const char *name; struct hlayer layer[HELDOUT_MAX]; };

#define CONV(o, kk) { H_CONV, o, kk }, { H_NORM, 0, 0 }, { H_RELU, 0, 0 }
static const struct row rows[] = {
    /* no convolution at all */
    { "perceptron", { { H_FLAT, 0, 0 }, { H_FC, 128, 0 }, { H_LRELU, 0, 0 } } },
    /* a kernel size that no space has */
    { "wide-kernel", { CONV(8, 7), { H_MAX2, 0, 0 }, CONV(16, 7), { H_AVG2, 0, 0 }, { H_FLAT, 0, 0 } } },
    /* deeper than any chain, with the head that is hardest to teach */
    { "deep-gap", { CONV(8, 3), CONV(8, 3), { H_MAX2, 0, 0 }, CONV(12, 3), CONV(12, 3), CONV(12, 3), CONV(12, 3), { H_MAX2, 0, 0 },
                    CONV(16, 3), CONV(16, 3), CONV(16, 3), CONV(16, 3), { H_GAP, 0, 0 } } },
    /* LeNet: no normalisation, tanh, two hidden layers */
    { "lenet", { { H_CONV, 6, 5 }, { H_TANH, 0, 0 }, { H_AVG2, 0, 0 }, { H_CONV, 16, 5 }, { H_TANH, 0, 0 }, { H_AVG2, 0, 0 },
                 { H_FLAT, 0, 0 }, { H_FC, 120, 0 }, { H_TANH, 0, 0 }, { H_FC, 84, 0 }, { H_TANH, 0, 0 } } },
    /* concatenation instead of addition */
    { "dense", { CONV(12, 3), { H_MAX2, 0, 0 }, { H_DENSE, 10, 3 }, { H_DENSE, 10, 3 }, { H_MAX2, 0, 0 }, { H_DENSE, 10, 3 },
                 { H_DENSE, 10, 3 }, { H_GAP, 0, 0 } } },
};
#define N_ROWS ((int)(sizeof rows / sizeof rows[0]))

int         heldout_count(void)     { return N_ROWS; }
const char *heldout_name(int i)     { return rows[i].name; }

static int dense(struct net *n, const struct hlayer *l, struct errbuf *e)
{
    int before = n->out, rc = net_conv(n, before, l->out, l->k, 1, l->k / 2, NULL, e);
    if (rc < 0 || (rc = net_bn(n, rc, false, NULL, e)) < 0 || (rc = net_lrelu(n, rc, 0, NULL, e)) < 0)
        return rc;
    return net_add(n, NET_CONCAT, (int[]){ before, rc }, 2, &(struct net_attr){ 0 }, NULL, e);
}

static int append(struct net *n, const struct hlayer *l, struct errbuf *e)
{
    int at = n->out;
    switch (l->op) {
    case H_CONV:  return net_conv(n, at, l->out, l->k, 1, l->k / 2, NULL, e);
    case H_NORM:  return net_bn(n, at, false, NULL, e);
    case H_RELU:  return net_lrelu(n, at, 0, NULL, e);
    case H_LRELU: return net_lrelu(n, at, 0.1, NULL, e);
    case H_TANH:  return net_unary(n, NET_TANH, at, NULL, e);
    case H_MAX2:  return net_pool(n, NET_MAXPOOL, at, 2, 2, 0, NULL, e);
    case H_AVG2:  return net_pool(n, NET_AVGPOOL, at, 2, 2, 0, NULL, e);
    case H_GAP:   return net_unary(n, NET_GAP, at, NULL, e);
    case H_FLAT:  return net_unary(n, NET_FLATTEN, at, NULL, e);
    case H_FC:    return net_linear(n, at, l->out, NULL, e);
    case H_DENSE: return dense(n, l, e);
    case H_END:   break;
    }
    return at;
}

int heldout_build(int i, int c, int h, int w, int n_classes, struct net *out, struct errbuf *e)
{
    int rc = net_init(out, c, h, w, e);
    for (const struct hlayer *l = rows[i].layer; rc >= 0 && l->op != H_END; l++)
        rc = append(out, l, e);
    if (rc < 0 || (rc = net_linear(out, out->out, n_classes, NULL, e)) < 0) {
        net_fini(out);
        return err_wrap(e, rc, "held-out architecture %s", rows[i].name);
    }
    return 0;
}
