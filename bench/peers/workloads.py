"""The standard workloads W1, W2, W3 for the peers of bench/engine.c: networks as graphs, random inputs, model FLOPs,
and the clock. Nothing here but the standard library and numpy, so that every framework can use it.

A network is a list of nodes in evaluation order; node 0 is the input. A node is a dict: op, src (its inputs' numbers),
its attributes, params [(name, shape, fan_in)] in order, shape (c, h, w) of its output and macs per image. `graph` makes
one from a layer list (docs/networks.md); bench/candidates.c prints the same form for nets of a search space.

One outer step:  g_t = grad CE(learner(x_t; w_t), y_t),  v' = mu_t v + g_t,  w' = w - lr_t v',  J = CE(learner(X; w_T), Y)
and dJ/d(phi, z or x, lr, mu). Batch norm uses the batch's own statistics everywhere."""
import json
import math
import os
import resource
import struct
import sys
import time

import numpy as np

CLASSES, ZDIM, META = 10, 64, 512


# ---------------------------------------------------------------- networks
class Graph:
    def __init__(self, shape):
        self.nodes = [dict(op="input", src=[], params=[], shape=tuple(shape), macs=0)]

    def shape(self, i):
        return self.nodes[i]["shape"]

    def add(self, op, src, shape, params=(), macs=0, **attributes):
        self.nodes.append(dict(op=op, src=list(src), shape=tuple(shape), params=list(params), macs=macs, **attributes))
        return len(self.nodes) - 1

    def conv(self, x, out, k, path, stride=1, pad=0, dilation=1, groups=1, bias=0, wn=0, name="weight"):
        c, h, w = self.shape(x)
        h, w = ((d + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for d in (h, w))
        params = weights(f"{path}.{name}", (out, c // groups, k, k), c // groups * k * k, wn)
        params += [(path + ".bias", (out,), 0)] if bias else []
        return self.add("conv", [x], (out, h, w), params, out * (c // groups) * k * k * h * w,
                        k=k, stride=stride, pad=pad, dilation=dilation, groups=groups, bias=bias, wn=wn)

    def layer(self, x, l, path):
        """Append one layer; returns its output node."""
        kind, (c, h, w) = l["type"], self.shape(x)
        geometry = {a: l[a] for a in ("stride", "pad", "dilation") if a in l}
        if kind == "conv":
            return self.conv(x, l["out"], l["k"], path, groups=l.get("groups", 1), bias=l.get("bias", 0), wn=l.get("wn", 0), **geometry)
        if kind == "dwconv":
            return self.conv(x, c, l["k"], path, groups=c, **geometry)
        if kind == "sepconv":
            return self.conv(self.conv(x, c, l["k"], path, groups=c, name="dw", **geometry), l["out"], 1, path, name="pw")
        if kind == "linear":
            params = weights(path + ".weight", (l["out"], c), c, l.get("wn", 0))
            params += [(path + ".bias", (l["out"],), 0)] if l.get("bias", 1) else []
            return self.add("linear", [x], (l["out"], 1, 1), params, c * l["out"], bias=l.get("bias", 1), wn=l.get("wn", 0))
        if kind == "bn":
            mean_only = l.get("mean_only", 0)
            params = ([] if mean_only else [(path + ".weight", (c,), -1)]) + [(path + ".bias", (c,), 0)]
            return self.add("bn", [x], (c, h, w), params, eps=l.get("eps", 1e-5), mean_only=mean_only)
        if kind in ("relu", "lrelu"):
            return self.add("lrelu", [x], (c, h, w), slope=l.get("slope", 0.01) if kind == "lrelu" else 0.0)
        if kind in ("maxpool", "avgpool"):
            k, pad = l["k"], l.get("pad", 0)
            stride = l.get("stride", k)
            return self.add(kind, [x], (c, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1), k=k, stride=stride, pad=pad)
        if kind == "residual":
            return self.add("add", [self.chain(x, l["body"], path + ".body."), self.chain(x, l.get("shortcut", []), path + ".shortcut.")],
                            self.shape(len(self.nodes) - 1 if l.get("shortcut") else x))
        if kind == "concat":
            ends = [self.chain(x, b, f"{path}.{j}.") for j, b in enumerate(l["branches"])]
            return self.add("concat", ends, (sum(self.shape(e)[0] for e in ends), *self.shape(ends[0])[1:]))
        pad = l.get("pad", 0)
        shape = {"tanh": (c, h, w), "gap": (c, 1, 1), "flatten": (c * h * w, 1, 1), "reshape": tuple(l.get("shape", ())),
                 "up2": (c, 2 * h, 2 * w), "reflectpad": (c, h + 2 * pad, w + 2 * pad)}[kind]
        return self.add(kind, [x], shape, pad=pad)

    def chain(self, x, layers, prefix=""):
        for i, l in enumerate(layers):
            x = self.layer(x, l, f"{prefix}{i}")
        return x


def weights(name, shape, fan, wn):
    return [(name + "_v", shape, fan), (name + "_g", shape[:1], -1)] if wn else [(name, shape, fan)]


def graph(layers, shape):
    g = Graph(shape)
    g.chain(0, layers)
    return g.nodes


def params_of(nodes):
    return [p for n in nodes for p in n["params"]]


def macs(nodes):
    """Multiply-adds of one image, and those of the layers that read the input."""
    return sum(n["macs"] for n in nodes), sum(n["macs"] for n in nodes if 0 in n["src"])


def flops(w, what, K=1):
    """Model FLOPs of one run of K learners: 2 a multiply-add, products only, nothing recomputed counted. A layer of forward cost F costs
    3 F a training step, 6 F in the second-order way back, 3 F in the meta-batch; a layer that reads the input F, 2 F, F less."""
    total, first = macs(w["learner"])
    n = 2.0 * w["T"] * w["B"]
    f = n * (3 * total - first)
    if what != "inner":
        f += n * (6 * total - 2 * first) + 2.0 * META * (3 * total - first)
    if what == "outer":
        return K * f + n * 3 * macs(w["generator"])[0]
    return K * f


# ---------------------------------------------------------------- the three workloads
def conv(o, k=3, **more):
    return dict(type="conv", out=o, k=k, **{"pad": k // 2, **more})


BN, RELU, POOL = dict(type="bn"), dict(type="relu"), dict(type="maxpool", k=2)


def plain_net(a, b):
    return [conv(a), BN, RELU, POOL, conv(b), BN, RELU, POOL, dict(type="flatten"), dict(type="linear", out=CLASSES)]


def sep(o, stride=1):
    return [RELU, dict(type="sepconv", out=o, k=3, stride=stride, pad=1), BN]


def cell(c):
    return dict(type="residual", body=sep(c) + sep(c))


def reduction(c):
    return dict(type="residual", body=sep(c, 2), shortcut=[conv(c, 1, stride=2, pad=0), BN])


def generator(c, h, w):
    act, q = dict(type="lrelu", slope=0.1), (h // 4) * (w // 4)
    return [dict(type="linear", out=512), act, dict(type="linear", out=128 * q), dict(type="reshape", shape=[128, h // 4, w // 4]), BN, act,
            dict(type="up2"), conv(64), BN, act, dict(type="up2"), conv(c, bias=1), dict(type="tanh")]


SEPARABLE = [conv(16), BN, cell(16), reduction(32), cell(32), reduction(64), cell(64), RELU, dict(type="gap"), dict(type="linear", out=CLASSES)]
SIZES = {  # image, T, B, lr, learner
    "W1": ((1, 28, 28), 32, 128, 0.02, plain_net(16, 32)),
    "W2": ((1, 28, 28), 32, 128, 0.002, plain_net(64, 128)),
    "W3": ((3, 32, 32), 16, 64, 0.05, SEPARABLE),
}


def workload(name, T=None):
    image, steps, B, lr, layers = SIZES[name]
    return dict(name=name, image=image, T=T or steps, B=B, lr=lr, mu=0.9, learner=graph(layers, image),
                generator=graph(generator(*image), (ZDIM + CLASSES, 1, 1)))


def init(nodes, r):
    return [(r.uniform(-1, 1, shape) * math.sqrt(3 / fan) if fan > 0 else np.full(shape, 1.0 if fan else 0.0)).astype(np.float32)
            for _, shape, fan in params_of(nodes)]


def stacked(inits):
    """[K] lists of parameters -> one list of [K, ...]."""
    return [np.stack(p) for p in zip(*inits)]


def data(w, K=None):
    """K: so many learners side by side, w0 [K, ...]."""
    r, T, B = np.random.default_rng(1), w["T"], w["B"]
    y = np.arange(T * B).reshape(T, B) % CLASSES
    w0 = init(w["learner"], r) if K is None else stacked([init(w["learner"], r) for _ in range(K)])
    return dict(w0=w0, phi=init(w["generator"], r), y=y, Y=np.arange(META) % CLASSES,
                z=r.standard_normal((T, B, ZDIM)).astype(np.float32), x=r.uniform(-1, 1, (T, B, *w["image"])).astype(np.float32),
                X=r.uniform(-1, 1, (META, *w["image"])).astype(np.float32),
                lr=np.full(T, w["lr"], np.float32), mu=np.full(T, w["mu"], np.float32))


# ---------------------------------------------------------------- candidates
def candidates(path, sample=None):
    """What build/bench/candidates --list wrote, as a dict: nets, each with w0 [inits, ...] in order of its parameters, the images x, labels y,
    lr and mu of the T steps, and flop of all. Numbers are those of its data=FILE where that lies beside it with the ending .f32, else
    random. `sample`: so many networks alone, the middle one of each of as many parts of the list, ordered by multiply-adds."""
    c = json.load(open(path))
    nets, T, B, r = c["nets"], c["steps"], c["batch"], np.random.default_rng(1)
    raw = path[:-len(".json")] + ".f32"
    numbers = np.fromfile(raw, "<f4") if path.endswith(".json") and os.path.exists(raw) else None
    n = T * B * math.prod(c["image"])
    c["x"] = (r.uniform(-1, 1, n).astype(np.float32) if numbers is None else numbers[:n]).reshape(T, B, *c["image"])
    for net in nets:
        sets = []
        for _ in range(c["inits"]):
            if numbers is None:
                sets.append(init(net["nodes"], r))
                continue
            sets.append([])
            for _, shape, _ in params_of(net["nodes"]):
                size = math.prod(shape)
                sets[-1].append(numbers[n:n + size].reshape(shape))
                n += size
        net["w0"] = stacked(sets)
    c["of"] = len(nets)
    if sample and sample < len(nets):
        order = sorted(nets, key=lambda net: net["macs"])
        c["nets"] = nets = [order[(2 * i + 1) * len(order) // (2 * sample)] for i in range(sample)]
    c["y"] = (np.arange(T * B) % c["classes"]).reshape(T, B)
    c["lr"], c["mu"] = np.full(T, c["lr"], np.float32), np.full(T, c["mu"], np.float32)
    c["flop"] = sum(6.0 * net["macs"] - 2.0 * net["first_macs"] for net in nets) * c["inits"] * T * B
    c["about"] = dict(w="candidates", what=f"{len(nets) * c['inits']} x {T}", inits=c["inits"], T=T, nets=len(nets), of=c["of"])
    return c


# ---------------------------------------------------------------- oracle cases (tests/oracle/README.md)
def load_case(path):
    """The case as a workload, and its float64 tensors by name."""
    case = json.load(open(path))
    raw = open(path[:-5] + ".f64.safetensors", "rb").read()
    n, = struct.unpack_from("<Q", raw)
    head = json.loads(raw[8:8 + n])
    kinds = dict(F64="<f8", F32="<f4", I64="<i8", I32="<i4")
    tensors = {k: np.frombuffer(raw[8 + n + e["data_offsets"][0]:8 + n + e["data_offsets"][1]], kinds[e["dtype"]]).reshape(e["shape"])
               for k, e in head.items() if k != "__metadata__"}
    image = tuple(case["image"])
    w = dict(name=case["case"], mode=case["mode"], image=image, T=case["T"], B=case["batch"], classes=case["classes"], learner=graph(case["learner"], image))
    if case["mode"] == "generator":
        w["generator"] = graph(case["generator"], (case["zdim"] + case["classes"], 1, 1))
    w["early"] = case.get("meta_at")
    return w, tensors


# ---------------------------------------------------------------- the clock
def rss_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def no_memory(why):
    return isinstance(why, MemoryError) or any(s in str(why) for s in ("out of memory", "Out of memory", "RESOURCE_EXHAUSTED", "can't allocate memory"))


def measure(once, about, flop, runs, serve, device=None, first=None):
    """`once` returns the numbers by which bench/run.py sees that all compute the same: |w_T| of the first layer, or J and |dJ/dx| or
    |dJ/dz|. One warm-up, then `runs` timed calls and one JSON line. With `serve` a timed call for every line on stdin instead, each
    answered by its seconds, so that bench/run.py can alternate processes; the JSON line comes at the end of stdin. `first`: what is called to
    warm up instead. `device`: of a GPU, with warm(), called after the warm-up, and mib(), its peak memory since then. Where memory is short
    the line says so, and the status is 75."""
    try:
        timed_runs(once, about, flop, runs, serve, device, first or once)
    except Exception as why:
        if not no_memory(why):
            raise
        print(json.dumps(dict(about, error="out of memory")), flush=True)
        sys.exit(75)


def timed_runs(once, about, flop, runs, serve, device, first):
    before = rss_mib()
    t0 = time.perf_counter()
    value = first()
    warm, seconds = time.perf_counter() - t0, []
    if device:
        device.warm()

    def timed():
        t = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - t)

    if serve:
        print("ready", flush=True)
        for _ in sys.stdin:
            timed()
            print(f"{seconds[-1]:.6f}", flush=True)
    else:
        for _ in range(runs):
            timed()
    s = sorted(seconds) or [float("nan")]
    median = s[len(s) // 2]
    about = dict(about, device=device.name, device_mib=device.mib()) if device else about
    print(json.dumps(dict(about, runs=len(seconds), median_s=round(median, 5), min_s=round(s[0], 5), max_s=round(s[-1], 5), first_s=round(warm, 2),
                          gflop=round(flop / 1e9, 2), gflops=round(flop / 1e9 / median, 2), value=value,
                          rss_before_mib=round(before), peak_rss_mib=round(rss_mib()))), flush=True)


def arguments(usage, variants):
    """W what THREADS RUNS [variant] [T=n] [K=n] [device=cuda] [sample=n] [--serve] -> dict; exits 64 with `usage`."""
    words = [a for a in sys.argv[1:] if not a.startswith("--") and "=" not in a]
    named = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    variant = words[4].split("-") if len(words) > 4 else []
    many, device = "vmap" in variant, named.get("device", "cpu")
    wrong = len(words) < 2 or (variant and words[4] not in variants) or ("K" in named and not many) or device not in ("cpu", "cuda")
    if wrong or ("graph" in variant and device == "cpu"):
        print(f"usage: {usage}\nvariants: {' '.join(variants)}", file=sys.stderr)
        sys.exit(64)
    return dict(w=words[0], what=words[1], threads=int(words[2]) if len(words) > 2 else 1, runs=int(words[3]) if len(words) > 3 else 3,
                variant=words[4] if len(words) > 4 else variants[0], K=int(named.get("K", 1)) if many else None, device=device,
                T=int(named["T"]) if "T" in named else None, sample=int(named["sample"]) if "sample" in named else None, serve="--serve" in sys.argv)
