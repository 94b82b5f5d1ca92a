"""Workers that drive a GPU beside their CPU: which trials they get, and what these are facts about. The GPU is an emulator of its kernels."""
import csv
import io

import pytest
from harness import BIN, cli, cli_json, wait_for

GPU = {"DIDACT_CUDA": str(BIN / "tests/didact-cuda.so")}
TINY = {"fidelity": {"steps": 3, "inits": 2, "valid_images": 48}, "budget": {"trials": 5}, "searcher": {"name": "random"}, "constraints": {"max_macs": "0.1M"}}


def workers(d):
    return {w["name"]: w for w in d.get("workers")["workers"]}


def engines(d):
    file = d.folder.parent / "book.csv"
    file.unlink(missing_ok=True)
    cli(d, "book", "export", file)
    return {r["engine"] for r in csv.DictReader(io.StringIO(file.read_text()))}


@pytest.mark.limit(180)
def test_a_search_asks_for_its_device(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, "plain", slots=1)
    wait_for("the worker is there", lambda: "plain" in workers(d))
    assert workers(d)["plain"]["device_class"] == "cpu" and workers(d)["plain"]["device_name"] is None
    job = submit(d, **TINY, device="cuda", audit={"share": 0.01, "min": 3, "max": 3, "epochs": 0.1})
    wait_for("the reason is known", lambda: "device" in {w["code"] for w in d.get(f"jobs/{job}/why")["why"]})
    assert "device cuda" in cli(d, "why", job).out and d.get(f"jobs/{job}")["trials"]["scored"] == 0
    gpu = box.worker(d, "gpu", slots=2, env=GPU)
    doc = d.wait_end(job, 150)
    assert doc["state"] == "succeeded" and doc["device"] == "cuda" and doc["repeatable"] is True
    w = workers(d)["gpu"]
    assert w["device_class"] == "cuda" and w["device_name"] and w["device_bytes"] > 0
    # Learners on the device alone; the audit's real training on whichever CPU was free.
    assert {t["worker"] for t in d.trials(job) if t["group"] != "audit"} == {w["id"]} and "kind=cuda" in gpu.text()
    assert cli_json(d, "replay", job)["ok"] is True
    (engine,) = engines(d)
    assert engine.endswith("/cuda")
    # The same on the CPU: the same networks, near scores, and facts of their own in the book.
    cpu = submit(d, **TINY)
    d.wait_end(cpu)
    assert engines(d) == {engine, engine.removesuffix("/cuda")} and d.get(f"jobs/{cpu}")["device"] == "cpu"
    a, b = ({t["arch"]: t["score"] for t in d.trials(j) if t["group"] != "audit"} for j in (job, cpu))
    assert a == {k: pytest.approx(v, abs=2.5 / 48) for k, v in b.items()}
    # Known on the device: nothing is computed again.
    again = submit(d, **TINY, device="cuda", name="again")
    assert d.wait_end(again)["state"] == "succeeded"
    assert all(t["from_book"] for t in d.trials(again))


@pytest.mark.limit(120)
def test_any_device_takes_what_there_is_and_says_so(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, "gpu", env=GPU)
    box.worker(d, "plain")
    job = submit(d, **TINY, device="any")
    doc = d.wait_end(job, 100)
    assert doc["state"] == "succeeded" and doc["repeatable"] is False
    assert "device any" in cli(d, "show", job).out and "of any device" in cli(d, "results", job).out
    assert not engines(d), "nobody knows what it is a fact about"
    assert cli_json(d, "replay", job)["ok"] is True


@pytest.mark.parametrize("env, why", [({"DIDACT_CUDA": "/nowhere.so"}, "no cuda backend"),
                                      ({**GPU, "EMU_NO_CODE": "1"}, "was not built for emulated, compute capability 8.0 (make CUDA=1 CUDA_CC=80)")])
def test_a_worker_without_the_gpu_goes_on_with_its_cpu(box, load, submit, env, why):
    d = load(box.coordinator())
    w = box.worker(d, "w", env=env, extra=["--device", "cuda"])
    assert d.wait_end(submit(d, **TINY))["state"] == "succeeded"
    assert w.text().count(why) == 1 and workers(d)["w"]["device_class"] == "cpu"
    assert box.worker(d, "wrong", extra=["--device", "abacus"]).wait(20) == 64
    dry = cli(d, "submit", "--dry-run", "--set", "device=abacus", box.dir / "job1.yaml", status=65).err
    assert "'device' must be one of cpu, cuda, cuda-tf32, cuda-bf16, any" in dry


@pytest.mark.limit(120)
def test_rounded_products_are_a_device_of_their_own(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, "rounds", env=GPU, extra=["--device", "cuda-tf32:0"])
    job = submit(d, **TINY, device="cuda")
    wait_for("the reason is known", lambda: "device" in {w["code"] for w in d.get(f"jobs/{job}/why")["why"]})
    rounded = submit(d, **TINY, device="cuda-tf32")
    assert d.wait_end(rounded, 100)["state"] == "succeeded" and workers(d)["rounds"]["device_class"] == "cuda-tf32"
    (engine,) = engines(d)
    assert engine.endswith("/cuda-tf32") and d.get(f"jobs/{job}")["trials"]["scored"] == 0
    assert cli_json(d, "replay", rounded)["ok"] is True


@pytest.mark.limit(120)
def test_a_gpu_serves_cpu_jobs_with_its_cpu(box, load, submit):
    """One machine, one worker: `device: cpu` means the CPU's bits, wherever it is computed."""
    d = load(box.coordinator())
    box.worker(d, "gpu", env=GPU)
    job = submit(d, **TINY)
    d.wait_end(job)
    e = load(box.coordinator("b"))
    box.worker(e, "plain")
    other = submit(e, **TINY)
    e.wait_end(other)
    scores = [[(t["arch"], t["init_scores"], t["loss_sum"]) for t in sorted(x.trials(j), key=lambda t: t["trial"])] for x, j in ((d, job), (e, other))]
    assert scores[0] == scores[1]


@pytest.mark.limit(120)
def test_a_busy_gpu_is_a_reason_also_where_cpus_are_free(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, "plain")
    box.worker(d, "gpu", slots=1, env=GPU)
    long = {**TINY, "fidelity": {"steps": 4, "inits": 64, "valid_images": 48}, "budget": {"trials": 400}}
    first = submit(d, **long, device="cuda")
    wait_for("it runs", lambda: d.get(f"jobs/{first}")["trials"]["running"] > 0)
    second = submit(d, **TINY, device="cuda", name="second")
    reasons = lambda: {w["code"]: w["text"] for w in d.get(f"jobs/{second}/why")["why"]}
    wait_for("the reason is known", lambda: "busy" in reasons())
    assert "no worker with device cuda has a free slot (1 online, 1 slot)" in reasons()["busy"]
    cli(d, "cancel", first, "--yes")
    assert d.wait_end(second)["state"] == "succeeded"


@pytest.mark.limit(120)
def test_a_worker_whose_gpu_is_lost_ends_and_another_goes_on(box, load, submit):
    """An error that stays, as an illegal address: no call of this process works any more, so whoever started the worker starts it again."""
    d = load(box.coordinator())
    broken = box.worker(d, "gpu", env={**GPU, "EMU_BREAKS": "8"})
    job = submit(d, **TINY, device="cuda")
    assert broken.wait(60) == 75
    assert broken.text().count("ev=device_lost") == 1 and "broke=1" in broken.text()
    box.worker(d, "plain")
    wait_for("the reason is known", lambda: "gpu had one and is gone" in str(d.get(f"jobs/{job}/why")))
    doc = d.get(f"jobs/{job}")
    assert doc["state"] == "running" and doc["trials"]["failed"] == 0, "it says nothing of the candidates"
    box.worker(d, "again", env=GPU)
    doc = d.wait_end(job, 100)
    assert doc["state"] == "succeeded" and doc["trials"]["scored"] == TINY["budget"]["trials"]


@pytest.mark.limit(120)
def test_a_lost_gpu_lets_the_cpus_training_end(box, load, submit):
    d = load(box.coordinator())
    broken = box.worker(d, "gpu", slots=2, env={**GPU, "EMU_BREAKS": "8"})
    real = submit(d, kind="verify", name="real", curriculum=None, searcher=None, fidelity=None, window=None, budget=None, verify={"arch": ["bn relu | c24k5 | c24k5 | flat"], "epochs": 40})
    wait_for("it trains", lambda: d.get(f"jobs/{real}")["trials"]["running"] == 1)
    job = submit(d, **TINY, device="cuda")
    assert broken.wait(100) == 75 and "ev=device_lost" in broken.text()
    (t,) = d.trials(real)
    assert t["state"] == "scored" and t["attempt"] == 1
    assert sum(t["deaths"] for t in d.trials(job)) == 1, "the first that met it"


@pytest.mark.limit(180)
def test_a_teacher_is_trained_where_its_job_says(box, load, submit):
    d = load(box.coordinator())
    box.worker(d, "plain")
    job = submit(d, text="""kind: teach
name: taught
dataset: small
device: cuda
teach: {kind: gtn, steps: 3, batch: 8, meta_steps: 2, learners: 1, inits: 2, meta_batch: 8, z_dim: 4, g_hidden: 12, g_channels1: 6, g_channels2: 4, max_macs: 10k,
        eval_every: 2, checkpoint_every: 2}
""")
    wait_for("the reason is known", lambda: "device" in {w["code"] for w in d.get(f"jobs/{job}/why")["why"]})
    gpu = box.worker(d, "gpu", env=GPU)
    doc = d.wait_end(job, 150)
    assert doc["state"] == "succeeded" and f"lease job={job}" in gpu.text()
    shown = cli_json(d, "curriculum", "show", "taught")
    assert "/cuda" in str(shown["provenance"]) and "emulated" in str(shown["provenance"])
