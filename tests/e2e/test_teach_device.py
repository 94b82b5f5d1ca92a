"""didact-worker run --device: a teach job whose learners and generator compute on a GPU, here the backend's own kernels run by the emulator."""

import json
import os
import struct
import subprocess

import pytest

import harness
from harness import BIN, SLOW

JOB = """kind: teach
dataset: small
seed: 5
teach: {kind: gtn, steps: 3, batch: 8, meta_steps: 2, learners: 1, inits: 3, meta_batch: 8, meta_at: [{step: 2, weight: 0.5}], z_dim: 4, g_hidden: 12,
        g_channels1: 6, g_channels2: 4, learn_labels: true, max_macs: 10k, eval_every: 1, checkpoint_every: 1}
"""


@pytest.fixture
def run(box, load):
    d = load(box.coordinator())
    data, job = box.dir / "small.safetensors", box.dir / "job.yaml"
    harness.cli(d, "dataset", "export", "small", "-o", data)
    job.write_text(JOB)

    def do(out, *more, status=0, backend=BIN / "tests/didact-cuda.so"):
        r = subprocess.run([BIN / "didact-worker", "run", job, "--dataset", data, "--out", box.dir / out, "--threads", "1", *map(str, more)], capture_output=True,
                           text=True, timeout=50 * SLOW, env={**os.environ, "DIDACT_CUDA": str(backend)})
        assert r.returncode == status, r.stderr
        return r
    do.dir = box.dir
    return do


def tensors(path):
    """Of a curriculum file: numbers by name, and its provenance."""
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    meta = head.pop("__metadata__")

    def numbers(t):
        a, b = t["data_offsets"]
        size, code = {"U8": (1, "B"), "F32": (4, "f"), "F64": (8, "d")}[t["dtype"]]
        return struct.unpack(f"<{(b - a) // size}{code}", raw[8 + n + a:8 + n + b])
    return {name: numbers(t) for name, t in head.items()}, json.loads(meta["provenance"])


def history(path):
    return [json.loads(line) for line in path.read_text().splitlines() if "meta_step" in line]


@pytest.mark.limit(120)
def test_a_device_teaches_as_the_cpu_does(run):
    cpu = json.loads(run("cpu").stdout)
    r = run("gpu", "--device", "cuda")
    gpu = json.loads(r.stdout)
    assert "on emulated (cuda)" in r.stderr and gpu["device"] == "emulated" and gpu["engine_version"] == cpu["engine_version"] + "/cuda"
    rows = [history(run.dir / name / "log.jsonl") for name in ("cpu", "gpu")]
    assert len(rows[0]) == len(rows[1]) == 3
    for a, b in zip(*rows):
        assert b["meta_loss"] == pytest.approx(a["meta_loss"], rel=1e-3)
        assert b["accuracy"] == pytest.approx(a["accuracy"], abs=0.05) and b["held_out"] == pytest.approx(a["held_out"], abs=0.05)
    (want, made_by), (got, there) = (tensors(run.dir / name / "curriculum.safetensors") for name in ("cpu", "gpu"))
    assert there["device"] == "emulated" and there["engine"] == made_by["engine"] + "/cuda" and "device" not in made_by
    assert {k: v for k, v in there.items() if k not in ("device", "engine", "history")} == {k: v for k, v in made_by.items() if k not in ("engine", "history")}
    assert want.keys() == got.keys()
    for name in want:
        slack = dict(abs=1) if isinstance(want[name][0], int) else dict(rel=1e-3, abs=1e-3)
        assert list(got[name]) == pytest.approx(list(want[name]), **slack), name


@pytest.mark.limit(120)
def test_a_checkpoint_goes_on_on_either(run):
    """The same files, whoever computes: byte for byte on a device again, and near where the CPU goes on."""
    whole = json.loads(run("whole", "--device", "cuda:0").stdout)
    run("half", "--device", "cuda", "--set", "teach.meta_steps=1")
    at = run.dir / "half" / "checkpoint.safetensors"
    more = ("--resume", at, "--set", "teach.meta_steps=2", "--set", "teach.adam.lr_end=1")
    assert json.loads(run("rest", *more, "--device", "cuda").stdout)["meta_steps"] == 2
    cpu = json.loads(run("over", *more).stdout)
    assert cpu["engine_version"] + "/cuda" == whole["engine_version"]
    (a, _), (b, _) = (tensors(run.dir / name / "curriculum.safetensors") for name in ("rest", "over"))
    for name in a:
        slack = dict(abs=1) if isinstance(a[name][0], int) else dict(rel=1e-3, abs=1e-3)
        assert list(b[name]) == pytest.approx(list(a[name]), **slack), name


def test_what_a_device_cannot_do_is_said(run):
    assert "device 'abacus' is not known" in run("out", "--device", "abacus", status=64).stderr
    assert "no GPU 7" in run("out", "--device", "cuda:7", status=69).stderr
    assert "no cuda backend" in run("out", "--device", "cuda", status=69, backend="/nowhere.so").stderr
    assert "more than 1024" in run("out", "--device", "cuda", "--set", "teach.inits=256", "--set", "teach.learners=5", status=65).stderr
    r = run("out", "--device", "cuda", "--set", "teach.batch=4096", "--set", "teach.steps=1024", status=75)  # the emulator's device has 1 GiB
    assert "the images need" in r.stderr and "MiB on the device, where they may take 1024 MiB" in r.stderr
    assert not (run.dir / "out" / "curriculum.safetensors").exists()
