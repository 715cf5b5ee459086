// The front door's questions about optimizers that no backend is asked: sizes of state, its split between device and host,
// learning rates. Included by qlora.cpp alone.
#pragma once
#include "backends/check.h"

namespace qlora {
namespace {

int32_t state_layout_of(const qlora_parameter &parameter, qlora_state_layout_info &layout) {
    const uint32_t min_size = layout.min_8bit_size ? layout.min_8bit_size : 4096;
    if (state_count(layout.algorithm) == 0) return QLORA_ERROR_ARGUMENT;
    if (parameter.state_type != 0 && parameter.state_type != QLORA_FORMAT_F32 && parameter.state_type != QLORA_FORMAT_DYN8) return QLORA_ERROR_FORMAT;
    if (parameter.count >= UINT64_MAX / 32) return QLORA_ERROR_SHAPE;
    layout.state_type = parameter.state_type == QLORA_FORMAT_DYN8 && parameter.count >= min_size ? QLORA_FORMAT_DYN8 : QLORA_FORMAT_F32;
    layout.total_bytes = 0;
    for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) {
        layout.piece_bytes[piece] = state_piece_bytes(layout.algorithm, layout.state_type, parameter.count, piece);
        layout.piece_offset[piece] = layout.piece_bytes[piece] ? layout.total_bytes : 0;
        layout.total_bytes += align_scratch(layout.piece_bytes[piece]);
    }
    return QLORA_OK;
}

void place_state(qlora_parameter &parameter, const qlora_state_layout_info &layout, const qlora_span &memory) {
    parameter.state_type = layout.state_type;
    for (int piece = 0; piece < QLORA_STATE_COUNT; piece++)
        state_span(parameter, piece) = layout.piece_bytes[piece] ? qlora_span{memory.handle, memory.offset + layout.piece_offset[piece], layout.piece_bytes[piece]} : qlora_span{};
}

int32_t schedule_rate_of(const qlora_schedule &schedule, uint64_t step, double &rate) {
    const double peak = schedule.learning_rate, least = schedule.min_ratio;
    const uint32_t cycles = schedule.cycles ? schedule.cycles : 1;
    const bool constant = schedule.kind == QLORA_SCHEDULE_CONSTANT, cosine = schedule.kind == QLORA_SCHEDULE_COSINE;
    if (step == 0 || schedule.flags || !(peak >= 0 && peak - peak == 0 && least >= 0 && least <= 1)) return QLORA_ERROR_ARGUMENT;
    if (!constant && !cosine && schedule.kind != QLORA_SCHEDULE_LINEAR) return QLORA_ERROR_ARGUMENT;
    if ((!constant && schedule.steps == 0) || (cycles > 1 && !cosine)) return QLORA_ERROR_ARGUMENT;
    rate = peak;
    if (step <= schedule.warmup) rate = peak * double(step) / double(schedule.warmup);
    else if (!constant) {
        const uint64_t rest = schedule.steps > schedule.warmup ? schedule.steps - schedule.warmup : 0, gone = step - 1 - schedule.warmup;
        const double done = gone < rest ? double(gone) / double(rest) : 1;
        const double along = done < 1 ? done * cycles - std::floor(done * cycles) : 1; // of this cycle
        const double height = cosine ? 0.5 * (1 + std::cos(3.14159265358979323846 * along)) : 1 - along;
        rate = peak * (least + (1 - least) * height);
    }
    return QLORA_OK;
}

// ---- the pager --------------------------------------------------------------------------------------------------

// What a list needs: of tensor i of the caller's, its layout.
int32_t pager_layout(Call &call, const qlora_pager &pager, uint32_t i, qlora_state_layout_info &layout) {
    layout = {};
    layout.algorithm = pager.algorithm;
    layout.min_8bit_size = pager.min_8bit_size;
    const int32_t status = state_layout_of(pager.parameters[i], layout);
    if (status == QLORA_ERROR_FORMAT) return call.context.fail(status, "%s: parameters[%u]: state_type must be F32 or DYN8", call.entry, i);
    if (status) return call.context.fail(status, "%s: parameters[%u]: count overflows", call.entry, i);
    return QLORA_OK;
}

int32_t pager_check(Call &call, const qlora_pager *caller, qlora_pager &pager) {
    if (!adopt(caller, &pager)) return call.error(QLORA_ERROR_ARGUMENT, "pager", "null, struct_size below 8, or fields set that this version does not know");
    QLORA_TRY(call.flags(pager.flags, 0));
    if (state_count(pager.algorithm) == 0) return call.error(QLORA_ERROR_ARGUMENT, "algorithm", "must be one of QLORA_OPTIMIZER_*");
    if (pager.parameter_count && !pager.parameters) return call.error(QLORA_ERROR_ARGUMENT, "parameters", "null");
    for (uint32_t i = 0; i < pager.parameter_count; i++)
        if (pager.parameters[i].struct_size != sizeof(qlora_parameter))
            return call.context.fail(QLORA_ERROR_ARGUMENT, "%s: parameters[%u]: struct_size must be that of this version, since its spans are written", call.entry, i);
    if (pager.page_bytes % scratch_alignment) return call.error(QLORA_ERROR_ARGUMENT, "page_bytes", "must be a multiple of 256, or 0");
    return QLORA_OK;
}

int32_t plan_pages(Call &call, qlora_pager &pager) {
    constexpr uint64_t largest_page = uint64_t(8) << 20; // enough for a bus to be fast; the first arrives and the last leaves beside nothing
    uint64_t least = 0;
    qlora_state_layout_info layout;
    pager.state_bytes = 0;
    for (uint32_t i = 0; i < pager.parameter_count; i++) {
        QLORA_TRY(pager_layout(call, pager, i, layout));
        pager.state_bytes += layout.total_bytes;
        least = std::max(least, least_page_bytes(pager.algorithm, layout.state_type, pager.parameters[i].count));
    }
    pager.resident_count = pager.parameter_count;
    pager.resident_bytes = pager.state_bytes;
    pager.window_bytes = pager.arena_bytes = 0;
    if (pager.budget_bytes == 0 || pager.state_bytes <= pager.budget_bytes) return QLORA_OK;
    if (pager.page_bytes == 0) pager.page_bytes = std::max(least, std::min(largest_page, pager.budget_bytes / 6 / scratch_alignment * scratch_alignment));
    if (pager.page_bytes < least || 3 * pager.page_bytes > pager.budget_bytes)
        return call.context.fail(QLORA_ERROR_SCRATCH, "%s: budget_bytes %llu: three pages of at least %llu bytes do not fit; give at least %llu", call.entry, (unsigned long long)pager.budget_bytes,
                                 (unsigned long long)std::max(least, pager.page_bytes), (unsigned long long)(3 * std::max(least, pager.page_bytes)));
    pager.window_bytes = 3 * pager.page_bytes;
    pager.resident_count = 0;
    pager.resident_bytes = 0;
    for (; pager.resident_count < pager.parameter_count; pager.resident_count++) {
        QLORA_TRY(pager_layout(call, pager, pager.resident_count, layout));
        if (pager.resident_bytes + layout.total_bytes > pager.budget_bytes - pager.window_bytes) break;
        pager.resident_bytes += layout.total_bytes;
    }
    pager.arena_bytes = pager.state_bytes - pager.resident_bytes;
    return QLORA_OK;
}

int32_t place_pages(Call &call, qlora_pager &pager) {
    QLORA_TRY(plan_pages(call, pager));
    QLORA_TRY(call.span(pager.resident, "resident", pager.resident_bytes, 16));
    QLORA_TRY(call.span(pager.window, "window", pager.window_bytes, 16));
    QLORA_TRY(call.span(pager.arena, "arena", pager.arena_bytes, 16));
    uint64_t places[2] = {0, 0};
    for (uint32_t i = 0; i < pager.parameter_count; i++) {
        const bool paged = i >= pager.resident_count;
        qlora_state_layout_info layout;
        QLORA_TRY(pager_layout(call, pager, i, layout));
        const qlora_span &memory = paged ? pager.arena : pager.resident;
        place_state(pager.parameters[i], layout, {memory.handle, memory.offset + places[paged], layout.total_bytes});
        places[paged] += layout.total_bytes;
        pager.parameters[i].flags = (pager.parameters[i].flags & ~QLORA_PARAMETER_PAGED) | (paged ? QLORA_PARAMETER_PAGED : 0);
    }
    return QLORA_OK;
}

} // namespace
} // namespace qlora
