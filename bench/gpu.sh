#!/bin/bash
# gpu.sh [OUT] - all there is to do on a machine with an NVIDIA GPU: build the backend, test it against the CPU's engine, time it.
# Results go to OUT (build/bench/gpu). Every part says what it did and goes on where another failed; the status is that of the worst.
set -u
cd "$(dirname "$0")/.."
out=${1:-build/bench/gpu}
mkdir -p "$out"
worst=0
part() { # NAME COMMAND…
    local name=$1 rc=0
    shift
    echo "== $name"
    "$@" >"$out/$name.txt" 2>&1 || rc=$?
    tail -n 3 "$out/$name.txt"
    [ $rc -eq 0 ] || { echo "   status $rc, see $out/$name.txt"; worst=$rc; }
}

nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || { echo "no NVIDIA GPU here: nothing to do" >&2; exit 69; }
cc=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
part build make -j"$(nproc)" CUDA=1 CUDA_CC="$cc" all build/release/tests/prop/test_slab build/release/tests/prop/test_lanes build/release/tests/unit/test_teacher_device build/bench/slab build/bench/engine
export DIDACT_CUDA=$PWD/build/release/didact-cuda.so
part test_slab build/release/tests/prop/test_slab
part test_lanes build/release/tests/prop/test_lanes
part test_teacher_device build/release/tests/unit/test_teacher_device
for w in W1 W2 W3; do
    part "check-$w" build/bench/slab $w direct 1 1 check
    part "check-$w-T4" build/bench/slab $w direct 1 1 T=4 check
done
for w in W1 W2 W3; do
    for k in 1 8 32 128; do
        part "inner-$w-$k" build/bench/slab $w inner $k
        part "direct-$w-$k" build/bench/slab $w direct $k
        part "outer-$w-$k" build/bench/slab $w outer $k   # an outer step with the generator
    done
done
if command -v nsys >/dev/null; then
    part profile nsys profile --stats=true --force-overwrite=true -o "$out/profile" build/bench/slab W1 direct 8 2
fi
grep -h '^{' "$out"/inner-*.txt "$out"/direct-*.txt "$out"/outer-*.txt >"$out/slab.jsonl"
exit $worst
