// A llama-architecture model on a device, its weights uploaded as they are or quantized on the way.
#pragma once

#include "base_model.h"
#include "device.h"

namespace finetune {

struct Layer {
    qlora::Weight linear[linear_count];
    qlora::Buffer bias[linear_count]; // empty when the model has none
    qlora::Buffer attention_norm, feed_forward_norm;
};

using HostWeights = std::unordered_map<std::string, HostWeight>;

const float usual_threshold = 6; // of outliers, in LLM.int8()

class Model {
public:
    // format: what F32, F16 and BF16 linear layers become, or what fits where their inputs do not divide into its
    // blocks; 0 = they stay as they are. Layers that are quantized in the file stay as they are, and asking for another
    // format is an error. block 0 = the format's default. ready: weights by name that are there already and take the
    // place of the file's linear layers. scaled: NVFP4 with a scale per tensor.
    Model(Device &device, const BaseModel &base, int32_t format, uint32_t block, const HostWeights *ready = nullptr,
          bool scaled = false);
    // Forward products of int8 linear layers in integers, with columns of inputs that reach `threshold` apart
    // (LLM.int8(), 2208.07339).
    void compute_in_integers(const Device &device, float threshold);
    bool in_integers() const { return integers_; }
    float outlier_threshold() const { return threshold_; }
    // Takes the place of a linear weight of the same shape.
    void replace(uint32_t layer, Linear which, qlora::Weight weight) {
        layers_[layer].linear[which] = std::move(weight);
    }

    const ModelShape &shape() const { return shape_; }
    const Layer &layer(uint32_t i) const { return layers_[i]; }
    const qlora::Weight &embedding() const { return embedding_; }
    const qlora::Weight &head() const { return shape_.tied ? embedding_ : head_; }
    const qlora::Buffer &output_norm() const { return output_norm_; }
    qlora_span rope_factors() const { return rope_factors_.span(); }
    uint64_t bytes() const { return bytes_; }
    std::string linear_format() const; // for people: "nf4-dq", "q5_0 x 36 + q4_k x 6"
    double linear_bits() const { return 8 * double(linear_bytes_) / double(linear_weights_); } // of one weight
    uint64_t linear_bytes() const { return linear_bytes_; }

private:
    enum class Use { embedding, linear, head };
    void check_supported(const Device &device, Use use, int32_t format, const BaseTensor &tensor) const;
    qlora::Weight upload_ready(Device &device, const BaseTensor &tensor, const HostWeight &ready);
    qlora::Weight upload(Device &device, const BaseTensor &tensor, Use use, int32_t format, uint32_t block,
                         bool scaled = false);
    void count_format(const qlora::Weight &weight);
    qlora::Buffer upload_floats(Device &device, const std::vector<float> &values);

    ModelShape shape_;
    std::vector<Layer> layers_;
    qlora::Weight embedding_, head_;
    qlora::Buffer output_norm_, rope_factors_;
    uint64_t bytes_ = 0, linear_bytes_ = 0, linear_weights_ = 0;
    bool integers_ = false;
    float threshold_ = 0;
    std::vector<std::pair<int32_t, uint32_t>> linear_formats_; // and how many weights have it
};

} // namespace finetune
