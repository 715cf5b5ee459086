#include "base_model.h"

#include "file.h"
#include "hugging_face.h"
#include "rope_scaling.h"

#include <cmath>
#include <vector>

namespace finetune {
namespace {

const uint64_t most_layers = 1024, most_width = 1 << 20;

struct Keys {
    const Gguf &file;
    std::string prefix;

    bool has(const char *name) const { return file.has(prefix + name); }

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

    // A factor, of which 0 says as much as nothing: 1.
    float scale(const char *name) const { return file.find_float(prefix + name) == 0.0 ? 1 : number(name, 1); }

    // A soft cap; 0: none.
    float cap(const char *name, float absent) const {
        return absent == 0 && !has(name) ? 0 : file.find_float(prefix + name) == 0.0 ? 0 : number(name, double(absent));
    }

    // A number, or an array with one for each layer; they must agree here.
    uint32_t same_everywhere(const char *name, uint64_t most, std::optional<uint64_t> absent = {}) const {
        const std::string key = prefix + name;
        if (!file.is_array(key)) return size(name, most, absent);
        const std::vector<int64_t> counts = file.find_integers(key).value();
        for (int64_t count : counts)
            if (count < 1 || count != counts[0] || count > int64_t(most))
                file.reject("key ", shown(key), ": layers that differ are not supported");
        if (counts.empty()) file.reject("key ", shown(key), " is an empty array");
        return static_cast<uint32_t>(counts[0]);
    }
};

std::vector<float> factors(const Gguf &file, const char *name, const ModelShape &shape) {
    const GgufTensor *tensor = file.find_tensor(name);
    if (tensor == nullptr) return {};
    const StoredWeight weight = view_weight(*tensor);
    if (weight.format != QLORA_FORMAT_F32 || tensor->elements != shape.rope_dim / 2)
        file.reject("tensor ", shown(name), " has ", tensor->elements, " values of ", tensor->type->name, ", expected ",
                    shape.rope_dim / 2, " of F32");
    return decode_floats(weight);
}

RopeScaling read_scaling(const Keys &keys, const ModelShape &shape) {
    RopeScaling scaling;
    // Where only a factor is given it is that of linear scaling, which older files have under a name of its own.
    scaling.type = std::string(keys.file.find_string(keys.prefix + "rope.scaling.type").value_or("linear"));
    if (scaling.type == "none") scaling.type = "default";
    if (scaling.type == "default" || scaling.type == "longrope") return scaling;
    if (scaling.type != "linear" && scaling.type != "yarn")
        keys.file.reject("key ", shown(keys.prefix + "rope.scaling.type"), ": ", shown(scaling.type),
                         " is not supported, expected 'none', 'linear', 'yarn' or 'longrope'");
    scaling.factor = double(keys.has("rope.scaling.factor") ? keys.scale("rope.scaling.factor") : keys.scale("rope.scale_linear"));
    scaling.original = keys.size("rope.scaling.original_context_length", 1 << 24, shape.context);
    scaling.beta_fast = double(keys.number("rope.scaling.yarn_beta_fast", 32));
    scaling.beta_slow = double(keys.number("rope.scaling.yarn_beta_slow", 1));
    if (keys.has("rope.scaling.yarn_attn_factor")) // what transformers calls attention_factor
        scaling.magnitude = double(keys.number("rope.scaling.yarn_attn_factor", 1));
    else if (keys.has("rope.scaling.attn_factor"))
        scaling.magnitude = double(keys.number("rope.scaling.attn_factor", 1)) * yarn_magnitude(scaling.factor, 1);
    return scaling;
}

void read_ropes(const Keys &keys, ModelShape &shape) {
    if (shape.traits->positions != Positions::rotary) return;
    Rope rope = {keys.number("rope.freq_base", 10000), 1, 1, {}, {}, 0};
    apply_scaling(read_scaling(keys, shape), shape.rope_dim, rope);
    const std::vector<float> plain = factors(keys.file, "rope_freqs.weight", shape);
    if (!plain.empty()) rope.factors = plain;
    const std::vector<float> longs = factors(keys.file, "rope_factors_long.weight", shape),
                             shorts = factors(keys.file, "rope_factors_short.weight", shape);
    if (!longs.empty() && !shorts.empty()) {
        rope.factors = shorts;
        rope.long_factors = longs;
        rope.switch_length = keys.size("rope.scaling.original_context_length", 1 << 24, shape.context);
        rope.magnitude = keys.number("rope.scaling.attn_factor", 1);
    }
    shape.ropes = {rope};
    if (!shape.traits->two_ropes()) return;
    const double usual = shape.traits->head_norm == HeadNorm::head ? 10000 : double(rope.base);
    shape.ropes.push_back({keys.number("rope.freq_base_swa", usual), 1, 1, {}, {}, 0});
}

// Where a key is silent, what llama.cpp takes.
void read_attention(const Keys &keys, ModelShape &shape) {
    const Traits &traits = *shape.traits;
    if (traits.attention_cap > 0) shape.attention_cap = keys.cap("attn_logit_softcapping", traits.attention_cap);
    shape.logit_cap = keys.cap("final_logit_softcapping", traits.logit_cap);
    const bool largest = (shape.layers == 46 && traits.attention_cap > 0) || (shape.layers == 62 && traits.window_period == 6);
    if (keys.has("attention.scale")) shape.attention_scale = keys.number("attention.scale", 1);
    else if (traits.scaled_embedding && largest)
        shape.attention_scale = 1 / std::sqrt(float(shape.embedding) / float(shape.heads));
    const std::string window_key = keys.prefix + "attention.sliding_window", pattern_key = window_key + "_pattern";
    const bool always = traits.window_period > 1 && traits.head_norm == HeadNorm::none; // a window that needs no key
    const uint64_t window = keys.file.find_unsigned(window_key).value_or(always ? 4096 : 0);
    if (window > INT32_MAX) keys.file.reject("key ", shown(window_key), " is ", window);
    std::vector<int64_t> pattern;
    if (keys.file.is_array(pattern_key)) {
        pattern = keys.file.find_integers(pattern_key).value();
        if (pattern.size() != shape.layers)
            keys.file.reject("key ", shown(pattern_key), " has ", pattern.size(), " elements, expected ", shape.layers);
    }
    const uint64_t usual = traits.window_period > 1 ? traits.window_period : 0, // 0: all slide
        period = pattern.empty() ? keys.file.find_unsigned(pattern_key).value_or(usual) : 0;
    for (uint32_t i = 0; i < shape.layers; ++i) {
        LayerShape layer;
        const bool slides = window != 0 && (!pattern.empty() ? pattern[i] != 0 : period == 0 || (i + 1) % period != 0);
        if (slides) layer.window = static_cast<uint32_t>(window);
        if (shape.ropes.empty() || (traits.still_period != 0 && (i + 1) % traits.still_period == 0)) layer.rope = -1;
        else if (slides && shape.ropes.size() > 1) layer.rope = 1;
        shape.layer.push_back(layer);
    }
}

// Gemma's attention has a scale of its own, for which converters write no key. The config.json of the same model knows it, where
// it lies beside the file; anything else of that name is none of this file's business.
void read_scale_beside(const Gguf &file, ModelShape &shape) {
    const std::string path = folder_of(file.path()) + "config.json";
    if (!exists(path)) return;
    try {
        const ModelShape beside = read_model_shape(read_config(path));
        const auto sizes = [](const ModelShape &one) {
            return std::vector<uint32_t>{one.layers, one.embedding, one.feed_forward, one.heads, one.kv_heads, one.head_dim, one.vocabulary};
        };
        if (beside.traits == shape.traits && sizes(beside) == sizes(shape)) shape.attention_scale = beside.attention_scale;
    } catch (const Error &) {
        // another model's
    }
}

} // namespace

ModelShape read_model_shape(const Gguf &file) {
    const auto architecture = file.find_string("general.architecture");
    if (!architecture) file.reject("key 'general.architecture' is missing: not a model file");
    if (file.find_string("general.type").value_or("model") != "model")
        file.reject("general.type is ", shown(*file.find_string("general.type")),
                    ", expected 'model'; --model takes the base, not an adapter");
    ModelShape shape;
    const uint64_t window = file.find_unsigned(std::string(*architecture) + ".attention.sliding_window").value_or(0);
    shape.traits = find_architecture(std::string(*architecture), window != 0);
    if (shape.traits == nullptr)
        file.reject("architecture ", shown(*architecture), " is not supported; this program fine-tunes ",
                    architecture_names(&Traits::gguf));
    if (file.find_unsigned("split.count").value_or(1) > 1)
        file.reject("the model is split into several files; merge them first");

    const Keys keys = {file, std::string(*architecture) + "."};
    const Traits &traits = *shape.traits;
    shape.layers = keys.size("block_count", most_layers);
    shape.embedding = keys.size("embedding_length", most_width);
    shape.feed_forward = keys.same_everywhere("feed_forward_length", most_width);
    shape.context = keys.size("context_length", 1 << 24);
    if (traits.positions == Positions::slopes) shape.context = std::max(shape.context, 2048u); // slopes know no end
    shape.heads = keys.same_everywhere("attention.head_count", 4096);
    shape.kv_heads = keys.same_everywhere("attention.head_count_kv", shape.heads, shape.heads);
    if (shape.heads % shape.kv_heads != 0)
        file.reject("attention.head_count ", shape.heads, " is not a multiple of head_count_kv ", shape.kv_heads);
    if (shape.embedding % shape.heads != 0 && !keys.has("attention.key_length"))
        file.reject("embedding_length ", shape.embedding, " is not a multiple of attention.head_count ", shape.heads);
    const uint32_t size = std::max(1u, shape.embedding / shape.heads);
    shape.head_dim = keys.size("attention.key_length", 256, size);
    if (keys.size("attention.value_length", 256, size) != shape.head_dim)
        file.reject("attention.value_length differs from attention.key_length, which is not supported");
    shape.rope_dim = keys.size("rope.dimension_count", shape.head_dim, shape.head_dim);
    if (shape.rope_dim % 2 != 0) file.reject("rope.dimension_count ", shape.rope_dim, " is odd");
    if (file.find_unsigned(keys.prefix + "expert_count").value_or(0) > 0)
        file.reject("mixtures of experts are not supported; choose a dense model of the same family");
    const bool centered = traits.norm == NormKind::layer;
    shape.epsilon = keys.number(centered ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5);
    shape.rope_layout = traits.rows == HeadOrder::paired ? QLORA_ROPE_ADJACENT : traits.rope_layout;
    shape.activation = traits.activation;
    shape.place = traits.place;
    shape.residual = traits.residual;
    if (shape.residual == Residual::parallel && !file.find_bool(keys.prefix + "use_parallel_residual").value_or(true))
        shape.residual = Residual::sequential;
    if (traits.scaled_embedding) shape.embedding_scale = std::sqrt(float(shape.embedding));
    read_ropes(keys, shape);
    read_attention(keys, shape);

    const GgufTensor &embedding = file.tensor("token_embd.weight");
    if (embedding.ne[1] > INT32_MAX) file.reject("tensor 'token_embd.weight' has ", embedding.ne[1], " rows, too many");
    shape.vocabulary = static_cast<uint32_t>(embedding.ne[1]);
    if (file.find_unsigned(keys.prefix + "vocab_size").value_or(shape.vocabulary) != shape.vocabulary)
        file.reject(keys.prefix, "vocab_size differs from the ", shape.vocabulary, " rows of 'token_embd.weight'");
    shape.tied = file.find_tensor("output.weight") == nullptr;
    if (traits.scaled_embedding && !keys.has("attention.scale")) read_scale_beside(file, shape);
    return shape;
}

} // namespace finetune
