#!/bin/bash
# shellcheck disable=SC2317 # what parts() is given is called there
# gpu.sh [--limit S] [--budget S] [--tar FILE] [--no-build] [--list] [OUT [PART…]] - all there is to do on a machine with an NVIDIA GPU: build the backend,
# test it against the CPU's engine, time it, time the peers on the same GPU, and say in a table how they compare (OUT/table.txt).
# Results go to OUT (build/bench/gpu), and at the end, or when a signal ends it, all but what can be made again to FILE (OUT.tar.gz), as one file to take away.
#   PART…       only the parts of these names, or whose names begin with one of these words; --list says them in their order: what says most comes first
#   --limit S   seconds a part may take (60); a check of all steps ten times as many; builds and peers as many as they want
#   --budget S  seconds for all: what they cut off or leave out is named, and the status is 75 where nothing is worse
#   --no-build  with the programs as they are. They are used so as well where they are not older than their sources, or where a build fails: a machine
#               without our libraries' headers takes build/bench, build/release/tests and build/release/didact-cuda.so from another, and the shared
#               libraries in a folder that LD_LIBRARY_PATH names
# A part that ended well is not done again while OUT is kept (FILE, unpacked beside OUT, brings it back), unless PART is its whole name. A part that fails does
# not stop the others; the status is that of the last that failed.
# The peers run in PEERS_PYTHON, else in the venv of bench/setup-peers.sh --gpu, else in a python3 that has PyTorch or JAX; PEERS_ARGS has options for
# bench/peers/gpu.py (--only, --limit, --again). DIDACT_CUDA names another backend than the build's.
set -u
cd "$(dirname "$0")/.." || exit 70
usage() { sed -n '3,/^set/{/^set/d;s/^# \{0,1\}//;p}' bench/gpu.sh; }

limit=60 budget=0 file='' build=1 list=0
whole() { # TEXT OPTION
    case $1 in '' | *[!0-9]* | 0*) echo "gpu.sh: $2: '$1' is no number of seconds" >&2; exit 64 ;; esac
}
while [ $# -gt 0 ]; do
    case $1 in
    --limit | --budget | --tar)
        [ $# -gt 1 ] || { echo "gpu.sh: $1 wants a value" >&2; exit 64; }
        case $1 in
        --limit) whole "$2" --limit; limit=$2 ;;
        --budget) whole "$2" --budget; budget=$2 ;;
        --tar) file=$2 ;;
        esac
        shift ;;
    --no-build) build=0 ;;
    --list) list=1 ;;
    --help | -h) usage; exit 0 ;;
    -*) echo "gpu.sh: unknown option $1" >&2; exit 64 ;;
    *) break ;;
    esac
    shift
done
out=${1:-build/bench/gpu}
[ $# -eq 0 ] || shift
asked=("$@")
out=${out%/}
file=${file:-$out.tar.gz}

# ---- the longer commands: what is there and not older than its sources is not built ----
fresh() { # FILE FOLDER…
    local f=$1
    shift
    [ -e "$f" ] && [ -z "$(find "$@" Makefile \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.proto' -o -name Makefile \) -newer "$f" -print -quit)" ]
}
programs=(build/release/tests/prop/test_slab build/release/tests/prop/test_lanes build/release/tests/unit/test_teacher_device
    build/bench/slab build/bench/candidates build/bench/gpu_fault)
backend=build/release/didact-cuda.so
nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc || echo nvcc)
cc=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
cc=${cc:-75 80 90}
make_programs=(echo "all are there, not older than their sources")
for p in "${programs[@]}"; do
    fresh "$p" common coordinator worker client proto tests bench || make_programs=(make -k -j"$(nproc)" "${programs[@]}" all) # as many as can be
done
make_backend=(echo "it is there, not older than its sources")
fresh "$backend" worker/engine common || make_backend=(make CUDA=1 "NVCC=$nvcc" "CUDA_CC=$cc" "$backend")
export DIDACT_CUDA=${DIDACT_CUDA:-$PWD/$backend}
has_a_peer() { command -v "$1" >/dev/null && "$1" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") or u.find_spec("jax")))'; }
python=${PEERS_PYTHON:-}
for p in build/bench/venv-gpu/bin/python python3; do
    [ -n "$python" ] || ! has_a_peer $p || python=$p
done
peers=(sh -c 'echo "no Python has PyTorch or JAX: bench/setup-peers.sh --gpu makes one, PEERS_PYTHON names one"; exit 69')
# shellcheck disable=SC2206 # several words
[ -z "$python" ] || peers=("$python" bench/peers/gpu.py --out "$out" ${PEERS_ARGS:-})

# ---- the parts, in order of worth ----
slabs() { # F K RUNS: all that is timed with K learners
    local w what
    for w in W1 W2 W3; do
        for what in outer direct inner; do # outer: a step with the generator
            $1 "$what-$w-$2" "$limit" build/bench/slab $w $what "$2" "$3"
        done
    done
}
parts() { # F: what is done with each, F NAME SECONDS COMMAND…; 0 seconds: as long as it takes
    local f=$1 w d threads
    $f build 0 "${make_programs[@]}"
    $f backend 0 "${make_backend[@]}"
    $f test_lanes "$limit" build/release/tests/prop/test_lanes
    $f test_slab "$limit" build/release/tests/prop/test_slab
    $f test_teacher_device "$limit" build/release/tests/unit/test_teacher_device
    for d in cuda cuda-tf32 cuda-bf16; do # rounded factors: how far off
        for w in W1 W3 W2; do
            [ $w != W2 ] || [ $d = cuda ] || continue # the CPU's double takes long: last
            $f "check-$w-T4-$d" "$limit" build/bench/slab $w direct 1 1 T=4 device=$d check
        done
    done
    $f check-candidates "$limit" build/bench/candidates --check 2 n=16 inits=2 T=8 device=cuda
    slabs "$f" 1 5
    slabs "$f" 8 5
    for threads in 16 4 1; do # 256 candidates: all of different shapes; 8 initialisations of each of 32
        $f "candidates-shapes-$threads" "$limit" build/bench/candidates $threads 3 n=256 device=cuda
        $f "candidates-inits-$threads" "$limit" build/bench/candidates $threads 3 n=32 inits=8 device=cuda
    done
    for w in W1 W2 W3; do
        $f "outer-$w-1-lean" "$limit" build/bench/slab $w outer 1 lanes=1
    done
    $f fault "$limit" build/bench/gpu_fault # a kernel that writes where nothing lies, in a process of its own; the times above cannot suffer from it
    [ "$budget" = 0 ] || peers+=(--budget $((budget - SECONDS - 3))) # it names what it leaves out
    $f peers 0 "${peers[@]}"
    $f table "$limit" python3 bench/gpu_table.py "$out"
    slabs "$f" 32 3
    slabs "$f" 128 2
    for w in W1 W3 W2; do
        for d in cuda-tf32 cuda-bf16; do # what they are for
            $f "rounded-$w-$d" "$limit" build/bench/slab $w direct 8 3 device=$d
        done
    done
    for d in cuda-tf32 cuda-bf16; do
        $f check-W2-T4-$d "$limit" build/bench/slab W2 direct 1 1 T=4 device=$d check
    done
    for w in W1 W3 W2; do # all steps: nearly all of it is the CPU's time
        $f "check-$w" $((limit * 10)) build/bench/slab $w direct 1 1 check
    done
    ! command -v nsys >/dev/null || $f profile "$limit" nsys profile --stats=true --force-overwrite=true -o "$out/profile" build/bench/slab W1 direct 8 2
}
names=()
name_it() { names+=("$1"); }
parts name_it
by_name=() by_word=() # a word that is a whole name is that part alone
for p in "${asked[@]}"; do
    begins=no
    for n in "${names[@]}"; do
        [ "$n" != "$p" ] || { by_name+=("$p"); continue 2; }
        case $n in "$p"*) begins=yes ;; esac
    done
    [ $begins = no ] || { by_word+=("$p"); continue; }
    echo "gpu.sh: no part begins with '$p' (--list)" >&2
    exit 64
done
if [ $list = 1 ]; then
    printf '%s\n' "${names[@]}"
    exit 0
fi

# ---- doing them ----
worst=0 left_out=() pid=''
named() { # NAME
    local p
    for p in "${by_name[@]}"; do
        [ "$p" != "$1" ] || return 0
    done
    return 1
}
wanted() { # NAME
    local p
    ! named "$1" || return 0
    for p in "${by_word[@]}"; do
        case $1 in "$p"*) return 0 ;; esac
    done
    [ ${#asked[@]} -eq 0 ]
}
over_with() { # NAME: it ended well, and nobody asks for it by name
    case $1 in build | backend | table) return 1 ;; esac
    ! named "$1" && [ "$(sed -n "s/^$1 status \([0-9]*\),.*/\1/p" "$out/parts.log" 2>/dev/null | tail -n 1)" = 0 ]
}
part() { # NAME SECONDS COMMAND…
    local name=$1 most=$2 rc=0 cut=0 left t0=$SECONDS
    shift 2
    wanted "$name" || return 0
    case $build$name in 0build | 0backend) return 0 ;; esac
    ! over_with "$name" || return 0
    if [ "$budget" != 0 ] && [ "$name" != table ]; then
        left=$((budget - SECONDS))
        [ "$left" -ge 5 ] || { left_out+=("$name"); return 0; }
        [ "$most" != 0 ] && [ "$most" -le "$left" ] || most=$left cut=1
    fi
    echo "== $name"
    timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>&1 & # behind, for a trap waits for what is before
    pid=$!
    wait "$pid" || rc=$?
    pid=''
    tail -n 3 "$out/$name.txt"
    echo "$name status $rc, $((SECONDS - t0)) s" >>"$out/parts.log"
    case $cut-$rc in
    *-0) return ;;
    1-124 | 1-137) left_out+=("$name (cut off)"); return ;;
    *-75) [ "$name" != peers ] || { left_out+=("$name (of its cells)"); return; } ;;
    esac
    echo "   status $rc, see $out/$name.txt"
    worst=$rc
}
finish() { # the table of what there is, and the file
    trap '' TERM INT HUP
    [ -z "$pid" ] || { kill "$pid"; wait "$pid"; } 2>/dev/null
    if wanted table; then
        python3 bench/gpu_table.py "$out" >"$out/table.txt"
        sed -n '/^| figure/,/^$/p' "$out/table.txt"
    fi
    [ ${#left_out[@]} -eq 0 ] || printf 'left out, for there was no time: %s\n' "${left_out[*]}" | tee "$out/left_out.txt"
    tar -C "$(dirname "$out")" --exclude=inductor --exclude=jaxcache --exclude='candidates-*.f32' --exclude='candidates-*.json' --exclude='*.sqlite' --exclude='*.tar.gz*' \
        -czf "$file.part" "$(basename "$out")" && mv "$file.part" "$file" && echo "all of it: $file"
}
nvidia-smi >/dev/null 2>&1 || { echo "no NVIDIA GPU here: nothing to do" >&2; exit 69; }
mkdir -p "$out" "$(dirname "$file")"
rm -f "$out/left_out.txt"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
python3 bench/gpu_table.py --gpu >"$out/gpu.txt"
trap 'finish; exit 143' TERM
trap 'finish; exit 130' INT
trap 'finish; exit 129' HUP
parts part
finish
[ $worst -ne 0 ] || [ ${#left_out[@]} -eq 0 ] || worst=75
exit $worst
