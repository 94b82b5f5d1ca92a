#!/usr/bin/env python3
"""What bench/gpu.sh measured, as tables.

    bench/gpu_table.py [OUT build/bench/gpu]     from the JSON lines of OUT's *.txt and peers.jsonl; on stdout. Tiny cells and what no GPU ran are left out.
    bench/gpu_table.py --gpu                     a JSON line about this machine's first GPU: what its float32 peak follows from"""
import ctypes
import json
import pathlib
import subprocess
import sys

from run import over, verdict

SHAPES, INITS = "of different shapes", "8 initialisations of 32 shapes"


# ---------------------------------------------------------------- the GPU
def cores(major, minor):
    """float32 units of a multiprocessor."""
    return 64 if (major, minor) in ((7, 0), (7, 2), (7, 5), (8, 0)) else 128 if (major, minor) >= (8, 6) else None


def attributes():
    """Of the driver: multiprocessors, clock in kHz, compute capability (CUdevice_attribute 16, 13, 75, 76)."""
    driver, device, value = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, 256, device):
        raise OSError("the driver has no device")

    def attribute(number):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device):
            raise OSError(f"the driver does not know attribute {number}")
        return value.value
    return name.value.decode(), attribute(16), attribute(13) / 1000, attribute(75), attribute(76)


def gpu():
    try:
        name, sms, mhz, major, minor = attributes()
    except (OSError, AttributeError) as why:
        return dict(impl="gpu", error=str(why))
    try:  # the clock that it may reach, where nvidia-smi knows it
        mhz = float(subprocess.run(["nvidia-smi", "-i", "0", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout)
    except (OSError, ValueError):
        pass
    n = cores(major, minor)
    return dict(impl="gpu", name=name, sms=sms, mhz=mhz, cc=f"{major}.{minor}", peak_gflops=round(sms * n * 2 * mhz / 1000) if n and mhz else None)


# ---------------------------------------------------------------- what was measured
def read(out):
    rows = []
    for path in sorted(out.glob("*.txt")) + sorted(out.glob("peers.jsonl")):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    pass
    return rows


def counts(r):
    timed = r.get("impl") in ("didact", "torch", "jax") and ("median_s" in r or "error" in r)
    return timed and r.get("device", "cpu") not in ("cpu", "emulated") and not r.get("cell", "").endswith("tiny")


class Cells:
    def __init__(self, rows):
        self.gpu = next((r for r in rows if r.get("impl") == "gpu"), {})
        self.all = list({r.get("cell", i): r for i, r in enumerate(rows) if counts(r)}.values())  # of a cell that ran again, the last
        self.rows = [r for r in self.all if r.get("kind", "cuda") == "cuda"]  # float32

    def fastest(self, test):
        """A sample's time counts as that of all networks."""
        r = [scaled(r) for r in self.rows if "median_s" in r and test(r)]
        return min(r, key=lambda r: r["median_s"], default=None)

    def outer(self, impls, w, K, test=lambda r: True):
        return self.fastest(lambda r: r["impl"] in impls and r["w"] == w and r["what"] == "outer" and r.get("K", 1) == K and test(r))

    def trained(self, impls, inits, test=lambda r: True):
        return self.fastest(lambda r: r["impl"] in impls and r["w"] == "candidates" and r["inits"] == inits and test(r))


def scaled(r):
    return dict(r, median_s=r["median_s"] * r["of"] / r["nets"]) if r.get("of", 0) > r.get("nets", 0) else r


def words(r):
    return set(r.get("variant", "").split("-"))


def eager(r):
    return r["impl"] == "torch" and not words(r) & {"compile", "graph", "vmap"}


def alone(r):
    return "vmap" not in words(r)


def side_by_side(r):
    return not alone(r)


def name(r):
    return f"{r['impl']} {r['variant']}" + (f", {r['nets']} of {r['of']} networks" if r.get("of", 0) > r.get("nets", 0) else "") if r else "–"


def targets(c):
    rows = ["| figure | must | goal | ours | the other | |", "|" + " --- |" * 6]
    peers, us = ("torch", "jax"), ("didact",)

    def row(figure, aim, ours, theirs, value=None, show=lambda r: f"{r['median_s']:.4g} s"):
        value = over(theirs, ours) if value is None else value
        rows.append(f"| {figure} | {' | '.join(map(str, aim)) if aim else ' | '} | {show(ours) if ours else '–'} | {show(theirs) + ' (' + name(theirs) + ')' if theirs else '–'} | "
                    f"{verdict(value, aim or (0, 0), True, not aim)} |")

    for w in ("W1", "W2", "W3"):
        row(f"outer step, {w}, eager PyTorch over ours (×)", (5, 10), c.outer(us, w, 1), c.outer(peers, w, 1, eager))
    for w in ("W1", "W2", "W3"):
        row(f"outer step, {w}, the fastest peer over ours (×)", (2, 4), c.outer(us, w, 1), c.outer(peers, w, 1))
    for w in ("W1", "W2", "W3"):
        row(f"outer step of 8 learners, {w}, the fastest peer over ours (×)", None, c.outer(us, w, 8), c.outer(peers, w, 8))
    for inits, which in ((1, SHAPES), (8, INITS)):
        ours = c.trained(us, inits)
        row(f"256 candidates, {which}: eager PyTorch, one after another, over ours (×)", (20, 50), ours, c.trained(peers, inits, eager))
        row(f"the same, the fastest peer, one after another, over ours (×)", None, ours, c.trained(peers, inits, alone))
    row(f"256 candidates, {INITS}: the fastest vmap over ours (×)", (3, 50), c.trained(us, 8), c.trained(peers, 8, side_by_side))
    best = max((r for r in c.rows if r["impl"] == "didact" and r["w"] == "W2" and "gflops" in r), key=lambda r: r["gflops"], default=None)
    peak = c.gpu.get("peak_gflops")
    if best:
        share, top = (100 * best["gflops"] / peak, f"{peak / 1000:.3g} TFLOP/s") if peak else (None, "–")
        rows.append(f"| share of the float32 peak, W2, {best['what']}, {best['K']} learners (%) | 25 | 50 | {best['gflops'] / 1000:.3g} TFLOP/s | {top} | {verdict(share, (25, 50), True, False)} |")
    # All of it without what is tried before the first timed run: our buffers, PyTorch's peak after its warm-up, JAX's by its compiler's word.
    memory = lambda r: f"{r['device_mib']} MiB at {r['median_s']:.4g} s"
    least = lambda rows: min(rows, key=lambda r: r["device_mib"], default=None)
    for w in ("W1", "W2", "W3"):
        all_of = lambda impls: [r for r in c.rows if r["impl"] in impls and r["w"] == w and r["what"] == "outer" and r.get("K", 1) == 1 and r.get("device_mib")]
        pairs = [(f"{impl} over ours, each as fast as it goes", c.outer(us, w, 1), c.outer((impl,), w, 1)) for impl in peers]
        for which, ours, theirs in pairs + [("the peer that takes least over ours that takes least", least(all_of(us)), least(all_of(peers)))]:
            if ours and theirs and theirs.get("device_mib"):
                row(f"peak device memory of the outer step, {w}: {which} (×)", (5, 5), ours, theirs, theirs["device_mib"] / ours["device_mib"], memory)
    return rows


def every_cell(c):
    rows = ["| workload | what | learners | who | seconds (least–most) | GFLOP/s | of peak | device MiB |", "|" + " --- |" * 8]
    peak = c.gpu.get("peak_gflops")
    order = lambda r: (r["w"], r.get("inits", 0), r["what"], r.get("K", 1), r["impl"] != "didact", r["impl"], r.get("variant", ""))
    for r in sorted(c.all, key=order):
        learners = f"{r.get('nets') or int(r['what'].split()[0]) // r['inits']} × {r['inits']}" if "inits" in r else r.get("K", 1)
        who = " ".join(["didact"] + [r.get("kind")] * (r.get("kind", "cuda") != "cuda")) if r["impl"] == "didact" else name(dict(r, of=0))
        who += f", {r['lanes']} lanes" if r.get("lanes") and r["what"] == "outer" else f", {r['threads']} threads" if r["impl"] == "didact" and "threads" in r else ""
        if "error" in r:
            rows.append(f"| {r['w']} | {r['what']} | {learners} | {who} | {r['error']} | | | |")
            continue
        share = f"{100 * r['gflops'] / peak:.1f} %" if peak else "–"
        rows.append(f"| {r['w']} | {r['what']} | {learners} | {who} | {r['median_s']:.4g} ({r['min_s']:.4g}–{r['max_s']:.4g}) | {r['gflops']:.0f} | {share} | {r.get('device_mib') or '–'} |")
    return rows


def main():
    if sys.argv[1:] == ["--gpu"]:
        print(json.dumps(gpu()))
        return 0
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench/gpu")
    if not out.is_dir() or len(sys.argv) > 2 or sys.argv[1:2] in (["--help"], ["-h"]):
        print(__doc__, file=sys.stderr)
        return 0 if sys.argv[1:2] in (["--help"], ["-h"]) else 64
    c = Cells(read(out))
    g = c.gpu
    about = f"{g['name']}, {g['sms']} multiprocessors at {g['mhz']:.0f} MHz" if g.get("name") else "A GPU of which nothing is known (gpu.txt)"
    about += f": {g['peak_gflops'] / 1000:.1f} TFLOP/s in float32" if g.get("peak_gflops") else ""
    print(f"# On a GPU\n\n{about}. Seconds are medians; × is the peer's over ours; the time of a sample of networks counts in proportion for all. "
          "Device memory is without the trials of algorithms and the libraries' own: our buffers, PyTorch's peak after its warm-up, "
          "of JAX what its compiler says the compiled step takes (arguments, results and all between); of JAX's candidates it is not known.\n")
    print("\n".join([*targets(c), "", "## Every cell", "", *every_cell(c)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
