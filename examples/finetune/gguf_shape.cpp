#include "base_model.h"

#include "format_choice.h"

#include <cmath>

namespace finetune {
namespace {

const uint64_t most_layers = 1024, most_width = 1 << 20;

struct Keys {
    const Gguf &file;
    std::string prefix;

    uint32_t size(const char *name, uint64_t most, std::optional<uint64_t> absent = {}) const {
        const std::string key = prefix + name;
        const auto value = file.find_unsigned(key);
        if (!value && !absent) file.reject("key ", shown(key), " is missing");
        const uint64_t number = value.value_or(absent.value_or(0));
        if (number < 1 || number > most) file.reject("key ", shown(key), " is ", number, ", expected 1 to ", most);
        return static_cast<uint32_t>(number);
    }

    float number(const char *name, double absent) const {
        const std::string key = prefix + name;
        const double value = file.find_float(key).value_or(absent);
        if (!(value > 0) || value > 1e30)
            file.reject("key ", shown(key), " is ", value, ", expected a positive number");
        return static_cast<float>(value);
    }

    // head_count_kv may be an array with a number for each layer; they must agree here.
    uint32_t kv_heads(uint32_t heads) const {
        const std::string key = prefix + "attention.head_count_kv";
        if (!file.is_array(key)) return size("attention.head_count_kv", heads, heads);
        const std::vector<int64_t> counts = file.find_integers(key).value();
        for (int64_t count : counts)
            if (count < 1 || count != counts[0] || count > heads)
                file.reject("key ", shown(key), ": layers that differ are not supported");
        if (counts.empty()) file.reject("key ", shown(key), " is an empty array");
        return static_cast<uint32_t>(counts[0]);
    }
};

void check_rope_scaling(const Gguf &file, const std::string &prefix, ModelShape &shape) {
    const std::string key = prefix + "rope.scaling.type";
    const std::string_view type = file.find_string(key).value_or("none");
    shape.rope_scale = 1;
    if (type == "none") return;
    if (type != "linear")
        file.reject("key ", shown(key), ": ", shown(type), " is not supported, expected 'none' or 'linear'");
    shape.rope_scale = 1 / Keys{file, prefix}.number("rope.scaling.factor", 1);
}

} // namespace

ModelShape read_model_shape(const Gguf &file) {
    const auto architecture = file.find_string("general.architecture");
    if (!architecture) file.reject("key 'general.architecture' is missing: not a model file");
    if (*architecture != "llama")
        file.reject("architecture ", shown(*architecture), " is not supported; this program fine-tunes 'llama' models");
    if (file.find_string("general.type").value_or("model") != "model")
        file.reject("general.type is ", shown(*file.find_string("general.type")),
                    ", expected 'model'; --model takes the base, not an adapter");
    if (file.find_unsigned("split.count").value_or(1) > 1)
        file.reject("the model is split into several files; merge them first");

    const Keys keys = {file, std::string(*architecture) + "."};
    ModelShape shape = {};
    shape.architecture = *architecture;
    shape.layers = keys.size("block_count", most_layers);
    shape.embedding = keys.size("embedding_length", most_width);
    shape.feed_forward = keys.size("feed_forward_length", most_width);
    shape.context = keys.size("context_length", 1 << 24);
    shape.heads = keys.size("attention.head_count", 4096);
    shape.kv_heads = keys.kv_heads(shape.heads);
    if (shape.heads % shape.kv_heads != 0)
        file.reject("attention.head_count ", shape.heads, " is not a multiple of head_count_kv ", shape.kv_heads);
    if (shape.embedding % shape.heads != 0 && !file.has(keys.prefix + "attention.key_length"))
        file.reject("embedding_length ", shape.embedding, " is not a multiple of attention.head_count ", shape.heads);
    const uint32_t size = std::max(1u, shape.embedding / shape.heads);
    shape.head_dim = keys.size("attention.key_length", 256, size);
    if (keys.size("attention.value_length", 256, size) != shape.head_dim)
        file.reject("attention.value_length differs from attention.key_length, which is not supported");
    shape.rope_dim = keys.size("rope.dimension_count", shape.head_dim, shape.head_dim);
    if (shape.rope_dim % 2 != 0) file.reject("rope.dimension_count ", shape.rope_dim, " is odd");
    if (file.find_unsigned(keys.prefix + "expert_count").value_or(0) > 0)
        file.reject("mixtures of experts are not supported");
    // Up to its length a sliding window is no window.
    if (const uint64_t window = file.find_unsigned(keys.prefix + "attention.sliding_window").value_or(0))
        shape.context = static_cast<uint32_t>(std::min<uint64_t>(shape.context, window));
    shape.epsilon = keys.number("attention.layer_norm_rms_epsilon", 1e-5);
    shape.rope_base = keys.number("rope.freq_base", 10000);
    shape.rope_layout = QLORA_ROPE_ADJACENT;
    check_rope_scaling(file, keys.prefix, shape);

    const GgufTensor &embedding = file.tensor("token_embd.weight");
    if (embedding.ne[1] > INT32_MAX) file.reject("tensor 'token_embd.weight' has ", embedding.ne[1], " rows, too many");
    shape.vocabulary = static_cast<uint32_t>(embedding.ne[1]);
    if (file.find_unsigned(keys.prefix + "vocab_size").value_or(shape.vocabulary) != shape.vocabulary)
        file.reject(keys.prefix, "vocab_size differs from the ", shape.vocabulary, " rows of 'token_embd.weight'");
    shape.tied = file.find_tensor("output.weight") == nullptr;
    return shape;
}

} // namespace finetune
