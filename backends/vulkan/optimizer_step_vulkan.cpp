// A step over a list of tensors: what is decided for each tensor, then the pieces of each page, with resident state as the
// first of them. Pieces whose operands lie in the same buffers share a dispatch. While a page is stepped the next one arrives
// and the last one is written back, as far as one queue lets copies and shaders overlap.
#include "backends/vulkan/device_vulkan.h"
#include "backends/pages.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint32_t piece_words = 16, tensor_words = 8, operand_count = 8; // values, gradients, three states, three absmax
constexpr uint32_t list_rows = 64;                                        // of a table, on their way to the device

// As the push constants of optimizer.glsl.
struct StepPush {
    PushHeader header;
    uint32_t first_piece, piece_count, algorithm, states, theirs, skip_zeros, zero_gradients, stochastic, first_momentum, seed_low, seed_high;
    float beta1, rest1, beta2, rest2, beta3, rest3, correction1, correction2, alpha, epsilon;
};

struct TensorsPush {
    PushHeader header;
    uint32_t first_tensor, algorithm, states, percentile, slot, first_step, skip_step, skip_tensors, reports_skipped, reports_factors;
    float gradient_scale, max_norm, max_unorm, epsilon;
};

uint32_t bits_of(double value) {
    const float rounded = float(value);
    uint32_t bits;
    std::memcpy(&bits, &rounded, 4);
    return bits;
}

// Scratch: a row for each tensor, a row for each piece of a page, two sums for each granule.
struct Places {
    uint64_t tensors, pieces, sums;
    uint64_t total() const { return tensors + pieces + sums; }
};
Places places_of(const qlora_optimizer_args &args) {
    uint64_t granules = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) granules += groups_of(args.parameters[i].count, state_granule);
    return {align_scratch(args.parameter_count * uint64_t(tensor_words) * 4), align_scratch(args.parameter_count * uint64_t(piece_words) * 4), align_scratch(granules * 8)};
}

// Rows of a table, sent as they fill up.
class Rows {
public:
    Rows(Context &context, uint64_t stream, const qlora_span &place, uint32_t words) : context_(context), stream_(stream), place_(place), words_(words) {}
    int32_t add(const uint32_t *row) {
        std::memcpy(held_ + count_ * words_, row, words_ * 4);
        return ++count_ == list_rows ? send() : QLORA_OK;
    }
    int32_t send() {
        const uint64_t bytes = uint64_t(count_) * words_ * 4;
        if (bytes == 0) return QLORA_OK;
        const int32_t status = enqueue_update(context_, stream_, part(place_, sent_, bytes), held_, bytes);
        sent_ += bytes;
        count_ = 0;
        return status;
    }

private:
    Context &context_;
    uint64_t stream_;
    qlora_span place_;
    uint32_t words_, count_ = 0, held_[list_rows * piece_words];
    uint64_t sent_ = 0;
};

// The buffers that pieces of one dispatch share, each from a multiple of 256 bytes on.
struct Group {
    qlora_span operands[operand_count];
    bool small;
    uint32_t first, count;
    uint64_t workgroups;
};

void operands_of(const Piece &piece, qlora_span (&operands)[operand_count]) {
    qlora_parameter parameter = piece.parameter;
    operands[0] = part(parameter.value, 0, parameter.count * type_bytes(parameter.value_type));
    operands[1] = part(parameter.gradient, 0, parameter.count * type_bytes(parameter.gradient_type));
    for (int i = 0; i < QLORA_STATE_COUNT; i++) operands[2 + i] = state_span(parameter, i);
}

class Step {
public:
    Step(Context &context, const qlora_optimizer_args &args) : context_(context), args_(args), states_(state_count(args.algorithm)) {
        const Places places = places_of(args);
        tensors_ = part(args.scratch, 0, places.tensors);
        pieces_ = part(args.scratch, places.tensors, places.pieces);
        sums_ = part(args.scratch, places.tensors + places.pieces, places.sums);
    }

    int32_t run() {
        QLORA_TRY(describe_tensors());
        QLORA_TRY(decide(0));
        if (needs_factor(args_)) {
            QLORA_TRY(walk(Shader::optimizer_squares, false));
            QLORA_TRY(decide(1));
        }
        return walk(Shader::optimizer_step, true);
    }

private:
    int32_t describe_tensors() {
        Rows rows(context_, args_.stream, tensors_, tensor_words);
        uint64_t granule = 0;
        for (uint32_t i = 0; i < args_.parameter_count; i++) {
            const qlora_parameter &parameter = args_.parameters[i];
            QLORA_TRY(check_elements(context_, "qlora_optimizer_step", parameter.count));
            const uint64_t granules = groups_of(parameter.count, state_granule);
            const double rate = double(args_.learning_rate) * double(parameter.learning_rate_scale), decay = parameter.flags & QLORA_PARAMETER_NO_DECAY ? 0 : args_.weight_decay;
            const uint32_t row[tensor_words] = {0, 0, 0, bits_of(rate), bits_of(decay), uint32_t(granule), uint32_t(granules), bits_of(double(parameter.count))};
            QLORA_TRY(rows.add(row));
            granule += granules;
        }
        QLORA_TRY(check_elements(context_, "qlora_optimizer_step", granule));
        return rows.send();
    }

    // Histories lie in buffers of their own: where they are needed each tensor has a dispatch.
    int32_t decide(uint32_t stage) {
        const uint64_t list_bytes = args_.parameter_count * uint64_t(4);
        const bool apart = stage == 0 && args_.percentile;
        Order order = Order::AFTER_PREVIOUS;
        for (uint32_t i = 0; i < (apart ? args_.parameter_count : 1); i++) {
            const TensorsPush push = {{},
                                      i,
                                      uint32_t(args_.algorithm),
                                      states_,
                                      args_.percentile,
                                      uint32_t(args_.step % percentile_slots),
                                      args_.step == 1,
                                      flag(QLORA_FLAG_SKIP_STEP),
                                      flag(QLORA_FLAG_SKIP_TENSORS),
                                      args_.skipped.handle != 0,
                                      args_.factors.handle != 0,
                                      args_.gradient_scale,
                                      args_.norm.handle ? args_.max_norm : 0,
                                      args_.max_unorm,
                                      args_.epsilon};
            QLORA_TRY(enqueue(context_, args_.stream, Shader::optimizer_tensors, {stage},
                              {tensors_, part(args_.norm, 0, 4), part(args_.norms, 0, list_bytes), apart ? part(args_.parameters[i].history, 0, percentile_slots * 4) : qlora_span{},
                               part(args_.skipped, 0, list_bytes), part(args_.factors, 0, list_bytes), sums_},
                              push, apart ? 1 : args_.parameter_count, order));
            order = Order::WITH_PREVIOUS;
        }
        return QLORA_OK;
    }

    // One pass over all pages. Copies and dispatches between two barriers are independent of each other: with three slots the page
    // that arrives, the one that is stepped and the one that leaves are different ones.
    int32_t walk(Shader shader, bool write_back) {
        Pages arriving(context_, args_), pages(context_, args_), leaving(context_, args_);
        for (Pages *each : {&arriving, &pages, &leaving}) QLORA_TRY(each->status());
        Page page, other;
        bool left_behind = false; // a page was stepped and not written back
        QLORA_TRY(copy_next(arriving, other, true));
        while (pages.next(page)) {
            QLORA_TRY(describe_pieces(page));
            QLORA_TRY(ordered());
            if (page.copy_count && left_behind && write_back) {
                QLORA_TRY(copy_next(leaving, other, false));
                if (slot_count(args_) < 3) QLORA_TRY(ordered());
            }
            if (page.copy_count) QLORA_TRY(copy_next(arriving, other, true));
            QLORA_TRY(dispatch(page, shader));
            left_behind = page.copy_count != 0;
        }
        QLORA_TRY(ordered());
        if (left_behind && write_back) QLORA_TRY(copy_next(leaving, other, false));
        return args_.stream ? ordered() : QLORA_OK; // a caller's command buffer goes on with anything
    }

    // Copies the next page that has copies, if there is one.
    int32_t copy_next(Pages &pages, Page &page, bool arrives) {
        do {
            if (!pages.next(page)) return QLORA_OK;
        } while (page.copy_count == 0);
        State &state = state_of(context_);
        VkCommandBuffer commands;
        QLORA_TRY(begin(context_, args_.stream, 0, &commands));
        for (uint32_t i = 0; i < page.copy_count; i++) {
            const qlora_span arena = page.copies[i].arena, slot = slot_span(args_, page, page.copies[i]);
            const qlora_span &src = arrives ? arena : slot, &dst = arrives ? slot : arena;
            const VkBufferCopy copy = {src.offset, dst.offset, arena.size};
            state.vk.CmdCopyBuffer(commands, buffer_of(src.handle), buffer_of(dst.handle), 1, &copy);
        }
        return QLORA_OK;
    }

    int32_t ordered() {
        VkCommandBuffer commands;
        QLORA_TRY(begin(context_, args_.stream, 0, &commands));
        barrier(state_of(context_), commands);
        return QLORA_OK;
    }

    // The groups of a page, one after another: calls f(group, first piece, end).
    template <class Function> int32_t each_group(const Page &page, Function &&f) {
        const uint64_t reach = state_of(context_).properties.limits.maxStorageBufferRange;
        for (uint32_t i = 0; i < page.piece_count;) {
            Group group = {};
            group.first = i;
            group.small = page.pieces[i].parameter.state_type == QLORA_FORMAT_DYN8;
            for (; i < page.piece_count && joins(group, page.pieces[i], reach); i++) {
                group.count++;
                group.workgroups += groups_of(page.pieces[i].parameter.count, state_granule);
            }
            if (group.count == 0)
                return context_.fail(QLORA_ERROR_UNSUPPORTED, "qlora_optimizer_step: parameters[%u]: this device reaches %llu bytes in one binding; split the tensor", page.pieces[i].index,
                                     (unsigned long long)reach);
            QLORA_TRY(f(group));
        }
        return QLORA_OK;
    }
    static bool joins(Group &group, const Piece &piece, uint64_t reach) {
        qlora_span operands[operand_count], joined[operand_count];
        if (group.small != (piece.parameter.state_type == QLORA_FORMAT_DYN8)) return false;
        operands_of(piece, operands);
        for (uint32_t i = 0; i < operand_count; i++) {
            const qlora_span &have = group.operands[i], &add = operands[i];
            if (add.handle && add.size) {
                if (have.handle && have.handle != add.handle) return false;
                const uint64_t begin = add.offset / scratch_alignment * scratch_alignment, end = add.offset + add.size;
                const uint64_t first = have.handle && have.offset < begin ? have.offset : begin, last = have.handle && have.offset + have.size > end ? have.offset + have.size : end;
                if (last - first > reach - scratch_alignment) return false;
                joined[i] = {add.handle, first, last - first};
            } else {
                joined[i] = have;
            }
        }
        std::memcpy(group.operands, joined, sizeof joined);
        return true;
    }

    int32_t describe_pieces(const Page &page) {
        Rows rows(context_, args_.stream, pieces_, piece_words);
        QLORA_TRY(each_group(page, [&](const Group &group) -> int32_t {
            uint64_t workgroups = 0;
            for (uint32_t i = group.first; i < group.first + group.count; i++) {
                const Piece &piece = page.pieces[i];
                qlora_span operands[operand_count];
                operands_of(piece, operands);
                uint32_t places[operand_count] = {};
                for (uint32_t k = 0; k < operand_count; k++)
                    if (operands[k].handle && operands[k].size) places[k] = uint32_t((operands[k].offset - group.operands[k].offset) / 4);
                const uint32_t row[piece_words] = {uint32_t(workgroups), uint32_t(piece.parameter.count), places[0], places[1], places[2], places[3], places[4], places[5], places[6],
                                                   places[7], piece.index, uint32_t(piece.first), uint32_t(piece.first >> 32), uint32_t(piece.parameter.value_type),
                                                   uint32_t(piece.parameter.gradient_type), uint32_t(first_granule(piece))};
                QLORA_TRY(rows.add(row));
                workgroups += groups_of(piece.parameter.count, state_granule);
            }
            return QLORA_OK;
        }));
        return rows.send();
    }
    uint64_t first_granule(const Piece &piece) {
        while (counted_ > piece.index) granules_ -= groups_of(args_.parameters[--counted_].count, state_granule);
        while (counted_ < piece.index) granules_ += groups_of(args_.parameters[counted_++].count, state_granule);
        return granules_ + piece.first / state_granule;
    }

    int32_t dispatch(const Page &page, Shader shader) {
        const Coefficients c = coefficients_of(args_);
        return each_group(page, [&](const Group &group) -> int32_t {
            const bool theirs = args_.flags & QLORA_FLAG_BITSANDBYTES;
            const StepPush push = {{},
                                   group.first,
                                   group.count,
                                   uint32_t(args_.algorithm),
                                   states_,
                                   theirs,
                                   flag(QLORA_FLAG_SKIP_ZEROS),
                                   flag(QLORA_FLAG_ZERO_GRADIENTS),
                                   flag(QLORA_FLAG_STOCHASTIC),
                                   theirs && args_.step == 1,
                                   uint32_t(args_.seed) ^ uint32_t(args_.step),
                                   uint32_t(args_.seed >> 32),
                                   c.beta1,
                                   c.rest1,
                                   c.beta2,
                                   c.rest2,
                                   c.beta3,
                                   c.rest3,
                                   c.correction1,
                                   c.correction2,
                                   c.alpha,
                                   c.epsilon};
            const qlora_span *o = group.operands;
            return enqueue(context_, args_.stream, shader, {group.small}, {o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7], pieces_, tensors_, sums_}, push, group.workgroups,
                           Order::WITH_PREVIOUS);
        });
    }

    uint32_t flag(uint32_t bit) const { return (args_.flags & bit) != 0; }

    Context &context_;
    const qlora_optimizer_args &args_;
    uint32_t states_;
    qlora_span tensors_, pieces_, sums_;
    uint32_t counted_ = 0; // granules_ is the number of granules of tensors before this one
    uint64_t granules_ = 0;
};

} // namespace

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &args) { return places_of(args).total(); }

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    return args.parameter_count ? Step(context, args).run() : QLORA_OK;
}

} // namespace vulkan
} // namespace qlora
