"""The command line: every verb has --json and --help with an example first; `didact local` needs nothing else."""

import hashlib
import json
import os
import re
import subprocess

import pytest

import harness
from harness import cli, cli_json, run_cli


def verbs():
    """Names of all verbs, from the program's own list."""
    found = []
    for line in run_cli("--help").out.splitlines():
        m = re.match(r"^  ([a-z][a-z-]*(?: [a-z][a-z-]*)?)(?= )", line)
        if m and not line.startswith("  didact"):
            words = line[2:34].split()
            name = [w for w in words[:2] if re.fullmatch(r"[a-z][a-z-]*", w)]
            found.append(" ".join(name))
    return found


def test_the_list_of_verbs_is_whole():
    names = verbs()
    for must in ("submit", "jobs", "show", "watch", "results", "pause", "resume", "cancel", "workers", "status", "export",
                 "replay", "simulate", "keygen", "dataset import", "local start", "local stop", "demo"):
        assert must in names, names


def test_every_verb_has_help_that_opens_with_an_example():
    names = verbs()
    assert len(names) >= 15
    for name in names:
        r = run_cli(*name.split(), "--help")
        assert r.status == 0, r
        first = r.out.splitlines()
        assert first[0] == "Example:" and f"didact {name}" in r.out.split("Usage:")[0], r
        assert "--json" in r.out, name


def test_help_and_version_need_no_coordinator(box):
    env = {"HOME": str(box.dir)}
    for argv in (["--help"], ["help"], ["--version"]):
        r = run_cli(*argv, env=env)
        assert r.status == 0 and r.out, r
    assert (harness.ROOT / "VERSION").read_text().strip() in run_cli("--version").out
    for program in ("didactd", "didact-worker"):
        for flag in ("--help", "--version"):
            done = subprocess.run([harness.BIN / program, flag], capture_output=True, text=True, timeout=20)
            assert done.returncode == 0 and done.stdout, (program, flag)


def test_a_mistyped_verb_or_flag_names_the_nearest():
    r = run_cli("submitt")
    assert r.status == 64 and "submit" in r.err
    r = run_cli("jobs", "--jsno")
    assert r.status == 64 and "--json" in r.err
    r = run_cli("submit")
    assert r.status == 64 and "FILE" in r.err
    done = subprocess.run([harness.BIN / "didactd", "--lissten", "x"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 64 and "lissten" in done.stderr
    done = subprocess.run([harness.BIN / "didact-worker", "--slots", "many"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 64 and "slots" in done.stderr


def test_a_group_of_verbs_has_help():
    for group, verbs in (("local", ["start", "stop", "status"]), ("dataset", ["import", "export"]), ("space", ["show"])):
        for flag in ("--help", "-h"):
            r = run_cli(group, flag)
            assert r.status == 0 and r.err == "" and all(f"Usage: didact {group} {v}" in r.out for v in verbs)
    assert run_cli("local").status == 64 and run_cli("nothing", "--help").status == 64
    assert run_cli("simulate", "--help").out.count("may be repeated") == 2, "--searcher and --set, once each"


def test_a_rectifier_is_called_by_its_slope():
    relu = run_cli("space", "show", "chain", "--arch", "bn relu | c16k3 max2 | c16k3 | gap").out
    leaky = run_cli("space", "show", "chain", "--arch", "bn lrelu | c16k3 max2 | c16k3 | gap").out
    assert "relu" in relu and "lrelu" not in relu.split("┌", 1)[1] and "lrelu" in leaky.split("┌", 1)[1]


@pytest.fixture
def ended(box, load, submit):
    d = load(box.coordinator())
    box.worker(d)
    submit(d, budget={"trials": 12})
    d.wait_end()
    return d


@pytest.mark.parametrize("argv", [
    ["jobs"], ["show", 1], ["trials", 1], ["results", 1], ["workers"], ["status"], ["replay", 1], ["watch", 1], ["wait", 1],
    ["dataset", "list"], ["curriculum", "list"], ["space", "list"], ["best", 1], ["top"], ["why", 1], ["why", "1/3"],
    ["compare", 1, 1], ["best", 1, "--pareto", "score,macs"]])
def test_every_reading_verb_speaks_json_and_words(ended, argv):
    names = verbs()
    if " ".join(str(a) for a in argv[:2] if isinstance(a, str)) not in names and argv[0] not in names:
        pytest.fail(f"no verb {argv}") if argv[0] in ("jobs", "show", "results", "workers", "status", "replay", "watch") \
            else pytest.skip(f"this version has no verb {argv[0]}")
    r = cli(ended, *argv, "--json")
    for line in r.out.splitlines() if argv[0] == "watch" else [r.out]:
        json.loads(line)
    plain = cli(ended, *argv)
    assert plain.out.strip()
    assert "\x1b" not in plain.out, "colour only on a terminal"


@pytest.mark.parametrize("space, cells, per_stage", [("chain", [], 0), ("nasbench201", ["cell"], 2), ("nasnet", ["normal", "reduce"], 2)])
def test_a_space_is_shown_with_samples_and_a_drawing(space, cells, per_stage):
    size = ["--channels", "12", "--cells", "2"] if cells else []
    r = harness.run_cli("space", "show", space, "--input", "3,32,32", "--samples", "4", *size, "--json")
    assert r.status == 0, r.err
    doc = json.loads(r.out)
    assert len(doc["samples"]) == 4 and doc["size"] > 1e4 and doc["arch"] == doc["samples"][0]["arch"]
    blocks = {b["block"]: b for b in doc["blocks"]}
    assert sum(b["params"] for b in doc["blocks"]) == doc["samples"][0]["params"], "the blocks are the whole network"
    assert sum(b["macs"] for b in doc["blocks"]) == doc["samples"][0]["macs"]
    assert blocks["input"]["shape"] == [3, 32, 32] and blocks["head"]["shape"] == [10, 1, 1]
    assert sum(name.startswith("cell") for name in blocks) == 3 * per_stage
    if cells:
        assert blocks["stem"]["shape"] == [12, 32, 32]
        assert [c for i, c in enumerate(e["cell"] for e in doc["edges"]) if i == 0 or doc["edges"][i - 1]["cell"] != c] == cells
        for e in doc["edges"]:
            assert f"{e['op']}~{e['from']}" in doc["arch"] and e["from"] < e["to"]
    again = harness.run_cli("space", "show", space, "--arch", doc["samples"][1]["arch"])
    assert doc["samples"][1]["arch"] in again.out and "┌ input" in again.out and "└ head" in again.out
    wrong = harness.run_cli("space", "show", space, "--arch", "conv conv")
    assert wrong.status == 65 and "--arch" in wrong.err
    if not cells:
        assert "state their own" in harness.run_cli("space", "show", space, "--cells", "2").err


def test_a_space_file_is_shown_or_its_mistakes_are(tmp_path):
    file = harness.ROOT / "share" / "spaces" / "small-images.yaml"
    doc = json.loads(harness.run_cli("space", "show", file, "--json").out)
    assert doc["name"] == f"small-images@{doc['hash'][:16]}" and doc["size"] == 2 * 4 * 36 * 36 * 2 and len(doc["samples"]) == 3
    assert "late1" in harness.run_cli("space", "show", file, "--input", "3,32,32").out
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(file.read_text().replace("op: [sep, avg]", "op: [sepp, avg]").replace("late.op: [conv", "later.op: [conv"))
    r = harness.run_cli("space", "show", wrong)
    lines = wrong.read_text().splitlines()
    assert r.status == 65 and "did you mean 'sep'" in r.err and "did you mean 'late.op'" in r.err
    assert f"line {1 + next(i for i, l in enumerate(lines) if 'sepp' in l)}" in r.err and "wrong.yaml" in r.err
    assert harness.run_cli("space", "show", tmp_path / "none.yaml").status in (66, 74)
    assert harness.run_cli("--dir", tmp_path / "nobody", "space", "show", "chian").status == 66


def test_errors_in_json_are_json_too(ended):
    r = cli(ended, "show", 99, "--json", status=66)
    assert "ERR_NOTFOUND" in r.out + r.err


def test_an_empty_name_is_no_job(ended):
    for verb in ("results", "show", "watch", "trials", "why", "cancel", "audit", "replay", "clone", "told", "finish"):
        r = cli(ended, verb, "", status=64)
        assert "argument 1 is empty" in r.err, r.err
    assert "argument 2 is empty" in cli(ended, "compare", 1, "", status=64).err


def test_a_score_book_for_a_job_says_what_is_missing(ended, tmp_path):
    (tmp_path / "one.csv").write_text("arch,score\n")
    for connect in (ended.connect, f"ipc://{tmp_path}/nobody"):
        r = harness.run_cli("--connect", connect, "audit", "one.csv", cwd=tmp_path)
        assert r.status == 64 and "--truth FILE" in r.err and "one.csv" in r.err, r.err
    assert "there is no job" in cli(ended, "audit", "two.csv", status=66, cwd=tmp_path).err
    (tmp_path / "1").write_text("a file that is called as a job is")
    cli(ended, "audit", "1", cwd=tmp_path)


def test_results_show_the_ten_best(ended):
    out = cli(ended, "results", 1).out
    best = ended.get("jobs/1/results?top=10")["best"]
    assert sum(t["arch"][:20] in out for t in best) >= 1 or sum(str(t["trial"]) in out for t in best) == len(best)


def test_wait_has_the_status_of_the_job(box, load, submit, material):
    if "wait" not in verbs():
        pytest.skip("this version has no verb wait")
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d, budget={"trials": 6})
    cli(d, "wait", job, status=0)
    wild = harness.write_curriculum(material.dir / "wild3.safetensors", lr=1e30)
    cli(d, "curriculum", "import", wild, "--name", "wild")
    bad = submit(d, name="bad", curriculum="wild", budget={"trials": 6})
    cli(d, "wait", bad, status=1)


def test_cancel_asks_before_it_destroys(ended, submit):
    job = submit(ended, name="more", budget={"trials": 500})
    r = cli(ended, "cancel", job, status=64)
    assert "--yes" in r.err and ended.job(job)["state"] in ("queued", "running")
    cli(ended, "cancel", job, "--yes")


def test_a_workers_print_config_shows_what_it_would_do(box):
    done = subprocess.run([harness.BIN / "didactd", "--dir", box.dir / "d", "--listen", "tcp://127.0.0.1:4711", "--print-config"],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "4711" in done.stdout
    assert not (box.dir / "d" / "endpoints.json").exists()


@pytest.mark.limit(120)
def test_local_start_and_stop(box, material):
    """The embedded default: one command starts everything, one stops it, and the results are there the next time."""
    home = box.dir / "L"

    def local(*argv, status=0):
        r = run_cli(*argv, "--dir", home, cwd=box.dir)
        assert r.status == status, r
        return r
    try:
        local("local", "start", "--workers", 2)
        doc = json.loads(local("status", "--json").out)
        harness.wait_for("both workers are online",
                         lambda: json.loads(local("status", "--json").out)["workers"]["online"] == 2)
        assert doc["version"]
        local("local", "start", "--workers", 2)              # again: says that it runs, starts nothing
        assert json.loads(local("status", "--json").out)["workers"]["online"] == 2
        local("dataset", "import", material.idx, "--name", "small")
        local("curriculum", "import", material.curriculum, "--name", "smallcur")
        file = box.dir / "job.yaml"
        file.write_text(harness.job_yaml(budget={"trials": 12}))
        local("submit", file)
        harness.wait_for("the search ends",
                         lambda: json.loads(local("show", 1, "--json").out)["state"] == "succeeded", 60)
        before = local("results", 1, "--json").out
        pids = [w["pid"] for w in json.loads(local("workers", "--json").out)["workers"]]
        local("local", "stop")
        for pid in pids:
            harness.wait_for("the workers are gone", lambda: not os.path.exists(f"/proc/{pid}"), 10)
        r = run_cli("status", "--dir", home)
        assert r.status == 69, r
        local("local", "stop")                               # nothing to stop is no error
        local("local", "start", "--workers", 1)
        assert local("results", 1, "--json").out == before
    finally:
        run_cli("local", "stop", "--dir", home)


def test_a_dataset_of_pictures_in_folders(box):
    """class-per-folder PNG files, written by hand (zlib alone)."""
    import struct
    import zlib
    images, labels = harness.small_images(200, 5)
    names = ["ant", "bee", "cat", "dog"]
    for i, (image, k) in enumerate(zip(images, labels)):
        folder = box.dir / "pics" / "train" / names[k]
        folder.mkdir(parents=True, exist_ok=True)
        rows = b"".join(b"\0" + row.tobytes() for row in image)

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        (folder / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(
            b"IHDR", struct.pack(">IIBBBBB", harness.SIDE, harness.SIDE, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    d = box.coordinator()
    doc = cli_json(d, "dataset", "import", box.dir / "pics", "--name", "pics")
    again = cli_json(d, "dataset", "import", box.dir / "pics", "--name", "pics")
    listed = d.get("datasets")["datasets"]
    assert len(listed) == 1 and listed[0]["name"] == "pics"
    assert json.dumps(doc).count(listed[0]["hash"]) >= 1 and json.dumps(again).count(listed[0]["hash"]) >= 1, \
        "the same pictures, the same hash"
    file = box.dir / "pics.safetensors"
    cli(d, "dataset", "export", "pics", "-o", file)
    assert hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest() == listed[0]["hash"]
    victim = next((box.dir / "pics" / "train" / "cat").iterdir())
    victim.write_bytes(victim.read_bytes()[:60])
    r = cli(d, "dataset", "import", box.dir / "pics", "--name", "pics2", status=65)
    assert victim.name in r.err
