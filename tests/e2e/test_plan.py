"""didact-worker plan: what the engine would do, before it does it."""

import json
import subprocess

import pytest

from harness import BIN, ROOT

CASES = ROOT / "tests" / "oracle" / "cases"
NET = {"image": [1, 28, 28], "classes": 10, "learner": [
    {"type": "conv", "in": 1, "out": 16, "k": 3, "pad": 1}, {"type": "bn", "c": 16}, {"type": "relu"}, {"type": "maxpool", "k": 2},
    {"type": "flatten"}, {"type": "linear", "in": 3136, "out": 10}]}


def plan(*argv, status=0):
    done = subprocess.run([BIN / "didact-worker", "plan", *map(str, argv)], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(NET))
    return path


def test_help_opens_with_an_example():
    assert plan("--help").startswith("Example: didact-worker plan --arch")


def test_the_sums_add_up(net):
    d = json.loads(plan("--arch", net, "--json", "--batch", 64, "--steps", 16, "--meta-batch", 256))
    assert (d["params"], d["batch"], d["steps"], d["meta_batch"], d["kept_steps"]) == (16 * 9 + 32 + 31370, 64, 16, 256, 0)
    m, plans = d["memory"], d["plans"]
    assert m["total_bytes"] == m["arena_bytes"] + m["kept_bytes"] + m["rows_bytes"]
    assert m["arena_bytes"] == max(p["arena_bytes"] for p in plans.values()) and set(plans) == {"step", "real"}
    for p in plans.values():
        assert [o["op"] for o in p["ops"]] == ["conv", "bn", "maxpool", "flatten", "conv", "bias"]
        assert p["ops"][0]["output"] == [p["batch"], 28, 28, 16] and p["ops"][-1]["output"] == [p["batch"], 1, 1, 10]
        assert max(o["bytes_forth"] for o in p["ops"]) <= p["arena_bytes"] >= max(o["bytes_back"] for o in p["ops"])
    f = d["flops"]
    first, macs = 28 * 28 * 16 * 9, 28 * 28 * 16 * 9 + 31360
    assert d["macs"] == macs
    assert f["step"] == 2 * 64 * (3 * macs - first) and f["way_back"] == 2 * 64 * (8 * macs - 3 * first) and f["real"] == 2 * 256 * (3 * macs - first)
    assert f["total"] == 16 * (f["step"] + f["way_back"]) + f["real"]


def test_a_budget_decides_what_is_kept(net):
    usual = json.loads(plan("--arch", net, "--json"))
    least = usual["memory"]["total_bytes"]
    rich = json.loads(plan("--arch", net, "--json", "--budget-bytes", 10 ** 12))
    assert rich["kept_steps"] == 32 and "step" not in rich["plans"]
    assert rich["memory"]["kept_bytes"] == 32 * rich["plans"]["keeping_step"]["kept_bytes"] > least
    some = json.loads(plan("--arch", net, "--json", "--budget-bytes", least + rich["memory"]["kept_bytes"] // 2))
    assert 8 < some["kept_steps"] < 24 and some["memory"]["total_bytes"] <= least + rich["memory"]["kept_bytes"] // 2
    assert rich["flops"]["total"] < some["flops"]["total"] < usual["flops"]["total"]
    assert "needs" not in plan("--arch", net, "--budget-bytes", least) and "need" in plan("--arch", net, "--budget-bytes", 1000, status=75)


def test_cases_and_architectures_of_a_space_are_read(tmp_path):
    for case in sorted(CASES.glob("*.json")):
        d = json.loads(plan("--arch", case, "--json"))
        assert ("generator" in d["plans"]) == (json.loads(case.read_text())["mode"] == "generator"), case
    text = tmp_path / "cell.txt"
    text.write_text("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|\n")
    out = plan("--arch", text, "--space", "nasbench201", "--image", "3x32x32", "--meta-batch", 0)
    assert "inner step" in out and "real batch" not in out and "MiB" in out


@pytest.mark.parametrize("argv, status, says", [
    (["--arch", "/nowhere.json"], 65, "/nowhere.json"),
    (["--arch", "NET", "--batch", "0"], 64, "--batch"),
    (["--arch", "NET", "--space", "mystery"], 65, "mystery"),
    (["--arch", "NET", "--space", "chain"], 65, "NET"),
    (["--batch", "3"], 64, "Example:"),
])
def test_bad_input_is_named(net, argv, status, says):
    assert says.replace("NET", str(net)) in plan(*[a.replace("NET", str(net)) for a in argv], status=status)
