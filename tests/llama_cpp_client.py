#!/usr/bin/env python3
"""A real client loads our adapter: llama.cpp, through the Python module llama_cpp, on the same base model.

usage: llama_cpp_client.py PATH/TO/qlora-finetune [--model BASE.gguf --train-ids F.json:train --eval-ids F.json:test] [OPTION ...]

Trains a short adapter with the program (on the bundled model and dates unless told otherwise; further options go to the
training), then compares the mean answer loss over 32 held-out rows: llama.cpp's must agree with the program's own within
0.01, and lie far below the base's; that of the base with the adapter merged into it, in f16, within 0.005. Exits 77 (skipped) when llama_cpp cannot be imported: pip install llama-cpp-python.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

ROWS = 32
TOLERANCE, MERGED_TOLERANCE = 0.01, 0.005
EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "data")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--model", default=os.path.join(EXAMPLES, "demo-base-f16.gguf"))
    parser.add_argument("--train-ids")
    parser.add_argument("--eval-ids")
    parser.add_argument("--device", default="cpu")
    arguments, training = parser.parse_known_args()
    try:
        import llama_cpp
        import numpy
    except ImportError as error:
        print(f"SKIPPED: {error}; pip install llama-cpp-python to run this test")
        return 77

    if arguments.train_ids:
        train = ["--train-ids", arguments.train_ids]
        held_out = ["--eval-ids", arguments.eval_ids]
    else:
        train = ["--data", os.path.join(EXAMPLES, "dates_train.jsonl")]
        held_out = ["--eval-data", os.path.join(EXAMPLES, "dates_test.jsonl")]
    training = training or ["--steps", "40", "--batch", "16", "--learning-rate", "3e-3"]

    with tempfile.TemporaryDirectory() as folder:
        adapter = os.path.join(folder, "adapter.gguf")
        metrics = os.path.join(folder, "metrics.json")
        common = [arguments.program, "--model", arguments.model, "--device", arguments.device]
        subprocess.run(common + train + training + ["--out", adapter], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(common + held_out + ["--quant", "none", "--adapter-init", adapter, "--steps", "0", "--eval-rows",
                                            str(ROWS), "--metrics", metrics], check=True, stdout=subprocess.DEVNULL)
        with open(metrics) as file:
            ours = json.load(file)["eval_before"]
        merged = os.path.join(folder, "merged.gguf")
        subprocess.run([arguments.program, "merge", "--model", arguments.model, "--device", arguments.device, "--adapter", adapter,
                        "--type", "f16", "--out", merged], check=True, stdout=subprocess.DEVNULL)
        base = client_loss(llama_cpp, numpy, arguments.model, held_out, None)
        theirs = client_loss(llama_cpp, numpy, arguments.model, held_out, adapter)
        theirs_merged = client_loss(llama_cpp, numpy, merged, held_out, None)

    print(f"mean answer loss over {ROWS} rows: base {base:.4f} (llama.cpp)   with adapter {theirs:.4f} (llama.cpp) {ours:.4f} (ours)   merged {theirs_merged:.4f} (llama.cpp)")
    if not math.isfinite(theirs) or abs(theirs - ours) > TOLERANCE:
        print(f"FAILED: llama.cpp and qlora-finetune differ by {abs(theirs - ours):.4f}, more than {TOLERANCE}")
        return 1
    if not abs(theirs_merged - ours) <= MERGED_TOLERANCE:
        print(f"FAILED: the merged model's loss is {abs(theirs_merged - ours):.4f} off, more than {MERGED_TOLERANCE}")
        return 1
    if theirs > base - 0.25:
        print("FAILED: the adapter does not lower the base's loss; was it applied?")
        return 1
    print("passed")
    return 0


def client_loss(llama_cpp, numpy, model, held_out, adapter):
    """Mean loss of an answer token as llama.cpp computes it."""
    client = llama_cpp.Llama(model_path=model, lora_path=adapter, n_ctx=512, n_batch=512, logits_all=True, verbose=False)
    total, count = 0.0, 0
    for prompt, answer in held_out_rows(client, held_out):
        client.reset()
        client.eval(prompt + answer)
        logits = numpy.array(client.scores[: len(prompt) + len(answer)], dtype=numpy.float64)
        for place in range(len(prompt), len(prompt) + len(answer)):
            row = logits[place - 1]
            top = row.max()
            total += top + math.log(numpy.exp(row - top).sum()) - row[(prompt + answer)[place]]
            count += 1
    return total / count


def held_out_rows(client, held_out):
    """The first rows as token ids; texts go through llama.cpp's own tokenizer."""
    if held_out[0] == "--eval-ids":
        path, key = held_out[1].rsplit(":", 1)
        with open(path) as file:
            return json.load(file)[key][:ROWS]
    rows = []
    with open(held_out[1]) as file:
        for line in file.readlines()[:ROWS]:
            row = json.loads(line)
            prompt = client.tokenize(row["prompt"].encode(), add_bos=True, special=False)
            whole = client.tokenize((row["prompt"] + row["answer"]).encode(), add_bos=True, special=False)
            if whole[: len(prompt)] != prompt:
                sys.exit("the answer's tokens depend on the prompt's; choose prompts that end with a newline")
            rows.append((prompt, whole[len(prompt):] + [client.token_eos()]))
    return rows


if __name__ == "__main__":
    sys.exit(main())
