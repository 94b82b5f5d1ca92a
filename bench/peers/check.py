#!/usr/bin/env python3
"""Are the peers right? Runs oracle cases through every variant of the frameworks that are installed, in float64, and compares
all gradients with the case's own (1e-6), and those with what `didact-worker grad` computes.
    build/bench/venv/bin/python bench/peers/check.py [torch|jax] [VARIANT|CASE …]"""
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import workloads as W

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = ["a_mlp_direct", "b_conv_bn_direct", "c_sepconv_residual_momentum", "d_generator", "f_cell_concat"]
TOLERANCE = 1e-6


def inputs(w, t):
    d = {k: t[k] for k in ("X", "Y", "lr", "mu", "y")}
    d["w0"] = [t["w0." + name] for name, _, _ in W.params_of(w["learner"])]
    if "generator" in w:
        d.update(z=t["z"], phi=[t["phi." + name] for name, _, _ in W.params_of(w["generator"])])
    else:
        d["x"] = t["x"]
    return d


def expected(w, t):
    e = {k: t["grad." + k] for k in ("lr", "mu", "z" if "generator" in w else "x")}
    e["w0"] = [t["grad.w0." + name] for name, _, _ in W.params_of(w["learner"])]
    if "generator" in w:
        e["phi"] = [t["grad.phi." + name] for name, _, _ in W.params_of(w["generator"])]
    return e


def worst(got, want):
    """Largest relative error; small gradients are measured against the case's largest (tests/oracle/README.md)."""
    pairs = []
    for k, v in want.items():
        pairs += zip(got[k], v) if isinstance(v, list) else [(got[k], v)]
    largest = max(np.linalg.norm(b) for _, b in pairs)
    return max(np.linalg.norm(np.asarray(a) - b) / max(np.linalg.norm(b), 1e-3 * largest) for a, b in pairs)


def ours(case):
    worker = ROOT / "build/didact-worker"
    path = ROOT / "tests/oracle/cases" / f"{case}.json"
    with tempfile.TemporaryDirectory() as tmp:
        out = f"{tmp}/{case}.f64.safetensors"
        subprocess.run([worker, "grad", "--case", path, "--tensors", str(path)[:-5] + ".f64.safetensors", "--out", out], check=True, capture_output=True)
        os.symlink(path, f"{tmp}/{case}.json")
        return W.load_case(f"{tmp}/{case}.json")[1]


def main():
    words = sys.argv[1:]
    bad = 0
    for framework in [f for f in ("torch", "jax") if f in words] or ["torch", "jax"]:
        try:
            peer = importlib.import_module(f"{framework}_gtn")
        except ImportError as why:
            print(f"{framework}: not installed ({why})")
            continue
        for case in [c for c in CASES if c in words] or CASES:
            w, t = W.load_case(str(ROOT / "tests/oracle/cases" / f"{case}.json"))
            engine = ours(case)
            for variant in [v for v in peer.VARIANTS if v in words] or peer.VARIANTS:
                J, g = peer.meta_gradients(w, inputs(w, t), variant)
                errors = [worst(g, expected(w, r)) for r in (t, engine)] + [abs(J - t["out.meta_loss"].item())]
                ok = all(e < TOLERANCE for e in errors)
                bad += not ok
                print(f"{framework:5} {variant:16} {case:28} against the oracle {errors[0]:.1e}, the engine {errors[1]:.1e}  {'ok' if ok else 'WRONG'}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
