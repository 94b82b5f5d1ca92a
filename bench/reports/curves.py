#!/usr/bin/env python3
"""curves.py FIELD TITLE OUT.svg NAME=LOG.jsonl… or NAME=X:Y,X:Y… - a teacher's log (`didact-worker run`: log.jsonl) against its meta-steps, one line a teacher; FIELD is accuracy
(fresh learners of its mix) or held_out. Meta-step 0, chance, is left out, and so is a log that has nothing more. Points given themselves are accuracies after so many steps of a learner, on a logarithmic axis. Axes begin and end at round numbers around what is there."""
import json
import math
import sys
from xml.sax.saxutils import escape

W, H, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 60, 150, 36, 44
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5fa8", "#c77f00", "#555555", "#00868b", "#9c2c77")


def step_of(span):
    """1, 2 or 5 times a power of ten: about five steps in the span."""
    base = 10 ** math.floor(math.log10(span / 5))
    return next(k * base for k in (1, 2, 5, 10) if k * base >= span / 5.001)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    field, title, path = sys.argv[1:4]
    curves, along = [], "meta-steps"
    for arg in sys.argv[4:]:
        name, log = arg.split("=", 1)
        if ":" in log:
            points = [[float(v) for v in point.split(":")] for point in log.split(",")]
            curves.append((name, [(math.log2(x), y) for x, y in points]))
            along = "steps"
            continue
        rows = [json.loads(line) for line in open(log)]
        curves.append((name, [(r["meta_step"], r[field]) for r in rows if r["meta_step"] and r.get(field) is not None]))
    curves = [(name, c) for name, c in curves if c]
    if not curves:
        sys.exit(f"curves.py: no log has a meta-step with {field}")
    xs = [x for _, c in curves for x, _ in c]
    ys = [y for _, c in curves for _, y in c]
    dx, dy = 1 if along == "steps" else step_of(max(xs)), step_of(max(ys) - min(ys) or abs(max(ys)) or 1)  # of a flat curve: of its height
    x1, y0, y1 = math.ceil(max(xs) / dx) * dx, math.floor(min(ys) / dy) * dy, math.ceil(max(ys) / dy) * dy
    y1 = y1 if y1 > y0 else y0 + dy
    at = lambda x, y: (LEFT + (W - LEFT - RIGHT) * x / x1, H - BOTTOM - (H - TOP - BOTTOM) * (y - y0) / (y1 - y0))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" font-family="sans-serif" font-size="12">',
           f'<rect width="{W}" height="{H}" fill="#fff"/>', f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>']
    for k in range(round(x1 / dx) + 1):
        x, y = at(k * dx, y0)
        out.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{2 ** k if along == "steps" else k * dx:g}</text>')
    for k in range(round((y1 - y0) / dy) + 1):
        x, y = at(0, y0 + k * dy)
        out.append(f'<path d="M{x:.1f} {y:.1f}H{W - RIGHT}" stroke="#ddd"/><text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{y0 + k * dy:.3g}</text>')
    out.append(f'<text x="{(LEFT + W - RIGHT) / 2}" y="{H - 8}" text-anchor="middle">{along}</text>')
    label = {}  # the last one's height, by where its curve ends
    for (name, c), colour in sorted(zip(curves, COLOURS * len(curves)), key=lambda k: -k[0][1][-1][1]):
        points = " ".join("%.1f,%.1f" % at(x, y) for x, y in c)
        x, y = at(*c[-1])
        label[x] = max(y + 4, label.get(x, 0) + 15)  # labels of curves that end beside each other stand below each other
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/><text x="{x + 8:.1f}" y="{label[x]:.1f}" fill="{colour}">{escape(name)}</text>')
    open(path, "w").write("\n".join(out + ["</svg>", ""]))


main()
