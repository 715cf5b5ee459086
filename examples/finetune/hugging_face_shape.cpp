// The shape of a model from its config.json.
#include "hugging_face.h"

#include "rope_scaling.h"

#include <algorithm>
#include <cmath>

namespace finetune {
namespace {

const uint64_t most_layers = 1024, most_width = 1 << 20, most_length = 1 << 24;

int32_t read_activation(const ModelConfig &config, const Traits &traits) {
    static const std::pair<const char *, int32_t> known[] = {
        {"silu", QLORA_ACTIVATION_SILU},          {"swish", QLORA_ACTIVATION_SILU},
        {"gelu", QLORA_ACTIVATION_GELU},          {"gelu_python", QLORA_ACTIVATION_GELU},
        {"gelu_new", QLORA_ACTIVATION_GELU_TANH}, {"gelu_fast", QLORA_ACTIVATION_GELU_TANH},
        {"relu", QLORA_ACTIVATION_RELU},          {"gelu_pytorch_tanh", QLORA_ACTIVATION_GELU_TANH}};
    // Configurations of gemma have a 'hidden_act' that says nothing.
    const std::string name = traits.scaled_embedding ? config.text({"hidden_activation"}, "")
                                                     : config.text({"hidden_act", "activation_function"}, "");
    if (name.empty()) return traits.activation;
    std::string expected;
    for (const auto &[text, activation] : known) {
        if (name == text) return activation;
        expected += (expected.empty() ? "'" : ", '") + std::string(text) + "'";
    }
    config.reject("activation ", shown(name), " is not supported, expected one of ", expected);
}

// Keys of newer files are under rope_parameters, of older ones under rope_scaling with rope_theta beside it.
const Json *rope_object(const ModelConfig &config, const char *layers) {
    const char *key = nullptr;
    const Json *rope = config.find({"rope_parameters", "rope_scaling"}, &key);
    if (rope == nullptr) return nullptr;
    if (!rope->is_object()) config.reject("key '", key, "' is not an object");
    const Json *part = config.find(*rope, layers);
    if (part != nullptr && !part->is_object()) config.reject("key '", key, "': '", layers, "' is not an object");
    return part != nullptr ? part : rope;
}

RopeScaling read_scaling(const ModelConfig &config, const Json &rope, const ModelShape &shape) {
    RopeScaling scaling;
    const Json *named = config.find(rope, "rope_type");
    if (named == nullptr) named = config.find(rope, "type");
    if (named != nullptr) scaling.type = named->is_string() ? named->get<std::string>() : "?";
    if (scaling.type == "su" || (scaling.type == "yarn" && shape.traits->feed_forward == FeedForward::fused))
        scaling.type = "longrope"; // as Phi-3 called it
    // It stretches beyond the context length only, which no sequence reaches here.
    if (scaling.type == "default" || scaling.type == "dynamic") return scaling;
    const auto number = [&](const char *key, double absent) { return double(config.number(rope, {key}, absent)); };
    const bool longrope = scaling.type == "longrope";
    if (scaling.type != "linear" && scaling.type != "llama3" && scaling.type != "yarn" && !longrope)
        config.reject("rope scaling ", shown(scaling.type),
                      " is not supported, expected 'default', 'linear', 'llama3', 'yarn', 'longrope' or 'dynamic'");
    scaling.original =
        double(config.number({"original_max_position_embeddings"}, number("original_max_position_embeddings", shape.context)));
    scaling.factor = longrope || scaling.type == "yarn" ? number("factor", double(shape.context) / scaling.original)
                                                        : number("factor", 0);
    scaling.magnitude = config.find(rope, "attention_factor") == nullptr ? 0 : number("attention_factor", 0);
    if (longrope) {
        scaling.short_factors = config.numbers(rope, "short_factor", shape.rope_dim / 2);
        scaling.long_factors = config.numbers(rope, "long_factor", shape.rope_dim / 2);
    }
    if (scaling.type == "llama3") {
        scaling.low = number("low_freq_factor", 0);
        scaling.high = number("high_freq_factor", 0);
        if (!(scaling.low < scaling.high))
            config.reject("rope scaling: low_freq_factor ", scaling.low, " is not below high_freq_factor ", scaling.high);
    }
    if (scaling.type == "yarn") {
        scaling.beta_fast = number("beta_fast", 32);
        scaling.beta_slow = number("beta_slow", 1);
        const Json *truncate = config.find(rope, "truncate");
        scaling.whole = truncate == nullptr || !truncate->is_boolean() || truncate->get<bool>();
        if (scaling.magnitude == 0 && config.find(rope, "mscale") != nullptr && config.find(rope, "mscale_all_dim") != nullptr)
            scaling.magnitude = yarn_magnitude(scaling.factor, number("mscale", 0)) /
                                yarn_magnitude(scaling.factor, number("mscale_all_dim", 0));
    }
    return scaling;
}

void read_ropes(const ModelConfig &config, ModelShape &shape) {
    const Traits &traits = *shape.traits;
    shape.rope_layout = traits.rope_layout;
    shape.rope_dim = shape.head_dim;
    if (traits.positions != Positions::rotary) return;
    const Json none = Json::object();
    const Json *found = rope_object(config, "full_attention");
    const Json &rope = found != nullptr ? *found : none;
    const float part = config.find(rope, "partial_rotary_factor") != nullptr
                           ? config.number(rope, {"partial_rotary_factor"}, 1)
                           : config.number({"partial_rotary_factor", "rotary_pct"}, 1);
    const bool partial = traits.residual != Residual::sequential || traits.feed_forward == FeedForward::fused;
    if (part > 1 || (part != 1 && !partial))
        config.reject("partial_rotary_factor ", part, " is not supported in ", shown(traits.model_type));
    shape.rope_dim = static_cast<uint32_t>(double(shape.head_dim) * double(part) + 1e-3); // 10 * 0.7f is below 7
    if (config.find("rotary_dim") != nullptr) shape.rope_dim = config.size({"rotary_dim"}, shape.head_dim);
    if (shape.rope_dim == 0 || shape.rope_dim % 2 != 0)
        config.reject("an even number of a head's ", shape.head_dim, " dimensions must turn, not ", shape.rope_dim);
    Rope one;
    one.base = config.find(rope, "rope_theta") != nullptr ? config.number(rope, {"rope_theta"}, 0)
                                                         : config.number({"rope_theta", "rotary_emb_base"}, 10000);
    apply_scaling(read_scaling(config, rope, shape), shape.rope_dim, one);
    shape.ropes = {one};
    if (!traits.two_ropes()) return;
    const Json *local = rope_object(config, "sliding_attention");
    const bool own = local != nullptr && local != found; // older files have it beside the other keys
    const double usual = config.number({"rope_local_base_freq"}, double(one.base));
    Rope slide;
    slide.base = own ? config.number(*local, {"rope_theta"}, usual) : static_cast<float>(usual);
    if (own) apply_scaling(read_scaling(config, *local, shape), shape.rope_dim, slide);
    shape.ropes.push_back(slide);
}

// Which layers have the window, by layer_types, or, in older files, by rules that each architecture has.
std::vector<bool> read_slides(const ModelConfig &config, const ModelShape &shape) {
    std::vector<bool> slides;
    const Traits &traits = *shape.traits;
    const Json *types = config.find("layer_types");
    if (types != nullptr && traits.window_period != 1) {
        if (!types->is_array() || types->size() != shape.layers)
            config.reject("key 'layer_types': expected an array of ", shape.layers, " names");
        for (const Json &type : *types) {
            if (type != "full_attention" && type != "sliding_attention")
                config.reject("key 'layer_types': element ", slides.size(), " is none of 'full_attention', 'sliding_attention'");
            slides.push_back(type == "sliding_attention");
        }
        return slides;
    }
    const uint32_t period = traits.window_period < 2 ? 0
                                                     : config.size({"sliding_window_pattern", "_sliding_window_pattern"}, most_layers,
                                                                   traits.window_period);
    const uint32_t first = traits.window_period == 0 ? config.optional_size("max_window_layers", UINT32_MAX) : 0;
    for (uint32_t i = 0; i < shape.layers; ++i) // of those with layers without positions, these alone
        slides.push_back(traits.still_period != 0 ? shape.layer[i].rope < 0 : i >= first && (period == 0 || (i + 1) % period != 0));
    return slides;
}

// Layers without rotary positions.
void read_stills(const ModelConfig &config, ModelShape &shape) {
    for (LayerShape &layer : shape.layer)
        if (shape.ropes.empty()) layer.rope = -1;
    const uint32_t usual = shape.traits->still_period;
    if (usual == 0) return;
    if (const Json *turns = config.find("no_rope_layers")) { // 1 where positions are rotary
        if (!turns->is_array() || turns->size() < shape.layers)
            config.reject("key 'no_rope_layers': expected an array of ", shape.layers, " numbers");
        for (uint32_t i = 0; i < shape.layers; ++i)
            if ((*turns)[i] == 0) shape.layer[i].rope = -1;
        return;
    }
    const uint32_t period = config.size({"no_rope_layer_interval"}, most_layers, usual);
    for (uint32_t i = period; i <= shape.layers; i += period) shape.layer[i - 1].rope = -1;
}

void read_layers(const ModelConfig &config, ModelShape &shape) {
    const bool used = shape.traits->window_period != 0 || config.flag("use_sliding_window", false);
    const uint32_t window = used ? config.optional_size("sliding_window", most_length) : 0;
    shape.layer.resize(shape.layers);
    read_stills(config, shape);
    const std::vector<bool> slides = read_slides(config, shape);
    for (uint32_t i = 0; i < shape.layers; ++i) {
        if (!slides[i]) continue;
        shape.layer[i].window = window;
        if (shape.ropes.size() > 1) shape.layer[i].rope = 1;
    }
}

void refuse_variants(const ModelConfig &config) {
    if (const Json *quantization = config.find("quantization_config")) {
        const Json *method = quantization->is_object() ? config.find(*quantization, "quant_method") : nullptr;
        const std::string name = method != nullptr && method->is_string() ? method->get<std::string>() : "?";
        if (name != "bitsandbytes" && name != "gptq")
            config.reject("quantization_config: quant_method ", shown(name),
                          " is not supported, expected 'bitsandbytes' or 'gptq'; take the model as it was before that, with "
                          "--quant, or a GGUF file of it");
    }
    static const std::pair<const char *, bool> expected[] = {{"use_bidirectional_attention", false},
                                                             {"add_cross_attention", false}};
    for (const auto &[key, value] : expected)
        if (config.flag(key, value) != value)
            config.reject("key '", key, "' is ", value ? "false" : "true", ", which is not supported");
}

// Where the first models of OPT and BLOOM differ from the later ones.
void read_norm_variants(const ModelConfig &config, ModelShape &shape) {
    if (shape.traits->positions == Positions::slopes)
        shape.normed_residual = config.flag("apply_residual_connection_post_layernorm", false);
    if (shape.traits->positions != Positions::learned) return;
    if (!config.flag("do_layer_norm_before", true)) shape.place = NormPlace::sum;
    shape.output_norm = shape.place == NormPlace::before && !config.flag("_remove_final_layer_norm", false);
    shape.plain_norms = !config.flag("layer_norm_elementwise_affine", true);
    shape.table_width = config.size({"word_embed_proj_dim"}, most_width, shape.embedding);
}

bool has_experts(const ModelConfig &config) {
    for (const char *key : {"num_local_experts", "num_experts", "n_routed_experts"})
        if (const Json *count = config.find(key); count != nullptr && count->is_number_unsigned() && count->get<uint64_t>() > 1)
            return true;
    return false;
}

} // namespace

ModelShape read_model_shape(const ModelConfig &config) {
    const std::string kind = config.text({"model_type"}, "");
    ModelShape shape;
    shape.traits = find_model_type(kind);
    if (shape.traits == nullptr)
        config.reject("model_type ", shown(kind), " is not supported", has_experts(config) ? ": it is a mixture of experts" : "",
                      "; this program fine-tunes ", architecture_names(&Traits::model_type));
    if (has_experts(config)) config.reject("mixtures of experts are not supported; choose a dense model of the same family");
    const Traits &traits = *shape.traits;
    if (config.narrowed()) shape.layers_name = std::string(text_part) + "layers.";
    shape.layers = config.size({"num_hidden_layers", "n_layer"}, most_layers);
    shape.embedding = config.size({"n_embed", "hidden_size", "n_embd"}, most_width);
    shape.feed_forward = config.size({"intermediate_size", "ffn_dim", "n_inner"}, most_width,
                                     traits.feed_forward == FeedForward::plain ? 4 * uint64_t(shape.embedding) : 0);
    shape.vocabulary = config.size({"vocab_size"}, INT32_MAX);
    shape.context = config.size({"max_position_embeddings", "n_positions", "seq_length"}, most_length,
                                traits.positions == Positions::slopes ? 2048 : 0);
    shape.heads = config.size({"num_attention_heads", "n_head"}, 4096);
    shape.kv_heads = config.size({"num_key_value_heads"}, shape.heads, shape.heads);
    if (shape.heads % shape.kv_heads != 0)
        config.reject("num_attention_heads ", shape.heads, " is not a multiple of num_key_value_heads ",
                      shape.kv_heads);
    if (traits.rows == HeadOrder::interleaved && shape.kv_heads != shape.heads)
        config.reject("num_key_value_heads ", shape.kv_heads, " is not supported in ", shown(kind));
    if (shape.embedding % shape.heads != 0 && config.find("head_dim") == nullptr)
        config.reject("hidden_size ", shape.embedding, " is not a multiple of num_attention_heads ", shape.heads);
    shape.head_dim = config.size({"head_dim"}, 256, std::max(1u, shape.embedding / shape.heads));
    if (traits.positions == Positions::rotary && shape.head_dim % 2 != 0)
        config.reject("head_dim ", shape.head_dim, " is odd");
    shape.activation = read_activation(config, traits);
    shape.place = traits.place;
    shape.residual = traits.residual;
    if (shape.residual == Residual::parallel && !config.flag("use_parallel_residual", true))
        shape.residual = Residual::sequential;
    shape.epsilon = config.number({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"},
                                  traits.norm == NormKind::layer ? 1e-5 : 1e-6);
    if (traits.attention_cap > 0) shape.attention_cap = config.cap("attn_logit_softcapping", traits.attention_cap);
    shape.logit_cap = config.cap("final_logit_softcapping", traits.logit_cap);
    if (traits.scaled_embedding) {
        shape.embedding_scale = std::sqrt(float(shape.embedding));
        shape.attention_scale = 1 / std::sqrt(config.number({"query_pre_attn_scalar"}, 256));
    }
    refuse_variants(config);
    read_norm_variants(config, shape);
    read_ropes(config, shape);
    read_layers(config, shape);
    return shape;
}

} // namespace finetune
