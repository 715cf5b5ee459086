// The model of both programs: one linear layer with a frozen quantized weight below another, LoRA on each, in a ggml context.
#pragma once
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <cmath>
#include <cstdint>
#include <vector>

constexpr int64_t width = 512, outputs = 256, tokens = 128, rank = 8;
constexpr float adapter_scale = 2;

// Numbers from a counter, between -1 and 1.
inline std::vector<float> numbers(int64_t count, uint64_t seed) {
    std::vector<float> made(static_cast<size_t>(count));
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (float &number : made) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        number = float(int64_t(state) >> 40) / float(1 << 23);
    }
    return made;
}

inline void put(ggml_tensor *tensor, std::vector<float> values, float scale) {
    for (float &value : values) value *= scale;
    if (!ggml_is_quantized(tensor->type)) return ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
    std::vector<char> blocks(ggml_nbytes(tensor));
    ggml_quantize_chunk(tensor->type, values.data(), blocks.data(), 0, ggml_nrows(tensor), tensor->ne[0], nullptr);
    ggml_backend_tensor_set(tensor, blocks.data(), 0, blocks.size());
}

// y = x W^T + scale * (x A^T) B^T
struct Layer {
    ggml_tensor *w, *a, *b;
    Layer(ggml_context *context, ggml_type type, int64_t inputs, int64_t rows)
        : w(ggml_new_tensor_2d(context, type, inputs, rows)), a(ggml_new_tensor_2d(context, GGML_TYPE_F32, inputs, rank)), b(ggml_new_tensor_2d(context, GGML_TYPE_F32, rank, rows)) {}
    void fill(uint64_t seed) const {
        put(w, numbers(ggml_nelements(w), seed), 1 / std::sqrt(float(w->ne[0])));
        put(a, numbers(ggml_nelements(a), seed + 1), 1 / std::sqrt(float(w->ne[0])));
        put(b, std::vector<float>(size_t(ggml_nelements(b)), 0.0f), 0);
    }
    ggml_tensor *forward(ggml_context *context, ggml_tensor *x) const {
        ggml_tensor *low = ggml_mul_mat(context, b, ggml_mul_mat(context, a, x));
        return ggml_add(context, ggml_mul_mat(context, w, x), ggml_scale(context, low, adapter_scale));
    }
};
