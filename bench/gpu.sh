#!/bin/bash
# gpu.sh [OUT [PART…]] - all there is to do on a machine with an NVIDIA GPU: build the backend, test it against the CPU's engine, time it, time
# the peers on the same GPU, and say in a table how they compare (OUT/table.txt).
# Results go to OUT (build/bench/gpu). Every part says what it did and goes on where another failed; the status is that of the last that did.
# PART: only the parts whose names begin with one of these words (build, test_, check-, rounded-, inner-, direct-, outer-, candidates-, profile, peers, table).
# The peers run in PEERS_PYTHON, else in the venv of bench/setup-peers.sh --gpu; PEERS_ARGS has options for bench/peers/gpu.py (--only, --limit).
set -u
cd "$(dirname "$0")/.." || exit 70
out=${1:-build/bench/gpu}
[ $# -eq 0 ] || shift
parts=("$@")
mkdir -p "$out"
worst=0
wanted() { # NAME
    local p
    for p in "${parts[@]}"; do
        case $1 in "$p"*) return 0 ;; esac
    done
    [ ${#parts[@]} -eq 0 ]
}
part() { # NAME COMMAND…
    local name=$1 rc=0
    shift
    wanted "$name" || return 0
    echo "== $name"
    "$@" >"$out/$name.txt" 2>&1 || rc=$?
    tail -n 3 "$out/$name.txt"
    [ $rc -eq 0 ] || { echo "   status $rc, see $out/$name.txt"; worst=$rc; }
}

nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || { echo "no NVIDIA GPU here: nothing to do" >&2; exit 69; }
python3 bench/gpu_table.py --gpu >"$out/gpu.txt"
cc=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
part build make -j"$(nproc)" CUDA=1 CUDA_CC="$cc" all build/release/tests/prop/test_slab build/release/tests/prop/test_lanes build/release/tests/unit/test_teacher_device build/bench/slab build/bench/engine build/bench/candidates
export DIDACT_CUDA=$PWD/build/release/didact-cuda.so
part test_slab build/release/tests/prop/test_slab
part test_lanes build/release/tests/prop/test_lanes
part test_teacher_device build/release/tests/unit/test_teacher_device
for w in W1 W2 W3; do
    part "check-$w" build/bench/slab $w direct 1 1 check
    part "check-$w-T4" build/bench/slab $w direct 1 1 T=4 check
    for d in cuda-tf32 cuda-bf16; do # rounded factors: how far off, and what for
        part "check-$w-T4-$d" build/bench/slab $w direct 1 1 T=4 device=$d check
        part "rounded-$w-$d" build/bench/slab $w direct 8 device=$d
    done
done
part check-candidates build/bench/candidates --check 2 n=16 inits=2 T=8 device=cuda
for w in W1 W2 W3; do
    for k in 1 8 32 128; do
        part "inner-$w-$k" build/bench/slab $w inner $k
        part "direct-$w-$k" build/bench/slab $w direct $k
        part "outer-$w-$k" build/bench/slab $w outer $k   # an outer step with the generator
    done
    part "outer-$w-1-lean" build/bench/slab $w outer 1 lanes=1
done
for threads in 1 4 16; do # 256 candidates: all of different shapes; 8 initialisations of each of 32
    part "candidates-shapes-$threads" build/bench/candidates $threads 5 n=256 device=cuda
    part "candidates-inits-$threads" build/bench/candidates $threads 5 n=32 inits=8 device=cuda
done
if command -v nsys >/dev/null; then
    part profile nsys profile --stats=true --force-overwrite=true -o "$out/profile" build/bench/slab W1 direct 8 2
fi
grep -h '^{' "$out"/inner-*.txt "$out"/direct-*.txt "$out"/outer-*.txt "$out"/candidates-*.txt >"$out/slab.jsonl" 2>/dev/null
python=${PEERS_PYTHON:-build/bench/venv-gpu/bin/python}
if command -v "$python" >/dev/null; then
    # shellcheck disable=SC2086 # several words
    part peers "$python" bench/peers/gpu.py --out "$out" ${PEERS_ARGS:-}
elif wanted peers; then
    echo "== peers: left out, for there is no $python (bench/setup-peers.sh --gpu makes it; PEERS_PYTHON names another)"
fi
part table python3 bench/gpu_table.py "$out"
wanted table && sed -n '/^| figure/,/^$/p' "$out/table.txt"
exit $worst
