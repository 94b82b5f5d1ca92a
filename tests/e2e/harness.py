"""Real processes, started, stopped and killed; and the small dataset and curriculum that the tests search on.

Everything waits on an event (a file, a document, an exit) with a deadline, never on a bare sleep."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("DIDACT_BIN") or ROOT / "build" / "release").resolve()
SLOW = float(os.environ.get("DIDACT_TEST_SLOW", "1"))  # sanitizers: every deadline is this much later
SIDE, CLASSES = 12, 4                                  # of the small dataset


def wait_for(what, condition, timeout=30.0, every=0.02):
    """The first true value of condition(), or an error that says what did not happen."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout * SLOW:.0f} s")
        time.sleep(every)


class Process:
    """One program of ours. Its output goes to a file; a status that nobody expected is an error at the end."""

    def __init__(self, sandbox, name, argv, env=None, prefix=()):
        self.name, self.argv, self.prefix = name, [str(a) for a in argv], [str(p) for p in prefix]
        self.sandbox, self.env = sandbox, env
        self.log = sandbox.dir / f"{name}.log"
        self.popen = None
        sandbox.processes.append(self)

    def start(self):
        assert self.popen is None or self.popen.poll() is not None, f"{self.name} is running"
        env = dict(os.environ, **(self.env or {}))
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(self.prefix + self.argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                          env=env, cwd=self.sandbox.dir)
        return self

    @property
    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def kill9(self):
        """As a power cut would: no handler runs."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def wait(self, timeout=30.0):
        return self.popen.wait(timeout * SLOW)

    def stop(self, timeout=30.0):
        """SIGTERM, and its exit status."""
        if self.running:
            self.popen.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Coordinator(Process):
    def __init__(self, sandbox, name="didactd", folder=None, lease_ms=4000, heartbeat_ms=200, listen=None, extra=(),
                 prefix=()):
        self.folder = Path(folder or sandbox.dir / name)
        self.socket = f"ipc://{self.folder}/s"
        self.listen = [self.socket] if listen is None else list(listen)
        argv = [BIN / "didactd", "--dir", self.folder, "--http", "127.0.0.1:0", "--lease-ms", int(lease_ms * SLOW),
                "--heartbeat-ms", int(heartbeat_ms * SLOW)]
        for endpoint in self.listen:
            argv += ["--listen", endpoint]
        self.folder.mkdir(exist_ok=True)
        super().__init__(sandbox, name, argv + list(extra), prefix=prefix)

    def start(self, ready=True):
        (self.folder / "endpoints.json").unlink(missing_ok=True)
        super().start()
        return self.wait_ready() if ready else self

    def wait_ready(self):
        def there():
            assert self.running, f"{self.name} ended with status {self.popen.returncode}:\n{self.text()[-2000:]}"
            try:
                self.endpoints = json.loads((self.folder / "endpoints.json").read_text())
                return self.http_raw("/readyz")[0] == 200
            except (OSError, ValueError, KeyError):
                return False
        wait_for(f"{self.name} is ready", there)
        return self

    @property
    def http_base(self):
        http = self.endpoints["http"]
        return http if http.startswith("http://") else f"http://{http}"

    @property
    def connect(self):
        """Where a client on this machine reaches it."""
        return next((e for e in self.endpoints["zmq"] if e.startswith("ipc://")), self.endpoints["zmq"][0])

    @property
    def tcp(self):
        return next(e for e in self.endpoints["zmq"] if e.startswith("tcp://"))

    def http_raw(self, path):
        """(status, body); a refused connection is an OSError."""
        try:
            with urllib.request.urlopen(self.http_base + path, timeout=10 * SLOW) as r:
                return r.status, r.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def get(self, path):
        status, body = self.http_raw("/api/v1/" + path)
        assert status == 200, f"GET {path}: {status} {body[:300]}"
        return json.loads(body)

    def history(self, job=1):
        """The bytes that replay and the kill tests compare."""
        status, body = self.http_raw(f"/api/v1/jobs/{job}/history")
        assert status == 200, f"history: {status} {body[:300]}"
        return body

    def job(self, job=1):
        return self.get(f"jobs/{job}")

    def trials(self, job=1):
        return self.get(f"jobs/{job}/trials?limit=1000")["trials"]

    def scored(self, job=1):
        return self.job(job)["trials"]["scored"]

    def wait_scored(self, n, job=1, timeout=60):
        return wait_for(f"{n} scored trials in job {job}", lambda: self.scored(job) >= n, timeout)

    def wait_end(self, job=1, timeout=120):
        """The job once it has ended, whichever way."""
        over = ("succeeded", "failed", "cancelled")

        def ended():
            doc = self.job(job)
            return doc if doc["state"] in over else None
        return wait_for(f"job {job} ends", ended, timeout)

    def wait_workers(self, n):
        return wait_for(f"{n} workers online", lambda: self.get("status")["workers"]["online"] == n)


class Worker(Process):
    def __init__(self, sandbox, connect, name="w1", slots=1, extra=(), env=None):
        self.folder = sandbox.dir / name
        super().__init__(sandbox, name, [BIN / "didact-worker", "--connect", connect, "--dir", self.folder,
                                         "--name", name, "--slots", slots, *extra], env=env)

    def start(self):
        """Back when it runs (or has ended by itself): before main() a SIGTERM still has its default action."""
        seen = len(self.text())
        super().start()
        wait_for(f"{self.name} starts", lambda: "ev=start " in self.text()[seen:] or not self.running)
        return self


class Sandbox:
    """A short-named folder (socket paths are at most 107 bytes) and what was started in it."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="dd", dir="/tmp"))
        self.processes = []

    def coordinator(self, *args, **kw):
        return Coordinator(self, *args, **kw).start()

    def worker(self, coordinator, name="w1", **kw):
        return Worker(self, kw.pop("connect", None) or coordinator.connect, name, **kw).start()

    def end(self):
        """What still runs must stop when told to, with status 0 and nothing for a sanitizer to say."""
        left = [p for p in self.processes if p.running]
        for p in left:
            p.signal(signal.SIGCONT)
            p.signal(signal.SIGTERM)
        for p in left:
            try:
                status = p.wait(20)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{p.name} does not stop on SIGTERM") from None
            assert status == 0, f"{p.name} stopped with status {status}"
        for p in self.processes:
            text = p.text()
            for sign in ("Sanitizer:", "runtime error:", "Assertion `"):
                assert sign not in text, f"{p.name}: {text[text.index(sign):][:1500]}"

    def close(self):
        for p in self.processes:
            if p.running:
                p.signal(signal.SIGCONT)
                p.kill9()
        shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self):
        return {p.name: p.text() for p in self.processes}


class CliResult:
    def __init__(self, argv, done):
        self.argv, self.status, self.out, self.err = argv, done.returncode, done.stdout, done.stderr

    def __str__(self):
        return f"{' '.join(self.argv)}\nstatus {self.status}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-2000:]}"


def run_cli(*argv, timeout=60, env=None, cwd=None):
    """didact VERB …, to its end."""
    argv = [str(BIN / "didact"), *(str(a) for a in argv)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout * SLOW,
                          env=dict(os.environ, **(env or {})), cwd=cwd)
    assert "Sanitizer:" not in done.stderr and "runtime error:" not in done.stderr and done.returncode >= 0, CliResult(argv, done)
    return CliResult(argv, done)


def cli(coordinator, *argv, status=0, **kw):
    """The same against a coordinator; the exit status is checked."""
    r = run_cli("--connect", coordinator.connect, *argv, **kw)
    assert r.status == status, f"expected status {status}\n{r}"
    return r


def cli_json(coordinator, *argv, **kw):
    r = cli(coordinator, *argv, "--json", **kw)
    return json.loads(r.out)


# ---- the small world that the tests search in ----

def small_images(n, seed):
    """n images of CLASSES classes: a bright bar whose place is the class, in noise. Learnable in a few steps."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % CLASSES).astype(np.uint8)
    images = rng.integers(0, 90, size=(n, SIDE, SIDE))
    for i, k in enumerate(labels):
        row = 1 + 3 * int(k) + int(rng.integers(0, 2))
        images[i, row, 1:-1] += 120
    return images.clip(0, 255).astype(np.uint8), labels


def write_idx(folder, n_train=640, n_test=160):
    """The four files of an IDX dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n, seed in (("train", n_train, 1), ("t10k", n_test, 2)):
        images, labels = small_images(n, seed)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, n, SIDE, SIDE) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + labels.tobytes())
    return folder


ST_DTYPES = {np.dtype("<f4"): "F32", np.dtype("u1"): "U8", np.dtype("<f8"): "F64"}


def write_safetensors(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, a in tensors.items():
        header[name] = {"dtype": ST_DTYPES[a.dtype], "shape": list(a.shape), "data_offsets": [offset, offset + a.nbytes]}
        offset += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in tensors.values():
            f.write(np.ascontiguousarray(a).tobytes())
    return path


def read_safetensors(path):
    raw = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    dtypes = {v: k for k, v in ST_DTYPES.items()}
    return {name: np.frombuffer(raw[8 + n + h["data_offsets"][0]:8 + n + h["data_offsets"][1]],
                                dtypes[h["dtype"]]).reshape(h["shape"]) for name, h in header.items()}


def write_curriculum(path, steps=6, batch=16, lr=0.05, mu=0.9, inner=None):
    """Real small images as a curriculum: what a teacher of kind `real` hands out."""
    images, labels = small_images(steps * batch, 3)
    onehot = np.eye(CLASSES, dtype="<f4")[labels].reshape(steps, batch, CLASSES)
    return write_safetensors(path, {
        "images": images.reshape(steps, batch, 1, SIDE, SIDE), "labels": onehot,
        "lr": np.full(steps, lr, "<f4"), "mu": np.full(steps, mu, "<f4"),
    }, {"format": "didact-curriculum-1", "inner": json.dumps(inner or {"type": "sgd"}), "provenance": "{}"})


def job_yaml(**over):
    """A search that ends in seconds; `over` replaces or (None) removes top-level keys."""
    job = {
        "kind": "search", "name": "small", "seed": 7, "dataset": "small", "curriculum": "smallcur", "space": "chain",
        "searcher": {"name": "evolution", "population": 8, "sample": 3},
        "fidelity": {"steps": 6, "inits": 2, "valid_images": 48}, "window": 8, "budget": {"trials": 40},
    }
    job.update(over)
    return json.dumps({k: v for k, v in job.items() if v is not None}, indent=1)


# ---- a network that can be cut ----

class Proxy:
    """Forwards one loopback TCP port to another; cut() drops what is open and refuses what comes, heal() ends that."""

    def __init__(self, target):
        self.target = tuple(target)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock, self.pairs, self.is_cut, self.closing = threading.Lock(), [], False, False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self):
        return f"tcp://127.0.0.1:{self.port}"

    def _accept(self):
        while not self.closing:
            try:
                a, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                if self.is_cut:
                    a.close()
                    continue
                try:
                    b = socket.create_connection(self.target)
                except OSError:
                    a.close()
                    continue
                self.pairs.append((a, b))
            for src, dst in ((a, b), (b, a)):
                threading.Thread(target=self._pump, args=(src, dst), daemon=True).start()

    @staticmethod
    def _pump(src, dst):
        try:
            while data := src.recv(65536):
                dst.sendall(data)
        except OSError:
            pass
        for s in (src, dst):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        with self.lock:
            self.is_cut = True
            for pair in self.pairs:
                for s in pair:
                    try:
                        s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    s.close()
            self.pairs.clear()

    def heal(self):
        with self.lock:
            self.is_cut = False

    def close(self):
        self.closing = True
        self.cut()
        self.listener.close()
