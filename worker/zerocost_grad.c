/* zerocost_grad.c - scores from the gradient of the loss with respect to the weights of convolutions and linear layers.
 *
 *   snip (Lee et al., ICLR 2019, arXiv:1810.02340)              sum |w g|
 *   grad_norm (Abdelfattah et al., arXiv:2101.08134)            sum over layers of |g|
 *   zico (Li et al., ICLR 2023, arXiv:2301.11300; SLDGroup/ZiCo)  sum over layers of log sum over weights of mean|g| / std(g),
 *       mean and standard deviation over batches (two, so (|a| + |b|) / |a - b|); weights whose gradient is the same in all
 *       batches, and layers where that is all, are left out, as their code does. */
#include "worker/zerocost_int.h"

int zc_snip(const struct zc_work *k, double *score, struct errbuf *e)
{
    (void)e;
    *score = 0;
    for (int i = 0; i < k->in->net->n_params; i++) {
        const struct net_param *p = &k->in->net->param[i];
        for (uint64_t j = p->offset; zc_counts(p) && j < p->offset + p->size; j++)
            *score += fabs((double)k->in->w[j] * (double)k->g[0][j]);
    }
    return 0;
}

int zc_grad_norm(const struct zc_work *k, double *score, struct errbuf *e)
{
    (void)e;
    *score = 0;
    for (int i = 0; i < k->in->net->n_params; i++) {
        const struct net_param *p = &k->in->net->param[i];
        double sq = 0;
        for (uint64_t j = p->offset; zc_counts(p) && j < p->offset + p->size; j++)
            sq += (double)k->g[0][j] * (double)k->g[0][j];
        *score += sqrt(sq);
    }
    return 0;
}

int zc_zico(const struct zc_work *k, double *score, struct errbuf *e)
{
    (void)e;
    *score = 0;
    for (int i = 0; i < k->in->net->n_params; i++) {
        const struct net_param *p = &k->in->net->param[i];
        double sum = 0;
        for (uint64_t j = p->offset; zc_counts(p) && j < p->offset + p->size; j++) {
            double a = (double)k->g[0][j], b = (double)k->g[1][j];
            if (a != b)
                sum += (fabs(a) + fabs(b)) / fabs(a - b);
        }
        if (sum != 0)
            *score += zc_log(sum);
    }
    return 0;
}
