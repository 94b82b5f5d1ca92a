#!/usr/bin/env python3
"""The outer step, inner training and 64 candidates in PyTorch: what bench/run.py compares the engine with.

    torch_gtn.py W1|W2|W3 inner|direct|outer THREADS RUNS [VARIANT] [T=n] [--serve]
    torch_gtn.py candidates LIST.json THREADS RUNS [plain|nhwc]      (the list: build/bench/candidates --list)

A variant is made of words joined by '-':
    plain    torch's own double backward through the whole unroll (default)
    triad    the same, with the convolution's double backward written with its first-order kernels
    ckpt     the unroll without a graph; each step's graph is built again on the way back: memory of one step
    fwdrev   the same with a forward-mode tangent through each step's gradient (PyTorch 2)
    compile  steps by torch.compile, alone (the compiled step is differentiated) or with ckpt or fwdrev (PyTorch 2)
    nhwc     images in channels-last order
Set OMP_NUM_THREADS to THREADS too. Runs with PyTorch 1.13 (plain, triad, ckpt, nhwc) and 2."""
import json
import sys

import torch
import torch.nn.functional as F

import workloads as W

VARIANTS = ["plain", "plain-nhwc", "triad", "triad-nhwc", "ckpt", "ckpt-nhwc", "ckpt-triad", "ckpt-triad-nhwc", "fwdrev", "fwdrev-nhwc",
            "compile", "compile-ckpt", "compile-fwdrev", "compile-nhwc", "nhwc"]
_backward = torch.ops.aten.convolution_backward


class Triad(torch.autograd.Function):
    """<c, x * w> is linear in each of c, x and w: its three gradients are a convolution (0), the gradient by x (1) and by w (2),
    and the derivatives of each are the other two. `like` has the shape of the result of 1 and 2."""

    @staticmethod
    def forward(ctx, which, a, b, like, conf):
        ctx.save_for_backward(a, b, like)
        ctx.which, ctx.conf = which, conf
        stride, pad, dilation, groups = conf
        if which == 0:
            return F.conv2d(a, b, None, stride, pad, dilation, groups)
        c, x, w = (a, like, b) if which == 1 else (b, a, like)
        return _backward(c, x, w, None, [stride] * 2, [pad] * 2, [dilation] * 2, False, [0, 0], groups, [which == 1, which == 2, False])[which - 1]

    @staticmethod
    def backward(ctx, c):
        a, b, _ = ctx.saved_tensors
        need_a, need_b = ctx.needs_input_grad[1:3]
        da, db = {0: ((1, c, b, a), (2, a, c, b)), 1: ((0, c, b, a), (2, c, a, b)), 2: ((1, b, c, a), (0, a, c, b))}[ctx.which]

        def run(which, p, q, like):
            return Triad.apply(which, p, q, like.detach(), ctx.conf)

        return None, run(*da) if need_a else None, run(*db) if need_b else None, None, None


# ---------------------------------------------------------------- networks
def weight(n, it):
    v = next(it)
    if not n.get("wn"):
        return v
    norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
    return next(it).view(norm.shape) * v / norm


def batch_norm(n, x, it, primitive):
    dims = (0, 2, 3) if x.dim() == 4 else (0,)
    form = (1, -1, *[1] * (x.dim() - 2))
    if n["mean_only"]:
        return x - x.mean(dims, keepdim=True) + next(it).view(form)
    gain, bias = next(it), next(it)
    if not primitive:
        return F.batch_norm(x, None, None, gain, bias, True, 0.0, n["eps"])
    d = x - x.mean(dims, keepdim=True)
    return d * torch.rsqrt((d * d).mean(dims, keepdim=True) + n["eps"]) * gain.view(form) + bias.view(form)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def apply(nodes, x, params, triad=False, primitive=False, nhwc=False):
    """`primitive`: batch norm from elementary operations, whose forward-mode derivatives exist."""
    it, out = iter(params), [channels_last(x) if nhwc else x]
    for n in nodes[1:]:
        op, x = n["op"], out[n["src"][0]]
        if op == "conv":
            conf = (n["stride"], n["pad"], n["dilation"], n["groups"])
            w = weight(n, it)
            x = Triad.apply(0, x, w, w.detach(), conf) if triad else F.conv2d(x, w, None, *conf)
            x = x + next(it).view(1, -1, 1, 1) if n["bias"] else x
        elif op == "linear":
            w = weight(n, it)
            x = F.linear(x, w, next(it) if n["bias"] else None)
        elif op == "bn":
            x = batch_norm(n, x, it, primitive)
        elif op == "lrelu":
            x = F.leaky_relu(x, n["slope"]) if n["slope"] else F.relu(x)
        elif op == "tanh":
            x = torch.tanh(x)
        elif op == "maxpool":
            x = F.max_pool2d(x, n["k"], n["stride"], n["pad"])
        elif op == "avgpool":
            x = F.avg_pool2d(x, n["k"], n["stride"], n["pad"], count_include_pad=False)
        elif op == "gap":
            x = x.mean((2, 3))
        elif op == "flatten":
            x = x.flatten(1)
        elif op == "reshape":
            x = x.reshape(-1, *n["shape"])
            x = channels_last(x) if nhwc else x
        elif op == "up2":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif op == "reflectpad":
            x = F.pad(x, [n["pad"]] * 4, mode="reflect")
        elif op == "add":
            x = out[n["src"][0]] + out[n["src"][1]]
        elif op == "concat":
            x = torch.cat([out[i] for i in n["src"]], 1)
        else:
            raise ValueError(op)
        out.append(x)
    return out[-1]


def cross_entropy(logits, y):
    if y.is_floating_point():
        return -(y * F.log_softmax(logits, 1)).sum(1).mean()
    return F.cross_entropy(logits, y)


# ---------------------------------------------------------------- the problem in one variant
class Problem:
    def __init__(self, w, variant):
        words = variant.split("-")
        self.triad, self.compiled, self.nhwc = "triad" in words, "compile" in words, "nhwc" in words
        self.way = "fwdrev" if "fwdrev" in words else "ckpt" if "ckpt" in words else "whole"
        self.learner, self.gen_nodes, self.T = w["learner"], w.get("generator"), w["T"]
        wrap = torch.compile if self.compiled else lambda f: f
        self.generate = wrap(self.generator)
        self.grad = wrap(self.func_grad) if self.compiled else self.eager_grad
        self.train_step = wrap(self.step_alone)
        self.graph_step = wrap(self.step) if self.compiled else self.step
        self.second = wrap(self.tangent) if self.way == "fwdrev" else wrap(self.func_product) if self.compiled else self.eager_product

    def loss(self, w, x, y):
        return cross_entropy(apply(self.learner, x, w, self.triad, self.way == "fwdrev", self.nhwc), y)

    def generator(self, phi, z):
        return apply(self.gen_nodes, z, phi, self.triad, nhwc=self.nhwc)

    # gradient of one step's loss
    def func_grad(self, w, x, y):
        return list(torch.func.grad(self.loss)(w, x, y))

    def eager_grad(self, w, x, y, create_graph=True):
        return torch.autograd.grad(self.loss(w, x, y), w, create_graph=create_graph)

    def step(self, w, v, x, y, lr, mu):
        g = self.func_grad(w, x, y) if self.compiled else self.eager_grad(w, x, y)
        v = [mu * a + b for a, b in zip(v, g)]
        return [a - lr * b for a, b in zip(w, v)], v

    def step_alone(self, w, v, x, y, lr, mu):
        """As `step`, nothing kept for a way back."""
        if self.compiled:
            g = self.func_grad(w, x, y)
        else:
            w = [a.detach().requires_grad_() for a in w]
            with torch.enable_grad():
                g = self.eager_grad(w, x, y, create_graph=False)
        with torch.no_grad():
            v = [torch.addcmul(b, a, mu) for a, b in zip(v, g)]
            return [torch.addcmul(a, b, lr, value=-1) for a, b in zip(w, v)], v

    # H u and d/dx <g, u> of one step
    def eager_product(self, w, x, y, u):
        w, x = [a.detach().requires_grad_() for a in w], x.detach().requires_grad_()
        with torch.enable_grad():
            r = torch.autograd.grad(self.eager_grad(w, x, y), w + [x], u)
        return r[:-1], r[-1]

    def func_product(self, w, x, y, u):
        def inner(w, x):
            return sum((a * b).sum() for a, b in zip(torch.func.grad(self.loss)(w, x, y), u))
        return torch.func.grad(inner, argnums=(0, 1))(w, x)

    def tangent(self, w, x, y, u):
        def both(w):
            return torch.func.grad(self.loss, argnums=(0, 1))(w, x, y)
        return torch.func.jvp(both, (list(w),), (list(u),))[1]

    # ---- what is timed
    def train(self, t):
        w, v = t["w0"], [torch.zeros_like(p) for p in t["w0"]]
        with torch.no_grad():
            for i in range(self.T):
                w, v = self.train_step(w, v, t["x"][i], t["y"][i], t["lr"][i], t["mu"][i])
        return w

    def step_input(self, t, i):
        return t["x"][i] if self.gen_nodes is None else self.generate(t["phi"], t["zy"][i])

    def outer(self, t):
        return self.outer_whole(t) if self.way == "whole" else self.outer_stepwise(t)

    def outer_whole(self, t):
        w0 = [p.detach().requires_grad_() for p in t["w0"]]
        lr, mu = t["lr"].detach().requires_grad_(), t["mu"].detach().requires_grad_()
        made = self.gen_nodes is not None
        top = [t["zy"] if made else t["x"]] + (t["phi"] if made else [])
        top = [p.detach().requires_grad_() for p in top]
        s = dict(t, x=top[0], zy=top[0], phi=top[1:])
        w, v = w0, [torch.zeros_like(p).requires_grad_() for p in w0]
        for i in range(self.T):
            w, v = self.graph_step(w, v, self.step_input(s, i), t["y"][i], lr[i], mu[i])
        J = self.loss(w, t["X"], t["Y"])
        g = torch.autograd.grad(J, [lr, mu] + top + w0)
        return J.item(), dict(lr=g[0], mu=g[1], top=g[2], phi=g[3:2 + len(top)], w0=g[2 + len(top):])

    def outer_stepwise(self, t):
        made = self.gen_nodes is not None
        ws, vs, xs = [t["w0"]], [[torch.zeros_like(p) for p in t["w0"]]], []
        with torch.no_grad():
            for i in range(self.T):
                xs.append(self.step_input(t, i))
                w, v = self.train_step(ws[i], vs[i], xs[i], t["y"][i], t["lr"][i], t["mu"][i])
                ws.append(w)
                vs.append(v)
        w = [p.detach().requires_grad_() for p in ws[-1]]
        J = self.loss(w, t["X"], t["Y"])
        a, b = torch.autograd.grad(J, w), vs[0]
        dlr, dmu, dtop, dphi = torch.zeros_like(t["lr"]), torch.zeros_like(t["mu"]), [None] * self.T, [torch.zeros_like(p) for p in t["phi"]] if made else []
        dot = lambda p, q: sum((c * d).sum() for c, d in zip(p, q))
        for i in reversed(range(self.T)):
            with torch.no_grad():
                u = [q - t["lr"][i] * p for p, q in zip(a, b)]
                dlr[i], dmu[i] = -dot(a, vs[i + 1]), dot(u, vs[i])
                b = [t["mu"][i] * p for p in u]
                hu, dx = self.second(ws[i], xs[i], t["y"][i], u)
                a = [p + q for p, q in zip(a, hu)]
            ws[i + 1] = vs[i + 1] = xs[i] = None
            dtop[i] = dx
            if made:
                leaf = [p.detach().requires_grad_() for p in [t["zy"][i]] + t["phi"]]
                g = torch.autograd.grad(self.generate(leaf[1:], leaf[0]), leaf, dx)
                dtop[i] = g[0]
                for p, q in zip(dphi, g[1:]):
                    p += q
        return J.item(), dict(lr=dlr, mu=dmu, top=torch.stack(dtop), phi=dphi, w0=a)


def tensors(w, d, classes, made):
    t = {k: torch.tensor(d[k]) for k in ("X", "lr", "mu")}
    for k in ("y", "Y"):
        t[k] = torch.tensor(d[k], dtype=None if d[k].dtype.kind == "f" else torch.long)
    t["w0"] = [torch.tensor(p) for p in d["w0"]]
    if made:
        t["phi"] = [torch.tensor(p) for p in d["phi"]]
        z = torch.tensor(d["z"])
        t["zy"] = torch.cat([z, F.one_hot(t["y"], classes).to(z.dtype)], -1)
    else:
        t["x"] = torch.tensor(d["x"])
    return t


def meta_gradients(w, d, variant):
    """For bench/peers/check.py: numpy in, numpy out."""
    made = "generator" in w
    p = Problem(w, variant)
    J, g = p.outer(tensors(w, d, w["classes"], made))
    g["z" if made else "x"] = g.pop("top")[..., :d["z"].shape[-1]] if made else g.pop("top")
    return J, {k: [a.numpy() for a in v] if isinstance(v, (list, tuple)) else v.numpy() for k, v in g.items()}


def candidates(path, threads, runs, variant, serve):
    nets = json.load(open(path))
    g = torch.Generator().manual_seed(1)
    T, B = nets["steps"], nets["batch"]
    x = torch.rand(T, B, *nets["image"], generator=g) * 2 - 1
    y = (torch.arange(T * B) % nets["classes"]).reshape(T, B)
    lr, mu = torch.full((T,), nets["lr"]), torch.full((T,), nets["mu"])
    r = W.np.random.default_rng(1)
    built = [(Problem(dict(learner=n["nodes"], T=T), variant), [torch.tensor(p) for p in W.init(n["nodes"], r)]) for n in nets["nets"]]

    def once():
        for p, w0 in built:
            last = p.train(dict(w0=w0, x=x, y=y, lr=lr, mu=mu))
        return last[0].flatten()[0].item()

    flop = sum(6.0 * n["macs"] - 2.0 * n["first_macs"] for n in nets["nets"]) * T * B
    about = dict(impl="torch", version=torch.__version__, w="candidates", what=f"{len(built)} x {T}", threads=threads, variant=variant, T=T)
    W.measure(once, about, flop, runs, serve)


def main():
    a = W.arguments("torch_gtn.py W1|W2|W3 inner|direct|outer THREADS RUNS [VARIANT] [T=n] [--serve] | candidates LIST.json …", VARIANTS)
    torch.set_num_threads(a["threads"])
    torch.set_flush_denormal(True)
    if a["w"] == "candidates":
        return candidates(a["what"], a["threads"], a["runs"], a["variant"], a["serve"])
    w = W.workload(a["w"], a["T"])
    made = a["what"] == "outer"
    t = tensors(w, W.data(w), W.CLASSES, made)
    p = Problem(w if made else {k: v for k, v in w.items() if k != "generator"}, a["variant"])

    def once():
        if a["what"] == "inner":
            return [p.train(t)[0].norm().item()]
        J, g = p.outer(t)
        return [J, g["top"].norm().item()]

    about = dict(impl="torch", version=torch.__version__, w=a["w"], what=a["what"], threads=a["threads"], variant=a["variant"], T=w["T"])
    W.measure(once, about, W.flops(w, a["what"]), a["runs"], a["serve"])


if __name__ == "__main__":
    main()
