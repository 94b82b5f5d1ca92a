"""A searcher outside: proposals over HTTP and the command line, results in their order, and what must not be possible."""

import http.client
import json
import select
import socket
import subprocess
import sys
import threading
import urllib.parse

import pytest

import harness
from harness import ROOT, cli, cli_json, run_cli

OUTSIDE = {"searcher": {"name": "external"}, "fidelity": {"steps": 4, "inits": 1, "valid_images": 48}}
EXAMPLES = ROOT / "share" / "examples"


def archs(n, seed=1, space="chain"):
    r = run_cli("space", "sample", space, "-n", n, "--seed", seed)
    assert r.status == 0, r
    return r.out.splitlines()


def post(d, path, body, status=200, **headers):
    """POST as a program of this machine does, unless `headers` says otherwise; (None removes one)."""
    url = urllib.parse.urlsplit(d.http_base)
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=30 * harness.SLOW)
    sent = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    c.request("POST", "/api/v1/" + path, data, {k: v for k, v in sent.items() if v is not None})
    r = c.getresponse()
    doc = json.loads(r.read())
    c.close()
    assert r.status == status, (r.status, doc)
    return doc


def waits(d, n):
    """So many questions have been put aside."""
    return harness.wait_for(f"{n} questions wait", lambda: f"\ndidact_told_waiting {n}\n" in d.http_raw("/metrics")[1].decode())


@pytest.fixture
def d(box, load):
    return load(box.coordinator())


def test_what_is_told_has_a_latency_where_one_was_measured(d, box, submit):
    job = submit(d, **OUTSIDE, objectives=[{"metric": "score"}, {"metric": "latency"}], budget={"trials": 4})
    post(d, f"jobs/{job}/trials", {"trials": [{"arch": a} for a in archs(3)] + [{"arch": archs(1)[0]}]})
    box.worker(d, slots=2)
    assert d.wait_end(job)["state"] == "succeeded"
    told = d.get(f"jobs/{job}/told?after=0")["told"]
    trials = sorted(d.trials(job), key=lambda t: t["trial"])
    assert [t["latency_ms"] for t in told] == [t["latency_ms"] for t in trials] and all(t["latency_ms"] > 0 for t in told)
    assert not any(t["from_book"] for t in trials) and told[3]["score"] == told[0]["score"], "the same network is measured again"
    assert d.get(f"jobs/{job}/told?after=0")["told"] == told and d.get(f"jobs/{job}/replay")["ok"] is True
    assert d.get(f"jobs/{job}/results")["front"]


def test_ask_and_tell_over_http(d, box, submit):
    job = submit(d, **OUTSIDE, budget={"trials": 6})
    texts = archs(6)
    first = post(d, f"jobs/{job}/trials", {"trials": [{"arch": a, "tag": f"n{i}"} for i, a in enumerate(texts[:4])], "request": "a"})
    assert [t["trial"] for t in first["trials"]] == [0, 1, 2, 3] and first["left"] == 2 and not first["repeated"]
    assert [t["arch"] for t in first["trials"]] == texts[:4] and all(t["params"] > 0 for t in first["trials"])
    again = post(d, f"jobs/{job}/trials", {"trials": [{"arch": a} for a in texts[:4]], "request": "a"})
    assert again["repeated"] and again["trials"] == first["trials"] and d.job(job)["trials"]["waiting"] == 4
    assert d.get(f"jobs/{job}/told")["told"] == []
    box.worker(d, slots=2)
    told, after = [], 0
    while after < 4:
        doc = d.get(f"jobs/{job}/told?after={after}&wait=30")
        told += doc["told"]
        after = doc["next"]
    assert [t["trial"] for t in told] == [0, 1, 2, 3] and [t["tag"] for t in told] == ["n0", "n1", "n2", "n3"]
    trials = {t["trial"]: t for t in d.trials(job)}
    assert [trials[i]["tag"] for i in range(4)] == ["n0", "n1", "n2", "n3"]
    assert all(t["score"] == trials[t["trial"]]["score"] and t["arch"] == texts[t["trial"]] for t in told)
    one = post(d, f"jobs/{job}/trials", {"arch": "  ".join(texts[4].split())})
    assert one["trials"][0]["trial"] == 4 and one["trials"][0]["arch"] == texts[4], "canonical"
    assert post(d, f"jobs/{job}/finish", {})["id"] == job
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] == 5
    replay = d.get(f"jobs/{job}/replay")
    assert replay["ok"] and replay["external"] and replay["checked"] == 5
    end = d.get(f"jobs/{job}/told?after=5&wait=30")
    assert end["state"] == "succeeded" and end["told"] == [] and end["next"] == 5, "no waiting for what will not come"
    assert "takes no more proposals" in post(d, f"jobs/{job}/trials", {"arch": texts[5]}, status=409)["error"]["text"]


def test_a_question_that_waits_is_answered_when_the_result_comes(d, box, submit):
    job = submit(d, **OUTSIDE, budget={"trials": 4})
    post(d, f"jobs/{job}/trials", {"arch": archs(1)[0]})
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(d.get(f"jobs/{job}/told?wait=60"))) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: answers.append(cli_json(d, "told", job, "--wait", 60, timeout=120))))
    for t in threads:
        t.start()
    waits(d, 4)
    assert d.get(f"jobs/{job}/told?wait=1")["told"] == [], "its second is over"
    assert not answers and waits(d, 4), "the others still wait"
    box.worker(d)
    for t in threads:
        t.join(60 * harness.SLOW)
    assert len(answers) == 4 and all(len(a["told"]) == 1 for a in answers)
    waiting = threading.Thread(target=lambda: answers.append(d.get(f"jobs/{job}/told?after=1&wait=60")))
    waiting.start()
    waits(d, 1)
    cli(d, "cancel", job, "--yes")
    waiting.join(60 * harness.SLOW)
    assert answers[-1]["state"] == "cancelled"
    job = submit(d, **OUTSIDE, name="other")
    waiting = threading.Thread(target=lambda: answers.append(d.http_raw(f"/api/v1/jobs/{job}/told?wait=60")))
    waiting.start()
    waits(d, 1)
    assert d.stop() == 0
    waiting.join(60 * harness.SLOW)
    assert answers[-1][0] == 200 and json.loads(answers[-1][1])["told"] == [], "a stop answers those who wait"


def test_questions_that_wait_leave_connections_for_others(d, submit):
    job = submit(d, **OUTSIDE)
    url = urllib.parse.urlsplit(d.http_base)
    asking = [socket.create_connection((url.hostname, url.port)) for _ in range(200)]
    for s in asking:
        s.sendall(f"GET /api/v1/jobs/{job}/told?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    waits(d, 192)
    harness.wait_for("the others are answered at once", lambda: len(select.select(asking, [], [], 0)[0]) == 8)
    assert d.http_raw("/healthz")[0] == 200
    for s in asking:
        s.close()


@pytest.mark.parametrize("body, words", [
    (b"{", "not JSON"), ({"arch": 3}, "arch: must be a text"), ({"trials": []}, "trials: must be a list"), ({"trial": []}, "trial: there is no such key"),
    ({"arch": "bn relu | c16k3 avg2 | c16q3 | flat"}, "c16q3"), ({"trials": [{"arch": "x"}] * 9}, "more than the window of 8"),
    ({"arch": "bn relu | c16k3 avg2 | c16k3 | flat", "request": "k" * 64}, "request: longer"),
    ({"arch": "x" * 2000}, "longer than 1023"), (b'{"arch": "' + b"x" * 600000 + b'"}', "the body is larger")], ids=range(9))
def test_what_is_wrong_with_a_proposal_is_named_and_nothing_changes(d, submit, body, words):
    job = submit(d, **OUTSIDE, constraints={"max_params": 100000})
    doc = post(d, f"jobs/{job}/trials", body, status=400)
    assert words in doc["error"]["text"] and doc["error"]["code"] == "ERR_INPUT"
    assert d.job(job)["trials"]["total"] == 0


def test_constraints_window_and_budget(d, box, submit):
    job = submit(d, **OUTSIDE, constraints={"max_params": 20000}, budget={"trials": 4}, window=2)
    sized = json.loads(run_cli("space", "show", "chain", "--samples", 60, "--input", "1,12,12", "--classes", 4, "--json").out)["samples"]
    large = next(s["arch"] for s in sized if s["params"] > 20000)
    small = [s["arch"] for s in sized if s["params"] <= 20000][:5]
    said = post(d, f"jobs/{job}/trials", {"arch": large}, status=400)["error"]["text"]
    assert "constraints.max_params is 20000" in said
    post(d, f"jobs/{job}/trials", {"trials": [{"arch": a} for a in small[:2]]})
    busy = post(d, f"jobs/{job}/trials", {"arch": small[2]}, status=503)["error"]
    assert busy["code"] == "ERR_BUSY" and "window" in busy["text"]
    assert cli(d, "propose", job, small[2], status=75).err
    assert "waits for" in " ".join(w["text"] for w in d.get(f"jobs/{job}/why")["why"])
    box.worker(d)
    r = run_cli("--connect", d.connect, "told", job, "--after", 1, "--wait", 60, timeout=120)
    assert r.status == 0 and small[1][:20] in r.out
    post(d, f"jobs/{job}/trials", {"trials": [{"arch": a} for a in small[2:4]]})
    assert "budget.trials" in post(d, f"jobs/{job}/trials", {"arch": small[4]}, status=409)["error"]["text"]
    assert d.wait_end(job)["state"] == "succeeded"
    cli(d, "extend", job, "--trials", 5)
    assert post(d, f"jobs/{job}/trials", {"arch": small[4]})["trials"][0]["trial"] == 4
    assert d.wait_end(job)["trials"]["scored"] == 5 and cli_json(d, "replay", job)["ok"]


def test_only_a_job_with_a_searcher_outside_takes_proposals(d, submit):
    own = submit(d)
    assert "a searcher of its own" in post(d, f"jobs/{own}/trials", {"arch": archs(1)[0]}, status=409)["error"]["text"]
    assert "a searcher of its own" in cli(d, "finish", own, status=1).err
    post(d, "jobs/99/trials", {"arch": "x"}, status=404)
    post(d, "jobs/1/nothing", {}, status=404)
    post(d, "jobs", {}, status=404)


# ---- who may write ----

def test_a_web_page_of_another_site_cannot_propose(d, submit):
    job = submit(d, **OUTSIDE)
    path, good = f"jobs/{job}/trials", {"arch": archs(1)[0]}
    own = d.http_base.removeprefix("http://")
    assert post(d, path, good, 400, Content_Type="text/plain")["error"]["text"].startswith("the body must be JSON")
    post(d, path, good, 400, Content_Type=None)
    post(d, path, good, 400, Content_Type="application/x-www-form-urlencoded")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"http://{own}.evil.example"):
        assert "another site" in post(d, path, good, 403, Origin=origin)["error"]["text"]
    post(d, path, good, 403, Sec_Fetch_Site="cross-site")
    post(d, path, good, 403, Host="evil.example")
    post(d, path, good, 403, Host="127.evil.example")
    assert d.job(job)["trials"]["total"] == 0
    post(d, path, good, Origin=f"http://{own}", Sec_Fetch_Site="same-origin")
    url = urllib.parse.urlsplit(d.http_base)
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    c.request("OPTIONS", "/api/v1/" + path, headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
    r = c.getresponse()
    assert r.status >= 400 and not [h for h, _ in r.getheaders() if h.lower().startswith("access-control")]
    c.close()


def test_a_public_address_takes_proposals_with_its_token_alone(box, load, submit):
    token = box.dir / "token"
    token.write_text("s3cret-s3cret-s3cret\n")
    token.chmod(0o600)
    closed = load(box.coordinator(extra=["--http-public"]))
    job = submit(closed, **OUTSIDE)
    good = {"arch": archs(1)[0]}
    assert "read-only" in post(closed, f"jobs/{job}/trials", good, 403)["error"]["text"]
    assert closed.stop() == 0
    d = load(box.coordinator("d2", extra=["--http-public", "--http-token", token]))
    job = submit(d, **OUTSIDE)
    post(d, f"jobs/{job}/trials", good, 403)
    for wrong in ("Bearer s3cret", "Basic s3cret-s3cret-s3cret", "Bearer s3cret-s3cret-s3cretx", "Bearer " + "x" * 5000):
        post(d, f"jobs/{job}/trials", good, 403, Authorization=wrong)
    assert post(d, f"jobs/{job}/trials", good, Authorization="Bearer s3cret-s3cret-s3cret")["trials"][0]["trial"] == 0
    assert d.get(f"jobs/{job}/told")["told"] == [], "reading is as before"


@pytest.mark.parametrize("text, mode, words", [("s3cret-s3cret-s3cret", 0o644, "chmod 600"), ("short", 0o600, "one line of 16"), ("a b" * 10, 0o600, "one line"),
                                                (None, 0, "token")])
def test_a_bad_token_file_is_named_at_the_start(box, text, mode, words):
    token = box.dir / "token"
    if text is not None:
        token.write_text(text)
        token.chmod(mode)
    done = subprocess.run([harness.BIN / "didactd", "--dir", box.dir / "d", "--http", "127.0.0.1:0", "--http-token", token], capture_output=True, text=True,
                          timeout=20 * harness.SLOW)
    assert done.returncode in (65, 66, 77) and words in done.stderr and str(token) in done.stderr


# ---- what is acknowledged is kept ----

@pytest.mark.kill
@pytest.mark.limit(240)
def test_a_deterministic_searcher_has_one_history_whatever_is_killed(box, load, submit, kill_round):
    """Batches of the window: one worker left alone, then two with coordinator and workers killed; the same bytes."""
    d = load(box.coordinator(lease_ms=2000))
    w1 = box.worker(d)
    texts = archs(48, seed=4)
    job = {**OUTSIDE, "fidelity": {"steps": 6, "inits": 8 if harness.SLOW == 1 else 2, "valid_images": 48}, "scores": {"book": False}, "budget": {"trials": 48}}

    def drive(number, at_batch=lambda b: None):
        """Proposes like a program that does not trust the network: every request again until it is answered."""
        for b in range(6):
            at_batch(b)
            body = {"request": f"b{b}", "trials": [{"arch": a} for a in texts[8 * b:8 * b + 8]]}
            harness.wait_for("the batch is taken", lambda: attempt(lambda: post(d, f"jobs/{number}/trials", body)))
            harness.wait_for("its results", lambda: attempt(lambda: d.get(f"jobs/{number}/told?after={8 * b}&wait=1")["next"] >= 8 * b + 8), 90)

    def attempt(call):
        try:
            return call()
        except (OSError, http.client.HTTPException):
            return None
    calm = submit(d, name="calm", **job)
    drive(calm)
    assert d.wait_end(calm)["state"] == "succeeded"
    w2 = box.worker(d, "w2")
    rough = submit(d, name="rough", **job)

    def kill(b):
        if b in (1, 4):
            body = {"request": f"b{b}", "trials": [{"arch": a} for a in texts[8 * b:8 * b + 8]]}
            first = post(d, f"jobs/{rough}/trials", body)       # acknowledged …
            d.kill9()                                           # … and so kept
            w1.kill9()
            d.start()
            w1.start()
            again = post(d, f"jobs/{rough}/trials", body)
            assert again["repeated"] and [t["trial"] for t in again["trials"]] == [t["trial"] for t in first["trials"]]
    drive(rough, kill)
    assert d.wait_end(rough)["state"] == "succeeded" and w2.running
    assert d.history(rough) == d.history(calm)
    assert cli_json(d, "replay", rough)["ok"]


def test_replay_finds_a_proposal_that_could_not_have_been_taken(box, load, submit):
    import sqlite3
    d = load(box.coordinator())
    box.worker(d)
    job = submit(d, **OUTSIDE, budget={"trials": 4})
    cli(d, "propose", job, *archs(4), "--wait", timeout=120)
    d.wait_end(job)
    assert d.stop() == 0
    with sqlite3.connect(d.folder / "didact.db") as c:
        assert c.execute("UPDATE trial SET arch='bn relu | nonsense | flat' WHERE job=? AND idx=2", (job,)).rowcount == 1
    c.close()
    d.start()
    doc = json.loads(cli(d, "replay", job, "--json", status=1).out)
    assert doc["ok"] is False and doc["first_difference"]["trial"] == 2


def test_pause_cancel_and_a_repeat(d, box, submit):
    job = submit(d, **OUTSIDE, budget={"trials": 6})
    a = archs(3)
    cli(d, "pause", job)
    cli(d, "propose", job, a[0], a[1], a[0])
    box.worker(d)
    assert d.job(job)["trials"]["waiting"] == 3 and d.job(job)["state"] == "paused"
    cli(d, "resume", job)
    harness.wait_for("three results", lambda: d.get(f"jobs/{job}/told")["next"] == 3)
    t = sorted(d.trials(job), key=lambda t: t["trial"])
    assert t[2]["from_book"] and t[2]["score"] == t[0]["score"], "a repeat is answered from what is known"
    cli(d, "cancel", job, "--yes")
    assert "cancelled" in cli(d, "propose", job, a[2], status=1).err


def test_what_was_told_as_failed_stays_told_so(d, box, submit):
    """A retry brings the job a score, and the outside searcher nothing new: its history is what it was told."""
    box.worker(d)
    job = submit(d, **{**OUTSIDE, "fidelity": {"steps": 6, "inits": 2, "valid_images": 48}}, budget={"trials": 3}, trial_timeout="0.000001s")
    cli(d, "propose", job, *archs(3))
    assert d.wait_end(job)["failures"]["timeout"] == 3
    before = d.get(f"jobs/{job}/told")["told"]
    assert [t["state"] for t in before] == ["failed"] * 3 and all(t["reason"] == "timeout" and t["score"] is None for t in before)
    cli(d, "set", job, "trial_timeout=1m")
    cli(d, "retry", job)
    assert d.wait_end(job)["trials"]["scored"] == 3
    after = d.get(f"jobs/{job}/told")["told"]
    assert [dict(t, reason="timeout", params=b["params"], macs=b["macs"]) for t, b in zip(after, before)] == before
    assert cli_json(d, "replay", job)["ok"]


# ---- the command line ----

def test_lines_are_proposed_as_there_is_room(d, box, submit):
    box.worker(d, slots=2)
    job = submit(d, **OUTSIDE, window=3, budget={"trials": 12})
    text = "".join(f"{a}\tline {i}\n" for i, a in enumerate(archs(12)))

    def propose(**kw):
        return subprocess.run([harness.BIN / "didact", "--connect", d.connect, "propose", str(job), "-", "--json", *kw.get("flags", [])],
                              input=kw.get("text", text), capture_output=True, text=True, timeout=60 * harness.SLOW)
    done = propose(flags=["--wait", "--request", "all"])
    assert done.returncode == 0, done.stderr
    told = [json.loads(x) for x in done.stdout.splitlines()]
    assert [t["trial"] for t in told] == list(range(12)) and told[7]["tag"] == "line 7" and all(t["state"] == "scored" for t in told)
    again = propose(flags=["--request", "all"])
    assert again.returncode == 0 and all(json.loads(x)["repeated"] for x in again.stdout.splitlines())
    wrong = propose(text="\nnonsense\n")
    assert wrong.returncode in (1, 65) and "line 2" in wrong.stderr


def test_more_lines_than_the_budget_has_left(d, box, submit, tmp_path):
    box.worker(d, slots=2)
    job = submit(d, **OUTSIDE, window=3, budget={"trials": 6})
    text = "".join(f"{a}\n" for a in archs(8))
    (tmp_path / "lines").write_text(text)

    def propose(*flags, **kw):
        return subprocess.run([harness.BIN / "didact", "--connect", d.connect, "propose", str(job), "-", *flags], capture_output=True, text=True,
                              timeout=60 * harness.SLOW, **kw)
    with open(tmp_path / "lines") as f:                # of a file all is known before
        r = propose(stdin=f)
    assert r.returncode == 1 and "8 lines" in r.stderr and "6 of 6" in r.stderr and f"extend {job} --trials 8" in r.stderr and r.stdout == ""
    assert d.trials(job) == []
    r = propose("--request", "mine", input=text)       # of a pipe nothing
    assert r.returncode == 1 and "line 7 (what stands before it is proposed)" in r.stderr and len(r.stdout.splitlines()) == 6
    d.wait_end(job)
    with open(tmp_path / "lines") as f:                # the first six were proposed under this key
        r = propose("--request", "mine", stdin=f)
    assert r.returncode == 1 and "line 7 (" in r.stderr and len(r.stdout.splitlines()) == 6
    with open(tmp_path / "lines") as f:
        assert "takes no more proposals" in propose(stdin=f).stderr
    cli(d, "extend", job, "--trials", 8)
    (tmp_path / "lines").write_text("".join(text.splitlines(keepends=True)[6:]) + "\n")
    with open(tmp_path / "lines") as f:
        r = propose(stdin=f)
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 2, r.stderr


@pytest.mark.parametrize("space", ["chain", "nasbench201", "nasnet"])
def test_spaces_are_sampled_alike_over_http_and_on_the_command_line(d, space):
    def lines(*argv):
        r = run_cli("space", *argv)
        assert r.status == 0, r
        return r.out.splitlines()
    five, three = lines("sample", space, "-n", 5, "--seed", 3), lines("sample", space, "-n", 3, "--seed", 3)
    assert five[:3] == three and lines("sample", space, "-n", 5, "--seed", 4) != five
    assert [a["arch"] for a in d.get(f"spaces/{space}/sample?n=5&seed=3")["archs"]] == five
    quoted = urllib.parse.quote(five[0])
    near = lines("neighbours", space, five[0])
    assert near == sorted(near) and len(set(near)) == len(near) > 5 and five[0] not in near
    assert [a["arch"] for a in d.get(f"spaces/{space}/neighbours?arch={quoted}")["archs"]] == near
    changed = lines("mutate", space, five[0], "-n", 20, "--seed", 2)
    assert set(changed) <= set(near) and len(set(changed)) > 3
    assert [a["arch"] for a in d.get(f"spaces/{space}/mutate?arch={quoted}&n=20&seed=2")["archs"]] == changed
    assert run_cli("space", "mutate", space, "conv conv").status == 65
    for path, status in ((f"spaces/{space}/mutate", 400), (f"spaces/{space}/mutate?arch=zz", 400), ("spaces/moon/sample", 404),
                         (f"spaces/{space}/colour", 404), (f"spaces/{space}/sample?n=1001", 400)):
        assert d.http_raw("/api/v1/" + path)[0] == status, path


def test_a_space_file_is_sampled_too():
    r = run_cli("space", "sample", ROOT / "share/spaces/small-images.yaml", "-n", 4, "--json")
    assert r.status == 0 and len(json.loads(r.out)["archs"]) == 4


# ---- the examples, as they stand ----

def example(d, name, *argv):
    done = subprocess.run([sys.executable, EXAMPLES / name, d.http_base, *(str(a) for a in argv)], capture_output=True, text=True, timeout=60 * harness.SLOW)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.limit(120)
def test_the_example_of_thirty_lines_climbs(d, box, submit):
    assert len((EXAMPLES / "outside_searcher.py").read_text().splitlines()) <= 30
    box.worker(d)
    job = submit(d, **OUTSIDE, budget={"trials": 15})
    out = example(d, "outside_searcher.py", job)
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and out.startswith(f"{doc['best']['score']:.4f}") and cli_json(d, "replay", job)["ok"]
    again = submit(d, **OUTSIDE, budget={"trials": 15}, name="again")
    assert example(d, "outside_searcher.py", again) == out and d.history(again) == d.history(job)


@pytest.mark.limit(180)
def test_optuna_drives_a_search(d, box, submit):
    pytest.importorskip("optuna", reason="optuna is not installed (deploy/install-deps.sh --test fetches it from PyPI)")
    box.worker(d, slots=2)
    job = submit(d, **OUTSIDE, space="nasbench201", budget={"trials": 24})
    out = example(d, "optuna_nasbench201.py", job)
    doc = d.wait_end(job)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] + doc["trials"]["failed"] == 24
    assert out.startswith(f"{doc['best']['score']:.4f}") and cli_json(d, "replay", job)["ok"]
