#!/usr/bin/env python3
"""What bench/gpu.sh measured, as tables.

    bench/gpu_table.py [OUT build/bench/gpu]     from the JSON lines of OUT's *.txt and peers.jsonl; on stdout. Tiny cells and what no GPU ran are left out.
    bench/gpu_table.py --gpu                     a JSON line about this machine's first GPU: what its float32 peak follows from
    bench/gpu_table.py --scores CPU GPU          how far a score on the device (result.json of didact-worker run) is from the CPU's, as a JSON line; status 70 where too far"""
import csv
import ctypes
import json
import math
import pathlib
import re
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
        if path.name.startswith("profile"):  # slower for being watched
            continue
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    rows.append(row)
    return rows


def statuses(out):
    """Of every part the last time it ran, and its seconds."""
    path = out / "parts.log"
    return {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"^(\S+) status (\d+), (\d+) s", path.read_text() if path.exists() else "", re.M)}


def on_a_gpu(r):
    return r.get("device", "cpu") not in ("cpu", "emulated") and not r.get("cell", "").endswith("tiny")


def counts(r):
    return r.get("impl") in ("didact", "torch", "jax") and ("median_s" in r or "error" in r) and on_a_gpu(r)


class Cells:
    def __init__(self, rows):
        self.gpu = next((r for r in rows if r.get("impl") == "gpu"), {})
        self.all = list({r.get("cell", i): r for i, r in enumerate(rows) if counts(r)}.values())  # of a cell that ran again, the last
        self.rows = [r for r in self.all if r.get("kind", "cuda") == "cuda"]  # float32
        self.checks = list({(r["w"], r["T"], r["kind"], r["against"]): r for r in rows if r.get("what") == "check" and on_a_gpu(r)}.values())
        self.score = next((r for r in rows if r.get("what") == "score" and on_a_gpu(r)), None)

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


def worst(r):
    return max(r["dx_length"], r["dw0_length"])


def correct(c, parts):
    """The rows of what is right or not."""
    rows = []

    def row(figure, limit, ours, theirs, ok):
        rows.append(f"| {figure} | {limit} | | {ours} | {theirs} | {'–' if ok is None else 'reached' if ok else '**short**'} |")
    oracle = parts.get("test_oracle")
    row("all oracle cases on the GPU, in float32", "pass", f"status {oracle[0]}" if oracle else "–", "the oracle", oracle and oracle[0] == 0)
    for w in ("W1", "W2", "W3"):
        for against in ("float32", "double"):
            r = max((r for r in c.checks if r["w"] == w and r["kind"] == "cuda" and r["against"] == against), key=lambda r: r["T"], default=None)
            which = f"GPU against the CPU's {against}, {w}" + (f", {r['T']} steps" if r else "") + ": meta-gradient off by, of its length"
            row(which, f"{min(r['dx_limit'], r['dw0_limit']):.2g}" if r else "", f"{worst(r):.2g}" if r else "–",
                f"{max(r['cpu_dx_length'], r['cpu_dw0_length']):.2g} (the CPU's float32 from its double)" if r else "–", r and r["near"])
    r = c.score
    row("a score by didact-worker: the GPU's loss off the CPU's by", r["loss_limit"] if r else "", f"{r['loss']:.2g}; accuracy off by {r['accuracy']:.2g}" if r else "–", "the CPU", r and r["near"])
    return rows


def targets(c, parts):
    rows = ["| figure | must | goal | ours | the other | |", "|" + " --- |" * 6, *correct(c, parts)]
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
    planned = [r for r in c.rows if r.get("used_mib") and r.get("device_mib")]
    if planned:  # where least is wanted, of the plans that dwarf what code and graphs take
        r = max([r for r in planned if r["device_mib"] >= 256] or planned, key=lambda r: r["used_mib"] / r["device_mib"])
        rows.append(f"| device memory measured over the plan's, the most of all: {r['w']}, {r['what']}, {r['K']} learners (×) | | | {r['used_mib']} MiB | {r['device_mib']} MiB planned | "
                    f"{r['used_mib'] / r['device_mib']:.2f} |")
    return rows


def how_far(c):
    rows = ["| workload | steps | products | against the CPU's | images' gradient off | weights' gradient off | may be | inner loss off | |", "|" + " --- |" * 9]
    for r in sorted(c.checks, key=lambda r: (r["w"], r["T"], len(r["kind"]), r["kind"], r["against"] == "double")):
        rows.append(f"| {r['w']} | {r['T']} | {r['kind'].partition('-')[2] or 'float32'} | {r['against']} | {r['dx_length']:.2g} | {r['dw0_length']:.2g} | "
                    f"{r['dx_limit']:.2g}, {r['dw0_limit']:.2g} | {r['inner_loss']:.2g} | {'near' if r['near'] else '**far**'} |")
    return rows


# ---------------------------------------------------------------- didact-worker
LOSS_FAR, ACCURACY_FAR = 2e-3, 5e-3  # of float32 after all steps: the loss, of itself; an image or two of hundreds on the other side


def scores(cpu, gpu):
    """A score is a mean over initialisations: of the accuracies, and the losses summed along the curriculum."""
    a, b = (json.loads(pathlib.Path(p).read_text()) for p in (cpu, gpu))
    loss, accuracy = abs(b["loss_sum"] / a["loss_sum"] - 1), abs(b["score"] - a["score"])
    scored = a["state"] == b["state"] == "scored" and "device" in b and "device" not in a
    near = scored and loss <= LOSS_FAR and accuracy <= ACCURACY_FAR
    print(json.dumps(dict(impl="didact", what="score", device=b.get("device", "cpu"), loss=loss, accuracy=accuracy, loss_limit=LOSS_FAR, score=b["score"], cpu_score=a["score"],
                          seconds=b["seconds"], cpu_seconds=a["seconds"], near=near)))
    return 0 if near else 70


KINDS = ("gtn", "gtn-batches", "gtn-shuffled", "gtn-noise", "real")


def teachers(out, parts):
    """Where each is: its last evaluation, and the time of all commands that it took."""
    rows = ["| teacher | meta-steps | accuracy | held out | s of meta-training | |", "|" + " --- |" * 6]
    for kind in KINDS:
        path, last, seconds, before = out / f"teach-{kind}" / "log.jsonl", None, 0, 0
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row.get("name") == "emulated":
                last = None
                break
            if "device" in row:  # a command begins, and its seconds
                before = 0
            if "meta_step" in row:
                seconds, before, last = seconds + row["seconds"] - before, row["seconds"], row
        if last:
            ended = parts.get(f"teach-{kind}", (None,))[0] == 0
            rows.append(f"| {kind} | {last['meta_step']} | {last['accuracy']:.4f} | {last['held_out']:.4f} | {seconds:.0f} | {'done' if ended else 'goes on in the next command'} |")
    return rows


# ---------------------------------------------------------------- profiles
UNITS = {"s": 1e3, "second": 1e3, "ms": 1, "msecond": 1, "us": 1e-3, "usecond": 1e-3, "ns": 1e-6, "nsecond": 1e-6}  # to ms


def number(text):
    try:
        value = float(str(text).replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def short(kernel):
    """A kernel's name without its arguments; that of a lambda is the function's that has it."""
    kernel = re.sub(r"^(void|static) +", "", re.sub(r"\(anonymous namespace\)::|<unnamed>::", "", kernel))
    of = re.search(r"&([\w:]+)", kernel) or re.search(r"([\w:]+)\([^()]*\)::[\[{('<]*lambda", kernel)
    kernel = f"{re.match('[^<(]*', kernel)[0]} of {of[1]}" if of else re.sub(r"\([^()]*\)$", "", kernel)
    return (kernel if len(kernel) <= 72 else kernel[:71] + "…").replace("|", "/")


def tables(text):
    """The CSV tables of a text that has other lines before, between and after them: rows as dicts."""
    head = None
    for line in text.splitlines():
        row = next(csv.reader([line]), [])
        if "Kernel Name" in row or ("Name" in row and any(c.startswith("Total Time") for c in row)):
            head = row
        elif head and len(row) == len(head):
            yield dict(zip(head, row))


def kernels(text):
    """{kernel: [calls, ms, SM %, memory %]} of what ncu (--csv, SpeedOfLight) or nsys (cuda_gpu_kern_sum) printed; shares are means by time, None where nobody said."""
    launches, sums = {}, {}
    for row in tables(text):
        if "Kernel Name" in row:  # ncu: a row a metric of a launch
            one = launches.setdefault(row.get("ID"), dict(name=row["Kernel Name"]))
            metric, value = row.get("Metric Name", ""), number(row.get("Metric Value"))
            if value is None:
                continue
            if metric == "Duration" and row.get("Metric Unit") in UNITS:
                one["ms"] = value * UNITS[row["Metric Unit"]]
            elif metric in ("Compute (SM) Throughput", "SM [%]", "Compute (SM) [%]"):
                one["sm"] = value
            elif metric in ("Memory Throughput", "Memory [%]") and row.get("Metric Unit") == "%":
                one["memory"] = value
        else:
            unit = next(c for c in row if c.startswith("Total Time"))
            ms, calls = number(row[unit]), number(row.get("Instances", "0"))
            if ms is not None:
                sums.setdefault(row["Name"], [int(calls or 0), ms * UNITS.get(unit.partition("(")[2].rstrip(")"), 1e-6), None, None])
    for one in launches.values():
        if "ms" in one:
            k = sums.setdefault(one["name"], [0, 0, 0, 0])
            k[0] += 1
            k[1] += one["ms"]
            for i, share in ((2, "sm"), (3, "memory")):
                k[i] = k[i] + one["ms"] * one[share] if share in one and k[i] is not None else None
    return {name: [n, ms, *(share / ms if share is not None and ms and launches else None for share in shares)] for name, (n, ms, *shares) in sums.items()}


def bound(sm, memory):
    if sm is None or memory is None:
        return "not known (nsys)"
    what = "arithmetic" if sm > max(50, memory) else "memory" if memory > 50 else "neither: latency, or a grid too small"
    return f"{what} ({sm:.0f} % / {memory:.0f} %)"


def profiles(out):
    rows = []
    for w in ("W1", "W2", "W3"):
        path = out / f"profile-{w}.txt"
        text = path.read_text(errors="replace") if path.exists() else ""
        found = sorted(kernels(text).items(), key=lambda k: -k[1][1])
        if not found:
            rows += [f"{w}: {' '.join(text.split())[-160:] or 'no profile yet'}.", ""]
            continue
        total = sum(k[1] for _, k in found)
        rows += [f"### {w}: {total:.3g} ms in {sum(k[0] for _, k in found)} kernels", "", "| kernel | calls | ms | % | bound (SM / memory) |", "|" + " --- |" * 5]
        rows += [f"| {short(name)} | {n} | {ms:.3f} | {100 * ms / total:.1f} | {bound(sm, memory)} |" for name, (n, ms, sm, memory) in found[:10]]
        rows += ([f"| the other {len(found) - 10} | | {sum(k[1] for _, k in found[10:]):.3f} | | |"] if len(found) > 10 else []) + [""]
    return rows


def every_cell(c):
    rows = ["| workload | what | learners | who | seconds (least–most) | GFLOP/s | of peak | device MiB | measured MiB |", "|" + " --- |" * 9]
    peak = c.gpu.get("peak_gflops")
    order = lambda r: (r["w"], r.get("inits", 0), r["what"], r.get("K", 1), r["impl"] != "didact", r["impl"], r.get("variant", ""))
    for r in sorted(c.all, key=order):
        learners = f"{r.get('nets') or int(r['what'].split()[0]) // r['inits']} × {r['inits']}" if "inits" in r else r.get("K", 1)
        who = " ".join(["didact"] + [r.get("kind")] * (r.get("kind", "cuda") != "cuda")) if r["impl"] == "didact" else name(dict(r, of=0))
        who += f", {r['lanes']} lanes" if r.get("lanes") and r["what"] == "outer" else f", {r['threads']} threads" if r["impl"] == "didact" and "threads" in r else ""
        if "error" in r:
            rows.append(f"| {r['w']} | {r['what']} | {learners} | {who} | {r['error']} | | | | |")
            continue
        share = f"{100 * r['gflops'] / peak:.1f} %" if peak else "–"
        rows.append(f"| {r['w']} | {r['what']} | {learners} | {who} | {r['median_s']:.4g} ({r['min_s']:.4g}–{r['max_s']:.4g}) | {r['gflops']:.0f} | {share} | {r.get('device_mib') or '–'} | {r.get('used_mib') or '–'} |")
    return rows


def main():
    if sys.argv[1:] == ["--gpu"]:
        print(json.dumps(gpu()))
        return 0
    if sys.argv[1:2] == ["--scores"] and len(sys.argv) == 4:
        return scores(*sys.argv[2:])
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench/gpu")
    if not out.is_dir() or len(sys.argv) > 2 or sys.argv[1:2] in (["--help"], ["-h"]):
        print(__doc__, file=sys.stderr)
        return 0 if sys.argv[1:2] in (["--help"], ["-h"]) else 64
    c, parts = Cells(read(out)), statuses(out)
    g = c.gpu
    about = f"{g['name']}, {g['sms']} multiprocessors at {g['mhz']:.0f} MHz" if g.get("name") else "A GPU of which nothing is known (gpu.txt)"
    about += f": {g['peak_gflops'] / 1000:.1f} TFLOP/s in float32" if g.get("peak_gflops") else ""
    print(f"# On a GPU\n\n{about}. Seconds are medians; × is the peer's over ours; the time of a sample of networks counts in proportion for all. "
          "Device memory is without the trials of algorithms and the libraries' own: our buffers, PyTorch's peak after its warm-up, "
          "of JAX what its compiler says the compiled step takes (arguments, results and all between); of JAX's candidates it is not known.\n")
    print("\n".join([*targets(c, parts), "", "## How far off", "", "What the device computes against the CPU's engine, as a share of the whole's length.", "", *how_far(c),
                     "", "## Teachers", "", "MNIST, 32 steps of 128 images, one network, 2,000 meta-steps each.", "", *teachers(out, parts),
                     "", "## Where the time goes", "", "A step there and back of 8 learners and their meta-batch, 400 launches at most: the shares matter, not the sums.", "", *profiles(out),
                     "## Every cell", "", *every_cell(c)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
