"""A worker that does exactly what a test tells it: the wire spoken by a second implementation (protoc and pyzmq)."""

import pathlib
import re

import zmq

import harness

WIRE_VERSION = 1
ENGINE_VERSION = re.search(r'ENGINE_VERSION "(.*)"', (pathlib.Path(__file__).parents[2] / "common/engine_version.h").read_text())[1]


class FakeWorker:
    def __init__(self, messages, endpoint, worker_id="fake-1", name="fake", slots=4):
        self.m = messages
        self.endpoint, self.worker_id, self.name, self.slots = endpoint, worker_id, name, slots
        self.context = zmq.Context()
        self.seq = 0
        self.leases = []
        self.connect()

    def connect(self):
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(self.endpoint)

    def close(self):
        self.socket.close(0)
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def send(self, ask=True, version=WIRE_VERSION, **body):
        """One message: send(want_work={"n": 2})."""
        self.seq += 1
        e = self.m.Envelope(version=version, seq=self.seq if ask else 0)
        (kind, fields), = body.items()
        target = getattr(e, kind)
        target.SetInParent()
        if isinstance(fields, dict):
            target.MergeFrom(type(target)(**fields))
        else:
            target.CopyFrom(fields)
        self.socket.send(e.SerializeToString())
        return self.seq

    def receive(self, *kinds, timeout=10.0, match=lambda body: True):
        """The next message of these kinds; leases on the way are kept, other kinds are passed over."""
        def next_one():
            if "lease" in kinds and self.leases:
                return "lease", self.leases.pop(0)
            if not self.socket.poll(100):
                return None
            e = self.m.Envelope.FromString(self.socket.recv())
            kind = e.WhichOneof("body")
            body = getattr(e, kind)
            if kind in kinds and match(body):
                return kind, body
            if kind == "lease":
                self.leases.append(body)
            return None
        return harness.wait_for(f"a message {' or '.join(kinds)}", next_one, timeout, every=0)

    def hello(self, holding=(), engine_version=None, **over):
        """Introduce ourselves; gives the answer (WorkerWelcome or Error)."""
        fields = dict(worker_id=self.worker_id, name=self.name, engine_version=engine_version or ENGINE_VERSION,
                      device_class="cpu", isa="avx2", slots=self.slots, mem_bytes=1 << 30, host="localhost", pid=1,
                      holding=list(holding))
        fields.update(over)
        self.send(worker_hello=fields)
        return self.receive("worker_welcome", "error")[1]

    def heartbeat(self, holding=()):
        self.send(heartbeat={"holding": list(holding)})
        return self.receive("heartbeat_ack")[1]

    def lease(self, timeout=10.0):
        """Ask for one trial and take it."""
        self.send(ask=False, want_work={"n": 1})
        return self.receive("lease", timeout=timeout)[1]

    def result(self, lease_or_ref, score=0.5, seconds=0.25, **over):
        ref = getattr(lease_or_ref, "ref", lease_or_ref)
        inits = lease_or_ref.score.fidelity.inits if hasattr(lease_or_ref, "score") else 1
        fields = dict(ref=ref, state=over.pop("state", self.SCORED), reason=0, score=score, score_se=0.0,
                      init_score=[score] * inits, loss_sum=1.0, lr_scale=1.0, valid_score=0.0, params=100, macs=1000,
                      meta_steps=0, seconds=seconds, mem_bytes=4096)
        fields.update(over)
        self.send(result=fields)

    def deliver(self, lease_or_ref, **over):
        """Send a result; gives the outcome (0 recorded, 1 recorded before, 2 stale)."""
        ref = getattr(lease_or_ref, "ref", lease_or_ref)
        self.result(lease_or_ref, **over)
        kind, body = self.receive("result_ack", "error",
                                  match=lambda b: not hasattr(b, "outcome") or b.ref == ref)
        assert kind == "result_ack", body
        return body.outcome

    # enum trial_state and enum ack_outcome of common/
    SCORED, FAILED = 2, 4
    RECORDED, DUPLICATE, STALE = 0, 1, 2
