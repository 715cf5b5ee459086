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
    case linear_gate:
    case linear_up:
        return feed_forward;
    default:
        return embedding;
    }
}

AdapterShape ModelShape::adapter_shape(uint32_t rank) const {
    AdapterShape shape = {architecture, layers, heads, kv_heads, rank, {}, {}, rope_layout == QLORA_ROPE_HALF};
    for (int i = 0; i < linear_count; ++i) {
        shape.inputs[i] = inputs(Linear(i));
        shape.outputs[i] = outputs(Linear(i));
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

bool BaseModel::is_plain() const { return is_float(tensor(gguf_weight_name(0, linear_q)).weight.format); }

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

void BaseModel::check_tensors() {
    check_tensor("token_embd.weight", shape_.vocabulary, shape_.embedding);
    check_tensor("output_norm.weight", 0, shape_.embedding);
    if (!shape_.tied) check_tensor("output.weight", shape_.vocabulary, shape_.embedding);
    if (find_tensor("rope_freqs.weight") != nullptr) {
        check_tensor("rope_freqs.weight", 0, shape_.rope_dim / 2);
        rope_factors_ = decode_floats(tensor("rope_freqs.weight").weight);
    }
    for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + ".";
        check_tensor(block + "attn_norm.weight", 0, shape_.embedding);
        check_tensor(block + "ffn_norm.weight", 0, shape_.embedding);
        for (int i = 0; i < linear_count; ++i) {
            check_tensor(gguf_weight_name(layer, Linear(i)), shape_.outputs(Linear(i)), shape_.inputs(Linear(i)));
            const std::string bias = block + linear_gguf_names[i] + ".bias";
            if (find_tensor(bias) != nullptr) check_tensor(bias, 0, shape_.outputs(Linear(i)));
        }
    }
}

} // namespace finetune
