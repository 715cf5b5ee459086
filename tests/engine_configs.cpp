// What config.json and the keys of GGUF files say about a model, in the spellings that are about. Whether the models then
// compute what PyTorch computes is for zoo_check to say.
#include "engine_support.h"

#include "adapter.h"
#include "gguf.h"
#include "hugging_face.h"
#include "safetensors.h"

#include <cmath>
#include <fstream>
#include <functional>
#include <sys/stat.h>
#include <unistd.h>

using namespace finetune;

namespace {

ModelShape shape_of(const std::string &type, const std::string &keys) {
    const Scratch file("{\"model_type\": \"" + type + "\", \"hidden_size\": 64, \"intermediate_size\": 96, \"vocab_size\": 32, "
                       "\"num_hidden_layers\": 6, \"num_attention_heads\": 4, \"max_position_embeddings\": 64" + keys + "}", ".json");
    return read_model_shape(read_config(file.path));
}

std::vector<uint32_t> windows(const ModelShape &shape) {
    std::vector<uint32_t> all;
    for (const LayerShape &layer : shape.layer) all.push_back(layer.window);
    return all;
}

std::vector<int> ropes(const ModelShape &shape) {
    std::vector<int> all;
    for (const LayerShape &layer : shape.layer) all.push_back(layer.rope);
    return all;
}

void write_gguf(const std::string &path, const std::string &architecture, const std::function<void(GgufWriter &, const std::string &)> &add) {
    const std::vector<float> table(32 * 64);
    const std::string prefix = architecture + ".";
    GgufWriter writer;
    writer.add_string("general.architecture", architecture);
    writer.add_u32(prefix + "block_count", 6);
    writer.add_u32(prefix + "embedding_length", 64);
    writer.add_u32(prefix + "feed_forward_length", 96);
    writer.add_u32(prefix + "context_length", 64);
    writer.add_u32(prefix + "attention.head_count", 4);
    add(writer, prefix);
    writer.add_tensor("token_embd.weight", 0, {64, 32}, table.data());
    writer.save(path);
}

ModelShape gguf_shape_of(const std::string &architecture, const std::function<void(GgufWriter &, const std::string &)> &add) {
    const Scratch file("", ".gguf");
    write_gguf(file.path, architecture, add);
    return read_model_shape(Gguf(file.path));
}

using Windows = std::vector<uint32_t>;
using Ropes = std::vector<int>;

} // namespace

TEST_CASE("configs: a key that the file leaves out has the value that the model type has") {
    CHECK(windows(shape_of("mistral", ", \"num_key_value_heads\": 2")) == Windows(6, 4096));
    CHECK(windows(shape_of("mistral", ", \"num_key_value_heads\": 2, \"sliding_window\": null")) == Windows(6, 0));
    CHECK(shape_of("mistral", ", \"num_key_value_heads\": null").kv_heads == 4);
    CHECK(shape_of("qwen3", "").head_dim == 128);
    CHECK(shape_of("gemma2", "").head_dim == 256);
    CHECK(shape_of("olmo2", "").epsilon == 1e-5f);
    CHECK(shape_of("phi3", "").epsilon == 1e-5f);
    CHECK(shape_of("llama", "").epsilon == 1e-6f);
    CHECK(shape_of("gpt_neox", "").rope_dim == 4);
    CHECK(shape_of("gpt_neox", ", \"rope_parameters\": {\"partial_rotary_factor\": 0.5}").rope_dim == 8);
    CHECK(shape_of("smollm3", "").ropes.at(0).base == 2e6f);
    CHECK(shape_of("olmo3", "").ropes.at(0).base == 5e5f);
}

TEST_CASE("configs: windows are where each family has them") {
    const std::string used = ", \"use_sliding_window\": true, \"sliding_window\": 9";
    CHECK(windows(shape_of("qwen2", ", \"sliding_window\": 9, \"max_window_layers\": 2")) == Windows(6, 0));
    CHECK(windows(shape_of("qwen2", used + ", \"max_window_layers\": 0")) == Windows(6, 9));
    CHECK(windows(shape_of("qwen2", used + ", \"max_window_layers\": 4")) == Windows{0, 0, 0, 0, 9, 9});
    CHECK(windows(shape_of("qwen2", used)) == Windows(6, 0)); // from the 28th layer on
    CHECK(windows(shape_of("smollm3", used)) == Windows{0, 0, 0, 9, 0, 0});
    CHECK(ropes(shape_of("smollm3", used)) == Ropes{0, 0, 0, -1, 0, 0});
    CHECK(windows(shape_of("gemma3_text", ", \"sliding_window\": 9")) == Windows{9, 9, 9, 9, 9, 0});
    CHECK(windows(shape_of("gemma3_text", ", \"sliding_window\": 9, \"sliding_window_pattern\": 1")) == Windows(6, 0));
    CHECK(windows(shape_of("olmo3", ", \"sliding_window\": 9")) == Windows{9, 9, 9, 0, 9, 9});
    CHECK(ropes(shape_of("olmo3", ", \"sliding_window\": 9")) == Ropes{1, 1, 1, 0, 1, 1});
}

TEST_CASE("configs: of a model that also sees the text part counts, and the whole's tokens") {
    const Scratch file("{\"model_type\": \"gemma3\", \"eos_token_id\": [1, 106], \"text_config\": {\"model_type\": \"gemma3_text\", "
                       "\"hidden_size\": 64, \"num_hidden_layers\": 7, \"eos_token_id\": 5}, \"vision_config\": {\"hidden_size\": 8}}",
                       ".json");
    const ModelConfig config = read_config(file.path);
    CHECK(config.token("eos_token_id") == 1);
    const ModelShape shape = read_model_shape(config);
    CHECK(shape.embedding == 64);
    CHECK(shape.layers == 7);
    CHECK(shape.heads == 8);
    CHECK(shape.kv_heads == 4);
    CHECK(shape.vocabulary == 262208);
    const AdapterShape adapter_shape = shape.adapter_shape(2);
    CHECK(adapter_shape.peft_name(0, "lora_A") ==
          "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight");
    CHECK(name_in_text_part("model.language_model.layers.0.mlp.up_proj") == "model.layers.0.mlp.up_proj");
    CHECK(name_in_text_part("language_model.model.layers.0.mlp.up_proj") == "model.layers.0.mlp.up_proj");
}

TEST_CASE("configs: what is not supported is named, with what would be") {
    CHECK(contains(error_of([] { shape_of("mixtral", ", \"num_local_experts\": 8"); }), "mixture of experts"));
    CHECK(contains(error_of([] { shape_of("mamba", ""); }), "this program fine-tunes 'llama'"));
    CHECK(contains(error_of([] { shape_of("llama", ", \"quantization_config\": {\"quant_method\": \"awq\"}"); }), "--quant"));
    CHECK(contains(error_of([] { shape_of("llama", ", \"rope_scaling\": {\"type\": \"mrope\"}"); }), "'mrope'"));
}

TEST_CASE("configs: keys of GGUF files mean what llama.cpp and the converters mean by them") {
    const auto none = [](GgufWriter &, const std::string &) {};
    CHECK(gguf_shape_of("llama", none).ropes.at(0).scale == 1);
    for (const char *key : {"rope.scaling.factor", "rope.scale_linear"}) // a factor alone is that of linear scaling
        CHECK(gguf_shape_of("llama", [&](GgufWriter &w, const std::string &p) { w.add_f32(p + key, 4); }).ropes.at(0).scale == 0.25f);
    const auto yarn = [](const char *key, float value) {
        return gguf_shape_of("qwen2", [&](GgufWriter &w, const std::string &p) {
                   w.add_string(p + "rope.scaling.type", "yarn");
                   w.add_f32(p + "rope.scaling.factor", 4);
                   w.add_u32(p + "rope.scaling.original_context_length", 16);
                   if (key != nullptr) w.add_f32(p + key, value);
               }).ropes.at(0).magnitude;
    };
    const double usual = 0.1 * std::log(4.0) + 1;
    CHECK(double(yarn(nullptr, 0)) == doctest::Approx(usual));
    CHECK(double(yarn("rope.scaling.attn_factor", 1.5f)) == doctest::Approx(1.5 * usual));
    CHECK(yarn("rope.scaling.yarn_attn_factor", 1.25f) == 1.25f);
    const auto window = [](GgufWriter &w, const std::string &p) { w.add_u32(p + "attention.sliding_window", 9); };
    CHECK(windows(gguf_shape_of("gemma2", none)) == Windows{4096, 0, 4096, 0, 4096, 0});
    CHECK(windows(gguf_shape_of("gemma3", none)) == Windows(6, 0));
    CHECK(ropes(gguf_shape_of("gemma3", window)) == Ropes{1, 1, 1, 1, 1, 0});
    CHECK(windows(gguf_shape_of("olmo2", none)) == Windows(6, 0));
    CHECK(windows(gguf_shape_of("olmo2", window)) == Windows{9, 9, 9, 0, 9, 9});
    CHECK(windows(gguf_shape_of("llama", window)) == Windows(6, 9));
    const auto pattern = [&](GgufWriter &w, const std::string &p) {
        window(w, p);
        Bytes entry; // an array of bools
        entry.text(p + "attention.sliding_window_pattern").put<uint32_t>(9).put<uint32_t>(7).put<uint64_t>(6);
        for (uint8_t slides : {0, 1, 0, 1, 1, 0}) entry.put<uint8_t>(slides);
        w.add_entry(entry.data);
    };
    CHECK(windows(gguf_shape_of("olmo2", pattern)) == Windows{0, 9, 0, 9, 9, 0});
}

TEST_CASE("configs: the scale of Gemma's attention comes from the config.json of the same model beside the file, and no other's") {
    const Scratch mark;
    const std::string folder = mark.path + "_beside", path = folder + "/model.gguf", config = folder + "/config.json";
    REQUIRE(mkdir(folder.c_str(), 0700) == 0);
    const auto keys = [](GgufWriter &w, const std::string &p) {
        w.add_u32(p + "attention.key_length", 16);
        w.add_u32(p + "attention.value_length", 16);
    };
    const auto scale_with = [&](const std::string &text) {
        std::ofstream(config) << text;
        return read_model_shape(Gguf(path)).attention_scale;
    };
    const auto config_of = [](const char *type, int width) {
        return "{\"model_type\": \"" + std::string(type) + "\", \"hidden_size\": " + std::to_string(width) +
               ", \"intermediate_size\": 96, \"vocab_size\": 32, \"num_hidden_layers\": 6, \"num_attention_heads\": 4, "
               "\"num_key_value_heads\": 4, \"head_dim\": 16, \"query_pre_attn_scalar\": 25, \"max_position_embeddings\": 64}";
    };
    write_gguf(path, "gemma2", keys);
    const float usual = read_model_shape(Gguf(path)).attention_scale;
    CHECK(scale_with(config_of("gemma2", 64)) == 0.2f);
    CHECK(scale_with(config_of("gemma2", 128)) == usual);
    CHECK(scale_with(config_of("gemma3_text", 64)) == usual);
    CHECK(scale_with("{") == usual);
    write_gguf(path, "gemma2", [&](GgufWriter &w, const std::string &p) {
        keys(w, p);
        w.add_f32(p + "attention.scale", 0.5f);
    });
    CHECK(scale_with(config_of("gemma2", 64)) == 0.5f); // the file's own word comes first
    unlink(config.c_str());
    unlink(path.c_str());
    rmdir(folder.c_str());
}
