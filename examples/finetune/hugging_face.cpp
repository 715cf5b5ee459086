// The directory form of a base model: config.json, safetensors, tokenizer.model.
#include "hugging_face.h"

#include "device.h"
#include "format_choice.h"
#include "packed.h"

#include <algorithm>

namespace finetune {
namespace {

using Config = ModelConfig;

bool ends_with(const std::string &text, const std::string &ending) {
    return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

// The name that GGUF has for a tensor; checkpoints of a model without its head lack the first word of their names.
std::string gguf_name(const Traits &traits, const std::string &name) {
    const std::string found = traits.gguf_name(name), layers = traits.naming->layers;
    return !found.empty() ? found : traits.gguf_name(layers.substr(0, layers.find('.') + 1) + name);
}

// Constants that older files hold beside the weights.
bool is_constant(const std::string &name) {
    for (const char *ending : {".inv_freq", ".attn.bias", ".masked_bias", ".attention.bias"})
        if (ends_with(name, ending)) return true;
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

} // namespace

void BaseModel::open_directory() {
    safetensors_ = std::make_unique<SafeTensors>(path_);
    const Config config(safetensors_->folder() + "config.json");
    shape_ = read_model_shape(config);
    begin_token_ = config.token("bos_token_id");
    end_token_ = config.token("eos_token_id");
    std::vector<PackedTensor> tensors = read_packed(*safetensors_);
    const auto is_head = [&](const PackedTensor &tensor) {
        return gguf_name(*shape_.traits, tensor.name) == "output.weight";
    };
    shape_.tied = config.flag("tie_word_embeddings", std::none_of(tensors.begin(), tensors.end(), is_head));
    for (PackedTensor &tensor : tensors) {
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
}

} // namespace finetune
