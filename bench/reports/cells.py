#!/usr/bin/env python3
"""cells.py TABLE.csv.gz N: N cells of the NAS-Bench-201 table, one a line, drawn with seed 1, each class of equal cells (isomorphic_id) at most once."""
import csv
import gzip
import random
import sys

rows = list(csv.DictReader(gzip.open(sys.argv[1], "rt")))
random.Random(1).shuffle(rows)
seen = set()
for row in rows:
    if row["isomorphic_id"] not in seen and len(seen) < int(sys.argv[2]):
        seen.add(row["isomorphic_id"])
        print(row["arch"])
