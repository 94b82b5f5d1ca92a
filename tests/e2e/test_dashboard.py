"""The dashboard in a real browser: what a page looks like once its script has read the documents."""

import html.parser
import json
import shutil
import subprocess

import pytest

import harness

NOTHING = dict(curriculum=None, space=None, searcher=None, fidelity=None, window=None, budget=None)
BROWSERS = ("chromium-headless-shell", "chromium")


class Page(html.parser.HTMLParser):
    """The text of each table as rows of cells, and of each element with an id."""

    def __init__(self, dom):
        super().__init__()
        self.tables, self.text, self.progress, self.within = {}, {}, [], []
        self.feed(dom)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("meta", "br", "link"):
            return
        self.within.append((tag, attrs.get("id")))
        if tag == "table":
            self.table = self.tables.setdefault(attrs.get("id", "best"), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
        elif tag == "progress":
            self.progress.append((float(attrs["value"]), float(attrs["max"])))

    def handle_endtag(self, tag):
        while self.within and self.within.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if any(tag in ("td", "th") for tag, _ in self.within):
            self.table[-1][-1] += data
        for _, name in self.within:
            if name:
                self.text[name] = self.text.get(name, "") + data


def browse(d, fragment=""):
    browser = next((b for b in map(shutil.which, BROWSERS) if b), None)
    assert browser, "no chromium: run deploy/install-deps.sh --test"
    r = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=3000",
                        f"--user-data-dir={d.sandbox.dir / 'browser'}", "--dump-dom", f"{d.http_base}/{fragment}"],
                       capture_output=True, text=True, timeout=50 * harness.SLOW)
    assert r.returncode == 0, r.stderr[-2000:]
    return Page(r.stdout)


@pytest.fixture
def d(box, load, submit):
    d = load(box.coordinator())
    box.worker(d)
    submit(d, name="twelve", budget={"trials": 12})
    d.wait_end()
    return d


def nothing_odd(page):
    everything = " ".join(page.text.values()) + " ".join(c for rows in page.tables.values() for row in rows for c in row)
    for odd in ("undefined", "NaN", "[object", "null", "Infinity", "()", "(95 %  "):
        assert odd not in everything, everything


def test_jobs_and_workers_are_listed(d):
    page = browse(d)
    nothing_odd(page)
    job, worker = d.job(1), d.get("workers")["workers"][0]
    head, row = page.tables["jobs"]
    assert dict(zip(head, row)) == {"job": "1", "name": "twelve", "kind": "search", "state": "succeeded", "progress": "", "done": "12 / 12",
                                    "failed": str(job["trials"]["failed"]), "best": f"{job['best']['score']:.4f}"}
    assert page.progress == [(12, 12)]
    assert page.tables["workers"][1][:4] == [worker["name"], worker["host"], "online", "0 / 1"]
    assert page.text["s"].startswith("1 workers online, 0 of 1 slots busy, ") and page.text["v"] == d.get("status")["version"]
    assert page.text.get("err", "") == "" and "best" not in page.tables, "no job is open"


def test_a_job_is_opened_by_the_address(d):
    page = browse(d, "#1")
    nothing_odd(page)
    best = d.get("jobs/1/results?top=10")["best"]
    head, *rows = page.tables["best"]
    assert head == ["trial", "score", "±", "params", "MACs", "seconds", "architecture"] and len(rows) == 10
    for row, trial in zip(rows, best):
        assert row[0] == str(trial["trial"]) and row[6] == trial["arch"]
        assert [float(row[1]), float(row[2])] == pytest.approx([trial["score"], trial["score_se"]], abs=1e-4)
        assert [row[3], row[4]] == [str(trial["params"]), str(trial["macs"])]
    assert "Best of twelve" in page.text["one"]


def test_a_job_that_is_not_there_is_said(d):
    page = browse(d, "#99")
    reason = json.loads(d.http_raw("/api/v1/jobs/99/results")[1])["error"]["text"]
    assert page.text["err"] == reason and len(page.tables["jobs"]) == 2, "and the rest is drawn"


def test_a_verify_job_shows_both_splits(box, load, submit, messages):
    from fake_worker import FakeWorker
    d = load(box.coordinator())
    archs = [f"bn relu | c{c}k3 max2 | c16k3 | gap" for c in (8, 12, 16)]
    submit(d, kind="verify", name="three", verify={"arch": archs, "epochs": 1}, **NOTHING)
    with FakeWorker(messages, d.connect) as w:
        w.hello()
        for lease in [w.lease() for _ in archs]:
            w.deliver(lease, valid_score=(0.6, 0.8, 0.7)[lease.ref.trial], score=(0.9, 0.5, 0.7)[lease.ref.trial], init_score=[], loss_sum=0.0)
    d.wait_end(1)
    page = browse(d, "#1")
    nothing_odd(page)
    assert [row[1] for row in page.tables["best"][1:]] == ["0.8000 validation, 0.5000", "0.7000 validation, 0.7000", "0.6000 validation, 0.9000"]
    assert page.text["one"].endswith("0 pairs: too few to conclude"), "three networks of which none was scored before"


@pytest.mark.limit(120)
def test_teach_and_audit_jobs_can_be_opened(box, load, submit):
    d = load(box.coordinator())
    box.worker(d)
    section = {"kind": "gtn", "steps": 4, "batch": 8, "meta_steps": 4, "learners": 2, "meta_batch": 64, "z_dim": 8, "g_hidden": 16, "g_channels1": 8,
               "g_channels2": 4, "eval_every": 2, "checkpoint_every": 2}
    teach = submit(d, kind="teach", name="calm", teach=section, **NOTHING)
    audit = submit(d, name="audited", budget={"trials": 40}, audit={"share": 0.08, "min": 6, "epochs": 0.5, "batch": 32, "flip": False, "shift": 0})
    d.wait_end(teach)
    d.wait_end(audit)
    for job in (teach, audit):
        page = browse(d, f"#{job}")
        nothing_odd(page)
        assert page.text.get("err", "") == "" and d.job(job)["name"] in page.text["one"]
    a = d.job(audit)["audit"]
    assert f"Audit ({a['state']}): Spearman {a['spearman']['value']:.2f} [" in page.text["one"], "the last one's"
    assert f"over {a['spearman']['n']} trained for real, parameters {a['params']['value']:.2f} [" in page.text["one"]
