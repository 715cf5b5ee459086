#include "tiny_model.h"

#include "decode.h"
#include "gguf.h"
#include "rng.h"

#include <deque>

namespace finetune {
namespace {

const uint32_t width = 128, feed_forward = 256, heads = 4, kv_heads = 2, vocabulary = 256, layers = 2, context = 128;

} // namespace

void write_tiny_model(const std::string &path) {
    GgufWriter writer;
    writer.add_string("general.architecture", "llama");
    writer.add_u32("llama.block_count", layers);
    writer.add_u32("llama.context_length", context);
    writer.add_u32("llama.embedding_length", width);
    writer.add_u32("llama.feed_forward_length", feed_forward);
    writer.add_u32("llama.attention.head_count", heads);
    writer.add_u32("llama.attention.head_count_kv", kv_heads);
    writer.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    writer.add_u32("llama.rope.dimension_count", width / heads);
    writer.add_u32("llama.vocab_size", vocabulary);

    std::deque<std::vector<uint16_t>> halves; // alive until the file is written
    std::deque<std::vector<float>> floats;
    const auto matrix = [&](const std::string &name, uint64_t rows, uint64_t cols, float size) {
        Random random(1, halves.size());
        halves.emplace_back();
        for (uint64_t i = 0; i < rows * cols; ++i)
            halves.back().push_back(float_to_half((2 * random.next_uniform() - 1) * size));
        writer.add_tensor(name, type_f16, {cols, rows}, halves.back().data());
    };
    const auto norm = [&](const std::string &name) {
        floats.emplace_back(width, 1.0f);
        writer.add_tensor(name, type_f32, {width}, floats.back().data());
    };
    const float size = 0.15f;
    matrix("token_embd.weight", vocabulary, width, 1);
    norm("output_norm.weight");
    matrix("output.weight", vocabulary, width, size);
    for (uint32_t layer = 0; layer < layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + ".";
        const uint32_t kv = width / heads * kv_heads;
        norm(block + "attn_norm.weight");
        matrix(block + "attn_q.weight", width, width, size);
        matrix(block + "attn_k.weight", kv, width, size);
        matrix(block + "attn_v.weight", kv, width, size);
        matrix(block + "attn_output.weight", width, width, size);
        norm(block + "ffn_norm.weight");
        matrix(block + "ffn_gate.weight", feed_forward, width, size);
        matrix(block + "ffn_up.weight", feed_forward, width, size);
        matrix(block + "ffn_down.weight", width, feed_forward, size);
    }
    writer.save(path);
}

} // namespace finetune
