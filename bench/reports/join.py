#!/usr/bin/env python3
"""join.py TABLE.csv.gz TRUTH FUSE ARCHS.txt NAME=SCORES.csv… > OUT.csv: files of `didact-worker score --archs ARCHS.txt` beside each other, each network
once, with the table's column TRUTH (its mean over the cells that are this network). FUSE: columns of OUT, as a_loss_sum,params; `fused` is the sum of log(rank / N), the best of rank N (docs/scores.md)."""
import csv
import gzip
import math
import sys

LESS_IS_BETTER = ("loss_sum",)
ZERO_COST = ("synflow", "naswot", "jacob_cov", "zico", "snip", "grad_norm")

table = {r["arch"]: float(r[sys.argv[2]]) for r in csv.DictReader(gzip.open(sys.argv[1], "rt"))}
cells = open(sys.argv[4]).read().splitlines()
rows, truths = {}, {}
for arg in sys.argv[5:]:
    name, path = arg.split("=", 1)
    for cell, r in zip(cells, csv.DictReader(open(path))):
        if r["state"] != "scored":
            continue
        truths.setdefault(r["arch_hash"], {})[cell] = table[cell]
        out = rows.setdefault(r["arch_hash"], {"arch": r["arch"], "params": r["params"], "macs": r["macs"], sys.argv[2]: ""})
        out.update({f"{name}_score": r["score"], f"{name}_loss_sum": r["loss_sum"]})
        out.update({z: r[z] for z in ZERO_COST if r.get(z)})
for h, t in truths.items():
    rows[h][sys.argv[2]] = f"{sum(t.values()) / len(t):.6f}"
rows = list(rows.values())
columns = list(max(rows, key=len))
rows = [r for r in rows if all(r.get(c) for c in sys.argv[3].split(","))]
total = [0.0] * len(rows)
for c in sys.argv[3].split(","):
    sign = -1 if c.endswith(LESS_IS_BETTER) else 1 # from the worst
    order = sorted(range(len(rows)), key=lambda i: sign * float(rows[i][c]))
    at = 0
    while at < len(order):  # equal ones have their mean rank
        end = at
        while end < len(order) and float(rows[order[end]][c]) == float(rows[order[at]][c]):
            end += 1
        for i in order[at:end]:
            total[i] += math.log((at + 1 + end) / 2 / len(rows))
        at = end
out = csv.DictWriter(sys.stdout, columns + ["fused"], restval="", lineterminator="\n")
out.writeheader()
for r, t in zip(rows, total):
    out.writerow({**r, "fused": f"{t:.6f}"})
