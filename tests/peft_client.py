#!/usr/bin/env python3
"""A real client of the other kind: PEFT, on a small model of random weights that transformers makes.

usage: peft_client.py PATH/TO/qlora-finetune [--device cpu] [--architecture llama,qwen2,...]

For each architecture: an adapter that the program trains is converted to PEFT's directory, loaded there, and must give the
program's mean loss; a merged directory must give PEFT's logits; an adapter that PEFT makes (rank-stabilized, on some layers)
must give PEFT's loss here, as it is and through GGUF; linear combinations must agree. Exits 77 (skipped) when peft,
transformers or torch cannot be imported: pip install peft transformers torch.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

TOLERANCE = 1e-3
VOCABULARY = 96


def configurations(transformers):
    shared = dict(vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
                  bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False)
    gated = dict(shared, intermediate_size=128, num_key_value_heads=2)
    return {
        "llama": lambda: transformers.LlamaConfig(**gated),
        "qwen2": lambda: transformers.Qwen2Config(**gated),
        "phi3": lambda: transformers.Phi3Config(**gated),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**shared, intermediate_size=128),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--architecture", default="llama,phi3")
    arguments = parser.parse_args()
    try:
        import peft
        import torch
        import transformers
    except ImportError as error:
        print(f"SKIPPED: {error}; pip install peft transformers torch to run this test")
        return 77
    failed = 0
    for name in arguments.architecture.split(","):
        with tempfile.TemporaryDirectory() as folder:
            failed += Check(arguments, folder, name, peft, torch, transformers).run()
    print("FAILED" if failed else "passed")
    return 1 if failed else 0


class Check:
    def __init__(self, arguments, folder, name, peft, torch, transformers):
        self.arguments, self.folder, self.name = arguments, folder, name
        self.peft, self.torch, self.transformers = peft, torch, transformers
        self.failed = 0
        torch.manual_seed(1)
        torch.set_num_threads(1)
        transformers.utils.logging.disable_progress_bar()
        self.base = self.path("base")
        config = configurations(transformers)[name]()
        config.architectures = None
        model = transformers.AutoModelForCausalLM.from_config(config).float()
        for parameter in model.parameters():  # larger than their initialization, so that every part matters
            if parameter.dim() == 2:
                parameter.data *= 4
        model.save_pretrained(self.base)
        generator = random.Random(1)
        self.rows = [[[generator.randrange(3, VOCABULARY) for _ in range(6)], [generator.randrange(3, VOCABULARY) for _ in range(14)]]
                     for _ in range(8)]
        with open(self.path("rows.json"), "w") as file:
            json.dump({"rows": self.rows}, file)

    def path(self, name):
        return os.path.join(self.folder, name)

    def program(self, *arguments):
        done = subprocess.run([self.arguments.program, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{self.name}: {' '.join(arguments)}: {done.stderr.strip()}")

    def our_loss(self, base, *adapters):
        options = [text for adapter in adapters for text in ("--adapter", adapter)]
        self.program("eval", "--model", base, "--device", self.arguments.device, "--ids", self.path("rows.json") + ":rows", "--json",
                     self.path("eval.json"), *options)
        with open(self.path("eval.json")) as file:
            return json.load(file)[-1]["answer_loss"]

    def load(self, path=None):
        return self.transformers.AutoModelForCausalLM.from_pretrained(path or self.base, torch_dtype=self.torch.float32).eval()

    def with_adapter(self, path):
        return self.peft.PeftModel.from_pretrained(self.load(), path).eval()

    def logits(self, model):
        with self.torch.no_grad():
            return [model(self.torch.tensor([prompt + answer])).logits[0] for prompt, answer in self.rows]

    def loss(self, model):
        total, count = 0.0, 0
        for (prompt, answer), logits in zip(self.rows, self.logits(model)):
            targets = self.torch.tensor(answer)
            rows = logits[len(prompt) - 1:len(prompt) + len(answer) - 1]
            total += self.torch.nn.functional.cross_entropy(rows, targets, reduction="sum").item()
            count += len(answer)
        return total / count

    def same(self, what, ours, theirs):
        wrong = not abs(ours - theirs) <= TOLERANCE * max(1.0, abs(theirs))
        print(f"{self.name}: {what}: {ours:.5f} here, {theirs:.5f} there{'   WRONG' if wrong else ''}")
        self.failed += wrong

    def run(self):
        trained, directory = self.path("trained.gguf"), self.path("trained-peft")
        self.program("train", "--model", self.base, "--quant", "none", "--device", self.arguments.device, "--train-ids",
                     self.path("rows.json") + ":rows", "--steps", "4", "--batch", "8", "--rank", "4", "--learning-rate", "0.01", "--out", trained)
        self.program("convert", "--model", self.base, "--adapter", trained, "--out", directory)
        model = self.with_adapter(directory)
        self.same("base", self.our_loss(self.base), self.loss(self.load()))
        self.same("trained here", self.our_loss(self.base, trained), self.loss(model))
        self.program("convert", "--model", self.base, "--adapter", directory, "--out", self.path("again.gguf"))
        with open(trained, "rb") as first, open(self.path("again.gguf"), "rb") as second:
            equal = first.read() == second.read()
        print(f"{self.name}: GGUF to PEFT to GGUF {'bit-equal' if equal else 'DIFFERS'}")
        self.failed += not equal

        self.program("merge", "--model", self.base, "--adapter", directory, "--device", self.arguments.device, "--out", self.path("merged"))
        merged = self.logits(self.load(self.path("merged")))
        largest = max((a - b).abs().max().item() for a, b in zip(merged, self.logits(model)))
        wrong = not largest <= TOLERANCE
        print(f"{self.name}: merged here, logits differ by {largest:.1e}{'   WRONG' if wrong else ''}")
        self.failed += wrong

        targets = [leaf for leaf in sorted({module.rsplit(".", 1)[-1] for module, part in self.load().named_modules()
                                            if isinstance(part, self.torch.nn.Linear) and any(digit in module for digit in "01")})]
        made = self.peft.get_peft_model(self.load(), self.peft.LoraConfig(r=4, lora_alpha=7, use_rslora=True, target_modules=targets[::2],
                                                                         init_lora_weights=False, task_type="CAUSAL_LM"))
        made.save_pretrained(self.path("made"))
        self.same("made by PEFT", self.our_loss(self.base, self.path("made")), self.loss(made.eval()))
        self.program("convert", "--model", self.base, "--adapter", self.path("made"), "--out", self.path("made.gguf"))
        self.same("made by PEFT, as GGUF", self.our_loss(self.base, self.path("made.gguf")), self.loss(made))

        model.load_adapter(self.path("made"), "made")
        self.program("combine", "--model", self.base, "--adapter", directory + "=0.5", "--adapter", self.path("made"), "--type", "linear",
                     "--out", self.path("linear"))
        model.add_weighted_adapter(["default", "made"], [0.5, 1.0], "linear", combination_type="linear")
        model.set_adapter("linear")
        self.same("combined", self.our_loss(self.base, self.path("linear")), self.loss(model))
        return self.failed


if __name__ == "__main__":
    sys.exit(main())
