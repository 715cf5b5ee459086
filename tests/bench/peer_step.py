#!/usr/bin/env python3
"""Times a whole QLoRA training step of transformers, peft and bitsandbytes: LLaMA shapes, random weights, NF4 with double
quantization, LoRA on the seven linear layers of every block, gradient checkpointing, 8-bit AdamW.

    python3 tests/bench/peer_step.py --shape llama-7b --rows 1x512 4x512 16x512 1x2048

Prints a line per batch: median step time of 5 after 2, tokens per second, memory allocated at most. `qlora-finetune train` on
a model of `qlora-random-model` with the same shape is what it is compared with; see RESULTS.md.
"""
import argparse
import statistics
import time

import bitsandbytes as bnb
import peft
import torch
import transformers

SHAPES = {  # layers, width, feed forward, heads, key and value heads, vocabulary, rope base
    "llama-7b": (32, 4096, 11008, 32, 32, 32000, 1e4),
    "llama3-8b": (32, 4096, 14336, 32, 8, 128256, 5e5),
    "tiny": (2, 256, 768, 4, 2, 512, 1e4),
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(shape, rank):
    layers, width, feed_forward, heads, kv_heads, vocabulary, base = SHAPES[shape]
    config = transformers.LlamaConfig(hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers, num_attention_heads=heads,
                                      num_key_value_heads=kv_heads, vocab_size=vocabulary, max_position_embeddings=4096, rope_theta=base, use_cache=False)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config)
    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name, linear in list(parent.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                packed = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True,
                                           quant_type="nf4", device="meta")
                packed.weight = bnb.nn.Params4bit(linear.weight.data.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
                setattr(parent, name, packed.to("cuda"))
    model.is_loaded_in_4bit = True
    model.requires_grad_(False)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    model = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM"))
    model.train()
    torch.cuda.empty_cache()
    return model, vocabulary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-7b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rows", nargs="+", default=["1x512"], help="batches, as 4x512")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, "
          f"bitsandbytes {bnb.__version__}")
    torch.manual_seed(1)
    model, vocabulary = build(options.shape, options.rank)
    optimizer = bnb.optim.AdamW8bit([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for batch in options.rows:
        rows, length = map(int, batch.split("x"))
        ids = torch.randint(3, vocabulary, (rows, length), device="cuda")
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(7):
            torch.cuda.synchronize()
            start = time.perf_counter()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        step = statistics.median(times[2:])
        print(f"peer step | {options.shape} r={options.rank} {batch} | {step * 1e3:.1f} ms | {rows * length / step:.0f} tok/s | "
              f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB allocated", flush=True)


if __name__ == "__main__":
    main()
