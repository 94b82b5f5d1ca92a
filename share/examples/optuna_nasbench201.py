#!/usr/bin/env python3
"""Optuna (from PyPI) drives a search of nasbench201: the six edges of a cell are six categorical parameters.
usage: optuna_nasbench201.py http://127.0.0.1:7780 JOB [SEED]

JOB is a search with `searcher: {name: external}` and `space: nasbench201`. Proposals go out in batches of the job's window; what Optuna is
told comes in the order of proposals, so that the study is the same however many workers there are."""
import json
import sys
import urllib.error
import urllib.request

import optuna

base, job, seed = sys.argv[1].rstrip("/") + "/api/v1/", sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1
OPS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        sys.exit(f"{path}: {json.load(e)['error']['text']}")


def cell(trial):
    """Node n of a cell sums one operation on each node before it."""
    op = {(n, m): trial.suggest_categorical(f"{m} to {n}", OPS) for n in (1, 2, 3) for m in range(n)}
    return "+".join("|" + "|".join(f"{op[n, m]}~{m}" for m in range(n)) + "|" for n in (1, 2, 3))


spec = call(f"jobs/{job}")["spec"]
budget, window = spec["budget"]["trials"], spec["window"]
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
done = 0
while done < budget:
    trials = [study.ask() for _ in range(min(window, budget - done))]
    call(f"jobs/{job}/trials", {"request": f"{seed}-{done}", "trials": [{"arch": cell(t), "tag": str(t.number)} for t in trials]})
    last = done + len(trials)
    while done < last:
        for result in call(f"jobs/{job}/told?after={done}&wait=60")["told"]:
            failed = result["score"] is None
            study.tell(int(result["tag"]), None if failed else result["score"],
                       optuna.trial.TrialState.FAIL if failed else None)
            done = result["trial"] + 1
print(f"{study.best_value:.4f}  {study.best_params}")
