#!/usr/bin/env python3
"""halve.py IN.safetensors OUT.safetensors: a dataset (`didact dataset export`) with images of half the side, means of 2 x 2 pixels."""
import json
import struct
import sys

import numpy as np

raw = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
out, body = {"__metadata__": header.pop("__metadata__")}, b""
for name, t in header.items():
    a = np.frombuffer(data[slice(*t["data_offsets"])], np.uint8).reshape(t["shape"])
    if a.ndim == 4:
        b, c, h, w = a.shape
        a = (a.reshape(b, c, h // 2, 2, w // 2, 2).astype(np.uint32).sum((3, 5)) + 2) // 4
    a = a.astype(np.uint8)
    out[name] = {"dtype": "U8", "shape": list(a.shape), "data_offsets": [len(body), len(body) + a.size]}
    body += a.tobytes()
text = json.dumps(out).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + body)
