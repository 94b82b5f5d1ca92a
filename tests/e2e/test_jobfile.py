"""Job files that are wrong: each problem is named with its place, nothing is created, and the status is 65."""

import json

import pytest

import harness
from harness import cli, cli_json

GOOD = """kind: search
name: small
dataset: small
curriculum: smallcur
space: chain
fidelity:
  steps: 6
  inits: 2
  valid_images: 48
budget:
  trials: 20
"""


@pytest.fixture
def refused(box, load):
    """Submit a text that must be refused; gives what was said."""
    d = load(box.coordinator())

    def do(text, *extra):
        file = box.dir / "job.yaml"
        file.write_text(text)
        said = ""
        for dry in ([], ["--dry-run"]):
            r = cli(d, "submit", file, *dry, *extra, status=65)
            said += r.err
        assert d.get("jobs")["total"] == 0
        return said
    do.coordinator = d
    return do


@pytest.mark.parametrize("wrong, names", [
    (("trials: 20", "trials: many"), ["trials", "many", "11"]),                      # wrong type
    (("inits: 2", "inits: 2.5"), ["inits", "8"]),
    (("inits: 2", "inits: 0"), ["inits"]),                                           # out of range
    (("inits: 2", "inits: 100000"), ["inits"]),
    (("trials: 20", "trials: -3"), ["trials"]),
    (("steps: 6", "step: 6"), ["step", "steps", "7"]),                               # unknown key, nearest known
    (("curriculum: smallcur", "curiculum: smallcur"), ["curiculum", "curriculum", "4"]),
    (("budget:", "buget:"), ["buget", "budget"]),
    (("kind: search", "kind: serach"), ["serach", "search"]),
    (("kind: search\n", ""), ["kind"]),
    (("fidelity:\n", "fidelity: fast\nx:\n"), ["fidelity"]),                         # a scalar where a map belongs
    (("name: small", "name: [a, b]"), ["name"]),
    (("name: small", "name: small\nname: other"), ["name"]),                         # given twice
    (("name: small", "name: 'sm'all"), ["2"]),                                       # not YAML
])
def test_a_wrong_job_file_is_refused_by_name(refused, wrong, names):
    old, new = wrong
    assert old in GOOD
    said = refused(GOOD.replace(old, new))
    for name in names:
        assert name in said, said


def test_an_unknown_space_is_refused_by_name(box, load):
    """Spaces are imported: the coordinator knows which there are, as it does of datasets."""
    d = load(box.coordinator())
    file = box.dir / "job.yaml"
    file.write_text(GOOD.replace("space: chain", "space: chian"))
    for dry in ([], ["--dry-run"]):
        said = cli(d, "submit", file, *dry, status=66).err
        assert "\"chian\" (did you mean 'chain'?)" in said and "nasnet" in said
    assert d.get("jobs")["total"] == 0


def test_all_problems_are_said_at_once(refused):
    said = refused(GOOD.replace("inits: 2", "inits: x").replace("trials: 20", "trails: 20"))
    assert "inits" in said and "trails" in said and "trials" in said


def test_impossible_constraints_are_refused(refused):
    said = refused(GOOD + "constraints:\n  min_params: 1000\n  max_params: 10\n")
    assert "min_params" in said and "max_params" in said


def test_a_constraint_that_no_architecture_meets_is_refused_or_fails_the_job(refused, box):
    """A bound below any network of the space: found by drawing, not by arithmetic."""
    d = refused.coordinator
    file = box.dir / "tiny.yaml"
    file.write_text(GOOD + "constraints:\n  max_params: 3\n")
    r = harness.run_cli("--connect", d.connect, "submit", file)
    if r.status == 0:
        box.worker(d)
        doc = d.wait_end()
        assert doc["state"] == "failed" and "constraint" in doc["reason"]
    else:
        assert r.status == 65 and ("max_params" in r.err or "constraint" in r.err)


@pytest.mark.parametrize("key, value", [("dataset", "nowhere"), ("curriculum", "nothing")])
def test_a_dataset_or_curriculum_that_is_not_there_is_named(box, load, key, value):
    d = load(box.coordinator())
    file = box.dir / "job.yaml"
    good = {"dataset": "small", "curriculum": "smallcur"}
    file.write_text(GOOD.replace(f"{key}: {good[key]}", f"{key}: {value}"))
    r = harness.run_cli("--connect", d.connect, "submit", file)
    assert r.status in (65, 66) and value in r.err
    assert d.get("jobs")["total"] == 0


def test_more_validation_images_than_there_are_is_refused(refused):
    assert "valid_images" in refused(GOOD.replace("valid_images: 48", "valid_images: 4000"))


def test_more_steps_than_the_curriculum_has_is_refused(refused):
    assert "steps" in refused(GOOD.replace("steps: 6", "steps: 7"))


def test_a_curriculum_of_another_image_size_is_refused(box, load, monkeypatch):
    d = load(box.coordinator())
    monkeypatch.setattr(harness, "SIDE", 16)
    other = harness.write_curriculum(box.dir / "other.safetensors")
    cli(d, "curriculum", "import", other, "--name", "other")
    file = box.dir / "job.yaml"
    file.write_text(GOOD.replace("smallcur", "other"))
    r = cli(d, "submit", file, status=65)
    assert "16" in r.err and "12" in r.err


def test_a_job_file_that_is_not_there_is_named(box, load):
    d = box.coordinator()
    r = harness.run_cli("--connect", d.connect, "submit", box.dir / "absent.yaml")
    assert r.status in (65, 66, 74) and "absent.yaml" in r.err


def test_an_empty_job_file_and_a_huge_one_are_refused(refused):
    refused("")
    refused("# " + "x" * 70000 + "\n" + GOOD)


def test_set_changes_a_key_and_refuses_what_is_wrong(box, load):
    d = load(box.coordinator())
    file = box.dir / "job.yaml"
    file.write_text(GOOD)
    assert "trails" in cli(d, "submit", file, "--set", "budget.trails=5", status=65).err
    assert d.get("jobs")["total"] == 0
    cli(d, "submit", file, "--set", "budget.trials=5", "--set", "seed=99")
    spec = d.get("jobs/1")["spec"]
    assert spec["budget"]["trials"] == 5 and spec["seed"] == 99


def test_a_dry_run_says_what_would_happen_and_creates_nothing(box, load):
    d = load(box.coordinator())
    file = box.dir / "job.yaml"
    file.write_text(GOOD)
    r = cli(d, "submit", file, "--dry-run")
    assert "20" in r.out and "e2" not in r.out.split("the space has")[0] and "the largest of 32 drawn takes" in r.out
    doc = cli_json(d, "submit", file, "--dry-run")
    assert json.dumps(doc)
    assert d.get("jobs")["total"] == 0
    assert doc["largest"]["mem_bytes"] >= max(s["mem_bytes"] for s in doc["sample"]) > 0 and doc["sampled"] == 32
    assert all(s["flops"] > 2 * s["macs"] for s in doc["sample"]) and doc["largest_worker_bytes"] is None


@pytest.mark.parametrize("what, passes", (
    ({}, 20 * 672),                                                               # (3 x 6 steps x 16 images + 48) x 2
    ({"fidelity.checkpoints": "[2,6]"}, 20 * 768),                                # the last one is the score itself
    ({"scores.zero_cost": "[naswot]"}, 20 * (672 + 64)),
    ({"halving.steps": "[2]", "halving.reduction": 2}, 20 * (288 + 672 / 2) / 1.5),
    ({"racing.inits": "[6]", "racing.among": 2, "racing.after": 5, "racing.share": 0.25}, 20 * (672 + 0.25 * 1344) / 1.25),
    ({"racing.inits": "[6]", "racing.among": 2, "racing.after": 5, "racing.share": 0.25, "fidelity.lr_scales": "[0.5,1]"}, 20 * (1344 + 0.25 * 1344) / 1.25),  # a round has one step size
    ({"warmup.candidates": 100, "warmup.vote": "[naswot,params]"}, 20 * 672 + 100 * 64),
))
def test_a_dry_run_prices_all_that_a_search_does(box, load, what, passes):
    d = load(box.coordinator())
    file = box.dir / "job.yaml"
    file.write_text(GOOD)
    args = [w for k, v in what.items() for w in ("--set", f"{k}={v}")]
    e = cli_json(d, "submit", file, "--dry-run", *args)["estimate"]
    assert e["macs_total"] == pytest.approx(e["macs_median"] * passes) and e["seconds"] is None
    said = cli(d, "submit", file, "--dry-run", *args).out
    assert ("warm-up: 100 networks, each worth 0.095 scorings; 32.3 % of the whole" in said) == ("warmup.candidates" in what)


def test_a_dry_run_knows_how_fast_its_workers_have_been(box, load):
    d = load(box.coordinator())
    box.worker(d)
    d.wait_workers(1)
    file = box.dir / "job.yaml"
    file.write_text(GOOD)
    cli(d, "submit", file)
    d.wait_end(1)
    one, two = (cli_json(d, "submit", file, "--dry-run", "--set", f"budget.trials={n}")["estimate"]["seconds"] for n in (20, 40))
    assert one > 0 and two == pytest.approx(2 * one)
    assert cli_json(d, "submit", file, "--dry-run", "--set", "device=cuda")["estimate"]["seconds"] is None


def test_the_memory_of_a_dry_run_is_that_of_the_trial(box, load):
    d = load(box.coordinator())
    box.worker(d, extra=["--mem-mb", 64])
    d.wait_workers(1)
    file = box.dir / "job.yaml"
    file.write_text(GOOD)
    dry = cli_json(d, "submit", file, "--dry-run")
    assert dry["largest_worker_bytes"] == 64 << 20
    cli(d, "submit", file)
    d.wait_end(1)
    said = {s["arch"]: s["mem_bytes"] for s in dry["sample"]}
    took = {t["arch"]: t["mem_bytes"] for t in d.trials(1)}
    assert said and all(took[arch] == bytes for arch, bytes in said.items() if arch in took) and set(said) & set(took)


def test_defaults_are_filled_in_and_shown(box, load):
    d = load(box.coordinator())
    file = box.dir / "job.yaml"
    file.write_text(GOOD)
    cli(d, "submit", file)
    spec = d.get("jobs/1")["spec"]
    assert spec["kind"] == "search" and spec["searcher"]["name"] in ("random", "evolution") and spec["window"] >= 1
    again = box.dir / "again.yaml"
    again.write_text(json.dumps({k: v for k, v in spec.items() if v is not None}))
    cli(d, "submit", again)
    assert d.get("jobs/2")["spec"]["searcher"] == spec["searcher"], "what is shown can be submitted"
