#!/usr/bin/env python3
"""The outer step, inner training and candidates in PyTorch: what bench/run.py and bench/peers/gpu.py compare the engine with.

    torch_gtn.py W1|W2|W3 inner|direct|outer THREADS RUNS [VARIANT] [T=n] [K=n] [device=cuda] [--serve]
    torch_gtn.py candidates LIST.json THREADS RUNS [VARIANT] [sample=n] [device=cuda] [--serve]      (workloads.candidates)

A variant is made of words joined by '-':
    plain    torch's own double backward through the whole unroll (default)
    triad    the same, with the convolution's double backward written with its first-order kernels
    ckpt     the unroll without a graph; each step's graph is built again on the way back: memory of one step
    fwdrev   the same with a forward-mode tangent through each step's gradient (PyTorch 2)
    compile  steps by torch.compile, alone (the compiled step is differentiated) or with ckpt or fwdrev (PyTorch 2)
    nhwc     images in channels-last order
    vmap     K learners, or a candidate's initialisations, side by side; the loss is their mean (PyTorch 2)
    graph    all of it recorded once as a CUDA graph and played (device=cuda)
On a GPU float32 products are float32 (no TF32), and cuDNN tries its algorithms while it warms up. Set OMP_NUM_THREADS to THREADS too.
Runs with PyTorch 1.13 (plain, triad, ckpt, nhwc) and 2."""
import functools
import sys

import torch
import torch.nn.functional as F

import workloads as W

VARIANTS = ["plain", "plain-nhwc", "triad", "triad-nhwc", "ckpt", "ckpt-nhwc", "ckpt-triad", "ckpt-triad-nhwc", "fwdrev", "fwdrev-nhwc",
            "compile", "compile-ckpt", "compile-fwdrev", "compile-nhwc", "nhwc", "vmap", "vmap-ckpt", "compile-vmap"]
GRAPHS = ["graph", "graph-triad", "graph-ckpt", "graph-ckpt-triad", "graph-fwdrev", "graph-vmap"]
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
    """`primitive`: batch norm from elementary operations, whose derivatives of every kind exist."""
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
        self.triad, self.compiled, self.nhwc, self.many = "triad" in words, "compile" in words, "nhwc" in words, "vmap" in words
        self.way = "fwdrev" if "fwdrev" in words else "ckpt" if "ckpt" in words else "whole"
        self.primitive = self.way == "fwdrev"
        self.learner, self.gen_nodes, self.T = w["learner"], w.get("generator"), w["T"]
        wrap = torch.compile if self.compiled else lambda f: f
        self.generate = wrap(self.generator)
        self.grad = wrap(self.func_grad) if self.compiled else self.eager_grad
        self.train_step = wrap(self.step_alone)
        self.graph_step = wrap(self.step) if self.compiled else self.step
        self.second = wrap(self.tangent) if self.way == "fwdrev" else wrap(self.func_product) if self.compiled else self.eager_product

    def loss(self, w, x, y):
        return cross_entropy(apply(self.learner, x, w, self.triad, self.primitive, self.nhwc), y)

    def generator(self, phi, z):
        return apply(self.gen_nodes, z, phi, self.triad, nhwc=self.nhwc)

    def each(self, f):
        """f(w, x, y) for every learner's w."""
        return torch.func.vmap(f, in_dims=(0, None, None)) if self.many else f

    def mean_loss(self, w, x, y):
        return self.each(self.loss)(w, x, y).mean()

    # gradient of one step's loss
    def func_grad(self, w, x, y):
        return list(self.each(torch.func.grad(self.loss))(w, x, y))

    def eager_grad(self, w, x, y, create_graph=True):
        if self.many:
            return self.func_grad(w, x, y)
        return torch.autograd.grad(self.loss(w, x, y), w, create_graph=create_graph)

    def step(self, w, v, x, y, lr, mu):
        g = self.func_grad(w, x, y) if self.compiled else self.eager_grad(w, x, y)
        v = [mu * a + b for a, b in zip(v, g)]
        return [a - lr * b for a, b in zip(w, v)], v

    def step_alone(self, w, v, x, y, lr, mu):
        """As `step`, nothing kept for a way back."""
        if self.compiled or self.many:
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
            return sum((a * b).sum() for a, b in zip(self.func_grad(w, x, y), u))
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
        self.primitive |= self.many  # F.batch_norm's second derivatives under vmap are wrong (2.15), as check.py shows; the first are right
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
        J = self.mean_loss(w, t["X"], t["Y"])
        g = torch.autograd.grad(J, [lr, mu] + top + w0)
        return J.detach(), dict(lr=g[0], mu=g[1], top=g[2], phi=g[3:2 + len(top)], w0=g[2 + len(top):])

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
        J = self.mean_loss(w, t["X"], t["Y"])
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
        return J.detach(), dict(lr=dlr, mu=dmu, top=torch.stack(dtop), phi=dphi, w0=a)


class Cuda:
    """What workloads.measure asks a GPU."""

    def __init__(self):
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self.name, self.recorded, self.pool = torch.cuda.get_device_name(), False, None

    def warm(self):
        if not self.recorded:  # whose memory was taken while it recorded
            torch.cuda.reset_peak_memory_stats()

    def mib(self):
        return round(torch.cuda.max_memory_allocated() / 2**20)

    def record(self, f):
        """f, whose tensors keep their places, as something that plays it: the same answer, again."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                f()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        if not self.recorded:
            self.recorded, self.pool = True, torch.cuda.graph_pool_handle()
            torch.cuda.reset_peak_memory_stats()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            answer = f()

        def play():
            graph.replay()
            return answer
        return play


def on_device(a):
    torch.set_num_threads(a["threads"])
    torch.set_flush_denormal(True)
    return Cuda() if a["device"] == "cuda" else None


def played(f, device, variant):
    return device.record(f) if "graph" in variant.split("-") else f


def tensors(w, d, classes, made, device="cpu"):
    tensor = functools.partial(torch.tensor, device=device)
    t = {k: tensor(d[k]) for k in ("X", "lr", "mu")}
    for k in ("y", "Y"):
        t[k] = tensor(d[k], dtype=None if d[k].dtype.kind == "f" else torch.long)
    t["w0"] = [tensor(p) for p in d["w0"]]
    if made:
        t["phi"] = [tensor(p) for p in d["phi"]]
        z = tensor(d["z"])
        t["zy"] = torch.cat([z, F.one_hot(t["y"], classes).to(z.dtype)], -1)
    else:
        t["x"] = tensor(d["x"])
    return t


def meta_gradients(w, d, variant):
    """For bench/peers/check.py: numpy in, numpy out. Side by side: twice the same learner, whose mean has its gradients."""
    made = "generator" in w
    p = Problem(w, variant)
    d = dict(d, w0=W.stacked([d["w0"]] * 2)) if p.many else d
    J, g = p.outer(tensors(w, d, w["classes"], made))
    g["z" if made else "x"] = g.pop("top")[..., :d["z"].shape[-1]] if made else g.pop("top")
    g["w0"] = [a.sum(0) for a in g["w0"]] if p.many else g["w0"]
    return J.item(), {k: [a.numpy() for a in v] if isinstance(v, (list, tuple)) else v.numpy() for k, v in g.items()}


def candidates(a):
    variant = a["variant"]
    c, device = W.candidates(a["what"], a["sample"]), on_device(a)
    t = {k: torch.tensor(c[k], device=a["device"]) for k in ("x", "y", "lr", "mu")}
    if "compile" in variant:  # a compilation for every network, and none forgotten
        for limit in ("cache_size_limit", "recompile_limit", "accumulated_cache_size_limit", "accumulated_recompile_limit"):
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, 1 << 20)
    trained = []

    def build():
        for net in c["nets"]:
            p = Problem(dict(learner=net["nodes"], T=c["steps"]), variant)
            w0 = [torch.tensor(q, device=a["device"]) for q in net["w0"]]
            for start in [w0] if p.many else [[q[k] for q in w0] for k in range(c["inits"])]:
                trained.append((p.many, start, played(functools.partial(p.train, dict(t, w0=start)), device, variant)))

    def once():
        for _, _, train in trained:
            last = train()
        return last[0].flatten()[0].item()

    def moved(many, w0, train):
        square = sum(((p - q) ** 2).flatten(1 if many else 0).sum(-1) for p, q in zip(train(), w0))
        return square.sqrt().sum().item()

    def first():
        build()
        return [sum(moved(*each) for each in trained) / (len(c["nets"]) * c["inits"])]

    about = dict(impl="torch", version=torch.__version__, threads=a["threads"], variant=variant, **c["about"])
    W.measure(once, about, c["flop"], a["runs"], a["serve"], device, first)


def main():
    a = W.arguments("torch_gtn.py W1|W2|W3 inner|direct|outer THREADS RUNS [VARIANT] [T=n] [K=n, with vmap] [device=cuda] [--serve] | candidates LIST.json …",
                    VARIANTS + GRAPHS)
    if a["w"] == "candidates":
        return candidates(a)
    device, w = on_device(a), W.workload(a["w"], a["T"])
    made = a["what"] == "outer"
    t = tensors(w, W.data(w, a["K"]), W.CLASSES, made, a["device"])
    p = Problem(w if made else {k: v for k, v in w.items() if k != "generator"}, a["variant"])
    about = dict(impl="torch", version=torch.__version__, w=a["w"], what=a["what"], threads=a["threads"], variant=a["variant"], T=w["T"], K=a["K"] or 1)
    run = None

    def once():
        nonlocal run
        run = run or played(functools.partial(p.train if a["what"] == "inner" else p.outer, t), device, a["variant"])
        if a["what"] == "inner":
            return [run()[0].norm().item()]
        J, g = run()
        return [J.item(), g["top"].norm().item()]

    W.measure(once, about, W.flops(w, a["what"], a["K"] or 1), a["runs"], a["serve"], device)


if __name__ == "__main__":
    main()
