#include "base_model.h"

#include "decode.h"
#include "format_choice.h"
#include "tokenizer.h"

#include <cmath>
#include <cstring>

namespace finetune {

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
    case linear_qkv:
        return q_width() + 2 * uint64_t(kv_width());
    case linear_gate:
    case linear_up:
        return feed_forward;
    case linear_gate_up:
        return 2 * uint64_t(feed_forward);
    default:
        return embedding;
    }
}

AdapterShape ModelShape::adapter_shape(uint32_t rank) const {
    AdapterShape shape = {traits, layers, rank, {}, rope_layout == QLORA_ROPE_HALF, layers_name};
    for (Linear linear : traits->linears()) {
        const bool turned = linear == linear_qkv || (traits->rows == HeadOrder::paired && linear <= linear_k);
        shape.linears.push_back({linear, inputs(linear), outputs(linear), turned ? traits->rows : HeadOrder::same,
                                 linear == linear_k ? kv_heads : heads});
    }
    return shape;
}

BaseModel::BaseModel(const std::string &path) : path_(path) {
    if (is_directory(path)) {
        open_directory();
    } else {
        own_gguf_ = std::make_unique<Gguf>(path);
        gguf_ = own_gguf_.get();
        open_gguf();
    }
    check_tensors();
}

BaseModel::BaseModel(const Gguf &file) : path_(file.path()), gguf_(&file) {
    open_gguf();
    check_tensors();
}

BaseModel::~BaseModel() = default;

const BaseTensor *BaseModel::find_tensor(const std::string &name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

const BaseTensor &BaseModel::tensor(const std::string &name) const {
    const BaseTensor *found = find_tensor(name);
    if (found == nullptr) reject("tensor ", shown(name), " is missing");
    return *found;
}

bool BaseModel::is_plain() const { return is_float(tensor(gguf_weight_name(0, linear_output)).weight.format); }

std::unique_ptr<Tokenizer> BaseModel::tokenizer(bool needed) const {
    if (gguf_ == nullptr) return directory_tokenizer(needed);
    const auto kind = gguf_->find_string("tokenizer.ggml.model").value_or("");
    if (!needed && kind != "llama" && kind != "gpt2" && kind != "t5") return nullptr;
    auto tokenizer = std::make_unique<Tokenizer>(*gguf_);
    if (static_cast<uint32_t>(tokenizer->size()) != shape_.vocabulary)
        reject("the tokenizer has ", tokenizer->size(), " tokens, the embedding ", shape_.vocabulary, " rows");
    return tokenizer;
}

void BaseModel::add(BaseTensor tensor) {
    tensor.elements = 1;
    for (uint64_t size : tensor.shape) tensor.elements *= size;
    if (!index_.emplace(tensor.name, tensors_.size()).second)
        reject("tensor ", shown(tensor.own_name), " has the meaning of another one, ", shown(tensor.name));
    tensors_.push_back(std::move(tensor));
}

void BaseModel::open_gguf() {
    shape_ = read_model_shape(*gguf_);
    for (const GgufTensor &tensor : gguf_->tensors()) {
        BaseTensor one;
        one.name = one.own_name = std::string(tensor.name);
        one.type = tensor.type->name;
        for (uint32_t d = tensor.dims; d > 0; --d) one.shape.push_back(tensor.ne[d - 1]);
        one.weight = view_weight(*gguf_, tensor);
        add(std::move(one));
    }
    if (const auto id = gguf_->find_unsigned("tokenizer.ggml.eos_token_id"))
        end_token_ = static_cast<int32_t>(std::min<uint64_t>(*id, INT32_MAX));
}

namespace {
// "blk.0.attn_q.weight" of its scale per tensor, "blk.0.attn_q.scale".
std::string weight_of_scale(const std::string &name) {
    const std::string ending = ".scale";
    if (name.size() <= ending.size() || name.compare(name.size() - ending.size(), ending.size(), ending) != 0) return "";
    const std::string stem = name.substr(0, name.size() - ending.size());
    const bool whole = stem.size() > 7 && stem.compare(stem.size() - 7, 7, ".weight") == 0;
    return whole ? stem : stem + ".weight";
}
} // namespace

// A vector is floats; a matrix has any format that the library decodes.
void BaseModel::check_tensor(const std::string &name, uint64_t rows, uint64_t cols) const {
    const BaseTensor &found = tensor(name);
    const std::vector<uint64_t> expected =
        rows == 0 ? std::vector<uint64_t>{cols} : std::vector<uint64_t>{rows, cols};
    std::vector<uint64_t> given = found.shape;
    while (given.size() > expected.size() && given[0] == 1) given.erase(given.begin());
    const auto text = [](const std::vector<uint64_t> &shape) {
        std::string all;
        for (uint64_t size : shape) all += (all.empty() ? "[" : ", ") + std::to_string(size);
        return all + "]";
    };
    if (given != expected)
        reject("tensor ", shown(found.own_name), " is ", text(found.shape), ", expected ", text(expected),
               " from the model's ", gguf_ != nullptr ? "keys" : "config.json");
    if (rows == 0 ? !is_float(found.weight.format) : found.weight.format == 0)
        reject("tensor ", shown(found.own_name), " is ", found.type, ", which is not supported there; expected ",
               rows == 0 ? "f32, f16 or bf16" : "one of " + format_names());
}

void BaseModel::check_norm(const std::string &name, uint64_t cols) const {
    const bool has_bias = find_tensor(name + ".bias") != nullptr;
    check_tensor(name + ".weight", 0, cols);
    if (shape_.traits->norm == NormKind::layer) check_tensor(name + ".bias", 0, cols);
    else if (has_bias) reject("tensor ", shown(name + ".bias"), " has no place in a norm without centering");
}

// What one block has a bias for all have.
void BaseModel::check_linear(uint32_t layer, Linear linear) const {
    const std::string module = linear_gguf_names[linear], bias = "blk." + std::to_string(layer) + "." + module + ".bias";
    check_tensor(gguf_weight_name(layer, linear), shape_.outputs(linear), shape_.inputs(linear));
    if (find_tensor("blk.0." + module + ".bias") != nullptr) check_tensor(bias, 0, shape_.outputs(linear));
    else if (find_tensor(bias) != nullptr) reject("tensor ", shown(bias), " is there, but the first block has none");
}

void BaseModel::check_block(uint32_t layer) const {
    const std::string block = "blk." + std::to_string(layer) + ".";
    for (Linear linear : shape_.traits->linears()) check_linear(layer, linear);
    for (const char *name : {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"})
        if (shape_.traits->module(std::string(name)) != nullptr) check_norm(block + name, shape_.embedding);
    if (shape_.traits->head_norm == HeadNorm::none) return;
    const bool whole = shape_.traits->head_norm == HeadNorm::width;
    check_norm(block + "attn_q_norm", whole ? shape_.q_width() : shape_.head_dim);
    check_norm(block + "attn_k_norm", whole ? shape_.kv_width() : shape_.head_dim);
}

void BaseModel::check_tensors() const {
    const Traits &traits = *shape_.traits;
    for (const BaseTensor &tensor : tensors_)
        if (!traits.knows(tensor.name) && tensor.name.rfind("rope_", 0) != 0 &&
            tensor.name.find("attn_rot_embd") == std::string::npos &&
            (gguf_ == nullptr || find_tensor(weight_of_scale(tensor.name)) == nullptr))
            reject("tensor ", shown(tensor.own_name), " has no place in a ", shown(traits.model_type),
                   " model as this program knows it");
    check_tensor("token_embd.weight", shape_.vocabulary, shape_.embedding);
    if (shape_.output_norm) check_norm("output_norm", shape_.embedding);
    if (!shape_.tied) check_tensor("output.weight", shape_.vocabulary, shape_.embedding);
    if (find_tensor("output.bias") != nullptr) check_tensor("output.bias", 0, shape_.vocabulary);
    if (traits.positions == Positions::learned) check_tensor("position_embd.weight", shape_.context, shape_.embedding);
    if (traits.embedding_norm) check_norm("token_embd_norm", shape_.embedding);
    for (uint32_t layer = 0; layer < shape_.layers; ++layer) check_block(layer);
}

} // namespace finetune
