// GPTQ checkpoints, whose codes run along inputs and whose zeros run along outputs, in words of 32 bits:
//
//   qweight[K b / 32][N]   qzeros[groups][N b / 32]   scales[groups][N]   g_idx[K]        K = cols, N = rows, b = bits
//
// Our planes are code[N][K], scale[N][groups], zero[N][groups] and index[K].
#include "backends/interchange/interchange.h"

#include <cstring>

namespace qlora {
namespace interchange {
namespace {

// A little-endian stream of codes in bytes.
uint32_t get(const uint8_t *stream, uint64_t i, uint32_t bits) {
    const uint64_t bit = i * bits, byte = bit / 8;
    const uint32_t shift = uint32_t(bit % 8), following = shift + bits > 8 ? stream[byte + 1] : 0u;
    return ((stream[byte] | following << 8) >> shift) & ((1u << bits) - 1u);
}
// The stream was zero there.
void add(uint8_t *stream, uint64_t i, uint32_t bits, uint32_t code) {
    const uint64_t bit = i * bits, byte = bit / 8;
    const uint32_t shift = uint32_t(bit % 8);
    stream[byte] = uint8_t(stream[byte] | code << shift);
    if (shift + bits > 8) stream[byte + 1] = uint8_t(stream[byte + 1] | code << shift >> 8);
}

// A stream of codes in words that lie `stride` words apart. Words are in the order of this machine, as tensors are.
struct Words {
    uint8_t *data;
    uint64_t stride;
    uint32_t word(uint64_t i) const { uint32_t value; std::memcpy(&value, data + i * stride * 4, 4); return value; }
    uint32_t get(uint64_t i, uint32_t bits) const {
        const uint64_t bit = i * bits, at = bit / 32;
        const uint32_t shift = uint32_t(bit % 32);
        const uint64_t two = word(at) | (shift + bits > 32 ? uint64_t(word(at + 1)) << 32 : 0);
        return uint32_t(two >> shift) & ((1u << bits) - 1u);
    }
    void add(uint64_t i, uint32_t bits, uint32_t code) const {
        const uint64_t bit = i * bits, at = bit / 32;
        const uint32_t shift = uint32_t(bit % 32);
        put(at, word(at) | code << shift);
        if (shift + bits > 32) put(at + 1, word(at + 1) | code >> (32 - shift));
    }
    void put(uint64_t i, uint32_t value) const { std::memcpy(data + i * stride * 4, &value, 4); }
};

struct Layer {
    const qlora_weight &weight;
    uint64_t rows, cols, groups;
    uint32_t bits, mask;
    uint8_t *codes, *zeros, *scales, *index, *file_scales, *file_index;
    explicit Layer(const qlora_gptq_tensors &tensors)
        : weight(*tensors.weight), rows(weight.rows), cols(weight.cols), groups(group_count(weight)), bits(format_row(weight.format)->bits), mask((1u << bits) - 1u),
          codes(address<uint8_t>(weight.planes[QLORA_PLANE_CODE])), zeros(address<uint8_t>(weight.planes[QLORA_PLANE_ZERO])),
          scales(address<uint8_t>(weight.planes[QLORA_PLANE_SCALE])), index(address<uint8_t>(weight.planes[QLORA_PLANE_INDEX])),
          file_scales(address<uint8_t>(tensors.scales)), file_index(tensors.g_idx.handle ? address<uint8_t>(tensors.g_idx) : nullptr),
          qweight(address<uint8_t>(tensors.qweight)), qzeros(address<uint8_t>(tensors.qzeros)) {}
    bool indexed() const { return (weight.flags & QLORA_WEIGHT_INDEXED) != 0; }
    Words output_codes(uint64_t r) const { return Words{qweight + r * 4, rows}; }
    Words group_zeros(uint64_t g) const { return Words{qzeros + g * (rows * bits / 32) * 4, 1}; }

private:
    uint8_t *qweight, *qzeros;
};

int32_t load_index(const uint8_t *index, uint64_t c) { int32_t group; std::memcpy(&group, index + c * 4, 4); return group; }

int32_t take_index(Context &context, const Layer &layer) {
    for (uint64_t c = 0; c < layer.cols; c++) {
        const int32_t straight = int32_t(c / layer.weight.block), group = layer.file_index ? load_index(layer.file_index, c) : straight;
        if (group < 0 || uint64_t(group) >= layer.groups)
            return context.fail(QLORA_ERROR_VALUE, "qlora_gptq_import: g_idx element %llu is %d, but there are %llu groups; is block the file's group size?",
                                (unsigned long long)c, int(group), (unsigned long long)layer.groups);
        if (!layer.indexed() && group != straight)
            return context.fail(QLORA_ERROR_ARGUMENT, "qlora_gptq_import: g_idx element %llu is %d, not column / block; set QLORA_WEIGHT_INDEXED in the weight",
                                (unsigned long long)c, int(group));
    }
    for (uint64_t c = 0; layer.indexed() && c < layer.cols; c++) {
        const int32_t group = layer.file_index ? load_index(layer.file_index, c) : int32_t(c / layer.weight.block);
        std::memcpy(layer.index + c * 4, &group, 4);
    }
    return QLORA_OK;
}

// 1 or 2 when every stored zero is that version's middle code, else 0.
uint32_t version_of(const Layer &layer) {
    const uint32_t middle = 1u << (layer.bits - 1);
    bool first = true, second = true;
    for (uint64_t g = 0; g < layer.groups; g++)
        for (uint64_t r = 0; r < layer.rows; r++) {
            const uint32_t stored = layer.group_zeros(g).get(r, layer.bits);
            first = first && stored == middle - 1;
            second = second && stored == middle;
        }
    return first ? 1 : second ? 2 : 0;
}

} // namespace

int32_t import_gptq(Context &context, qlora_gptq_tensors &tensors) {
    const Layer layer(tensors);
    QLORA_TRY(take_index(context, layer));
    if (tensors.version == 0 && layer.rows && layer.groups) tensors.version = version_of(layer);
    if (tensors.version == 0)
        return context.fail(QLORA_ERROR_VALUE, "qlora_gptq_import: version: qzeros are not all the middle code, so they do not tell; set 1 (gptq) or 2 (gptq_v2)");
    std::memset(layer.codes, 0, size_t(stream_bytes(layer.rows * layer.cols, layer.bits)));
    std::memset(layer.zeros, 0, size_t(stream_bytes(layer.rows * layer.groups, layer.bits)));
    tensors.ambiguous_zeros = 0;
    for (uint64_t r = 0; r < layer.rows; r++) {
        for (uint64_t c = 0; c < layer.cols; c++) add(layer.codes, r * layer.cols + c, layer.bits, layer.output_codes(r).get(c, layer.bits));
        for (uint64_t g = 0; g < layer.groups; g++) {
            uint32_t zero = layer.group_zeros(g).get(r, layer.bits);
            if (tensors.version == 1) {
                if (zero == layer.mask) tensors.ambiguous_zeros++;
                zero = (zero + 1) & layer.mask;
            }
            add(layer.zeros, r * layer.groups + g, layer.bits, zero);
            std::memcpy(layer.scales + (r * layer.groups + g) * 2, layer.file_scales + (g * layer.rows + r) * 2, 2);
        }
    }
    return QLORA_OK;
}

int32_t export_gptq(Context &, qlora_gptq_tensors &tensors) {
    const Layer layer(tensors);
    std::memset(address<void>(tensors.qweight), 0, size_t(stream_bytes(layer.rows * layer.cols, layer.bits)));
    std::memset(address<void>(tensors.qzeros), 0, size_t(stream_bytes(layer.rows * layer.groups, layer.bits)));
    for (uint64_t r = 0; r < layer.rows; r++) {
        for (uint64_t c = 0; c < layer.cols; c++) layer.output_codes(r).add(c, layer.bits, get(layer.codes, r * layer.cols + c, layer.bits));
        for (uint64_t g = 0; g < layer.groups; g++) {
            const uint32_t zero = get(layer.zeros, r * layer.groups + g, layer.bits);
            layer.group_zeros(g).add(r, layer.bits, tensors.version == 1 ? (zero - 1) & layer.mask : zero);
            std::memcpy(layer.file_scales + (g * layer.rows + r) * 2, layer.scales + (r * layer.groups + g) * 2, 2);
        }
    }
    for (uint64_t c = 0; layer.file_index && c < layer.cols; c++) {
        const int32_t group = layer.indexed() ? load_index(layer.index, c) : int32_t(c / layer.weight.block);
        std::memcpy(layer.file_index + c * 4, &group, 4);
    }
    return QLORA_OK;
}

} // namespace interchange
} // namespace qlora
