// Paged state: streams pages of it from host memory through a window of device memory and back.
#pragma once
#include "backends/cuda/optimizer.cuh"

namespace qlora {
namespace cuda {

// The parts of a parameter's state in host memory from a granule on, and what stands for them elsewhere.
inline uint64_t state_place(const qlora_parameter &parameter, int piece, uint64_t first) {
    qlora_parameter spans = parameter;
    const qlora_span &span = state_span(spans, piece);
    const uint64_t elements = first * state_granule;
    return span.handle + span.offset + (piece >= QLORA_STATE_ABSMAX1 ? elements / state_block * 4 : parameter.state_type == QLORA_FORMAT_DYN8 ? elements : elements * 4);
}

// One call's use of the window. Three engines work at a time: page i + 1 is copied in on one stream while page i is
// stepped on the caller's and page i - 1 is copied out on another; events alone order them, so that a capture of the
// caller's stream takes the copies in as branches of its graph. Pages fill one after the other; what lies side by side in
// host memory and in the page is copied at once, which with the arena of qlora_pager is a page.
template <int states> class Pages {
public:
    Pages(Context &context, const qlora_optimizer_args &args, cudaStream_t stream)
        : context_(context), args_(args), stream_(stream), paging_(state_of(context).paging), slots_(args.page_bytes ? args.window.size / args.page_bytes : 0) {
        if (slots_ > window_slots) slots_ = window_slots;
    }

    // Runs run(list) on the caller's stream for every page of the tensors with this type of state; writes state back, or not.
    template <class Run> int32_t pass(int32_t state_type, bool write_back, TensorList<states> &list, Run &&run) {
        list.count = list.granules = 0;
        uint64_t used = 0;
        for (uint32_t i = 0; i < args_.parameter_count; i++) {
            const qlora_parameter &parameter = args_.parameters[i];
            if (!(parameter.flags & QLORA_PARAMETER_PAGED) || parameter.state_type != state_type) continue;
            for (uint64_t done = 0; done < parameter.count;) {
                const uint64_t part = fitting(parameter, parameter.count - done, args_.page_bytes - used);
                if (part == 0 || list.full(part)) {
                    QLORA_TRY(stream_page(list, write_back, run));
                    used = 0;
                    continue;
                }
                uint64_t places[QLORA_STATE_COUNT] = {};
                for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) {
                    const uint64_t bytes = state_piece_bytes(args_.algorithm, state_type, part, piece);
                    if (bytes) places[piece] = args_.window.handle + args_.window.offset + page_ % slots_ * args_.page_bytes + used;
                    used += align_scratch(bytes);
                }
                list.add(parameter, i, done / state_granule, part, places);
                done += part;
            }
        }
        return list.count ? stream_page(list, write_back, run) : QLORA_OK;
    }

    // Everything after this on the caller's stream comes after the copies.
    int32_t finish() {
        for (uint64_t page = page_ < slots_ ? 0 : page_ - slots_; page < page_; page++) QLORA_TRY(wait(stream_, paging_.free[page % slots_]));
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
    uint64_t page_bytes(int32_t state_type, uint64_t elements) const {
        uint64_t bytes = 0;
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) bytes += align_scratch(state_piece_bytes(args_.algorithm, state_type, elements, piece));
        return bytes;
    }
    // The most elements from here on whose state has room: all, or whole granules.
    uint64_t fitting(const qlora_parameter &parameter, uint64_t elements, uint64_t room) const {
        if (page_bytes(parameter.state_type, elements) <= room) return elements;
        uint64_t least = 0;
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) least += state_piece_bytes(args_.algorithm, parameter.state_type, state_granule, piece);
        uint64_t granules = room / least;
        while (granules && page_bytes(parameter.state_type, granules * state_granule) > room) granules--;
        return granules * state_granule < elements ? granules * state_granule : 0; // the rest alone is counted above
    }
    int32_t copy(const TensorList<states> &list, cudaStream_t stream, bool out) {
        uint64_t host = 0, device = 0, bytes = 0; // a run of pieces that follow each other on both sides
        auto flush = [&]() -> int32_t {
            if (bytes)
                QLORA_CUDA(context_, "cudaMemcpyAsync",
                           cudaMemcpyAsync(reinterpret_cast<void *>(out ? host : device), reinterpret_cast<const void *>(out ? device : host), bytes, cudaMemcpyDefault, stream));
            bytes = 0;
            return QLORA_OK;
        };
        for (uint32_t e = 0; e < list.count; e++) {
            const TensorEntry<states> &entry = list.entries[e];
            const qlora_parameter &parameter = args_.parameters[entry.index];
            for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) {
                const uint64_t size = state_piece_bytes(args_.algorithm, parameter.state_type, entry.count, piece), from = size ? state_place(parameter, piece, entry.first) : 0;
                if (size == 0) continue;
                const uint64_t to = reinterpret_cast<uint64_t>(piece < QLORA_STATE_ABSMAX1 ? entry.state[piece % 3] : static_cast<void *>(entry.absmax[piece % 3]));
                if (bytes && host + bytes == from && device + bytes == to) {
                    bytes += size;
                    continue;
                }
                QLORA_TRY(flush());
                host = from;
                device = to;
                bytes = size;
            }
        }
        return flush();
    }
    template <class Run> int32_t stream_page(TensorList<states> &list, bool write_back, Run &&run) {
        const uint64_t slot = page_ % slots_;
        if (page_ == 0) {
            QLORA_TRY(record(paging_.begin, stream_));
            QLORA_TRY(wait(paging_.in, paging_.begin));
        }
        if (page_ >= slots_) QLORA_TRY(wait(paging_.in, paging_.free[slot]));
        QLORA_TRY(copy(list, paging_.in, false));
        QLORA_TRY(record(paging_.arrived[slot], paging_.in));
        QLORA_TRY(wait(stream_, paging_.arrived[slot]));
        QLORA_TRY(run(list));
        if (write_back) {
            QLORA_TRY(record(paging_.stepped[slot], stream_));
            QLORA_TRY(wait(paging_.out, paging_.stepped[slot]));
            QLORA_TRY(copy(list, paging_.out, true));
        }
        QLORA_TRY(record(paging_.free[slot], write_back ? paging_.out : stream_));
        page_++;
        list.count = list.granules = 0;
        return QLORA_OK;
    }

    Context &context_;
    const qlora_optimizer_args &args_;
    cudaStream_t stream_;
    const Paging &paging_;
    uint64_t slots_, page_ = 0;
};

} // namespace cuda
} // namespace qlora
