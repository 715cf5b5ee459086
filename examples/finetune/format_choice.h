// Storage formats as the programs name and choose them. The list is the library's own; none is kept here.
#pragma once

#include "cpp/qlora.hpp"
#include "gguf.h"

namespace finetune {

std::vector<int32_t> all_formats(); // plain floats first, then by number
std::string format_names();         // "f32, f16, bf16, nf4, ...", for messages
std::string format_name(int32_t format);

// A format by its name. An unknown one is an Error that begins with `option`.
int32_t named_format(const std::string &name, const std::string &option);

inline bool is_float(int32_t format) {
    return format == QLORA_FORMAT_F32 || format == QLORA_FORMAT_F16 || format == QLORA_FORMAT_BF16;
}

inline bool is_gptq(int32_t format) { return format >= QLORA_FORMAT_GPTQ2 && format <= QLORA_FORMAT_GPTQ8; }
inline bool is_spqr(int32_t format) { return format == QLORA_FORMAT_SPQR3 || format == QLORA_FORMAT_SPQR4; }
// Fitted to a text where there is one.
inline bool is_calibrated(int32_t format) { return is_gptq(format) || is_spqr(format); }

// What a name with additions says: "nf4", "nf4:128" with its block, "gptq4-rtn:64" rounded to nearest even where there
// is text to calibrate with, "llm-int8": int8 whose products are formed in integers,
// "nvfp4-scaled": with a scale per tensor.
struct FormatChoice {
    int32_t format = 0;
    uint32_t block = 0; // 0: none was named
    bool nearest = false;
    bool integers = false, scaled = false;

    std::string name(uint32_t default_block = 0) const; // as it could be given
};
FormatChoice named_choice(const std::string &text, const std::string &option);

// The ggml type of a format, null where GGUF has none; the format of a ggml type, 0 where the library has none.
const TensorType *ggml_type(int32_t format);
int32_t format_of(const TensorType &type);

// The format itself where rows of `cols` values divide into its blocks; else the one that llama.cpp's quantizer takes
// in its place (blocks of 32), and F16 where 32 does not divide them either.
int32_t fitting_format(int32_t format, uint64_t cols);

// Bytes of all planes without padding. Throws when the numbers do not go together.
uint64_t weight_bytes(int32_t format, uint32_t block, uint64_t rows, uint64_t cols, uint64_t outliers = 0);
qlora_weight_layout_info weight_layout(int32_t format, uint32_t block, uint64_t rows, uint64_t cols,
                                       uint64_t outliers = 0);

// The values that the codes 0, 1, ... of a format with a table stand for.
const std::vector<float> &code_table(int32_t format);

} // namespace finetune
