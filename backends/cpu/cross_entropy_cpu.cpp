// losses[t] = log sum exp logits - logits[target], dlogits = grad_scale (softmax - onehot), dx = dlogits W, in chunks of the
// rows that have a target: the others cost nothing. Capped logits are never stored, so that the cap's slope has all its digits.
#include "backends/cpu/gemm_cpu.h"

#include <cmath>
#include <cstring>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t chunk_bytes = 64 << 20; // of logits, unless the caller bounds the rows
constexpr uint64_t fewest_rows = 32, most_rows = 512;

// Pieces of scratch. index holds the rows with a target.
struct Pieces {
    uint64_t chunk, index, x, logits, dx, product, bytes;
    Pieces(Context &context, const qlora_cross_entropy_args &args) {
        const uint64_t tokens = args.x.rows, cols = args.x.cols, vocabulary = args.weight->rows;
        uint64_t rows = args.chunk_rows;
        if (rows == 0) rows = least(most_rows, most(fewest_rows, chunk_bytes / (vocabulary * 4)));
        chunk = least(rows, tokens);
        index = 0;
        x = index + align_scratch(tokens * 4);
        logits = x + align_scratch(chunk * cols * 4);
        dx = logits + align_scratch(chunk * vocabulary * 4);
        product = dx + (args.dx.type ? align_scratch(chunk * cols * 4) : 0);
        uint64_t needed = product_scratch(context, forward(args, chunk, nullptr, nullptr));
        if (args.dx.type) needed = most(needed, product_scratch(context, backward(args, chunk, nullptr, nullptr)));
        bytes = product + needed;
    }
    static Product forward(const qlora_cross_entropy_args &args, uint64_t rows, const float *x, float *logits) {
        const uint64_t cols = args.x.cols, vocabulary = args.weight->rows;
        Product product = {rows, vocabulary, {}, 0, args.compute_type, logits, QLORA_FORMAT_F32, vocabulary, 1, optional<const float>(args.bias), false};
        add_term(product, operand(x, cols, true), operand(*args.weight, true), cols);
        return product;
    }
    static Product backward(const qlora_cross_entropy_args &args, uint64_t rows, const float *dlogits, float *dx) {
        const uint64_t cols = args.x.cols, vocabulary = args.weight->rows;
        Product product = {rows, cols, {}, 0, args.compute_type, dx, QLORA_FORMAT_F32, cols, 1, nullptr, false};
        add_term(product, operand(dlogits, vocabulary, true), operand(*args.weight, false), vocabulary);
        return product;
    }
};

} // namespace

uint64_t cross_entropy_scratch(Context &context, const qlora_cross_entropy_args &args) { return Pieces(context, args).bytes; }

int32_t cross_entropy(Context &context, const qlora_cross_entropy_args &args) {
    const Pieces pieces(context, args);
    const Kernels &kernels = kernels_of(context);
    const uint64_t tokens = args.x.rows, cols = args.x.cols, vocabulary = args.weight->rows;
    const int32_t *targets = address<const int32_t>(args.targets);
    const int type = type_index(args.x.type);
    char *place = address<char>(args.scratch);
    uint32_t *index = reinterpret_cast<uint32_t *>(place + pieces.index);
    float *x = reinterpret_cast<float *>(place + pieces.x), *logits = reinterpret_cast<float *>(place + pieces.logits), *dx = reinterpret_cast<float *>(place + pieces.dx);
    float *losses = address<float>(args.losses);
    for (uint64_t t = 0; t < tokens; t++)
        if (targets[t] >= 0 && uint64_t(targets[t]) >= vocabulary)
            return context.fail(QLORA_ERROR_ARGUMENT, "qlora_cross_entropy_loss: targets[%llu] is %d; the head has rows 0..%llu", (unsigned long long)t, targets[t],
                                (unsigned long long)vocabulary - 1);
    uint64_t active = 0;
    for (uint64_t t = 0; t < tokens; t++) {
        if (targets[t] >= 0) { index[active++] = uint32_t(t); continue; }
        losses[t] = 0;
        if (args.dx.type) std::memset(element(args.dx, t, 0), 0, size_t(cols) * type_bytes(args.dx.type));
    }
    for (uint64_t begin = 0; begin < active; begin += pieces.chunk) {
        const uint64_t rows = least(pieces.chunk, active - begin);
        const uint32_t *token = index + begin;
        parallel(context, rows, [&](uint64_t r, uint32_t) { kernels.load[type](element(args.x, token[r], 0), cols, x + r * cols); });
        multiply_product(context, Pieces::forward(args, rows, x, logits), place + pieces.product);
        parallel(context, rows, [&](uint64_t r, uint32_t) {
            float *row = logits + r * vocabulary, maximum, sum;
            kernels.softmax_sum(row, vocabulary, args.soft_cap, &maximum, &sum);
            const int32_t target = targets[token[r]];
            const double lse = double(maximum) + std::log(double(sum));
            // Capped as the others are: the loss of a row with one logit is 0.
            float slope;
            const double logit = double(kernels.cap_logit(row[target], args.soft_cap, &slope));
            losses[token[r]] = float(lse - logit);
            if (!args.dx.type) return;
            // scale / sum as a factor: subtracting a rounded lse would cost digits.
            const double own = (std::exp(logit - lse) - 1) * double(slope);
            kernels.softmax_grad(row, vocabulary, args.soft_cap, maximum, float(double(args.grad_scale) / double(sum)));
            row[target] = float(double(args.grad_scale) * own);
        });
        if (!args.dx.type) continue;
        multiply_product(context, Pieces::backward(args, rows, logits, dx), place + pieces.product);
        parallel(context, rows, [&](uint64_t r, uint32_t) { kernels.store[type](dx + r * cols, cols, element(args.dx, token[r], 0)); });
    }
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
