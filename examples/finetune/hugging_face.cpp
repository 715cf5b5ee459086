// The directory form of a base model: config.json, safetensors, tokenizer.model.
#include "hugging_face.h"

#include "device.h"
#include "format_choice.h"
#include "packed.h"
#include "table_width.h"

#include <algorithm>

namespace finetune {
namespace {

using Config = ModelConfig;

bool ends_with(const std::string &text, const std::string &ending) {
    return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

// The name that GGUF has for a tensor; checkpoints of a model without its head lack the first word of their names.
std::string gguf_name(const Traits &traits, const std::string &own_name) {
    const std::string name = name_in_text_part(own_name);
    const std::string found = traits.gguf_name(name), layers = traits.naming->layers;
    if (found.empty() && name == "lm_head.weight") return "output.weight"; // as some name it in all models
    return !found.empty() ? found : traits.gguf_name(layers.substr(0, layers.find('.') + 1) + name);
}

// Constants that older files hold beside the weights.
bool is_constant(const std::string &name) {
    for (const char *ending : {".inv_freq", ".attn.bias", ".masked_bias", ".attention.bias"})
        if (ends_with(name, ending)) return true;
    return false;
}

// What a model sees with.
bool is_for_sight(const std::string &name) {
    const std::string own = name.rfind("model.", 0) == 0 ? name.substr(6) : name;
    for (const char *beginning : {"vision_tower.", "vision_model.", "multi_modal_projector."})
        if (own.rfind(beginning, 0) == 0) return true;
    return false;
}

// Norm factors that are stored as what they differ from one.
void add_one(StoredWeight &weight) {
    std::vector<float> values = decode_floats(weight);
    for (float &value : values) value += 1;
    weight.made = std::move(values);
    weight.format = weight.dtype = QLORA_FORMAT_F32;
    weight.planes[QLORA_PLANE_CODE] = reinterpret_cast<const uint8_t *>(weight.made.data());
}

// What has no place in GGUF's form of a model gets it here: every other part of the program knows that form only.
void bring_to_gguf(const ModelShape &shape, BaseTensor &tensor) {
    const Traits &traits = *shape.traits;
    const bool vector = tensor.shape.size() == 1;
    if (traits.offset_norms && vector && is_float(tensor.weight.format) && ends_with(tensor.name, "norm.weight"))
        add_one(tensor.weight);
    if (traits.rows == HeadOrder::interleaved && tensor.name.find(".attn_qkv.") != std::string::npos) {
        const uint64_t rows = shape.outputs(linear_qkv);
        if (tensor.shape[0] == rows && tensor.shape.size() <= 2)
            reorder_rows(tensor.weight, hugging_face_rows(traits.rows, rows, shape.heads), tensor.own_name);
    }
    const uint64_t unused = 2; // rows before that of the first position
    if (traits.positions == Positions::learned && tensor.name == "position_embd.weight" && tensor.shape.size() == 2 &&
        is_float(tensor.weight.format) && tensor.shape[0] > unused) {
        tensor.weight.planes[QLORA_PLANE_CODE] += unused * tensor.shape[1] * type_bytes(tensor.weight.format);
        tensor.weight.rows = tensor.shape[0] -= unused;
    }
}

BaseTensor made_tensor(const std::string &name, std::vector<uint64_t> shape, StoredWeight weight) {
    BaseTensor one;
    one.name = one.own_name = name;
    one.type = format_name(weight.format);
    one.shape = std::move(shape);
    one.weight = std::move(weight);
    return one;
}

// A vector of the same value.
BaseTensor constant(const std::string &name, uint64_t count, float value) {
    StoredWeight weight;
    weight.format = weight.dtype = QLORA_FORMAT_F32;
    weight.rows = 1;
    weight.cols = count;
    weight.made.assign(count, value);
    weight.planes[QLORA_PLANE_CODE] = reinterpret_cast<const uint8_t *>(weight.made.data());
    return made_tensor(name, {count}, std::move(weight));
}

// Norms that have no parameters get those that change nothing.
void make_norms(const ModelShape &shape, std::vector<BaseTensor> &made) {
    std::vector<std::string> names;
    if (shape.output_norm) names.push_back("output_norm");
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (const char *norm : {"attn_norm", "ffn_norm"})
            if (shape.traits->module(std::string(norm)) != nullptr)
                names.push_back("blk." + std::to_string(layer) + "." + norm);
    for (const std::string &name : names) {
        made.push_back(constant(name + ".weight", shape.embedding, 1));
        if (shape.traits->norm == NormKind::layer) made.push_back(constant(name + ".bias", shape.embedding, 0));
    }
}

} // namespace

// Takes the place of the narrow embedding, and of the head if it has its own.
void BaseModel::widen_table(const StoredWeight *in, const StoredWeight *out) {
    const uint64_t width = shape_.table_width, hidden = shape_.embedding;
    const BaseTensor &table = tensor("token_embd.weight"), &head = shape_.tied ? table : tensor("output.weight");
    const auto fits = [](const StoredWeight *weight, uint64_t rows, uint64_t cols) {
        return weight != nullptr && weight->format != 0 && weight->rows == rows && weight->cols == cols;
    };
    if (!fits(in, hidden, width) || !fits(out, width, hidden))
        reject("word_embed_proj_dim is ", width, ", hidden_size ", hidden, ": expected tensors 'project_in.weight' [", hidden, ", ",
               width, "] and 'project_out.weight' [", width, ", ", hidden, "]");
    for (const BaseTensor *one : {&table, &head})
        if (!fits(&one->weight, shape_.vocabulary, width))
            reject("tensor ", shown(one->own_name), ": expected [", shape_.vocabulary, ", ", width, "] from the model's config.json");
    std::vector<BaseTensor> made;
    const std::vector<uint64_t> size = {shape_.vocabulary, hidden};
    made.push_back(made_tensor("token_embd.weight", size, widened_embedding(table.weight, *in)));
    made.push_back(made_tensor("output.weight", size, widened_head(head.weight, *out)));
    for (BaseTensor &one : made) {
        one.elements = size[0] * size[1];
        const auto found = index_.find(one.name);
        if (found == index_.end()) add(std::move(one));
        else tensors_[found->second] = std::move(one);
    }
    shape_.tied = false;
}

void BaseModel::open_directory() {
    safetensors_ = std::make_unique<SafeTensors>(path_);
    const Config config = read_config(safetensors_->folder() + "config.json");
    shape_ = read_model_shape(config);
    begin_token_ = config.token("bos_token_id");
    end_token_ = config.token("eos_token_id");
    std::vector<PackedTensor> tensors = read_packed(*safetensors_);
    const auto is_head = [&](const PackedTensor &tensor) {
        return gguf_name(*shape_.traits, tensor.name) == "output.weight";
    };
    shape_.tied = config.flag("tie_word_embeddings", std::none_of(tensors.begin(), tensors.end(), is_head));
    std::vector<BaseTensor> made;
    if (shape_.plain_norms) make_norms(shape_, made);
    for (BaseTensor &tensor : made) add(std::move(tensor));
    const StoredWeight *in = nullptr, *out = nullptr;
    const bool widens = shape_.table_width != 0 && shape_.table_width != shape_.embedding;
    for (PackedTensor &tensor : tensors) {
        if (widens && ends_with(tensor.name, "decoder.project_in.weight")) in = &tensor.weight;
        if (widens && ends_with(tensor.name, "decoder.project_out.weight")) out = &tensor.weight;
        if (&tensor.weight == in || &tensor.weight == out) continue;
        if (config.narrowed() && is_for_sight(tensor.name)) continue;
        BaseTensor one;
        one.name = gguf_name(*shape_.traits, tensor.name);
        if (one.name.empty() && !is_constant(tensor.name))
            reject("tensor ", shown(tensor.name), " has no place in a ", shown(shape_.traits->model_type),
                   " model as this program knows it");
        if (one.name.empty() || (shape_.tied && one.name == "output.weight")) continue;
        one.own_name = tensor.name;
        one.type = tensor.weight.format == 0 ? tensor.parts[0]->dtype : format_name(tensor.weight.format);
        one.shape = tensor.shape;
        one.weight = std::move(tensor.weight);
        if (one.weight.format != 0) bring_to_gguf(shape_, one);
        add(std::move(one));
    }
    if (widens) widen_table(in, out);
}

} // namespace finetune
