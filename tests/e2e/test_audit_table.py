"""`didact audit BOOK… --truth TABLE`: score books against a table, counted again here."""

import csv
import gzip
import json
import math
import subprocess

import numpy as np
import pytest

from harness import BIN, SLOW
from test_audit import mean_ranks, spearman

SPACE = "nasbench201"
KEY = dict(space=SPACE, dataset="d" * 64, curriculum="c" * 64, fidelity="steps=4 inits=1 valid_images=32 checkpoints=2", engine="2")
COLUMNS = ("space,arch,arch_hash,dataset,curriculum,fidelity,seed,engine,state,reason,detail,score,score_se,init_scores,checkpoints,checkpoint_scores,"
           "loss_sum,lr_scale,params,macs,synflow,naswot,jacob_cov,zico,snip,grad_norm").split(",")


def didact(*args, status=0):
    r = subprocess.run([str(BIN / "didact"), *map(str, args)], capture_output=True, text=True, timeout=60 * SLOW)
    assert r.returncode == status, (r.returncode, r.stderr)
    return r


@pytest.fixture(scope="module")
def nets():
    doc = json.loads(didact("space", "show", SPACE, "--samples", 40, "--seed", 5, "--json").stdout)
    return sorted({s["arch"] for s in doc["samples"]})


def book(path, nets, rng, **key):
    """A score book with numbers drawn here; what is in it, by architecture."""
    rows = []
    for i, arch in enumerate(nets):
        score = round(float(rng.random()), 2)          # with ties
        first = round(float(rng.random()), 6)
        rows.append({**dict.fromkeys(COLUMNS, ""), **KEY, **key, "arch": arch, "arch_hash": f"{i:032x}", "seed": i, "state": "scored", "score": score, "score_se": 0,
                     "init_scores": score, "checkpoints": 2, "checkpoint_scores": first, "loss_sum": round(float(rng.random()) * 9, 6), "lr_scale": 1,
                     "params": int(rng.integers(100, 1000)), "macs": int(rng.integers(1000, 9000)), "synflow": round(float(rng.random()), 6)})
    write(path, rows)
    return {r["arch"]: r for r in rows}


def write(path, rows):
    with open(path, "w", newline="") as f:
        w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        w.writeheader()
        w.writerows(rows)


def table(path, accuracy):
    with gzip.open(path, "wt") as f:
        f.write("index,arch,acc\n" + "".join(f"{i},{a},{v}\n" for i, (a, v) in enumerate(accuracy.items())))


def test_every_column_of_two_books_is_judged(nets, tmp_path):
    rng = np.random.default_rng(3)
    truth = {a: round(float(v), 3) for a, v in zip(nets, rng.random(len(nets)))}
    one = book(tmp_path / "gtn.csv", nets[:-4], rng)
    two = book(tmp_path / "real.one.csv", nets[3:], rng, curriculum="e" * 64)
    del truth[nets[10]]
    table(tmp_path / "t.csv.gz", truth)
    common = [a for a in nets[3:-4] if a in truth]
    doc = json.loads(didact("audit", tmp_path / "gtn.csv", tmp_path / "real.one.csv", "--truth", tmp_path / "t.csv.gz", "--truth-column", "acc",
                            "--fuse", "score,loss_sum,real:score", "--json").stdout)
    sample, = doc["samples"]
    assert sample["n"] == len(common) == len(sample["pairs"]) and {p["arch"] for p in sample["pairs"]} == set(common)
    y = [truth[a] for a in common]
    get = {"score": lambda a: one[a]["score"], "loss_sum": lambda a: -one[a]["loss_sum"], "params": lambda a: one[a]["params"], "macs": lambda a: one[a]["macs"],
           "synflow": lambda a: one[a]["synflow"], "score@2": lambda a: one[a]["checkpoint_scores"], "real:score": lambda a: two[a]["score"],
           "real:loss_sum": lambda a: -two[a]["loss_sum"], "real:synflow": lambda a: two[a]["synflow"], "real:score@2": lambda a: two[a]["checkpoint_scores"]}
    columns = {k: [f(a) for a in common] for k, f in get.items()}
    n = len(common)
    columns["fused"] = [sum(math.log(mean_ranks(columns[k])[i] / n) for k in ("score", "loss_sum", "real:score")) for i in range(n)]
    got = {p["name"]: p for p in sample["predictors"]}
    assert set(got) == set(columns)
    for name, x in columns.items():
        assert got[name]["all"]["spearman"]["value"] == pytest.approx(spearman(x, y)), name
        assert got[name]["all"]["n"] == n
        gap = got[name]["all"]["minus_params"]
        assert gap["value"] == pytest.approx(spearman(x, y) - spearman(columns["params"], y)) and gap["low"] <= gap["value"] <= gap["high"]
    assert got["fused"]["pick"]["arch"] == common[int(np.argmax(columns["fused"]))]
    assert sample["best"]["accuracy"] == max(y)
    text = didact("audit", tmp_path / "gtn.csv", tmp_path / "real.one.csv", "--truth", tmp_path / "t.csv.gz", "--truth-column", "acc", "--fuse", "score,params",
                  "-o", tmp_path / "a.svg").stdout
    assert f"{n} networks, each judged by its acc" in text and "for the fused score" in text and "real:loss_sum (less is better)" in text
    assert "ranks by score and by acc" in (tmp_path / "a.svg").read_text()


def test_failed_networks_are_counted_and_repeats_count_once(nets, tmp_path):
    rng = np.random.default_rng(4)
    rows = list(book(tmp_path / "a.csv", nets, rng).values())
    rows[2].update(state="failed", reason="nan", score="", score_se="", init_scores="", checkpoints="", checkpoint_scores="", loss_sum="", lr_scale="", synflow="")
    write(tmp_path / "a.csv", rows + [rows[0]])
    table(tmp_path / "t.csv.gz", {a: i / 100 for i, a in enumerate(nets)})
    doc = json.loads(didact("audit", tmp_path / "a.csv", "--truth", tmp_path / "t.csv.gz", "--truth-column", "acc", "--json").stdout)
    assert doc["samples"][0]["n"] == len(nets) - 1
    assert (doc["books"][0]["rows"], doc["books"][0]["failed"], doc["books"][0]["joined"]) == (len(nets) + 1, 1, len(nets) - 1)


def test_what_does_not_compare_is_refused(nets, tmp_path):
    rng = np.random.default_rng(5)
    rows = list(book(tmp_path / "a.csv", nets, rng).values())
    table(tmp_path / "t.csv.gz", {a: i / 100 for i, a in enumerate(nets)})
    truth = ("--truth", tmp_path / "t.csv.gz", "--truth-column", "acc")
    write(tmp_path / "b.csv", rows[:5] + [dict(rows[6], fidelity="steps=8 inits=1 valid_images=32 checkpoints=2")])
    assert "b.csv: line 7: its fidelity" in didact("audit", tmp_path / "b.csv", *truth, status=65).stderr
    write(tmp_path / "c.csv", rows[:2])
    assert "a correlation needs 3" in didact("audit", tmp_path / "c.csv", *truth, status=65).stderr
    (tmp_path / "d.csv").write_text("arch,score\n")
    assert "d.csv: line 1: " in didact("audit", tmp_path / "d.csv", *truth, status=65).stderr
    assert "no column is called 'luck'" in didact("audit", tmp_path / "a.csv", *truth, "--fuse", "score,luck", status=64).stderr
    assert "nowhere.csv" in didact("audit", tmp_path / "nowhere.csv", *truth, status=66).stderr
    assert "--fuse goes with --truth" in didact("audit", "3", "--fuse", "score", status=64).stderr
    assert "--truth FILE" in didact("audit", "3", "4", status=64).stderr
    assert "column" in didact("audit", tmp_path / "a.csv", "--truth", tmp_path / "t.csv.gz", status=65).stderr
    short = [dict(r, space="chain") for r in rows]
    write(tmp_path / "e.csv", short)
    assert "e.csv" in didact("audit", tmp_path / "a.csv", tmp_path / "e.csv", *truth, status=65).stderr


def test_a_space_of_ones_own_is_named_by_its_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nslots:\n  - name: stem\n    op: conv\n    width: [4, 8, 12, 16]\n    kernel: [3, 5]\nhead: gap\n")
    shown = json.loads(didact("space", "show", tmp_path / "mine.yaml", "--samples", 40, "--seed", 5, "--json").stdout)
    nets = sorted({s["arch"] for s in shown["samples"]})
    truth = {a: float(i) for i, a in enumerate(nets)}
    table(tmp_path / "truth.csv.gz", truth)
    rows = book(tmp_path / "a.csv", nets, np.random.default_rng(7), space=shown["name"])
    doc = json.loads(didact("audit", tmp_path / "a.csv", "--truth", tmp_path / "truth.csv.gz", "--truth-column", "acc", "--space", tmp_path / "mine.yaml", "--json").stdout)
    score = next(p for p in doc["samples"][0]["predictors"] if p["name"] == "score")
    assert score["all"]["spearman"]["value"] == pytest.approx(spearman([rows[a]["score"] for a in nets], [truth[a] for a in nets]))
    assert "mine@" in didact("audit", tmp_path / "a.csv", "--truth", tmp_path / "truth.csv.gz", "--truth-column", "acc", "--connect", "ipc:///nowhere", "--timeout", 2, status=66).stderr
