"""The fused score: where it is shown, what it ranks, and that verify follows it."""

import math

import pytest

from harness import cli, cli_json

FUSE = ["score", "loss_sum", "params", "naswot"]
SCORES = {"zero_cost": ["naswot", "snip"], "fuse": FUSE}


def fused(trials):
    """Sum of log ranks as docs/scores.md says it, the plain way."""
    sums = dict.fromkeys((t["trial"] for t in trials), 0.0)
    for column in FUSE:
        def value(t, column=column):
            v = (t["zero_cost"] or {}).get("naswot", -math.inf) if column == "naswot" else t[column]
            return -v if column == "loss_sum" else v
        for t in trials:
            below = sum(value(o) < value(t) for o in trials)
            equal = sum(value(o) == value(t) for o in trials)
            sums[t["trial"]] += math.log((below + (equal + 1) / 2) / len(trials))
    return sums


@pytest.fixture
def searched(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, scores=SCORES, budget={"trials": 24}, fidelity={"steps": 6, "inits": 1, "valid_images": 48})
    assert d.wait_end(job)["state"] == "succeeded"
    return d, job


def test_results_by_the_fused_score_and_by_any_column(searched):
    d, job = searched
    trials = [t for t in d.trials() if t["state"] == "scored"]
    want = fused(trials)
    doc = cli_json(d, "results", job, "--by", "fused", "--top", "24")
    assert doc["by"] == "fused" and len(doc["best"]) == len(trials)
    for t in doc["best"]:
        assert t["by_value"] == pytest.approx(want[t["trial"]], abs=1e-12)
    values = [t["by_value"] for t in doc["best"]]
    assert values == sorted(values, reverse=True)
    assert [t["trial"] for t in doc["best"]] != [t["trial"] for t in cli_json(d, "results", job, "--top", "24")["best"]]
    assert d.get(f"jobs/{job}/results?by=fused&top=3")["best"] == doc["best"][:3], "the same over HTTP"
    losses = [t["by_value"] for t in cli_json(d, "results", job, "--by", "loss_sum")["best"]]
    assert losses == sorted(t["loss_sum"] for t in trials)[:10], "lower is better there"
    table = cli(d, "results", job, "--by", "fused", "--columns", "loss_sum,snip").out.splitlines()
    assert "ranked by fused" in table[1] and table[2].split()[:9] == ["RANK", "TRIAL", "SCORE", "PARAMS", "MACS", "FLOPS", "SECONDS",
                                                                     "fused", "loss_sum"]
    assert int(table[3].split()[1]) == doc["best"][0]["trial"] and not any("told apart" in line for line in table)


def test_columns_that_are_not_there_are_named(searched, submit):
    d, job = searched
    assert "synflow" in cli(d, "results", job, "--by", "synflow", status=65).err
    assert "colour" in cli(d, "results", job, "--by", "colour", status=65).err
    assert "colour" in cli(d, "results", job, "--columns", "colour", status=64).err
    plain = submit(d, name="plain", budget={"trials": 2})
    d.wait_end(plain)
    assert "scores.fuse" in cli(d, "results", plain, "--by", "fused", status=65).err
    assert "One initialisation" in cli(d, "results", job).out


def test_verify_takes_the_best_by_the_fused_score(searched, submit):
    d, job = searched
    best = cli_json(d, "results", job, "--by", "fused", "--top", "3")["best"]
    check = submit(d, kind="verify", name="check", curriculum=None, space=None, searcher=None, fidelity=None, window=None, budget=None,
                   verify={"of": str(job), "top": 3, "random": 1, "epochs": 0.1, "batch": 32})
    d.wait_end(check)
    top = [t for t in d.trials(check) if t["group"] == "top"]
    assert {t["arch"]: t["proxy"] for t in top} == {t["arch"]: t["by_value"] for t in best}
    pairs = cli_json(d, "audit", job)["samples"][0]["pairs"]
    want = fused([t for t in d.trials(job) if t["state"] == "scored"])
    assert len(pairs) == 4
    for p in pairs:
        assert p["values"]["fused"] == pytest.approx(want[p["trial"]], abs=1e-12), "among all that the search scored"
