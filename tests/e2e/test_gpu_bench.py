"""bench/gpu.sh, its table and its peers, where no GPU is: programs, peers and profilers are stand-ins, the tables' input is written here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import BIN, SLOW

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "bench/peers")]

import gpu as peers  # noqa: E402
import gpu_table  # noqa: E402


# ---------------------------------------------------------------- the peers
@pytest.fixture
def time_peers(tmp_path, monkeypatch):
    """gpu.py with a PyTorch that answers at once, but where its variant is compiled."""
    (tmp_path / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: True)\n")
    (tmp_path / "torch_gtn.py").write_text("import json, sys, time\nw, what, variant = sys.argv[1], sys.argv[2], sys.argv[5]\ntime.sleep(60 * ('compile' in variant))\n"
                                           "print(json.dumps(dict(impl='torch', w=w, what=what, variant=variant, median_s=1)))\n")
    monkeypatch.setattr(peers, "HERE", tmp_path)
    monkeypatch.setattr(peers, "LEAST_S", 0.1)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(*args, status):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), "--only", "torch/W1/outer/compile,torch/W1/outer/plain,torch/W3/outer/plain", *map(str, args)])
        path = tmp_path / "peers.jsonl"
        before = path.read_text().splitlines() if path.exists() else []
        assert peers.main() == status
        return [json.loads(line) for line in path.read_text().splitlines()[len(before):]]
    return run


def names(rows):
    return [r["cell"] for r in rows]


def test_a_cell_without_an_answer_is_tried_again_with_more_time_alone(time_peers):
    rows = time_peers("--limit", 4, status=0)
    late = [r for r in rows if "error" in r]
    assert len(rows) == 3 and names(late) == ["torch/W1/outer/compile"] and late[0]["limit_s"] == 4
    assert time_peers("--limit", 4, status=0) == [] == time_peers("--limit", 3, status=0)
    assert time_peers("--limit", 4, "--again", status=0) == []
    rows = time_peers("--limit", 4.5, status=0)
    assert names(rows) == ["torch/W1/outer/compile"] and rows[0]["limit_s"] == 4.5


def test_a_cell_that_the_budget_cut_off_holds_no_other_up(time_peers):
    rows = time_peers("--budget", 6, status=75)
    slow = [r for r in rows if "error" in r]
    assert len(rows) == 3 and names(slow) == ["torch/W1/outer/compile"] and slow[0]["limit_s"] < 6
    assert time_peers("--budget", 1, status=75) == []   # less than it had
    assert peers.cells_there(Path(sys.argv[2]) / "peers.jsonl", False)[1].keys() == {"torch/W1/outer/compile"}


def test_what_no_command_has_tried_comes_before_what_gave_no_answer(time_peers, tmp_path):
    (tmp_path / "peers.jsonl").write_text(json.dumps(dict(cell="torch/W1/outer/plain", error="no answer within 1 s", limit_s=1)) + "\n" + '{"cell": "torch/W')
    rows = time_peers("--limit", 4, status=0)
    assert names(rows)[-1] == "torch/W1/outer/plain" and "median_s" in rows[-1]


def test_compiled_peers_come_right_after_a_number_for_every_row():
    order = [peers.name_of(*c) for c in peers.cells("cuda")]
    assert order[13:20] == [f"torch/{w}/outer/compile" for w in ("W1", "W3", "W2")] + [f"jax/{w}/outer/rev-lax" for w in ("W1", "W3", "W2")] + [
        "jax/candidates/inits/rev-lax-vmap/sample=8"]
    assert len(order) == len(set(order))


# ---------------------------------------------------------------- the table
H200 = dict(impl="didact", device="NVIDIA H200")


def check(w, T, kind, against, off, near=True):
    return dict(H200, w=w, what="check", kind=kind, against=against, T=T, inner_loss=off / 10, dx=off, dw0=off, dx_length=off, dw0_length=off / 2, dx_limit=3 * off, dw0_limit=2 * off,
                cpu_dx_length=2e-4, cpu_dw0_length=1e-4, near=near)


def table(out, *rows, parts="", **files):
    out.mkdir(exist_ok=True)
    (out / "rows.txt").write_text("".join(json.dumps(r) + "\n" for r in rows) + "[1]\n{ not JSON\n")
    (out / "parts.log").write_text(parts)
    for name, text in files.items():
        (out / f"{name.replace('_', '-')}.txt").write_text(text)
    r = subprocess.run([sys.executable, ROOT / "bench/gpu_table.py", out], capture_output=True, text=True, timeout=60 * SLOW)
    assert r.returncode == 0, r.stderr
    return r.stdout.splitlines()


def row_of(lines, *words):
    found = [line for line in lines if all(w in line for w in words)]
    assert len(found) == 1, (words, found)
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_the_table_says_whether_the_gpu_computes_as_the_cpu_does(tmp_path):
    lines = table(tmp_path / "out", check("W1", 4, "cuda", "double", 3e-4), check("W1", 32, "cuda", "double", 0.02), check("W2", 4, "cuda", "double", 0.5, near=False),
                  check("W3", 4, "cuda-bf16", "float32", 0.16), check("W3", 4, "cuda-tf32", "double", 0.06), dict(check("W3", 4, "cuda", "double", 1e-4), device="emulated"),
                  dict(H200, what="score", device="NVIDIA H200", loss=1e-5, accuracy=0, loss_limit=2e-3, near=True), parts="test_oracle status 0, 9 s\n")
    assert row_of(lines, "all oracle cases")[-1] == "reached"
    assert row_of(lines, "against the CPU's double, W1, 32 steps")[3:] == ["0.02", "0.0002 (the CPU's float32 from its double)", "reached"]
    assert row_of(lines, "against the CPU's double, W2, 4 steps")[-1] == "**short**"
    assert row_of(lines, "against the CPU's double, W3")[-1] == "–"  # the emulator is no GPU
    assert row_of(lines, "a score by didact-worker")[-1] == "reached"
    assert row_of(lines, "| W3 | 4 | bf16 | float32 |")[4:6] == ["0.16", "0.08"] and row_of(lines, "| W3 | 4 | tf32 | double |")[-1] == "near"
    assert row_of(lines, "| W2 | 4 | float32 | double |")[-1] == "**far**"
    assert row_of(table(tmp_path / "none"), "all oracle cases")[-1] == "–"


def test_the_table_has_the_memory_planned_and_measured(tmp_path):
    timed = dict(H200, kind="cuda", w="W2", what="outer", T=32, K=8, runs=5, median_s=0.1, min_s=0.1, max_s=0.1, gflops=1000, lanes=4, device_mib=1000, used_mib=1050)
    lines = table(tmp_path, timed, dict(timed, K=1, device_mib=10, used_mib=40))
    assert row_of(lines, "device memory measured over the plan's")[3:] == ["1050 MiB", "1000 MiB planned", "1.05"]
    assert row_of(lines, "| W2 | outer | 8 |")[-2:] == ["1000", "1050"]


NCU = '''==PROF== Connected to process 7 (build/bench/slab)
==PROF== Profiling "map_tile": 0%....100% - 8 passes
{"impl":"didact","device":"NVIDIA H200","kind":"cuda","w":"W1","what":"direct","T":1,"K":8,"median_s":1,"min_s":1,"max_s":1,"gflops":1}
"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value","Rule Name"
"0","7","void map_tile<full, 8>(maps)","GPU Speed Of Light Throughput","Duration","us","1,500.0",""
"0","7","void map_tile<full, 8>(maps)","GPU Speed Of Light Throughput","Compute (SM) Throughput","%","80",""
"0","7","void map_tile<full, 8>(maps)","GPU Speed Of Light Throughput","Memory Throughput","%","30",""
"0","7","void map_tile<full, 8>(maps)","GPU Speed Of Light Throughput","Memory Throughput","byte/s","9",""
"0","7","void map_tile<full, 8>(maps)","","","","","SOLBottleneck"
"1","7","losses(loss_job)","GPU Speed Of Light Throughput","Duration","nsecond","500000",""
"1","7","losses(loss_job)","GPU Speed Of Light Throughput","Compute (SM) Throughput","%","2",""
"1","7","losses(loss_job)","GPU Speed Of Light Throughput","Memory Throughput","%","n/a",""
"2","7","losses(loss_job)","GPU Speed Of Light Throughput","Duration","us"
'''
NSYS = '''Generated:
    out/profile-W3.nsys-rep
Time (%),Total Time (ns),Instances,Avg (ns),Name
75.0,3000000,12,250000.0,"void each<unsigned int, affine(int, double)::[lambda(int) (instance 1)]>(int, T2)"
25.0,1000000,4,250000.0,"bn, of two"
'''


def test_the_table_says_what_bounds_each_kernel(tmp_path):
    lines = table(tmp_path, profile_W1=NCU, profile_W3=NSYS, profile_W2="== profile-W2: left out, neither ncu nor nsys is here\n")
    assert "### W1: 2 ms in 2 kernels" in lines and row_of(lines, "map_tile")[1:] == ["1", "1.500", "75.0", "arithmetic (80 % / 30 %)"]
    assert row_of(lines, "| losses")[1:4] == ["1", "0.500", "25.0"]
    assert row_of(lines, "| each of affine |")[1:] == ["12", "3.000", "75.0", "not known (nsys)"] and row_of(lines, "| bn, of two |")[1] == "4"
    assert any("W2: " in line and "neither ncu nor nsys" in line for line in lines)
    assert not [line for line in lines if "| W1 | direct |" in line]  # what was watched is no timing
    assert gpu_table.short("void <unnamed>::each<unsigned long, __nv_dl_wrapper_t<__nv_dl_tag<void (*)(void *, int), &axpy, 1>>>(T1, T2)") == "each of axpy"
    assert gpu_table.bound(10, 70).startswith("memory") and gpu_table.bound(40, 45).startswith("neither")


@pytest.mark.parametrize("more, status", [({}, 0), ({"loss_sum": 31.0}, 70), ({"score": 0.8}, 70), ({"state": "failed"}, 70)])
def test_a_score_is_compared(tmp_path, more, status):
    one = dict(state="scored", score=0.9, loss_sum=30.0, seconds=2)
    (tmp_path / "cpu").write_text(json.dumps(one))
    (tmp_path / "gpu").write_text(json.dumps(dict(one, loss_sum=30.001, device="NVIDIA H200", **{}) | more))
    r = subprocess.run([sys.executable, ROOT / "bench/gpu_table.py", "--scores", tmp_path / "cpu", tmp_path / "gpu"], capture_output=True, text=True, timeout=60 * SLOW)
    assert r.returncode == status and json.loads(r.stdout)["near"] == (status == 0)


# ---------------------------------------------------------------- the command
def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text + "\n")
    path.chmod(0o755)


TEACHER = r'''
for a; do case $last in --out) out=$a ;; --resume) resumed=$a ;; esac; last=$a; done
mkdir -p $out
echo "$@" >>$out/calls
if [ -z "$resumed" ]; then
    stop() { touch $out/checkpoint.safetensors; echo '{ "state": "stopped" }' >$out/result.json; exit 0; }
    trap stop TERM
    [ -z "$STOP" ] || stop
    sleep 60 & wait
fi
echo '{"device":"cuda","name":"NVIDIA H200"}' >>$out/log.jsonl
echo '{ "state": "scored" }' >$out/result.json
echo '{"meta_step":2000,"seconds":7.5,"accuracy":0.985,"held_out":0.98}' >>$out/log.jsonl
'''


@pytest.fixture
def tree(tmp_path):
    """A checkout with stand-ins for its programs, a GPU by its tool's word, and data."""
    at = tmp_path / "tree"
    (at / "bench").mkdir(parents=True)
    for name in ("gpu.sh", "gpu_table.py", "run.py"):
        shutil.copy(ROOT / "bench" / name, at / "bench")
    for name in ("common", "coordinator", "worker/engine", "client", "proto", "tests/prop"):
        (at / name).mkdir(parents=True)
    (at / "Makefile").touch()
    for name in ("slab", "candidates", "gpu_fault"):
        program(at / "build/bench" / name, 'echo "$@"')
    for name in ("prop/test_slab", "prop/test_lanes", "unit/test_teacher_device"):
        program(at / "build/release/tests" / name, "echo fine")
    program(at / "build/release/didact-worker", TEACHER)
    program(at / "tests/oracle/run", 'echo "$1 on $DIDACT_CUDA"')
    program(tmp_path / "bin/nvidia-smi", "echo 9.0")
    program(tmp_path / "bin/python", 'case $1 in -c) ;; *) echo "$@" >>' + str(tmp_path / "peers-calls") + ";; esac")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mnist.safetensors").touch()

    def run(*args, status=0, **more):
        env = {k: v for k, v in os.environ.items() if k not in ("GPU_DATA", "PEERS_ARGS", "TEACH_ARGS", "SCORE_ARGS", "DIDACT_CUDA")}
        r = subprocess.run([at / "bench/gpu.sh", "--no-build", *map(str, args)], capture_output=True, text=True, timeout=100 * SLOW,
                           env=dict(env, PATH=f"{tmp_path / 'bin'}:{env['PATH']}", PEERS_PYTHON=str(tmp_path / "bin/python"), **more))
        assert r.returncode == status, r.stdout + r.stderr
        return r.stdout
    run.at, run.out, run.tmp = at, tmp_path / "out", tmp_path
    return run


def test_parts_come_in_their_order(tree):
    order = tree("--list").split()
    at = order.index
    assert at("outer-W1-8") < at("outer-W1-32") < at("profile-W1") < at("peers") < at("table") < at("outer-W2-128") < at("teach-gtn") < at("sanitizer-memory")
    assert at("test_oracle") < at("check-W1-T4-cuda") < at("worker") < at("outer-W1-1")
    assert [p for p in order if p.startswith("teach-")] == [f"teach-{k}" for k in gpu_table.KINDS]


def test_many_learners_of_w2_have_more_time_and_one_run(tree):
    tree(tree.out, "direct-W2-128", "direct-W1-128")
    assert (tree.out / "direct-W2-128.txt").read_text() == "W2 direct 128 1\n" and (tree.out / "direct-W1-128.txt").read_text() == "W1 direct 128 2\n"


def test_what_is_not_here_is_said_in_one_line_and_no_failure(tree):
    said = tree(tree.out, "worker", "teach")
    assert "== worker: left out, no data: GPU_DATA names" in said and "== teach-real: left out" in said


def test_the_oracle_cases_meet_the_backend(tree):
    assert f"build/release/didact-worker on {tree.at}/build/release/didact-cuda.so" in tree(tree.out, "test_oracle")


def test_profiles_are_ncus_or_else_nsyss(tree):
    program(tree.tmp / "bin/ncu", "echo '==ERROR== ERR_NVGPUCTRPERM'; exit 1")
    program(tree.tmp / "bin/nsys", '[ "$1" = profile ] || printf "%s\\n" "Total Time (ns),Instances,Name" "1000000,2,losses"')
    tree(tree.out, "profile")
    assert "ERR_NVGPUCTRPERM" in (tree.out / "profile-W2.txt").read_text() and "1000000,2,losses" in (tree.out / "profile-W2.txt").read_text()
    program(tree.tmp / "bin/ncu", f"cat <<'X'\n{NCU}\nX")
    tree(tree.out, "profile-W1")
    assert "arithmetic (80 % / 30 %)" in subprocess.run([sys.executable, ROOT / "bench/gpu_table.py", tree.out], capture_output=True, text=True, timeout=60 * SLOW).stdout


def test_the_sanitizer_looks_for_errors_and_races(tree):
    program(tree.tmp / "bin/compute-sanitizer", 'echo "seeds $KERNEL_SEEDS: $*"')
    tree(tree.out, "sanitizer")
    assert "seeds 1: --error-exitcode 70 --report-api-errors no build/release" in (tree.out / "sanitizer-memory.txt").read_text() and "--tool racecheck" in (tree.out / "sanitizer-races.txt").read_text()


def test_some_of_the_peers_are_not_all(tree):
    calls = tree.tmp / "peers-calls"
    tree(tree.out, "peer", PEERS_ARGS="--only torch/W1")    # a word, no name: what is over is not done again
    assert "--only torch/W1" in calls.read_text()
    tree(tree.out, "peer")
    assert len(calls.read_text().splitlines()) == 2
    tree(tree.out, "peer")
    assert len(calls.read_text().splitlines()) == 2         # now they are over
    tree(tree.out, "peer", PEERS_ARGS="--limit 900")        # they know which had too little time
    assert "--limit 900" in calls.read_text().splitlines()[2]


def test_the_peers_leave_half_of_the_budget(tree):
    calls = tree.tmp / "peers-calls"
    tree("--budget", 600, tree.out)
    assert 200 < int(calls.read_text().split()[-1]) <= 297
    assert (tree.out / "outer-W1-128.txt").exists() and (tree.out / "outer-W1-32.txt").exists()
    tree("--budget", 600, tree.out, "peers")                # nothing else is asked for
    assert int(calls.read_text().split()[-1]) > 500


def test_a_teacher_that_the_budget_cut_off_goes_on(tree):
    said = tree("--budget", round(9 * SLOW), tree.out, "teach-gt", status=75, GPU_DATA=str(tree.tmp / "data"))
    at = tree.out / "teach-gtn"
    assert "teach-gtn (cut off)" in said and (at / "checkpoint.safetensors").exists() and "--resume" not in (at / "calls").read_text()
    (at / "checkpoint.safetensors").unlink()
    tree(tree.out, "teach-gtn", status=75, GPU_DATA=str(tree.tmp / "data"), STOP="1")  # somebody stops the worker alone: it ends with 0, and is not done
    assert (at / "checkpoint.safetensors").exists()
    tree(tree.out, "teach-gtn", GPU_DATA=str(tree.tmp / "data"), TEACH_ARGS="--threads 3")
    last = (at / "calls").read_text().splitlines()[-1]
    assert f"--resume {at}/checkpoint.safetensors" in last and "--threads 3" in last and "teach.kind=gtn " in last and "--device cuda" in last
    assert not (at / "checkpoint.safetensors").exists()
    lines = subprocess.run([sys.executable, ROOT / "bench/gpu_table.py", tree.out], capture_output=True, text=True, timeout=60 * SLOW).stdout.splitlines()
    assert row_of(lines, "| gtn | 2000 |")[2:] == ["0.9850", "0.9800", "8", "done"]


@pytest.mark.limit(120)
@pytest.mark.skipif(not (ROOT / "build/bench/slab").exists(), reason="build/bench/slab is not built (make bench)")
def test_a_check_of_more_steps_has_a_limit():
    """By the emulator, on few images; the error of bf16's factors shows that float32's limit says something."""
    def rows(*more):
        r = subprocess.run([ROOT / "build/bench/slab", "W1", "direct", "1", "1", "T=6", "B=4", *more, "check"], capture_output=True, text=True, timeout=100 * SLOW,
                           env=dict(os.environ, DIDACT_CUDA=str(BIN / "tests/didact-cuda.so")))
        assert r.returncode == 0, r.stdout + r.stderr
        return [json.loads(line) for line in r.stdout.splitlines()]
    exact, rounded = rows(), rows("device=cuda-bf16")
    assert [r["against"] for r in exact] == ["float32", "double"] and all(r["near"] for r in exact + rounded)
    for a, b in zip(exact, rounded):
        assert a["dx_length"] <= a["dx_limit"] <= 0.003 * max(1, 1400 * a["cpu_dx_length"]) < b["dx_length"] <= b["dx_limit"] <= 0.5
