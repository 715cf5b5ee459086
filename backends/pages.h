// How a step walks over state that lies in host memory: the list of parameters as pages of pieces, and what is to be copied
// for each. The same for every backend, so that all split alike; what a copy is, is theirs.
#pragma once
#include "backends/optimizer.h"

#include <cstring>

namespace qlora {

struct PageCopy {
    qlora_span arena; // host memory, size bytes of it
    uint64_t offset;  // in the page's slot of the window
};

struct Page {
    const Piece *pieces; // their state spans lie in the slot
    const PageCopy *copies;
    uint32_t piece_count, copy_count; // no copies: resident state
    uint32_t slot;                    // which part of the window: pages take turns
    uint32_t number;                  // of this walk's pages with copies, from 0
};

constexpr uint32_t most_slots = 8;
inline uint32_t slot_count(const qlora_optimizer_args &args) {
    const uint64_t slots = args.page_bytes ? args.window.size / args.page_bytes : 0;
    return uint32_t(slots < most_slots ? slots : most_slots);
}
// Where a copy's bytes lie in the window.
inline qlora_span slot_span(const qlora_optimizer_args &args, const Page &page, const PageCopy &copy) {
    return {args.window.handle, args.window.offset + page.slot * args.page_bytes + copy.offset, copy.arena.size};
}

// All pages of a call, one after another: first, unless there is none, resident state as one page, then the arena in order.
// A page holds whole tensors as they lie in the arena, in one copy where they lie packed, or part of a tensor too large for it.
class Pages {
public:
    Pages(Context &context, const qlora_optimizer_args &args) : context_(context), args_(args) {
        memory_ = static_cast<char *>(context.allocate(bytes(), "pages"));
        pieces_ = reinterpret_cast<Piece *>(memory_);
        copies_ = reinterpret_cast<PageCopy *>(memory_ + args.parameter_count * sizeof(Piece));
    }
    ~Pages() { context_.release(memory_, bytes()); }
    Pages(const Pages &) = delete;
    int32_t status() const { return memory_ ? QLORA_OK : context_.fail(QLORA_ERROR_MEMORY, "qlora_optimizer_step: no host memory for a list of %u parameters", args_.parameter_count); }

    // False after the last.
    bool next(Page &page) {
        page = {pieces_, copies_, 0, 0, 0, 0};
        if (!resident_done_) {
            resident_done_ = true;
            for (uint32_t i = 0; i < args_.parameter_count; i++)
                if (!(args_.parameters[i].flags & QLORA_PARAMETER_PAGED) && args_.parameters[i].count) pieces_[page.piece_count++] = {args_.parameters[i], 0, i, 0};
            if (page.piece_count) return true;
        }
        page.slot = slot_count(args_) ? number_ % slot_count(args_) : 0;
        page.number = number_;
        uint64_t place = 0;
        while (index_ < args_.parameter_count) {
            const qlora_parameter &parameter = args_.parameters[index_];
            if (!(parameter.flags & QLORA_PARAMETER_PAGED) || parameter.count == 0) { index_++; continue; }
            const uint64_t whole = first_ ? UINT64_MAX : bytes_of(parameter, parameter.count);
            if (place + whole <= args_.page_bytes && whole != UINT64_MAX) {
                add(page, parameter, parameter.count, place);
                index_++;
                continue;
            }
            if (place) break;
            uint64_t count = parameter.count - first_;
            if (bytes_of(parameter, count) > args_.page_bytes) { // as many granules as fit
                count = state_granule;
                while (bytes_of(parameter, count + state_granule) <= args_.page_bytes) count += state_granule;
            }
            add(page, parameter, count, place);
            first_ += count;
            if (first_ == parameter.count) { first_ = 0; index_++; }
            break;
        }
        if (page.piece_count) number_++;
        return page.piece_count != 0;
    }

private:
    size_t bytes() const { return size_t(args_.parameter_count) * (sizeof(Piece) + QLORA_STATE_COUNT * sizeof(PageCopy)) + 1; }
    uint64_t bytes_of(const qlora_parameter &parameter, uint64_t count) const {
        uint64_t sum = 0;
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) sum += align_scratch(state_piece_bytes(args_.algorithm, parameter.state_type, count, piece));
        return sum;
    }
    // Elements first_.. of a parameter, at place of the page.
    void add(Page &page, const qlora_parameter &parameter, uint64_t count, uint64_t &place) {
        Piece &piece = pieces_[page.piece_count++];
        piece = {parameter, first_, index_, 0};
        piece.parameter.count = count;
        piece.parameter.value.offset += first_ * type_bytes(parameter.value_type);
        piece.parameter.gradient.offset += first_ * type_bytes(parameter.gradient_type);
        for (int i = 0; i < QLORA_STATE_COUNT; i++) {
            const uint64_t size = state_piece_bytes(args_.algorithm, parameter.state_type, count, i), before = state_piece_bytes(args_.algorithm, parameter.state_type, first_, i);
            if (size == 0) continue;
            qlora_span &span = state_span(piece.parameter, i);
            const qlora_span arena = {span.handle, span.offset + before, size};
            span = {args_.window.handle, args_.window.offset + page.slot * args_.page_bytes + place, size};
            PageCopy *last = page.copy_count ? copies_ + page.copy_count - 1 : nullptr;
            if (last && last->arena.handle == arena.handle && arena.offset >= last->arena.offset && arena.offset - last->arena.offset == place - last->offset) last->arena.size = place - last->offset + size;
            else copies_[page.copy_count++] = {arena, place};
            place += align_scratch(size);
        }
    }

    Context &context_;
    const qlora_optimizer_args &args_;
    char *memory_;
    Piece *pieces_;
    PageCopy *copies_;
    uint32_t index_ = 0, number_ = 0;
    uint64_t first_ = 0;
    bool resident_done_ = false;
};

// One pass over all pages of a backend whose device memory is host memory: work(page) between memcpy in and out.
template <class Work> int32_t each_page_of_host(Context &context, const qlora_optimizer_args &args, bool write_back, Work &&work) {
    Pages pages(context, args);
    QLORA_TRY(pages.status());
    Page page;
    while (pages.next(page)) {
        for (uint32_t i = 0; i < page.copy_count; i++) std::memcpy(address<char>(slot_span(args, page, page.copies[i])), address<char>(page.copies[i].arena), size_t(page.copies[i].arena.size));
        work(page);
        for (uint32_t i = 0; i < page.copy_count && write_back; i++) std::memcpy(address<char>(page.copies[i].arena), address<char>(slot_span(args, page, page.copies[i])), size_t(page.copies[i].arena.size));
    }
    return QLORA_OK;
}

} // namespace qlora
