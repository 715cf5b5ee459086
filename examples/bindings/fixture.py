#!/usr/bin/env python3
"""Makes fixture.json by the reference backend: inputs from a counter, what a product and five steps of training give, and the
tolerances of backends/ops.def.

    QLORA_LIBRARY=build/libqlora.so PYTHONPATH=examples/bindings/python python3 examples/bindings/fixture.py"""
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "python", "tests"))
import qlora  # noqa: E402
import test_qlora  # noqa: E402


def values(count, seed):
    """Multiples of 1/128 in [-1, 1), the same in every language."""
    state, found = seed, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2147483648
        found.append((state >> 16) % 256 / 128 - 1)
    return found


def tolerance(operation):
    with open(os.path.join(HERE, "..", "..", "backends", "ops.def")) as file:
        return float(re.search(r"QLORA_OPERATION\(%s,[^,]*,[^,]*,[^,]*,[^,]*, *([^,]+)," % operation, file.read()).group(1))


rows, cols, tokens, rank = 24, 64, 5, 4
fixture = {"format": "nf4-dq", "rows": rows, "cols": cols, "tokens": tokens, "weights": values(rows * cols, 1), "x": values(tokens * cols, 2),
           "matmul_tolerance": tolerance("MATMUL"), "y": [],
           "train": {"rank": rank, "scale": 2, "learning_rate": 0.015625, "a": values(rank * cols, 3), "goal": values(tokens * rows, 4), "tolerance": tolerance("LINEAR_GRAD")}}
with qlora.Context(qlora.REF) as context:
    weight = context.quantize(fixture["format"], rows, cols, fixture["weights"])
    x, y = context.buffer(fixture["x"]), context.zeros(tokens * rows)
    weight.matmul(x, tokens, y)
    fixture["y"] = list(y.read())
    fixture["train"]["losses"] = test_qlora.losses(context, weight, fixture)
with open(os.path.join(HERE, "fixture.json"), "w") as file:
    json.dump(fixture, file, indent=1, separators=(",", ": "))
    file.write("\n")
