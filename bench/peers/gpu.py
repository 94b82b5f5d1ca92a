#!/usr/bin/env python3
"""Time the peers on a GPU, to be put beside bench/slab.c and bench/candidates.c (bench/gpu.sh runs all; bench/gpu_table.py makes the tables).

    PYTHON bench/peers/gpu.py [--device cuda|cpu] [--out build/bench/gpu] [--only WORD,…] [--runs 5] [--limit 420] [--budget S] [--again] [--tiny] [--list]

PYTHON is one that has PyTorch 2 or JAX or both; what it has not is left out. The cells: outer steps of W1, W2, W3, one learner and eight side by
side; 256 candidates of the space `chain`, all of different shapes, and 8 initialisations of 32 shapes, one after another and side by side. First come those
that give every row of bench/gpu_table.py a number soonest, then compiled PyTorch and JAX, last what compiles longest; --list says the order.
What takes long is timed on a sample of the networks (fields nets, of). float32 without TF32; the first run, which compiles and tries algorithms, is not timed.
A cell is a process (bench/peers/torch_gtn.py, jax_gtn.py), so that its peak memory is its own, and a JSON line in OUT/peers.jsonl; where it found no
memory, took longer than the limit or failed, one with `error`. A cell that has its line is not run again: a run that was cut off goes on. One that gave no
answer in the time it had (limit_s of its line) is: by a command that gives it more, after those that no command has tried. Tiny
cells and the CPU's go to a file of their own (peers-tiny.jsonl, peers-cpu.jsonl), for they are no results."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import workloads as W

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEES = {"torch": "import torch; assert '{0}' == 'cpu' or torch.cuda.is_available(), 'PyTorch sees no GPU'", "jax": "import jax; jax.devices('{0}')"}
LISTS = {"shapes": (256, 1), "inits": (32, 8)}  # networks, initialisations of each
SIDE_BY_SIDE, SAMPLE, MANY = 8, 8, 32
LEAST_S = 15  # a cell is not begun with less: the framework alone takes that to start


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def outer(impl, variants, K=None):
    return [(impl, w, "outer", v, K, None) for v in variants for w in ("W1", "W3", "W2") if "mixed" not in v or w == "W3"]  # depthwise in W3 alone


def trained(impl, variants, kind, sample=None):
    return [(impl, "candidates", kind, v, None, sample) for v in variants]


def cells(device):
    """(impl, w, what or list, variant, K, sample) in order of worth."""
    # A number in every row that must be reached: eager steps, eager candidates, vmap; the least memory.
    c = outer("torch", ["plain"])
    c += trained("torch", ["plain"], "shapes", MANY) + trained("torch", ["vmap", "plain"], "inits", SAMPLE)
    c += outer("torch", ["graph"]) + outer("torch", ["ckpt-triad"]) + trained("torch", ["graph-vmap"], "inits", SAMPLE)
    # The compilers, once each.
    c += outer("torch", ["compile"]) + outer("jax", ["rev-lax"]) + trained("jax", ["rev-lax-vmap"], "inits", SAMPLE)
    # What may be faster or smaller, without a compiler; 8 learners.
    c += outer("torch", ["triad", "graph-triad"]) + outer("torch", ["vmap"], SIDE_BY_SIDE) + trained("torch", ["graph"], "shapes", MANY)
    c += outer("torch", ["graph-ckpt-triad", "ckpt", "plain-nhwc", "fwdrev"]) + outer("torch", ["graph-vmap", "vmap-ckpt"], SIDE_BY_SIDE)
    c += trained("torch", ["graph"], "inits", SAMPLE)
    # More of the compilers, and all 256 networks.
    c += trained("torch", ["compile-vmap"], "inits", SAMPLE)
    c += trained("torch", ["plain"], "shapes") + trained("torch", ["vmap", "graph-vmap", "plain"], "inits") + trained("torch", ["compile"], "shapes", SAMPLE)
    c += outer("torch", ["compile-ckpt", "compile-fwdrev"]) + trained("torch", ["compile"], "inits", SAMPLE)
    c += outer("jax", ["keep-lax", "rev-mixed", "fwdrev-lax"]) + trained("jax", ["rev-lax"], "shapes", SAMPLE) + trained("jax", ["rev-lax"], "inits", SAMPLE)
    c += outer("jax", ["rev-lax-vmap", "rev-mixed-vmap", "keep-lax-vmap"], SIDE_BY_SIDE)
    return [k for k in c if device == "cuda" or "graph" not in k[3]]


def name_of(impl, w, what, variant, K, sample):
    return "/".join([impl, w, what, variant] + ([f"K={K}"] if K else []) + ([f"sample={sample}"] if sample else []))


def picked(cells, words):
    """Those whose names have a word in them; a word that is a whole name is that cell alone."""
    names = {name_of(*c) for c in cells}
    return [c for c in cells if any(word == name_of(*c) or (word not in names and word in name_of(*c)) for word in words)]


def lines(path):
    """What the cells' lines say. One cut short is none."""
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            yield row["cell"], row
        except (ValueError, KeyError, TypeError):
            pass


def cells_there(path, again):
    """The names of the cells that have an answer, and how long the others had, at most, without one."""
    names, tried = set(), {}
    for name, row in lines(path):
        if "limit_s" in row:
            tried[name] = max(row["limit_s"], tried.get(name, 0))
        elif not (again and "error" in row):
            names.add(name)
    return names, tried


def candidates(a, kind):
    """The list of networks, and beside it their first weights."""
    n, inits = (2, 1 if kind == "shapes" else 2) if a.tiny else LISTS[kind]
    path = a.out / f"candidates-{kind}{'-tiny' * a.tiny}.json"
    if not path.exists():
        sizes = [f"n={n}", f"inits={inits}"] + ["T=2", "B=8"] * a.tiny
        part = path.with_suffix(".part")
        text = subprocess.run([ROOT / "build/bench/candidates", "--list", *sizes, f"data={path.with_suffix('.f32')}"], capture_output=True, text=True, check=True).stdout
        part.write_text(text)
        part.rename(path)  # whole, or not there
    return str(path)


def environment(a):
    return dict(os.environ, JAX_PLATFORMS=a.device, NVIDIA_TF32_OVERRIDE="0", TF_CPP_MIN_LOG_LEVEL="3", TORCHINDUCTOR_CACHE_DIR=str(a.out / "inductor"),
                JAX_COMPILATION_CACHE_DIR=str(a.out / "jaxcache"))


def run(a, cell, most):
    impl, w, what, variant, K, sample = cell
    K = 2 if K and a.tiny else K
    about = dict(impl=impl, w=w, what=what, variant=variant, device=a.device)
    if w == "candidates":
        try:
            what = candidates(a, what)
            about.update(W.candidates(what, sample)["about"])
        except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as why:
            n, inits = LISTS[cell[2]]
            return dict(about, inits=inits, nets=sample or n, of=n, error=f"no list of candidates: {why}"[:200])
    else:
        about["K"] = K or 1
    command = [sys.executable, HERE / f"{impl}_gtn.py", w, what, 1, a.runs, variant, f"device={a.device}"] + ["T=2"] * (a.tiny and w != "candidates")
    command += [f"K={K}"] if K else [f"sample={sample}"] if sample else []
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(a), timeout=most, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return dict(about, error=f"no answer within {most:.0f} s", limit_s=most)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    try:
        if lines:
            return dict(dict(device=a.device), **json.loads(lines[-1]))
    except ValueError:  # it died while it wrote
        pass
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
    return dict(about, error=next((s for s in reversed(said) if "Error" in s), said[-1])[:200])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: does it work at all")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench/gpu")
    p.add_argument("--only", type=lambda s: s.split(","), default=[""], help="cells of these names (--list), or with one of these in their names")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--limit", type=float, default=420, help="seconds a cell may take, compilation included")
    p.add_argument("--budget", type=float, default=float("inf"), help="seconds for all: a cell that they cut off or leave out is one for the next time, with more of them")
    p.add_argument("--again", action="store_true", help="cells that failed for another reason than time, too")
    p.add_argument("--tiny", action="store_true", help="few steps and networks; no figure of it means anything")
    p.add_argument("--list", action="store_true", help="names of the cells")
    a = p.parse_args()
    until = time.monotonic() + a.budget
    wanted = picked(cells(a.device), a.only)
    if a.list:
        print("\n".join(name_of(*c) for c in wanted))
        return 0
    a.out.mkdir(parents=True, exist_ok=True)
    a.out = a.out.resolve()
    path = a.out / f"peers{'-cpu' * (a.device == 'cpu')}{'-tiny' * a.tiny}.jsonl"
    there, tried = cells_there(path, a.again)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        path.open("a").write("\n")  # what was cut short stays alone
    sees, bad, left_out = {}, 0, []
    for impl in sorted({c[0] for c in wanted}):
        done = subprocess.run([sys.executable, "-c", SEES[impl].format(a.device)], capture_output=True, text=True, env=environment(a))
        sees[impl] = done.returncode == 0
        if not sees[impl]:
            say(f"{impl}: left out ({(done.stderr.strip().splitlines() or ['?'])[-1][:160]})")
    named = [(name_of(*cell) + " tiny" * a.tiny, cell) for cell in wanted if sees[cell[0]]]
    for name, cell in sorted(named, key=lambda n: n[0] in tried):  # what gave no answer holds nothing up
        if name in there or tried.get(name, 0) >= a.limit:
            continue
        most = min(a.limit, until - time.monotonic())
        if most < LEAST_S or most <= tried.get(name, 0):
            left_out.append(name)
            continue
        row = dict(run(a, cell, most), cell=name)
        with path.open("a") as f:
            f.write(json.dumps(row) + "\n")
        if row.get("limit_s", a.limit) < a.limit:
            left_out.append(name)
        bad += "error" in row
        say(f"{name}: {row.get('error') or str(row['median_s']) + ' s'}")
    say(f"{path}: {bad} of the cells now run have no time")
    if left_out:
        say(f"left out, for there was no time: {' '.join(left_out)}")
    return 69 if not any(sees.values()) else 75 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
