// What the cases of tests/ops_*.cpp share: the arithmetic to try and the shapes, none of them convenient.
#pragma once
#include "backends/formats.h"
#include "tests/support/inputs.h"
#include "tests/support/stage.h"

namespace test {

struct Arithmetic {
    int32_t type, compute_type; // 0 = type
};
constexpr Arithmetic arithmetics[] = {
    {QLORA_FORMAT_F32, 0},
    {QLORA_FORMAT_F16, 0},
    {QLORA_FORMAT_BF16, 0},
    {QLORA_FORMAT_F32, QLORA_FORMAT_F16},
    {QLORA_FORMAT_F32, QLORA_FORMAT_BF16},
    {QLORA_FORMAT_F16, QLORA_FORMAT_F32},
    {QLORA_FORMAT_BF16, QLORA_FORMAT_F32},
};

struct Shape {
    uint64_t tokens, rows, cols;
};
// Every dimension at 1, at block - 1, block, block + 1 and at primes; tiles of 16, 64 and 128 passed by one; a real layer.
constexpr Shape shapes[] = {{1, 1, 1},    {1, 48, 63},   {3, 31, 64},   {5, 17, 65},    {7, 13, 127}, {2, 129, 257},
                            {33, 65, 96}, {17, 64, 256}, {65, 33, 160}, {130, 97, 192}, {9, 384, 1024}};
constexpr size_t shape_count = sizeof shapes / sizeof shapes[0];

// A shape that the format can hold: interleaved blocks need whole blocks in a row.
inline Shape fitting(Shape shape, int32_t format) {
    const qlora::FormatRow *row = qlora::format_row(format);
    if (qlora::whole_blocks(*row)) shape.cols = (shape.cols + row->block - 1) / row->block * row->block;
    return shape;
}

inline std::string name_of(const Shape &shape) {
    return std::to_string(shape.tokens) + "x" + std::to_string(shape.rows) + "x" + std::to_string(shape.cols);
}
inline std::string name_of(const Arithmetic &arithmetic) {
    return format_name(arithmetic.type) + (arithmetic.compute_type ? "/" + format_name(arithmetic.compute_type) : "");
}

// Calls f(format, arithmetic, shape, variant) over formats x arithmetic with `per_pair` shapes each, walking round the list of
// shapes so that all are met, and over all shapes for one format of each family. variant counts up, for flags to vary with.
template <class Function> void for_formats_and_shapes(size_t per_pair, Function &&f) {
    uint32_t variant = 0;
    for (const qlora::FormatRow &row : qlora::format_rows)
        for (const Arithmetic &arithmetic : arithmetics)
            for (size_t i = 0; i < per_pair; i++, variant++) f(row.format, arithmetic, fitting(shapes[(variant * 3 + variant / 11) % (shape_count - 1)], row.format), variant);
    for (int32_t format : {QLORA_FORMAT_NF4_DQ, QLORA_FORMAT_Q8_0, QLORA_FORMAT_F16})
        for (const Arithmetic &arithmetic : {arithmetics[0], arithmetics[1], arithmetics[2]})
            for (const Shape &shape : shapes) f(format, arithmetic, fitting(shape, format), variant++);
}

} // namespace test
