#!/usr/bin/env python3
"""A searcher outside, in 30 lines: a climb. usage: outside_searcher.py http://127.0.0.1:7780 JOB [SEED]"""
import json, sys, urllib.parse, urllib.request

base, job, seed = sys.argv[1].rstrip("/") + "/api/v1/", sys.argv[2], int((sys.argv[3:] or [1])[0])


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)


spec = call(f"jobs/{job}")["spec"]
best = None
for step in range(spec["budget"]["trials"]):
    if best is None:
        path = f"spaces/{spec['space']}/sample?n=1&seed={seed + step}"
    else:
        path = f"spaces/{spec['space']}/mutate?n=1&seed={seed + step}&arch={urllib.parse.quote(best['arch'])}"
    arch = call(path)["archs"][0]["arch"]
    call(f"jobs/{job}/trials", {"arch": arch, "request": f"{seed}-{step}", "tag": f"step {step}"})
    told = []
    while not told:
        told = call(f"jobs/{job}/told?after={step}&wait=60&limit=1")["told"]
    if told[0]["score"] is not None and (best is None or told[0]["score"] >= best["score"]):
        best = told[0]
print(f"{best['score']:.4f}  {best['arch']}")
