#!/usr/bin/env python3
"""The rows of qlora_bench for the peer: bitsandbytes through its public API, timed with CUDA events on rotating buffers.

usage: peer_bitsandbytes.py [--only TEXT] [--quick]        needs torch with CUDA and bitsandbytes; exits 77 without

Prints the same columns as tests/bench/RESULTS.md, with the peer's time in "ours" and cuBLAS (torch.matmul on the decoded weight)
as its peer. The floor is made of a copy and a GEMM measured in the same run.
"""
import argparse
import statistics
import sys

CACHE_BYTES = 256 << 20  # four times the last cache of the GPUs at hand


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    try:
        import torch
        import bitsandbytes
        import bitsandbytes.functional as functional
    except ImportError as error:
        print(f"SKIPPED: {error}")
        return 77
    if not torch.cuda.is_available():
        print("SKIPPED: torch sees no CUDA device")
        return 77

    def timed(call, copies):
        """Median, 20th and 80th percentile of one call in seconds, in batches between two events."""
        for i in range(3):
            call(i % copies)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call(0)
        end.record()
        torch.cuda.synchronize()
        once = max(start.elapsed_time(end), 1e-3)
        batch, samples = max(1, int(10 / once)), 5 if options.quick else 50
        seconds, index = [], 0
        for _ in range(samples):
            start.record()
            for _ in range(batch):
                call(index % copies)
                index += 1
            end.record()
            torch.cuda.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3 / batch)
        seconds.sort()
        return statistics.median(seconds), seconds[len(seconds) // 5], seconds[-1 - len(seconds) // 5]

    def rotation(footprint):
        return max(1, min(64, CACHE_BYTES // footprint + 1))

    def random(*shape, deviation=1.0):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * deviation

    print(f"device   {torch.cuda.get_device_name()}")
    print(f"peer     bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    source = torch.empty(1 << 28, device="cuda", dtype=torch.float32)
    target = torch.empty_like(source)
    copy = 2 * source.numel() * 4 / timed(lambda i: target.copy_(source), 1)[0]
    del source, target
    a, b = random(8192, 8192), random(8192, 8192)
    gemm = 2 * 8192**3 / timed(lambda i: torch.matmul(a, b), 1)[0]
    del a, b
    print(f"copy     {copy / 1e9:.1f} GB/s (read + write)\nGEMM     {gemm / 1e12:.1f} TFLOP/s (torch.matmul, bf16, 8192^3)\n")
    print("| workload | shape | dtype | M | ours us (p20-p80) | peer us | ratio | floor us | % of floor | rate | max rel err |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")

    def row(workload, shape, kind, tokens, ours, peer, size, work, error):
        floor = max(size / copy, work / gemm)
        rate = f"{work / ours[0] / 1e12:.3f} TFLOP/s" if work / gemm > size / copy else f"{size / ours[0] / 1e9:.1f} GB/s"
        other = f"{peer[0] * 1e6:.1f} | {peer[0] / ours[0]:.2f}" if peer else "- | -"
        print(f"| {workload} | {shape} | {kind} | {tokens or '-'} | {ours[0] * 1e6:.1f} ({ours[1] * 1e6:.1f}-{ours[2] * 1e6:.1f}) | {other} "
              f"| {floor * 1e6:.1f} | {100 * floor / ours[0]:.1f} | {rate} | {error:.1e} |", flush=True)

    def wanted(*words):
        return options.only in " ".join(words)

    rows, cols = (256, 4096) if options.quick else (65536, 4096)
    for name, nested in (("nf4", False), ("nf4-dq", True)):
        if not wanted("quantize dequantize", f"{rows}x{cols}", f"{name}/bf16"):
            continue
        values = random(rows, cols, deviation=0.02)
        bits = values.numel() * (0.516 if nested else 0.5625)
        packed, state = functional.quantize_4bit(values, quant_type="nf4", blocksize=64, compress_statistics=nested)
        decoded = functional.dequantize_4bit(packed, state)
        error = float((decoded.float() - values.float()).norm() / values.float().norm())  # of the format itself
        ours = timed(lambda i: functional.quantize_4bit(values, quant_type="nf4", blocksize=64, compress_statistics=nested), 1)
        row("quantize", f"{rows}x{cols}", f"{name}/bf16", 0, ours, None, values.numel() * 2 + bits, 0, error)
        ours = timed(lambda i: functional.dequantize_4bit(packed, state), 1)
        row("dequantize", f"{rows}x{cols}", f"{name}/bf16", 0, ours, None, values.numel() * 2 + bits, 0, error)
    if wanted("quantize dequantize", f"{rows}x{cols}", "dyn8/bf16"):
        values = random(rows, cols, deviation=0.02)
        packed, state = functional.quantize_blockwise(values, blocksize=256)
        error = float((functional.dequantize_blockwise(packed, state).float() - values.float()).norm() / values.float().norm())
        size = values.numel() * 3
        row("quantize", f"{rows}x{cols}", "dyn8/bf16", 0, timed(lambda i: functional.quantize_blockwise(values, blocksize=256), 1), None, size, 0, error)
        row("dequantize", f"{rows}x{cols}", "dyn8/bf16", 0, timed(lambda i: functional.dequantize_blockwise(packed, state), 1), None, size, 0, error)

    for rows, cols in ([(256, 512)] if options.quick else [(4096, 4096), (11008, 4096), (14336, 4096)]):
        for tokens in (1, 8) if options.quick else (1, 8, 64, 512, 2048, 8192):
            for workload in ("matmul", "matmul_grad"):
                shape = f"{rows}x{cols}"
                if not wanted(workload, shape, "nf4-dq/bf16"):
                    continue
                size = rows * cols * 0.516 + 2 * tokens * (rows + cols)
                copies = rotation(int(size))
                weights = [functional.quantize_4bit(random(rows, cols, deviation=0.02), quant_type="nf4", blocksize=64, compress_statistics=True) for _ in range(copies)]
                plain_copies = rotation(2 * rows * cols)
                plain = [functional.dequantize_4bit(*weights[i % copies]) for i in range(plain_copies)]
                with torch.no_grad():
                    if workload == "matmul":
                        x = random(tokens, cols)
                        ours = timed(lambda i: bitsandbytes.matmul_4bit(x, weights[i][0].t(), quant_state=weights[i][1]), copies)
                        found = bitsandbytes.matmul_4bit(x, weights[0][0].t(), quant_state=weights[0][1])
                        peer = timed(lambda i: torch.matmul(x, plain[i].t()), plain_copies)
                        expected = x.double() @ plain[0].double().t()
                    else:
                        x = random(tokens, rows)
                        ours = timed(lambda i: torch.matmul(x, functional.dequantize_4bit(*weights[i])), copies)
                        found = torch.matmul(x, functional.dequantize_4bit(*weights[0]))
                        peer = timed(lambda i: torch.matmul(x, plain[i]), plain_copies)
                        expected = x.double() @ plain[0].double()
                error = float((found.double() - expected).norm() / expected.norm())
                row(workload, shape, "nf4-dq/bf16", tokens, ours, peer, size, 2 * tokens * rows * cols, error)
                del weights, plain

    # LLM.int8() with six outlier columns, as qlora_bench makes them; the peer of the peer is the product of the bytes alone.
    for rows, cols in ([(256, 512)] if options.quick else [(4096, 4096), (11008, 4096)]):
        for tokens in (33,) if options.quick else (1, 64, 512, 2048, 8192):
            shape = f"{rows}x{cols}"
            if not wanted("int8_matmul", shape, "int8/f16"):
                continue
            size, copies = rows * cols + 2 * tokens * (rows + cols), rotation(rows * cols)
            weight = random(rows, cols, deviation=0.02).half()
            layers = []
            for _ in range(copies):
                layer = bitsandbytes.nn.Linear8bitLt(cols, rows, bias=False, has_fp16_weights=False, threshold=6.0)
                layer.weight = bitsandbytes.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
                layers.append(layer.cuda().eval())
            x = random(tokens, cols).clamp(-5.9, 5.9).half()
            x[:, 5::683] += 6.5 * x[:, 5::683].sign()
            with torch.no_grad():
                found = layers[0](x)
                ours = timed(lambda i: layers[i](x), copies)
                peer = None
                if tokens > 16:
                    a = torch.randint(-127, 127, (tokens, cols), device="cuda", dtype=torch.int8)
                    b = [torch.randint(-127, 127, (rows, cols), device="cuda", dtype=torch.int8) for _ in range(copies)]
                    peer = timed(lambda i: torch._int_mm(a, b[i].t()), copies)
                expected = x.double() @ weight.double().t()
            error = float((found.double() - expected).norm() / expected.norm())  # of the quantization itself
            row("int8_matmul", shape, "int8/f16", tokens, ours, peer, size, 2 * tokens * rows * cols, error)
            del layers
    return 0


if __name__ == "__main__":
    sys.exit(main())
