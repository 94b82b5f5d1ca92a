"""How far scores can be trusted: `didact audit`, against ranks counted here."""

import json
import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest

from harness import cli, cli_json

NOTHING = dict(curriculum=None, space=None, searcher=None, fidelity=None, window=None, budget=None)


def mean_ranks(v):
    v = np.asarray(v, float)
    return np.array([(v < x).sum() + ((v == x).sum() + 1) / 2 for x in v])


def spearman(x, y):
    return float(np.corrcoef(mean_ranks(x), mean_ranks(y))[0, 1])


def png_pixels(raw):
    """Of an 8-bit RGB file: [h, w, 3]."""
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    while at < len(raw):
        n, kind = struct.unpack(">I4s", raw[at:at + 8])
        body = raw[at + 8:at + 8 + n]
        if kind == b"IHDR":
            w, h, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2)
        if kind == b"IDAT":
            data += body
        at += 12 + n
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(h, 1 + 3 * w).astype(int)
    out = np.zeros((h, 3 * w), int)
    for y, (f, line) in enumerate((r[0], r[1:]) for r in lines):
        up = out[y - 1] if y else np.zeros(3 * w, int)
        if f in (0, 2):
            out[y] = (line + (up if f == 2 else 0)) & 255
            continue
        for i in range(3 * w):
            a, b, c = (out[y][i - 3] if i >= 3 else 0), up[i], (up[i - 3] if i >= 3 else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out[y][i] = (line[i] + (a if f == 1 else (a + b) // 2 if f == 3 else paeth)) & 255
    return out.reshape(h, w, 3)


@pytest.mark.limit(120)
def test_an_audit_after_the_fact(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    search = submit(d, fidelity={"steps": 6, "inits": 2, "valid_images": 48, "checkpoints": [3]})
    d.wait_end(search)
    none = cli_json(d, "audit", search)
    assert none["scored"] == 40 and none["samples"] == [] and none["teacher"] is None
    assert "didact verify" in cli(d, "audit", search).out
    other = submit(d, name="other", seed=8)          # takes no part, though it is a search of the same space
    d.wait_end(other)
    recipe = {"epochs": 1, "batch": 32, "flip": False, "shift": 0}
    first = submit(d, kind="verify", name="a", **NOTHING, verify=dict(recipe, of=str(search), top=3, random=7))
    second = submit(d, kind="verify", name="b", seed=9, **NOTHING, verify=dict(recipe, of="small", top=0, random=4))
    longer = submit(d, kind="verify", name="c", **NOTHING, verify=dict(recipe, of=str(search), top=1, random=1, epochs=2))
    elsewhere = submit(d, kind="verify", name="d", seed=8, **NOTHING, verify=dict(recipe, of=str(other), top=2, random=4))
    for job in (first, second, longer, elsewhere):
        assert d.wait_end(job)["state"] == "succeeded"
    doc = cli_json(d, "audit", search)
    one, = [s for s in doc["samples"] if s["training"]["epochs"] == 1]
    two, = [s for s in doc["samples"] if s["training"]["epochs"] == 2]
    assert len(doc["samples"]) == 2 and sorted(one["jobs"]) == [first, second] and two["jobs"] == [longer]

    (alone,) = cli_json(d, "audit", other)["samples"]
    audited, told = alone["predictors"][0]["all"]["spearman"], d.get(f"jobs/{elsewhere}/results")["verify"]
    assert alone["n"] == told["n"] == 6 and (audited["value"], audited["low"], audited["high"]) == (told["spearman"], told["ci_low"], told["ci_high"])

    trials = {t["arch"]: t for t in reversed(d.trials(search)) if t["state"] == "scored"}
    real = {}
    for job in (first, second):
        for t in d.trials(job):
            real.setdefault(t["arch"], []).append(t["score"])
    assert {p["arch"] for p in one["pairs"]} == set(real) and one["n"] == len(real)
    for p in one["pairs"]:
        assert p["accuracy"] == pytest.approx(np.mean(real[p["arch"]])) and p["seeds"] == len(real[p["arch"]])
        t = trials[p["arch"]]
        assert p["values"] == pytest.approx({"score": t["score"], "loss_sum": t["loss_sum"], "params": t["params"], "macs": t["macs"],
                                             "score@3": t["checkpoints"][0]["score"]})
    y = [p["accuracy"] for p in one["pairs"]]
    top = [i for i in range(len(y)) if y[i] >= sorted(y)[len(y) // 2]]
    for predictor in one["predictors"]:
        x = [predictor["sign"] * p["values"][predictor["name"]] for p in one["pairs"]]
        assert predictor["sign"] == (-1 if predictor["name"] == "loss_sum" else 1)
        assert predictor["all"]["n"] == len(y) and predictor["top_half"]["n"] == len(top)
        e = predictor["all"]["spearman"]
        assert e["value"] == pytest.approx(spearman(x, y)) and e["low"] <= e["value"] <= e["high"]
        pars = [p["values"]["params"] for p in one["pairs"]]
        gap = predictor["all"]["minus_params"]
        assert gap["value"] == pytest.approx(spearman(x, y) - spearman(pars, y)) and gap["low"] <= gap["value"] <= gap["high"]
        if len({x[i] for i in top}) > 1 and len({y[i] for i in top}) > 1:
            assert predictor["top_half"]["spearman"]["value"] == pytest.approx(spearman([x[i] for i in top], [y[i] for i in top]))
        assert 0 <= predictor["regret"]["top10"] <= predictor["regret"]["top1"] <= max(y) - min(y)
        assert (predictor["seconds"] == 0) == (predictor["name"] in ("params", "macs"))
    assert {p["name"] for p in one["predictors"]} == {"score", "loss_sum", "params", "macs", "score@3"}

    text = cli(d, "audit", "small", "-o", box.dir / "a.svg").out
    assert "loss_sum (less is better)" in text and "for the number of parameters; difference" in text
    svg = ET.parse(box.dir / "a.svg").getroot()
    kinds = [e.tag.split("}")[1] for e in svg]
    assert kinds.count("circle") >= len(y) + 1 and any("Spearman" in (e.text or "") for e in svg)
    cli(d, "audit", search, "-o", box.dir / "a.png", "--by", "params")
    colours = png_pixels((box.dir / "a.png").read_bytes()).reshape(-1, 3)
    for rgb in ((0x1f, 0x5f, 0xa8), (0xc8, 0x45, 0x2f), (0x22, 0x22, 0x22)):
        assert (colours == rgb).all(axis=1).sum() > 50, f"dots, pick and words in {rgb}"
    assert "no such column" in cli(d, "audit", search, "-o", box.dir / "b.svg", "--by", "luck", status=66).err
    assert not (box.dir / "b.svg").exists()
    assert ".svg or .png" in cli(d, "audit", search, "-o", box.dir / "b.gif", status=64).err
    assert "a verify" in cli(d, "audit", first, status=65).err
    status, body = d.http_raw(f"/api/v1/jobs/{search}/audit")
    assert status == 200 and body.count(b'"predictors"') == 2


def test_the_teachers_cost_is_spread_over_what_it_scored(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    teach = submit(d, kind="teach", name="teacher", **NOTHING, teach={
        "kind": "gtn", "steps": 4, "batch": 8, "meta_steps": 6, "learners": 2, "meta_batch": 32, "z_dim": 8, "g_hidden": 16,
        "g_channels1": 8, "g_channels2": 4, "eval_every": 3, "checkpoint_every": 3})
    assert d.wait_end(teach)["state"] == "succeeded"
    small = {"fidelity": {"steps": 4, "inits": 1, "valid_images": 32}, "curriculum": "teacher"}
    jobs = [submit(d, name=f"s{n}", budget={"trials": n}, **small) for n in (5, 7)]
    for job in jobs:
        d.wait_end(job)
    doc = cli_json(d, "audit", jobs[0])["teacher"]
    n = sum(d.scored(j) for j in jobs)
    assert doc["job"] == teach and doc["candidates"] == n and doc["seconds"] == d.trials(teach)[0]["seconds"]
    assert doc["seconds_per_candidate"] == pytest.approx(doc["seconds"] / n)
    assert f"teacher: job {teach}" in cli(d, "audit", jobs[0]).out


# ---- the standing audit ----

TRIALS = 60
AUDITED = dict(fidelity={"steps": 6, "inits": 4, "valid_images": 60}, budget={"trials": TRIALS},
               audit={"share": 0.08, "min": 6, "epochs": 0.5, "batch": 32, "flip": False, "shift": 0})
STOPPED = dict(AUDITED, audit=dict(AUDITED["audit"], share=0.25, min=8, action="stop", floor=1, control=True, control_curriculum="smallcur"))


def audits(d, job=1):
    import json
    return json.loads(d.history(job))["audit"]


def test_a_search_trains_a_sample_of_its_candidates(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, **dict(AUDITED, audit=dict(AUDITED["audit"], control=True, control_curriculum="smallcur")))
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] + doc["trials"]["failed"] == TRIALS
    cfg = doc["spec"]["audit"]
    rows = audits(d, job)
    trained, controls = ([r for r in rows if r["trial"] // 10**9 == k] for k in (1, 2))
    n = len(trained)
    assert cfg["every"] > 4 and 6 <= n <= TRIALS // cfg["every"] + 1 and len(controls) == n and len(cfg["control_curriculum_hash"]) == 64
    trials = {t["trial"]: t for t in d.trials(job)}
    assert set(trials) == set(range(TRIALS)), "audits are no candidates"
    for r in rows:
        t = trials[r["parent"]]
        assert r["trial"] % 10**9 == t["trial"] and r["state"] == "scored" and (r["arch"], r["seed"]) == (t["arch"], t["seed"])
        assert r["artifact"] is None and (r["trial"] >= 2 * 10**9 or r["score"] == r["valid_score"]), "the test split is left alone"
    assert [r["score"] for r in controls] == [trials[r["parent"]]["score"] for r in controls], "here the control is the curriculum itself"
    places = [r["parent"] // cfg["every"] for r in trained]
    assert len(set(places)) == n, "one in each block"
    best = d.get(f"jobs/{job}/results?top=100")["best"]
    assert len(best) == doc["trials"]["scored"] and max(t["trial"] for t in best) < TRIALS

    x, p, y = ([f(r) for r in trained] for f in (lambda r: trials[r["parent"]]["score"], lambda r: r["params"], lambda r: r["score"]))
    a = doc["audit"]
    assert (a["chosen"], a["trained"], a["failed"], a["spearman"]["n"], a["control"]["n"]) == (n, n, 0, n, n)
    assert a["spearman"]["value"] == pytest.approx(spearman(x, y)) == a["control"]["value"]
    assert a["params"]["value"] == pytest.approx(spearman(p, y))
    assert a["spearman"]["low"] <= a["spearman"]["value"] <= a["spearman"]["high"]
    for verb in ("results", "show", "watch"):
        assert f"Spearman {a['spearman']['value']:.2f}" in cli(d, verb, job).out, verb
    sample, = cli_json(d, "audit", job)["samples"]
    assert (sample["source"], sample["split"], sample["n"], sample["jobs"]) == ("audit", "validation", n, [job])
    by = {q["name"]: q for q in sample["predictors"]}
    assert by["score"]["all"]["spearman"] == pytest.approx({k: a["spearman"][k] for k in ("value", "low", "high")})
    assert by["control"]["all"]["n"] == n and by["control"]["seconds"] > 0
    assert d.get(f"jobs/{job}/replay")["ok"] is True
    before = d.job(job)["audit"]
    d.kill9()
    d.start()
    assert d.job(job)["audit"] == before


def test_with_halving_the_lowest_rung_is_audited_and_the_book_knows_candidates_alone(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    cfg = dict(AUDITED, halving={"steps": [2, 4]}, scores={"zero_cost": ["synflow"]},
               audit=dict(AUDITED["audit"], control=True, control_curriculum="smallcur"))
    first = submit(d, name="first", **cfg)
    assert d.wait_end(first)["state"] == "succeeded"
    trials, rows = {t["trial"]: t for t in d.trials(first)}, audits(d, first)
    assert {t["rung"] for t in trials.values()} == {0, 1, 2} and len(rows) >= 6
    assert all(trials[r["parent"]]["rung"] == 0 for r in rows)
    assert all(r["score"] == trials[r["parent"]]["score"] for r in rows if r["trial"] >= 2 * 10**9), "a control is scored as that rung is"
    sample, = cli_json(d, "audit", first)["samples"]
    names = {p["name"] for p in sample["predictors"]}
    assert {"score", "control", "params", "zero_cost.synflow"} <= names and "rung" not in names
    assert d.get(f"jobs/{first}/replay")["ok"] is True

    again = submit(d, name="again", **cfg)
    assert d.wait_end(again)["state"] == "succeeded"
    assert d.history(again) == d.history(first)
    assert all(t["from_book"] for t in d.trials(again))
    assert not any(d.get(f"jobs/{again}/why?trial={r['trial']}")["trial"]["from_book"] for r in rows)


def test_time_is_left_while_an_audit_trains(box, load, submit, messages):
    """Every candidate is scored, and the trainings are held back."""
    from fake_worker import FakeWorker
    d = load(box.coordinator())
    job = submit(d, **AUDITED)
    with FakeWorker(messages, d.connect) as w:
        w.hello()
        held = []
        while d.job(job)["trials"]["scored"] < TRIALS:
            lease = w.lease()
            held.append(lease) if lease.WhichOneof("task") == "train" else w.deliver(lease)
            w.heartbeat([h.ref for h in held])
        doc = d.job(job)
        assert doc["state"] == "running" and doc["eta_s"] is None, "no training has ended: nobody knows"
        w.deliver(held.pop(), seconds=10.0)
        doc = d.job(job)
        left = doc["audit"]["chosen"] - doc["audit"]["trained"]
        assert doc["audit"]["trained"] == 1 and left > 0 and doc["eta_s"] == pytest.approx(left * 10 / w.slots)


def test_the_sample_does_not_touch_the_search(box, load, submit):
    import json
    d = load(box.coordinator())
    box.worker(d, slots=2)
    audited = submit(d, name="with", **AUDITED)
    alone = submit(d, name="without", **dict(AUDITED, audit=None))
    d.wait_end(audited), d.wait_end(alone)
    assert json.loads(d.history(audited))["trials"] == json.loads(d.history(alone))["trials"]
    assert audits(d, audited) and audits(d, alone) == [] and d.job(alone)["audit"] is None


def test_replay_finds_an_audit_of_a_candidate_of_ones_choice(box, load, submit):
    import sqlite3
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, **AUDITED)
    d.wait_end(job)
    first = audits(d, job)[0]["trial"]
    assert d.stop() == 0
    (db,) = [p for p in d.folder.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    with sqlite3.connect(db) as c:
        assert c.execute("UPDATE trial SET idx=? WHERE job=? AND idx=?", (first + 1, job, first)).rowcount == 1
    c.close()
    d.start()
    doc = d.get(f"jobs/{job}/replay")
    assert doc["ok"] is False and doc["first_difference"]["trial"] == first + 1


def test_the_control_is_a_curriculum_of_real_batches(box, load, material):
    from harness import job_yaml
    d = load(box.coordinator())
    raw = material.curriculum.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + n])
    header["__metadata__"]["provenance"] = json.dumps({"config": {"kind": "distilled"}})
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (box.dir / "made.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + n:])
    cli(d, "curriculum", "import", box.dir / "made.safetensors")
    file = box.dir / "j.yaml"
    file.write_text(job_yaml(audit={"share": 0.1, "control": True, "control_curriculum": "made"}))
    assert "made is of kind distilled; the control is" in cli(d, "submit", file, status=65).err


def test_what_an_audit_asks_for_is_checked(box, load, submit):
    from harness import job_yaml
    d = load(box.coordinator())
    file = box.dir / "j.yaml"
    for audit, words in (({"epochs": 3}, "'audit.share' is not given"), ({"timeout": "9m"}, "'audit.timeout' asks for an audit"), ({"lr": 0.1}, "'audit.lr' asks"), ({"share": 0.1, "min": 9, "max": 8}, "'audit.max' is 8"),
                         ({"share": 0.1, "min": 50}, "more than the 40"), ({"share": 0.1, "control": True}, "needs 'audit.control_curriculum'"),
                         ({"share": 0.1, "control": True, "control_curriculum": "none"}, "no curriculum \"none\""),
                         ({"share": 0.1, "batch": 2000}, "audit.batch is 2000"), ({"share": 0.1, "action": "stopp"}, "stop")):
        file.write_text(job_yaml(audit=audit))
        r = cli(d, "submit", file, status=66 if "none" in words else 65)
        assert words in r.err, r.err
    file.write_text(job_yaml(audit={"share": 0.2}))
    dry = cli_json(d, "submit", file, "--dry-run")
    assert "audit: " in cli(d, "submit", file, "--dry-run").out
    assert dry["audit"]["trainings"] >= 8 and dry["audit"]["scorings_each"] > 0
    assert d.get("jobs")["total"] == 0


# ---- the standing audit when processes die ----

def alone(material, job):
    """The history of `job` as one worker with one slot computes it, left alone."""
    import harness
    box = harness.Sandbox()
    try:
        d = box.coordinator()
        cli(d, "dataset", "import", material.idx, "--name", "small")
        cli(d, "curriculum", "import", material.curriculum, "--name", "smallcur")
        box.worker(d)
        file = box.dir / "job.yaml"
        file.write_text(harness.job_yaml(**job))
        cli(d, "submit", file)
        doc = d.wait_end(timeout=240)
        return doc["state"], doc["reason"], d.history()
    finally:
        box.close()


@pytest.fixture(scope="module")
def audited_alone(material):
    state, _, history = alone(material, AUDITED)
    assert state == "succeeded" and history.count(b'"arch_hash"') > TRIALS + 6
    return history


@pytest.fixture(scope="module")
def stopped_alone(material):
    return alone(material, STOPPED)


@pytest.mark.kill
@pytest.mark.limit(240)
def test_an_audited_history_is_the_same_with_two_workers(box, load, submit, audited_alone):
    d = load(box.coordinator())
    box.worker(d, "w1")
    box.worker(d, "w2", slots=2)
    d.wait_workers(2)
    submit(d, **AUDITED)
    assert d.wait_end()["state"] == "succeeded"
    assert d.history() == audited_alone and d.get("jobs/1/replay")["ok"] is True


@pytest.mark.kill
@pytest.mark.limit(240)
def test_an_audited_history_survives_kill_9(box, load, submit, audited_alone, kill_round):
    d = load(box.coordinator(lease_ms=2000))
    w1, w2 = box.worker(d, "w1"), box.worker(d, "w2")
    submit(d, **AUDITED)
    for n, victims in ((8 + 3 * kill_round % 7, [d]), (20, [w1, w2]), (30, [d, w1]), (45, [w2, d])):
        d.wait_scored(n)
        for v in victims:
            v.kill9()
        for v in victims:
            v.start()
    assert d.wait_end(timeout=200)["state"] == "succeeded"
    assert d.history() == audited_alone and d.get("jobs/1/replay")["ok"] is True


@pytest.mark.kill
@pytest.mark.limit(240)
def test_an_audit_that_stops_a_search_stops_it_at_the_same_proposal(box, load, submit, stopped_alone, kill_round):
    """No score has a correlation of 1 with certainty: the verdict falls as soon as `min` are trained."""
    import json
    state, reason, history = stopped_alone
    doc = json.loads(history)
    every, trials = doc["audit"][0]["parent"], len(doc["trials"])
    assert state == "failed" and "below the floor of 1" in reason and 20 < trials < TRIALS, (every, trials)
    d = load(box.coordinator(lease_ms=2000))
    w1 = box.worker(d, "w1", slots=2)
    box.worker(d, "w2")
    submit(d, **STOPPED)
    d.wait_scored(9 + kill_round % 5)
    d.kill9()
    d.start()
    d.wait_scored(20)
    w1.kill9()
    w1.start()
    end = d.wait_end(timeout=200)
    assert (end["state"], end["reason"], end["audit"]["state"]) == (state, reason, "low")
    assert d.history() == history and d.get("jobs/1/replay")["ok"] is True
    assert "ev=audit" in d.text() and "state=low" in d.text()


@pytest.mark.limit(120)
def test_an_audit_that_warns_lets_the_search_go_on(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    submit(d, **dict(AUDITED, audit=dict(AUDITED["audit"], floor=1)))
    doc = d.wait_end()
    assert doc["state"] == "succeeded" and doc["audit"]["state"] == "low" and doc["trials"]["scored"] == TRIALS
    assert "state=low" in d.text() and "BELOW THE FLOOR" in cli(d, "results", 1).out
