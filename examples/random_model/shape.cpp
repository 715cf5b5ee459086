#include "shape.h"

#include "cpp/qlora.hpp"
#include "error.h"

#include <cmath>

namespace random_model {

const std::vector<Shape> &known_shapes() {
    static const std::vector<Shape> shapes = {
        {"tiny", 2, 256, 768, 4, 2, 512, 512, 10000},
        {"tinyllama-1.1b", 22, 2048, 5632, 32, 4, 32000, 2048, 10000},
        {"llama-7b", 32, 4096, 11008, 32, 32, 32000, 4096, 10000},
        {"llama3-8b", 32, 4096, 14336, 32, 8, 128256, 8192, 500000},
        {"llama-13b", 40, 5120, 13824, 40, 40, 32000, 4096, 10000},
        {"llama-33b", 60, 6656, 17920, 52, 52, 32000, 2048, 10000},
        {"llama-65b", 80, 8192, 22016, 64, 64, 32000, 2048, 10000},
    };
    return shapes;
}

const Shape &find_shape(const std::string &name) {
    std::string all;
    for (const Shape &shape : known_shapes()) {
        if (name == shape.name) return shape;
        all += (all.empty() ? "" : ", ") + std::string(shape.name);
    }
    finetune::fail("--shape ", name, ": expected one of ", all);
}

std::vector<Tensor> plan_tensors(const Shape &shape, const std::string &type) {
    const bool mix = type == "q4_k_m";
    int32_t format = QLORA_FORMAT_Q4_K;
    if (!mix && qlora_format_find(type.c_str(), &format) != QLORA_OK)
        finetune::fail("--type ", type, ": expected a storage format such as nf4-dq, q8_0, f16, or q4_k_m");
    const bool ggml = format >= QLORA_FORMAT_F32;
    const int32_t embedding = ggml ? format : QLORA_FORMAT_F16, head = mix ? QLORA_FORMAT_Q6_K : embedding;
    const uint64_t width = shape.embedding, kv_width = width / shape.heads * shape.kv_heads;
    // The mix gives Q6_K to the values and down projections of the first eighth, the last, and every third layer between.
    const auto finer = [&](uint32_t layer) {
        const uint32_t eighth = shape.layers / 8;
        return layer < eighth || layer >= 7 * shape.layers / 8 || (layer - eighth) % 3 == 2;
    };
    std::vector<Tensor> tensors;
    const auto add = [&](const std::string &gguf, const std::string &theirs, uint64_t rows, uint64_t cols, int32_t stored) {
        const float deviation = rows == 0 ? 0 : 1 / std::sqrt(float(cols));
        tensors.push_back({gguf + ".weight", theirs + ".weight", rows, cols, deviation, rows == 0 ? QLORA_FORMAT_F32 : stored});
    };
    add("token_embd", "model.embed_tokens", shape.vocabulary, width, embedding);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + ".", theirs = "model.layers." + std::to_string(layer) + ".";
        const int32_t fine = mix && finer(layer) ? QLORA_FORMAT_Q6_K : format;
        add(block + "attn_norm", theirs + "input_layernorm", 0, width, 0);
        add(block + "attn_q", theirs + "self_attn.q_proj", width, width, format);
        add(block + "attn_k", theirs + "self_attn.k_proj", kv_width, width, format);
        add(block + "attn_v", theirs + "self_attn.v_proj", kv_width, width, fine);
        add(block + "attn_output", theirs + "self_attn.o_proj", width, width, format);
        add(block + "ffn_norm", theirs + "post_attention_layernorm", 0, width, 0);
        add(block + "ffn_gate", theirs + "mlp.gate_proj", shape.feed_forward, width, format);
        add(block + "ffn_up", theirs + "mlp.up_proj", shape.feed_forward, width, format);
        add(block + "ffn_down", theirs + "mlp.down_proj", width, shape.feed_forward, fine);
    }
    add("output_norm", "model.norm", 0, width, 0);
    add("output", "lm_head", shape.vocabulary, width, head);
    return tensors;
}

} // namespace random_model
