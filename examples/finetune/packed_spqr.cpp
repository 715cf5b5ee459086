#include "packed_spqr.h"

#include "format_choice.h"

#include <cstring>

namespace finetune {
namespace {

struct Plane {
    int index;
    const char *ending, *dtype;
    uint32_t size; // of an element
};
// In the order of the file: each begins at a multiple of its element.
const Plane planes[] = {{QLORA_PLANE_OFFSET, ".outlier_offset", "U32", 4}, {QLORA_PLANE_COLUMN, ".outlier_column", "U32", 4},
                        {QLORA_PLANE_NESTED, ".grid", "F16", 2},           {QLORA_PLANE_OUTLIER, ".outlier", "F16", 2},
                        {QLORA_PLANE_CODE, "", "U8", 1},                   {QLORA_PLANE_SCALE, ".scale", "U8", 1},
                        {QLORA_PLANE_ZERO, ".zero", "U8", 1}};

uint32_t element(const uint8_t *data, uint64_t i) {
    uint32_t value;
    memcpy(&value, data + 4 * i, 4);
    return value;
}

std::string state_text(int32_t format, uint32_t block, uint64_t rows, uint64_t cols, uint64_t outliers,
                       const char *dtype) {
    return "{\"quant_type\": \"" + format_name(format) +
           "\", \"blocksize\": " + std::to_string(block == 0 ? qlora::format_query(format).block : block) +
           ", \"nested_blocksize\": " + std::to_string(spqr_rows) + ", \"outliers\": " + std::to_string(outliers) +
           ", \"dtype\": \"" + dtype + "\", \"shape\": [" + std::to_string(rows) + ", " + std::to_string(cols) + "]}";
}

void check_outliers(const SafeTensors &file, const std::string &who, const StoredWeight &weight) {
    if (weight.outliers == 0) return;
    const uint8_t *offsets = weight.planes[QLORA_PLANE_OFFSET], *columns = weight.planes[QLORA_PLANE_COLUMN];
    for (uint64_t r = 0; r < weight.rows; ++r) {
        const uint64_t begin = element(offsets, r), end = element(offsets, r + 1);
        if (begin > end || end > weight.outliers || (r == 0 && begin != 0))
            file.reject(who, ": outlier_offset elements ", r, " and ", r + 1, " are ", begin, " and ", end);
        for (uint64_t i = begin; i < end; ++i)
            if (element(columns, i) >= weight.cols || (i > begin && element(columns, i) <= element(columns, i - 1)))
                file.reject(who, ": outlier_column element ", i, " is ", element(columns, i), ", which is ",
                            element(columns, i) >= weight.cols ? "no column" : "not behind the one before it");
    }
}

} // namespace

void read_spqr(const SafeTensors &file, const std::string &name, const std::string &who, PackedTensor *packed) {
    StoredWeight &weight = packed->weight;
    if (weight.outliers > weight.rows * weight.cols) file.reject(who, ": more outliers than weights");
    qlora_weight_layout_info layout;
    try {
        layout = weight_layout(weight.format, weight.block, weight.rows, weight.cols, weight.outliers);
    } catch (const Error &error) { file.reject(who, ": ", error.what()); }
    for (const Plane &plane : planes) {
        const uint64_t bytes = layout.plane_bytes[plane.index];
        if (bytes == 0) continue;
        const std::string part_name = name + plane.ending;
        const SafeTensor *part = file.find(part_name);
        if (part == nullptr)
            file.reject("tensor ", shown(part_name), " is missing, which ", who,
                        " needs; the file is incomplete, save the model again");
        if (part->dtype != plane.dtype || part->bytes != bytes)
            file.reject("tensor ", shown(part_name), " has ", part->bytes, " bytes of ", part->dtype, ", expected ",
                        bytes, " bytes of ", plane.dtype, " from ", who);
        for (uint64_t i = 0; plane.size == 2 && i < bytes / 2; ++i)
            if ((part->data[2 * i + 1] & 0x7c) == 0x7c)
                file.reject("tensor ", shown(part_name), ": element ", i, " is not finite");
        weight.planes[plane.index] = part->data;
        if (plane.index != QLORA_PLANE_CODE) packed->parts.push_back(part); // the codes are there already
    }
    check_outliers(file, who, weight);
}

std::vector<PackedPart> spqr_parts(const std::string &name, int32_t format, uint32_t block, uint64_t rows,
                                   uint64_t cols, uint64_t outliers) {
    const qlora_weight_layout_info layout = weight_layout(format, block, rows, cols, outliers);
    std::vector<PackedPart> parts;
    uint64_t all = 0;
    for (const Plane &plane : planes) {
        const uint64_t bytes = layout.plane_bytes[plane.index];
        if (bytes == 0) continue;
        parts.push_back(
            {PackedPart::plane, plane.index, name + plane.ending, plane.dtype, {bytes / plane.size}, bytes});
        all += bytes;
    }
    uint64_t state = state_text(format, block, rows, cols, outliers, "bfloat16").size();
    state += (8 - (state + all) % 8) % 8;
    parts.push_back(
        {PackedPart::state, 0, name + ".quant_state.qlora__" + format_name(format), "U8", {state}, state});
    return parts;
}

std::vector<uint8_t> spqr_state(const qlora::Weight &weight, const char *dtype, uint64_t bytes) {
    const qlora_weight &about = *weight.get();
    const std::string text = state_text(about.format, about.block, about.rows, about.cols, about.outliers, dtype);
    std::vector<uint8_t> state(text.begin(), text.end());
    state.resize(bytes, ' ');
    return state;
}

} // namespace finetune
