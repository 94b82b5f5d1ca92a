#!/bin/bash
# shellcheck disable=SC2317 # what parts() is given is called there
# gpu.sh [--limit S] [--budget S] [--tar FILE] [--no-build] [--list] [OUT [PART…]] - all there is to do on a machine with an NVIDIA GPU: build the backend,
# test it against the CPU's engine, time it, time the peers on the same GPU, and say in a table how they compare (OUT/table.txt).
# Results go to OUT (build/bench/gpu), and at the end, or when a signal ends it, all but what can be made again and teachers' checkpoints to FILE (OUT.tar.gz), as one file to take away.
#   PART…       only the parts of these names, or whose names begin with one of these words; --list says them in their order. Tests come first, then what gives a number
#               to every row of the table, the profiles, the peers, and last what takes long: many learners, teachers, the sanitizer
#   --limit S   seconds a part may take (60); a check of all steps ten times as many; builds, peers and teachers as many as they want
#   --budget S  seconds for all: what they cut off or leave out is named, and the status is 75 where nothing is worse. Where no PART is named, the peers have half
#               of what is left when their turn comes
#   --no-build  with the programs as they are. They are used so as well where they are not older than their sources, or where a build fails: a machine
#               without our libraries' headers takes build/bench, build/release/tests, build/release/didact-worker and build/release/didact-cuda.so from another, and the shared
#               libraries in a folder that LD_LIBRARY_PATH names
# A part that ended well is not done again while OUT is kept (FILE, unpacked beside OUT, brings it back), unless PART is its whole name. A part that fails does
# not stop the others; the status is that of the last that failed.
# The peers run in PEERS_PYTHON, else in the venv of bench/setup-peers.sh --gpu, else in a python3 that has PyTorch or JAX; PEERS_ARGS has options for
# bench/peers/gpu.py (--only, --limit, --again), with which they run even where they are over. DIDACT_CUDA names another backend than the build's.
# GPU_DATA names a folder with mnist.safetensors (didact dataset export): the parts worker and teach-… need it. A teacher that the budget cuts off goes on from its
# checkpoint in OUT/teach-KIND the next time (FILE is without it: some 40 MB). SCORE_ARGS and TEACH_ARGS have more options for their didact-worker run.
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
    build/bench/slab build/bench/candidates build/bench/gpu_fault build/release/didact-worker)
backend=build/release/didact-cuda.so
tool() { command -v "$1" || command -v "/usr/local/cuda/bin/$1"; } # NAME
nvcc=$(tool nvcc || echo nvcc)
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

# ---- what needs more than a program and its arguments; a command that begins with `skip` is only said ----
worker=(skip "no data: GPU_DATA names a folder with mnist.safetensors")
teacher=("${worker[@]}")
# shellcheck disable=SC2016 # sh's
if [ -e "${GPU_DATA:-}/mnist.safetensors" ]; then
    worker=(sh -c 'for d in cpu cuda; do
            build/release/didact-worker run share/jobs/search-fashion-mnist.yaml --set dataset=mnist --set fidelity.inits=8 --arch "bn relu | c16k3 str2 | b16k3x2 | max2 b32k3 | flat" \
                --dataset "$1" --curriculum share/curricula/mnist-t32.safetensors --device $d --out "$2/score-$d" $3 || exit
        done
        exec python3 bench/gpu_table.py --scores "$2/score-cpu/result.json" "$2/score-cuda/result.json"' worker "$GPU_DATA/mnist.safetensors" "$out" "${SCORE_ARGS:-}")
    teacher=(sh -c 'data=$1 out=$2/teach-$3 kind=$3
        shift 3
        [ ! -e "$out/checkpoint.safetensors" ] || set -- --resume "$out/checkpoint.safetensors" "$@"
        exec build/release/didact-worker run share/jobs/teach-mnist-one.yaml --set teach.kind="$kind" --set teach.meta_steps=2000 --dataset "$data" --out "$out" \
            --device cuda "$@"' teacher "$GPU_DATA/mnist.safetensors" "$out") # exec: a signal is the worker's, which writes a checkpoint
fi
ncu=$(tool ncu) nsys=$(tool nsys) sanitizer=$(tool compute-sanitizer)
profile=(skip "neither ncu nor nsys is here")
# The first run of a plan is no graph yet, and so all its kernels are seen. Where ncu may not read the counters, nsys has the times.
# shellcheck disable=SC2016 # sh's
[ -z "$ncu$nsys" ] || profile=(sh -c 'run="build/bench/slab $4 direct 8 1 T=1" at=$3/profile-$4
    [ -z "$1" ] || { "$1" --clock-control none --section SpeedOfLight -c 400 --csv $run >"$at.csv" 2>&1 && grep -q "Kernel Name" "$at.csv" && exec cat "$at.csv"; tail -n 3 "$at.csv"; }
    [ -n "$2" ] || { echo "ncu gave no profile, and nsys is not here"; exit 69; }
    "$2" profile --trace=cuda --cuda-graph-trace=node --force-overwrite=true -o "$at" $run || exit
    for report in cuda_gpu_kern_sum gpukernsum; do
        "$2" stats --report $report --format csv --force-export=true "$at.nsys-rep" && exit
    done
    exit 69' profile "$ncu" "$nsys" "$out")
check_memory=(skip "compute-sanitizer is not here")
[ -z "$sanitizer" ] || check_memory=(env KERNEL_SEEDS=1 "$sanitizer" --error-exitcode 70 --report-api-errors no) # a test asks for more memory than there is

# ---- the parts, in order of worth ----
slabs() { # F K RUNS: all that is timed with K learners
    local w what runs most
    for w in W1 W2 W3; do
        runs=$3 most=$limit
        [ "$w$2" != W2128 ] || runs=1 most=$((limit * 2)) # some 150 TFLOP a run, three runs
        for what in outer direct inner; do # outer: a step with the generator
            $1 "$what-$w-$2" "$most" build/bench/slab $w $what "$2" "$runs"
        done
    done
}
parts() { # F: what is done with each, F NAME SECONDS COMMAND…; 0 seconds: as long as it takes
    local f=$1 w d threads kind
    $f build 0 "${make_programs[@]}"
    $f backend 0 "${make_backend[@]}"
    $f test_lanes "$limit" build/release/tests/prop/test_lanes
    $f test_slab "$limit" build/release/tests/prop/test_slab
    $f test_teacher_device "$limit" build/release/tests/unit/test_teacher_device
    $f test_oracle $((limit * 2)) tests/oracle/run build/release/didact-worker # on the GPU, too: DIDACT_CUDA
    for d in cuda cuda-tf32 cuda-bf16; do # rounded factors: how far off
        for w in W1 W3 W2; do
            [ $w != W2 ] || [ $d = cuda ] || continue # the CPU's double takes long: last
            $f "check-$w-T4-$d" "$limit" build/bench/slab $w direct 1 1 T=4 device=$d check
        done
    done
    $f check-candidates "$limit" build/bench/candidates --check 2 n=16 inits=2 T=8 device=cuda
    $f worker $((limit * 2)) "${worker[@]}"
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
    slabs "$f" 32 3
    for w in W1 W2 W3; do
        $f "profile-$w" $((limit * 2)) "${profile[@]}" $w
    done
    $f peers 0 "${peers[@]}"
    $f table "$limit" python3 bench/gpu_table.py "$out"
    for w in W1 W3; do # all steps: nearly all of it is the CPU's time
        $f "check-$w" $((limit * 10)) build/bench/slab $w direct 1 1 check
    done
    for w in W1 W3 W2; do
        for d in cuda-tf32 cuda-bf16; do # what they are for
            $f "rounded-$w-$d" "$limit" build/bench/slab $w direct 8 3 device=$d
        done
    done
    slabs "$f" 128 2
    for d in cuda-tf32 cuda-bf16; do
        $f check-W2-T4-$d "$limit" build/bench/slab W2 direct 1 1 T=4 device=$d check
    done
    for kind in gtn gtn-batches gtn-shuffled gtn-noise real; do
        # shellcheck disable=SC2086 # several words
        $f "teach-$kind" 0 "${teacher[@]}" $kind ${TEACH_ARGS:-}
    done
    $f check-W2 $((limit * 10)) build/bench/slab W2 direct 1 1 check
    $f sanitizer-memory $((limit * 5)) "${check_memory[@]}" build/release/tests/prop/test_slab
    $f sanitizer-races $((limit * 5)) "${check_memory[@]}" --tool racecheck build/release/tests/prop/test_slab
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
    case $1${PEERS_ARGS:+ more} in build* | backend* | table* | 'peers more') return 1 ;; esac
    ! named "$1" && [ "$(sed -n "s/^$1 status \([0-9]*\), [0-9]* s$/\1/p" "$out/parts.log" 2>/dev/null | tail -n 1)" = 0 ]
}
part() { # NAME SECONDS COMMAND…
    local name=$1 most=$2 rc=0 cut=0 left t0=$SECONDS with=''
    shift 2
    wanted "$name" || return 0
    case $build$name in 0build | 0backend) return 0 ;; esac
    ! over_with "$name" || return 0
    if [ "$1" = skip ]; then
        echo "== $name: left out, $2" | tee "$out/$name.txt"
        return 0
    fi
    if [ "$budget" != 0 ] && [ "$name" != table ]; then
        left=$((budget - SECONDS))
        [ "$name" != peers ] || [ ${#asked[@]} -gt 0 ] || left=$((left / 2))
        [ "$left" -ge 5 ] || { left_out+=("$name"); return 0; }
        [ "$most" != 0 ] && [ "$most" -le "$left" ] || most=$left cut=1
        [ "$name" != peers ] || set -- "$@" --budget $((left - 3)) # it names what it leaves out
    fi
    [ "$name" != peers ] || with=${PEERS_ARGS:+, with $PEERS_ARGS}
    echo "== $name"
    timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>&1 & # behind, for a trap waits for what is before
    pid=$!
    wait "$pid" || rc=$?
    pid=''
    tail -n 3 "$out/$name.txt"
    case $name-$rc in
    teach-*-0) # a worker that somebody stopped ends well, too
        if grep -q '"state": "scored"' "$out/$name/result.json"; then rm -f "$out/$name/checkpoint.safetensors"; else rc=124 cut=1; fi ;;
    esac
    echo "$name status $rc, $((SECONDS - t0)) s$with" >>"$out/parts.log"
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
    tar -C "$(dirname "$out")" --exclude=inductor --exclude=jaxcache --exclude='candidates-*.f32' --exclude='candidates-*.json' --exclude='*.sqlite' --exclude='checkpoint.safetensors' --exclude='*.tar.gz*' \
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
