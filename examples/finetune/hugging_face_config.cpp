// config.json as the rest of the program reads it: with what the file leaves out because transformers has it as the
// default of a model type, and of models that also see the part that is about text.
#include "hugging_face.h"

namespace finetune {
namespace {

// Of each model type the defaults that differ from those of the readers. A file that says null means it.
const std::pair<const char *, const char *> unsaid[] = {
    {"mistral", R"({"sliding_window": 4096, "num_key_value_heads": 8})"},
    {"qwen2", R"({"sliding_window": 4096, "max_window_layers": 28})"},
    {"qwen3", R"({"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128})"},
    {"smollm3", R"({"rope_theta": 2e6, "num_key_value_heads": 4})"},
    {"olmo2", R"({"rms_norm_eps": 1e-5})"},
    {"olmo3", R"({"rms_norm_eps": 1e-5, "rope_theta": 5e5, "sliding_window": 4096})"},
    {"gemma2", R"({"sliding_window": 4096, "head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4})"},
    {"gemma3_text",
     R"({"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
         "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
         "sliding_window": 4096, "rope_theta": 1e6, "rope_local_base_freq": 1e4})"},
    {"phi3", R"({"rms_norm_eps": 1e-5})"},
    {"gpt_neox", R"({"rotary_pct": 0.25})"},
    {"gptj", R"({"rotary_dim": 64})"},
};

} // namespace

ModelConfig read_config(const std::string &path) {
    ModelConfig config(path);
    for (const auto &[whole, text] : seeing_types)
        if (config.text({"model_type"}, "") == whole) config.narrow("text_config", text);
    const std::string type = config.text({"model_type"}, "");
    for (const auto &[name, values] : unsaid)
        if (type == name) config.assume(parse_json(values, path, 2));
    return config;
}

} // namespace finetune
