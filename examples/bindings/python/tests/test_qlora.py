"""What every binding proves; the numbers are in ../../fixture.json, made by the library's reference backend.

    QLORA_LIBRARY=build/libqlora.so PYTHONPATH=examples/bindings/python python3 examples/bindings/python/tests/test_qlora.py"""
import ctypes
import json
import os
import unittest

import qlora
from qlora import declarations as api

BINDINGS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load(name):
    with open(os.path.join(BINDINGS, name)) as file:
        return json.load(file)


def distance(found, expected):
    """||found - expected|| / ||expected||"""
    error = sum((a - b) ** 2 for a, b in zip(found, expected))
    return (error / sum(b * b for b in expected)) ** 0.5


class Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fixture = load("fixture.json")

    def weight(self, context):
        return context.quantize(self.fixture["format"], self.fixture["rows"], self.fixture["cols"], self.fixture["weights"])

    def test_version_is_that_of_the_declarations(self):
        self.assertEqual(".".join(map(str, qlora.version())), load("qlora.json")["version"])

    def test_layouts_are_those_of_c(self):
        machine = 0 if ctypes.sizeof(ctypes.c_void_p) == 8 else 2 if ctypes.alignment(ctypes.c_uint64) == 4 else 1
        for struct in load("qlora.json")["structs"]:
            made = getattr(api, struct["name"])
            self.assertEqual(ctypes.sizeof(made), struct["size"][machine], struct["name"])
            for field in struct["fields"]:
                self.assertEqual(getattr(made, field["name"]).offset, field["offset"][machine], field["name"])

    def test_an_error_has_its_status_and_says_why(self):
        with qlora.Context() as context:
            weight = self.weight(context)
            x, y = context.zeros(self.fixture["cols"]), context.zeros(1)
            with self.assertRaises(qlora.Error) as caught:
                weight.matmul(x, 1, y)
            self.assertEqual(caught.exception.status, api.QLORA_ERROR_SHAPE)
            self.assertIn("qlora_weight_matmul: y", str(caught.exception))
        with self.assertRaises(qlora.Error) as caught:
            qlora.Context(77)
        self.assertIn("qlora_context_create", str(caught.exception))

    def test_a_log_receives_lines_and_what_it_raises_comes_out(self):
        lines = []
        with qlora.Context(log=lines.append) as context:
            with self.assertRaises(qlora.Error):
                self.weight(context).matmul(context.zeros(1), 1, context.zeros(1))
        self.assertEqual(len(lines), 1)
        self.assertIn("qlora_weight_matmul", lines[0])

        def thrower(line):
            raise KeyError(line)

        with qlora.Context(log=thrower) as context:
            weight = self.weight(context)
            with self.assertRaises(KeyError):
                weight.matmul(context.zeros(1), 1, context.zeros(1))
            x, y = context.buffer(self.fixture["x"]), context.zeros(len(self.fixture["y"]))
            weight.matmul(x, self.fixture["tokens"], y)  # and all goes on

    def test_quantize_and_matmul(self):
        for backend in (qlora.REF, qlora.CPU):
            with qlora.Context(backend) as context:
                x, y = context.buffer(self.fixture["x"]), context.zeros(len(self.fixture["y"]))
                self.weight(context).matmul(x, self.fixture["tokens"], y)
                self.assertLessEqual(distance(y.read(), self.fixture["y"]), self.fixture["matmul_tolerance"])

    def test_five_steps_of_training(self):
        train, tokens = self.fixture["train"], self.fixture["tokens"]
        for backend in (qlora.REF, qlora.CPU):
            with qlora.Context(backend) as context:
                self.assertLessEqual(distance(losses(context, self.weight(context), self.fixture), train["losses"]), train["tolerance"])

    def test_contexts_come_and_go(self):
        for _ in range(1000):
            qlora.Context(threads=2).close()


def losses(context, weight, fixture):
    """Of each step, half the squared distance of the outputs from the goal."""
    train, tokens, found = fixture["train"], fixture["tokens"], []
    adapter = qlora.Adapter(weight, train["rank"], train["scale"], train["a"])
    x, y = context.buffer(fixture["x"]), context.zeros(tokens * fixture["rows"])
    for _ in range(5):
        adapter.forward(x, tokens, y)
        dy = [a - b for a, b in zip(y.read(), train["goal"])]
        found.append(sum(d * d for d in dy) / 2)
        y.write(dy)
        adapter.backward(x, tokens, y)
        adapter.step(train["learning_rate"])
    return found


if __name__ == "__main__":
    unittest.main()
