// What the decoders that this program knows have in common, and where they differ: a row each in one table, read by the
// readers of files, the block and the adapters. Nothing else knows an architecture's name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace finetune {

// What a linear layer is for, in the order of use. An architecture has some of them: q, k and v or one layer for all
// three, gate and up, both in one, or up alone.
enum Linear {
    linear_q,
    linear_k,
    linear_v,
    linear_qkv,
    linear_output,
    linear_gate,
    linear_up,
    linear_gate_up,
    linear_down,
    linear_count
};
extern const char *const linear_gguf_names[linear_count]; // "attn_q"

enum class NormKind { rms, layer };
enum class NormPlace { before, after, both, sum }; // of attention and of the feed forward part; sum: of it and its residual
enum class HeadNorm { none, head, width };    // of q and k: each head by itself, or all heads as one row
enum class Residual {
    sequential,
    parallel, // both parts read the block's input, each through its norm
    shared    // through the same norm
};
enum class Positions { rotary, learned, slopes };
enum class FeedForward { gated, fused, plain }; // fused: rows of gate, then of up; plain: no gate

// How rows of weights in Hugging Face's files become GGUF's.
enum class HeadOrder {
    same,
    paired,     // rotary pairs become neighbours: row h * d + p * (d / 2) + i becomes h * d + 2 * i + p
    interleaved // q, k and v of each head become all of q, all of k, all of v
};

struct Name {
    const char *gguf, *hugging_face;
};

// Modules by name, without ".weight".
struct Naming {
    const char *layers; // "model.layers.", then a number and a dot
    std::vector<Name> model, block;
};

struct Traits {
    const char *model_type, *gguf; // in config.json and in general.architecture
    const Naming *naming;
    NormKind norm;
    NormPlace place;
    HeadNorm head_norm;
    Residual residual;
    Positions positions;
    int32_t rope_layout; // QLORA_ROPE_*, of Hugging Face's rows
    HeadOrder rows;
    FeedForward feed_forward;
    int32_t activation;                 // QLORA_ACTIVATION_*, where the file does not say
    uint32_t window_period;             // every so manieth layer sees all keys, the others the window; 0: no windows, 1: all have it
    uint32_t still_period;              // every so manieth layer has no rotary positions; 0: none
    float attention_cap, logit_cap;     // where the file does not say; attention has a cap only where there is one here
    bool scaled_embedding;              // by the root of its width
    bool offset_norms;                  // Hugging Face's norm weights are one less than the factors that they stand for
    bool embedding_norm;

    // Whether layers with a window turn at another pace than those that are made for long texts.
    bool two_ropes() const { return window_period > 1 && head_norm != HeadNorm::none; }
    bool has(Linear linear) const;
    std::vector<Linear> linears() const; // in the order of use
    // Hugging Face's name of a module of a block, null where it has none: "self_attn.q_proj" of "attn_q".
    const char *module(const std::string &gguf) const;
    const char *module(Linear linear) const { return module(linear_gguf_names[linear]); }
    // The GGUF name of a tensor of Hugging Face's, "" for what has no place in the model; and whether a GGUF name has.
    std::string gguf_name(const std::string &name) const;
    bool knows(const std::string &gguf_name) const;
};

const std::vector<Traits> &architectures();
// By model_type and by general.architecture; null: unknown. Several model types may share an architecture of GGUF: the
// first, or, where files of it have windows, the one that has.
const Traits *find_model_type(const std::string &model_type);
const Traits *find_architecture(const std::string &gguf, bool windows = false);
std::string architecture_names(const char *Traits::*name); // "'llama', 'mistral', ..."

// Models that also see hold one of these under another name. Of a tensor or module of theirs that name, as the model has
// it that only reads: of both ways in which files of them are named.
std::string name_in_text_part(const std::string &name);
extern const char *const text_part; // as the newer way begins, after which a name goes on without its first word

// Row i of GGUF's order is row order[i] of Hugging Face's.
std::vector<uint64_t> hugging_face_rows(HeadOrder order, uint64_t rows, uint32_t heads);

} // namespace finetune
