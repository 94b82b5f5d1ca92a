#include "worker/engine/cpu/variant.h"

const struct kernels *KN(kernels)(void);

#define OP_ROW(e, n) [e] = { KN(n##_forward), KN(n##_backward), KN(n##_dual_forward), KN(n##_dual_backward) },

#define STR2(x) #x
#define STR(x) STR2(x)

const struct kernels *KN(kernels)(void)
{
    static const struct kernels k = {
        .name = STR(KV),
        .dtype = KV_DTYPE,
        .op = { OP_LIST(OP_ROW) },
        .aux = { [OP_BN] = KN(bn_aux), [OP_MAXPOOL] = KN(maxpool_aux) },
        .scratch = { [OP_CONV] = KN(conv_scratch), [OP_UPCONV] = KN(upconv_scratch), [OP_DWCONV] = KN(dwconv_scratch), [OP_BIAS] = KN(bias_scratch),
                     [OP_WNORM] = KN(wnorm_scratch), [OP_BN] = KN(bn_scratch) },
        .way = { [OP_CONV] = KN(conv_way) },
        .optim = KN(optim_rows),
        .loss = KN(loss),
        .dual_loss = KN(dual_loss),
        .shape_gradient = KN(shape_gradient),
        .unshape_gradient = KN(unshape_gradient),
        .affine = KN(affine),
        .axpy = KN(axpy),
        .dot = KN(dot),
        .finite = KN(finite),
        .count_correct = KN(count_correct),
    };
    return &k;
}
