#!/usr/bin/env python3
"""Time the engine against its peers: `make bench-engine`, or with options `make bench-engine BENCH_ARGS="--quick"`.

Every cell (workload, what, threads) starts one process for each implementation, warms each up alone, and then asks them in turn for
one timed run (A B C A B C …): a machine whose speed drifts is as slow for the one as for the other. Before, the variants of
each peer are tried once at a small T, and the fastest becomes the peer (kept in build/bench/tuned.json).
Results: build/bench/engine.md (tables), build/bench/engine.json (everything that was said)."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import selectors
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "build/bench"
VENV = OUT / "venv/bin/python"
KEEP_MIB = 16384  # the memory budget under which every step's activations are kept
WORKLOADS, WHATS = ("W1", "W2", "W3"), ("inner", "direct", "outer")
TORCH_OUTER = ["plain", "triad", "triad-nhwc", "ckpt-triad-nhwc", "fwdrev-nhwc", "compile", "compile-fwdrev"]
JAX_OUTER = ["rev-dots", "fwdrev-dots", "rev-mixed", "fwdrev-mixed", "keep-dots", "rev-lax"]
TRY = {("torch", True): ["plain", "nhwc", "compile", "compile-nhwc"], ("torch", False): TORCH_OUTER,
       ("jax", True): ["rev-dots", "rev-mixed", "rev-lax"], ("jax", False): JAX_OUTER}
# figure of the table: {workload: (must, goal)}
TARGETS = {("torch", "outer"): dict(W1=(3, 4), W2=(1.6, 2.2), W3=(2.5, 3.5)), ("jax", "outer"): {w: (1.5, 2.5) for w in WORKLOADS},
           ("torch", "inner"): dict(W1=(4, 6), W2=(1.8, 2.3), W3=(2.2, 3.5)), "share": dict(W1=(40, 55), W2=(55, 75), W3=(30, 45))}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def environment(threads):
    n = str(threads)
    return dict(os.environ, OMP_NUM_THREADS=n, OPENBLAS_NUM_THREADS=n, MKL_NUM_THREADS=n, PYTHONDONTWRITEBYTECODE="1", TORCHINDUCTOR_COMPILE_THREADS="1",
                TORCHINDUCTOR_CACHE_DIR=str(OUT / "inductor"), JAX_COMPILATION_CACHE_DIR=str(OUT / "jaxcache"), TF_CPP_MIN_LOG_LEVEL="3")


def cores(threads):
    """The last `threads` cores: the first has the interrupts."""
    allowed = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, allowed[-threads:])


class Gone(Exception):
    pass


class Server:
    """A benchmark process that runs once for every line it is sent."""

    def __init__(self, name, command, threads, limit):
        self.name, self.limit, self.errors = name, limit, open(OUT / "last.stderr", "w+")
        self.process = subprocess.Popen(list(map(str, command)) + ["--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        bufsize=1, env=environment(threads), preexec_fn=cores(threads), cwd=ROOT)
        try:
            while self.line() != "ready":
                pass
        except Gone:
            self.stop()
            raise

    def line(self):
        with selectors.DefaultSelector() as s:
            s.register(self.process.stdout, selectors.EVENT_READ)
            if not s.select(self.limit):
                raise Gone(f"{self.name}: silent for {self.limit} s")
        text = self.process.stdout.readline()
        if not text:
            self.process.wait()
            self.errors.seek(0)
            last = [l.strip() for l in self.errors.read().splitlines() if l.strip()][-1:] or [""]
            raise Gone(f"{self.name}: ended with status {self.process.returncode}: {last[0][:200]}")
        return text.strip()

    def once(self):
        self.process.stdin.write("\n")
        return float(self.line())

    def finish(self):
        self.process.stdin.close()
        answer = json.loads(self.line())
        self.process.wait()
        return answer

    def stop(self):
        self.process.kill()
        self.process.wait()


def alternate(commands, threads, runs, cap, limit, notes):
    """{impl: command} -> {impl: the process's own JSON, with all seconds}. At least two rounds, then until `runs` or `cap` seconds; one run of
    whoever takes more than half of these."""
    servers, seconds, results = {}, {}, {}
    for impl, command in commands.items():
        try:
            servers[impl], seconds[impl] = Server(impl + " " + " ".join(map(str, command[-4:])), command, threads, limit), []
        except Gone as why:
            say("  gone:", why)
            notes.append(str(why))
    start = time.monotonic()
    for i in range(runs):
        if i >= 2 and time.monotonic() - start > cap:
            break
        for impl in list(servers):
            if seconds[impl] and seconds[impl][0] > cap / 2:
                continue  # one run says enough of who is that slow; more would leave no time for the others
            try:
                seconds[impl].append(servers[impl].once())
            except Gone as why:
                notes.append(str(why))
                servers.pop(impl).stop()
    for impl, s in servers.items():
        try:
            results[impl] = dict(s.finish(), seconds=seconds[impl])
        except (Gone, ValueError) as why:
            notes.append(f"{impl}: {why}")
            s.stop()
    return results


def once(command, threads=1, limit=600):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(threads), preexec_fn=cores(threads), timeout=limit, cwd=ROOT)
    if done.returncode:
        raise Gone(f"{' '.join(map(str, command[-4:]))}: status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}")
    return json.loads(done.stdout.strip().splitlines()[-1] if "--ops" not in command else done.stdout)


def sgemm(threads):
    """The peak to measure against: OpenBLAS's own choice of kernels, or the ones made for this CPU's vectors where it does better with them
    (a library older than the CPU chooses badly: it does not know the model's number)."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    cores = [None] + [core for flag, core in (("avx512f", "SkylakeX"), ("avx2", "Haswell")) if flag in flags]
    return max(once(["env", *([f"OPENBLAS_CORETYPE={core}"] if core else []), OUT / "sgemm", threads], threads)["best_gflops"] for core in cores)


def peers():
    """{impl: (python, version)} of what can be imported."""
    found = {}
    for name in ("torch", "jax"):
        for python in (VENV, pathlib.Path("/usr/bin/python3")):
            if python.exists() and name not in found:
                done = subprocess.run([python, "-c", f"import {name}; print({name}.__version__)"], capture_output=True, text=True)
                if done.returncode == 0:
                    found[name] = (python, done.stdout.strip())
    return found


def command_of(impl, have, w, what, threads, variant=None, T=None, runs=1):
    if impl == "didact":
        c = [OUT / "engine", w, what, threads, runs]
    else:
        c = [have[impl][0], ROOT / f"bench/peers/{impl}_gtn.py", w, what, threads, runs, variant]
    return c + ([f"T={T}"] if T else [])


def agree(got, want):
    """A compiler's mistake shows here, on the very sizes that are timed; float32 through T steps costs far less than 1 %."""
    if any(not abs(x - y) <= 0.01 * abs(y) for x, y in zip(got, want)):
        raise Gone(f"computes {got} where the first variant has {want}: left out")


def tune(a, have, notes):
    """{(impl, w, what): fastest variant}; one short run each, remembered for this processor and these versions."""
    path, key = OUT / "tuned.json", json.dumps([cpu(), {k: v[1] for k, v in have.items()}, max(a.threads)])
    known = json.loads(path.read_text()) if path.exists() else {}
    mine = known.setdefault(key, {})
    best = {}
    for impl in have:
        for w in a.workloads:
            for what in a.whats:
                fastest = a.limit
                tried = mine.setdefault(f"{impl} {w} {what}", {})
                names = TRY[impl, what == "inner"][:1 if a.quick else None]
                if impl == "torch" and have[impl][1].startswith("1."):
                    names = [n for n in names if not set(n.split("-")) & {"compile", "fwdrev"}]
                for v in names:
                    if v in tried or (a.quick and tried):
                        continue
                    start = time.monotonic()
                    try:  # whoever takes twice as long as the fastest so far, compilation and all, with half a minute's grace, is out
                        said = once(command_of(impl, have, w, what, max(a.threads), v, a.T or 4, 2), max(a.threads), min(a.limit, 2 * fastest + 30))
                        agree(said["value"], mine.setdefault(f"value {w} {what} {a.T or 4}", said["value"]))
                        tried[v] = said["median_s"]
                        fastest = min(fastest, time.monotonic() - start)
                    except (Gone, subprocess.TimeoutExpired) as why:
                        tried[v] = None
                        notes.append(f"{impl} {v} {w} {what}: {str(why)[:160]}")
                    say(f"  {impl:6} {w} {what:7} {v:18} {tried[v]} s at T = {a.T or 4}")
                    if not a.quick:
                        path.write_text(json.dumps(known, indent=1))
                usable = {v: s for v, s in tried.items() if s is not None}
                if usable:
                    best[impl, w, what] = min(usable, key=usable.get)
    return best


def cpu():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return "?"


def measure_all(a, have):
    r = dict(cells=[], notes=[], extras={}, ops=[])
    say("which variant of each peer")
    r["tuned"] = {" ".join(k): v for k, v in tune(a, have, r["notes"]).items()}
    cap = a.seconds
    for w in a.workloads:
        for what in a.whats:
            for n in a.threads:
                commands = {"didact": command_of("didact", have, w, what, n, T=a.T)}
                for impl in have:
                    variant = r["tuned"].get(f"{impl} {w} {what}")
                    if variant:
                        commands[impl] = command_of(impl, have, w, what, n, variant, a.T)
                peak = [sgemm(n)]
                got = alternate(commands, n, a.runs, cap, a.limit, r["notes"])
                peak.append(sgemm(n))
                r["cells"].append(dict(w=w, what=what, threads=n, sgemm=statistics.mean(peak), results=got))
                say(f"{w} {what} {n}:", "  ".join(f"{i} {g['median_s']} s" for i, g in got.items()), f" sgemm {peak}")
    extras(a, have, r, cap)
    return r


def extras(a, have, r, cap):
    """What is compared with ourselves, and the candidates."""
    n, T = max(a.threads), a.T
    for w in a.workloads:
        for threads in a.threads:
            own = {k: command_of("didact", have, w, k, threads, T=T) for k in ("inner", "unroll")}
            own["kept"] = own["unroll"] + [f"mib={KEEP_MIB}"]
            r["extras"][f"own {w} {threads}"] = alternate(own, threads, a.runs, cap, a.limit, r["notes"])
        r["extras"][f"K {w}"] = alternate({f"K={k}": command_of("didact", have, w, "outer", n, T=T) + [f"K={k}"] for k in (1, 8)}, n, a.runs, cap, a.limit, r["notes"])
        r["ops"].append(once(command_of("didact", have, w, "outer", 1, T=T) + ["--ops"]))
    sizes = [f"n={4 if a.quick else 64}", f"T={T or 32}"]
    lists = OUT / "candidates.json"
    lists.write_text(subprocess.run([OUT / "candidates", "--list", *sizes], capture_output=True, text=True, check=True).stdout)
    commands = {"didact": [OUT / "candidates", n, 1, *sizes]}
    if "torch" in have:
        for variant in ["plain", "nhwc"][:1 if a.quick else 2]:
            commands["torch " + variant] = [have["torch"][0], ROOT / "bench/peers/torch_gtn.py", "candidates", lists, n, 1, variant]
    r["extras"]["candidates"] = alternate(commands, n, a.runs, cap, a.limit, r["notes"])
    for k, v in r["extras"].items():
        say(k, {i: g["median_s"] for i, g in v.items()})


# ---------------------------------------------------------------- the tables
def verdict(value, aim, least, only_check):
    must, goal = aim
    if value is None or only_check:
        return "–" if value is None else f"{value:.2f}"
    ok = (lambda t: value >= t) if least else (lambda t: value <= t)
    return f"{value:.2f} " + ("goal" if ok(goal) else "reached" if ok(must) else "**short**")


def over(x, y):
    return x["median_s"] / y["median_s"] if x and y else None


def cell_table(r, have):
    rows = ["| workload | what | threads | ours s | GFLOP/s | of sgemm |" + "".join(f" {i} s | variant | × |" for i in have) + " peak MiB ours |" + "".join(f" {i} |" for i in have),
            "|" + " --- |" * (7 + 4 * len(have))]
    for c in r["cells"]:
        us = c["results"].get("didact")
        if not us:
            continue
        row = [c["w"], c["what"], c["threads"], f"{us['median_s']:.3f} ({us['min_s']:.3f}–{us['max_s']:.3f})", f"{us['gflops']:.1f}", f"{100 * us['gflops'] / c['sgemm']:.0f} %"]
        for i in have:
            p = c["results"].get(i)
            row += [f"{p['median_s']:.3f} ({p['min_s']:.3f}–{p['max_s']:.3f})", p["variant"], f"{over(p, us):.2f}"] if p else ["–", "–", "–"]
        row.append(us["peak_rss_mib"])
        row += [f"{c['results'][i]['peak_rss_mib']} (libraries {c['results'][i]['rss_before_mib']})" if i in c["results"] else "–" for i in have]
        rows.append("| " + " | ".join(map(str, row)) + " |")
    return rows


def target_table(r, a):
    rows = ["| figure | must | goal | " + " | ".join(f"{n} thread{'s' * (n > 1)}" for n in a.threads) + " |", "|" + " --- |" * (3 + len(a.threads))]
    find = {(c["w"], c["what"], c["threads"]): c for c in r["cells"]}

    def row(name, aim, values, least=True):
        rows.append(f"| {name} | {aim[0]} | {aim[1]} | " + " | ".join(verdict(v, aim, least, a.quick or a.T) for v in values) + " |")

    def ratio(impl, w, what, n):
        got = find.get((w, what, n), {}).get("results", {})
        return over(got.get(impl), got.get("didact"))
    for (impl, what), aims in ((k, v) for k, v in TARGETS.items() if isinstance(k, tuple)):
        for w in a.workloads:
            row(f"{what}, {impl} over ours, {w} (×)", aims[w], [ratio(impl, w, what, n) for n in a.threads])
    for w in a.workloads:
        own = [r["extras"].get(f"own {w} {n}", {}) for n in a.threads]
        row(f"outer step without generator and meta-batch over inner training, all computed again, {w} (×, at most)", (4.3, 3.8), [over(o.get("unroll"), o.get("inner")) for o in own], False)
        row(f"the same, activations and adjoints kept, {w} (×, at most)", (3.6, 3.2), [over(o.get("kept"), o.get("inner")) for o in own], False)
    for w in a.workloads:
        cells = [find.get((w, "inner", n)) for n in a.threads]
        row(f"inner training, share of sgemm, {w} (%)", TARGETS["share"][w], [100 * c["results"]["didact"]["gflops"] / c["sgemm"] if c and "didact" in c["results"] else None for c in cells])
    for w in a.workloads:
        def memory(n):
            got = find.get((w, "outer", n), {}).get("results", {})
            return (got["torch"]["peak_rss_mib"] - got["torch"]["rss_before_mib"]) / got["didact"]["peak_rss_mib"] if {"torch", "didact"} <= set(got) else None
        row(f"peak memory of the outer step, torch (less its libraries) over ours, {w} (×)", (8, 8), [memory(n) for n in a.threads])
    last = [None] * (len(a.threads) - 1)
    for w in a.workloads:
        k1, k8 = (r["extras"].get(f"K {w}", {}).get(f"K={k}") for k in (1, 8))
        if k1 and k8:
            bound = 8 * (k1["median_s"] - k1["gen_s"]) + 1.1 * k1["gen_s"]
            row(f"K = 8 over 8 × learner + 1.1 × generator of K = 1, {w} (at most)", (1, 1), last + [k8["median_s"] / bound], False)
    c = r["extras"].get("candidates", {})
    theirs = min((v for k, v in c.items() if k != "didact"), key=lambda v: v["median_s"], default=None)
    if theirs and "didact" in c:
        row(f"candidates ({c['didact']['what']} steps), torch ({theirs['variant']}) one after the other, over ours (×)", (4, 6), last + [over(theirs, c["didact"])])
    return rows


def roofline(r, machine):
    rows = []
    peak, memory = machine["sgemm"][1], machine["copy_gbs"]
    for o in r["ops"]:
        rows += ["", f"### {o['w']}, outer step, 1 thread, {o['isa']}: {o['seconds']:.3f} s, of which in ops {sum(x['ms'] for x in o['ops']) / 1000:.3f} s", "",
                 "| net | op | layer | in (N,H,W,C) | out | rule | calls | ms | % | GFLOP/s | GB/s | bound |", "|" + " --- |" * 12]
        total = sum(x["ms"] for x in o["ops"])
        small = 0.0
        for x in sorted(o["ops"], key=lambda x: -x["ms"]):
            if x["ms"] < total / 200:
                small += x["ms"]
                continue
            s = x["ms"] / 1000
            rate, speed = x["gflop"] / s, x["mib"] / 1024 / s * 1.073741824
            arithmetic, traffic = rate / peak, speed / memory
            bound = "arithmetic" if arithmetic > max(0.5, traffic) else "memory" if traffic > 0.5 else "neither: latency, short loops or cache"
            name = f"{x['op']} {x['k']}×{x['k']}" if x["k"] else x["op"]
            rows.append(f"| {x['net']} | {name} | {x['layer']} | {'×'.join(map(str, x['in']))} | {'×'.join(map(str, x['out']))} | {x['rule']} | {x['calls']} | {x['ms']:.1f} | "
                        f"{100 * x['ms'] / total:.1f} | {rate:.1f} | {speed:.1f} | {bound} ({100 * arithmetic:.0f} % / {100 * traffic:.0f} %) |")
        rows.append(f"| | the rest, each under 0.5 % | | | | | | {small:.1f} | {100 * small / total:.1f} | | | |")
    return rows


def copy_speed():
    """One thread's memory traffic, GB/s: bytes read and written by a copy that no cache holds."""
    a = bytearray(256 << 20)
    b = memoryview(bytearray(256 << 20))
    best = 0.0
    for _ in range(4):
        t = time.perf_counter()
        b[:] = a
        best = max(best, 2 * len(a) / (time.perf_counter() - t) / 1e9)
    return best


def merge(a, r, machine):
    """Earlier cells of the same processor, commit and versions join; the tables then speak of all of them."""
    try:
        old = json.loads((OUT / "engine.json").read_text())
    except (OSError, ValueError):
        return
    if any(old["machine"][k] != json.loads(json.dumps(machine))[k] for k in ("cpu", "commit", "peers")) or old.get("T") != a.T:
        r["notes"].append("the last run was of another processor, commit, version or T: not merged")
        return
    new = {(c["w"], c["what"], c["threads"]) for c in r["cells"]}
    r["cells"] = sorted([c for c in old["cells"] if (c["w"], c["what"], c["threads"]) not in new] + r["cells"], key=lambda c: (c["w"], WHATS.index(c["what"]), c["threads"]))
    r["extras"] = {**old["extras"], **r["extras"]}
    r["ops"] = sorted([o for o in old["ops"] if o["w"] not in a.workloads] + r["ops"], key=lambda o: o["w"])
    r["notes"] = old["notes"] + r["notes"]
    for key, i in (("workloads", "w"), ("whats", "what"), ("threads", "threads")):
        setattr(a, key, sorted({c[i] for c in r["cells"]}, key=WHATS.index if i == "what" else None))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="few steps, one run, first variants: does it work at all; no figure of it means anything")
    p.add_argument("--runs", type=int, default=None, help="timed runs of each implementation in a cell (5)")
    p.add_argument("--seconds", type=float, default=240, help="after two rounds, a cell ends after so many seconds")
    p.add_argument("--limit", type=float, default=900, help="longest wait for one answer, warm-up and compilation included")
    p.add_argument("--only", dest="workloads", type=lambda s: s.split(","), default=list(WORKLOADS), help="W1,W2,W3")
    p.add_argument("--what", dest="whats", type=lambda s: s.split(","), default=list(WHATS), help="inner,direct,outer")
    p.add_argument("--threads", type=lambda s: [int(x) for x in s.split(",")], default=[1, 2], help="1,2")
    p.add_argument("--peers", type=lambda s: s.split(","), default=["torch", "jax"], help="torch,jax")
    p.add_argument("--merge", action="store_true", help="keep the cells of the last run (build/bench/engine.json) that this one does not measure")
    p.add_argument("-T", type=int, default=None, help="inner steps (the workload's own)")
    a = p.parse_args()
    a.runs = a.runs or (1 if a.quick else 5)
    a.T = a.T or (2 if a.quick else None)
    OUT.mkdir(parents=True, exist_ok=True)
    have = {k: v for k, v in peers().items() if k in a.peers}
    if not have:
        say("no peer is installed: bench/setup-peers.sh makes them; going on with our own side")
    began = datetime.datetime.now().astimezone()
    machine = dict(cpu=cpu(), cores=os.cpu_count(), mem_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20, kernel=platform.release(),
                   load=os.getloadavg(), cc=output_of("cc", "--version"), commit=output_of("git", "describe", "--always", "--dirty"), date=began.isoformat(timespec="minutes"),
                   command=" ".join(["bench/run.py"] + sys.argv[1:]), peers={k: v[1] for k, v in have.items()}, copy_gbs=copy_speed(), sgemm={n: sgemm(n) for n in sorted({1, *a.threads})})
    r = measure_all(a, have)
    if a.merge:
        merge(a, r, machine)
    (OUT / "engine.json").write_text(json.dumps(dict(machine=machine, T=a.T, **r), indent=1))
    text = [f"# The engine and its peers, {machine['date']}", "",
            f"{machine['cpu']}, {machine['cores']} cores, {machine['mem_mib']} MiB, Linux {machine['kernel']}; {machine['cc']}; commit {machine['commit']}; "
            + ", ".join(f"{k} {v}" for k, v in machine["peers"].items()) + f". Load at the start {machine['load'][0]:.1f}. `{machine['command']}`.",
            f"sgemm (OpenBLAS, best of 5) " + ", ".join(f"{g:.0f} GFLOP/s on {n} thread{'s' * (n > 1)}" for n, g in machine["sgemm"].items())
            + f"; copy {machine['copy_gbs']:.1f} GB/s. Seconds are medians (least–most); × is the peer's time over ours."]
    if a.quick or a.T:
        text += ["", f"**T = {a.T}, {a.runs} run: only a check that everything works; no figure here means anything.**"]
    text += ["", "## What must be shown", "", *target_table(r, a), "", "## Every cell", "", *cell_table(r, have), "", "## Where the time goes", *roofline(r, machine), ""]
    if r["notes"]:
        text += ["## Not measured", "", *(f"* {n}" for n in r["notes"]), ""]
    (OUT / "engine.md").write_text("\n".join(text))
    say(f"{OUT / 'engine.md'}, {OUT / 'engine.json'}: {(datetime.datetime.now().astimezone() - began).seconds} s")


if __name__ == "__main__":
    main()
