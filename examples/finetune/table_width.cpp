#include "table_width.h"

#include "format_choice.h"
#include "weight_loader.h"

namespace finetune {
namespace {

std::vector<float> values_of(const StoredWeight &weight) {
    return is_float(weight.format) ? decode_floats(weight) : decode_weight(weight);
}

qlora_span span_of(const std::vector<float> &values) {
    return {uint64_t(reinterpret_cast<uintptr_t>(values.data())), 0, values.size() * sizeof(float)};
}

// x[rows][width] m[hidden][width]^T
StoredWeight product(const StoredWeight &table, const std::vector<float> &m, uint64_t hidden) {
    const std::vector<float> x = values_of(table);
    StoredWeight y;
    y.format = y.dtype = QLORA_FORMAT_F32;
    y.rows = table.rows;
    y.cols = hidden;
    y.made.resize(y.rows * y.cols);
    auto weight = qlora::make<qlora_weight>();
    weight.format = QLORA_FORMAT_F32;
    weight.rows = hidden;
    weight.cols = table.cols;
    weight.planes[QLORA_PLANE_CODE] = span_of(m);
    const qlora::Context context(QLORA_BACKEND_CPU);
    auto args = qlora::make<qlora_matmul_args>();
    args.weight = &weight;
    args.x = qlora::tensor(QLORA_FORMAT_F32, table.rows, table.cols, span_of(x));
    args.y = qlora::tensor(QLORA_FORMAT_F32, y.rows, y.cols, span_of(y.made));
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_MATMUL, args));
    args.scratch = scratch.span();
    context.weight_matmul(args);
    y.planes[QLORA_PLANE_CODE] = reinterpret_cast<const uint8_t *>(y.made.data());
    return y;
}

} // namespace

StoredWeight widened_embedding(const StoredWeight &table, const StoredWeight &in) {
    return product(table, values_of(in), in.rows);
}

StoredWeight widened_head(const StoredWeight &table, const StoredWeight &out) {
    const std::vector<float> values = values_of(out);
    std::vector<float> turned(values.size());
    for (uint64_t row = 0; row < out.rows; ++row)
        for (uint64_t col = 0; col < out.cols; ++col) turned[col * out.rows + row] = values[row * out.cols + col];
    return product(table, turned, out.cols);
}

} // namespace finetune
