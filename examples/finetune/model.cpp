#include "model.h"

#include "format_choice.h"
#include "stored_weight.h"

namespace finetune {

Model::Model(Device &device, const BaseModel &base, int32_t format, uint32_t block, const HostWeights *ready,
             bool scaled)
    : shape_(base.shape()) {
    embedding_ = upload(device, base.tensor("token_embd.weight"), Use::embedding, 0, 0);
    if (!shape_.tied) head_ = upload(device, base.tensor("output.weight"), Use::head, 0, 0);
    output_norm_ = upload_floats(device, decode_floats(base.tensor("output_norm.weight").weight));
    if (!base.rope_factors().empty()) rope_factors_ = upload_floats(device, base.rope_factors());
    for (uint32_t i = 0; i < shape_.layers; ++i) {
        const std::string name = "blk." + std::to_string(i) + ".";
        Layer layer;
        layer.attention_norm = upload_floats(device, decode_floats(base.tensor(name + "attn_norm.weight").weight));
        layer.feed_forward_norm = upload_floats(device, decode_floats(base.tensor(name + "ffn_norm.weight").weight));
        for (int k = 0; k < linear_count; ++k) {
            const BaseTensor &tensor = base.tensor(gguf_weight_name(i, Linear(k)));
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
            if (const BaseTensor *bias = base.find_tensor(name + linear_gguf_names[k] + ".bias"))
                layer.bias[k] = upload_floats(device, decode_floats(bias->weight));
        }
        layers_.push_back(std::move(layer));
    }
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
