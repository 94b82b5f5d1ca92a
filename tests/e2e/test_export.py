"""The best network, verified and exported: another runtime reads the ONNX file and says what our engine says."""

import importlib.util
import json
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

import harness
from harness import BIN, CLASSES, ROOT, SIDE, cli


@pytest.fixture(scope="session")
def logits_program():
    """tests/e2e/logits.c, built with the variant under test."""
    target = BIN / "tests" / "e2e" / "logits"
    done = subprocess.run(["make", "-s", f"VARIANT={BIN.name}", str(target.relative_to(ROOT))], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def verified(box, load, submit):
    """A coordinator with a verify job (number 2) whose trials kept their weights."""
    def do(space, trials=10, size={}):
        d = load(box.coordinator())
        box.worker(d, slots=2)
        search = submit(d, space=space, budget={"trials": trials}, searcher={"name": "random"})
        d.wait_end(search)
        verify = submit(d, kind="verify", name="check", curriculum=None, space=None, searcher=None, fidelity=None, window=None,
                        budget=None, verify={"of": str(search), "top": 4, "random": 2, "epochs": 2, "batch": 32, **size})
        assert d.wait_end(verify)["state"] == "succeeded"
        return d
    return do


@pytest.mark.limit(120)
@pytest.mark.parametrize("space, size", [("chain", {}), ("nasbench201", {}), ("nasnet", {"channels": 6, "cells": 2})])
def test_an_exported_network_says_the_same_in_another_runtime(box, verified, logits_program, space, size):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not here (PyPI): deploy/install-deps.sh --test")
    d = verified(space, size=size)
    images, labels = harness.small_images(160, 2)          # the test part of the small dataset
    (box.dir / "images.u8").write_bytes(images.tobytes())
    trials = d.trials(2)
    assert len(trials) == 6
    for t in trials:
        assert t["state"] == "scored" and len(t["artifact"]) == 64, "every verified network keeps its weights"
        onnx, weights = box.dir / f"{t['trial']}.onnx", box.dir / f"{t['trial']}.safetensors"
        cli(d, "export", 2, "--trial", t["trial"], "--format", "onnx", "--output", onnx)
        cli(d, "export", 2, "--trial", t["trial"], "--format", "safetensors", "--output", weights)
        done = subprocess.run([logits_program, weights, box.dir / "images.u8", "1", str(SIDE), str(SIDE), str(CLASSES),
                               box.dir / "ours.f32"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        ours = np.fromfile(box.dir / "ours.f32", "<f4").reshape(len(images), CLASSES)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        x = (images.astype(np.float32) / np.float32(127.5) - 1).reshape(-1, 1, SIDE, SIDE)
        (theirs,) = session.run(None, {session.get_inputs()[0].name: x})
        scale = max(1.0, float(np.abs(ours).max()))
        assert np.abs(theirs - ours).max() <= 1e-5 * scale, t["arch"]
        assert abs(float(np.mean(theirs.argmax(1) == labels)) - t["score"]) <= 1.01 / len(labels), \
            "the accuracy that verify recorded is that of the exported file"
        one = session.run(None, {session.get_inputs()[0].name: x[:1]})[0]
        assert np.abs(one - theirs[:1]).max() <= 1e-5 * scale, "any batch size"


def imported(file):
    """A Python file as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"exported_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.limit(180)
@pytest.mark.parametrize("space, size", [("chain", {}), ("nasbench201", {}), ("nasnet", {"channels": 6, "cells": 2})])
def test_an_exported_module_says_the_same_in_pytorch(box, verified, logits_program, space, size):
    torch = pytest.importorskip("torch", reason="PyTorch is not here (Debian's python3-torch): deploy/install-deps.sh --test")
    torch.set_num_threads(1)
    d = verified(space, size=size)
    images, labels = harness.small_images(160, 2)
    (box.dir / "images.u8").write_bytes(images.tobytes())
    x = torch.from_numpy((images.astype(np.float32) / np.float32(127.5) - 1).reshape(-1, 1, SIDE, SIDE))
    for t in d.trials(2):
        file = box.dir / f"net{t['trial']}.py"
        assert cli(d, "export", f"2/{t['trial']}", "-o", file).out.strip() == str(file)
        done = subprocess.run([logits_program, file.with_suffix(".safetensors"), box.dir / "images.u8", "1", str(SIDE), str(SIDE),
                               str(CLASSES), box.dir / "ours.f32"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        ours = np.fromfile(box.dir / "ours.f32", "<f4").reshape(len(images), CLASSES)
        module = imported(file)
        net = module.load()
        with torch.no_grad():
            theirs = net(x).numpy()
        scale = max(1.0, float(np.abs(ours).max()))
        assert np.abs(theirs - ours).max() <= 1e-5 * scale, t["arch"]
        assert t["arch"] in file.read_text()
        trainable = sum(p.numel() for p in net.parameters())
        folded = sum(v.shape[0] for v in (net.state_dict()[k] for k in getattr(module, "FOLDED", {})))
        network = json.loads(cli(d, "export", f"2/{t['trial']}", "--format", "json", "-o", "-").out)["network"]
        assert trainable + folded == sum(b["params"] for b in network), "weight norm's g are the only parameters that fold away"
        assert trainable + folded == t["params"]
        module.Net().train()(x).sum().backward()               # and it trains
    fresh = box.dir / "fresh.py"                               # a search has no weights: the network alone
    cli(d, "export", 1, "--format", "torch", "-o", fresh)
    assert not fresh.with_suffix(".safetensors").exists()
    assert imported(fresh).Net().eval()(x).shape == (160, CLASSES)


@pytest.mark.limit(120)
def test_a_network_is_drawn_while_its_job_runs(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, space="nasbench201", budget={"trials": 100000}, window=4,
                 fidelity={"steps": 3, "inits": 1, "valid_images": 32, "channels": 6, "downsample": 2})
    d.wait_scored(3, job)
    one = next(t for t in d.trials(job) if t["state"] == "scored")
    svg = ElementTree.fromstring(cli(d, "export", f"{job}/{one['trial']}", "--format", "svg", "-o", "-").out)
    words = [e.text for e in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert f"job {job}, trial {one['trial']}: scored" in words[0] and "input" in words and any("linear 4" in w for w in words)
    dot = cli(d, "export", job, "--trial", one["trial"], "--format", "dot", "-o", "-").out
    assert dot.startswith("digraph") and dot.count("[label=") == len(words[1:]) / 2
    network = json.loads(cli(d, "export", f"{job}/{one['trial']}", "--format", "json", "-o", "-").out)["network"]
    assert sum(b["params"] for b in network) == one["params"] and sum(b["macs"] for b in network) == one["macs"]
    assert network[-1]["shape"] == [CLASSES]
    drawn = cli(d, "draw", f"{job}/{one['trial']}").out
    assert one["arch"] in drawn and drawn.count("●") == len(network)
    assert cli(d, "show", f"{job}/{one['trial']}").out == drawn
    assert "●" in cli(d, "draw", job).out
    cli(d, "cancel", job, "--yes")
    assert cli(d, "draw", f"{job}/{one['trial']}").out == drawn, "after the end too"
    assert harness.run_cli("--connect", d.connect, "draw", f"{job}/999999").status == 66
    assert harness.run_cli("--connect", d.connect, "export", job, "--format", "gif", "-o", box.dir / "x").status == 64


@pytest.mark.limit(120)
def test_other_formats_and_wrong_wishes(box, verified):
    d = verified("chain", trials=8)
    for format_ in ("json", "csv"):
        file = box.dir / f"out.{format_}"
        cli(d, "export", 1, "--format", format_, "--output", file)
        text = file.read_text()
        assert json.loads(text) if format_ == "json" else len(text.splitlines()) >= 2
    r = harness.run_cli("--connect", d.connect, "export", 1, "--format", "onnx", "--output", box.dir / "no.onnx")
    assert r.status != 0 and ("weights" in r.err or "verify" in r.err), "a search keeps no weights"
    assert not (box.dir / "no.onnx").exists()
    r = harness.run_cli("--connect", d.connect, "export", 2, "--trial", 99, "--format", "onnx", "--output", box.dir / "no.onnx")
    assert r.status == 66 and "99" in r.err
    for format_, job in (("onnx", 2), ("safetensors", 2), ("torch", 2), ("svg", 2), ("csv", 1)):
        file = box.dir / "no" / "such" / "x.out"
        r = harness.run_cli("--connect", d.connect, "export", job, "--format", format_, "--output", file)
        assert r.status == 66 and f"no folder for {file}:" in r.err, "the file that was asked for is named, and no temporary"
    for argv in (["1/5"], ["1", "--trial", 5]):
        r = harness.run_cli("--connect", d.connect, "export", *argv, "--format", "csv", "--output", "-")
        assert r.status == 64 and "every trial" in r.err and r.out == "", "one trial was asked for"
    for t in d.trials(2):
        tensors = box.dir / "w.safetensors"
        cli(d, "export", 2, "--trial", t["trial"], "--format", "safetensors", "--output", tensors)
        values = harness.read_safetensors(tensors)
        params = sum(v.size for k, v in values.items() if "running_" not in k)
        assert params == t["params"] and all(np.isfinite(v).all() for v in values.values())
