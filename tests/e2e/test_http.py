"""The HTTP side: documents, metrics, errors."""

import http.client
import json
import re

import pytest

import harness
from harness import cli_json


@pytest.fixture
def d(box, load, submit):
    d = load(box.coordinator())
    box.worker(d)
    submit(d, budget={"trials": 12})
    d.wait_end()
    return d


def test_health_and_readiness(d):
    assert d.http_raw("/healthz")[0] == 200 and d.http_raw("/readyz")[0] == 200


def test_the_status_page(d):
    status, body = d.http_raw("/status")
    doc = json.loads(body)
    assert status == 200 and doc["version"] and doc["workers"]["online"] == 1
    assert doc["jobs"]["succeeded"] == 1 and doc["trials"]["scored"] + doc["trials"]["failed"] == 12
    assert doc["store"]["commits"] > 0 and doc["store"]["db_bytes"] > 0 and doc["endpoints"]["zmq"]


def test_http_and_zeromq_give_the_same_documents(d):
    for path, verb in (("jobs/1", ["show", 1]), ("workers", ["workers"]), ("jobs/1/results?top=3", ["results", 1, "--top", 3])):
        over_zmq, over_http = cli_json(d, *verb), d.get(path)
        assert set(over_http) <= set(over_zmq) or set(over_zmq) == set(over_http), (verb, over_zmq)


def test_lists_are_cut_and_say_their_total(d):
    doc = d.get("jobs/1/trials?limit=5&offset=3")
    assert doc["total"] == 12 and [t["trial"] for t in doc["trials"]] == [3, 4, 5, 6, 7]
    by_score = d.get("jobs/1/trials?sort=score")["trials"]
    scores = [t["score"] for t in by_score if t["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    assert d.get("jobs/1/trials?state=scored")["total"] + d.get("jobs/1/trials?state=failed")["total"] == 12
    assert d.get("jobs?state=running")["total"] == 0 and d.get("jobs?state=succeeded")["total"] == 1


def test_a_job_is_found_by_a_unique_prefix_of_its_name(d):
    assert d.get("jobs/smal")["id"] == 1


@pytest.mark.parametrize("path, status", [
    ("jobs/99", 404), ("jobs/nobody", 404), ("nothing", 404), ("jobs/1/nothing", 404), ("jobs/1/trials?limit=x", 400),
    ("jobs/1/trials?limit=-1", 400), ("jobs/1/trials?sort=colour", 400), ("jobs?state=odd", 400), ("jobs/%00", 404),
    ("jobs/" + "9" * 40, 404)])
def test_what_is_not_there_is_said_in_json(d, path, status):
    got, body = d.http_raw("/api/v1/" + path)
    doc = json.loads(body)
    assert got == status and doc["error"]["code"].startswith("ERR_") and doc["error"]["text"]


def test_metrics_are_open_metrics(d):
    status, body = d.http_raw("/metrics")
    text = body.decode()
    assert status == 200 and text.rstrip().endswith("# EOF")
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert families and all(t in ("counter", "gauge", "histogram", "info", "summary", "unknown") for t in families.values())
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        m = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{[^}]*\})? (\S+)", line)
        assert m, line
        float(m[3])
        family = re.sub(r"_(total|bucket|count|sum|info|created)$", "", m[1])
        assert m[1] in families or family in families, f"{m[1]} has no TYPE"
    assert any(n.startswith("didact_") for n in families)


def test_requests_that_are_not_http_or_not_get_harm_nobody(d):
    host, port = d.http_base.removeprefix("http://").rsplit(":", 1)
    import socket
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b"\x00\x01\x02 garbage\r\n\r\n")
        s.settimeout(1)
        try:
            s.recv(1000)
        except OSError:
            pass
    c = http.client.HTTPConnection(host, int(port), timeout=10)
    c.request("POST", "/api/v1/jobs", body=b"x" * 100000)
    assert c.getresponse().status in (400, 404, 405, 413)
    c.close()
    c = http.client.HTTPConnection(host, int(port), timeout=10)
    c.request("GET", "/" + "a" * 20000)
    assert c.getresponse().status >= 400
    c.close()
    assert d.http_raw("/healthz")[0] == 200


def test_many_connections_that_say_nothing_do_not_stop_it(d, submit):
    import socket
    host, port = d.http_base.removeprefix("http://").rsplit(":", 1)
    idle = [socket.create_connection((host, int(port))) for _ in range(50)]
    assert d.http_raw("/healthz")[0] == 200
    second = submit(d, name="second", budget={"trials": 4})
    assert d.wait_end(second)["state"] == "succeeded"
    for s in idle:
        s.close()
