// Peers found by dlopen, so that the benchmark builds and runs without them.
#include "tests/bench/bench.h"

#include <dlfcn.h>

#include <stdexcept>

namespace bench {
namespace {

template <class Function> Function symbol(void *library, const char *name) { return library ? reinterpret_cast<Function>(dlsym(library, name)) : nullptr; }

void *open_first(std::initializer_list<const char *> names) {
    for (const char *name : names)
        if (void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    return nullptr;
}

// cblas.h: row major 101, no transpose 111, transpose 112.
struct OpenBlas {
    using Sgemm = void (*)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
    void *library = open_first({"libopenblas.so.0", "libopenblas.so"});
    Sgemm sgemm = symbol<Sgemm>(library, "cblas_sgemm");
    char *(*config)() = symbol<char *(*)()>(library, "openblas_get_config");
};
const OpenBlas &openblas() {
    static const OpenBlas loaded;
    return loaded;
}

// cublas_api.h: CUBLAS_OP_N 0, CUBLAS_OP_T 1, CUDA_R_16BF 14, CUBLAS_COMPUTE_32F 68, CUBLAS_GEMM_DEFAULT -1.
struct CuBlas {
    using Gemm = int (*)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int, int, int, int);
    void *driver = open_first({"libcuda.so.1"});
    void *library = driver ? open_first({"libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so", "/usr/local/cuda/lib64/libcublas.so"}) : nullptr;
    int (*create)(void **) = symbol<int (*)(void **)>(library, "cublasCreate_v2");
    int (*get_version)(void *, int *) = symbol<int (*)(void *, int *)>(library, "cublasGetVersion_v2");
    Gemm gemm = symbol<Gemm>(library, "cublasGemmEx");
    int (*synchronize)() = symbol<int (*)()>(driver, "cuCtxSynchronize");
    void *handle = nullptr;
    CuBlas() {
        if (create && gemm && synchronize && create(&handle) != 0) handle = nullptr;
    }
};
const CuBlas &cublas() {
    static const CuBlas loaded;
    return loaded;
}

} // namespace

bool openblas_here() { return openblas().sgemm != nullptr; }
std::string openblas_version() { return openblas().config ? openblas().config() : "OpenBLAS"; }
void openblas_sgemm(bool transposed, uint64_t m, uint64_t n, uint64_t k, const float *a, const float *b, float *c) {
    openblas().sgemm(101, 111, transposed ? 112 : 111, int(m), int(n), int(k), 1, a, int(k), b, int(transposed ? k : n), 0, c, int(n));
}

bool cublas_here() { return cublas().handle != nullptr; }
std::string cublas_version() {
    int version = 0;
    if (cublas().get_version) cublas().get_version(cublas().handle, &version);
    return "cuBLAS " + std::to_string(version);
}
// Column-major cuBLAS sees our row-major matrices transposed: c^T[n][m] = op(b)^T a^T.
void cublas_bf16(bool transposed, uint64_t m, uint64_t n, uint64_t k, uint64_t a, uint64_t b, uint64_t c) {
    const float one = 1, zero = 0;
    auto pointer = [](uint64_t address) { return reinterpret_cast<void *>(uintptr_t(address)); };
    const int status = cublas().gemm(cublas().handle, transposed ? 1 : 0, 0, int(n), int(m), int(k), &one, pointer(b), 14, int(transposed ? k : n), pointer(a), 14, int(k), &zero,
                                     pointer(c), 14, int(n), 68, -1);
    if (status != 0) throw std::runtime_error("cublasGemmEx answers " + std::to_string(status));
}
// CUDA_R_8I 3, CUDA_R_32I 10, CUBLAS_COMPUTE_32I 72.
void cublas_int8(uint64_t m, uint64_t n, uint64_t k, uint64_t a, uint64_t b, uint64_t c) {
    const int32_t one = 1, zero = 0;
    auto pointer = [](uint64_t address) { return reinterpret_cast<void *>(uintptr_t(address)); };
    const int status = cublas().gemm(cublas().handle, 1, 0, int(n), int(m), int(k), &one, pointer(b), 3, int(k), pointer(a), 3, int(k), &zero, pointer(c), 10, int(n), 72, -1);
    if (status != 0) throw std::runtime_error("cublasGemmEx answers " + std::to_string(status) + " for int8");
}
void cublas_synchronize() {
    if (cublas().synchronize) cublas().synchronize();
}

} // namespace bench
