// Judging results: relative errors, and tolerances looked up in ops.def, which is their only place.
#pragma once
#include "qlora.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace test {

// The arithmetic type that decides the tolerance: with F32 activations and a 16-bit compute type the 16-bit one.
inline int32_t deciding_type(int32_t type, int32_t compute_type) {
    return type == QLORA_FORMAT_F32 && compute_type ? compute_type : type;
}

// Tolerance of an operation (QLORA_OP_*) as ||out - ref|| / ||ref||; 0 means equal bits.
inline double tolerance(uint32_t operation, int32_t type) {
    struct Row {
        uint32_t operation;
        double f32, f16, bf16;
    };
    static constexpr Row rows[] = {
#define QLORA_OPERATION(ID, name, entry, args_type, weight, f32, f16, bf16) {QLORA_OP_##ID, f32, f16, bf16},
#include "backends/ops.def"
#undef QLORA_OPERATION
    };
    for (const Row &row : rows)
        if (row.operation == operation) return type == QLORA_FORMAT_F32 ? row.f32 : type == QLORA_FORMAT_F16 ? row.f16 : row.bf16;
    return 0;
}

// ||out - ref|| / ||ref||; NaN where either has a NaN; 0 for two zeros, infinity for something against zero.
template <class A, class B> double relative_error(const std::vector<A> &out, const std::vector<B> &ref) {
    if (out.size() != ref.size()) return HUGE_VAL;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < ref.size(); i++) {
        const double d = double(out[i]) - double(ref[i]);
        difference += d * d;
        norm += double(ref[i]) * double(ref[i]);
    }
    if (difference == 0) return 0;
    return norm == 0 ? HUGE_VAL : std::sqrt(difference / norm);
}

// The largest |out - ref| over the largest |ref|: a single wrong element of many shows here.
template <class A, class B> double largest_error(const std::vector<A> &out, const std::vector<B> &ref) {
    if (out.size() != ref.size()) return HUGE_VAL;
    double difference = 0, largest = 0;
    for (size_t i = 0; i < ref.size(); i++) {
        const double d = std::fabs(double(out[i]) - double(ref[i]));
        if (!(d <= difference)) difference = d;
        if (std::fabs(double(ref[i])) > largest) largest = std::fabs(double(ref[i]));
    }
    if (difference == 0) return 0;
    return largest == 0 ? HUGE_VAL : difference / largest;
}

// How many elements of `size` bytes differ; all of them when the lengths do.
inline uint64_t different_elements(const std::vector<uint8_t> &a, const std::vector<uint8_t> &b, size_t size) {
    const size_t count = (a.size() > b.size() ? a.size() : b.size()) / size;
    if (a.size() != b.size()) return count ? count : 1;
    uint64_t different = 0;
    for (size_t i = 0; i < count; i++) different += std::memcmp(a.data() + i * size, b.data() + i * size, size) != 0;
    return different;
}

// How many codes are one step off, and how many more.
struct CodeDifference {
    uint64_t neighbours, wrong;
};
inline CodeDifference code_difference(const std::vector<uint8_t> &a, const std::vector<uint8_t> &b) {
    CodeDifference difference = {0, a.size() == b.size() ? 0u : 1u};
    for (size_t i = 0; i < a.size() && i < b.size(); i++) {
        const int step = a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
        difference.neighbours += step == 1;
        difference.wrong += step > 1;
    }
    return difference;
}

} // namespace test
