"""How far scores can be trusted: `didact audit`, against ranks counted here."""

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
    elsewhere = submit(d, kind="verify", name="d", **NOTHING, verify=dict(recipe, of=str(other), top=2, random=0))
    for job in (first, second, longer, elsewhere):
        assert d.wait_end(job)["state"] == "succeeded"
    doc = cli_json(d, "audit", search)
    one, = [s for s in doc["samples"] if s["training"]["epochs"] == 1]
    two, = [s for s in doc["samples"] if s["training"]["epochs"] == 2]
    assert len(doc["samples"]) == 2 and sorted(one["jobs"]) == [first, second] and two["jobs"] == [longer]

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
        if len({x[i] for i in top}) > 1 and len({y[i] for i in top}) > 1:
            assert predictor["top_half"]["spearman"]["value"] == pytest.approx(spearman([x[i] for i in top], [y[i] for i in top]))
        assert 0 <= predictor["regret"]["top10"] <= predictor["regret"]["top1"] <= max(y) - min(y)
        assert (predictor["seconds"] == 0) == (predictor["name"] in ("params", "macs"))
    assert {p["name"] for p in one["predictors"]} == {"score", "loss_sum", "params", "macs", "score@3"}

    text = cli(d, "audit", "small", "-o", box.dir / "a.svg").out
    assert "loss_sum (less is better)" in text and "number of parameters" in text
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
