#include "model.h"

#include "format_choice.h"
#include "weight_loader.h"

#include <cmath>

namespace finetune {
namespace {

// Whether a weight is made from the file's values, not from its bytes.
bool is_new(const PlacedWeight &weight, const StoredWeight &given) {
    const qlora_weight &made = *weight.get();
    return made.format != given.format || made.block != given.block || made.nested_block != given.nested_block;
}

// Whether the device computes with the file's bytes where they are mapped.
bool is_borrowed(const Device &device, const PlacedWeight &weight, const BaseTensor &tensor) {
    return device.is_host() && !is_new(weight, tensor.weight) && weight.is_in(tensor.weight, true);
}

bool is_ready(const ModelChoice &choice, const BaseTensor &tensor) { return choice.ready != nullptr && choice.ready->count(tensor.name) > 0; }

} // namespace

Model::Model(Device &device, const BaseModel &base, const ModelChoice &choice)
    : shape_(base.shape()), stream_(std::make_unique<WeightStream>(shape_.layers, choice.streamed_layers, choice.file_layers)) {
    const BaseTensor &embedding = base.tensor("token_embd.weight");
    const bool own_head = !shape_.tied || choice.head_format != 0;
    if (choice.host_embedding && own_head) {
        if (!device.planning()) host_embedding_ = std::make_unique<HostEmbedding>(embedding.weight);
    } else {
        const Device::Section section(device, own_head ? "embedding" : "embedding and head");
        embedding_ = load_whole(device, embedding, Use::embedding, choice);
    }
    if (own_head) {
        const Device::Section section(device, "head");
        head_ = load_whole(device, shape_.tied ? embedding : base.tensor("output.weight"), Use::head, choice);
    }
    const Device::Section section(device, "weights");
    head_bias_ = upload_vector(device, base, "output.bias");
    output_norm_ = upload_norm(device, base, "output_norm");
    embedding_norm_ = upload_norm(device, base, "token_embd_norm");
    upload_positions(device, base);
    load_layers(device, base, choice);
}

PlacedWeight Model::shape_weight(const Device &device, const BaseTensor &tensor, Use use, const ModelChoice &choice) const {
    const StoredWeight &given = tensor.weight;
    if (use == Use::linear && choice.ready != nullptr) {
        const auto found = choice.ready->find(tensor.name);
        if (found != choice.ready->end()) {
            const HostWeight &ready = found->second;
            if (ready.rows != given.rows || ready.cols != given.cols)
                fail("tensor ", shown(tensor.name), " is ", given.rows, " x ", given.cols, ", what takes its place ",
                     ready.rows, " x ", ready.cols);
            check_supported(device, use, ready.format, tensor);
            return PlacedWeight(weight_shape(ready));
        }
    }
    int32_t format = use == Use::linear ? choice.format : use == Use::head ? choice.head_format : 0;
    uint32_t block = use == Use::linear ? choice.block : 0;
    if (format != 0) {
        const int32_t fitting = fitting_format(format, given.cols);
        if (fitting != format) block = 0;
        format = fitting;
    }
    const bool same = format == given.format && (block == 0 || block == given.block);
    check_supported(device, use, format == 0 ? given.format : format, tensor);
    if (format == 0 || same) return PlacedWeight(weight_shape(given));
    auto shape = qlora::make<qlora_weight>();
    shape.format = format;
    shape.block = block;
    shape.rows = given.rows;
    shape.cols = given.cols;
    return PlacedWeight(shape);
}

PlacedWeight Model::load_whole(Device &device, const BaseTensor &tensor, Use use, const ModelChoice &choice) {
    PlacedWeight weight = shape_weight(device, tensor, use, choice);
    if (is_borrowed(device, weight, tensor)) {
        weight.borrow(tensor.weight);
        mapped_bytes_ += weight.size();
        return weight;
    }
    memory_.push_back(device.take(weight.size()));
    weight.place(memory_.back().span());
    bytes_ += weight.size();
    if (is_new(weight, tensor.weight)) load_quantized(device, tensor, weight, memory_.back().span(), false);
    else load_stored(device, tensor, weight, memory_.back().span());
    return weight;
}

bool Model::borrows(const Device &device, uint32_t layer, const PlacedWeight &weight, const BaseTensor &tensor, const ModelChoice &choice) const {
    return !stream_->streams(layer) && !is_ready(choice, tensor) && is_borrowed(device, weight, tensor);
}

void Model::load_layers(Device &device, const BaseModel &base, const ModelChoice &choice) {
    std::vector<uint64_t> layer_bytes;
    for (uint32_t i = 0; i < shape_.layers; ++i) {
        Layer layer;
        uint64_t bytes = 0;
        for (Linear k : shape_.traits->linears()) {
            const BaseTensor &tensor = base.tensor(gguf_weight_name(i, k));
            layer.linear[k] = shape_weight(device, tensor, Use::linear, choice);
            count_format(layer.linear[k]);
            if (!borrows(device, i, layer.linear[k], tensor, choice)) bytes += (layer.linear[k].size() + 255) / 256 * 256;
        }
        layer_bytes.push_back(bytes);
        layers_.push_back(std::move(layer));
    }
    {
        const Device::Section section(device, "window of streamed weights");
        stream_->take(device, layer_bytes);
    }
    for (uint32_t i = 0; i < shape_.layers; ++i) {
        const std::string name = "blk." + std::to_string(i) + ".";
        Layer &layer = layers_[i];
        upload_norms(device, base, i);
        const bool streams = stream_->streams(i);
        if (!streams) {
            memory_.push_back(device.take(layer_bytes[i]));
            bytes_ += layer_bytes[i];
        }
        const qlora_span place = streams ? stream_->slot(i) : memory_.back().span();
        if (stream_->reads_file(i)) file_bytes_ += layer_bytes[i];
        uint64_t offset = 0;
        for (Linear k : shape_.traits->linears()) {
            load_linear(device, base.tensor(gguf_weight_name(i, k)), choice, i, layer.linear[k], place, &offset);
            layer.bias[k] = upload_vector(device, base, name + linear_gguf_names[k] + ".bias");
        }
    }
}

// At *offset of the layer's place on the device, which moves behind it.
void Model::load_linear(Device &device, const BaseTensor &tensor, const ModelChoice &choice, uint32_t layer, PlacedWeight &weight, qlora_span place,
                        uint64_t *offset) {
    if (borrows(device, layer, weight, tensor, choice)) {
        weight.borrow(tensor.weight);
        mapped_bytes_ += weight.size();
        return;
    }
    const bool streams = stream_->streams(layer), ready = is_ready(choice, tensor), made = !ready && is_new(weight, tensor.weight);
    const bool in_file = !ready && !made && weight.is_in(tensor.weight, false);
    const qlora_span home = part(streams ? stream_->host(layer) : place, *offset, weight.size());
    weight.place(part(place, *offset, weight.size()));
    if (streams) from_file_ = from_file_ && in_file;
    if (stream_->reads_file(layer)) {
        if (!in_file)
            fail("--file-layers ", choice.file_layers, ": tensor ", shown(tensor.own_name), " is not used as the file has it; take 0, or a base that is "
                 "quantized already");
        for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
            if (tensor.weight.planes[plane] != nullptr)
                stream_->add_source(layer, tensor.weight.planes[plane], *offset + weight.layout().plane_offset[plane], weight.layout().plane_bytes[plane]);
    } else if (ready) {
        load_ready(device, choice.ready->at(tensor.name), weight, home);
    } else if (made) {
        if (choice.scaled && weight.get()->format == QLORA_FORMAT_NVFP4 && !device.planning())
            weight.set_tensor_scale(recipe_tensor_scale(is_float(tensor.weight.format) ? decode_floats(tensor.weight) : decode_weight(tensor.weight)));
        load_quantized(device, tensor, weight, home, streams);
    } else {
        load_stored(device, tensor, weight, home);
    }
    if (made && !is_float(tensor.weight.format)) ++requantized_;
    *offset += (weight.size() + 255) / 256 * 256;
}

void Model::upload_norms(Device &device, const BaseModel &base, uint32_t number) {
    const std::string name = "blk." + std::to_string(number) + ".";
    Layer &layer = layers_[number];
    const bool sum = shape_.place == NormPlace::sum; // of the same norms in another place
    (sum ? layer.attention_after : layer.attention_norm) = upload_norm(device, base, name + "attn_norm");
    (sum ? layer.feed_forward_after : layer.feed_forward_norm) = upload_norm(device, base, name + "ffn_norm");
    if (!sum) layer.attention_after = upload_norm(device, base, name + "post_attention_norm");
    if (!sum) layer.feed_forward_after = upload_norm(device, base, name + "post_ffw_norm");
    layer.q_norm = upload_norm(device, base, name + "attn_q_norm");
    layer.k_norm = upload_norm(device, base, name + "attn_k_norm");
}

void Model::upload_positions(Device &device, const BaseModel &base) {
    if (shape_.traits->positions == Positions::learned)
        positions_ = load_whole(device, base.tensor("position_embd.weight"), Use::embedding, {});
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

Memory Model::upload_vector(Device &device, const BaseModel &base, const std::string &name) {
    const BaseTensor *tensor = base.find_tensor(name);
    return tensor == nullptr ? Memory() : upload_floats(device, decode_floats(tensor->weight));
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

void Model::count_format(const PlacedWeight &weight) {
    const qlora_weight &about = *weight.get();
    linear_weights_ += about.rows * about.cols;
    linear_bytes_ += weight.plane_bytes();
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

std::string Model::head_format() const { return format_name(head().get()->format); }

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

Memory Model::upload_floats(Device &device, const std::vector<float> &values) {
    Memory memory = device.take(values.size() * sizeof(float));
    bytes_ += memory.size();
    device.write(memory.span(), values.data(), memory.size());
    return memory;
}

} // namespace finetune
