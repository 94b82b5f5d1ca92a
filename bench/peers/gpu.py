#!/usr/bin/env python3
"""Time the peers on a GPU, to be put beside bench/slab.c and bench/candidates.c (bench/gpu.sh runs all; bench/gpu_table.py makes the tables).

    PYTHON bench/peers/gpu.py [--device cuda|cpu] [--out build/bench/gpu] [--only WORD,…] [--runs 5] [--limit 420] [--tiny] [--list]

PYTHON is one that has PyTorch 2 or JAX or both; what it has not is left out. The cells: outer steps of W1, W2, W3, one learner and eight side by
side; 256 candidates of the space `chain`, all of different shapes, and 8 initialisations of 32 shapes, one after another and side by side.
What is compiled network by network is timed on a sample of the networks (fields nets, of). float32 without TF32; the first run, which
compiles and tries algorithms, is not timed.
A cell is a process (bench/peers/torch_gtn.py, jax_gtn.py), so that its peak memory is its own, and a JSON line in OUT/peers.jsonl; where it found no
memory, took longer than the limit or failed, one with `error`. A cell that has its line is not run again: a run that was cut off goes on."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import workloads as W

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEES = {"torch": "import torch; assert '{0}' == 'cpu' or torch.cuda.is_available(), 'PyTorch sees no GPU'", "jax": "import jax; jax.devices('{0}')"}
EAGER = ["plain", "triad", "ckpt", "ckpt-triad", "plain-nhwc", "fwdrev"]
LISTS = {"shapes": (256, 1), "inits": (32, 8)}  # networks, initialisations of each
SIDE_BY_SIDE, SAMPLE = 8, 8


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def outer(impl, variants, K=None):
    return [(impl, w, "outer", v, K, None) for w in ("W1", "W2", "W3") for v in variants if "mixed" not in v or w == "W3"]  # depthwise in W3 alone


def trained(impl, variants, kind, sample=None):
    return [(impl, "candidates", kind, v, None, sample) for v in variants]


def cells(device):
    """(impl, w, what or list, variant, K, sample), what says most first: compilations last."""
    graph = device == "cuda"
    c = outer("torch", EAGER) + outer("jax", ["rev-lax", "keep-lax", "fwdrev-lax", "rev-mixed"])
    c += trained("torch", ["plain"], "shapes") + trained("torch", ["plain", "vmap"], "inits")
    if graph:
        c += outer("torch", ["graph", "graph-triad", "graph-ckpt-triad"]) + trained("torch", ["graph"], "shapes") + trained("torch", ["graph", "graph-vmap"], "inits")
    c += outer("torch", ["vmap", "vmap-ckpt"] + ["graph-vmap"] * graph, SIDE_BY_SIDE) + outer("jax", ["rev-lax-vmap", "keep-lax-vmap", "rev-mixed-vmap"], SIDE_BY_SIDE)
    c += trained("jax", ["rev-lax"], "shapes", SAMPLE) + trained("jax", ["rev-lax", "rev-lax-vmap"], "inits", SAMPLE)
    c += trained("torch", ["compile"], "shapes", SAMPLE) + trained("torch", ["compile", "compile-vmap"], "inits", SAMPLE)
    return c + outer("torch", ["compile", "compile-ckpt", "compile-fwdrev"])


def name_of(impl, w, what, variant, K, sample):
    return " ".join([impl, w, what, variant] + ([f"K={K}"] if K else []) + ([f"sample={sample}"] if sample else []))


def candidates(a, kind):
    """The list of networks, and beside it their first weights."""
    n, inits = (2, 1 if kind == "shapes" else 2) if a.tiny else LISTS[kind]
    path = a.out / f"candidates-{kind}{'-tiny' * a.tiny}.json"
    if not path.exists():
        sizes = [f"n={n}", f"inits={inits}"] + ["T=2", "B=8"] * a.tiny
        text = subprocess.run([ROOT / "build/bench/candidates", "--list", *sizes, f"data={path.with_suffix('.f32')}"], capture_output=True, text=True, check=True).stdout
        path.write_text(text)
    return str(path)


def environment(a):
    return dict(os.environ, JAX_PLATFORMS=a.device, NVIDIA_TF32_OVERRIDE="0", TF_CPP_MIN_LOG_LEVEL="3", TORCHINDUCTOR_CACHE_DIR=str(a.out / "inductor"),
                JAX_COMPILATION_CACHE_DIR=str(a.out / "jaxcache"))


def run(a, cell):
    impl, w, what, variant, K, sample = cell
    K = 2 if K and a.tiny else K
    about = dict(impl=impl, w=w, what=what, variant=variant)
    if w == "candidates":
        what = candidates(a, what)
        about.update(W.candidates(what, sample)["about"])
    else:
        about["K"] = K or 1
    command = [sys.executable, HERE / f"{impl}_gtn.py", w, what, 1, a.runs, variant, f"device={a.device}"] + ["T=2"] * (a.tiny and w != "candidates")
    command += [f"K={K}"] if K else [f"sample={sample}"] if sample else []
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(a), timeout=a.limit, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return dict(about, error=f"no answer within {a.limit:.0f} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
    return dict(about, error=next((s for s in reversed(said) if "Error" in s), said[-1])[:200])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: does it work at all")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench/gpu")
    p.add_argument("--only", type=lambda s: s.split(","), default=[""], help="cells whose names (--list) have one of these in them")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--limit", type=float, default=420, help="seconds a cell may take, compilation included")
    p.add_argument("--tiny", action="store_true", help="few steps and networks; no figure of it means anything")
    p.add_argument("--list", action="store_true", help="names of the cells")
    a = p.parse_args()
    wanted = [c for c in cells(a.device) if any(word in name_of(*c) for word in a.only)]
    if a.list:
        print("\n".join(name_of(*c) for c in wanted))
        return 0
    a.out.mkdir(parents=True, exist_ok=True)
    a.out = a.out.resolve()
    path = a.out / "peers.jsonl"
    there = {json.loads(line)["cell"] for line in path.read_text().splitlines()} if path.exists() else set()
    sees, bad = {}, 0
    for impl in sorted({c[0] for c in wanted}):
        done = subprocess.run([sys.executable, "-c", SEES[impl].format(a.device)], capture_output=True, text=True, env=environment(a))
        sees[impl] = done.returncode == 0
        if not sees[impl]:
            say(f"{impl}: left out ({(done.stderr.strip().splitlines() or ['?'])[-1][:160]})")
    for cell in wanted:
        name = name_of(*cell) + " tiny" * a.tiny
        if name in there or not sees[cell[0]]:
            continue
        row = dict(run(a, cell), cell=name)
        with path.open("a") as f:
            f.write(json.dumps(row) + "\n")
        bad += "error" in row
        say(f"{name}: {row.get('error') or str(row['median_s']) + ' s'}")
    say(f"{path}: {bad} of the cells now run have no time")
    return 0 if any(sees.values()) else 69


if __name__ == "__main__":
    sys.exit(main())
