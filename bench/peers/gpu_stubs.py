#!/usr/bin/env python3
"""Let PyPI's PyTorch wheel be imported without the 2 GB of GPU libraries that it is linked to: for each of them that is
not there, a small shared library of the same name that defines the wanted symbols and nothing behind them. The
CPU's code never calls one. For benchmarks alone (bench/setup-peers.sh).
usage: gpu_stubs.py SITE_PACKAGES"""
import pathlib
import re
import subprocess
import sys
import tempfile

# the prefixes of the symbols of those libraries whose symbols bear no version
PLAIN = {"libcusparseLt": "cusparseLt", "libnccl": "nccl|pnccl", "libcufile": "cuFile"}


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    site = pathlib.Path(sys.argv[1])
    libs = sorted(site.glob("torch/lib/*.so"))
    needed, undefined = set(), set()
    for lib in libs:
        needed |= set(re.findall(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]", said("readelf", "-d", lib)))
        undefined |= {line.split()[-1] for line in said("nm", "-D", "--undefined-only", lib).splitlines()}
    needed.discard("libcuda.so.1")  # the driver: PyTorch asks for it late, and takes no for an answer
    where = site / "nvidia/cu13/lib"  # where the wheel looks first
    where.mkdir(parents=True, exist_ok=True)
    for name in sorted(needed):
        if (where / name).exists():
            continue
        stem = name.split(".")[0]
        version = "NVSHMEM" if stem == "libnvshmem_host" else name
        symbols = {u.split("@")[0] for u in undefined if u.partition("@")[2].lstrip("@") == version}
        if stem in PLAIN:
            symbols |= {u for u in undefined if re.match(PLAIN[stem], u)}
        with tempfile.TemporaryDirectory() as tmp:
            (pathlib.Path(tmp) / "stub.c").write_text("".join(f"char {s}[64];\n" for s in sorted(symbols)) + "int no_gpu_here;\n")
            (pathlib.Path(tmp) / "stub.map").write_text(f"{version} {{ global: *; }};\n")
            flags = [] if stem in PLAIN else [f"-Wl,--version-script={tmp}/stub.map"]
            subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", *flags, "-o", where / name, f"{tmp}/stub.c"], check=True)
        print(f"{name}: {len(symbols)} symbols")


main()
