// The benchmark's clock, its ceilings and its rows. Inputs rotate through buffers worth more than four times the last cache,
// so that nothing is timed from a cache that a real step would not find warm. Every row carries a parity check.
#pragma once
#include "cpp/qlora.hpp"
#include "tests/support/inputs.h"
#include "tests/support/targets.h"

#include <functional>
#include <string>
#include <vector>

namespace bench {

using namespace test;

// Seconds of one call: median and the 20th and 80th percentile.
struct Time {
    double median = 0, low = 0, high = 0;
};

struct Settings {
    Target target;
    std::string only;  // parts of "workload shape dtype", any of which will do, separated by commas
    bool quick = false; // small shapes and few repetitions: is everything there?
};

class Bench {
public:
    explicit Bench(const Settings &settings);
    const qlora::Context &context() const { return context_; }
    const qlora::Context &ref() const { return ref_; }
    bool on_gpu() const { return settings_.target.backend == QLORA_BACKEND_CUDA || settings_.target.backend == QLORA_BACKEND_VULKAN; }
    bool quick() const { return settings_.quick; }
    int32_t backend() const { return settings_.target.backend; }
    bool wanted(const std::string &workload, const std::string &shape, const std::string &type) const;
    // Copies of a footprint that together pass four times the last cache.
    size_t rotation(uint64_t footprint_bytes) const;

    // Times call(i), i counting up. Devices are timed in batches between two synchronizations.
    Time time(const std::function<void(uint64_t)> &call) const;

    // Measures and prints the ceilings that floors are made of.
    void ceilings();

    // One row. bytes is what must move, flops what must be computed: their slower one is the floor. error: parity, and the row
    // is void when it passes the tolerance of ops.def.
    struct Row {
        uint32_t operation; // QLORA_OP_*, and the type that decides: what ops.def tolerates
        int32_t deciding;
        std::string workload, shape, type;
        uint64_t rows; // tokens; 0 = does not apply
        Time ours, peer; // peer.median 0 = no peer
        double bytes, flops, error;
    };
    void print(const Row &row);
    uint64_t printed() const { return printed_; }
    uint64_t void_rows() const { return void_rows_; } // whose parity is off

    // Device memory with these values, again and again (their bytes are whole words), or with random ones, and a scratch for an operation.
    qlora::Buffer repeated(int32_t type, const std::vector<float> &values, uint64_t count) const;
    qlora::Buffer random(int32_t type, uint64_t count, uint64_t seed, double deviation = 1) const;
    template <class Args> qlora::Buffer scratch(uint32_t operation, const Args &args) const {
        return qlora::Buffer(context_, context_.operation_scratch(operation, args));
    }

private:
    Settings settings_;
    qlora::Context context_, ref_;
    double copy_bytes_per_second_ = 0, flops_per_second_ = 0;
    uint64_t cache_bytes_, printed_ = 0, void_rows_ = 0;
};

// The sections, each a list of rows.
void bench_quantize(Bench &bench);
void bench_dequantize(Bench &bench);
void bench_matmul(Bench &bench);
void bench_linear(Bench &bench);
void bench_int8(Bench &bench);
void bench_calibration(Bench &bench);
void bench_elementwise(Bench &bench);
void bench_attention(Bench &bench);
void bench_cross_entropy(Bench &bench);
void bench_optimizer(Bench &bench);

// sgemm of OpenBLAS, found by dlopen: c[m][n] = a[m][k] b[n][k]^T, or a[m][k] b[k][n]. False when the library is not here.
bool openblas_here();
std::string openblas_version();
void openblas_sgemm(bool transposed, uint64_t m, uint64_t n, uint64_t k, const float *a, const float *b, float *c);

// cuBLAS on device addresses, found by dlopen, bf16 with f32 accumulation. Enqueues on the legacy stream.
bool cublas_here();
std::string cublas_version();
void cublas_bf16(bool transposed, uint64_t m, uint64_t n, uint64_t k, uint64_t a, uint64_t b, uint64_t c);
// The same of signed bytes with int32 sums; b is b[n][k].
void cublas_int8(uint64_t m, uint64_t n, uint64_t k, uint64_t a, uint64_t b, uint64_t c);
void cublas_synchronize();

} // namespace bench
