/* onnx.h - a trained network as an ONNX model (IR 7, opset 13, float32).
 * Input "image" [N,C,H,W] with a free N, values p / 127.5 - 1 of 8-bit pixels (also written in the model); output "logits" [N,K].
 * The model is the network in evaluation form: batch norms use the running statistics, weight norm is folded into the weights,
 * layers that do not reach the output are left out. */
#ifndef DIDACT_CLIENT_ONNX_H
#define DIDACT_CLIENT_ONNX_H

#include "common/err.h"
#include "common/net.h"
#include "common/safetensors.h"

/* `weights` holds a float32 tensor for every parameter of `n`, named as in net.h (row-major, [out, in/groups, k, k]), and
 * PATH.running_mean and PATH.running_var for every batch norm (running_mean alone where it is mean-only).
 * Its metadata `space`, `arch`, `dataset` are copied into the model where present.
 * Written atomically. -ERR_INPUT names the tensor that is missing or has another shape. */
int onnx_write(const struct net *n, const struct st_file *weights, const char *path, struct errbuf *e);

#endif
