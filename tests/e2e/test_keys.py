"""Two machines: CURVE keys, roles, and refusing to start without them where the address is not local."""

import os
import socket
import subprocess

import pytest

import harness
from harness import BIN, cli, run_cli


def own_address():
    """An address of this machine that is not loopback, or a skip."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.connect(("192.0.2.1", 9))            # sends nothing: only asks which address would be used
        address = s.getsockname()[0]
    except OSError:
        address = "127.0.0.1"
    finally:
        s.close()
    if address.startswith("127."):
        pytest.skip("this machine has only the loopback address")
    return address


def start_status(*argv):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=20 * harness.SLOW)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def keys(box):
    """A server's keys folder and a pair for each role."""
    folder = box.dir / "keys"

    def keygen(*argv):
        r = run_cli("keygen", *argv)
        assert r.status == 0, r
    keygen("--server", folder)
    for role in ("worker", "submitter", "viewer", "admin"):
        keygen(box.dir / role, "--role", role, "--authorize", folder)
    keygen(box.dir / "stranger", "--role", "worker")
    return folder


@pytest.fixture
def guarded(box, keys):
    """A coordinator on this machine's own address, with keys; and over ipc for the test itself."""
    return box.coordinator(listen=[f"ipc://{box.dir}/didactd/s", f"tcp://{own_address()}:0"], extra=["--keys", keys])


def with_key(box, keys, name):
    return ["--key", box.dir / f"{name}.key", "--server-key", keys / "server.pub"]


def test_an_address_beyond_this_machine_needs_keys(box):
    rc, said = start_status(BIN / "didactd", "--dir", box.dir / "d", "--listen", f"tcp://{own_address()}:0",
                            "--http", "127.0.0.1:0")
    assert rc > 0 and "key" in said and "--insecure" in said


def test_an_empty_keys_folder_is_named(box):
    (box.dir / "none").mkdir()
    rc, said = start_status(BIN / "didactd", "--dir", box.dir / "d", "--listen", f"tcp://{own_address()}:0",
                            "--http", "127.0.0.1:0", "--keys", box.dir / "none")
    assert rc > 0 and f"{box.dir}/none" in said


def test_insecure_is_possible_and_loud(box):
    d = box.coordinator(listen=[f"tcp://{own_address()}:0"], extra=["--insecure"])
    assert "insecure" in d.text() and "level=warn" in d.text()
    w = box.worker(d, connect=d.tcp, extra=["--insecure"])
    d.wait_workers(1)
    assert w.running


def test_a_worker_will_not_speak_to_another_machine_without_keys(box):
    rc, said = start_status(BIN / "didact-worker", "--connect", f"tcp://{own_address()}:1", "--dir", box.dir / "w",
                            "--name", "w", "--slots", 1)
    assert rc > 0 and "key" in said and "--insecure" in said


def test_a_secret_key_is_readable_by_its_owner_alone(box, keys):
    for name in (keys / "server.key", box.dir / "worker.key"):
        assert os.stat(name).st_mode & 0o077 == 0
    r = run_cli("keygen", box.dir / "worker", "--role", "worker")
    assert r.status != 0 and "worker" in r.err, "keys are not overwritten"


def test_a_search_runs_over_curve(box, keys, guarded, material, submit, load):
    load(guarded)
    box.worker(guarded, connect=guarded.tcp, extra=with_key(box, keys, "worker"))
    guarded.wait_workers(1)
    file = box.dir / "job.yaml"
    file.write_text(harness.job_yaml(budget={"trials": 6}))
    r = run_cli("--connect", guarded.tcp, *with_key(box, keys, "submitter"), "submit", file, "--json")
    assert r.status == 0, r
    assert guarded.wait_end()["state"] == "succeeded"


def test_a_key_that_nobody_authorised_gets_nowhere(box, keys, guarded):
    w = box.worker(guarded, connect=guarded.tcp, extra=with_key(box, keys, "stranger"))
    harness.wait_for("the refusal is logged", lambda: "denied" in guarded.text() or "refused" in guarded.text(), 20)
    assert guarded.get("status")["workers"]["online"] == 0
    r = run_cli("--connect", guarded.tcp, *with_key(box, keys, "stranger"), "status", "--timeout", 2 * harness.SLOW)
    assert r.status in (69, 77) and r.err
    w.kill9()


def test_a_wrong_server_key_gets_nowhere(box, keys, guarded):
    assert run_cli("keygen", "--server", box.dir / "other").status == 0
    r = run_cli("--connect", guarded.tcp, "--key", box.dir / "submitter.key", "--server-key", box.dir / "other" / "server.pub", "status",
                "--timeout", 2 * harness.SLOW)
    assert r.status in (69, 77) and r.err


def test_roles_bound_what_a_key_may_do(box, keys, guarded, load):
    load(guarded)
    file = box.dir / "job.yaml"
    file.write_text(harness.job_yaml(budget={"trials": 6}))

    def status(role, *argv):
        return run_cli("--connect", guarded.tcp, *with_key(box, keys, role), *argv).status
    assert status("viewer", "jobs") == 0
    assert status("viewer", "submit", file) == 77
    assert status("submitter", "submit", file) == 0
    assert status("viewer", "cancel", 1, "--yes") == 77
    assert status("worker", "submit", file) == 77
    w = box.worker(guarded, connect=guarded.tcp, extra=with_key(box, keys, "viewer"))
    harness.wait_for("a viewer's worker is refused", lambda: not w.running or "ERR_DENIED" in w.text() or
                     "not allowed" in w.text(), 20)
    assert guarded.get("status")["workers"]["online"] == 0


def test_a_missing_key_file_is_named(box, keys, guarded):
    r = run_cli("--connect", guarded.tcp, "--key", box.dir / "absent.key", "--server-key", keys / "server.pub", "status")
    assert r.status not in (0, -11, -6) and "absent.key" in r.err


def test_a_key_added_while_it_runs_is_let_in(box, keys, guarded):
    assert run_cli("keygen", box.dir / "late", "--role", "viewer").status == 0
    r = run_cli("--connect", guarded.tcp, *with_key(box, keys, "late"), "status", "--timeout", 2 * harness.SLOW)
    assert r.status in (69, 77), "not yet"
    assert run_cli("keygen", box.dir / "late.pub", "--authorize", keys).status == 0
    harness.wait_for("the new key works", lambda: run_cli(
        "--connect", guarded.tcp, *with_key(box, keys, "late"), "status").status == 0, 30)
