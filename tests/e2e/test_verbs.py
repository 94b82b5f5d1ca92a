"""The verbs that answer and steer: best, compare, clone, wait, set, extend, retry, why; on real coordinators and workers."""

import json
import math
import re

import pytest

import harness
from harness import cli, cli_json, run_cli


@pytest.fixture
def searched(box, load, submit):
    """Two ended searches: 1 and 2 differ in seed and size."""
    d = load(box.coordinator())
    box.worker(d, slots=2)
    submit(d, name="first", budget={"trials": 30}, searcher={"name": "random"})
    submit(d, name="second", budget={"trials": 20}, seed=7, searcher={"name": "random"}, window=4)
    d.wait_end(1)
    d.wait_end(2)
    return d


def test_best_prints_the_front(searched):
    trials = [t for t in searched.trials(1) if t["state"] == "scored"]
    doc = cli_json(searched, "best", 1, "--pareto", "score,params,macs")
    assert doc["objectives"] == ["score", "params", "macs"]

    def beaten(t):
        return any(o["score"] >= t["score"] and o["params"] <= t["params"] and o["macs"] <= t["macs"] and
                   (o["score"], -o["params"], -o["macs"]) != (t["score"], -t["params"], -t["macs"]) for o in trials)
    assert sorted(t["trial"] for t in doc["front"]) == sorted(t["trial"] for t in trials if not beaten(t))
    table = cli(searched, "best", "first", "--pareto", "params,score").out
    assert table.splitlines()[0].split() == ["TRIAL", "PARAMS", "SCORE", "ARCHITECTURE"]
    r = run_cli("--connect", searched.connect, "best", 1, "--pareto", "score,beauty")
    assert r.status == 64 and "beauty" in r.err
    assert cli(searched, "best", 1).out.strip() == doc["front"][0]["arch"]


def test_rungs_of_halving_are_not_mixed(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, halving={"steps": [1, 3], "inits": [1, 1]}, window=4, scores={"fuse": ["score", "params"]},
                 fidelity={"steps": 6, "inits": 2, "valid_images": 32}, budget={"trials": 40})
    d.wait_end(job)
    scored = [t for t in d.trials(job) if t["state"] == "scored"]
    top = {t["trial"]: t for t in scored if t["rung"] == 2}
    assert top and len(top) < len(scored)
    front = cli_json(d, "best", job, "--pareto", "score,loss_sum")["front"]

    def beaten(t):
        return any(o["score"] >= t["score"] and o["loss_sum"] <= t["loss_sum"] and (o["score"], o["loss_sum"]) != (t["score"], t["loss_sum"])
                   for o in top.values())
    assert {t["trial"] for t in front} == {t["trial"] for t in top.values() if not beaten(t)}
    assert f"{len(scored) - len(top)} scored on lower rungs" in cli(d, "best", job, "--pareto", "score,loss_sum").err
    ranked = cli_json(d, "results", job, "--by", "fused", "--top", 100)["best"]
    assert [t["rung"] for t in ranked] == sorted((t["rung"] for t in ranked), reverse=True)
    assert len({t["arch_hash"] for t in ranked}) == len(ranked) == len({t["arch_hash"] for t in scored})

    def ranks(key, sign):                              # of the highest rung alone, ties sharing their mean
        v = [sign * t[key] for t in top.values()]
        return {i: (sum(x < sign * t[key] for x in v) + (sum(x == sign * t[key] for x in v) + 1) / 2) / len(v) for i, t in top.items()}
    a, b = ranks("score", 1), ranks("params", 1)
    assert {t["trial"]: t["by_value"] for t in ranked if t["rung"] == 2} == pytest.approx({i: math.log(a[i]) + math.log(b[i]) for i in top})
    rows = cli(d, "results", job, "--top", 100).out.splitlines()
    head = next(r for r in rows if "ARCHITECTURE" in r).split()
    assert head[:3] == ["RANK", "TRIAL", "RUNG"]
    assert "RUNG" not in cli(d, "results", job, "--top", 1).out
    lineage = cli_json(d, "why", f"{job}/{min(top)}")["lineage"]
    assert [t["change"] for t in lineage[:2]] == ["3 → 6 steps, 1 → 2 initialisations", "1 → 3 steps"]
    said = {re.sub(r" \(--top \d+ lists them\)", "", "".join(re.findall("^The first.*$", cli(d, "results", job, "--top", n).out, re.M))) for n in (1, 3, 100)}
    assert len(said) == 1, "what cannot be told apart does not depend on how many are listed"
    named = re.search(r"^The first (\d+)", said.pop())
    assert not named or 2 <= int(named[1]) <= len(top), "rows of other rungs do not compare"


def test_a_name_of_several_jobs_is_said_to_be_one(searched, submit):
    assert cli(searched, "show", "first").err == ""
    submit(searched, name="first", budget={"trials": 3})
    searched.wait_end(3)
    for argv in (["show", "first"], ["results", "first"], ["replay", "first"], ["compare", "first", 2], ["extend", "first", "--trials", 4]):
        r = run_cli("--connect", searched.connect, *argv)
        assert r.err.count('note: several jobs are called "first": 3, the newest, is meant; the others are 1') == 1, r
    assert "note:" not in cli(searched, "show", 3).err + cli(searched, "show", "second").err
    assert json.loads(cli(searched, "show", "first", "--json").out)["id"] == 3
    searched.wait_end(3)
    yaml = json.dumps({"kind": "verify", "verify": {"of": "first", "top": 1, "random": 0, "epochs": 1, "batch": 32}})
    file = searched.folder / "verify.yaml"
    file.write_text(yaml)
    assert "the others are 1" in cli(searched, "submit", file, "--dry-run").err
    assert "the others are 1" in cli(searched, "submit", file).err


def test_trials_and_workers_call_a_worker_the_same(searched):
    names = {w["name"] for w in searched.get("workers")["workers"]}
    assert names == {"w1"}
    rows = cli(searched, "trials", 1).out.splitlines()
    at = rows[0].index("WORKER")
    assert all(row[at:].split()[0] == "w1" for row in rows[1:])


def test_settings_are_printed_as_they_were_written(searched, submit, box):
    job = submit(searched, name="third", budget={"trials": 3}, fidelity={"steps": 6, "inits": 1, "valid_images": 32, "lr_scales": [0.15, 1]},
                 audit={"share": 0.1, "min": 3, "floor": 0.15})
    searched.wait_end(job)
    text = cli(searched, "clone", job, "--print").out
    assert "trial_timeout: 600\n" in text and "e2" not in text
    assert "lr_scales: [0.15, 1]" in text and "floor: 0.15\n" in text and "share: 0.1\n" in text and "99999" not in text
    text = cli(searched, "compare", 1, job).out
    assert "[0.15, 1]" in text and "99999" not in text
    assert "0.15" in cli(searched, "show", job).out


def test_a_dataset_file_is_imported_as_it_was_exported(searched, box):
    (row,) = searched.get("datasets")["datasets"]
    file = box.dir / "out.safetensors"
    cli(searched, "dataset", "export", "small", "-o", file)
    cli(searched, "dataset", "import", file, "again")
    assert {(r["name"], r["hash"]) for r in searched.get("datasets")["datasets"]} == {("small", row["hash"]), ("again", row["hash"])}
    file.write_bytes(file.read_bytes()[:-1])
    assert "out.safetensors" in cli(searched, "dataset", "import", file, "third", status=65).err
    (box.dir / "words.txt").write_text("words")
    assert "words.txt" in cli(searched, "dataset", "import", box.dir / "words.txt", status=65).err
    assert len(searched.get("datasets")["datasets"]) == 2


def test_compare_names_what_differs_and_what_is_shared(searched):
    doc = cli_json(searched, "compare", "first", 2)
    differ = {s["key"]: (s["a"], s["b"]) for s in doc["settings"]}
    assert differ["budget.trials"] == (30, 20) and differ["window"] == (8, 4) and "seed" not in differ
    # The same seed and a searcher without memory: the shorter one is the beginning of the longer one, score for score.
    assert doc["common"] == {"n": 20, "equal_scores": 20, "spearman": 1.0, "ci_low": 1.0, "ci_high": 1.0}
    text = cli(searched, "compare", 1, 2).out
    assert "budget.trials" in text and "20 architectures are in common, with the same scores in both" in text
    assert run_cli("--connect", searched.connect, "compare", 1, 9).status == 66


def test_a_clone_is_the_same_search(searched, box, material):
    text = cli(searched, "clone", 2, "--print").out
    assert "dataset: small" in text and "dataset_hash" not in text
    file = box.dir / "again.yaml"
    cli(searched, "clone", 2, "-o", file)
    assert file.read_text() == text
    assert cli_json(searched, "clone", 2) == {"id": 3}
    assert searched.wait_end(3)["state"] == "succeeded"
    assert searched.history(3) == searched.history(2)
    cli(searched, "clone", "second", "--set", "budget.trials=5", "--set", "name=short")
    assert searched.wait_end(4)["trials"]["scored"] == 5
    r = run_cli("--connect", searched.connect, "clone", 2, "--set", "budget.trails=5")
    assert r.status == 65 and "budget.trials" in r.err
    # The name is taken by other content: the clone asks for what the job had, by its hash, or says that it is gone.
    harness.write_curriculum(material.dir / "other.safetensors", steps=6, lr=0.01)
    cli(searched, "curriculum", "import", material.dir / "other.safetensors", "--name", "smallcur")
    r = run_cli("--connect", searched.connect, "clone", 2)
    assert r.status == 1 and "smallcur" in r.err and "not here any more" in r.err


def test_wait_takes_several_jobs_and_tells_the_worst(searched, submit):
    r = cli(searched, "wait", 1, "second")
    assert [line.split()[:3] for line in r.out.splitlines()] == [["job", "1", "succeeded"], ["job", "2", "succeeded"]]
    job = submit(searched, name="third", budget={"trials": 200000})
    cli(searched, "wait", 1, job, "--for", "0.3", status=75)
    cli(searched, "cancel", job, "--yes")
    cli(searched, "wait", job, 1, status=1)


@pytest.mark.limit(180)
def test_an_extended_search_is_that_of_the_larger_budget(box, load, submit):
    """Extended while it runs, after its end, and over a kill -9: the same bytes as the job that had the budget at once."""
    d = load(box.coordinator())
    box.worker(d, slots=2)
    whole = submit(d, name="whole", budget={"trials": 48})
    part = submit(d, name="part", budget={"trials": 16})
    cli(d, "extend", "part", "--trials", 24)
    d.wait_end(part)
    assert cli_json(d, "extend", part, "--trials", 48)["state"] in ("running", "queued")
    d.wait_scored(28, part)
    d.kill9()
    d.start()
    assert d.wait_end(part)["trials"]["scored"] == 48
    d.wait_end(whole)
    assert d.history(part) == d.history(whole)
    assert "the same" in cli(d, "replay", part).out
    kinds = [e["kind"] for e in d.get(f"jobs/{part}/why")["events"]]
    assert kinds == ["extend", "extend"]
    r = run_cli("--connect", d.connect, "extend", part, "--trials", 40)
    assert r.status == 65 and "larger" in r.err
    assert run_cli("--connect", d.connect, "extend", part).status == 64


@pytest.mark.limit(180)
def test_what_timed_out_is_tried_again(box, load, submit):
    d = load(box.coordinator())
    w = box.worker(d, slots=2)
    job = submit(d, budget={"trials": 12}, trial_timeout=0.001)
    doc = d.wait_end(job)
    assert doc["state"] == "failed" and doc["failures"]["timeout"] == 12
    text = cli(d, "why", job).out
    assert "12 of 12 failed with timeout" in text and "didact retry" in text
    text = cli(d, "why", f"{job}/3").out
    assert "trial 3" in text and "failed with timeout in attempt 1" in text
    cli(d, "set", job, "trial_timeout=1m", "priority=3")
    cli(d, "retry", job)
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] == 12 and doc["trials"]["failed"] == 0
    assert all(t["attempt"] == 2 and t["told_failed"] for t in d.trials(job)), "one result each, of the second attempt"
    assert cli_json(d, "replay", job)["ok"], "the searcher knew them as failed, and the record says so"
    why = cli_json(d, "why", f"{job}/3")
    assert [e["trial"] for e in why["events"]] == [3] and "failed(timeout)" in why["events"][0]["text"]
    r = run_cli("--connect", d.connect, "retry", job)
    assert r.status == 1 and "no trial that failed" in r.err
    assert w.running


def test_why_says_what_holds_a_job_up(box, load, submit):
    d = load(box.coordinator())
    job = submit(d, budget={"trials": 100000}, window=2, searcher={"name": "evolution", "population": 3, "sample": 2})

    def codes(what=job):
        return {w["code"]: w["text"] for w in cli_json(d, "why", what)["why"]}
    assert "no_workers" in codes() and "didact-worker" in codes()["no_workers"]
    cli(d, "pause", job)
    assert "didact resume" in codes()["paused"]
    cli(d, "resume", job)
    box.worker(d, slots=4)
    d.wait_scored(12, job)
    harness.wait_for("the window is the limit", lambda: "window" in codes())
    assert "trial" in codes()["window"]
    cli(d, "set", job, "parallel=1")
    harness.wait_for("the limit of parallel", lambda: "1 trial runs and parallel is 1" in codes().get("parallel", ""))
    other = submit(d, name="other", budget={"trials": 100000}, priority=5, window=64)
    harness.wait_for("the other one goes first", lambda: "priority" in codes() or "busy" in codes())
    cli(d, "cancel", other, "--yes")
    cli(d, "cancel", job, "--yes")
    assert "cancelled on request" in codes()["ended"]
    scored = next(t for t in d.trials(job) if t["state"] == "scored" and t["parent"] is not None)
    doc = cli_json(d, "why", f"{job}/{scored['trial']}")
    assert [a["trial"] for a in doc["lineage"]][:2] == [scored["trial"], scored["parent"]] and doc["lineage"][0]["change"]
    assert "Its lineage" in cli(d, "why", f"{job}/{scored['trial']}").out
    assert run_cli("--connect", d.connect, "why", f"{job}/999999").status == 66
    assert run_cli("--connect", d.connect, "why", f"{job}/x").status == 64
