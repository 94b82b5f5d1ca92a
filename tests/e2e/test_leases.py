"""Leases as a coordinator and a worker that misbehaves see them."""

import time

import pytest
import zmq

import harness
from fake_worker import FakeWorker


@pytest.fixture
def fake(messages):
    made = []

    def make(coordinator, **kw):
        w = FakeWorker(messages, coordinator.connect, **kw)
        made.append(w)
        return w
    yield make
    for w in made:
        w.close()


@pytest.fixture
def one_search(box, load, submit):
    """A coordinator with short leases and a search of four trials waiting."""
    d = load(box.coordinator(lease_ms=1000, heartbeat_ms=200))
    submit(d, budget={"trials": 4}, window=4, searcher={"name": "random"})
    return d


def trial(d, index):
    return next(t for t in d.trials() if t["trial"] == index)


def test_a_worker_of_another_engine_version_is_refused(one_search, fake, messages):
    d, w = one_search, fake(one_search)
    answer = w.hello(engine_version="other")
    assert isinstance(answer, messages.Error) and "version other" in answer.text
    assert not d.get("workers")["workers"]
    assert not isinstance(w.hello(), messages.Error)  # it may come back with the right one


def test_a_result_delivered_twice_changes_nothing(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    assert w.deliver(lease, score=0.5) == w.RECORDED
    before = trial(d, lease.ref.trial), d.job()["trials"]
    assert w.deliver(lease, score=0.9) == w.DUPLICATE
    assert (trial(d, lease.ref.trial), d.job()["trials"]) == before
    assert before[0]["score"] == 0.5


def test_a_result_delivered_again_to_a_restarted_coordinator_changes_nothing(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    assert w.deliver(lease, score=0.5) == w.RECORDED
    d.kill9()
    d.start()
    again = fake(d)
    again.hello(holding=[lease.ref])
    assert again.deliver(lease, score=0.9) == w.DUPLICATE
    assert trial(d, lease.ref.trial)["score"] == 0.5


def test_an_expired_lease_goes_to_another_worker_and_its_late_result_is_refused(one_search, fake):
    d = one_search
    late, other = fake(d, worker_id="late", name="late"), fake(d, worker_id="other", name="other")
    late.hello()
    first = late.lease()                       # and never a heartbeat again
    harness.wait_for("the lease expires", lambda: trial(d, first.ref.trial)["state"] == "waiting", 20)
    other.hello()
    taken = [other.lease()]
    while taken[-1].ref.trial != first.ref.trial:
        other.heartbeat([x.ref for x in taken])
        taken.append(other.lease())
    second = taken[-1]
    assert second.ref.attempt == first.ref.attempt + 1
    assert late.deliver(first, score=0.99) == late.STALE
    assert trial(d, first.ref.trial)["score"] is None
    assert other.deliver(second, score=0.25) == other.RECORDED
    assert late.deliver(first, score=0.99) == late.STALE
    assert trial(d, first.ref.trial)["score"] == 0.25


def test_an_expired_lease_is_refused_before_anybody_else_has_the_trial(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    harness.wait_for("the lease expires", lambda: trial(d, lease.ref.trial)["state"] == "waiting", 20)
    assert w.deliver(lease, score=0.99) == w.STALE
    assert trial(d, lease.ref.trial)["state"] == "waiting", "the trial is not lost"


def test_heartbeats_keep_a_lease(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    t0 = time.monotonic()

    def three_lease_times_over():
        assert not w.heartbeat([lease.ref]).drop
        return time.monotonic() - t0 > 3 * harness.SLOW
    harness.wait_for("three lease times pass", three_lease_times_over, 20, every=0.1)
    assert trial(d, lease.ref.trial)["attempt"] == 1
    assert w.deliver(lease) == w.RECORDED


def test_a_lease_handed_back_is_given_out_again_at_once(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    w.send(ask=False, hand_back={"ref": lease.ref})
    harness.wait_for("it waits again", lambda: trial(d, lease.ref.trial)["state"] == "waiting", 5)


def test_a_cancelled_job_drops_its_leases(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    harness.cli(d, "cancel", 1, "--yes")
    harness.wait_for("the drop", lambda: lease.ref in w.heartbeat([lease.ref]).drop, 10)
    assert w.deliver(lease, score=0.99) == w.STALE
    assert d.wait_end()["state"] == "cancelled"


def test_a_worker_that_comes_back_keeps_its_lease(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    w.socket.close(0)
    w.connect()
    assert not w.hello(holding=[lease.ref]).drop
    assert w.deliver(lease) == w.RECORDED
    assert trial(d, lease.ref.trial)["attempt"] == 1


def test_a_lease_that_was_never_given_is_dropped_and_its_result_refused(one_search, fake, messages):
    d, w = one_search, fake(one_search)
    w.hello()
    mine = w.lease()
    for job, number, attempt in ((1, mine.ref.trial, mine.ref.attempt + 7), (1, 3999, 1), (77, 0, 1)):
        bogus = messages.LeaseRef(job=job, trial=number, attempt=attempt)
        assert bogus in w.heartbeat([mine.ref, bogus]).drop
        assert w.deliver(bogus, score=0.99) == w.STALE
    assert w.deliver(mine) == w.RECORDED


def test_a_score_that_is_not_a_number_is_not_recorded(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    lease = w.lease()
    w.result(lease, score=float("nan"))
    assert w.receive("error", "result_ack")[0] == "error"
    assert trial(d, lease.ref.trial)["score"] is None
    assert w.deliver(lease, score=0.5) == w.RECORDED


def test_the_same_worker_twice_has_one_session(one_search, fake):
    """A restarted worker's old connection may linger: the new one counts, and the list shows one."""
    d = one_search
    first, second = fake(d), fake(d)
    first.hello()
    second.hello()
    assert len([w for w in d.get("workers")["workers"] if w["state"] == "online"]) == 1


def test_garbage_and_other_versions_are_answered_and_harm_nobody(one_search, fake):
    d, w = one_search, fake(one_search)
    w.hello()
    context = zmq.Context()
    s = context.socket(zmq.DEALER)
    s.linger = 0
    s.connect(d.connect)
    for frame in (b"", b"\xff" * 64, b"\x08\x01", bytes(range(256)) * 16):
        s.send(frame)
    s.send_multipart([b"a", b"b", b"c"])
    s.close()
    context.term()
    w.send(version=99, want_work={"n": 1})
    assert "version" in w.receive("error")[1].text
    lease = w.lease()
    assert w.deliver(lease) == w.RECORDED
    assert d.http_raw("/healthz")[0] == 200
