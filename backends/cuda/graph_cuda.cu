// Graphs: the driver captures what goes to a stream, and what its events lead to the streams of copies beside and back.
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

namespace {

// What an end of recording holds until it has succeeded.
struct Captured {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    ~Captured() {
        if (graph) cudaGraphDestroy(graph);
        if (executable) cudaGraphExecDestroy(executable);
    }
};

} // namespace

int32_t graph_begin(Context &context, const qlora_graph_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    QLORA_TRY(join_copies(context, stream)); // a captured stream cannot wait for what is not captured
    // Relaxed: kernels may be loaded at their first use, which allocates. What a capture cannot hold the front door refuses.
    QLORA_CUDA(context, "cudaStreamBeginCapture", cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    state_of(context).recorded = stream;
    return QLORA_OK;
}

// Whatever comes of it, the streams are as before and no event of the capture is waited for later.
static cudaError_t end_capture(State &state, cudaGraph_t *graph) {
    const cudaStream_t stream = state.recorded;
    state.recorded = nullptr;
    state.paging.open[0] = state.paging.open[1] = false;
    return cudaStreamEndCapture(stream, graph);
}

void stop_recording(State &state) {
    Captured captured;
    if (state.recorded) end_capture(state, &captured.graph);
}

static int32_t device_bytes_free(Context &context, size_t *bytes) {
    size_t total = 0;
    QLORA_CUDA(context, "cudaMemGetInfo", cudaMemGetInfo(bytes, &total));
    return QLORA_OK;
}

static int32_t instantiate(Context &context, cudaStream_t stream, Captured &captured, qlora_graph_args &args) {
    size_t nodes = 0, before = 0, after = 0;
    QLORA_CUDA(context, "cudaGraphGetNodes", cudaGraphGetNodes(captured.graph, nullptr, &nodes));
    QLORA_TRY(device_bytes_free(context, &before));
    QLORA_CUDA(context, "cudaGraphInstantiate", cudaGraphInstantiateWithFlags(&captured.executable, captured.graph, 0));
    QLORA_CUDA(context, "cudaGraphUpload", cudaGraphUpload(captured.executable, stream)); // else the first launch does it
    QLORA_TRY(device_bytes_free(context, &after));
    args.nodes = nodes;
    args.device_bytes = before > after ? before - after : 0;
    return QLORA_OK;
}

int32_t graph_end(Context &context, qlora_graph_args &args, bool discard) {
    DeviceScope scope(context);
    State &state = state_of(context);
    const cudaStream_t stream = state.recorded;
    if (discard) {
        stop_recording(state);
        return QLORA_OK;
    }
    const int32_t joined = join_copies(context, stream);
    const bool injected = context.injected("cudaStreamEndCapture");
    Captured captured;
    const cudaError_t ended = end_capture(state, &captured.graph);
    QLORA_TRY(joined);
    if (injected || ended != cudaSuccess) return driver_failure(context, "cudaStreamEndCapture", injected ? cudaErrorUnknown : ended);
    QLORA_TRY(instantiate(context, stream, captured, args));
    args.graph = reinterpret_cast<uint64_t>(captured.executable);
    captured.executable = nullptr;
    return QLORA_OK;
}

int32_t graph_launch(Context &context, const qlora_graph_args &args) {
    DeviceScope scope(context);
    QLORA_CUDA(context, "cudaGraphLaunch", cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(args.graph), stream_of(context, args)));
    return QLORA_OK;
}

int32_t graph_destroy(Context &context, const qlora_graph_args &args) {
    DeviceScope scope(context);
    QLORA_CUDA(context, "cudaDeviceSynchronize", cudaDeviceSynchronize()); // it may be under way on any stream
    QLORA_CUDA(context, "cudaGraphExecDestroy", cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(args.graph)));
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
