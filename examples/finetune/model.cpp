#include "model.h"

#include "decode.h"

#include <cstring>

namespace finetune {
namespace {

int32_t format_of(const GgufTensor &tensor) { return 0x100 + static_cast<int32_t>(tensor.type->id); }

bool is_quantized(const GgufTensor &tensor) { return tensor.type->block > 1; }

} // namespace

Model::Model(Device &device, const Gguf &file, int32_t format, uint32_t block) : shape_(read_model_shape(file)) {
    embedding_ = upload(device, file.tensor("token_embd.weight"), 0, 0);
    if (!shape_.tied) head_ = upload(device, file.tensor("output.weight"), 0, 0);
    output_norm_ = upload_floats(device, file.tensor("output_norm.weight"));
    if (const GgufTensor *factors = file.find_tensor("rope_freqs.weight"))
        rope_factors_ = upload_floats(device, *factors);
    for (uint32_t i = 0; i < shape_.layers; ++i) {
        const std::string name = "blk." + std::to_string(i) + ".";
        Layer layer;
        layer.attention_norm = upload_floats(device, file.tensor(name + "attn_norm.weight"));
        layer.feed_forward_norm = upload_floats(device, file.tensor(name + "ffn_norm.weight"));
        for (int k = 0; k < linear_count; ++k) {
            const GgufTensor &tensor = file.tensor(gguf_weight_name(i, Linear(k)));
            if (format != 0 && is_quantized(tensor))
                file.reject("tensor ", shown(tensor.name), " is ", tensor.type->name,
                            " already; use it as it is with --quant none, or take an F16 base");
            layer.linear[k] = upload(device, tensor, format, block);
            if (const GgufTensor *bias = file.find_tensor(name + linear_gguf_names[k] + ".bias"))
                layer.bias[k] = upload_floats(device, *bias);
        }
        layers_.push_back(std::move(layer));
    }
    linear_format_ = qlora::format_query(layers_[0].linear[0].get()->format).name;
}

qlora::Weight Model::upload(Device &device, const GgufTensor &tensor, int32_t format, uint32_t block) {
    const uint64_t rows = tensor.ne[1], cols = tensor.ne[0];
    // The library has no Q6_K: such a head or embedding becomes F16.
    const bool decoded = tensor.type->id == type_q6_k;
    const int32_t stored = decoded ? QLORA_FORMAT_F16 : format == 0 ? format_of(tensor) : format;
    for (uint32_t operation : {QLORA_OP_LINEAR, QLORA_OP_LINEAR_GRAD})
        if (!device.context().operation_supports(operation, stored, QLORA_FORMAT_F32))
            fail(device.name(), " has no kernels for ", qlora::format_query(stored).name,
                 " weights; choose another --quant or --device");
    qlora::Weight weight(device.context(), stored, rows, cols, block);
    bytes_ += weight.size();
    if (!decoded && format == 0) {
        weight.write_plane(QLORA_PLANE_CODE, tensor.data);
        return weight;
    }
    qlora::Buffer source;
    if (decoded) {
        source = qlora::Buffer(device.context(), decode_q6_k(tensor.data, tensor.elements));
    } else {
        source = qlora::Buffer(device.context(), tensor.bytes);
        source.write(tensor.data, tensor.bytes);
    }
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(decoded ? QLORA_FORMAT_F32 : format_of(tensor), rows, cols, source.span());
    device.measure([&] { device.run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args); });
    try {
        device.run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args);
    } catch (const qlora::Error &error) { fail("tensor ", shown(tensor.name), " cannot be quantized: ", error.what()); }
    return weight;
}

qlora::Buffer Model::upload_floats(Device &device, const GgufTensor &tensor) {
    std::vector<float> values(tensor.elements);
    for (uint64_t i = 0; i < tensor.elements; ++i) {
        uint16_t bits;
        if (tensor.type->id == type_f32) {
            memcpy(&values[i], tensor.data + 4 * i, 4);
        } else {
            memcpy(&bits, tensor.data + 2 * i, 2);
            values[i] = tensor.type->id == type_f16 ? half_to_float(bits) : bfloat_to_float(bits);
        }
    }
    bytes_ += tensor.elements * 4;
    return qlora::Buffer(device.context(), values);
}

} // namespace finetune
