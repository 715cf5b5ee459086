// SpQR weights in host memory: their shapes, single codes of their planes, and what they decode to as the header of the library says.
#pragma once
#include "backends/formats.h"
#include "tests/support/calibrated.h"
#include "tests/support/stage.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace test {

inline qlora_weight shape_of(int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0, uint32_t nested_block = 0, uint64_t outliers = 0, uint32_t flags = 0) {
    auto weight = qlora::make<qlora_weight>();
    weight.flags = flags;
    weight.format = format;
    weight.block = block;
    weight.nested_block = nested_block;
    weight.rows = rows;
    weight.cols = cols;
    weight.outliers = outliers;
    return weight;
}

inline uint32_t code_at(const std::vector<uint8_t> &stream, uint64_t i, uint32_t bits) {
    uint32_t code = 0;
    for (uint32_t b = 0; b < bits; b++) code |= uint32_t(stream[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1) << b;
    return code;
}
template <class T> std::vector<T> numbers(const std::vector<uint8_t> &bytes) {
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

// A weight decoded as the header says: in T, every operation rounded to it.
template <class T> std::vector<T> decoded_in(const HostWeight &host) {
    const qlora_weight &about = host.shape;
    const uint32_t bits = qlora::format_row(about.format)->bits, block = about.block ? about.block : 16, n = about.nested_block ? about.nested_block : 16;
    const uint64_t groups = (about.cols + block - 1) / block;
    const std::vector<float> grids = unpack(QLORA_FORMAT_F16, host.planes[QLORA_PLANE_NESTED]), outliers = unpack(QLORA_FORMAT_F16, host.planes[QLORA_PLANE_OUTLIER]);
    const std::vector<uint32_t> offsets = numbers<uint32_t>(host.planes[QLORA_PLANE_OFFSET]), columns = numbers<uint32_t>(host.planes[QLORA_PLANE_COLUMN]);
    const std::vector<int32_t> index = numbers<int32_t>(host.planes[QLORA_PLANE_INDEX]);
    std::vector<T> values(about.rows * about.cols);
    for (uint64_t r = 0; r < about.rows; r++)
        for (uint64_t c = 0; c < about.cols; c++) {
            const int64_t place = index.empty() ? int64_t(c) : index[c];
            volatile T value = 0;
            if (place >= 0 && place < int64_t(about.cols)) {
                const uint64_t group = uint64_t(place) / block, at = r * groups + group;
                const float *grid = &grids[(r / n * groups + group) * 4];
                const volatile T scale_part = T(code_at(host.planes[QLORA_PLANE_SCALE], at, 3)) - T(grid[2]), zero_part = T(code_at(host.planes[QLORA_PLANE_ZERO], at, 3)) - T(grid[3]);
                const volatile T scale = T(grid[0]) * scale_part, zero = T(grid[1]) * zero_part;
                const volatile T part = T(code_at(host.planes[QLORA_PLANE_CODE], r * about.cols + uint64_t(place), bits)) - zero;
                value = scale * part;
            }
            for (uint64_t i = offsets.empty() ? 0 : offsets[r]; !offsets.empty() && i < std::min<uint64_t>(offsets[r + 1], about.outliers); i++)
                if (columns[i] == c) value = value + T(outliers[i]);
            values[r * about.cols + c] = value;
        }
    return values;
}

inline qlora::Weight upload(const qlora::Context &context, const HostWeight &host) {
    qlora::Weight weight(context, host.shape);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++)
        if (!host.planes[plane].empty()) weight.write_plane(plane, host.planes[plane].data());
    return weight;
}
inline HostWeight download(const qlora::Weight &weight) {
    HostWeight host = {*weight.get(), {}};
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) host.planes[plane] = weight.read_plane(plane);
    return host;
}
inline HostWeight nearest_of(const qlora::Context &context, const qlora_weight &shape, const std::vector<float> &w) {
    const qlora::Weight weight(context, shape);
    const qlora::Buffer src(context, w);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, shape.rows, shape.cols, src.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    return download(weight);
}

} // namespace test
