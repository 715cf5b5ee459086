// LoRA adapters as training has them: pairs A[rank][inputs], B[outputs][rank] in f32 for linear layers of a base, all of one
// rank. Written as the GGUF that llama.cpp loads with --lora, or as PEFT's safetensors; adapter_file.h reads both.
#pragma once

#include "architecture.h"
#include "gguf.h"

#include <string>
#include <vector>

namespace finetune {

struct AdapterPair {
    uint64_t inputs = 0, outputs = 0;
    std::vector<float> a, b; // row-major A[rank][inputs], B[outputs][rank]; rows of B in the order of the base
};

// A linear layer that has an adapter in every block.
struct AdapterLinear {
    Linear use;
    uint64_t inputs, outputs;
    HeadOrder rows = HeadOrder::same; // how outputs in Hugging Face's order become GGUF's
    uint32_t heads = 0;             // that they belong to
};

// Pairs are counted layer by layer, and in each layer in the order of `linears`.
struct AdapterShape {
    const Traits *traits;
    uint32_t layers, rank;
    std::vector<AdapterLinear> linears;
    bool hugging_face_rows = false; // the base keeps HeadOrder::paired rows in Hugging Face's order
    std::string layers_name = "";   // as in ModelShape

    size_t pairs() const { return layers * linears.size(); }
    const AdapterLinear &linear(size_t pair) const { return linears[pair % linears.size()]; }
    size_t pair(uint32_t layer, Linear use) const; // pairs() where this layer has no adapter

    std::string gguf_name(size_t pair) const; // "blk.0.attn_q.weight"
    // half is "lora_A" or "lora_B"; files written while the model is in memory have the adapter's name, "default.", too.
    std::string peft_name(size_t pair, const char *half, const char *adapter = "") const;
    // Whether the rows of a pair's B have another order in a file than in the base.
    bool turns(size_t pair, bool hugging_face_file) const;
    // Rows of a pair's B, or of anything with `width` elements a row, from the order of a file to that of the base.
    void to_base(std::vector<float> &rows, size_t pair, uint64_t width, bool hugging_face_file) const;
    void from_base(std::vector<float> &rows, size_t pair, uint64_t width, bool hugging_face_file) const;
};

std::string gguf_weight_name(uint32_t layer, Linear linear); // "blk.0.attn_q.weight"

struct Adapter {
    float alpha = 0;
    std::vector<AdapterPair> pairs; // as AdapterShape counts them
};

void write_adapter_gguf(const std::string &path, const Adapter &adapter, const AdapterShape &shape);
// PEFT's adapter_model.safetensors, rows in Hugging Face's order. PEFT's alpha is in adapter_config.json; this file's is in its
// metadata, by the name below, for our own readers.
extern const char *const adapter_alpha_name;
void write_adapter_peft(const std::string &path, const Adapter &adapter, const AdapterShape &shape);

// Rows from Hugging Face's order to GGUF's and back, in place: `width` elements a row.
void permute_to_gguf(std::vector<float> &rows, uint64_t width, HeadOrder order, uint32_t heads);
void permute_to_hugging_face(std::vector<float> &rows, uint64_t width, HeadOrder order, uint32_t heads);

} // namespace finetune
