#!/usr/bin/env python3
"""The optimizer rows of qlora_bench for the peers: bitsandbytes' 8-bit optimizers and torch's fused AdamW through their public
step(), timed with CUDA events.

usage: peer_optimizer.py [--only TEXT] [--quick]        needs torch with CUDA; exits 77 without; bitsandbytes' rows need it

Prints the same columns as tests/bench/RESULTS.md, with the peer's time in "ours". The floor is made of the bytes that must move and a
copy measured in the same run; the last column is the largest difference of one step from the same step in double.
"""
import argparse
import statistics
import sys

ADAPTERS = [size * 16 for _ in range(32) for size in [4096] * 9 + [11008, 4096, 11008, 11008, 4096]]
LARGE = [131072 * 4096]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    try:
        import torch
    except ImportError as error:
        print(f"SKIPPED: {error}")
        return 77
    if not torch.cuda.is_available():
        print("SKIPPED: torch sees no CUDA device")
        return 77
    try:
        import bitsandbytes
    except ImportError as error:
        print(f"SKIPPED: the rows of bitsandbytes: {error}")
        bitsandbytes = None

    def timed(call):
        """Median, 20th and 80th percentile of one call in seconds."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for _ in range(3):
            call()
        seconds = []
        for _ in range(5 if options.quick else 15):
            start.record()
            for _ in range(4):
                call()
            end.record()
            torch.cuda.synchronize()
            seconds.append(start.elapsed_time(end) / 4e3)
        seconds.sort()
        return statistics.median(seconds), seconds[len(seconds) // 5], seconds[-1 - len(seconds) // 5]

    print(f"device   {torch.cuda.get_device_name()}")
    print(f"peers    bitsandbytes {bitsandbytes.__version__ if bitsandbytes else '-'}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    source = torch.empty(1 << 28, device="cuda", dtype=torch.float32)
    target = torch.empty_like(source)
    copy = 2 * source.numel() * 4 / timed(lambda: target.copy_(source))[0]
    del source, target
    print(f"copy     {copy / 1e9:.1f} GB/s (read + write)\n")
    print("| workload | shape | dtype | M | ours us (p20-p80) | peer us | ratio | floor us | % of floor | rate | max rel err |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")

    rate, decay, beta1, beta2, epsilon = 1e-4, 0.01, 0.9, 0.999, 1e-8

    def expected(p, g, lion):
        """The first step in double."""
        p, g = p.double(), g.double()
        if lion:
            return p * (1 - rate * decay) - rate * torch.sign((1 - beta1) * g)
        return p * (1 - rate * decay) - rate * g / (g.abs() + epsilon)

    def row(workload, counts, kind, size, make, lion=False):
        shape = f"{len(counts)} tensor{'s' if len(counts) > 1 else ''}, {sum(counts) // 1000} k"
        if options.only not in f"{workload} {shape} {kind}":
            return
        tensors = []
        for count in counts:
            tensor = torch.nn.Parameter(torch.randn(count, device="cuda") * 1e-2)
            tensor.grad = torch.randn(count, device="cuda") * 1e-3
            tensors.append(tensor)
        wanted = expected(tensors[0].detach()[:65536], tensors[0].grad[:65536], lion)
        optimizer = make(tensors)
        optimizer.step()
        found = tensors[0].detach()[:65536].double()
        error = float((found - wanted).norm() / wanted.norm())
        ours = timed(optimizer.step)
        moved = size * sum(counts)
        print(f"| {workload} | {shape} | {kind} | - | {ours[0] * 1e6:.1f} ({ours[1] * 1e6:.1f}-{ours[2] * 1e6:.1f}) | - | - | {moved / copy * 1e6:.1f} "
              f"| {100 * moved / copy / ours[0]:.1f} | {moved / ours[0] / 1e9:.1f} GB/s | {error:.1e} |", flush=True)
        del tensors, optimizer, wanted
        torch.cuda.empty_cache()

    for counts in ([[65536, 4096 * 43]] if options.quick else [ADAPTERS, LARGE]):
        row("torch fused adamw", counts, "f32", 28, lambda p: torch.optim.AdamW(p, lr=rate, weight_decay=decay, fused=True))
        if bitsandbytes:
            row("bitsandbytes adamw", counts, "f32/8-bit", 16 + 16 / 256, lambda p: bitsandbytes.optim.AdamW8bit(p, lr=rate, weight_decay=decay))
            row("bitsandbytes lion", counts, "f32/8-bit", 14 + 8 / 256, lambda p: bitsandbytes.optim.Lion8bit(p, lr=rate, weight_decay=decay, betas=(beta1, 0.99)), lion=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
