// Products in int8: rows of activations are quantized like rows of a weight, sums are integers.
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t int8_matmul_scratch(Context &, const qlora_int8_matmul_args &) { return 0; }
uint64_t int8_matmul_grad_scratch(Context &, const qlora_int8_matmul_grad_args &) { return 0; }

namespace {

constexpr float int8_product = 6.200012e-05f; // 1 / 127^2, as LLM.int8() writes it

// The first element of count whose value is NaN or infinite, or count.
template <class Value> uint64_t first_bad(uint64_t count, Value &&value) {
    uint64_t i = 0;
    while (i < count && (bits_of(value(i)) & 0x7f800000u) != 0x7f800000u) i++;
    return i;
}

int32_t bad_element(Context &context, const char *entry, const char *name, uint64_t i, uint64_t cols) {
    return context.fail(QLORA_ERROR_VALUE, "%s: %s element %llu (row %llu, column %llu) is NaN or infinite in f32; clean the tensor first", entry, name,
                        (unsigned long long)i, (unsigned long long)(i / cols), (unsigned long long)(i % cols));
}

} // namespace

// y[t][r] = int8 part over columns that are no outliers + sum over outlier columns + bias[r]
int32_t int8_matmul(Context &context, const qlora_int8_matmul_args &args) {
    const qlora_weight &weight = *args.weight;
    const uint64_t tokens = args.x.rows, rows = weight.rows, cols = weight.cols;
    const Decode decode = decoder(weight.format);
    const int8_t *codes = address<const int8_t>(weight.planes[QLORA_PLANE_CODE]);
    const float limit = args.threshold > 0 ? args.threshold : INFINITY;
    const uint64_t bad = first_bad(tokens * cols, [&](uint64_t i) { return get(args.x, i / cols, i % cols); });
    if (bad < tokens * cols) return bad_element(context, "qlora_int8_matmul", "x", bad, cols);

    Grid outlier(context, 1, cols), q(context, 1, cols);
    QLORA_TRY(outlier.status());
    QLORA_TRY(q.status());
    for (uint64_t t = 0; t < tokens; t++)
        for (uint64_t c = 0; c < cols; c++)
            if (std::fabs(get(args.x, t, c)) >= limit) outlier[0][c] = 1;
    for (uint64_t t = 0; t < tokens; t++) {
        float absmax = 0;
        for (uint64_t c = 0; c < cols; c++) {
            const float magnitude = std::fabs(get(args.x, t, c));
            if (magnitude < limit && magnitude > absmax) absmax = magnitude;
        }
        if (absmax < int8_least) absmax = 0;
        for (uint64_t c = 0; c < cols; c++) q[0][c] = outlier[0][c] != 0 ? 0 : int8_code(get(args.x, t, c), int8_inverse(absmax));
        for (uint64_t r = 0; r < rows; r++) {
            int32_t sum = 0;
            double rest = args.bias.handle ? address<const float>(args.bias)[r] : 0;
            for (uint64_t c = 0; c < cols; c++)
                if (outlier[0][c] == 0) sum += int32_t(q[0][c]) * codes[r * cols + c];
                else rest += double(get(args.x, t, c)) * round_to(args.x.type, decode(weight, r * cols + c));
            const float scale = absmax * int8_absmax(weight, r) * int8_product;
            const float part = float(sum) * scale;
            put(args.y, t, r, part + rest, args.flags & QLORA_FLAG_ACCUMULATE);
        }
    }
    return QLORA_OK;
}

// dx[t][c] = sum over r of quantized (dy[t][r] * scale of row r) times code[r][c]
int32_t int8_matmul_grad(Context &context, const qlora_int8_matmul_grad_args &args) {
    const qlora_weight &weight = *args.weight;
    const uint64_t tokens = args.dy.rows, rows = weight.rows, cols = weight.cols;
    const int8_t *codes = address<const int8_t>(weight.planes[QLORA_PLANE_CODE]);
    auto folded = [&](uint64_t t, uint64_t r) { return get(args.dy, t, r) * int8_scale(weight, r); };
    const uint64_t bad = first_bad(tokens * rows, [&](uint64_t i) { return folded(i / rows, i % rows); });
    if (bad < tokens * rows) return bad_element(context, "qlora_int8_matmul_grad", "dy times its row's scale:", bad, rows);
    for (uint64_t t = 0; t < tokens; t++) {
        float absmax = 0;
        for (uint64_t r = 0; r < rows; r++) absmax = std::fmax(absmax, std::fabs(folded(t, r)));
        if (absmax < int8_least) absmax = 0;
        const float inverse = int8_inverse(absmax), scale = absmax * int8_part;
        for (uint64_t c = 0; c < cols; c++) {
            int32_t sum = 0;
            for (uint64_t r = 0; r < rows; r++) sum += int32_t(int8_code(folded(t, r), inverse)) * codes[r * cols + c];
            const float part = float(sum) * scale;
            put(args.dx, t, c, part, args.flags & QLORA_FLAG_ACCUMULATE);
        }
    }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
