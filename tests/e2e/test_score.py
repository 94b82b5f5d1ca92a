"""didact-worker score: a list of architectures without a coordinator, and its agreement with a search."""

import csv
import os
import platform
import signal
import subprocess

import pytest

import harness
from harness import BIN, SLOW

ZERO_COST = ["synflow", "naswot", "jacob_cov", "zico", "snip", "grad_norm"]
FIDELITY = ["--set", "fidelity.valid_images=48", "--set", "fidelity.checkpoints=[3]", "--set", "seed=7"]


@pytest.fixture(scope="session")
def files(material, tmp_path_factory):
    """The small dataset as a dataset file, and 12 architectures of which two are the same network."""
    box = harness.Sandbox()
    try:
        d = box.coordinator()
        harness.cli(d, "dataset", "import", material.idx, "--name", "small")
        (row,) = d.get("datasets")["datasets"]
        folder = tmp_path_factory.mktemp("score")
        (blob,) = [p for p in d.folder.rglob(f"*{row['hash']}*") if p.is_file()]
        (folder / "small.st").write_bytes(blob.read_bytes())
        shown = harness.cli_json(d, "space", "show", "chain", "--input", "1,8,8", "--samples", "11")
    finally:
        box.close()
    archs = [s["arch"] for s in shown["samples"]]
    (folder / "archs.txt").write_text("# chosen by chance\n\n" + "".join(a + "\n" for a in archs) + archs[2] + "\n")

    class Files:
        dataset, archs_file, archs_list, curriculum, dir = folder / "small.st", folder / "archs.txt", archs, material.curriculum, folder
    return Files


def score(files, out, *more, status=0, env=None, archs=None, curriculum=True):
    argv = [str(BIN / "didact-worker"), "score", "--archs", str(archs or files.archs_file), "--dataset", str(files.dataset), "--out", str(out), *more]
    if curriculum:
        argv += ["--curriculum", str(files.curriculum)]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=110 * SLOW, env={**os.environ, **(env or {})})
    assert r.returncode == status, r.stderr
    return r


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def test_rows_are_those_of_a_search(files, box, load, submit, tmp_path):
    """The same numbers, to the last digit, as a coordinator and a worker get for the same seed and fidelity."""
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d, fidelity={"steps": 6, "inits": 2, "valid_images": 48, "checkpoints": [3]}, budget={"trials": 8},
                 scores={"zero_cost": ZERO_COST})
    d.wait_end(job)
    trials = {t["arch"]: t for t in d.trials()}
    listed = tmp_path / "archs.txt"
    listed.write_text("".join(a + "\n" for a in trials))
    score(files, tmp_path / "out.csv", *FIDELITY, "--inits", "2", "--zero-cost", "all", archs=listed)
    got = rows(tmp_path / "out.csv")
    assert [r["arch"] for r in got] == list(trials)
    for r in got:
        t = trials[r["arch"]]
        assert r["arch_hash"] == t["arch_hash"] and int(r["seed"]) == int(t["seed"]) and int(r["params"]) == t["params"]
        assert float(r["score"]) == t["score"] and float(r["loss_sum"]) == t["loss_sum"]
        assert [float(x) for x in r["checkpoint_scores"].split()] == [c["score"] for c in t["checkpoints"]]
        assert {z: float(r[z]) for z in ZERO_COST if r[z]} == t["zero_cost"]
    exported = harness.cli(d, "export", job, "--format", "csv", "-o", "-").out.splitlines()
    assert exported[0].endswith("," + ",".join(ZERO_COST) + ",rung,init_scores,from_book")
    for r in csv.DictReader(exported):
        t = trials[r["arch"]]
        assert float(r["synflow"]) == t["zero_cost"]["synflow"] and [float(x) for x in r["init_scores"].split()] == t["init_scores"]
        assert int(r["rung"]) == t["rung"] and r["from_book"] == "false" and r["valid_score"] == ""


@pytest.mark.limit(240)
def test_a_device_scores_as_the_cpu_does(files, tmp_path):
    """The GPU backend's own kernels, run on the CPU by the emulator."""
    env = {"DIDACT_CUDA": str(BIN / "tests/didact-cuda.so")}
    more = [*FIDELITY, "--inits", "3"]
    score(files, tmp_path / "cpu.csv", *more)
    score(files, tmp_path / "gpu.csv", *more, "--device", "cuda", env=env)
    cpu, gpu = rows(tmp_path / "cpu.csv"), rows(tmp_path / "gpu.csv")
    assert [r["arch"] for r in cpu] == [r["arch"] for r in gpu]
    for a, b in zip(cpu, gpu):
        assert b["engine"] == a["engine"] + "/cuda" and b["seed"] == a["seed"] and b["params"] == a["params"]
        assert float(b["loss_sum"]) == pytest.approx(float(a["loss_sum"]), rel=1e-3)
        near = dict(abs=2.5 / 48)  # an image or two of 48 may lie at the boundary
        assert float(b["score"]) == pytest.approx(float(a["score"]), **near)
        assert [float(x) for x in b["checkpoint_scores"].split()] == [pytest.approx(float(x), **near) for x in a["checkpoint_scores"].split()]
    first = (tmp_path / "gpu.csv").read_bytes()
    (tmp_path / "gpu.csv").unlink()
    score(files, tmp_path / "gpu.csv", *more, "--device", "cuda:0", "--threads", "1", env=env)
    assert (tmp_path / "gpu.csv").read_bytes() == first
    assert "another engine version" in score(files, tmp_path / "gpu.csv", *more, status=65).stderr


def test_a_device_that_is_not_there_is_refused(files, tmp_path):
    env = {"DIDACT_CUDA": str(BIN / "tests/didact-cuda.so")}
    out = tmp_path / "out.csv"
    assert "device 'abacus' is not known" in score(files, out, *FIDELITY, "--device", "abacus", status=64).stderr
    assert "no GPU 7" in score(files, out, *FIDELITY, "--device", "cuda:7", status=69, env=env).stderr
    assert "no cuda backend" in score(files, out, *FIDELITY, "--device", "cuda", status=69, env={"DIDACT_CUDA": "/nowhere.so"}).stderr
    assert not out.exists()


def test_latency_is_a_column_of_its_own(files, box, tmp_path):
    score(files, tmp_path / "trained.csv", *FIDELITY, "--latency", "--seconds", "--threads", "1")
    score(files, tmp_path / "plain.csv", *FIDELITY, "--threads", "1")
    score(files, tmp_path / "alone.csv", "--latency", "--set", "latency.batch=8", "--threads", "1", curriculum=False)
    trained, plain, alone = (rows(tmp_path / f"{n}.csv") for n in ("trained", "plain", "alone"))
    assert list(trained[0])[-2:] == ["seconds", "latency_ms"] and "latency_ms" not in plain[0]
    assert [r["score"] for r in trained] == [r["score"] for r in plain]
    assert all(0 < float(r["latency_ms"]) < 1000 for r in trained + alone) and not any(r["score"] for r in alone)
    d = box.coordinator()
    assert harness.cli_json(d, "book", "import", tmp_path / "trained.csv")["new"] == len({r["arch"] for r in trained})


@pytest.mark.limit(180)
def test_the_file_has_the_same_bytes_for_any_threads_and_instructions(files, tmp_path):
    score(files, tmp_path / "a.csv", *FIDELITY, "--zero-cost", "all", "--threads", "1")
    score(files, tmp_path / "b.csv", *FIDELITY, "--zero-cost", "all", "--threads", "3")
    a = (tmp_path / "a.csv").read_bytes()
    assert a == (tmp_path / "b.csv").read_bytes()
    few = tmp_path / "few.txt"  # plain C multiplies and adds in software: slow
    few.write_text("\n".join(files.archs_list[:2]))
    score(files, tmp_path / "c.csv", *FIDELITY, "--zero-cost", "all", env={"DIDACT_ISA": "portable"}, archs=few)
    assert a.startswith((tmp_path / "c.csv").read_bytes()), platform.machine()
    got = rows(tmp_path / "a.csv")
    assert [r["arch"] for r in got] == files.archs_list + [files.archs_list[2]]
    assert got[2] == got[11] and len({r["synflow"] for r in got}) == 11


def test_what_was_stopped_goes_on(files, tmp_path):
    """Cut off in the middle of a row, and killed by a signal: the whole file is as if nothing had happened."""
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    score(files, whole, *FIDELITY, "--zero-cost", "snip")
    data = whole.read_bytes()
    lines = data.splitlines(keepends=True)
    for keep in (0, 40, len(lines[0]), len(b"".join(lines[:5])) + 30, len(b"".join(lines[:12])), len(data)):
        out.write_bytes(data[:keep])
        score(files, out, *FIDELITY, "--zero-cost", "snip")
        assert out.read_bytes() == data, f"from {keep} bytes"
    out.unlink()
    p = subprocess.Popen([str(BIN / "didact-worker"), "score", "--archs", str(files.archs_file), "--dataset", str(files.dataset), "--out", str(out),
                          "--curriculum", str(files.curriculum), *FIDELITY, "--zero-cost", "snip", "--threads", "1"], stderr=subprocess.DEVNULL)
    harness.wait_for("the first rows", lambda: out.exists() and out.read_bytes().count(b"\n") >= 2, every=0.001)
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=20 * SLOW) == 0
    assert data.startswith(out.read_bytes())
    score(files, out, *FIDELITY, "--zero-cost", "snip")
    assert out.read_bytes() == data


def test_rows_of_other_inputs_are_not_mixed(files, tmp_path):
    out = tmp_path / "out.csv"
    score(files, out, *FIDELITY, "--zero-cost", "snip")
    before = out.read_bytes()
    for more, word in (["--inits", "3"], "fidelity"), (["--set", "seed=8"], "seed"), (["--zero-cost", "snip,zico"], "fidelity"):
        r = score(files, out, *FIDELITY, "--zero-cost", "snip", *more, status=65)
        assert f"row 1 is of another {word}" in r.stderr
    other = tmp_path / "other.txt"
    other.write_text(files.archs_list[1] + "\n" + files.archs_list[0] + "\n")
    assert "another architecture" in score(files, out, *FIDELITY, "--zero-cost", "snip", archs=other, status=65).stderr
    assert out.read_bytes() == before


def test_without_a_curriculum_only_what_needs_no_training(files, tmp_path):
    score(files, tmp_path / "a.csv", *FIDELITY, "--zero-cost", "all")
    score(files, tmp_path / "b.csv", *FIDELITY, "--zero-cost", "all", "--seconds", curriculum=False)
    for a, b in zip(rows(tmp_path / "a.csv"), rows(tmp_path / "b.csv"), strict=True):
        assert b["score"] == "" and b["curriculum"] == "" and b["fidelity"].endswith("zero_cost=" + ",".join(ZERO_COST))
        assert all(a[z] == b[z] for z in ZERO_COST) and a["params"] == b["params"] and float(b["seconds"]) > 0


def test_bad_lines_are_named_and_nothing_is_written(files, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_text(files.archs_list[0] + "\n\nbn relu | nonsense | flat\n")
    r = score(files, tmp_path / "out.csv", archs=bad, status=65)
    assert f"{bad}: line 3: " in r.stderr and not (tmp_path / "out.csv").exists()
    assert "nothing to do" in score(files, tmp_path / "out.csv", curriculum=False, status=64).stderr
    assert "did you mean 'synflow'" in score(files, tmp_path / "out.csv", "--zero-cost", "synflo", status=65).stderr
    (tmp_path / "out.csv").write_text("a,b\n1,2\n" * 100)
    assert "no list of scores" in score(files, tmp_path / "out.csv", status=65).stderr
