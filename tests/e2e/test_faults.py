"""When the world is broken: a clear message that names the thing, a status that is not 0, nothing lost."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess

import pytest

import harness
from harness import BIN, cli, run_cli


def run_program(*argv, timeout=20):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout * harness.SLOW)
    return done.returncode, done.stdout + done.stderr


def database_of(folder):
    (db,) = [p for p in folder.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    return db


def test_a_port_in_use_is_named(box):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    rc, said = run_program(BIN / "didactd", "--dir", box.dir / "a", "--listen", f"tcp://127.0.0.1:{port}", "--http", "127.0.0.1:0")
    assert rc not in (0, -signal.SIGSEGV, -signal.SIGABRT) and rc > 0 and str(port) in said and "in use" in said.lower()
    rc, said = run_program(BIN / "didactd", "--dir", box.dir / "b", "--listen", f"ipc://{box.dir}/b/s",
                           "--http", f"127.0.0.1:{port}")
    assert rc > 0 and str(port) in said and "in use" in said.lower()
    taken.close()


def test_a_second_coordinator_in_the_same_folder_is_refused(box, load, submit):
    d = load(box.coordinator())
    rc, said = run_program(BIN / "didactd", "--dir", d.folder, "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0")
    assert rc > 0 and str(d.folder) in said
    submit(d)
    box.worker(d)
    assert d.wait_end()["state"] == "succeeded", "the first one is unharmed"


def test_a_second_worker_in_the_same_folder_is_refused(box):
    d = box.coordinator()
    w = box.worker(d)
    d.wait_workers(1)
    rc, said = run_program(BIN / "didact-worker", "--connect", d.connect, "--dir", w.folder, "--name", "other", "--slots", 1)
    assert rc > 0 and str(w.folder) in said


def test_a_database_of_a_newer_version_is_refused_untouched(box):
    d = box.coordinator()
    assert d.stop() == 0
    db = database_of(d.folder)
    with sqlite3.connect(db) as c:
        (version,) = c.execute("PRAGMA user_version").fetchone()
        assert version > 0
        c.execute(f"PRAGMA user_version = {version + 41}")
    c.close()
    before = db.read_bytes()
    rc, said = run_program(*d.argv)
    assert rc == 65 and str(version + 41) in said and "newer" in said and db.name in said
    assert db.read_bytes() == before


def test_a_damaged_database_is_refused_by_name(box):
    d = box.coordinator()
    assert d.stop() == 0
    db = database_of(d.folder)
    for extra in ("-wal", "-shm"):
        db.with_name(db.name + extra).unlink(missing_ok=True)
    db.write_bytes(b"this is not a database, it is a test of one" * 200)
    rc, said = run_program(*d.argv)
    assert rc > 0 and db.name in said


def test_a_truncated_dataset_is_refused_by_name(box, material):
    d = box.coordinator()
    for victim in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        folder = box.dir / f"cut-{victim[:5]}"
        shutil.copytree(material.idx, folder)
        whole = (folder / victim).read_bytes()
        (folder / victim).write_bytes(whole[:len(whole) // 2])
        r = cli(d, "dataset", "import", folder, "--name", "cut", status=65)
        assert victim in r.err
    assert d.get("datasets")["datasets"] == []


def test_a_dataset_that_is_not_there_is_named(box):
    d = box.coordinator()
    r = run_cli("--connect", d.connect, "dataset", "import", box.dir / "nowhere", "--name", "x")
    assert r.status in (65, 66, 74) and "nowhere" in r.err


def test_a_truncated_curriculum_is_refused_by_name(box, material):
    d = box.coordinator()
    cut = box.dir / "cut.safetensors"
    cut.write_bytes(material.curriculum.read_bytes()[:-1000])
    r = cli(d, "curriculum", "import", cut, "--name", "cut", status=65)
    assert "cut.safetensors" in r.err
    assert d.get("curricula")["curricula"] == []


def blobs_of(folder, hash_):
    return [p for p in folder.rglob(hash_ + "*") if p.is_file()]


def flip_a_byte(path):
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(os.path.getsize(path) // 2)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x40]))


def test_a_corrupt_blob_in_a_workers_cache_is_fetched_again(box, load, submit):
    d = load(box.coordinator())
    w = box.worker(d)
    d.wait_end(submit(d, budget={"trials": 4}))
    assert w.stop() == 0
    hash_ = d.get("curricula")["curricula"][0]["hash"]
    (cached,) = [p for p in blobs_of(w.folder, hash_) if p.name == hash_]
    flip_a_byte(cached)
    w.start()
    second = submit(d, name="second", budget={"trials": 4}, scores={"book": False})
    assert d.wait_end(second)["state"] == "succeeded"
    assert d.history(1) == d.history(second)
    assert "corrupt" in w.text().lower() and hash_[:12] in w.text()


def test_a_corrupt_blob_at_the_coordinator_is_named_and_no_wrong_score_appears(box, load, submit, material):
    d = load(box.coordinator())
    hash_ = d.get("curricula")["curricula"][0]["hash"]
    assert d.stop() == 0
    (blob,) = [p for p in blobs_of(d.folder, hash_) if p.name == hash_]
    flip_a_byte(blob)
    d.start()
    job = submit(d, budget={"trials": 4}, max_failed=2)
    w = box.worker(d)
    harness.wait_for("the damage is noticed", lambda: hash_[:12] in (d.text() + w.text()) and
                     "corrupt" in (d.text() + w.text()).lower(), 30)
    assert d.scored(job) == 0
    cli(d, "curriculum", "import", material.curriculum, "--name", "smallcur")
    repaired = submit(d, name="repaired", budget={"trials": 4})
    assert d.wait_end(repaired)["state"] == "succeeded", "importing it again mends it"


@pytest.fixture
def small_disk(box):
    """A tmpfs of a few megabytes: mounted where we may, in a namespace of the program's own otherwise."""
    folder = box.dir / "disk"
    folder.mkdir()
    rc = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "didact-test", str(folder)], capture_output=True).returncode
    if rc != 0:
        pytest.skip("may not mount a tmpfs here (needs root)")
    yield folder
    for p in box.processes:
        if p.running:
            p.kill9()
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, leave=0):
    """Fill a file system but for `leave` bytes."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"\0" * 65536)
        except OSError:
            pass
        try:
            while True:
                f.write(b"\0" * 512)
        except OSError:
            pass
        if leave:
            f.truncate(max(0, f.tell() - leave))
    return filler


def test_a_full_disk_refuses_a_dataset_by_name(box, material, small_disk):
    d = box.coordinator(folder=small_disk / "d")
    filler = fill(small_disk, leave=32768)
    r = run_cli("--connect", d.connect, "dataset", "import", material.idx, "--name", "small")
    assert r.status not in (0, -11, -6) and "space" in r.err.lower()
    assert d.running and d.get("datasets")["datasets"] == []
    filler.unlink()
    cli(d, "dataset", "import", material.idx, "--name", "small")


@pytest.mark.limit(180)
def test_a_full_disk_in_the_middle_of_a_search_loses_nothing(box, load, submit, small_disk, undisturbed):
    from conftest import KILL_JOB
    d = load(box.coordinator(folder=small_disk / "d"))
    w = box.worker(d)
    submit(d, **KILL_JOB)
    d.wait_scored(10)
    filler = fill(small_disk)
    # Commits fail from some row on: the coordinator either says so and stops with 74, or says so and waits.
    harness.wait_for("the full disk is named", lambda: "no space" in d.text().lower() or "disk is full" in d.text().lower(), 60)
    if not d.running:
        assert d.popen.returncode == 74
    filler.unlink()
    if not d.running:
        d.start()
    assert d.wait_end(timeout=150)["state"] == "succeeded"
    assert w.running
    assert d.history() == undisturbed


def test_a_full_disk_at_the_start_is_named(box, small_disk):
    fill(small_disk)
    rc, said = run_program(BIN / "didactd", "--dir", small_disk, "--listen", f"ipc://{box.dir}/s2", "--http", "127.0.0.1:0")
    assert rc > 0 and "space" in said.lower() and str(small_disk) in said


def test_a_folder_that_cannot_be_written_is_named(box):
    target = box.dir / "file"
    target.write_text("in the way")
    rc, said = run_program(BIN / "didactd", "--dir", target / "sub", "--listen", f"ipc://{box.dir}/s", "--http", "127.0.0.1:0")
    assert rc > 0 and str(target) in said


def test_no_coordinator_is_said_with_its_address(box):
    r = run_cli("--connect", f"ipc://{box.dir}/nobody", "status")
    assert r.status == 69 and "nobody" in r.err


def test_a_worker_waits_for_a_coordinator_that_is_not_there_yet(box, load, submit):
    d = harness.Coordinator(box)
    w = harness.Worker(box, d.socket, "w1").start()
    harness.wait_for("the worker says that it cannot reach it", lambda: w.text(), 20)
    assert w.running
    d.start()
    d.wait_workers(1)
