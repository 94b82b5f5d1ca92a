"""Searchers on recorded scores: a table, and the scores of a job."""

import csv
import gzip
import itertools
import json

import numpy as np
import pytest

from harness import cli, cli_json, run_cli

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
WORTH = dict(zip(OPS, (0, 2, 3, 5, 1)))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Every cell of nasbench201 with a smooth made-up truth, and a score that shows it through noise."""
    path = tmp_path_factory.mktemp("table") / "cells.csv.gz"
    with gzip.open(path, "wt", newline="") as f:
        out = csv.writer(f)
        out.writerow(["index", "arch", "noisy", "true"])
        for i, ops in enumerate(itertools.product(OPS, repeat=6)):
            a, b, c, d, e, g = ops
            arch = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{g}~2|"
            true = 60 + sum(WORTH[op] for op in ops)
            out.writerow([i, arch, true + (i * 7919 % 100) / 50, true])
    return path


def test_a_table_gives_regret_with_intervals(table):
    doc = json.loads(run_cli("simulate", table, "--score", "noisy", "--truth", "true", "--within", "1", "--seeds", "60", "--trials", "150",
                             "--searcher", "random", "--searcher", "evolution", "--json").out)
    assert doc["records"]["rows"] == 15625 and 5000 < doc["records"]["architectures"] < 15625
    random, evolution = doc["runs"]
    for r in (random, evolution):
        points = r["points"]
        assert [p["evaluations"] for p in points][-1] == 150 and len(points) > 8
        for p in points:
            assert p["ci_low"] <= p["mean"] <= p["ci_high"] and p["regret"]["q25"] <= p["regret"]["median"] <= p["regret"]["q75"]
    assert evolution["points"][-1]["ci_high"] < random["points"][-1]["ci_low"], "on a smooth space evolution is the better one"
    assert evolution["reached"]["seeds"] > random["reached"]["seeds"]


def test_the_same_seeds_give_the_same_numbers(table):
    def points(*more):
        argv = ["simulate", table, "--score", "noisy", "--seeds", "12", "--trials", "40", "--json", *more]
        return json.loads(run_cli(*argv).out)["runs"][0]["points"]
    assert points("--threads", "1") == points("--threads", "7") != points("--seed", "500")


def test_a_race_on_recorded_initialisations(tmp_path):
    """Of 8 recorded initialisations everyone shows 2; with a race the contenders show more, and the pick is better."""
    rng = np.random.default_rng(1)
    path = tmp_path / "cells.csv"
    with open(path, "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["arch", "score", "true", "init_scores"])
        for arch in sorted(set(run_cli("space", "sample", "nasbench201", "-n", 20000).out.splitlines())):
            true = rng.random()                         # the best are many and close: else new candidates are worth more
            inits = true + 0.1 * rng.normal(size=8)
            out.writerow([arch, inits[:2].mean(), true, " ".join(f"{v:.17g}" for v in inits)])

    def regret(*more):
        r = run_cli("simulate", path, "--truth", "true", "--searcher", "random", "--trials", "160", "--seeds", "100", "--json", *more)
        assert r.status == 0, r
        return json.loads(r.out)["runs"][0]["points"][-1]
    race = ["--set", "racing.inits=[4,8]", "--set", "racing.after=110", "--set", "racing.share=0.4"]
    assert regret(*race)["ci_high"] < regret()["ci_low"]
    r = run_cli("simulate", path, "--truth", "true", "--set", "racing.inits=[4,16]")
    assert r.status == 65 and "fewer than 16 initialisations" in r.err
    assert "no column 'nothing'" in run_cli("simulate", path, "--init-scores", "nothing").err


def test_mistakes_are_told(table, box):
    for argv, says in ((["--score", "nothing"], "no column 'nothing'"), (["--score", "noisy", "--searcher", "annealing"], "annealing"),
                       (["--score", "noisy", "--space", "chain"], "line 2"), (["--score", "noisy", "--set", "searcher.sample=0"], "searcher.sample"),
                       (["--score", "noisy", "--set", "warmup.candidates=20", "--set", "warmup.vote=[synflow]"], "no recorded network has synflow"),
                       (["--score", "noisy", "--set", "objectives=[{metric: score}, {metric: latency}]"], "cannot be simulated")):
        r = run_cli("simulate", table, *argv)
        assert r.status == 65 and says in r.err, r


def test_the_scores_of_a_job_are_a_table_too(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, slots=2)
    job = submit(d, space="nasbench201", searcher={"name": "random"}, budget={"trials": 30}, fidelity={"steps": 3, "inits": 1, "valid_images": 32})
    assert d.wait_end(job)["trials"]["scored"] == 30
    doc = cli_json(d, "simulate", job, "--trials", "8", "--seeds", "20", "--searcher", "random")
    assert doc["records"]["architectures"] == 30 and doc["records"]["best"] == d.job(job)["best"]["score"]
    assert doc["runs"][0]["window"] == 8, "the job's own"
    assert "evaluations" in cli(d, "simulate", job, "--trials", "8", "--seeds", "20").out
