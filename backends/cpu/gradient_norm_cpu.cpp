// norm = gradient_scale * sqrt(sum of squares): fixed chunks in parallel, their sums added in order in double.
#include "backends/cpu/cpu.h"

#include <cmath>

namespace qlora {
namespace cpu {

// first[i] = number of chunks before parameter i; first[count] = all of them.
void chunk_parameters(const qlora_parameter *parameters, uint32_t count, uint64_t chunk, uint64_t *first) {
    first[0] = 0;
    for (uint32_t i = 0; i < count; i++) first[i + 1] = first[i] + divide_up(parameters[i].count, chunk);
}

uint32_t parameter_of_chunk(const uint64_t *first, uint32_t count, uint64_t unit) {
    uint32_t low = 0, high = count; // first[low] <= unit < first[high]
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        (first[middle] <= unit ? low : high) = middle;
    }
    return low;
}

namespace {

constexpr uint64_t chunk = 4096;

uint64_t chunks_of(const qlora_gradient_norm_args &args) {
    uint64_t chunks = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) chunks += divide_up(args.parameters[i].count, chunk);
    return chunks;
}

uint64_t table_bytes(const qlora_gradient_norm_args &args) { return align_scratch((uint64_t(args.parameter_count) + 1) * 8); }

} // namespace

uint64_t gradient_norm_scratch(Context &, const qlora_gradient_norm_args &args) { return table_bytes(args) + align_scratch(chunks_of(args) * 8); }

int32_t gradient_norm(Context &context, const qlora_gradient_norm_args &args) {
    uint64_t *first = address<uint64_t>(args.scratch);
    double *sums = reinterpret_cast<double *>(address<char>(args.scratch) + table_bytes(args));
    chunk_parameters(args.parameters, args.parameter_count, chunk, first);
    const Kernels &kernels = kernels_of(context);
    constexpr uint64_t unit_chunks = 8;
    const uint64_t chunks = first[args.parameter_count];
    parallel(context, divide_up(chunks, unit_chunks), [&](uint64_t unit, uint32_t) {
        for (uint64_t i = unit * unit_chunks; i < least((unit + 1) * unit_chunks, chunks); i++) {
            const uint32_t p = parameter_of_chunk(first, args.parameter_count, i);
            const qlora_parameter &parameter = args.parameters[p];
            const uint64_t begin = (i - first[p]) * chunk, count = least(chunk, parameter.count - begin);
            const char *gradient = address<const char>(parameter.gradient) + begin * type_bytes(parameter.gradient_type);
            float values[chunk];
            if (parameter.gradient_type != QLORA_FORMAT_F32) kernels.load[type_index(parameter.gradient_type)](gradient, count, values);
            sums[i] = kernels.sum_squares(parameter.gradient_type == QLORA_FORMAT_F32 ? reinterpret_cast<const float *>(gradient) : values, count);
        }
    });
    double total = 0;
    float *norms = optional<float>(args.norms);
    for (uint32_t p = 0; p < args.parameter_count; p++) {
        double sum = 0;
        for (uint64_t i = first[p]; i < first[p + 1]; i++) sum += sums[i];
        if (norms) norms[p] = float(double(args.gradient_scale) * std::sqrt(sum));
        total += sum;
    }
    *address<float>(args.norm) = float(double(args.gradient_scale) * std::sqrt(total));
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
