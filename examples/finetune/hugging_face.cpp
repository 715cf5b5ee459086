// The directory form of a base model: config.json, safetensors, tokenizer.model.
#include "base_model.h"
#include "format_choice.h"
#include "json.h"
#include "packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace finetune {
namespace {

const uint64_t most_layers = 1024, most_width = 1 << 20;

// config.json, with typed access. A key that is null counts as absent.
class Config {
public:
    explicit Config(const std::string &path) : path_(path) {
        const MappedFile file(path);
        json_ = parse_json(file.text(), path, 16);
        if (!json_.is_object()) fail(path, ": expected a JSON object");
    }

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path_, ": ", parts...); }

    const Json *find(const char *key) const { return find(json_, key); }
    const Json *find(const Json &object, const char *key) const {
        const auto found = object.find(key);
        return found == object.end() || found->is_null() ? nullptr : &*found;
    }

    std::string text(const char *key, const std::string &absent) const {
        const Json *value = find(key);
        if (value == nullptr) return absent;
        if (!value->is_string()) reject("key '", key, "' is not a string");
        return value->get<std::string>();
    }

    bool flag(const char *key, bool absent) const {
        const Json *value = find(key);
        if (value == nullptr) return absent;
        if (!value->is_boolean()) reject("key '", key, "' is not true or false");
        return value->get<bool>();
    }

    uint32_t size(const char *key, uint64_t most, uint64_t absent = 0) const {
        const Json *value = find(key);
        if (value == nullptr && absent == 0) reject("key '", key, "' is missing");
        if (value != nullptr && !value->is_number_unsigned()) reject("key '", key, "' is not a size");
        const uint64_t number = value == nullptr ? absent : value->get<uint64_t>();
        if (number < 1 || number > most) reject("key '", key, "' is ", number, ", expected 1 to ", most);
        return static_cast<uint32_t>(number);
    }

    float number(const Json &object, const char *key, double absent) const {
        const Json *value = find(object, key);
        if (value == nullptr && absent == 0) reject("key '", key, "' is missing");
        if (value != nullptr && !value->is_number()) reject("key '", key, "' is not a number");
        const double given = value == nullptr ? absent : value->get<double>();
        if (!(given > 0) || given > 1e30) reject("key '", key, "' is ", given, ", expected a positive number");
        return static_cast<float>(given);
    }
    float number(const char *key, double absent) const { return number(json_, key, absent); }

    // A token, or the first of several; -1: none.
    int32_t token(const char *key) const {
        const Json *value = find(key);
        if (value != nullptr && value->is_array()) value = value->empty() ? nullptr : &value->front();
        if (value == nullptr) return -1;
        if (!value->is_number_unsigned() || value->get<uint64_t>() > INT32_MAX)
            reject("key '", key, "' is not a token id");
        return value->get<int32_t>();
    }

private:
    std::string path_;
    Json json_;
};

// Keys of newer files are under rope_parameters, of older ones under rope_scaling with rope_theta beside it.
void read_rope(const Config &config, ModelShape &shape, std::vector<float> &factors) {
    const Json none = Json::object();
    const Json *parameters = config.find("rope_parameters"), *scaling = config.find("rope_scaling");
    const Json &rope = parameters != nullptr ? *parameters : scaling != nullptr ? *scaling : none;
    if (!rope.is_object()) config.reject("key '", parameters != nullptr ? "rope_parameters" : "rope_scaling",
                                         "' is not an object");
    shape.rope_base = config.find(rope, "rope_theta") != nullptr ? config.number(rope, "rope_theta", 0)
                                                                 : config.number("rope_theta", 10000);
    shape.rope_layout = QLORA_ROPE_HALF;
    shape.rope_dim = shape.head_dim;
    shape.rope_scale = 1;
    const Json *named = config.find(rope, "rope_type");
    if (named == nullptr) named = config.find(rope, "type");
    const std::string type = named == nullptr ? "default" : named->is_string() ? named->get<std::string>() : "?";
    if (type == "default") return;
    const float factor = config.number(rope, "factor", 0);
    if (type == "linear") {
        shape.rope_scale = 1 / factor;
        return;
    }
    if (type != "llama3")
        config.reject("rope scaling ", shown(type), " is not supported, expected 'default', 'linear' or 'llama3'");
    // Long waves are stretched by the factor, short ones stay, those between are mixed (Llama 3.1, 2407.21783).
    const double low = config.number(rope, "low_freq_factor", 0), high = config.number(rope, "high_freq_factor", 0),
                 original = config.number(rope, "original_max_position_embeddings", 0);
    if (!(low < high)) config.reject("rope scaling: low_freq_factor ", low, " is not below high_freq_factor ", high);
    const double turn = 2 * std::acos(-1.0);
    for (uint32_t i = 0; i < shape.rope_dim / 2; ++i) {
        const double turns = original * std::pow(double(shape.rope_base), -2.0 * i / shape.rope_dim) / turn;
        const double kept = std::min(1.0, std::max(0.0, (turns - low) / (high - low)));
        factors.push_back(static_cast<float>(1 / ((1 - kept) / double(factor) + kept)));
    }
}

ModelShape read_shape(const Config &config, std::vector<float> &factors) {
    const std::string kind = config.text("model_type", "");
    if (kind != "llama" && kind != "mistral")
        config.reject("model_type ", shown(kind), " is not supported; this program fine-tunes 'llama' and 'mistral'");
    ModelShape shape = {};
    shape.architecture = "llama"; // as GGUF calls both
    shape.layers = config.size("num_hidden_layers", most_layers);
    shape.embedding = config.size("hidden_size", most_width);
    shape.feed_forward = config.size("intermediate_size", most_width);
    shape.vocabulary = config.size("vocab_size", INT32_MAX);
    shape.context = config.size("max_position_embeddings", 1 << 24);
    // Up to its length a sliding window is no window.
    if (config.find("sliding_window") != nullptr)
        shape.context = std::min(shape.context, config.size("sliding_window", 1 << 24));
    shape.heads = config.size("num_attention_heads", 4096);
    shape.kv_heads = config.size("num_key_value_heads", shape.heads, shape.heads);
    if (shape.heads % shape.kv_heads != 0)
        config.reject("num_attention_heads ", shape.heads, " is not a multiple of num_key_value_heads ",
                      shape.kv_heads);
    if (shape.embedding % shape.heads != 0 && config.find("head_dim") == nullptr)
        config.reject("hidden_size ", shape.embedding, " is not a multiple of num_attention_heads ", shape.heads);
    shape.head_dim = config.size("head_dim", 256, std::max(1u, shape.embedding / shape.heads));
    if (shape.head_dim % 2 != 0) config.reject("head_dim ", shape.head_dim, " is odd");
    if (config.find("partial_rotary_factor") != nullptr && config.number("partial_rotary_factor", 1) != 1.0f)
        config.reject("partial_rotary_factor is not supported");
    const std::string activation = config.text("hidden_act", "silu");
    if (activation != "silu") config.reject("hidden_act ", shown(activation), " is not supported, expected 'silu'");
    shape.epsilon = config.number("rms_norm_eps", 1e-6);
    shape.tied = config.flag("tie_word_embeddings", false);
    if (const Json *quantization = config.find("quantization_config")) {
        const Json *method = quantization->is_object() ? config.find(*quantization, "quant_method") : nullptr;
        const std::string name = method != nullptr && method->is_string() ? method->get<std::string>() : "?";
        if (name != "bitsandbytes" && name != "gptq")
            config.reject("quantization_config: quant_method ", shown(name),
                          " is not supported, expected 'bitsandbytes' or 'gptq'");
    }
    read_rope(config, shape, factors);
    return shape;
}

bool split_layer(const std::string &name, std::string *layer, std::string *rest) {
    const std::string begin = "model.layers.";
    if (name.rfind(begin, 0) != 0) return false;
    const size_t dot = name.find('.', begin.size());
    if (dot == std::string::npos) return false;
    *layer = name.substr(begin.size(), dot - begin.size());
    *rest = name.substr(dot + 1);
    return true;
}

// "" for what has no place in a llama model, such as rotary tables of older files.
std::string gguf_name(const std::string &name) {
    if (name == "model.embed_tokens.weight") return "token_embd.weight";
    if (name == "model.norm.weight") return "output_norm.weight";
    if (name == "lm_head.weight") return "output.weight";
    std::string layer, rest;
    if (!split_layer(name, &layer, &rest)) return "";
    const std::string block = "blk." + layer + ".";
    if (rest == "input_layernorm.weight") return block + "attn_norm.weight";
    if (rest == "post_attention_layernorm.weight") return block + "ffn_norm.weight";
    for (int i = 0; i < linear_count; ++i)
        for (const char *ending : {".weight", ".bias"})
            if (rest == std::string(linear_peft_names[i]) + ending) return block + linear_gguf_names[i] + ending;
    return "";
}

} // namespace

void BaseModel::open_directory() {
    safetensors_ = std::make_unique<SafeTensors>(path_);
    const Config config(safetensors_->folder() + "config.json");
    shape_ = read_shape(config, rope_factors_);
    begin_token_ = config.token("bos_token_id");
    end_token_ = config.token("eos_token_id");
    for (PackedTensor &tensor : read_packed(*safetensors_)) {
        BaseTensor one;
        one.name = gguf_name(tensor.name);
        if (one.name.empty() || (shape_.tied && one.name == "output.weight")) continue;
        one.own_name = tensor.name;
        one.type = tensor.weight.format == 0 ? tensor.parts[0]->dtype : format_name(tensor.weight.format);
        one.shape = tensor.shape;
        one.weight = std::move(tensor.weight);
        add(std::move(one));
    }
}

} // namespace finetune
