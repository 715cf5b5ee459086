#include "model.h"

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

// Vectors are floats; a matrix has any format that the library decodes.
enum class Use { vector, matrix };

void check_tensor(const Gguf &file, const std::string &name, uint64_t cols, uint64_t rows, Use use) {
    const GgufTensor &tensor = file.tensor(name);
    if (tensor.ne[0] != cols || tensor.ne[1] != rows || tensor.ne[2] != 1 || tensor.ne[3] != 1)
        file.reject("tensor ", shown(name), " is [", tensor.ne[0], ", ", tensor.ne[1], ", ", tensor.ne[2], ", ",
                    tensor.ne[3], "], expected [", cols, ", ", rows, "] from the model's keys");
    const int32_t format = format_of(*tensor.type);
    if (use == Use::vector ? !is_float(format) : format == 0)
        file.reject("tensor ", shown(name), " is ", tensor.type->name, ", which is not supported there; expected ",
                    use == Use::vector ? "f32, f16 or bf16" : "one of " + format_names());
}

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

uint64_t ModelShape::inputs(Linear linear) const {
    return linear == linear_output ? q_width() : linear == linear_down ? feed_forward : embedding;
}

uint64_t ModelShape::outputs(Linear linear) const {
    switch (linear) {
    case linear_q:
        return q_width();
    case linear_k:
    case linear_v:
        return kv_width();
    case linear_gate:
    case linear_up:
        return feed_forward;
    default:
        return embedding;
    }
}

AdapterShape ModelShape::adapter_shape(uint32_t rank) const {
    AdapterShape shape = {architecture, layers, heads, kv_heads, rank, {}, {}};
    for (int i = 0; i < linear_count; ++i) {
        shape.inputs[i] = inputs(Linear(i));
        shape.outputs[i] = outputs(Linear(i));
    }
    return shape;
}

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
    if (file.find_unsigned(keys.prefix + "attention.sliding_window").value_or(0) > 0)
        file.reject("sliding-window attention is not supported");
    shape.epsilon = keys.number("attention.layer_norm_rms_epsilon", 1e-5);
    shape.rope_base = keys.number("rope.freq_base", 10000);
    check_rope_scaling(file, keys.prefix, shape);

    const GgufTensor &embedding = file.tensor("token_embd.weight");
    if (embedding.ne[1] > INT32_MAX) file.reject("tensor 'token_embd.weight' has ", embedding.ne[1], " rows, too many");
    shape.vocabulary = static_cast<uint32_t>(embedding.ne[1]);
    if (file.find_unsigned(keys.prefix + "vocab_size").value_or(shape.vocabulary) != shape.vocabulary)
        file.reject(keys.prefix, "vocab_size differs from the ", shape.vocabulary, " rows of 'token_embd.weight'");
    shape.tied = file.find_tensor("output.weight") == nullptr;

    check_tensor(file, "token_embd.weight", shape.embedding, shape.vocabulary, Use::matrix);
    check_tensor(file, "output_norm.weight", shape.embedding, 1, Use::vector);
    if (!shape.tied) check_tensor(file, "output.weight", shape.embedding, shape.vocabulary, Use::matrix);
    if (file.find_tensor("rope_freqs.weight") != nullptr)
        check_tensor(file, "rope_freqs.weight", shape.rope_dim / 2, 1, Use::vector);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + ".";
        check_tensor(file, block + "attn_norm.weight", shape.embedding, 1, Use::vector);
        check_tensor(file, block + "ffn_norm.weight", shape.embedding, 1, Use::vector);
        for (int i = 0; i < linear_count; ++i) {
            check_tensor(file, gguf_weight_name(layer, Linear(i)), shape.inputs(Linear(i)), shape.outputs(Linear(i)),
                         Use::matrix);
            const std::string bias = block + linear_gguf_names[i] + ".bias";
            if (file.find_tensor(bias) != nullptr) check_tensor(file, bias, shape.outputs(Linear(i)), 1, Use::vector);
        }
    }
    return shape;
}

} // namespace finetune
