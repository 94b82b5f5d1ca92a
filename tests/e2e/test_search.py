"""A search from submission to result, and what changes it on the way."""

import csv
import json
import math
import platform
import re
import sqlite3

import pytest

import harness
from harness import cli, cli_json


def test_a_search_ends_with_a_best_architecture(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d)
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] + doc["trials"]["failed"] == 40
    trials = d.trials()
    assert [t["trial"] for t in sorted(trials, key=lambda t: t["trial"])] == list(range(40))
    scored = [t for t in trials if t["state"] == "scored"]
    assert doc["best"]["score"] == max(t["score"] for t in scored)
    for t in scored:
        assert len(t["init_scores"]) == 2 and t["score"] == pytest.approx(sum(t["init_scores"]) / 2)
        assert t["params"] > 0 and t["macs"] > 0 and t["seconds"] > 0 and t["mem_bytes"] > 0
    best = d.get(f"jobs/{job}/results?top=10")["best"]
    assert [t["score"] for t in best] == sorted((t["score"] for t in best), reverse=True) and len(best) == 10
    assert max(t["score"] for t in scored) > 0.6, "the classes are bars in noise: a few steps learn them"


def test_replay_proves_the_history(box, load, submit):
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d)
    d.wait_end(job)
    doc = cli_json(d, "replay", job)
    assert doc["ok"] is True and doc["proposals"] == 40 and doc["checked"] == 40
    assert doc["first_difference"] is None


def test_replay_finds_a_history_that_was_tampered_with(box, load, submit):
    """Another architecture in the middle, written behind the coordinator's back."""
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d)
    d.wait_end(job)
    assert d.stop() == 0
    (db,) = [p for p in d.folder.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    with sqlite3.connect(db) as c:
        other = c.execute("SELECT arch FROM trial WHERE job=? AND idx=0", (job,)).fetchone()[0]
        assert c.execute("UPDATE trial SET arch=? WHERE job=? AND idx=20", (other, job)).rowcount == 1
    c.close()
    d.start()
    doc = json.loads(cli(d, "replay", job, "--json", status=1).out)
    assert doc["ok"] is False and "20" in json.dumps(doc["first_difference"])


def test_the_same_job_again_gives_the_same_history(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    first = submit(d, name="one")
    d.wait_end(first)
    second = submit(d, name="two")
    d.wait_end(second)
    assert d.history(first) == d.history(second)


ISAS = {"x86_64": ["portable", "avx2", "avx512"], "aarch64": ["portable", "neon"]}.get(platform.machine(), ["portable"])


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_same_bits(box, load, submit, isa):
    """A score is a fact, not a reading: the best kernels of this machine and those of a lesser one agree to the bit."""
    d = load(box.coordinator())
    best = box.worker(d, "best")
    job = {"budget": {"trials": 10}, "fidelity": {"steps": 6, "inits": 1, "valid_images": 48}}
    first = submit(d, name="one", **job)
    d.wait_end(first)
    assert best.stop() == 0
    other = box.worker(d, "other", env={"DIDACT_ISA": isa})
    harness.wait_for("the worker is there, or cannot be",
                     lambda: not other.running or d.get("status")["workers"]["online"] == 1)
    if other.popen.poll() == 69:
        pytest.skip(f"{isa} is not on this processor")
    second = submit(d, name="two", **job)
    assert d.wait_end(second)["state"] == "succeeded"
    assert d.history(first) == d.history(second)


def test_another_seed_gives_another_history(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    first, second = submit(d, name="one"), submit(d, name="two", seed=8)
    d.wait_end(first)
    d.wait_end(second)
    assert d.history(first) != d.history(second)


@pytest.mark.parametrize("space", ["chain", "nasbench201", "nasnet"])
@pytest.mark.parametrize("searcher", ["random", "evolution", "local", "nsga2"])
def test_every_space_with_every_searcher(box, load, submit, space, searcher):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, space=space, searcher={"name": searcher}, budget={"trials": 12},
                 fidelity={"steps": 3, "inits": 1, "valid_images": 32})
    assert d.wait_end(job)["state"] == "succeeded"
    assert d.get(f"jobs/{job}/replay")["ok"] is True


def test_a_warm_search_starts_large_and_replays(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, warmup={"candidates": 200, "keep": 6}, constraints={"max_params": 40000}, budget={"trials": 20},
                 fidelity={"steps": 3, "inits": 1, "valid_images": 32})
    d.wait_end(job)
    first = [t["params"] for t in sorted(d.trials(job), key=lambda t: t["trial"])[:6]]
    assert first == sorted(first, reverse=True) and first[0] <= 40000
    assert d.get(f"jobs/{job}/replay")["ok"] is True


VOTED = dict(warmup={"candidates": 60, "keep": 6, "vote": ["params", "synflow", "naswot", "grad_norm"]}, budget={"trials": 20}, window=4,
             searcher={"name": "evolution", "population": 6, "sample": 3}, fidelity={"steps": 3, "inits": 1, "valid_images": 32})


def log_rank_sums(trials):
    """The vote, counted here: of equal values the mean rank."""
    sums = {t["arch"]: 0.0 for t in trials}
    for of in (lambda t: t["params"], *(lambda t, k=k: t["zero_cost"][k] for k in ("synflow", "naswot", "grad_norm"))):
        v = [of(t) for t in trials]
        for t in trials:
            below, equal = sum(x < of(t) for x in v), sum(x == of(t) for x in v)
            sums[t["arch"]] += math.log((below + (equal + 1) / 2) / len(v))
    return sums


@pytest.fixture(scope="session")
def voted_alone(material):
    """The history of VOTED by one worker, left alone, and its warm-up."""
    box = harness.Sandbox()
    try:
        d = box.coordinator()
        cli(d, "dataset", "import", material.idx, "--name", "small")
        cli(d, "curriculum", "import", material.curriculum, "--name", "smallcur")
        box.worker(d)
        (box.dir / "job.yaml").write_text(harness.job_yaml(**VOTED))
        cli(d, "submit", box.dir / "job.yaml")
        doc = d.wait_end()
        assert doc["state"] == "succeeded" and doc["trials"]["scored"] + doc["trials"]["failed"] == 20
        warm = d.get("jobs/1/warmup?limit=1000")["trials"]
        return d.history(), [(t["arch"], t["zero_cost"], t["seed"]) for t in warm], warm, d.trials(), d.get("jobs/1/replay")
    finally:
        box.close()


def test_workers_vote_on_where_a_search_starts(voted_alone):
    _, _, warm, trials, replay = voted_alone
    assert 50 <= len(warm) <= 60 and all(t["state"] == "scored" and t["group"] == "warmup" and set(t["zero_cost"]) ==
                                         {"synflow", "naswot", "grad_norm"} for t in warm)
    assert [t["trial"] for t in warm] == [3 * 10**9 + i for i in range(len(warm))]
    assert len({t["arch_hash"] for t in warm}) == len(warm) and not any(t["init_scores"] for t in warm)
    sums = log_rank_sums(warm)
    order = {t["arch"]: i for i, t in enumerate(warm)}
    pool = sorted(sums, key=lambda a: (-sums[a], order[a]))[:6]
    first = [t for t in sorted(trials, key=lambda t: t["trial"]) if t["parent"] is None][:6]
    assert [t["arch"] for t in first] == pool and [t["trial"] for t in trials] == list(range(20))
    assert replay["ok"] is True


@pytest.mark.kill
@pytest.mark.limit(120)
def test_a_voted_warm_up_survives_kill_9_and_several_workers(box, load, submit, voted_alone, kill_round):
    d = load(box.coordinator(lease_ms=2000))
    w1, w2 = box.worker(d, "w1"), box.worker(d, "w2", slots=2)
    job = submit(d, **VOTED)

    def done(n):
        return harness.wait_for(f"{n} of the warm-up", lambda: (d.job(job)["warmup"] or {"done": 99})["done"] >= n)
    done(5 + kill_round % 7)
    d.kill9()
    w1.kill9()
    d.start()
    w1.start()
    done(30)
    d.kill9()
    d.start()
    d.wait_scored(6)
    for p in (d, w2):
        p.kill9()
        p.start()
    assert d.wait_end(job)["state"] == "succeeded"
    warm = [(t["arch"], t["zero_cost"], t["seed"]) for t in d.get(f"jobs/{job}/warmup?limit=1000")["trials"]]
    assert warm == voted_alone[1] and d.history(job) == voted_alone[0]
    assert d.get(f"jobs/{job}/replay")["ok"] is True


def test_replay_finds_a_warm_up_that_was_tampered_with(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, **VOTED)
    d.wait_end(job)
    assert d.stop() == 0
    (db,) = [p for p in d.folder.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    with sqlite3.connect(db) as c:
        assert c.execute("UPDATE trial SET zero_cost='synflow=-1e9 naswot=-1e9 grad_norm=-1e9' WHERE job=? AND idx>=3000000000 AND"
                         " arch_hash=(SELECT arch_hash FROM trial WHERE job=? AND idx=0)", (job, job)).rowcount == 1
    c.close()
    d.start()
    assert d.get(f"jobs/{job}/replay")["ok"] is False


def test_a_warm_up_shows_waits_fails_and_is_cancelled(box, load, submit, messages):
    from fake_worker import FakeWorker
    d = load(box.coordinator())
    job = submit(d, **VOTED)
    with FakeWorker(messages, d.connect) as w:
        w.hello()
        lease = w.lease()
        assert lease.score.untrained and lease.score.zero_cost == 0b100011 and lease.ref.trial == 3 * 10**9
        assert d.job(job)["warmup"]["done"] == 0 and d.job(job)["trials"]["running"] == 1
        w.deliver(lease, zero_cost_known=0b100011, zero_cost=[1.0, 2.0, 3.0], init_score=[], score=0.0)
        why = cli(d, "why", job).out
        assert "its warm-up: 1 of" in why and "waits for the result" not in why
        assert "warm-up" in cli(d, "show", job).out and d.job(job)["warmup"]["done"] == 1
        n = d.job(job)["warmup"]["candidates"]
        for i in range(1, n):                          # the last three fail, and are no start
            lease = w.lease()
            assert lease.ref.trial >= 3 * 10**9
            if i < n - 3:
                w.deliver(lease, zero_cost_known=0b100011, zero_cost=[float(i), float(i), float(i)], init_score=[], score=0.0)
            else:
                w.deliver(lease, state=w.FAILED, reason=2, score=0.0, init_score=[])
        lease = w.lease()
        assert lease.ref.trial == 0 and not lease.score.untrained
        doc = d.job(job)
        assert doc["trials"]["failed"] == 0 and doc["trials"]["scored"] == 0 and doc["warmup"]["done"] == n
        warm = d.get(f"jobs/{job}/warmup?limit=1000")["trials"]
        assert [t["state"] for t in warm].count("failed") == 3
        assert lease.score.arch not in [t["arch"] for t in warm if t["state"] == "failed"]
        w.deliver(lease)
        second = submit(d, name="second", **VOTED)
        cli(d, "cancel", job, "--yes")
        lease = w.lease()
        assert lease.ref.job == second and lease.ref.trial >= 3 * 10**9
        cli(d, "cancel", second, "--yes")
        assert d.wait_end(second)["state"] == "cancelled"
        assert [t["state"] for t in d.get(f"jobs/{second}/warmup")["trials"]] == ["cancelled"]


@pytest.mark.parametrize("searcher", ["random", "evolution", "local", "nsga2"])
def test_halving_spends_more_on_the_better(box, load, submit, searcher):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, searcher={"name": searcher, "population": 6, "sample": 3}, halving={"steps": [1, 3], "inits": [1, 1]}, window=4,
                 fidelity={"steps": 6, "inits": 2, "valid_images": 32, "checkpoints": [2, 5]}, budget={"trials": 40})
    assert d.wait_end(job)["state"] == "succeeded"
    trials = sorted(d.trials(job), key=lambda t: t["trial"])
    inits, checkpoints = [1, 1, 2], [[], [2], [2, 5]]
    for t in trials:
        if t["state"] == "scored":
            assert len(t["init_scores"]) == inits[t["rung"]] and [c["step"] for c in t["checkpoints"]] == checkpoints[t["rung"]]
        if t["rung"]:
            below = trials[t["parent"]]
            assert below["rung"] == t["rung"] - 1 and below["arch"] == t["arch"] and below["seed"] == t["seed"]
    assert {t["rung"] for t in trials} == {0, 1, 2}
    top = [t for t in trials if t["rung"] == 2 and t["state"] == "scored"]
    assert d.job(job)["best"]["score"] == max(t["score"] for t in top)
    best = d.get(f"jobs/{job}/results?top=40")["best"]
    hashes = [t["arch_hash"] for t in best]
    assert len(hashes) == len(set(hashes)) == len({t["arch_hash"] for t in trials if t["state"] == "scored"})
    assert [t["rung"] for t in best] == sorted((t["rung"] for t in best), reverse=True)
    assert d.get(f"jobs/{job}/replay")["ok"] is True
    assert d.stop() == 0
    d.start()
    assert d.job(job)["best"]["score"] == max(t["score"] for t in top) and d.get(f"jobs/{job}/replay")["ok"] is True


@pytest.mark.parametrize("searcher", ["random", "evolution", "local", "nsga2"])
def test_a_race_scores_again_what_cannot_be_told_apart(box, load, submit, searcher):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, searcher={"name": searcher, "population": 6, "sample": 3}, racing={"inits": [4, 7], "among": 2, "after": 16, "share": 0.4}, window=4,
                 fidelity={"steps": 4, "inits": 2, "valid_images": 48, "checkpoints": [2]}, budget={"trials": 50}, scores={"zero_cost": ["naswot"]})
    assert d.wait_end(job)["state"] == "succeeded"
    trials = sorted(d.trials(job), key=lambda t: t["trial"])
    raced = [t for t in trials if t["rung"]]
    assert raced and max(t["rung"] for t in raced) <= 2
    for t in raced:
        below = trials[t["parent"]]
        assert t["arch"] == below["arch"] and t["rung"] == below["rung"] + 1 and t["state"] == "scored"
        assert len(t["init_scores"]) == [2, 4, 7][t["rung"]] and t["init_scores"][:len(below["init_scores"])] == below["init_scores"]
        assert t["score"] == pytest.approx(sum(t["init_scores"]) / len(t["init_scores"]), abs=1e-15) and t["zero_cost"] == below["zero_cost"]
    # The same network with as many initialisations from the start: the same score, to the bit.
    whole = submit(d, name="whole", searcher={"name": "random"}, budget={"trials": 50}, scores={"book": False},
                   fidelity={"steps": 4, "inits": 4, "valid_images": 48})
    d.wait_end(whole)
    scores = {t["arch"]: (t["score"], t["score_se"], t["init_scores"]) for t in d.trials(whole)}
    first = [t for t in raced if t["rung"] == 1 and t["arch"] in scores]
    assert searcher != "random" or first
    assert all(scores[t["arch"]] == (t["score"], t["score_se"], t["init_scores"]) for t in first)
    last = {t["arch"]: t["score"] for t in sorted((t for t in trials if t["state"] == "scored"), key=lambda t: t["rung"])}
    both = cli_json(d, "compare", job, whole)["common"]
    assert (both["n"], both["equal_scores"]) == (len(set(last) & set(scores)), sum(last[a] == scores[a][0] for a in set(last) & set(scores)))
    best = d.get(f"jobs/{job}/results?top=50")
    hashes = [t["arch_hash"] for t in best["best"]]
    assert len(hashes) == len(set(hashes)) and [t["rung"] for t in best["best"]] == sorted((t["rung"] for t in best["best"]), reverse=True)
    highest = {t["arch"]: max(u["rung"] for u in trials if u["arch"] == t["arch"] and u["state"] == "scored") for t in trials}
    assert all(trials[f["trial"]]["rung"] == highest[f["arch"]] for f in best["front"])
    front = cli_json(d, "best", job, "--pareto", "score,params")["front"]
    assert front and all(f["rung"] == highest[f["arch"]] for f in front)
    assert d.get(f"jobs/{job}/replay")["ok"] is True
    history = d.history(job)
    again = submit(d, name="again", searcher={"name": searcher, "population": 6, "sample": 3}, racing={"inits": [4, 7], "among": 2, "after": 16, "share": 0.4},
                   window=4, fidelity={"steps": 4, "inits": 2, "valid_images": 48, "checkpoints": [2]}, budget={"trials": 50}, scores={"zero_cost": ["naswot"]})
    assert d.wait_end(again)["state"] == "succeeded" and d.history(again) == history
    assert all(t["from_book"] for t in d.trials(again)), "rounds are in the book, too"
    assert d.stop() == 0
    d.start()
    assert d.history(job) == history and d.get(f"jobs/{job}/replay")["ok"] is True


def test_results_say_what_came_too_late_for_the_race(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    late = 0
    for seed in range(1, 6):
        job = submit(d, name=f"race-{seed}", seed=seed, searcher={"name": "random"}, racing={"inits": [4, 8], "among": 1, "after": 6, "share": 0.3}, window=4,
                     fidelity={"steps": 4, "inits": 2, "valid_images": 48}, budget={"trials": 40})
        d.wait_end(job)
        best = d.get(f"jobs/{job}/results?top=50")["best"]
        above = [t for t in best if t["rung"] < best[0]["rung"] and t["score"] > best[0]["score"]]
        said = re.findall(r"^(\d+) of lower rounds scores? above the first .*\(trial (\d+): ", cli(d, "results", job, "--top", 1).out, re.M)
        assert said == ([(str(len(above)), str(max(above, key=lambda t: t["score"])["trial"]))] if above else [])
        late += len(above)
    assert late, "none of the five races ended too early for a better one"


@pytest.mark.limit(120)
def test_everything_at_once_is_still_a_function_of_its_seed(box, load, submit):
    """A start that workers vote on, halving below `fidelity` and racing above it, with a latency beside each score."""
    d = load(box.coordinator(lease_ms=2000))
    w1, w2 = box.worker(d, "w1"), box.worker(d, "w2", slots=2)
    spec = dict(searcher={"name": "nsga2", "population": 6}, warmup={"candidates": 24, "keep": 8, "vote": ["params", "synflow"]}, window=4,
                halving={"steps": [1, 2], "inits": [1, 2], "reduction": 2}, racing={"inits": [4, 7], "among": 2, "after": 6, "share": 0.8},
                fidelity={"steps": 4, "inits": 2, "valid_images": 48, "lr_scales": [1, 0.5]}, latency={"measure": True},
                scores={"zero_cost": ["naswot"], "fuse": ["score", "naswot", "params"]}, budget={"trials": 90})
    calm = submit(d, name="calm", **spec)
    assert d.wait_end(calm)["state"] == "succeeded"
    rough = submit(d, name="rough", **spec)
    harness.wait_for("some of the warm-up", lambda: (d.job(rough)["warmup"] or {"done": 99})["done"] >= 5)
    for n in (5, 60):
        d.wait_scored(n, job=rough)
        for p in (d, w1):
            p.kill9()
            p.start()
    doc = d.wait_end(rough)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] == 90 and doc["repeatable"] is True
    assert d.history(rough) == d.history(calm) and w2.running
    assert d.get(f"jobs/{calm}/replay")["ok"] is True and d.get(f"jobs/{rough}/replay")["ok"] is True
    warm = d.get(f"jobs/{rough}/warmup?limit=1000")["trials"]
    trials = sorted(d.trials(rough), key=lambda t: t["trial"])
    assert all(t["latency_ms"] is None and t["state"] == "scored" for t in warm) and trials[0]["arch_hash"] in {t["arch_hash"] for t in warm}
    assert {t["rung"] for t in trials} > {0, 1, 2, 3}, "all kinds of rungs"
    for t in trials:
        assert t["latency_ms"] > 0 and t["zero_cost"]["naswot"] is not None
        if t["rung"] > 2:                              # nothing but more initialisations is computed
            below = trials[t["parent"]]
            assert (t["latency_ms"], t["zero_cost"], t["lr_scale"]) == tuple(below[k] for k in ("latency_ms", "zero_cost", "lr_scale"))
            assert t["init_scores"][:len(below["init_scores"])] == below["init_scores"]
    # The front is of what has all of `fidelity`, of each network as it is known best.
    known = {}
    for t in sorted(trials, key=lambda t: t["rung"]):
        known.update({t["arch_hash"]: t} if t["rung"] >= 2 else {})

    def beaten(t):
        return any(o["score"] >= t["score"] and o["latency_ms"] <= t["latency_ms"] and
                   (o["score"], o["latency_ms"]) != (t["score"], t["latency_ms"]) for o in known.values())
    best = {t["trial"] for t in known.values() if not beaten(t)}
    assert any(trials[i]["rung"] > 2 for i in best)
    assert {t["trial"] for t in cli_json(d, "best", rough, "--pareto", "score,latency")["front"]} == best
    below = sum(t["rung"] < 2 for t in trials)
    assert f"{below} scored on lower rungs" in harness.cli(d, "best", rough, "--pareto", "score,latency").err
    ranked = cli_json(d, "results", rough, "--by", "fused", "--top", 100)["best"]
    assert len({t["arch_hash"] for t in ranked}) == len(ranked) and [t["rung"] for t in ranked] == sorted((t["rung"] for t in ranked), reverse=True)
    assert all(t["by_value"] is not None for t in ranked)


def test_the_front_is_what_no_trial_beats(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, searcher={"name": "nsga2", "population": 8}, objectives=[{"metric": "score"}, {"metric": "params"}])
    assert d.wait_end(job)["state"] == "succeeded"
    doc = d.get(f"jobs/{job}/results")
    assert doc["objectives"] == [{"metric": "score", "goal": "max"}, {"metric": "params", "goal": "min"}]
    scored = [t for t in d.trials(job) if t["state"] == "scored"]

    def beats(a, b):
        return a["score"] >= b["score"] and a["params"] <= b["params"] and (a["score"], a["params"]) != (b["score"], b["params"])
    best = sorted(t["trial"] for t in scored if not any(beats(o, t) for o in scored))
    assert sorted(t["trial"] for t in doc["front"]) == best and best
    assert any(t["parent"] is not None for t in scored), "later generations have parents"


LATENCY = dict(searcher={"name": "nsga2", "population": 6}, objectives=[{"metric": "score"}, {"metric": "latency"}],
               fidelity={"steps": 3, "inits": 1, "valid_images": 32}, budget={"trials": 30})


@pytest.mark.limit(120)
def test_latency_is_measured_recorded_and_searched_by(box, load, submit):
    """It differs from run to run, so it is a fact that replay reads, in no pure function and in no book."""
    d = load(box.coordinator(lease_ms=2000))
    w = box.worker(d)
    job = submit(d, **LATENCY, scores={"fuse": ["score", "latency"]})
    d.wait_scored(9)
    d.kill9()
    w.kill9()
    d.start()
    w.start()
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and doc["repeatable"] is False
    trials = d.trials(job)
    scored = {t["trial"]: t for t in trials if t["state"] == "scored"}
    assert all(0 < t["latency_ms"] < 1000 for t in scored.values()) and not any(t["from_book"] for t in trials)
    assert b"latency" not in d.history(job)
    assert any(t["parent"] is not None for t in trials) and d.get(f"jobs/{job}/replay")["ok"] is True

    def beaten(t):
        return any(o["score"] >= t["score"] and o["latency_ms"] <= t["latency_ms"] and
                   (o["score"], o["latency_ms"]) != (t["score"], t["latency_ms"]) for o in scored.values())
    best = {i for i, t in scored.items() if not beaten(t)}
    front = d.get(f"jobs/{job}/results")["front"]
    assert {t["trial"] for t in front} == best and all(t["latency_ms"] == scored[t["trial"]]["latency_ms"] for t in front)
    mine = harness.cli_json(d, "best", job, "--pareto", "score,latency")
    assert mine["objectives"] == ["score", "latency"] and {t["trial"] for t in mine["front"]} == best
    assert "LATENCY MS" in harness.cli(d, "results", job).out.splitlines()[1]
    fastest = harness.cli_json(d, "results", job, "--by", "latency", "--top", 1)["best"][0]
    assert fastest["latency_ms"] == min(t["latency_ms"] for t in scored.values()) == fastest["by_value"]
    assert harness.cli_json(d, "results", job, "--by", "fused")["best"]
    rows = list(csv.DictReader(harness.cli(d, "export", job, "--format", "csv", "-o", "-").out.splitlines()))
    assert [float(r["latency_ms"]) for r in rows if r["state"] == "scored"] == [scored[int(r["trial"])]["latency_ms"] for r in rows if r["state"] == "scored"]
    assert "cannot be simulated" in harness.cli(d, "simulate", job, status=65).err

    plain = submit(d, name="plain", **{**LATENCY, "objectives": None, "searcher": {"name": "random"}})
    again = submit(d, name="again", **{**LATENCY, "objectives": None, "searcher": {"name": "random"}}, latency={"measure": True, "batch": 4})
    d.wait_end(plain)
    assert d.wait_end(again)["repeatable"] is True, "nothing goes by it"
    assert d.history(plain) == d.history(again)
    assert all(t["latency_ms"] is None for t in d.trials(plain)) and any(t["from_book"] for t in d.trials(plain))
    assert all(t["latency_ms"] > 0 for t in d.trials(again)) and not any(t["from_book"] for t in d.trials(again))
    assert "latency.measure" in harness.cli(d, "results", plain, "--by", "latency", status=65).err
    harness.cli(d, "best", plain, "--pareto", "score,latency", status=66)


def test_networks_have_the_size_that_the_job_says(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    fidelity = {"steps": 3, "inits": 1, "valid_images": 32}
    params = []
    for size in ({}, {"channels": 8, "cells": 1}, {"channels": 4, "cells": 2, "downsample": 2}):
        job = submit(d, space="nasbench201", searcher={"name": "random"}, budget={"trials": 6}, fidelity={**fidelity, **size})
        assert d.wait_end(job)["state"] == "succeeded"
        assert d.get(f"jobs/{job}/replay")["ok"] is True
        params.append({t["arch"]: (t["params"], t["macs"], t["score"]) for t in d.trials(job)})
    assert params[0] == params[1], "what the space has by itself may be written out"
    assert params[0].keys() == params[2].keys() and all(params[0][a][1] != params[2][a][1] for a in params[0])
    drop = dict(curriculum=None, space=None, searcher=None, fidelity=None, window=None, budget=None)
    verify = {"of": str(job), "top": 2, "random": 0, "epochs": 1, "batch": 32}
    same = submit(d, kind="verify", name="same", verify=verify, **drop)
    large = submit(d, kind="verify", name="large", verify={**verify, "channels": 12}, **drop)
    for v in (same, large):
        assert d.wait_end(v)["state"] == "succeeded"
    for t, u in zip(d.trials(same), d.trials(large)):
        assert t["params"] == params[2][t["arch"]][0] and u["params"] > 4 * t["params"], "as the search; as it says itself"


def test_constraints_hold_before_a_trial_exists(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, constraints={"max_params": 20000, "max_macs": 300000})
    d.wait_end(job)
    assert all(t["params"] <= 20000 and t["macs"] <= 300000 for t in d.trials(job))


def test_pause_resume_and_the_history_is_the_same(box, load, submit, undisturbed):
    from conftest import KILL_JOB
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d, **KILL_JOB)
    d.wait_scored(8)
    cli(d, "pause", job)
    assert d.job()["state"] == "paused"
    harness.wait_for("what runs ends", lambda: d.job()["trials"]["running"] == 0)
    n = d.scored()
    assert n < 60
    d.kill9()
    d.start()
    d.wait_workers(1)
    assert d.job()["state"] == "paused" and d.scored() == n, "paused survives a crash"
    cli(d, "resume", job)
    assert d.wait_end(job)["state"] == "succeeded"
    assert d.history(job) == undisturbed


def test_cancel_ends_a_job_and_keeps_what_was_scored(box, load, submit):
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d, budget={"trials": 1000})
    d.wait_scored(5)
    cli(d, "cancel", job, "--yes")
    doc = d.wait_end(job)
    assert doc["state"] == "cancelled" and doc["trials"]["scored"] >= 5
    assert doc["trials"]["running"] == 0 and doc["trials"]["waiting"] == 0
    assert cli_json(d, "results", job)["best"][0]["score"] > 0
    for verb in ("pause", "resume"):
        assert "cancelled" in cli(d, verb, job, status=1).err


def test_a_candidate_that_diverges_fails_alone(box, load, submit, material):
    """A step size of 1e20: some or all candidates end in NaN, recorded with the reason; the search goes on."""
    wild = harness.write_curriculum(material.dir / "wild.safetensors", lr=1e20)
    d = load(box.coordinator())
    cli(d, "curriculum", "import", wild, "--name", "wild")
    box.worker(d, slots=2)
    job = submit(d, curriculum="wild", budget={"trials": 10}, max_failed=0)
    doc = d.wait_end(job)
    failed = [t for t in d.trials(job) if t["state"] == "failed"]
    assert failed and doc["trials"]["scored"] + doc["trials"]["failed"] == 10
    assert all(t["reason"] == "nan" and t["detail"] and t["score"] is None for t in failed)
    assert doc["failures"]["nan"] == len(failed)
    if doc["trials"]["scored"] == 0:
        assert doc["state"] == "failed" and ("nan" in doc["reason"].lower() or "diverged" in doc["reason"])
    sane = submit(d, name="after")
    assert d.wait_end(sane)["state"] == "succeeded", "the worker is as good as before"


def test_an_architecture_that_does_not_fit_in_memory_fails_alone(box, load, submit, material):
    """Large batches, so that wide candidates need more than the 16 MiB that a worker must at least have."""
    wide = harness.write_curriculum(material.dir / "wide.safetensors", batch=384)
    d = load(box.coordinator())
    cli(d, "curriculum", "import", wide, "--name", "wide")
    box.worker(d, extra=["--mem-mb", 16])
    job = submit(d, curriculum="wide", budget={"trials": 20}, max_failed=0, fidelity={"inits": 1, "valid_images": 32})
    doc = d.wait_end(job)
    failed = [t for t in d.trials(job) if t["state"] == "failed"]
    assert failed and all(t["reason"] == "oom" and t["detail"] for t in failed)
    assert doc["failures"]["oom"] == len(failed) and doc["trials"]["scored"] + doc["trials"]["failed"] == 20
    fits = [t for t in d.trials(job) if t["state"] == "scored"]
    assert fits and all(t["mem_bytes"] <= 16 << 20 for t in fits)
    assert all(re.fullmatch(r"needs \d+ MiB, the largest worker has 16 MiB", t["detail"]) and t["mem_bytes"] > 16 << 20 for t in failed)
    assert all(not t["worker"] for t in failed), "no worker was sent what it cannot hold"
    assert cli_json(d, "replay", job)["ok"], "that it failed is read from the record"


def test_a_large_trial_waits_for_a_worker_with_room(box, load, submit, material):
    wide = harness.write_curriculum(material.dir / "wide2.safetensors", batch=384)
    d = load(box.coordinator())
    cli(d, "curriculum", "import", wide, "--name", "wide")
    box.worker(d, name="small", extra=["--mem-mb", 16])
    box.worker(d, name="large", extra=["--mem-mb", 512])
    d.wait_workers(2)
    job = submit(d, curriculum="wide", budget={"trials": 20}, max_failed=0, searcher={"name": "random"}, window=20, fidelity={"inits": 1, "valid_images": 32})
    assert d.wait_end(job)["trials"]["scored"] == 20
    names = {w["id"]: w["name"] for w in d.get("workers")["workers"]}
    large = [t for t in d.trials(job) if t["mem_bytes"] > 16 << 20]
    assert large and all(names[t["worker"]] == "large" for t in large)
    assert any(names[t["worker"]] == "small" for t in d.trials(job)), "the small one was of use"


def test_too_many_failures_fail_the_job_and_say_why(box, load, submit, material):
    wild = harness.write_curriculum(material.dir / "wild2.safetensors", lr=1e30)
    d = load(box.coordinator())
    cli(d, "curriculum", "import", wild, "--name", "wild")
    box.worker(d)
    job = submit(d, curriculum="wild", budget={"trials": 200}, max_failed=4)
    doc = d.wait_end(job)
    assert doc["state"] == "failed" and "nan" in doc["reason"]
    assert doc["trials"]["failed"] < 200


def test_a_teacher_then_a_search_then_a_verification(box, load, submit):
    """The main path, small: the curriculum that `teach` makes is what the search uses; verify checks its candidates."""
    d = load(box.coordinator())
    box.worker(d, slots=2)
    teach = submit(d, kind="teach", name="teacher", curriculum=None, space=None, searcher=None, fidelity=None, window=None,
                   budget=None, teach={"kind": "gtn", "steps": 4, "batch": 8, "meta_steps": 6, "learners": 2, "meta_batch": 32,
                                       "z_dim": 8, "g_hidden": 16, "g_channels1": 8, "g_channels2": 4, "eval_every": 3,
                                       "checkpoint_every": 3})
    doc = d.wait_end(teach)
    assert doc["state"] == "succeeded", doc["reason"]
    taught = d.get(f"jobs/{teach}/results")["teach"]
    assert taught["meta_steps"] == 6 and len(taught["curriculum"]) == 64
    search = submit(d, name="with", curriculum=taught["curriculum"], fidelity={"steps": 4, "inits": 1, "valid_images": 32},
                    budget={"trials": 12})
    assert d.wait_end(search)["state"] == "succeeded"
    verify = submit(d, kind="verify", name="check", curriculum=None, space=None, searcher=None, fidelity=None, window=None,
                    budget=None, verify={"of": str(search), "top": 2, "random": 3, "epochs": 1, "batch": 32})
    doc = d.wait_end(verify)
    assert doc["state"] == "succeeded", doc["reason"]
    v = d.get(f"jobs/{verify}/results")["verify"]
    assert v["n"] == 5 and len(v["pairs"]) == 5
    assert sorted(p["group"] for p in v["pairs"]) == ["random"] * 3 + ["top"] * 2
    assert all(0 <= p["accuracy"] <= 1 for p in v["pairs"]) and -1 <= v["spearman"] <= 1
    assert v["ci_low"] <= v["spearman"] <= v["ci_high"]
    # One chooses on the validation images, and the test images say what that is worth.
    best = d.get(f"jobs/{verify}/results?top=5")["best"]
    assert [t["valid_score"] for t in best] == sorted((t["valid_score"] for t in best), reverse=True) and len(best) == 5
    assert len({t["valid_score"] for t in best}) > 1 and doc["best"]["trial"] == best[0]["trial"] and doc["best"]["score"] == best[0]["score"]
    r = cli(d, "best", verify)
    assert r.out.strip() == best[0]["arch"] and f"validation {best[0]['valid_score']:.4f}  test {best[0]['score']:.4f}" in r.err
    assert "real training on processors of one kind" in cli(d, "show", verify).out and "to the bit\n" in cli(d, "show", search).out
    lines = cli(d, "results", verify, "--top", 2).out.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [[f"{t['valid_score']:.4f}", f"{t['score']:.4f}"] for t in best[:2]]
    assert lines[4] == "and 3 more (--top)"
    assert d.stop() == 0
    d.start()
    assert d.job(verify)["best"]["trial"] == best[0]["trial"]


def test_a_verify_job_chooses_on_the_validation_images(box, load, submit, messages):
    """Where both splits disagree: the test images have no say, now or after a restart."""
    from fake_worker import FakeWorker
    d = load(box.coordinator())
    archs = [f"bn relu | c{c}k3 max2 | c16k3 | gap" for c in (8, 12, 16)]
    job = submit(d, kind="verify", name="three", curriculum=None, searcher=None, fidelity=None, window=None, budget=None, verify={"arch": archs, "epochs": 1})
    with FakeWorker(messages, d.connect) as w:
        w.hello()
        for lease in [w.lease() for _ in archs]:
            w.deliver(lease, valid_score=(0.6, 0.8, 0.7)[lease.ref.trial], score=(0.9, 0.5, 0.7)[lease.ref.trial], init_score=[])
    for again in range(2):
        assert d.wait_end(job)["best"]["trial"] == 1 and d.job(job)["best"]["score"] == 0.5
        assert [t["trial"] for t in d.get(f"jobs/{job}/results?top=3")["best"]] == [1, 2, 0]
        assert cli(d, "best", job).out.strip() == archs[1]
        assert d.stop() == 0
        d.start()


@pytest.mark.limit(180)
def test_a_teacher_goes_on_from_its_checkpoint_after_its_worker_is_killed(box, load, submit):
    d = load(box.coordinator(lease_ms=1500))
    w = box.worker(d)
    section = {"kind": "gtn", "steps": 4, "batch": 8, "meta_steps": 300, "learners": 2, "meta_batch": 64, "z_dim": 8,
               "g_hidden": 16, "g_channels1": 8, "g_channels2": 4, "eval_every": 100, "checkpoint_every": 5}
    drop = dict(curriculum=None, space=None, searcher=None, fidelity=None, window=None, budget=None)
    calm = submit(d, kind="teach", name="calm", teach=section, **drop)
    assert d.wait_end(calm)["state"] == "succeeded"
    rough = submit(d, kind="teach", name="rough", teach=section, **drop)
    harness.wait_for("a checkpoint in the middle",
                     lambda: (d.trials(rough) or [{}])[0].get("checkpoint_blob"), 60)
    w.kill9()
    assert d.job(rough)["state"] == "running", "killed in the middle"
    w.start()
    assert d.wait_end(rough)["state"] == "succeeded"
    same = [d.get(f"jobs/{j}/results")["teach"]["curriculum"] for j in (calm, rough)]
    assert same[0] == same[1], "a resumed teacher writes the same curriculum"
