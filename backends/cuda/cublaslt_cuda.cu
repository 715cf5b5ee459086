// cuBLASLt is column-major: a row-major y = a b^T is the column-major y^T = b a^T, so the operands change places.
#include "backends/cuda/cublaslt.cuh"

#include <cstring>

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace qlora {
namespace cuda {

namespace {

// The part of the interface that is used, the same in versions 11 to 13.
struct Algorithm { uint64_t data[8]; };
struct Heuristic { Algorithm algorithm; size_t workspace_bytes; int status; float waves; int reserved[4]; };
constexpr int cuda_r_32f = 0, cuda_r_16f = 2, cuda_r_8i = 3, cuda_r_32i = 10, cuda_r_16bf = 14, compute_32f = 68, compute_32i = 72;
constexpr int desc_transa = 3, desc_transb = 4, preference_workspace = 1, operation_n = 0, operation_t = 1;

struct Calls {
    int (*Create)(void **handle);
    int (*Destroy)(void *handle);
    int (*MatmulDescCreate)(void **desc, int compute, int scale);
    int (*MatmulDescDestroy)(void *desc);
    int (*MatmulDescSetAttribute)(void *desc, int attribute, const void *value, size_t bytes);
    int (*MatrixLayoutCreate)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t stride);
    int (*MatrixLayoutDestroy)(void *layout);
    int (*MatmulPreferenceCreate)(void **preference);
    int (*MatmulPreferenceDestroy)(void *preference);
    int (*MatmulPreferenceSetAttribute)(void *preference, int attribute, const void *value, size_t bytes);
    int (*MatmulAlgoGetHeuristic)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int requested, Heuristic *results, int *found);
    int (*Matmul)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout, const void *beta, const void *c,
                  void *c_layout, void *d, void *d_layout, const Algorithm *algorithm, void *workspace, size_t bytes, cudaStream_t stream);
};

int type_code(int32_t type) { return type == QLORA_FORMAT_INT8 ? cuda_r_8i : type == QLORA_FORMAT_F32 ? cuda_r_32f : type == QLORA_FORMAT_F16 ? cuda_r_16f : cuda_r_16bf; }

struct Known {
    LtProduct product;
    bool possible;
    Algorithm algorithm;
};

// Descriptions of one product, destroyed at the end of the scope.
struct Description {
    const Calls &calls;
    void *desc = nullptr, *a = nullptr, *b = nullptr, *y = nullptr;
    explicit Description(const Calls &calls) : calls(calls) {}
    ~Description() {
        if (desc) calls.MatmulDescDestroy(desc);
        for (void *layout : {a, b, y})
            if (layout) calls.MatrixLayoutDestroy(layout);
    }
    bool make(const LtProduct &p) {
        const int first = p.b_turned ? operation_n : operation_t, second = p.a_turned ? operation_t : operation_n;
        const bool bytes = p.type == QLORA_FORMAT_INT8;
        return calls.MatmulDescCreate(&desc, bytes ? compute_32i : compute_32f, bytes ? cuda_r_32i : cuda_r_32f) == 0 && calls.MatmulDescSetAttribute(desc, desc_transa, &first, sizeof first) == 0 &&
               calls.MatmulDescSetAttribute(desc, desc_transb, &second, sizeof second) == 0 &&
               calls.MatrixLayoutCreate(&b, type_code(p.type), uint64_t(p.b_turned ? p.n : p.k), uint64_t(p.b_turned ? p.k : p.n), p.b_stride) == 0 &&
               calls.MatrixLayoutCreate(&a, type_code(p.type), uint64_t(p.a_turned ? p.m : p.k), uint64_t(p.a_turned ? p.k : p.m), p.a_stride) == 0 &&
               calls.MatrixLayoutCreate(&y, bytes ? cuda_r_32i : type_code(p.y_type), uint64_t(p.n), uint64_t(p.m), p.y_stride) == 0;
    }
};

} // namespace

struct Lt {
    Calls calls;
    void *library, *handle;
    Known known[64]; // algorithms by shape, replaced in a ring: asking takes longer than a small product
    uint32_t count, next;
};

#if defined(_WIN32) || defined(QLORA_NO_CUBLASLT)

int32_t open_lt(Context &, Lt **) { return QLORA_OK; }
void close_lt(Context &, Lt *) {}

#else

void close_lt(Context &context, Lt *lt) {
    if (lt->handle) lt->calls.Destroy(lt->handle);
    dlclose(lt->library);
    context.release(lt, sizeof(Lt));
}

static bool find_calls(void *library, Calls &calls) {
    bool complete = true;
    const auto find = [&](auto &function, const char *name) {
        void *found = dlsym(library, name);
        std::memcpy(&function, &found, sizeof found);
        complete = complete && found;
    };
#define QLORA_FIND(name) find(calls.name, "cublasLt" #name)
    QLORA_FIND(Create); QLORA_FIND(Destroy); QLORA_FIND(MatmulDescCreate); QLORA_FIND(MatmulDescDestroy); QLORA_FIND(MatmulDescSetAttribute);
    QLORA_FIND(MatrixLayoutCreate); QLORA_FIND(MatrixLayoutDestroy); QLORA_FIND(MatmulPreferenceCreate); QLORA_FIND(MatmulPreferenceDestroy);
    QLORA_FIND(MatmulPreferenceSetAttribute); QLORA_FIND(MatmulAlgoGetHeuristic); QLORA_FIND(Matmul);
#undef QLORA_FIND
    return complete;
}

int32_t open_lt(Context &context, Lt **result) {
    void *library = nullptr;
    for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11", "libcublasLt.so"})
        if (!library) library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        context.log("cuda: libcublasLt was not found; matrix products use the library's own kernels");
        return QLORA_OK;
    }
    Lt *lt = static_cast<Lt *>(context.allocate(sizeof(Lt), "cublaslt state"));
    if (!lt) {
        dlclose(library);
        return context.fail(QLORA_ERROR_MEMORY, "qlora_context_create: cuda: no host memory for the state of cuBLASLt");
    }
    std::memset(lt, 0, sizeof(Lt));
    lt->library = library;
    if (context.injected("cublasLtCreate")) {
        close_lt(context, lt);
        return context.fail(QLORA_ERROR_DEVICE, "qlora_context_create: cuda: cublasLtCreate failed");
    }
    if (find_calls(library, lt->calls) && lt->calls.Create(&lt->handle) == 0) {
        *result = lt;
        return QLORA_OK;
    }
    lt->handle = nullptr;
    close_lt(context, lt);
    context.log("cuda: libcublasLt does not fit this driver; matrix products use the library's own kernels");
    return QLORA_OK;
}

#endif

// The algorithm for a product, asked once per shape. Null when there is none.
static const Known *find_algorithm(Lt &lt, const LtProduct &p, const Description &description, uint64_t workspace_bytes) {
    for (uint32_t i = 0; i < lt.count; i++)
        if (std::memcmp(&lt.known[i].product, &p, sizeof p) == 0) return &lt.known[i];
    void *preference = nullptr;
    Heuristic result;
    int found = 0;
    const size_t bytes = workspace_bytes;
    if (lt.calls.MatmulPreferenceCreate(&preference) != 0) return nullptr;
    const bool asked = lt.calls.MatmulPreferenceSetAttribute(preference, preference_workspace, &bytes, sizeof bytes) == 0 &&
                       lt.calls.MatmulAlgoGetHeuristic(lt.handle, description.desc, description.b, description.a, description.y, description.y, preference, 1, &result, &found) == 0;
    lt.calls.MatmulPreferenceDestroy(preference);
    constexpr uint32_t capacity = sizeof(lt.known) / sizeof(lt.known[0]);
    Known &known = lt.known[lt.next];
    lt.next = (lt.next + 1) % capacity;
    if (lt.count < capacity) lt.count++;
    known.product = p;
    known.possible = asked && found > 0;
    if (known.possible) known.algorithm = result.algorithm;
    return &known;
}

int32_t multiply_lt(Context &context, cudaStream_t stream, const LtProduct &p, const void *a, const void *b, void *y, void *workspace, uint64_t workspace_bytes) {
    Lt &lt = *state_of(context).lt;
    Description description(lt.calls);
    if (!description.make(p)) return QLORA_ERROR_UNSUPPORTED;
    const Known *known = find_algorithm(lt, p, description, workspace_bytes);
    if (!known || !known->possible) return QLORA_ERROR_UNSUPPORTED;
    const float floats[2] = {1, float(p.beta)};
    const int32_t integers[2] = {1, p.beta};
    const void *alpha = p.type == QLORA_FORMAT_INT8 ? static_cast<const void *>(integers) : floats, *beta = p.type == QLORA_FORMAT_INT8 ? static_cast<const void *>(integers + 1) : floats + 1;
    const int status = context.injected("cublasLtMatmul") ? -1
                                                          : lt.calls.Matmul(lt.handle, description.desc, alpha, b, description.b, a, description.a, beta, y, description.y, y,
                                                                            description.y, &known->algorithm, workspace, workspace_bytes, stream);
    if (status != 0) return context.fail(QLORA_ERROR_DEVICE, "cuda: cublasLtMatmul: status %d for m %lld, n %lld, k %lld", status, (long long)p.m, (long long)p.n, (long long)p.k);
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
