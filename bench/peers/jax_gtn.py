#!/usr/bin/env python3
"""The outer step, inner training and candidates in JAX, one jit over everything: what bench/run.py and bench/peers/gpu.py compare the engine with.

    jax_gtn.py W1|W2|W3 inner|direct|outer THREADS RUNS [VARIANT] [T=n] [K=n] [device=cuda] [--serve]
    jax_gtn.py candidates LIST.json THREADS RUNS [VARIANT] [sample=n] [device=cuda] [--serve]      (workloads.candidates)

A variant is made of words joined by '-':
    rev      reverse over reverse: lax.scan over the steps, jax.checkpoint on each (default)
    keep     the same without checkpoint: every step's activations are kept
    fwdrev   forward over reverse: weights of every step kept, one tangent through each step's gradient on the way back
    lax      convolutions by lax.conv_general_dilated
    dots     convolutions as products of shifted images, depthwise ones as sums of shifted images
    mixed    lax, but depthwise convolutions as sums of shifted images
    vmap     with rev or keep: K learners, or a candidate's initialisations, side by side; the loss is their mean
Images are NHWC, weights HWIO. The number of threads is what `taskset` leaves: XLA has no other switch that holds. On a GPU products are
float32 (no TF32), and memory is taken as it is needed."""
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import workloads as W

VARIANTS = ["rev-lax", "rev-dots", "rev-mixed", "keep-lax", "keep-dots", "keep-mixed", "fwdrev-lax", "fwdrev-dots", "fwdrev-mixed",
            "rev-lax-vmap", "rev-mixed-vmap", "keep-lax-vmap"]


# ---------------------------------------------------------------- networks: NHWC, HWIO
def slices(x, n, low=0.0):
    """The k*k strided, shifted copies of a padded image that a window looks at."""
    k, s, p, d = n["k"], n["stride"], n["pad"], n.get("dilation", 1)
    x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=low) if p else x
    h, w = ((x.shape[i] - d * (k - 1) - 1) // s + 1 for i in (1, 2))
    return [x[:, i * d:i * d + (h - 1) * s + 1:s, j * d:j * d + (w - 1) * s + 1:s, :] for i in range(k) for j in range(k)]


def conv(x, w, n, how):
    groups, k = n["groups"], n["k"]
    if how != "lax" and groups == x.shape[3] == w.shape[3] and groups > 1:
        return sum(s * w[i // k, i % k, 0] for i, s in enumerate(slices(x, n)))
    # Not for one channel: whether as a product or as a sum of shifted images, XLA (0.10.2) gets the gradient by those images wrong
    # in a scan (its algebraic simplifier; right without that pass), which check.py shows on the case d_generator.
    if how == "dots" and groups == 1 and x.shape[3] > 1:
        return jnp.concatenate(slices(x, n), 3) @ w.reshape(-1, w.shape[3])
    return lax.conv_general_dilated(x, w, (n["stride"],) * 2, [(n["pad"],) * 2] * 2, rhs_dilation=(n["dilation"],) * 2,
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)


def weight(n, it):
    v = next(it)
    return next(it) * v / jnp.sqrt((v * v).sum(tuple(range(v.ndim - 1)))) if n.get("wn") else v


def batch_norm(n, x, it):
    dims = tuple(range(x.ndim - 1))
    d = x - x.mean(dims)
    if n["mean_only"]:
        return d + next(it)
    return d * lax.rsqrt((d * d).mean(dims) + n["eps"]) * next(it) + next(it)


def pool(n, x):
    k, s, p = n["k"], n["stride"], n["pad"]
    b, h, w, c = x.shape
    top = n["op"] == "maxpool"
    if k == s and not p and h % k == 0 and w % k == 0:
        x = x.reshape(b, h // k, k, w // k, k, c)
        return x.max((2, 4)) if top else x.mean((2, 4))
    window = ((1, k, k, 1), (1, s, s, 1), ((0, 0), (p, p), (p, p), (0, 0)))
    if top:
        return lax.reduce_window(x, -jnp.inf, lax.max, *window)
    return lax.reduce_window(x, 0.0, lax.add, *window) / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *window)


def apply(nodes, x, params, how):
    it, out = iter(params), [x]
    for n in nodes[1:]:
        op, x = n["op"], out[n["src"][0]]
        if op == "conv":
            x = conv(x, weight(n, it), n, how)
            x = x + next(it) if n["bias"] else x
        elif op == "linear":
            x = x.reshape(x.shape[0], -1) @ weight(n, it)
            x = x + next(it) if n["bias"] else x
        elif op == "bn":
            x = batch_norm(n, x, it)
        elif op == "lrelu":
            x = jnp.where(x > 0, x, n["slope"] * x) if n["slope"] else jnp.where(x > 0, x, 0)
        elif op == "tanh":
            x = jnp.tanh(x)
        elif op in ("maxpool", "avgpool"):
            x = pool(n, x)
        elif op == "gap":
            x = x.mean((1, 2))
        elif op == "flatten":  # in the outside order, so that the weights mean the same
            x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        elif op == "reshape":
            c, h, w = n["shape"]
            x = x.reshape(-1, c, h, w).transpose(0, 2, 3, 1)
        elif op == "up2":
            b, h, w, c = x.shape
            x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
        elif op == "reflectpad":
            p = n["pad"]
            x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")
        elif op == "add":
            x = out[n["src"][0]] + out[n["src"][1]]
        elif op == "concat":
            x = jnp.concatenate([out[i] for i in n["src"]], 3)
        else:
            raise ValueError(op)
        out.append(x)
    return out[-1]


# Outside order [out, in, k, k] and [out, in] to HWIO and [in, out], and back.
def inward(p):
    return p.transpose(2, 3, 1, 0) if p.ndim == 4 else p.T


def outward(p):
    return p.transpose(3, 2, 0, 1) if p.ndim == 4 else p.T


# ---------------------------------------------------------------- one variant
class Problem:
    def __init__(self, w, variant):
        words = variant.split("-")
        self.way, self.how, self.many = words[0], words[1] if len(words) > 1 else "lax", "vmap" in words
        self.learner, self.gen_nodes, self.T = w["learner"], w.get("generator"), w["T"]

    def loss(self, w, x, y):
        """y: probabilities."""
        return -(y * jax.nn.log_softmax(apply(self.learner, x, w, self.how))).sum(1).mean()

    def each(self, f):
        """f(w, x, y) for every learner's w."""
        return jax.vmap(f, (0, None, None)) if self.many else f

    def image(self, phi, top):
        return top if self.gen_nodes is None else apply(self.gen_nodes, top, phi, self.how)

    def step(self, w, v, x, y, lr, mu):
        g = self.each(jax.grad(self.loss))(w, x, y)
        v = [mu * a + b for a, b in zip(v, g)]
        return [a - lr * b for a, b in zip(w, v)], v

    def train(self, w0, x, y, lr, mu):
        def body(s, t):
            return self.step(*s, *t), None
        return lax.scan(body, (w0, [jnp.zeros_like(p) for p in w0]), (x, y, lr, mu))[0][0]

    def outer(self, w0, phi, top, y, lr, mu, X, Y):
        """J and its gradients by (w0, phi, top, lr, mu); top [T, ...]: images, or the generator's input."""
        if self.way == "fwdrev":
            return self.outer_fwdrev(w0, phi, top, y, lr, mu, X, Y)

        def J(w0, phi, top, lr, mu):
            def body(s, t):
                top, y, lr, mu = t
                return self.step(*s, self.image(phi, top), y, lr, mu), None
            if self.way == "rev":
                body = jax.checkpoint(body)
            (w, _), _ = lax.scan(body, (w0, [jnp.zeros_like(p) for p in w0]), (top, y, lr, mu))
            return self.each(self.loss)(w, X, Y).mean()
        return jax.value_and_grad(J, argnums=(0, 1, 2, 3, 4))(w0, phi, top, lr, mu)

    def outer_fwdrev(self, w0, phi, top, y, lr, mu, X, Y):
        zeros = [jnp.zeros_like(p) for p in w0]

        def ahead(s, t):
            top, y, lr, mu = t
            s2 = self.step(*s, self.image(phi, top), y, lr, mu)
            return s2, (s, s2[1])
        (wT, _), (before, v2s) = lax.scan(ahead, (w0, zeros), (top, y, lr, mu))
        J, a = jax.value_and_grad(self.loss)(wT, X, Y)
        dot = lambda p, q: sum((c * d).sum() for c, d in zip(p, q))

        def back(s, t):
            a, b, dphi = s
            (w, v), v2, top, y, lr, mu = t
            u = [q - lr * p for p, q in zip(a, b)]
            out = -dot(a, v2), dot(u, v)
            b = [mu * p for p in u]
            if self.gen_nodes is None:
                x, pull = top, None
            else:
                x, pull = jax.vjp(self.image, phi, top)
            hu, dx = jax.jvp(lambda w: jax.grad(self.loss, argnums=(0, 1))(w, x, y), (w,), (u,))[1]
            if pull:
                g, dx = pull(dx)
                dphi = [p + q for p, q in zip(dphi, g)]
            return ([p + q for p, q in zip(a, hu)], b, dphi), (dx, *out)
        (a, _, dphi), (dtop, dlr, dmu) = lax.scan(back, (a, zeros, [jnp.zeros_like(p) for p in phi]), (before, v2s, top, y, lr, mu), reverse=True)
        return J, (a, dphi, dtop, dlr, dmu)


def one_hot(y, classes, dtype):
    return y if y.dtype.kind == "f" else np.eye(classes, dtype=dtype)[y]


def first_weights(w0, many):
    return [np.stack([inward(q) for q in p]) if many else inward(p) for p in w0]


class Cuda:
    """What workloads.measure asks a GPU. The process's peak has the trials of the compiler in it, so the memory is what the compiled outer step says of
    itself: arguments, results and all between them. Unknown where it says nothing, or where several were compiled."""

    def __init__(self):
        jax.config.update("jax_platforms", "cuda")
        jax.config.update("jax_default_matmul_precision", "highest")
        self.device = jax.devices()[0]
        self.name, self.compiled = self.device.device_kind, lambda: None

    def warm(self):
        pass

    def mib(self):
        try:
            return program_mib(self.compiled())
        except (AttributeError, NotImplementedError, RuntimeError):  # the times count all the same
            return None


def program_mib(program):
    m = program.memory_analysis() if program else None
    return round((m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes) / 2**20) if m else None


def on_device(a):
    allowed = sorted(os.sched_getaffinity(0))
    if a["device"] == "cuda":
        return Cuda()
    if a["threads"] < len(allowed):
        os.sched_setaffinity(0, allowed[-a["threads"]:])
    return None


def arrays(d, classes, made, many=False):
    """numpy data to the arguments of Problem.outer."""
    dtype = d["X"].dtype
    y, Y = one_hot(d["y"], classes, dtype), one_hot(d["Y"], classes, dtype)
    images = lambda x: np.moveaxis(x, -3, -1)
    top = np.concatenate([d["z"], y], -1) if made else images(d["x"])
    phi = [inward(p) for p in d["phi"]] if made else []
    return jax.device_put(jax.tree.map(jnp.asarray, (first_weights(d["w0"], many), phi, top, y, d["lr"], d["mu"], images(d["X"]), Y)))


def meta_gradients(w, d, variant):
    """For bench/peers/check.py: numpy in, numpy out. Side by side: twice the same learner, whose mean has its gradients."""
    jax.config.update("jax_enable_x64", True)
    made, p = "generator" in w, Problem(w, variant)
    d = dict(d, w0=W.stacked([d["w0"]] * 2)) if p.many else d
    J, (w0, phi, top, lr, mu) = jax.jit(p.outer)(*arrays(d, w["classes"], made, p.many))
    w0 = [q.sum(0) for q in w0] if p.many else w0
    g = dict(w0=[outward(np.asarray(p)) for p in w0], lr=lr, mu=mu)
    if made:
        g.update(phi=[outward(np.asarray(p)) for p in phi], z=top[..., :d["z"].shape[-1]])
    else:
        g["x"] = np.moveaxis(np.asarray(top), -1, -3)
    return float(J), g


def candidates(a):
    c, device = W.candidates(a["what"], a["sample"]), on_device(a)
    many = "vmap" in a["variant"].split("-")
    y = one_hot(c["y"], c["classes"], np.float32)
    x, y, lr, mu = jax.device_put((np.moveaxis(c["x"], -3, -1), y, c["lr"], c["mu"]))
    trained = []
    for net in c["nets"]:
        f = jax.jit(Problem(dict(learner=net["nodes"], T=c["steps"]), a["variant"]).train)
        for w0 in [net["w0"]] if many else [[q[k] for q in net["w0"]] for k in range(c["inits"])]:
            trained.append((f, jax.device_put(first_weights(w0, many))))

    def once():
        return jax.block_until_ready([f(w0, x, y, lr, mu)[0] for f, w0 in trained])

    def moved(f, w0):
        axes = lambda p: tuple(range(1 if many else 0, p.ndim))
        return np.sqrt(sum(np.sum((np.asarray(p) - np.asarray(q)) ** 2, axes(p)) for p, q in zip(f(w0, x, y, lr, mu), w0))).sum()

    def first():
        return [float(sum(moved(*each) for each in trained)) / (len(c["nets"]) * c["inits"])]

    about = dict(impl="jax", version=jax.__version__, threads=a["threads"], variant=a["variant"], **c["about"])
    W.measure(once, about, c["flop"], a["runs"], a["serve"], device, first)


def main():
    a = W.arguments("jax_gtn.py W1|W2|W3 inner|direct|outer THREADS RUNS [VARIANT] [T=n] [K=n, with vmap] [device=cuda] [--serve] | candidates LIST.json …", VARIANTS)
    if a["w"] == "candidates":
        return candidates(a)
    device, w = on_device(a), W.workload(a["w"], a["T"])
    made = a["what"] == "outer"
    p = Problem(w if made else {k: v for k, v in w.items() if k != "generator"}, a["variant"])
    args = arrays(W.data(w, a["K"]), W.CLASSES, made, p.many)
    if a["what"] == "inner":
        w0, _, x, y, lr, mu, _, _ = args
        f = jax.jit(p.train)
        once = lambda: [float(jnp.linalg.norm(f(w0, x, y, lr, mu)[0]))]
    else:
        f = jax.jit(p.outer)
        if device:
            device.compiled = lambda: f.lower(*args).compile()  # the one that ran: nothing is compiled again

        def once():
            J, g = jax.block_until_ready(f(*args))
            return [float(J), float(jnp.linalg.norm(g[2]))]
    about = dict(impl="jax", version=jax.__version__, w=a["w"], what=a["what"], threads=a["threads"], variant=a["variant"], T=w["T"], K=a["K"] or 1)
    W.measure(once, about, W.flops(w, a["what"], a["K"] or 1), a["runs"], a["serve"], device)


if __name__ == "__main__":
    main()
