"""`didact curriculum show`: the shipped curricula and a small one in colours, as text, JSON and pictures."""

import base64
import json
import struct
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import harness
from harness import cli, cli_json, read_safetensors, run_cli
from test_audit import png_pixels

SHIPPED = sorted((harness.ROOT / "share" / "curricula").glob("*.safetensors"))
SVG = "{http://www.w3.org/2000/svg}"


def images_of(svg):
    """The pictures in a drawing, row by row: [(x, y, width, pixels)]; the map and its key come last."""
    found = []
    for e in svg.iter(SVG + "image"):
        kind, data = e.get("href").split(",", 1)
        assert kind == "data:image/png;base64"
        found.append((float(e.get("x")), float(e.get("y")), float(e.get("width")), png_pixels(base64.b64decode(data))))
    return found[:-2]


def words_of(svg):
    return [e.text for e in svg.iter(SVG + "text")]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_a_shipped_curriculum_is_drawn(box, file):
    tensors = read_safetensors(file)
    images, largest = tensors["images"], tensors["labels"].argmax(-1)
    out = box.dir / "a.svg"
    r = run_cli("curriculum", "show", file, "-o", out)
    assert r.status == 0 and r.out.rstrip().endswith(str(out)), r
    svg = ET.parse(out).getroot()
    steps = [int(w[4:]) for w in words_of(svg) if w.startswith("t = ")]
    assert len(steps) == 8 and (steps[0], steps[-1]) == (0, 31) and set(np.diff(steps)) <= {4, 5}
    drawn = images_of(svg)
    assert len(drawn) == 8 * 20
    for row, t in enumerate(steps):
        line = drawn[20 * row:20 * row + 20]
        assert len({y for _, y, _, _ in line}) == 1 and [x for x, *_ in line] == sorted(x for x, *_ in line)
        for i, (_, _, width, pixels) in enumerate(line):
            b = np.flatnonzero(largest[t] == i // 2)[i % 2]
            assert (pixels == images[t, b, 0][:, :, None]).all(), f"step {t}, image {b}"
            assert width == 42                           # three pixels of a PNG for one
    title = next(w for w in words_of(svg) if "steps x" in w)
    assert "32 steps x 128 images of 1 x 28 x 28" in title and ("gtn" if "gtn" in file.stem else "distilled") in title
    assert {file.stem, "eta_t", "mu_t", "sum of y", "step t", "class"} <= set(words_of(svg))
    run_cli("curriculum", "show", file, "-o", box.dir / "a.png")
    head = (box.dir / "a.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (2 * int(svg.get("width")), 2 * int(svg.get("height")))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_its_numbers_are_told(file):
    t = read_safetensors(file)
    doc = json.loads(run_cli("curriculum", "show", file, "--json").out)
    assert (doc["steps"], doc["batch"], doc["image"], doc["classes"]) == (32, 128, [1, 28, 28], 10)
    assert doc["lr"] == pytest.approx(t["lr"].tolist()) and doc["momentum"] == pytest.approx(t["mu"].tolist())
    assert doc["class_sums"] == pytest.approx(t["labels"].sum((0, 1), dtype=float).tolist())
    assert doc["class_images"] == np.bincount(t["labels"].argmax(-1).ravel()).tolist()
    assert doc["kind"] == doc["provenance"]["config"]["kind"]
    lines = run_cli("curriculum", "show", file).out.splitlines()
    for key, values, digits in (("lr", t["lr"], 4), ("momentum", t["mu"], 3)):
        i = next(i for i, l in enumerate(lines) if l.startswith(key + " "))
        low, high = int(values.argmin()), int(values.argmax())
        assert len(lines[i].split()) == 33
        assert lines[i + 1].strip() == (f"first {values[0]:.{digits}g}, least {values[low]:.{digits}g} (t = {low}), "
                                        f"most {values[high]:.{digits}g} (t = {high}), last {values[-1]:.{digits}g}")
    sums = t["labels"].sum((0, 1), dtype=float)
    assert next(l for l in lines if l.startswith("class sums")).split()[2:] == [f"{v:.4g}" for v in sums]
    assert f"most {sums.max():.4g} (class {sums.argmax()})" in "\n".join(lines)


def test_of_a_coordinator_it_is_drawn_alike(box, load, material):
    d = load(box.coordinator())
    cli(d, "curriculum", "show", "smallcur", "-o", box.dir / "a.svg")
    run_cli("curriculum", "show", material.curriculum, "-o", box.dir / "b.svg")
    a, b = (box.dir / "a.svg").read_text(), (box.dir / "b.svg").read_text()
    assert a.count("<image ") == 6 * 16 + 2 and "smallcur" in a
    assert a.replace("smallcur", "small") == b
    doc = cli_json(d, "curriculum", "show", "smallcur", "-o", box.dir / "c.png")
    assert doc["name"] == "smallcur" and doc["kind"] is None and (box.dir / "c.png").stat().st_size > 1000
    hashed = cli_json(d, "curriculum", "show", doc["hash"][:12])
    assert hashed["hash"] == doc["hash"]


def test_colours_and_another_curriculum(box):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (3, 8, 3, 16, 16), dtype=np.uint8)
    labels = np.eye(4, dtype="<f4")[np.arange(24).reshape(3, 8) % 4]
    meta = {"format": "didact-curriculum-1", "inner": '{"type": "sgd"}', "provenance": ""}
    drawings = []
    for i in range(2):
        file = harness.write_safetensors(box.dir / f"{i}.safetensors", {"images": images, "labels": labels, "lr": np.full(3, 0.1 + i, "<f4"),
                                                                      "mu": np.zeros(3, "<f4")}, meta)
        r = run_cli("curriculum", "show", file, "-o", box.dir / "a.svg")
        assert r.status == 0, r
        drawings.append((box.dir / "a.svg").read_text().replace(f">{i}.safetensors<", "").replace(f">{i}<", ""))
    assert drawings[0] != drawings[1]
    drawn = images_of(ET.parse(box.dir / "a.svg").getroot())
    assert len(drawn) == 24
    for n, (*_, pixels) in enumerate(drawn):
        t, k, i = n // 8, n % 8 // 2, n % 2
        assert (pixels == images[t, k + 4 * i].transpose(1, 2, 0)).all()


def test_what_is_wrong_is_named(box, load, material):
    d = load(box.coordinator())
    out = box.dir / "a.png"
    assert "no curriculum 'nobody'" in cli(d, "curriculum", "show", "nobody", "-o", out, status=66).err
    assert "nowhere.safetensors" in cli(d, "curriculum", "show", "nowhere.safetensors", "-o", out, status=66).err
    cut = box.dir / "cut.safetensors"
    cut.write_bytes(material.curriculum.read_bytes()[:-7])
    assert "cut.safetensors" in cli(d, "curriculum", "show", cut, "-o", out, status=65).err
    r = cli(d, "curriculum", "show", "smallcur", "-o", box.dir / "a.gif", status=64)
    assert "a.gif" in r.err and ".svg or .png" in r.err
    r = cli(d, "curriculum", "show", "smallcur", "-o", box.dir / "none" / "a.png", status=66)
    assert "none" in r.err and not r.out
    (box.dir / "folder.png").mkdir()
    r = cli(d, "curriculum", "show", "smallcur", "--json", "-o", box.dir / "folder.png", status=74)
    assert "folder.png" in r.err and "ERR_IO" in json.dumps(json.loads(r.out))
    assert not out.exists() and not list((box.dir / "folder.png").iterdir())
    assert run_cli("--dir", box.dir / "away", "curriculum", "show", "smallcur").status == 69
