// The window of device memory that pages of state pass through.
#pragma once
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

// One call's use of the window. Three engines work at a time: the next pages are copied in on one stream while a page is
// stepped on the caller's and the last is copied out on another. Events alone order them, and they lead from the caller's
// stream and back to it, so that a capture of that stream takes the copies in as branches of its graph.
class Window {
public:
    Window(Context &context, const qlora_optimizer_args &args, cudaStream_t stream) : context_(context), args_(args), stream_(stream), paging_(state_of(context).paging) {}

    // Before anything that the copies may overlap; from here on pages arrive as fast as slots are free.
    int32_t open() {
        QLORA_TRY(record(paging_.begin, stream_));
        return wait(paging_.in, paging_.begin);
    }
    // What comes now on the caller's stream finds the page in its slot.
    int32_t bring(const Page &page) {
        if (used_ >> page.slot & 1) QLORA_TRY(wait(paging_.in, paging_.free[page.slot]));
        used_ |= 1u << page.slot;
        QLORA_TRY(copy(page, paging_.in, false));
        QLORA_TRY(record(paging_.arrived[page.slot], paging_.in));
        return wait(stream_, paging_.arrived[page.slot]);
    }
    // What came on the caller's stream was all; the page is written back, or dropped.
    int32_t leave(const Page &page, bool write_back) {
        if (!write_back) return record(paging_.free[page.slot], stream_);
        QLORA_TRY(record(paging_.stepped[page.slot], stream_));
        QLORA_TRY(wait(paging_.out, paging_.stepped[page.slot]));
        QLORA_TRY(copy(page, paging_.out, true));
        return record(paging_.free[page.slot], paging_.out);
    }
    // What comes now on the caller's stream comes after all copies.
    int32_t close() {
        for (uint32_t slot = 0; slot < most_slots; slot++)
            if (used_ >> slot & 1) QLORA_TRY(wait(stream_, paging_.free[slot]));
        return QLORA_OK;
    }

private:
    int32_t record(cudaEvent_t event, cudaStream_t stream) {
        QLORA_CUDA(context_, "cudaEventRecord", cudaEventRecord(event, stream));
        return QLORA_OK;
    }
    int32_t wait(cudaStream_t stream, cudaEvent_t event) {
        QLORA_CUDA(context_, "cudaStreamWaitEvent", cudaStreamWaitEvent(stream, event, 0));
        return QLORA_OK;
    }
    int32_t copy(const Page &page, cudaStream_t stream, bool out) {
        for (uint32_t i = 0; i < page.copy_count; i++) {
            void *const host = address<void>(page.copies[i].arena), *const device = address<void>(slot_span(args_, page, page.copies[i]));
            QLORA_CUDA(context_, "cudaMemcpyAsync", cudaMemcpyAsync(out ? host : device, out ? device : host, page.copies[i].arena.size, cudaMemcpyDefault, stream));
        }
        return QLORA_OK;
    }

    Context &context_;
    const qlora_optimizer_args &args_;
    cudaStream_t stream_;
    const Paging &paging_;
    uint32_t used_ = 0; // slots, a bit each
};

} // namespace cuda
} // namespace qlora
