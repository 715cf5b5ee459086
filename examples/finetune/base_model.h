// A base model at rest, from whichever files hold it: a GGUF file, or a Hugging Face directory with config.json and
// safetensors, whole or in shards, plain or quantized by bitsandbytes or GPTQ. Files are mapped; tensors are views of
// them and go by their GGUF names in both.
#pragma once

#include "adapter.h"
#include "gguf.h"
#include "stored_weight.h"

#include <memory>
#include <unordered_map>

namespace finetune {

class Tokenizer;

// Rotary positions: pair i of a head turns by position * scale * base^(-2i / dimensions) / factors[i].
struct Rope {
    float base = 10000, scale = 1, magnitude = 1;
    std::vector<float> factors;      // [dimensions / 2]; empty: all 1
    std::vector<float> long_factors; // in their place for sequences that reach beyond `switch_length`
    uint32_t switch_length = 0;
};

struct LayerShape {
    uint32_t window = 0; // 0: every query sees all keys before it
    int rope = 0;        // of ModelShape::ropes; -1: positions are not rotary here
};

struct ModelShape {
    const Traits *traits = nullptr;
    uint32_t layers = 0, embedding = 0, heads = 0, kv_heads = 0, head_dim = 0, feed_forward = 0, vocabulary = 0,
             context = 0, rope_dim = 0;
    float epsilon = 0;
    bool tied = false;       // the head is the embedding
    int32_t rope_layout = 0; // QLORA_ROPE_*: of rows as the base keeps them
    int32_t activation = 0;  // QLORA_ACTIVATION_*
    NormPlace place = NormPlace::before;
    Residual residual = Residual::sequential;
    bool normed_residual = false; // both parts are added to what the norm before them makes of their input
    bool output_norm = true;      // there is a norm before the head
    bool plain_norms = false;     // norms have neither weight nor bias in the file
    uint32_t table_width = 0;     // of the file's embedding, which products bring to `embedding` and back; 0: the same
    float attention_scale = 0; // 0: 1 / sqrt(head_dim)
    float attention_cap = 0, logit_cap = 0, embedding_scale = 1;
    std::vector<Rope> ropes;
    std::vector<LayerShape> layer; // of each layer
    std::string layers_name;       // what PEFT's names of modules begin with; "": as the architecture has it

    uint32_t q_width() const { return heads * head_dim; }
    uint32_t kv_width() const { return kv_heads * head_dim; }
    uint64_t inputs(Linear linear) const;
    uint64_t outputs(Linear linear) const;
    AdapterShape adapter_shape(uint32_t rank) const;
};

// The keys of a GGUF file, and its tensors of rotary factors; whether the other tensors agree is for BaseModel to say.
ModelShape read_model_shape(const Gguf &file);

struct BaseTensor {
    std::string name;            // "blk.0.attn_q.weight"
    std::string own_name;        // in its file, for messages
    std::string type;            // for people: "F16", "nf4-dq"
    std::vector<uint64_t> shape; // outermost first
    StoredWeight weight;         // format 0: nothing that the library decodes
    uint64_t elements;
};

class BaseModel {
public:
    // Reads and checks every key and every tensor's shape and type, before any memory is taken.
    explicit BaseModel(const std::string &path);
    BaseModel(const Gguf &file); // NOLINT: a GGUF file is a base model; it outlives this view
    ~BaseModel();

    const std::string &path() const { return path_; }
    const ModelShape &shape() const { return shape_; }
    const std::vector<BaseTensor> &tensors() const { return tensors_; }
    const BaseTensor *find_tensor(const std::string &name) const;
    const BaseTensor &tensor(const std::string &name) const; // throws when absent
    // Whether its linear layers are floats, which can still become anything.
    bool is_plain() const;

    // Null when the files hold no tokenizer of a kind that Tokenizer knows; where one is needed, an Error that says what
    // would help.
    std::unique_ptr<Tokenizer> tokenizer(bool needed) const;
    int32_t end_token() const { return end_token_; } // -1: none

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path_, ": ", parts...); }

private:
    void open_gguf();
    void open_directory();
    void widen_table(const StoredWeight *in, const StoredWeight *out);
    std::unique_ptr<Tokenizer> directory_tokenizer(bool needed) const;
    void add(BaseTensor tensor);
    void check_tensor(const std::string &name, uint64_t rows, uint64_t cols) const; // rows 0: a vector
    void check_norm(const std::string &name, uint64_t cols) const;
    void check_linear(uint32_t layer, Linear linear) const;
    void check_block(uint32_t layer) const;
    void check_tensors() const;

    std::string path_;
    std::unique_ptr<Gguf> own_gguf_;
    const Gguf *gguf_ = nullptr;                // else a directory
    std::unique_ptr<SafeTensors> safetensors_;
    ModelShape shape_ = {};
    std::vector<BaseTensor> tensors_;
    std::unordered_map<std::string, size_t> index_;
    int32_t begin_token_ = -1, end_token_ = -1;
};

} // namespace finetune
