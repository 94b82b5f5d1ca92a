#include "worker/engine/demand.h"

#include "worker/engine/plan.h"

enum { FORWARD, BACKWARD };

void demand_eval_cut(int images, int n, int *batch, int *n_batches)
{
    if (images < n)
        n = images;
    *n_batches = n < 1 ? 0 : (n + EVAL_BATCH - 1) / EVAL_BATCH;
    *batch = *n_batches ? n / *n_batches : 0;
}

int demand_score(const struct net *n, int T, int B, const struct inner_cfg *inner, int eval_batch, int n_batches, struct demand *d, struct errbuf *e)
{
    const struct unroll_cfg c = { .learner = n, .dtype = ENG_F32, .T = T, .B = B, .inner = *inner };
    struct unroll   *u = NULL;
    struct eng_plan *eval = NULL;
    int rc = unroll_plan(&c, &u, e);
    if (rc == 0)
        rc = plan_compile(n, eval_batch, ENG_F32, ENG_FORWARD, NULL, &eval, e);
    if (rc == 0) {
        const struct unroll_view v = unroll_view(u);
        *d = (struct demand){ .mem_bytes = v.total + eval->bytes + n->param_count * sizeof(float),
                              .train_flops = (uint64_t)T * (plan_pass_flops(v.step, FORWARD, false) + plan_pass_flops(v.step, BACKWARD, false)),
                              .eval_flops = (uint64_t)n_batches * plan_pass_flops(eval, FORWARD, false) };
    }
    eng_plan_free(eval);
    unroll_free(u);
    return rc;
}

int demand_train(const struct net *n, int B, uint64_t n_train, int K, struct demand *d, struct errbuf *e)
{
    const struct net_shape in = n->node[0].shape;
    const uint64_t image = (uint64_t)in.c * (uint64_t)in.h * (uint64_t)in.w, b = (uint64_t)B;
    struct eng_plan *p = NULL;
    int rc = plan_compile(n, B, ENG_F32, ENG_GRAD | ENG_RUNNING | ENG_BLAS, NULL, &p, e);
    if (rc < 0)
        return rc;
    *d = (struct demand){ .mem_bytes = p->bytes + 3 * n->param_count * sizeof(float) + b * (image + 2 * (uint64_t)K) * sizeof(float) +
                                       n_train * sizeof(uint32_t),
                          .train_flops = plan_pass_flops(p, FORWARD, false) + plan_pass_flops(p, BACKWARD, false) };
    eng_plan_free(p);
    return 0;
}

int demand_latency(const struct net *n, int batch, uint64_t *bytes, struct errbuf *e)
{
    const struct net_shape in = n->node[0].shape;
    int rc = eng_plan_predict(n, batch, ENG_F32, ENG_RUNNING, bytes, e);
    if (rc == 0)
        *bytes += (n->param_count + (uint64_t)batch * (uint64_t)in.c * (uint64_t)in.h * (uint64_t)in.w) * sizeof(float);
    return rc;
}
