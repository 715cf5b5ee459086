// Buffers for callers with no device API of their own. Host buffers are pinned; addresses are the same on both sides, so copies
// take either and find out the direction themselves.
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

int32_t buffer_create(Context &context, qlora_buffer_args &args) {
    DeviceScope scope(context);
    void *memory = nullptr;
    if (args.flags & QLORA_BUFFER_HOST) {
        QLORA_CUDA(context, "cudaHostAlloc", cudaHostAlloc(&memory, args.bytes, cudaHostAllocPortable));
        args.host = memory;
    } else {
        QLORA_CUDA(context, "cudaMalloc", cudaMalloc(&memory, args.bytes));
    }
    args.dst = qlora_span{reinterpret_cast<uint64_t>(memory), 0, args.bytes};
    return QLORA_OK;
}

int32_t buffer_destroy(Context &context, const qlora_buffer_args &args) {
    DeviceScope scope(context);
    if (args.flags & QLORA_BUFFER_HOST) {
        QLORA_CUDA(context, "cudaDeviceSynchronize", cudaDeviceSynchronize()); // freeing host memory need not wait
        QLORA_CUDA(context, "cudaFreeHost", cudaFreeHost(reinterpret_cast<void *>(args.dst.handle)));
        return QLORA_OK;
    }
    QLORA_CUDA(context, "cudaFree", cudaFree(reinterpret_cast<void *>(args.dst.handle))); // waits for the device
    return QLORA_OK;
}

int32_t buffer_write(Context &context, const qlora_buffer_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    QLORA_CUDA(context, "cudaMemcpyAsync", cudaMemcpyAsync(address<void>(args.dst), args.host, args.bytes, cudaMemcpyDefault, stream));
    QLORA_CUDA(context, "cudaStreamSynchronize", cudaStreamSynchronize(stream)); // host memory may be pinned, hence read late
    return QLORA_OK;
}

int32_t buffer_read(Context &context, const qlora_buffer_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    QLORA_CUDA(context, "cudaMemcpyAsync", cudaMemcpyAsync(args.host, address<void>(args.src), args.bytes, cudaMemcpyDefault, stream));
    QLORA_CUDA(context, "cudaStreamSynchronize", cudaStreamSynchronize(stream));
    return QLORA_OK;
}

// On the stream of its direction, after what the caller's stream holds by now.
static int32_t copy_beside(Context &context, const qlora_buffer_args &args) {
    Paging &paging = state_of(context).paging;
    const bool out = args.flags & QLORA_BUFFER_HOST;
    const cudaStream_t beside = out ? paging.out : paging.in;
    QLORA_CUDA(context, "cudaEventRecord", cudaEventRecord(paging.begin, stream_of(context, args)));
    QLORA_CUDA(context, "cudaStreamWaitEvent", cudaStreamWaitEvent(beside, paging.begin, 0));
    QLORA_CUDA(context, "cudaMemcpyAsync", cudaMemcpyAsync(address<void>(args.dst), address<void>(args.src), args.bytes, cudaMemcpyDefault, beside));
    QLORA_CUDA(context, "cudaEventRecord", cudaEventRecord(paging.beside[out], beside));
    paging.open[out] = true;
    return QLORA_OK;
}

static int32_t join(Context &context, cudaStream_t stream, bool out) {
    Paging &paging = state_of(context).paging;
    if (!paging.open[out]) return QLORA_OK;
    QLORA_CUDA(context, "cudaStreamWaitEvent", cudaStreamWaitEvent(stream, paging.beside[out], 0));
    paging.open[out] = false;
    return QLORA_OK;
}

int32_t join_copies(Context &context, cudaStream_t stream) {
    QLORA_TRY(join(context, stream, false));
    return join(context, stream, true);
}

int32_t buffer_join(Context &context, const qlora_buffer_args &args) {
    DeviceScope scope(context);
    return join(context, stream_of(context, args), args.flags & QLORA_BUFFER_HOST);
}

int32_t buffer_copy(Context &context, const qlora_buffer_args &args) {
    DeviceScope scope(context);
    if (args.flags & QLORA_BUFFER_BESIDE) return copy_beside(context, args);
    QLORA_CUDA(context, "cudaMemcpyAsync",
               cudaMemcpyAsync(address<void>(args.dst), address<void>(args.src), args.bytes, cudaMemcpyDefault, stream_of(context, args)));
    return QLORA_OK;
}

static __global__ void fill_kernel(uint32_t *dst, uint64_t words, uint32_t pattern) {
    for (uint64_t i = blockIdx.x * uint64_t(blockDim.x) + threadIdx.x; i < words; i += uint64_t(gridDim.x) * blockDim.x) dst[i] = pattern;
}

int32_t buffer_fill(Context &context, const qlora_buffer_args &args) {
    DeviceScope scope(context);
    const uint64_t words = args.bytes / 4, blocks = ceil_divide(words, 1024);
    const Grid grid = {dim3(unsigned(blocks < 65536 ? blocks : 65536)), 256};
    return launch(context, stream_of(context, args), grid, fill_kernel, address<uint32_t>(args.dst), words, args.pattern);
}

} // namespace cuda
} // namespace qlora
