// Sizes of llama models, and which type each of their tensors gets.
#pragma once

#include "gguf.h"

#include <string>
#include <vector>

namespace random_model {

struct Shape {
    const char *name;
    uint32_t layers, embedding, feed_forward, heads, kv_heads, vocabulary, context;
    float rope_base;
};

const std::vector<Shape> &known_shapes();
const Shape &find_shape(const std::string &name); // an Error lists those that there are

struct Tensor {
    std::string gguf_name, hugging_face_name;
    uint64_t rows, cols; // rows 0: a vector
    float deviation;     // of its values; 0: all are 1
    int32_t format;
};

// type: a format by name, or "q4_k_m", llama.cpp's mix of Q4_K with Q6_K. Vectors are f32; embedding and head f16 unless
// the type is one of ggml's, which they share.
std::vector<Tensor> plan_tensors(const Shape &shape, const std::string &type);

} // namespace random_model
