// A weight as a file holds it: views of its planes, in the layout of qlora_weight, and where it must be, values made
// from them. Valid while the file is open.
#pragma once

#include "cpp/qlora.hpp"
#include "gguf.h"
#include "safetensors.h"

namespace finetune {

struct StoredWeight {
    int32_t format = 0; // 0: nothing that the library decodes
    uint32_t block = 0, flags = 0, nested_block = 0;
    uint64_t rows = 0, cols = 0, outliers = 0;
    int32_t dtype = 0; // the float type of the values that it stands for
    const uint8_t *planes[QLORA_PLANE_COUNT] = {};
    float tensor_scale = 0; // as in qlora_weight
    // Tensors of a GPTQ checkpoint in place of planes. version 0: the zeros must tell.
    struct {
        const uint8_t *qweight, *qzeros, *scales, *index;
        uint32_t version;
    } gptq = {};
    bool decoded = false;    // by tables of the file that are not the library's: the file holds other planes
    std::vector<float> made; // memory of planes that the file does not hold in that form

    StoredWeight() = default;
    StoredWeight(StoredWeight &&) = default;
    StoredWeight &operator=(StoredWeight &&) = default;
    StoredWeight(const StoredWeight &) = delete;
    StoredWeight &operator=(const StoredWeight &) = delete;
};

// A weight whose planes are in host memory.
struct HostWeight {
    int32_t format = 0;
    uint32_t block = 0, flags = 0, nested_block = 0;
    uint64_t rows = 0, cols = 0, outliers = 0;
    std::vector<uint8_t> planes[QLORA_PLANE_COUNT];
};
HostWeight host_weight(const qlora_weight &shape); // its planes are empty
HostWeight download_weight(const qlora::Weight &weight);
// Gives up the room that a weight's outliers do not use.
void shrink_outliers(HostWeight &weight, uint64_t outliers);
qlora::Weight upload_weight(const qlora::Context &context, const HostWeight &weight);

// The shape that a weight has in the library; its planes are absent.
qlora_weight weight_shape(const StoredWeight &stored);
qlora_weight weight_shape(const HostWeight &host);

StoredWeight view_weight(const GgufTensor &tensor);
// The same, with the scale per tensor that its file has beside it: f32[1] X.scale for X.weight.
StoredWeight view_weight(const Gguf &file, const GgufTensor &tensor);
const GgufTensor *find_tensor_scale(const Gguf &file, const GgufTensor &tensor);
std::string tensor_scale_name(const std::string &weight_name);
// What NVFP4's recipe takes: the largest magnitude becomes the largest value that there is. 0 where all are zero.
float recipe_tensor_scale(const std::vector<float> &values);
std::vector<float> decode_floats(const StoredWeight &weight); // of plain floats
// Row i becomes what row from[i] was; a vector's elements are its rows. Double-quantized scales become plain ones, to the
// bit what they stand for. An Error, which names the tensor, where rows cannot be told apart.
void reorder_rows(StoredWeight &weight, const std::vector<uint64_t> &from, const std::string &name);
qlora::Weight upload_weight(const qlora::Context &context, const StoredWeight &stored);

} // namespace finetune
