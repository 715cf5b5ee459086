// The product behind int8_matmul and its gradient: y[rows][cols] = quantized x times codes of a weight, summed in int32.
#pragma once
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

// How rows of activations become bytes: x * fold (unless null), with zeros in outlier columns, times the inverse of the row's
// absmax.
struct Int8Rows {
    const qlora_tensor &x;
    const float *fold;      // [depth] or null
    const float *absmax;    // [rows]
    const uint32_t *outliers; // ascending columns
    uint64_t outlier_count;

    // dst[count] = elements (r, k..), folded
    void read(const Kernels &kernels, uint64_t r, uint64_t k, uint64_t count, float *dst) const {
        kernels.load[type_index(x.type)](element(x, r, k), count, dst);
        for (uint64_t i = 0; fold && i < count; i++) dst[i] *= fold[k + i];
    }
};

struct Int8Product {
    Int8Rows rows;
    const qlora_weight &weight;
    bool turned; // the contraction runs along rows of the weight (forward), else along columns (gradient)
    qlora_tensor y;
    const float *bias;
    bool accumulate;

    uint64_t depth() const { return turned ? weight.cols : weight.rows; }
};

// Bytes of scratch; outliers says whether there may be any. Monotone in rows.
uint64_t int8_product_scratch(Context &context, const Int8Product &product, bool outliers);
void multiply_int8_product(Context &context, const Int8Product &product, bool outliers, void *scratch);

} // namespace cpu
} // namespace qlora
