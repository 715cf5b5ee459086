// LoRA adapters as files: pairs A[rank][inputs], B[outputs][rank] in f32 for named base tensors. Written as the GGUF
// that llama.cpp loads with --lora; read back from it, or from PEFT's safetensors.
#pragma once

#include "gguf.h"

#include <string>
#include <vector>

namespace finetune {

// The adapted linear layers of a llama block, in the order of use.
enum Linear { linear_q, linear_k, linear_v, linear_output, linear_gate, linear_up, linear_down, linear_count };
extern const char *const linear_gguf_names[linear_count]; // "attn_q"
extern const char *const linear_peft_names[linear_count]; // "self_attn.q_proj"

std::string gguf_weight_name(uint32_t layer, Linear linear); // "blk.0.attn_q.weight"
// half is "lora_A" or "lora_B"; files written while the model is in memory have the adapter's name, "default.", too.
std::string peft_weight_name(uint32_t layer, Linear linear, const char *half, const char *adapter = "");

struct AdapterPair {
    uint64_t inputs = 0, outputs = 0;
    std::vector<float> a, b; // row-major A[rank][inputs], B[outputs][rank]; rows of B in the order of the base
};

struct AdapterShape {
    std::string architecture;
    uint32_t layers, heads, kv_heads;
    uint32_t rank;
    uint64_t inputs[linear_count], outputs[linear_count];
    bool hugging_face_rows = false; // the base has the rows of q and k in Hugging Face's order, not in GGUF's
};

struct Adapter {
    float alpha = 0;
    std::vector<AdapterPair> pairs; // layer * linear_count + linear
};

void write_adapter_gguf(const std::string &path, const Adapter &adapter, const AdapterShape &shape);
Adapter read_adapter_gguf(const std::string &path, const AdapterShape &shape);

// PEFT's adapter_model.safetensors, names with or without the adapter's name before ".weight". Its rows of q and k are
// in Hugging Face's order. alpha is not in the file and stays 0.
Adapter read_adapter_peft(const std::string &path, const AdapterShape &shape);
void write_adapter_peft(const std::string &path, const Adapter &adapter, const AdapterShape &shape);

// Chooses by the file's first bytes.
Adapter read_adapter(const std::string &path, const AdapterShape &shape);

// GGUF keeps the rows of q and k so that rotary pairs are neighbours: with heads of size d, Hugging Face's row
// h * d + p * (d / 2) + i, p in 0..1, becomes row h * d + 2 * i + p. `width` elements a row, in place.
void permute_to_gguf(std::vector<float> &rows, uint64_t width, uint32_t heads);
void permute_to_hugging_face(std::vector<float> &rows, uint64_t width, uint32_t heads);

} // namespace finetune
