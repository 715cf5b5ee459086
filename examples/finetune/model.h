// A model on a device, its weights uploaded as they are or quantized on the way.
#pragma once

#include "base_model.h"
#include "device.h"

namespace finetune {

struct Norm {
    qlora::Buffer weight, bias; // f32; bias: empty when the model has none
};

// What an architecture does not have is empty.
struct Layer {
    qlora::Weight linear[linear_count];
    qlora::Buffer bias[linear_count];
    Norm attention_norm, feed_forward_norm; // of the inputs of the two parts
    Norm attention_after, feed_forward_after;
    Norm q_norm, k_norm;
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
    qlora_span head_bias() const { return head_bias_.span(); }
    const qlora::Weight &positions() const { return positions_; } // a row for each; empty unless they are learned
    const Norm &embedding_norm() const { return embedding_norm_; }
    const Norm &output_norm() const { return output_norm_; }
    // Of a rope of the shape, for sequences that reach `length` tokens; absent: none.
    qlora_span rope_factors(int rope, uint32_t length) const;
    qlora_span slopes() const { return slopes_.span(); } // f32[heads], of ALiBi; absent where there is none
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
    qlora::Buffer upload_vector(Device &device, const BaseModel &base, const std::string &name); // empty when absent
    Norm upload_norm(Device &device, const BaseModel &base, const std::string &name);
    void upload_positions(Device &device, const BaseModel &base);
    void upload_block(Device &device, const BaseModel &base, const HostWeights *ready, int32_t format, uint32_t block,
                      bool scaled);

    ModelShape shape_;
    std::vector<Layer> layers_;
    qlora::Weight embedding_, head_, positions_;
    Norm embedding_norm_, output_norm_;
    qlora::Buffer head_bias_, slopes_;
    struct Factors {
        qlora::Buffer usual, beyond;
    };
    std::vector<Factors> rope_factors_; // of each rope
    uint64_t bytes_ = 0, linear_bytes_ = 0, linear_weights_ = 0;
    bool integers_ = false;
    float threshold_ = 0;
    std::vector<std::pair<int32_t, uint32_t>> linear_formats_; // and how many weights have it
};

} // namespace finetune
