// What every file of the CUDA backend shares on the host side: the state of a context, the current-device guard,
// launching, and errors. The driver is found at run time by the static cudart; nothing here is global.
#pragma once
#include "backends/backend.h"
#include "backends/pages.h"

#include <cuda_runtime_api.h>

namespace qlora {
namespace cuda {

struct Lt; // cuBLASLt, when it could be loaded (cublaslt_cuda.cu)

// Streams and events of paged optimizer state, made with the context: copies in, copies out, and per page of the window
// when its state has arrived, has been stepped, and may be overwritten. Copies beside the operations take the same streams;
// an event per direction, to the device and to the host, says when the last is done.
struct Paging {
    cudaStream_t in, out;
    cudaEvent_t begin, arrived[most_slots], stepped[most_slots], free[most_slots], beside[2];
    bool open[2]; // copies beside that nothing has waited for
};

// A stream beside the caller's, for small work that would leave most of the device idle, and what orders the two.
struct SideStream {
    cudaStream_t stream;
    cudaEvent_t begin, middle, end;
};

struct State {
    int device;
    int capability;      // of the device: 75, 80, 90, ...
    int compiled;        // of the kernels that it runs
    int multiprocessors;
    int shared_bytes;    // of shared memory that a block may have
    cudaStream_t stream; // the default one; the caller's or our own
    cudaStream_t recorded; // null but while a graph is recorded
    bool own_stream;
    Lt *lt;              // null when there is no cuBLASLt
    Paging paging;
    SideStream side;
    char name[128];
};

inline State &state_of(Context &context) { return *static_cast<State *>(context.state); }

// Makes the context's device current for one call, and the caller's again afterwards.
struct DeviceScope {
    int previous = -1, device;
    explicit DeviceScope(Context &context) : device(state_of(context).device) {
        cudaGetDevice(&previous);
        if (previous != device) cudaSetDevice(device);
    }
    ~DeviceScope() {
        if (previous >= 0 && previous != device) cudaSetDevice(previous);
    }
};

int32_t driver_failure(Context &context, const char *call, cudaError_t error);

// Runs one driver call unless a test injects its failure.
#define QLORA_CUDA(context, name, expression)                                                                 \
    do {                                                                                                      \
        const cudaError_t qlora_error = (context).injected(name) ? cudaErrorUnknown : (expression);           \
        if (qlora_error != cudaSuccess) return driver_failure(context, name, qlora_error);                    \
    } while (0)

template <class T> struct Same { using type = T; };

struct Grid {
    dim3 blocks;
    unsigned threads;
    size_t shared_bytes = 0;
    unsigned cluster = 1;
};

// Whether the kernels that run were compiled for devices with clusters and early launches.
inline bool clustered(Context &context) { return state_of(context).compiled >= 90; }

// Launches a kernel and returns a status; an empty grid is no work. Parameters travel by value.
template <class... P>
int32_t launch(Context &context, cudaStream_t stream, const Grid &grid, void (*kernel)(P...), typename Same<P>::type... parameters) {
    if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return QLORA_OK;
    void *pointers[] = {const_cast<void *>(static_cast<const void *>(&parameters))...};
    if (grid.shared_bytes > 48 * 1024)
        QLORA_CUDA(context, "cudaFuncSetAttribute",
                   cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared_bytes)));
    QLORA_CUDA(context, "cudaLaunchKernel",
               cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid.blocks, dim3(grid.threads), pointers, grid.shared_bytes, stream));
    return QLORA_OK;
}

// The same for a kernel that begins with wait_for_previous(): its blocks may start, up to there, while the kernel before it ends.
// Runs of `cluster` neighbouring blocks, which divides those along x, share a cluster: 1 unless clustered() says that there are clusters.
template <class... P>
int32_t launch_early(Context &context, cudaStream_t stream, const Grid &grid, void (*kernel)(P...), typename Same<P>::type... parameters) {
    if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return QLORA_OK;
    if (!clustered(context)) return launch(context, stream, grid, kernel, parameters...);
    if (grid.shared_bytes > 48 * 1024)
        QLORA_CUDA(context, "cudaFuncSetAttribute",
                   cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared_bytes)));
    void *pointers[] = {const_cast<void *>(static_cast<const void *>(&parameters))...};
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = grid.cluster;
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid.blocks;
    config.blockDim = dim3(grid.threads);
    config.dynamicSmemBytes = grid.shared_bytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = grid.cluster > 1 ? 2 : 1;
    QLORA_CUDA(context, "cudaLaunchKernel", cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(kernel), pointers));
    return QLORA_OK;
}

// The stream goes on after all copies beside, in both directions.
int32_t join_copies(Context &context, cudaStream_t stream);
// Gives the recorded stream back, if there is one, and drops what was recorded.
void stop_recording(State &state);

template <class Args> cudaStream_t stream_of(Context &context, const Args &args) {
    return args.stream ? reinterpret_cast<cudaStream_t>(args.stream) : state_of(context).stream;
}

// Work on the side stream: after what the caller's stream holds at fork(), and before what it is given after wait() for what was
// on the side by mark(), or after join() for all of it. A stream that is being captured takes the side along; where the
// side belongs to a capture of its own, stream() is the caller's and everything is in line.
class Beside {
public:
    Beside(Context &context, cudaStream_t stream) : context_(context), main_(stream), side_(state_of(context).side) {}
    ~Beside() { join(); }

    int32_t fork() {
        cudaStreamCaptureStatus mine = cudaStreamCaptureStatusNone, its = cudaStreamCaptureStatusNone;
        unsigned long long my_capture = 0, its_capture = 0;
        QLORA_CUDA(context_, "cudaStreamGetCaptureInfo", capture_of(main_, mine, my_capture));
        QLORA_CUDA(context_, "cudaStreamGetCaptureInfo", capture_of(side_.stream, its, its_capture));
        if (its != cudaStreamCaptureStatusNone && (mine != its || my_capture != its_capture)) return QLORA_OK;
        QLORA_CUDA(context_, "cudaEventRecord", cudaEventRecord(side_.begin, main_));
        QLORA_CUDA(context_, "cudaStreamWaitEvent", cudaStreamWaitEvent(side_.stream, side_.begin, 0));
        forked_ = true;
        return QLORA_OK;
    }
    cudaStream_t stream() const { return forked_ ? side_.stream : main_; }
    int32_t mark() {
        if (forked_) QLORA_CUDA(context_, "cudaEventRecord", cudaEventRecord(side_.middle, side_.stream));
        return QLORA_OK;
    }
    int32_t wait() {
        if (forked_) QLORA_CUDA(context_, "cudaStreamWaitEvent", cudaStreamWaitEvent(main_, side_.middle, 0));
        return QLORA_OK;
    }
    int32_t join() {
        if (!forked_) return QLORA_OK;
        forked_ = false;
        QLORA_CUDA(context_, "cudaEventRecord", cudaEventRecord(side_.end, side_.stream));
        QLORA_CUDA(context_, "cudaStreamWaitEvent", cudaStreamWaitEvent(main_, side_.end, 0));
        return QLORA_OK;
    }

private:
    static cudaError_t capture_of(cudaStream_t stream, cudaStreamCaptureStatus &status, unsigned long long &id) {
#if CUDART_VERSION >= 13000
        return cudaStreamGetCaptureInfo(stream, &status, &id, nullptr, nullptr, nullptr, nullptr);
#else
        return cudaStreamGetCaptureInfo(stream, &status, &id);
#endif
    }

    Context &context_;
    cudaStream_t main_;
    SideStream &side_;
    bool forked_ = false;
};

constexpr uint64_t ceil_divide(uint64_t count, uint64_t step) { return (count + step - 1) / step; }

// Hands out aligned pieces of a scratch span; with base 0 it only adds up.
struct Carver {
    uint64_t base, bytes = 0;
    explicit Carver(const qlora_span &span) : base(span.handle + span.offset) {}
    Carver() : base(0) {}
    template <class T> T *take(uint64_t count) {
        T *piece = reinterpret_cast<T *>(base + bytes);
        bytes += align_scratch(count * sizeof(T));
        return piece;
    }
};

} // namespace cuda
} // namespace qlora
