#!/usr/bin/env bash
# What the engine is compared with: JAX and PyTorch in build/bench/venv. Never called by the build or by any test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'T'
bench/setup-peers.sh            make build/bench/venv with JAX and PyTorch 2 (about 700 MB to download, 2.5 GB on disk)
bench/setup-peers.sh --debian   JAX in the venv, and Debian's PyTorch 1.13 in place of PyTorch 2 (300 MB)
bench/setup-peers.sh --gpu      instead, build/bench/venv-gpu with both frameworks for an NVIDIA GPU (some 4 GB to download)
bench/setup-peers.sh --help

From PyPI: jax[cpu] with numpy, scipy, ml_dtypes, opt_einsum (140 MB); torch (540 MB: PyPI's wheel for Linux is the one for
GPUs, but its CPU side is complete: MKL and oneDNN) with typing_extensions, sympy, networkx, jinja2, fsspec, filelock (9 MB), and of
its GPU libraries only the CUDA runtime and CUPTI (15 MB). The others (2.5 GB) are left out; small stand-ins that define their
symbols let the import succeed (bench/peers/gpu_stubs.py), for no CPU code calls them.
From Debian: python3-venv, python3-dev, g++ and binutils (torch.compile and the stand-ins need them); taskset is in util-linux.
Where PyTorch 2 cannot be imported in the end, python3-torch 1.13, python3-numpy and libopenblas0-openmp from Debian.

For a GPU, from PyPI: torch and jax[cuda13] with all of CUDA 13's libraries; the GPU's driver must know CUDA 13 (580 or newer). bench/gpu.sh
finds that venv by itself. A machine without a network may have a Python with PyTorch or JAX for its GPU: PEERS_PYTHON=… bench/gpu.sh.
T
}

case "${1:-}" in
    --help | -h) usage; exit 0 ;;
    "" | --debian | --gpu) ;;
    *) usage >&2; exit 64 ;;
esac

apt() { # as root where we are not
    if [ "$(id -u)" = 0 ]; then apt-get "$@"; else sudo apt-get "$@"; fi
}
missing() { for p in "$@"; do dpkg -s "$p" >/dev/null 2>&1 || echo "$p"; done; }
install() {
    mapfile -t want < <(missing "$@")
    [ ${#want[@]} = 0 ] || { apt update -q && apt install -y --no-install-recommends "${want[@]}"; }
}

install python3-venv python3-dev g++ binutils
if [ "${1:-}" = --gpu ]; then
    venv=build/bench/venv-gpu
    mkdir -p build/bench
    [ -x $venv/bin/python ] || /usr/bin/python3 -m venv $venv
    $venv/bin/pip install --quiet torch 'jax[cuda13]'
    $venv/bin/python -c 'import torch, jax; print("torch", torch.__version__, "sees a GPU:", torch.cuda.is_available(), "- jax", jax.__version__, "sees", jax.devices())'
    echo "Now: bench/gpu.sh"
    exit 0
fi
venv=build/bench/venv
mkdir -p build/bench
[ -x $venv/bin/python ] || /usr/bin/python3 -m venv $venv
$venv/bin/pip install --quiet 'jax[cpu]'

torch_works() { "$1" -c 'import torch; torch.ones(2, 2) @ torch.ones(2, 2)' 2>/dev/null; }
if [ "${1:-}" != --debian ] && ! torch_works $venv/bin/python; then
    $venv/bin/pip install --quiet 'setuptools>=77' typing_extensions sympy networkx jinja2 fsspec filelock
    $venv/bin/pip install --quiet --no-deps torch nvidia-cuda-runtime nvidia-cuda-cupti
    $venv/bin/python bench/peers/gpu_stubs.py "$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
fi
if ! torch_works $venv/bin/python; then
    echo "PyTorch 2 is not there or cannot be imported: taking Debian's 1.13" >&2
    install python3-torch python3-numpy libopenblas0-openmp
    torch_works /usr/bin/python3
fi
for python in $venv/bin/python /usr/bin/python3; do
    $python - 2>/dev/null <<'P' || true
import importlib, sys
for name in ("jax", "torch"):
    try:
        print(sys.executable, name, importlib.import_module(name).__version__)
    except ImportError:
        pass
P
done
echo "Now: build/bench/venv/bin/python bench/peers/check.py && make bench-engine"
