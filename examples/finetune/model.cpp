#include "model.h"

#include "format_choice.h"
#include "stored_weight.h"

#include <cmath>

namespace finetune {

Model::Model(Device &device, const BaseModel &base, int32_t format, uint32_t block, const HostWeights *ready,
             bool scaled)
    : shape_(base.shape()) {
    embedding_ = upload(device, base.tensor("token_embd.weight"), Use::embedding, 0, 0);
    if (!shape_.tied) head_ = upload(device, base.tensor("output.weight"), Use::head, 0, 0);
    head_bias_ = upload_vector(device, base, "output.bias");
    output_norm_ = upload_norm(device, base, "output_norm");
    embedding_norm_ = upload_norm(device, base, "token_embd_norm");
    upload_positions(device, base);
    for (uint32_t i = 0; i < shape_.layers; ++i) upload_block(device, base, ready, format, block, scaled);
}

void Model::upload_block(Device &device, const BaseModel &base, const HostWeights *ready, int32_t format, uint32_t block,
                         bool scaled) {
    const uint32_t number = static_cast<uint32_t>(layers_.size());
    const std::string name = "blk." + std::to_string(number) + ".";
    Layer layer;
    layer.attention_norm = upload_norm(device, base, name + "attn_norm");
    layer.feed_forward_norm = upload_norm(device, base, name + "ffn_norm");
    layer.attention_after = upload_norm(device, base, name + "post_attention_norm");
    layer.feed_forward_after = upload_norm(device, base, name + "post_ffw_norm");
    layer.q_norm = upload_norm(device, base, name + "attn_q_norm");
    layer.k_norm = upload_norm(device, base, name + "attn_k_norm");
    for (Linear k : shape_.traits->linears()) {
        const BaseTensor &tensor = base.tensor(gguf_weight_name(number, k));
        const bool other = format != tensor.weight.format || (block != 0 && block != tensor.weight.block);
        if (format != 0 && other && !is_float(tensor.weight.format))
            base.reject("tensor ", shown(tensor.own_name), " is ", tensor.type,
                        " already; use it as it is with --quant none, or take an F16 base");
        const auto found = ready == nullptr ? HostWeights::const_iterator() : ready->find(tensor.name);
        if (ready != nullptr && found != ready->end()) {
            layer.linear[k] = upload_ready(device, tensor, found->second);
        } else {
            const int32_t fitting = format == 0 ? 0 : fitting_format(format, tensor.weight.cols);
            layer.linear[k] = upload(device, tensor, Use::linear, fitting, fitting == format ? block : 0, scaled);
        }
        count_format(layer.linear[k]);
        layer.bias[k] = upload_vector(device, base, name + linear_gguf_names[k] + ".bias");
    }
    layers_.push_back(std::move(layer));
}

void Model::upload_positions(Device &device, const BaseModel &base) {
    if (shape_.traits->positions == Positions::learned)
        positions_ = upload(device, base.tensor("position_embd.weight"), Use::embedding, 0, 0);
    for (const Rope &rope : shape_.ropes) {
        Factors factors;
        if (!rope.factors.empty()) factors.usual = upload_floats(device, rope.factors);
        if (!rope.long_factors.empty()) factors.beyond = upload_floats(device, rope.long_factors);
        rope_factors_.push_back(std::move(factors));
    }
    if (shape_.traits->positions != Positions::slopes) return;
    // A geometric row for the largest power of two of heads, every other of the next one's for those beyond (ALiBi).
    uint32_t power = 1;
    while (2 * power <= shape_.heads) power *= 2;
    std::vector<float> slopes;
    for (uint32_t head = 0; head < shape_.heads; ++head)
        slopes.push_back(static_cast<float>(head < power ? std::exp2(-8.0 * (head + 1) / power)
                                                         : std::exp2(-4.0 * (2 * (head - power) + 1) / power)));
    slopes_ = upload_floats(device, slopes);
}

qlora_span Model::rope_factors(int rope, uint32_t length) const {
    const Factors &factors = rope_factors_[size_t(rope)];
    const bool beyond = factors.beyond.size() > 0 && length > shape_.ropes[size_t(rope)].switch_length;
    return beyond ? factors.beyond.span() : factors.usual.span();
}

qlora::Buffer Model::upload_vector(Device &device, const BaseModel &base, const std::string &name) {
    const BaseTensor *tensor = base.find_tensor(name);
    return tensor == nullptr ? qlora::Buffer() : upload_floats(device, decode_floats(tensor->weight));
}

Norm Model::upload_norm(Device &device, const BaseModel &base, const std::string &name) {
    return {upload_vector(device, base, name + ".weight"), upload_vector(device, base, name + ".bias")};
}

void Model::compute_in_integers(const Device &device, float threshold) {
    for (const auto &[format, count] : linear_formats_)
        if (format != QLORA_FORMAT_INT8)
            fail("products in integers need int8 linear layers, but ", count, " are ", format_name(format));
    if (!device.context().operation_supports(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_INT8, QLORA_FORMAT_F32))
        fail(device.name(), " has no products in integers; choose --quant int8 or another --device");
    integers_ = true;
    threshold_ = threshold;
}

void Model::count_format(const qlora::Weight &weight) {
    const qlora_weight &about = *weight.get();
    linear_weights_ += about.rows * about.cols;
    for (uint64_t bytes : weight.layout().plane_bytes) linear_bytes_ += bytes;
    for (auto &[format, count] : linear_formats_)
        if (format == about.format) {
            ++count;
            return;
        }
    linear_formats_.emplace_back(about.format, 1);
}

std::string Model::linear_format() const {
    if (integers_) return "llm-int8";
    if (linear_formats_.size() == 1) return format_name(linear_formats_[0].first);
    std::string text;
    for (const auto &[format, count] : linear_formats_)
        text += (text.empty() ? "" : " + ") + format_name(format) + " x " + std::to_string(count);
    return text;
}

void Model::check_supported(const Device &device, Use use, int32_t format, const BaseTensor &tensor) const {
    std::vector<uint32_t> operations;
    if (use == Use::linear) operations = {QLORA_OP_LINEAR, QLORA_OP_LINEAR_GRAD};
    if (use == Use::embedding) operations = {QLORA_OP_EMBEDDING};
    if (use == Use::head || (use == Use::embedding && shape_.tied)) operations.push_back(QLORA_OP_CROSS_ENTROPY);
    for (uint32_t operation : operations)
        if (!device.context().operation_supports(operation, format, QLORA_FORMAT_F32))
            fail(device.name(), " has no kernels for ", format_name(format), " weights such as ", shown(tensor.own_name),
                 "; choose another --quant or --device");
}

qlora::Weight Model::upload_ready(Device &device, const BaseTensor &tensor, const HostWeight &ready) {
    if (ready.rows != tensor.weight.rows || ready.cols != tensor.weight.cols)
        fail("tensor ", shown(tensor.name), " is ", tensor.weight.rows, " x ", tensor.weight.cols, ", what takes its place ",
             ready.rows, " x ", ready.cols);
    check_supported(device, Use::linear, ready.format, tensor);
    qlora::Weight weight = upload_weight(device.context(), ready);
    bytes_ += weight.size();
    return weight;
}

qlora::Weight Model::upload(Device &device, const BaseTensor &tensor, Use use, int32_t format, uint32_t block,
                            bool scaled) {
    const StoredWeight &given = tensor.weight;
    if (format == given.format && !is_float(format)) format = 0;
    const int32_t from = given.format, stored = format == 0 ? from : format;
    check_supported(device, use, stored, tensor);
    if (format == 0) {
        qlora::Weight weight = upload_weight(device.context(), given);
        bytes_ += weight.size();
        return weight;
    }
    const uint64_t rows = given.rows, cols = given.cols, bytes = rows * cols * type_bytes(from);
    qlora::Weight weight(device.context(), stored, rows, cols, block);
    if (scaled && stored == QLORA_FORMAT_NVFP4) weight.set_tensor_scale(recipe_tensor_scale(decode_floats(given)));
    bytes_ += weight.size();
    qlora::Buffer source(device.context(), bytes);
    source.write(given.planes[QLORA_PLANE_CODE], bytes);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(from, rows, cols, source.span());
    try {
        device.quantize(args);
    } catch (const std::runtime_error &error) { fail("tensor ", shown(tensor.own_name), " cannot be quantized: ", error.what()); }
    return weight;
}

qlora::Buffer Model::upload_floats(Device &device, const std::vector<float> &values) {
    bytes_ += values.size() * sizeof(float);
    return qlora::Buffer(device.context(), values);
}

} // namespace finetune
