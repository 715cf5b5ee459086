// A model on a device, its weights uploaded as they are or quantized on the way.
#pragma once

#include "base_model.h"
#include "host_embedding.h"
#include "placed_weight.h"
#include "weight_stream.h"

namespace finetune {

struct Norm {
    Memory weight, bias; // f32; bias: empty when the model has none
};

// What an architecture does not have is empty.
struct Layer {
    PlacedWeight linear[linear_count];
    Memory bias[linear_count];
    Norm attention_norm, feed_forward_norm; // of the inputs of the two parts
    Norm attention_after, feed_forward_after;
    Norm q_norm, k_norm;
};

using HostWeights = std::unordered_map<std::string, HostWeight>;

const float usual_threshold = 6; // of outliers, in LLM.int8()

struct ModelChoice {
    // What linear layers become, or what fits where their inputs do not divide into its blocks; 0 = they stay as they
    // are. A layer that is quantized already is decoded and quantized anew, unless it has this format and block.
    int32_t format = 0;
    uint32_t block = 0;                 // 0 = the format's default
    const HostWeights *ready = nullptr; // weights by name that are there already and take the place of the file's
    bool scaled = false;                // NVFP4 with a scale per tensor
    int32_t head_format = 0;            // what the head becomes; 0 = it stays as it is
    bool host_embedding = false;        // rows come from the host, unless the matrix is on the device as the head anyway
    uint32_t streamed_layers = 0;       // whose weights stay in host memory
    uint32_t file_layers = 0;           // of these: whose weights come from their file each time
};

class Model {
public:
    // `base` outlives this.
    Model(Device &device, const BaseModel &base, const ModelChoice &choice);
    Model(Device &device, const BaseModel &base, int32_t format, uint32_t block, const HostWeights *ready = nullptr,
          bool scaled = false)
        : Model(device, base, ModelChoice{format, block, ready, scaled}) {}
    // Forward products of int8 linear layers in integers, with columns of inputs that reach `threshold` apart
    // (LLM.int8(), 2208.07339).
    void compute_in_integers(const Device &device, float threshold);
    bool in_integers() const { return integers_; }
    float outlier_threshold() const { return threshold_; }
    // Takes the place of a linear weight of the same shape.
    void replace(uint32_t layer, Linear which, qlora::Weight weight) {
        layers_[layer].linear[which] = PlacedWeight(std::move(weight));
    }

    const ModelShape &shape() const { return shape_; }
    const Layer &layer(uint32_t i) const { return layers_[i]; }
    // Operations enqueued from now on find the layer's weights on the device; the layer that follows in this direction is
    // sent on its way if need be.
    bool streams() const { return stream_->any(); }
    void bring(Device &device, uint32_t layer, bool forward) const { stream_->bring(device, layer, forward); }
    bool streams(uint32_t layer) const { return stream_->streams(layer); }
    const PlacedWeight &embedding() const { return embedding_; }
    HostEmbedding *host_embedding() const { return host_embedding_.get(); } // null: it is on the device
    const PlacedWeight &head() const { return head_.size() == 0 ? embedding_ : head_; }
    qlora_span head_bias() const { return head_bias_.span(); }
    const PlacedWeight &positions() const { return positions_; } // a row for each; empty unless they are learned
    const Norm &embedding_norm() const { return embedding_norm_; }
    const Norm &output_norm() const { return output_norm_; }
    // Of a rope of the shape, for sequences that reach `length` tokens; absent: none.
    qlora_span rope_factors(int rope, uint32_t length) const;
    qlora_span slopes() const { return slopes_.span(); } // f32[heads], of ALiBi; absent where there is none
    uint64_t bytes() const { return bytes_ + mapped_bytes_; }
    // A device whose memory is the host's uses weights of the file where they are mapped.
    uint64_t mapped_bytes() const { return mapped_bytes_; }
    uint64_t file_bytes() const { return file_bytes_; }               // that come from the file in each pass
    bool streams_from_file() const { return from_file_; } // whether all streamed layers could
    std::string linear_format() const; // for people: "nf4-dq", "q5_0 x 36 + q4_k x 6"
    std::string head_format() const;
    double linear_bits() const { return 8 * double(linear_bytes_) / double(linear_weights_); } // of one weight
    uint64_t linear_bytes() const { return linear_bytes_; }
    uint32_t requantized() const { return requantized_; } // linear layers that were quantized otherwise in the file

private:
    enum class Use { embedding, linear, head };
    // What a tensor becomes; its memory comes later.
    PlacedWeight shape_weight(const Device &device, const BaseTensor &tensor, Use use, const ModelChoice &choice) const;
    PlacedWeight load_whole(Device &device, const BaseTensor &tensor, Use use, const ModelChoice &choice);
    void load_layers(Device &device, const BaseModel &base, const ModelChoice &choice);
    bool borrows(const Device &device, uint32_t layer, const PlacedWeight &weight, const BaseTensor &tensor, const ModelChoice &choice) const;
    void load_linear(Device &device, const BaseTensor &tensor, const ModelChoice &choice, uint32_t layer, PlacedWeight &weight, qlora_span place,
                     uint64_t *offset);
    void check_supported(const Device &device, Use use, int32_t format, const BaseTensor &tensor) const;
    void count_format(const PlacedWeight &weight);
    Memory upload_floats(Device &device, const std::vector<float> &values);
    Memory upload_vector(Device &device, const BaseModel &base, const std::string &name); // empty when absent
    Norm upload_norm(Device &device, const BaseModel &base, const std::string &name);
    void upload_positions(Device &device, const BaseModel &base);
    void upload_norms(Device &device, const BaseModel &base, uint32_t layer);

    ModelShape shape_;
    std::vector<Layer> layers_;
    std::vector<Memory> memory_; // of resident weights
    PlacedWeight embedding_, head_, positions_;
    std::unique_ptr<HostEmbedding> host_embedding_;
    std::unique_ptr<WeightStream> stream_;
    Norm embedding_norm_, output_norm_;
    Memory head_bias_, slopes_;
    struct Factors {
        Memory usual, beyond;
    };
    std::vector<Factors> rope_factors_; // of each rope
    uint64_t bytes_ = 0, mapped_bytes_ = 0, file_bytes_ = 0, linear_bytes_ = 0, linear_weights_ = 0;
    uint32_t requantized_ = 0;
    bool integers_ = false, from_file_ = true;
    float threshold_ = 0;
    std::vector<std::pair<int32_t, uint32_t>> linear_formats_; // and how many weights have it
};

} // namespace finetune
