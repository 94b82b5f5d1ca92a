"""Search spaces of the users' own: imported, searched, killed, replayed, verified and exported, as the built-in ones are."""

import hashlib
import json
import re
import subprocess

import numpy as np
import pytest
import zmq

import harness
from harness import BIN, CLASSES, ROOT, SIDE, cli, cli_json

# Conditions, a stage that may repeat, connections from afar, a hidden layer: what docs/spaces.md describes.
OWN = """\
name: own
about: for the tests
norm: [bn, wn]
act: [relu, tanh]
slots:
  - {name: stem, op: conv, width: [6, 8], kernel: [3, 5], pad: [zero, reflect]}
  - stage: body
    repeat: [1, 2]
    widen: [1, 2]
    slots:
      - {name: mix, op: [conv, sep, neck], width: 8, stride: 2, groups: [1, 2], dilation: [1, 2], order: [post, pre], connect: [none, add, concat]}
      - {name: more, op: [none, dw, max, avg], from: [none, stem, input], join: [add, concat], when: {mix.op: [conv, sep]}}
  - {name: tail, op: [conv, up], width: 8, act: [none, lrelu], from: [none, stem, mix], when: {body.repeat: 2, stem.width: 8}}
  - {name: hidden, op: [none, dense], width: [8, 12]}
head: [gap, flat]
"""
SMALL = {"fidelity": {"steps": 3, "inits": 1, "valid_images": 32}, "scores": {"book": False}}


@pytest.fixture
def own(box):
    file = box.dir / "own.yaml"
    file.write_text(OWN)
    return file


@pytest.fixture(scope="session")
def logits_program():
    """tests/e2e/logits.c, built with the variant under test."""
    target = BIN / "tests" / "e2e" / "logits"
    done = subprocess.run(["make", "-s", f"VARIANT={BIN.name}", str(target.relative_to(ROOT))], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_spaces_are_imported_listed_shown_and_exported(box, own):
    d = box.coordinator()
    doc = cli_json(d, "space", "import", own)
    assert doc["name"] == "own" and doc["space"] == f"own@{doc['hash'][:16]}"
    cli(d, "space", "import", own, "other")
    listed = {s["name"]: s for s in cli_json(d, "space", "list")["spaces"]}
    assert set(listed) == {"chain", "nasbench201", "nasnet", "own", "other"}
    assert listed["own"]["hash"] == listed["other"]["hash"] == doc["hash"] and listed["chain"]["hash"] is None
    assert listed["own"]["about"] == "for the tests" and listed["own"]["size"] > 1000
    assert [s["name"] for s in d.get("spaces")["spaces"]] == ["other", "own"]
    shown = cli_json(d, "space", "show", "own", "--input", "1,12,12")
    assert shown["name"] == doc["space"] and len(shown["samples"]) == 3
    for name in (own, doc["space"], doc["hash"], doc["hash"][:8]):
        assert cli_json(d, "space", "show", name, "--input", "1,12,12") == shown
    for name in ("other", doc["space"]):
        cli(d, "space", "export", name, "-o", box.dir / "back.yaml")
        assert (box.dir / "back.yaml").read_text() == OWN
    alone = harness.run_cli("--dir", box.dir / "nobody", "space", "list")
    assert alone.status == 0 and "nasnet" in alone.out and "own" not in alone.out and "no imported spaces are listed" in alone.err
    # What is wrong is told with its line, and nothing has changed.
    own.write_text(OWN.replace("stride: 2", "stirde: 2"))
    r = cli(d, "space", "import", own, status=65)
    assert "line 11: mix has no key 'stirde' (did you mean 'stride'?)" in r.err
    own.write_text(OWN)
    for name in ("chain", "x.yaml", "a b", ".x"):
        assert "cannot be the name" in cli(d, "space", "import", own, name, status=65).err
    assert len(d.get("spaces")["spaces"]) == 2
    assert "there is no imported space 'nope'" in cli(d, "space", "show", "nope", status=66).err


def test_a_small_space_is_shown_without_repeats_unless_they_are_asked_for(box):
    file = box.dir / "two.yaml"
    file.write_text("name: two\nslots:\n  - {name: stem, op: conv, width: [6, 8]}\n")
    for given, says, n in (((), "2 points; 2 drawn at random, for", 2), (("--samples", 5), "2 points; 5 drawn at random, with repeats, for", 5),
                           (("--samples", 1), "2 points; 1 drawn at random, for", 1)):
        shown = harness.run_cli("space", "show", file, *given)
        assert shown.status == 0 and says in shown.out
        archs = [s["arch"] for s in json.loads(harness.run_cli("space", "show", file, *given, "--json").out)["samples"]]
        assert len(archs) == n and len(set(archs)) == min(n, 2)


def test_the_coordinator_checks_what_is_imported(box, messages):
    """Whatever a client sends: a space has its name only after it was read."""
    d = box.coordinator()
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(d.connect)

    def put(text, name):
        m = messages.Envelope(version=1, seq=1)
        digest = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
        m.blob_put.hash, m.blob_put.offset, m.blob_put.total, m.blob_put.data = digest, 0, len(text), text.encode()
        m.blob_put.name, m.blob_put.kind = name, "space"
        socket.send(m.SerializeToString())
        assert socket.poll(int(10000 * harness.SLOW)), "an answer"
        return messages.Envelope.FromString(socket.recv())
    bad = put(OWN.replace("widen: [1, 2]", "widen: [0, 2]"), "own")
    assert "line 9: 'body.widen' must be numbers from 1 to 4" in bad.error.text
    for text, name in ((OWN, "chain"), (OWN, "a@b"), (OWN, "my.yml"), ("x" * 70000, "own"), ("name: own\n", "own")):
        assert put(text, name).WhichOneof("body") == "error"
    assert d.get("spaces")["spaces"] == []
    assert put(OWN, "own").blob_put_ack.complete
    assert [s["name"] for s in d.get("spaces")["spaces"]] == ["own"]
    socket.close()


@pytest.mark.limit(180)
@pytest.mark.parametrize("kind", ["random", "evolution", "local", "nsga2", "halving", "voted"])
def test_every_searcher_searches_a_file_through_kills(box, load, submit, own, kind):
    """A job left alone, and the same with coordinator and workers killed in its middle: the same bytes, and replay says so."""
    over = {"random": {"searcher": {"name": "random"}}, "evolution": {"searcher": {"name": "evolution", "population": 6, "sample": 3}},
            "local": {"searcher": {"name": "local"}}, "nsga2": {"searcher": {"name": "nsga2", "population": 6}, "fidelity": {**SMALL["fidelity"], "downsample": 2}},
            "halving": {"searcher": {"name": "evolution", "population": 6, "sample": 3}, "halving": {"steps": [2], "inits": [1]},
                        "warmup": {"candidates": 60}},
            "voted": {"searcher": {"name": "evolution", "population": 6, "sample": 3}, "warmup": {"candidates": 30, "keep": 10, "vote": ["synflow", "macs"]},
                      "latency": {"measure": True}, "scores": {"zero_cost": ["naswot"]}}}[kind]
    d = load(box.coordinator(lease_ms=2000))
    cli(d, "space", "import", own)
    w1, w2 = box.worker(d, "w1"), box.worker(d, "w2")
    job = {**SMALL, "space": "own", "budget": {"trials": 30}, **over}
    calm = submit(d, name="calm", **job)
    assert d.wait_end(calm, timeout=150)["state"] == "succeeded"
    rough = submit(d, name="rough", **job)
    for n in (4, 14):
        d.wait_scored(n, job=rough)
        d.kill9()
        w1.kill9()
        if n == 4:                        # what the name means from now on is not what the job was submitted with
            own.write_text(OWN.replace("[6, 8]", "[7, 8]"))
        d.start()
        w1.start()
        cli(d, "space", "import", own)
    assert w2.running
    doc = d.wait_end(rough, timeout=150)
    assert doc["state"] == "succeeded" and doc["failures"]["input"] == 0, doc
    assert d.history(rough) == d.history(calm)
    for job in (calm, rough):
        assert d.get(f"jobs/{job}/replay") == {"ok": True, "external": False, "proposals": 30, "checked": 30, "first_difference": None}
    trials = d.trials(rough)
    assert all(t["space"] == doc["space"] and t["space"].startswith("own@") for t in trials)
    assert len({t["arch_hash"] for t in trials}) > 20
    assert len(doc["space_hash"]) == 64 and doc["space"].endswith(doc["space_hash"][:16])
    # Another content is another space: the same choices have other hashes.
    newer = submit(d, name="newer", **dict(SMALL, space="own", budget={"trials": 2}, searcher={"name": "random"}))
    assert d.wait_end(newer)["space"] != doc["space"]


def test_two_contents_of_one_name_do_not_share_scores(box, load, submit, own):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    cli(d, "space", "import", own)
    job = {"fidelity": SMALL["fidelity"], "space": "own", "budget": {"trials": 8}, "searcher": {"name": "random"}}
    first = d.wait_end(submit(d, **job))
    again = submit(d, **job)
    d.wait_end(again)
    assert all(t["from_book"] for t in d.trials(again)), "equal content: the book answers"
    own.write_text(OWN + "# the same choices in another file\n")
    cli(d, "space", "import", own)
    other = d.wait_end(submit(d, **job))
    assert other["space"] != first["space"] and not any(t["from_book"] for t in d.trials(other["id"]))
    assert [t["arch"] for t in d.trials(other["id"])] == [t["arch"] for t in d.trials(first["id"])]
    assert not {t["arch_hash"] for t in d.trials(other["id"])} & {t["arch_hash"] for t in d.trials(first["id"])}


@pytest.mark.limit(120)
def test_a_job_takes_its_space_file_along(box, load, own):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    folder = box.dir / "jobs"
    folder.mkdir()
    own.rename(folder / "own.yaml")
    job = folder / "job.yaml"
    job.write_text(harness.job_yaml(space="./own.yaml", budget={"trials": 4}, searcher={"name": "random"}, **SMALL))
    dry = cli_json(d, "submit", job, "--dry-run")
    assert dry["spec"]["space"].startswith("own@") and dry["space_size"] > 1000 and len(dry["sample"]) == 3
    assert d.get("spaces")["spaces"] == [], "a dry run leaves no name behind"
    cli(d, "submit", job, "--set", "budget.trials=0", status=65)
    cli(d, "submit", job, "--set", "dataset=nope", status=66)
    assert d.get("spaces")["spaces"] == [], "nor does a job that is refused"
    id = cli_json(d, "submit", job)["id"]
    assert [s["name"] for s in d.get("spaces")["spaces"]] == ["own"]
    assert d.wait_end(id)["state"] == "succeeded"
    r = cli(d, "submit", job, "--set", "space=./nope.yaml", status=66)
    assert "nope.yaml" in r.err
    r = cli(d, "submit", job, "--set", "space=chian", status=66)
    assert 'no search space "chian" (did you mean \'chain\'?)' in r.err and "own" in r.err
    r = cli(d, "submit", job, "--set", "fidelity.channels=8", status=65)
    assert "fidelity.channels: networks of the space own@" in r.err
    # From flags; and a clone means the same content, whatever happens to the name.
    flags = ["search", "--dataset", "small", "--curriculum", "smallcur", "--trials", 2, "--valid-images", 32, "--fidelity-steps", 2]
    assert d.wait_end(cli_json(d, *flags, "--space", folder / "own.yaml")["id"])["space"] == d.job(id)["space"]
    (folder / "own.yaml").write_text(OWN.replace("[6, 8]", "[7, 8]"))
    cli(d, "space", "import", folder / "own.yaml")
    clone = cli_json(d, "clone", id)["id"]
    assert d.wait_end(clone)["space"] == d.job(id)["space"]
    assert d.wait_end(cli_json(d, *flags, "--space", "own")["id"])["space"] != d.job(id)["space"]
    assert d.wait_end(cli_json(d, *flags, "--space", d.job(id)["space_hash"])["id"])["space"] == d.job(id)["space"]


@pytest.mark.limit(240)
def test_networks_of_a_file_are_verified_and_exported(box, load, submit, own, logits_program):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not here (PyPI): deploy/install-deps.sh --test")
    torch = pytest.importorskip("torch", reason="PyTorch is not here (Debian's python3-torch): deploy/install-deps.sh --test")
    torch.set_num_threads(1)
    d = load(box.coordinator())
    box.worker(d, slots=2)
    cli(d, "space", "import", own)
    search = submit(d, **dict(SMALL, space="own", budget={"trials": 24}, searcher={"name": "random"}))
    d.wait_end(search)
    verify = submit(d, kind="verify", name="check", curriculum=None, space=None, searcher=None, fidelity=None, window=None, budget=None,
                    verify={"of": str(search), "top": 4, "random": 12, "epochs": 1, "batch": 32})
    doc = d.wait_end(verify, timeout=150)
    assert doc["state"] == "succeeded" and doc["space"] == d.job(search)["space"]
    # Years later: the file is gone, its name means something else, the coordinator is another process.
    own.write_text(OWN.replace("[6, 8]", "[7, 8]"))
    cli(d, "space", "import", own)
    own.unlink()
    d.kill9()
    d.start()
    images, labels = harness.small_images(160, 2)
    (box.dir / "images.u8").write_bytes(images.tobytes())
    x = (images.astype(np.float32) / np.float32(127.5) - 1).reshape(-1, 1, SIDE, SIDE)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    space = box.dir / "as-it-was.yaml"
    space.write_text(OWN)
    trials = [t for t in d.trials(verify) if t["state"] == "scored"]
    assert len(trials) >= 12
    for t in trials:
        onnx, module = box.dir / f"n{t['trial']}.onnx", box.dir / f"n{t['trial']}.py"
        cli(d, "export", f"{verify}/{t['trial']}", "-o", onnx)
        cli(d, "export", f"{verify}/{t['trial']}", "-o", module)
        done = subprocess.run([logits_program, module.with_suffix(".safetensors"), box.dir / "images.u8", "1", str(SIDE), str(SIDE),
                               str(CLASSES), box.dir / "ours.f32", space], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        ours = np.fromfile(box.dir / "ours.f32", "<f4").reshape(len(images), CLASSES)
        scale = max(1.0, float(np.abs(ours).max()))
        session = ort.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        (theirs,) = session.run(None, {session.get_inputs()[0].name: x})
        assert np.abs(theirs - ours).max() <= 1e-5 * scale, t["arch"]
        assert abs(float(np.mean(theirs.argmax(1) == labels)) - t["score"]) <= 1.01 / len(labels)
        scope = {"__name__": "exported", "__file__": str(module)}
        exec(compile(module.read_text(), str(module), "exec"), scope)
        with torch.no_grad():
            assert np.abs(scope["load"]()(torch.from_numpy(x)).numpy() - ours).max() <= 1e-5 * scale, t["arch"]
    one = trials[0]
    for verb in (["draw", f"{search}/{one['trial']}"], ["why", f"{search}/0"], ["best", search], ["results", search], ["compare", search, verify],
                 ["export", search, "--format", "svg", "-o", "-"], ["export", search, "--format", "dot", "-o", "-"], ["audit", search]):
        assert cli(d, *verb).out
    assert json.loads(cli(d, "export", f"{verify}/{one['trial']}", "--format", "json", "-o", "-").out)["network"]


@pytest.mark.limit(120)
def test_searchers_are_simulated_on_scores_of_a_file(box, load, submit):
    d = load(box.coordinator())
    w = box.worker(d, slots=2)
    tiny = box.dir / "tiny.yaml"
    tiny.write_text("name: tiny\nslots:\n  - {name: a, op: conv, width: [2, 3, 4], stride: 2}\n  - {name: b, op: [none, avg, dw]}\nhead: [gap, flat]\n")
    cli(d, "space", "import", tiny)
    search = submit(d, **dict(SMALL, space="tiny", budget={"trials": 18}, searcher={"name": "random"}))
    d.wait_end(search)
    assert w.stop() == 0
    of_job = cli_json(d, "simulate", search, "--seeds", 5, "--trials", 10)
    assert of_job["records"]["architectures"] == 18 and of_job["records"]["space"] == d.job(search)["space"]
    cli(d, "export", search, "--format", "csv", "-o", box.dir / "search.csv")
    for space in ("tiny", tiny, d.job(search)["space"]):
        doc = cli_json(d, "simulate", box.dir / "search.csv", "--space", space, "--seeds", 5, "--trials", 10)
        assert doc["records"]["space"] == d.job(search)["space"] and doc["records"]["architectures"] == 18
    assert "names no file" in harness.run_cli("simulate", box.dir / "search.csv", "--space", "tiny", "--dir", box.dir / "nobody").err


@pytest.mark.limit(120)
def test_an_audit_of_a_file_trains_on_the_way(box, load, submit, own):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    cli(d, "space", "import", own)
    job = submit(d, **dict(SMALL, space="own", budget={"trials": 12}, searcher={"name": "random"},
                           audit={"share": 0.9, "epochs": 0.5, "min": 3, "max": 4, "batch": 32}))
    doc = d.wait_end(job, timeout=100)
    assert doc["state"] == "succeeded" and doc["audit"]["trained"] >= 3, doc
    assert d.get(f"jobs/{job}/replay")["ok"] is True


@pytest.mark.limit(120)
def test_a_teacher_draws_from_a_file(box, load, own):
    d = load(box.coordinator())
    box.worker(d)
    job = box.dir / "teach.yaml"
    job.write_text("kind: teach\ndataset: small\nteach: {steps: 4, batch: 16, meta_steps: 2, learners: 2, meta_batch: 32, g_hidden: 8, z_dim: 4,"
                   " g_channels1: 4, g_channels2: 4, learners_mix: [{space: ./own.yaml, weight: 2}, {space: chain}]}\n")
    id = cli_json(d, "submit", job)["id"]
    d.kill9()
    d.start()
    doc = d.wait_end(id, timeout=100)
    assert doc["state"] == "succeeded", doc
    mix = doc["spec"]["teach"]["learners_mix"] if "spec" in doc else d.job(id)["spec"]["teach"]["learners_mix"]
    assert mix[0]["space"] == f"own@{mix[0]['hash'][:16]}" and "hash" not in mix[1]


@pytest.mark.limit(120)
def test_a_book_with_rows_of_a_file_needs_the_file(box, load, submit, own):
    d = load(box.coordinator())
    w = box.worker(d, slots=2)
    cli(d, "space", "import", own)
    d.wait_end(submit(d, fidelity=SMALL["fidelity"], space="own", budget={"trials": 6}, searcher={"name": "random"}))
    cli(d, "book", "export", box.dir / "book.csv")
    assert w.stop() == 0
    other = box.coordinator(name="other")
    r = cli(other, "book", "import", box.dir / "book.csv", status=65)
    assert "row 1: space: there is no search space \"own@" in r.err and "didact space export" in r.err
    cli(other, "space", "import", own, "under-another-name")
    assert cli_json(other, "book", "import", box.dir / "book.csv")["new"] == 6
    load(other)
    known = submit(other, fidelity=SMALL["fidelity"], space="under-another-name", budget={"trials": 6}, searcher={"name": "random"})
    assert other.wait_end(known)["state"] == "succeeded", "no worker is here: the book answers all"


@pytest.mark.limit(120)
def test_the_worker_reads_a_space_file_by_itself(box, load, material, own):
    d = load(box.coordinator())
    cli(d, "dataset", "export", "small", "-o", box.dir / "small.safetensors")
    shown = json.loads(harness.run_cli("space", "show", own, "--samples", 4, "--input", "1,12,12", "--json").out)
    archs = box.dir / "archs.txt"
    archs.write_text("".join(s["arch"] + "\n" for s in shown["samples"]))

    def worker(*argv, status=0):
        done = subprocess.run([BIN / "didact-worker", *map(str, argv)], capture_output=True, text=True, cwd=box.dir)
        assert done.returncode == status, done.stderr
        return done
    worker("score", "--space", own, "--archs", archs, "--dataset", "small.safetensors", "--curriculum", material.curriculum, "--out", "scores.csv",
           "--set", "fidelity.valid_images=32", "--threads", 1)
    cli(d, "space", "import", own)
    assert cli_json(d, "book", "import", box.dir / "scores.csv")["new"] == 4
    cells = box.dir / "cells.txt"
    cells.write_text("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|\n")
    worker("score", "--space", "nasbench201", "--set", "fidelity.channels=4", "--archs", cells, "--dataset", "small.safetensors", "--zero-cost", "synflow",
           "--out", "cells.csv")
    r = worker("score", "--space", own, "--set", "fidelity.channels=4", "--archs", archs, "--dataset", "small.safetensors", "--zero-cost", "synflow",
               "--out", "none.csv", status=65)
    assert "state their own" in r.stderr
    one = box.dir / "one.txt"
    one.write_text(shown["samples"][0]["arch"])
    assert "conv" in worker("plan", "--space", own, "--arch", one, "--image", "1x12x12", "--classes", 4, "--batch", 16, "--meta-batch", 16).stdout
    job = box.dir / "job.yaml"
    job.write_text(harness.job_yaml(space="./own.yaml", fidelity=SMALL["fidelity"]))
    for extra in ([], ["--space", own]):
        doc = json.loads(worker("run", job, "--dataset", "small.safetensors", "--curriculum", material.curriculum, "--out", "out", "--threads", 1,
                                "--arch", shown["samples"][0]["arch"], *extra).stdout)
        assert doc["state"] == "scored"
    assert "named by its path" in worker("score", "--space", "own", "--archs", archs, "--dataset", "small.safetensors", "--zero-cost", "synflow",
                                         "--out", "none.csv", status=65).stderr


def test_what_the_documents_and_the_shipped_files_say(box, load, own):
    """The example of docs/spaces.md as it stands there, with its identity and its architecture; every file under share/spaces; the job that names one."""
    text = (ROOT / "docs" / "spaces.md").read_text().split("## Your own space")[1]
    block = re.search(r"\n\n((?:    .*\n)+)\nEvery value may be a list", text)[1]
    own.write_text("".join(line[4:] + "\n" for line in block.splitlines()))
    arch = re.search(r"`(norm=wn [^`]*)`", text)[1].replace("\n", " ")
    shown = json.loads(harness.run_cli("space", "show", own, "--arch", arch, "--json").out)
    assert shown["arch"] == arch and f"`{shown['name']}`" in text
    files = sorted((ROOT / "share" / "spaces").glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        r = harness.run_cli("space", "show", file)
        assert r.status == 0 and file.stem in r.out, r
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = ["submit", ROOT / "share" / "jobs" / "search-own-space.yaml", "--set", "dataset=small", "--set", "curriculum=smallcur", "--set", "budget.trials=6",
           "--set", "fidelity.valid_images=32"]
    assert d.wait_end(cli_json(d, *job)["id"])["state"] == "succeeded"


@pytest.mark.limit(120)
def test_architectures_of_a_file_are_verified_by_their_texts(box, load, own):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    a, b = (s["arch"] for s in json.loads(harness.run_cli("space", "show", own, "--samples", 2, "--input", "1,12,12", "--json").out)["samples"])
    flags = ["verify", "--dataset", "small", "--space", own, "--epochs", 1, "--batch", 32]
    r = cli(d, *flags, "--arch", a, "--arch", " ".join(reversed(a.split())), status=65)
    assert "items 1 and 2 are the same network" in r.err
    assert "item 2: 'stem.width=99'" in cli(d, *flags, "--arch", a, "--arch", "stem.width=99", status=65).err
    assert d.get("jobs")["jobs"] == [] and d.get("spaces")["spaces"] == []
    job = cli_json(d, *flags, "--arch", a, "--arch", b)["id"]
    assert d.wait_end(job)["state"] == "succeeded"
    assert [t["arch"] for t in d.trials(job)] == [a, b]


@pytest.mark.limit(120)
def test_a_lost_space_fails_the_job_until_it_is_imported_again(box, load, submit, own):
    d = load(box.coordinator())
    w = box.worker(d)
    cli(d, "space", "import", own)
    job = submit(d, **dict(SMALL, space="own", budget={"trials": 40}, searcher={"name": "random"}))
    d.wait_scored(2, job)
    d.kill9()
    w.kill9()
    blob = d.folder / "blobs" / d_hash(own)
    text = blob.read_text()
    for broken in (None, text + "#"):
        blob.unlink() if broken is None else blob.write_text(broken)
        d.start()
        doc = d.wait_end(job)
        assert doc["state"] == "failed" and ("is not in the blobs folder" if broken is None else "has another content") in doc["reason"], doc
        r = harness.run_cli("--connect", d.connect, "replay", job)
        assert r.status != 0 and "space" in r.err
        d.stop()
        blob.write_text(text)
        d.start()
        cli(d, "retry", job)
        assert d.job(job)["state"] in ("queued", "running")
        d.kill9()
    d.start()
    w.start()
    assert d.wait_end(job)["state"] == "succeeded"
    assert d.get(f"jobs/{job}/replay")["ok"] is True


def d_hash(file):
    return hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest()
