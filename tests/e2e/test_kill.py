"""What a search must survive: kill -9 of a worker, of the coordinator, of both, and a network that goes away.

In each case the history must be, byte for byte, that of one worker left alone."""

import signal
import time

import pytest

import harness
from conftest import KILL_JOB

pytestmark = [pytest.mark.kill, pytest.mark.limit(240)]
TRIALS = KILL_JOB["budget"]["trials"]


def end_and_compare(d, undisturbed, job=1):
    doc = d.wait_end(job, timeout=200)
    assert doc["state"] == "succeeded", doc["reason"]
    assert doc["trials"]["scored"] + doc["trials"]["failed"] == TRIALS
    assert doc["failures"]["crash"] == 0
    assert d.history(job) == undisturbed
    assert d.get(f"jobs/{job}/replay")["ok"] is True
    return doc


def test_two_workers_give_what_one_gives(box, load, submit, undisturbed):
    d = load(box.coordinator())
    box.worker(d, "w1")
    box.worker(d, "w2", slots=2)
    d.wait_workers(2)
    submit(d, **KILL_JOB)
    end_and_compare(d, undisturbed)
    assert len({t["worker"] for t in d.trials()}) == 2, "both worked"


def test_a_worker_is_killed(box, load, submit, undisturbed, kill_round):
    d = load(box.coordinator(lease_ms=2000))
    w = box.worker(d)
    submit(d, **KILL_JOB)
    d.wait_scored(8 + 3 * kill_round % 7)
    w.kill9()
    w.start()
    d.wait_scored(25)
    w.kill9()
    w.start()
    end_and_compare(d, undisturbed)


def test_a_killed_worker_never_comes_back_and_another_takes_over(box, load, submit, undisturbed, kill_round):
    d = load(box.coordinator(lease_ms=1500))
    w = box.worker(d)
    submit(d, **KILL_JOB)
    d.wait_scored(8)
    w.kill9()
    box.worker(d, "w2")
    end_and_compare(d, undisturbed)


def test_the_coordinator_is_killed(box, load, submit, undisturbed, kill_round):
    d = load(box.coordinator())
    box.worker(d, "w1")
    box.worker(d, "w2")
    submit(d, **KILL_JOB)
    for n in (5 + 3 * kill_round % 7, 20, 35):
        d.wait_scored(n)
        d.kill9()
        d.start()
    end_and_compare(d, undisturbed)


def test_the_coordinator_and_a_worker_are_killed(box, load, submit, undisturbed, kill_round):
    d = load(box.coordinator(lease_ms=2000))
    w1, w2 = box.worker(d, "w1"), box.worker(d, "w2")
    submit(d, **KILL_JOB)
    d.wait_scored(10)
    d.kill9()
    w1.kill9()
    w2.kill9()
    d.start()
    w2.start()
    d.wait_scored(30)
    w2.kill9()
    d.kill9()
    d.start()
    w1.start()
    w2.start()
    end_and_compare(d, undisturbed)


def test_the_coordinator_is_killed_while_nobody_works(box, load, submit, undisturbed, kill_round):
    """A submission that was answered is kept, whatever happens next."""
    d = load(box.coordinator())
    submit(d, **KILL_JOB)
    d.kill9()
    d.start()
    assert d.job()["state"] in ("queued", "running")
    box.worker(d)
    end_and_compare(d, undisturbed)


def test_a_frozen_coordinator_wakes_up(box, load, submit, undisturbed, kill_round):
    """Stopped for longer than a lease: on waking, messages that wait are read before deadlines are judged."""
    d = load(box.coordinator(lease_ms=1500))
    box.worker(d, "w1")
    box.worker(d, "w2")
    submit(d, **KILL_JOB)
    d.wait_scored(10)
    d.signal(signal.SIGSTOP)
    time.sleep(2.5 * harness.SLOW)       # the event waited for is time itself
    d.signal(signal.SIGCONT)
    end_and_compare(d, undisturbed)
    assert {t["attempt"] for t in d.trials()} == {1}, "no lease was taken away from workers that were well"


def test_a_frozen_worker_wakes_up_after_its_lease(box, load, submit, undisturbed, kill_round):
    d = load(box.coordinator(lease_ms=1200))
    w1 = box.worker(d, "w1")
    submit(d, **KILL_JOB)
    d.wait_scored(10)
    w1.signal(signal.SIGSTOP)
    harness.wait_for("the frozen worker's leases expire",
                     lambda: not [t for t in d.trials() if t["state"] == "running"], 20)
    box.worker(d, "w2")
    d.wait_scored(20)
    w1.signal(signal.SIGCONT)
    end_and_compare(d, undisturbed)


def test_a_worker_cut_off_while_it_computes_delivers_after_it_reconnects(box, load, submit, undisturbed):
    d = load(box.coordinator(lease_ms=20000, listen=["tcp://127.0.0.1:0"]))
    port = int(d.tcp.rsplit(":", 1)[1])
    proxy = harness.Proxy(("127.0.0.1", port))
    try:
        box.worker(d, connect=proxy.endpoint)
        submit(d, **KILL_JOB)
        d.wait_scored(10)
        proxy.cut()
        scored = d.scored()
        harness.wait_for("the coordinator misses the worker", lambda: d.get("status")["workers"]["online"] == 0, 30)
        assert d.scored() - scored <= 1
        proxy.heal()
        end_and_compare(d, undisturbed)
        assert {t["attempt"] for t in d.trials()} == {1}, "the lease was kept: nothing was computed twice"
    finally:
        proxy.close()


def test_a_stop_signal_hands_back_what_a_worker_holds(box, load, submit, undisturbed):
    d = load(box.coordinator(lease_ms=60000))
    w = box.worker(d)
    submit(d, **KILL_JOB)
    d.wait_scored(5)
    assert w.stop() == 0
    harness.wait_for("its trials wait again or are done",
                     lambda: not [t for t in d.trials() if t["state"] == "running"], 10)
    w.start()
    end_and_compare(d, undisturbed)


def test_a_coordinator_stops_cleanly_and_goes_on(box, load, submit, undisturbed):
    d = load(box.coordinator())
    box.worker(d)
    submit(d, **KILL_JOB)
    d.wait_scored(5)
    assert d.stop() == 0
    d.start()
    end_and_compare(d, undisturbed)


def test_a_trial_that_kills_every_worker_is_given_up(box, load, submit):
    """Three workers lost with it in hand: failed(crash), and the search goes on with the others."""
    d = load(box.coordinator(lease_ms=1000))
    submit(d, budget={"trials": 3}, window=1, searcher={"name": "random"},
           fidelity={"steps": 6, "inits": 64, "valid_images": 60})
    for n in range(3):
        w = box.worker(d, f"victim{n}")
        harness.wait_for("trial 0 is being computed", lambda: [
            t for t in d.trials() if t["trial"] == 0 and t["state"] == "running" and t["attempt"] == n + 1], 20, every=0.002)
        w.signal(signal.SIGSTOP)           # frozen first, so that it cannot finish
        w.kill9()
        harness.wait_for("its lease expires", lambda: not [t for t in d.trials() if t["state"] == "running"], 20)
    first = next(t for t in d.trials() if t["trial"] == 0)
    assert (first["state"], first["reason"]) == ("failed", "crash")
    box.worker(d, "w4")
    doc = d.wait_end()
    assert doc["state"] == "succeeded"
    assert doc["failures"]["crash"] == 1 and doc["trials"]["scored"] == 2


SEARCHERS = {
    "local": {"searcher": {"name": "local"}, "space": "nasbench201", "fidelity": {"steps": 4, "inits": 2, "valid_images": 60}},
    "nsga2": {"searcher": {"name": "nsga2", "population": 6}},
    "halving": {"searcher": {"name": "evolution", "population": 6, "sample": 3}, "halving": {"steps": [2, 4], "inits": [1, 1]},
                "warmup": {"candidates": 100}},
    "racing": {"racing": {"inits": [3, 5], "among": 2, "after": 15, "share": 0.5}, "fidelity": {"steps": 6, "inits": 2, "valid_images": 60}},
}


@pytest.mark.parametrize("kind", SEARCHERS)
def test_every_searcher_goes_on_after_kills(box, load, submit, kind, kill_round):
    """One job left alone, the same job again with coordinator and workers killed in its middle: the same bytes."""
    d = load(box.coordinator(lease_ms=2000))
    w1, w2 = box.worker(d, "w1"), box.worker(d, "w2")
    # With the score book the second would be answered at once, and its middle would be over before a kill.
    job = dict(KILL_JOB, scores={"book": False}, **SEARCHERS[kind])
    calm = submit(d, name="calm", **job)
    assert d.wait_end(calm, timeout=200)["state"] == "succeeded"
    rough = submit(d, name="rough", **job)
    for n in (6 + 3 * kill_round % 7, 30):
        d.wait_scored(n, job=rough)
        assert d.job(rough)["state"] == "running", "killed in the middle"
        d.kill9()
        w1.kill9()
        d.start()
        w1.start()
    assert w2.running
    end_and_compare(d, d.history(calm), job=rough)
