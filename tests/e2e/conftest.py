"""Fixtures. Each test has its own folder and its own processes, a limit in time, and its logs attached when it fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): the most a test may take (default 60)")
    config.addinivalue_line("markers", "kill: kills processes; KILL_ROUNDS repeats it")


def pytest_generate_tests(metafunc):
    """A kill test runs KILL_ROUNDS times (default once)."""
    if "kill_round" in metafunc.fixturenames:
        metafunc.parametrize("kill_round", range(int(os.environ.get("KILL_ROUNDS", "1"))))


def pytest_sessionstart(session):
    missing = [p for p in ("didactd", "didact-worker", "didact") if not (harness.BIN / p).exists()]
    if missing:
        pytest.exit(f"{', '.join(missing)} not in {harness.BIN}: run make first", returncode=4)


@pytest.fixture(autouse=True)
def time_limit(request):
    marker = request.node.get_closest_marker("limit")
    seconds = (marker.args[0] if marker else 60) * harness.SLOW

    def on_alarm(signum, frame):
        raise TimeoutError(f"the test's limit of {seconds:.0f} s is over")
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(int(seconds))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call":
        item.call_failed = report.failed
    box = getattr(item, "sandbox", None)
    if report.failed and box is not None:
        for name, text in box.logs().items():
            report.sections.append((f"log of {name}", text[-6000:]))


@pytest.fixture
def box(request):
    sandbox = request.node.sandbox = harness.Sandbox()
    yield sandbox
    try:
        if not getattr(request.node, "call_failed", False):
            sandbox.end()
    finally:
        sandbox.close()


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """The small dataset as IDX files and the small curriculum, written once."""
    folder = tmp_path_factory.mktemp("material")

    class Material:
        idx = harness.write_idx(folder / "idx")
        curriculum = harness.write_curriculum(folder / "small.safetensors")
        dir = folder
    return Material


@pytest.fixture
def load(material):
    """Import the small dataset and curriculum into a coordinator."""
    def do(coordinator):
        harness.cli(coordinator, "dataset", "import", material.idx, "--name", "small")
        harness.cli(coordinator, "curriculum", "import", material.curriculum, "--name", "smallcur")
        return coordinator
    return do


@pytest.fixture
def submit(box):
    """Submit a job (see harness.job_yaml); gives its number."""
    count = [0]

    def do(coordinator, text=None, **over):
        count[0] += 1
        file = box.dir / f"job{count[0]}.yaml"
        file.write_text(text if text is not None else harness.job_yaml(**over))
        doc = harness.cli_json(coordinator, "submit", file)
        return (doc.get("job") or doc)["id"]
    return do


# Long enough to be killed in the middle, on a slow build too.
KILL_JOB = {"fidelity": {"steps": 6, "inits": 12 if harness.SLOW == 1 else 1, "valid_images": 60}, "budget": {"trials": 60}}


@pytest.fixture(scope="session")
def undisturbed(material):
    """The history of KILL_JOB as one worker with one slot computes it, left alone: what every disturbed run must equal."""
    box = harness.Sandbox()
    try:
        d = box.coordinator()
        harness.cli(d, "dataset", "import", material.idx, "--name", "small")
        harness.cli(d, "curriculum", "import", material.curriculum, "--name", "smallcur")
        box.worker(d)
        file = box.dir / "job.yaml"
        file.write_text(harness.job_yaml(**KILL_JOB))
        harness.cli(d, "submit", file)
        assert d.wait_end(timeout=240)["state"] == "succeeded"
        history = d.history()
        assert history.count(b'"arch_hash"') == KILL_JOB["budget"]["trials"]
        return history
    finally:
        box.close()


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    """proto/didact.proto as a Python module: a second implementation of the wire for the fake worker."""
    folder = tmp_path_factory.mktemp("proto")
    subprocess.run(["protoc", f"--proto_path={harness.ROOT}/proto", f"--python_out={folder}", "didact.proto"], check=True)
    sys.path.insert(0, str(folder))
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    import didact_pb2
    return didact_pb2
