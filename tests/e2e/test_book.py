"""The score book: the same pure function is computed once, and what it answers is what would have been computed."""

import csv
import io
import subprocess

import pytest

from harness import BIN, cli, cli_json, wait_for

SMALL = {"fidelity": {"steps": 6, "inits": 1, "valid_images": 48}, "budget": {"trials": 24}, "scores": {"zero_cost": ["naswot"]}}


def leases(d):
    line, = [x for x in d.http_raw("/metrics")[1].decode().splitlines() if x.startswith("didact_leases_granted_total")]
    return float(line.split()[1])


@pytest.fixture
def computed(box, load, submit):
    """A coordinator with one search in its book, and nobody left to compute another."""
    d = load(box.coordinator())
    w = box.worker(d, slots=2)
    job = submit(d, **SMALL)
    assert d.wait_end(job)["state"] == "succeeded"
    assert w.stop() == 0
    return d, job


def test_the_same_search_again_computes_nothing(computed, submit):
    d, first = computed
    granted = leases(d)
    again = submit(d, **SMALL, name="again")
    assert d.wait_end(again)["state"] == "succeeded", "without a single worker"
    assert d.history(again) == d.history(first) and leases(d) == granted
    trials = d.trials(again)
    assert len(trials) == 24 and all(t["from_book"] and t["worker"] is None and t["seconds"] == 0 for t in trials)
    assert not any(t["from_book"] for t in d.trials(first))
    assert cli_json(d, "replay", again)["ok"] is True
    assert d.stop() == 0
    d.start()
    assert d.history(again) == d.history(first), "after a restart too"


def test_what_the_book_lacks_is_computed_and_nothing_shows_in_the_history(computed, box, submit):
    d, _ = computed
    longer = {**SMALL, "budget": {"trials": 40}}
    job = submit(d, **longer, name="longer")
    wait_for("24 trials from the book", lambda: d.job(job)["trials"]["scored"] + d.job(job)["trials"]["failed"] == 24)
    box.worker(d, slots=2)
    assert d.wait_end(job)["state"] == "succeeded"
    assert sum(t["from_book"] for t in d.trials(job)) == 24
    alone = submit(d, **{**longer, "scores": {"zero_cost": ["naswot"], "book": False}}, name="alone")
    assert d.wait_end(alone)["state"] == "succeeded"
    assert not any(t["from_book"] for t in d.trials(alone))
    assert d.history(job) == d.history(alone)


def test_every_part_of_the_key_counts(computed, box, submit):
    """Another fidelity, other scores or another seed is another question."""
    d, _ = computed
    box.worker(d, slots=2)
    other = [{"fidelity": {"steps": 5, "inits": 1, "valid_images": 48}}, {"scores": {"zero_cost": ["snip"]}}, {"seed": 8}]
    for i, change in enumerate(other):
        job = submit(d, **{**SMALL, "budget": {"trials": 6}, **change}, name=f"other{i}")
        d.wait_end(job)
        assert not any(t["from_book"] for t in d.trials(job)), change


# ---- books as files ----

def export(d, path):
    cli(d, "book", "export", path)
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    return rows


def test_a_book_travels_to_another_site(computed, box, load, submit, tmp_path):
    """Exported, imported elsewhere: there the same search needs no worker, and has the same history."""
    d, first = computed
    rows = export(d, tmp_path / "a.csv")
    trials = {t["arch_hash"]: t for t in d.trials(first)}
    assert len(rows) == 24 and {r["arch_hash"] for r in rows} == set(trials)
    for r in rows:
        t = trials[r["arch_hash"]]
        assert float(r["score"]) == t["score"] and float(r["naswot"]) == t["zero_cost"]["naswot"] and float(r["seconds"]) > 0
        assert r["fidelity"] == "steps=6 inits=1 valid_images=48 lr_scales=1 zero_cost=naswot"
    other = load(box.coordinator("other"))
    said = cli_json(other, "book", "import", tmp_path / "a.csv")
    assert said == {"rows": 24, "new": 24}
    assert cli_json(other, "book", "import", tmp_path / "a.csv") == {"rows": 24, "new": 0}, "twice is once"
    export(other, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    job = submit(other, **SMALL)
    assert other.wait_end(job)["state"] == "succeeded"
    assert other.history(job) == d.history(first)


def test_a_book_that_contradicts_is_refused_by_its_row(computed, tmp_path):
    d, _ = computed
    export(d, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)

    def imported(change, row=5, **kw):
        bad = lines.copy()
        bad[row] = change(lines[row])
        file = tmp_path / "bad.csv"
        file.write_text("".join(bad))
        return cli(d, "book", "import", file, **kw)

    def field(column, value):
        k = lines[0].strip().split(",").index(column)

        def change(line):
            parts = next(csv.reader([line.strip()]))
            parts[k] = value
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerow(parts)
            return out.getvalue()
        return change
    def other_score(line):
        return field("score", "0.125")(field("init_scores", "0.125")(line))
    for change, words, status in ((other_score, ("row 5", "other numbers"), 1), (field("score", "much"), ("row 5", "score"), 65),
                                  (field("arch_hash", "0" * 32), ("row 5", "arch_hash"), 65), (field("space", "moon"), ("row 5", "moon"), 65),
                                  (field("dataset", "xyz"), ("row 5", "dataset"), 65), (field("score", "0.123"), ("row 5", "mean of init_scores"), 65),
                                  (field("score", ""), ("row 5", "lacks score"), 65), (field("params", "3"), ("row 5", "params: 3, but this network has"), 65),
                                  (field("macs", "3"), ("row 5", "macs: 3"), 65), (field("fidelity", "banana"), ("row 5", "fidelity"), 65),
                                  (field("engine", "abc"), ("row 5", "engine"), 65), (lambda s: "a,b\n", ("row 5", "columns"), 65)):
        r = imported(change, status=status)
        assert all(w in r.err for w in words), r.err
    new = field("engine", "99")  # a new row before a bad one: neither enters
    twice = "".join([lines[0], new(lines[1]), other_score(lines[2])])
    (tmp_path / "twice.csv").write_text(twice)
    assert "row 2" in cli(d, "book", "import", tmp_path / "twice.csv", status=1).err
    assert len(export(d, tmp_path / "b.csv")) == 24


def test_what_is_wrong_in_a_book_can_be_taken_out(computed, tmp_path):
    d, _ = computed
    rows = export(d, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
    other = lines[3].replace(f"{rows[2]['score']},", "0.5,", 1)  # other numbers, the same key
    (tmp_path / "wrong.csv").write_text(lines[0] + other + lines[5])
    assert cli_json(d, "book", "remove", tmp_path / "wrong.csv") == {"rows": 2, "removed": 2}
    assert len(export(d, tmp_path / "b.csv")) == 22
    assert cli_json(d, "book", "remove", tmp_path / "wrong.csv") == {"rows": 2, "removed": 0}
    assert cli_json(d, "book", "import", tmp_path / "a.csv") == {"rows": 24, "new": 2}
    export(d, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_what_didact_worker_score_wrote_is_a_book(computed, submit, tmp_path):
    """Scores taken without a coordinator answer a search's trials, to the bit."""
    d, first = computed
    (blob,) = [p for p in d.folder.rglob("*") if p.is_file() and p.name == d.get("datasets")["datasets"][0]["hash"]]
    (lesson,) = [p for p in d.folder.rglob("*") if p.is_file() and p.name == d.get("curricula")["curricula"][0]["hash"]]
    archs = [t["arch"] for t in d.trials(first)]
    (tmp_path / "archs.txt").write_text("\n".join(archs) + "\n")
    subprocess.run([BIN / "didact-worker", "score", "--archs", tmp_path / "archs.txt", "--dataset", blob, "--curriculum", lesson, "--inits", "1", "--zero-cost",
                    "naswot", "--set", "seed=7", "--set", "fidelity.valid_images=48", "--out", tmp_path / "scores.csv"], check=True,
                   stderr=subprocess.DEVNULL)
    assert cli_json(d, "book", "import", tmp_path / "scores.csv") == {"rows": 24, "new": 0}
