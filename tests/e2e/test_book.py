"""The score book: the same pure function is computed once, and what it answers is what would have been computed."""

import pytest

from harness import cli, cli_json, wait_for

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
