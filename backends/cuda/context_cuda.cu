// Devices, contexts and the table of the CUDA backend.
#include "backends/cuda/cuda.cuh"
#include "backends/cuda/cublaslt.cuh"

#include <cstdio>
#include <cstring>

namespace qlora {
namespace cuda {

int32_t driver_failure(Context &context, const char *call, cudaError_t error) {
    const int32_t status = error == cudaErrorMemoryAllocation ? QLORA_ERROR_MEMORY : QLORA_ERROR_DEVICE;
    return context.fail(status, "cuda: %s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

int32_t device_count(uint32_t *count) {
    int devices = 0;
    // No driver, no device and a driver that is too old all mean: nothing here that could be used.
    *count = cudaGetDeviceCount(&devices) == cudaSuccess ? uint32_t(devices) : 0;
    return QLORA_OK;
}

static __global__ void probe_kernel() {}

static void close_paging(Paging &paging) {
    for (cudaStream_t stream : {paging.in, paging.out})
        if (stream) cudaStreamDestroy(stream);
    for (cudaEvent_t event : {paging.begin, paging.beside[0], paging.beside[1]})
        if (event) cudaEventDestroy(event);
    for (cudaEvent_t *events : {paging.arrived, paging.stepped, paging.free})
        for (uint32_t slot = 0; slot < most_slots; slot++)
            if (events[slot]) cudaEventDestroy(events[slot]);
}

// What was made stays in paging also after a failure.
static int32_t open_paging(Context &context, Paging &paging) {
    for (cudaStream_t *stream : {&paging.in, &paging.out}) QLORA_CUDA(context, "cudaStreamCreate", cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    for (cudaEvent_t *event : {&paging.begin, &paging.beside[0], &paging.beside[1]})
        QLORA_CUDA(context, "cudaEventCreate", cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    for (cudaEvent_t *events : {paging.arrived, paging.stepped, paging.free})
        for (uint32_t slot = 0; slot < most_slots; slot++) QLORA_CUDA(context, "cudaEventCreate", cudaEventCreateWithFlags(&events[slot], cudaEventDisableTiming));
    return QLORA_OK;
}

static void close_side(SideStream &side) {
    if (side.stream) cudaStreamDestroy(side.stream);
    for (cudaEvent_t event : {side.begin, side.middle, side.end})
        if (event) cudaEventDestroy(event);
}

// Its blocks go before those of the caller's stream: they are few, and something waits for them.
static int32_t open_side(Context &context, SideStream &side) {
    int least = 0, greatest = 0;
    QLORA_CUDA(context, "cudaDeviceGetStreamPriorityRange", cudaDeviceGetStreamPriorityRange(&least, &greatest));
    QLORA_CUDA(context, "cudaStreamCreate", cudaStreamCreateWithPriority(&side.stream, cudaStreamNonBlocking, greatest));
    for (cudaEvent_t *event : {&side.begin, &side.middle, &side.end})
        QLORA_CUDA(context, "cudaEventCreate", cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    return QLORA_OK;
}

static int32_t open(Context &context, State &state, const qlora_context_args &args) {
    int devices = 0;
    const cudaError_t found = context.injected("cudaGetDeviceCount") ? cudaErrorUnknown : cudaGetDeviceCount(&devices);
    if (found != cudaSuccess)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: cuda: no NVIDIA driver for CUDA %d was found (%s); install one, or choose another backend",
                            CUDART_VERSION / 1000, cudaGetErrorString(found));
    if (args.device < 0 || args.device >= devices)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: device %d: this machine has %d CUDA devices; use an index below that", args.device, devices);
    state.device = args.device;
    int previous = -1, major = 0, minor = 0;
    cudaGetDevice(&previous);
    QLORA_CUDA(context, "cudaSetDevice", cudaSetDevice(state.device));
    struct Restore {
        int device;
        ~Restore() { if (device >= 0) cudaSetDevice(device); }
    } restore = {previous};
    if (args.flags & QLORA_CONTEXT_LEAN) QLORA_CUDA(context, "cudaDeviceSetLimit", cudaDeviceSetLimit(cudaLimitStackSize, 0));
    QLORA_CUDA(context, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, state.device));
    QLORA_CUDA(context, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, state.device));
    QLORA_CUDA(context, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&state.multiprocessors, cudaDevAttrMultiProcessorCount, state.device));
    QLORA_CUDA(context, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&state.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, state.device));
    state.capability = major * 10 + minor;
    if (state.capability < 75)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: device %d has compute capability %d.%d; 7.5 or later is needed", state.device, major, minor);
    // What the kernels were compiled for decides what they can do: code for sm_75 also runs on later devices.
    cudaFuncAttributes attributes;
    const cudaError_t built = context.injected("cudaFuncGetAttributes") ? cudaErrorUnknown : cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(probe_kernel));
    if (built == cudaErrorNoKernelImageForDevice || built == cudaErrorInvalidDeviceFunction)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: device %d is sm_%d, for which this library was not built; add it to QLORA_CUDA_ARCHITECTURES", state.device,
                            state.capability);
    if (built != cudaSuccess) return driver_failure(context, "cudaFuncGetAttributes", built);
    state.compiled = attributes.ptxVersion;
    cudaDeviceProp properties;
    QLORA_CUDA(context, "cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, state.device));
    std::snprintf(state.name, sizeof state.name, "%.100s (sm_%d)", properties.name, state.capability);
    state.stream = reinterpret_cast<cudaStream_t>(args.stream);
    state.own_stream = args.stream == 0;
    if (state.own_stream) QLORA_CUDA(context, "cudaStreamCreate", cudaStreamCreateWithFlags(&state.stream, cudaStreamNonBlocking));
    int32_t status = open_paging(context, state.paging);
    if (status == QLORA_OK) status = open_side(context, state.side);
    if (status == QLORA_OK) status = open_lt(context, &state.lt);
    if (status == QLORA_OK) return QLORA_OK;
    close_paging(state.paging);
    close_side(state.side);
    if (state.own_stream) cudaStreamDestroy(state.stream);
    return status;
}

int32_t create(Context &context, const qlora_context_args &args) {
    void *memory = context.allocate(sizeof(State), "cuda state");
    if (!memory) return context.fail(QLORA_ERROR_MEMORY, "qlora_context_create: cuda: no host memory for the state");
    std::memset(memory, 0, sizeof(State));
    const int32_t status = open(context, *static_cast<State *>(memory), args);
    if (status == QLORA_OK) context.state = memory;
    else context.release(memory, sizeof(State));
    return status;
}

void destroy(Context &context) {
    State &state = state_of(context);
    {
        DeviceScope scope(context);
        stop_recording(state);
        for (cudaStream_t stream : {state.stream, state.paging.in, state.paging.out, state.side.stream}) cudaStreamSynchronize(stream);
        if (state.lt) close_lt(context, state.lt);
        close_paging(state.paging);
        close_side(state.side);
        if (state.own_stream) cudaStreamDestroy(state.stream);
    }
    context.release(&state, sizeof(State));
    context.state = nullptr;
}

int32_t query(Context &context, qlora_context_info &info) {
    DeviceScope scope(context);
    size_t free_bytes = 0, total_bytes = 0;
    QLORA_CUDA(context, "cudaMemGetInfo", cudaMemGetInfo(&free_bytes, &total_bytes));
    info.device = state_of(context).device;
    info.memory_bytes = total_bytes;
    info.memory_free_bytes = free_bytes;
    std::memcpy(info.name, state_of(context).name, sizeof info.name);
    int version = 0; // 12080: the newest CUDA that the driver knows
    QLORA_CUDA(context, "cudaDriverGetVersion", cudaDriverGetVersion(&version));
    std::snprintf(info.driver, sizeof info.driver, "CUDA %d.%d", version / 1000, version % 1000 / 10);
    return QLORA_OK;
}

int32_t synchronize(Context &context) {
    DeviceScope scope(context);
    const State &state = state_of(context);
    QLORA_CUDA(context, "cudaStreamSynchronize", cudaStreamSynchronize(state.stream));
    for (const bool out : {false, true})
        if (state.paging.open[out]) QLORA_CUDA(context, "cudaStreamSynchronize", cudaStreamSynchronize(out ? state.paging.out : state.paging.in));
    return QLORA_OK;
}

// Every row of formats.def has a decoder here, and an encoder but for GPTQ's and SpQR's, which are calibrated on the host.
bool supports(Context &, uint32_t operation, int32_t format, int32_t) {
    if (operation == QLORA_OP_QUANTIZE_GPTQ || operation == QLORA_OP_QUANTIZE_SPQR) return false;
    return operation != QLORA_OP_QUANTIZE || !has_groups(*format_row(format));
}

#define QLORA_VTABLE_KIND QLORA_BACKEND_CUDA
#define QLORA_VTABLE_NAME "cuda"
#define QLORA_VTABLE_GRAPHS
#include "backends/vtable.inc"

} // namespace cuda
} // namespace qlora
