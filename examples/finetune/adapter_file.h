// LoRA adapters as files of either kind, without a base: GGUF, as llama.cpp loads them, and PEFT's adapter_model.safetensors
// with adapter_config.json beside it. They may hold any of the linear layers, each with a rank of its own. A base tells how
// the layers of the two kinds belong together.
#pragma once

#include "base_model.h"

#include <map>
#include <string>
#include <vector>

namespace finetune {

enum class AdapterKind { gguf, peft };

// The update of one linear layer: scale * B A.
struct LoraPair {
    std::string module; // as its file names it: "blk.0.attn_q", "model.layers.0.self_attn.q_proj"
    uint64_t rank = 0, inputs = 0, outputs = 0;
    double scale = 1;
    std::vector<float> a, b;          // row-major A[rank][inputs], B[outputs][rank], rows in the order of the file's kind
    std::string dtype_a, dtype_b;     // safetensors' names of the types in the file: "F32", "F16", "BF16"
};

struct AdapterFile {
    std::string path;
    AdapterKind kind = AdapterKind::gguf;
    std::string architecture; // GGUF only
    std::vector<LoraPair> pairs;
    // What a GGUF adapter holds besides, kept through PEFT's form: its keys as they lie in the file, and the order of its
    // tensors.
    std::string gguf_keys;
    std::vector<std::string> gguf_order;
    // Whether the base has no layer beyond those of the adapter, as far as a base was looked at.
    bool whole_layers = false;

    const LoraPair *find(const std::string &module) const;
    uint64_t most_rank() const;
    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path, ": ", parts...); }
};

// A GGUF file, a safetensors file, or a directory that PEFT saved. alpha: where PEFT's config is not there to tell; below
// 0: none was given.
AdapterFile read_adapter_file(const std::string &path, double alpha = -1);

// A linear layer of a base by the names of both kinds.
struct Module {
    std::string gguf, peft;
    uint64_t inputs, outputs;
    HeadOrder rows; // how the rows of PEFT's B become GGUF's
    uint32_t heads; // that they belong to
};
std::vector<Module> base_modules(const BaseModel &base);

// Brings names and rows of an adapter to the other kind, or checks those of its own. Throws for layers that the base does
// not have, or has with other sizes.
void convert_adapter(AdapterFile &adapter, AdapterKind kind, const BaseModel &base);

void write_gguf_adapter(const std::string &path, const AdapterFile &adapter);
// Creates the directory. base_name: for base_model_name_or_path.
void write_peft_adapter(const std::string &directory, const AdapterFile &adapter, const std::string &base_name);
// "both.gguf": asks for a GGUF adapter, whatever kind it comes from.
bool names_gguf(const std::string &path);
// GGUF into a file, PEFT into a directory.
void write_adapter_file(const std::string &path, const AdapterFile &adapter, const std::string &base_name);

// Of several adapters of one kind with weights, sum(weight * scale * B A):
// exactly, with the ranks one after the other;
AdapterFile concatenate(const std::vector<AdapterFile> &adapters, const std::vector<double> &weights);
// as PEFT's add_weighted_adapter(combination_type="linear"), which sums A and B apart and needs equal ranks;
AdapterFile combine_linear(const std::vector<AdapterFile> &adapters, const std::vector<double> &weights);
// the nearest of a smaller rank. Returns the relative error of the whole, in the Frobenius norm.
double compress(AdapterFile &adapter, uint64_t rank);

// An adapter to train on from, of `fresh`'s shape and with its values where `file` has none: in layers that it leaves out,
// and in ranks beyond its own, which add nothing until they are trained. Throws where it holds more than the shape.
Adapter starting_adapter(AdapterFile file, const BaseModel &base, const AdapterShape &shape, Adapter fresh);

// One adapter of one rank in the order of the base, for Trainable. An alpha of `adapters` as such is kept where one
// adapter is used as it is.
Adapter device_adapter(const std::vector<AdapterFile> &adapters, const std::vector<double> &weights,
                       const BaseModel &base, AdapterShape *shape);

} // namespace finetune
