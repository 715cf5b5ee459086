// Checks of the training operations: embedding, norms, rotary positions, activations, attention, the head with its loss.
// Part of check.h.
#pragma once
#include "backends/check.h"

namespace qlora {
namespace {

int32_t check(Call &call, qlora_embedding_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE));
    if (args.scale == 0) args.scale = 1;
    if (!(args.scale - args.scale == 0)) return call.error(QLORA_ERROR_VALUE, "scale", "must be finite");
    QLORA_TRY(call.weight(args.weight));
    QLORA_TRY(call.tensor(args.y, "y", args.y.rows, args.weight->cols, 0));
    QLORA_TRY(call.span(args.ids, "ids", args.y.rows * 4, 4));
    call.nothing_to_do = args.y.rows == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_rms_norm_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE | QLORA_FLAG_CENTERED));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.x.cols, 0));
    QLORA_TRY(call.tensor(args.y, "y", args.x.rows, args.x.cols, args.x.type));
    QLORA_TRY(call.tensor(args.weight, "weight", 1, args.x.cols, 0));
    QLORA_TRY(call.tensor(args.bias, "bias", 1, args.x.cols, 0, true));
    QLORA_TRY(call.span(args.rstd, "rstd", args.x.rows * 4, 4, true));
    if (!(args.epsilon >= 0)) return call.error(QLORA_ERROR_ARGUMENT, "epsilon", "must be at least 0");
    call.nothing_to_do = args.x.rows == 0 || args.x.cols == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_rms_norm_grad_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE | QLORA_FLAG_ACCUMULATE_GRADIENTS | QLORA_FLAG_CENTERED));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.x.cols, 0));
    QLORA_TRY(call.tensor(args.dy, "dy", args.x.rows, args.x.cols, args.x.type));
    QLORA_TRY(call.tensor(args.dx, "dx", args.x.rows, args.x.cols, args.x.type));
    QLORA_TRY(call.tensor(args.weight, "weight", 1, args.x.cols, 0));
    QLORA_TRY(call.span(args.rstd, "rstd", args.x.rows * 4, 4));
    QLORA_TRY(call.span(args.dweight, "dweight", args.x.cols * 4, 4, true));
    QLORA_TRY(call.span(args.dbias, "dbias", args.x.cols * 4, 4, true));
    call.nothing_to_do = args.x.cols == 0 || (args.x.rows == 0 && (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS));
    return QLORA_OK;
}

int32_t check(Call &call, qlora_rope_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_INVERSE));
    if (args.head_dim == 0 || args.x.cols % args.head_dim) return call.error(QLORA_ERROR_SHAPE, "head_dim", "must divide x.cols");
    if (args.rotary_dim == 0) args.rotary_dim = args.head_dim;
    if (args.rotary_dim % 2 || args.rotary_dim > args.head_dim) return call.error(QLORA_ERROR_SHAPE, "rotary_dim", "must be even and at most head_dim");
    if (args.layout != QLORA_ROPE_ADJACENT && args.layout != QLORA_ROPE_HALF) return call.error(QLORA_ERROR_ARGUMENT, "layout", "must be QLORA_ROPE_ADJACENT or QLORA_ROPE_HALF");
    if (args.freq_base == 0) args.freq_base = 10000;
    if (args.freq_scale == 0) args.freq_scale = 1;
    if (args.magnitude == 0) args.magnitude = 1;
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.x.cols, 0));
    QLORA_TRY(call.span(args.positions, "positions", args.x.rows * 4, 4));
    QLORA_TRY(call.span(args.freq_factors, "freq_factors", args.rotary_dim / 2 * 4, 4, true));
    call.nothing_to_do = args.x.rows == 0;
    return QLORA_OK;
}

// What the gated activation and its gradient share.
template <class Args> int32_t check_activation(Call &call, Args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_UNGATED));
    if (args.activation < QLORA_ACTIVATION_SILU || args.activation > QLORA_ACTIVATION_RELU) return call.error(QLORA_ERROR_ARGUMENT, "activation", "must be one of QLORA_ACTIVATION_*");
    const bool ungated = args.flags & QLORA_FLAG_UNGATED;
    if (ungated && args.up.type != 0) return call.error(QLORA_ERROR_ARGUMENT, "up", "must be absent with UNGATED");
    QLORA_TRY(call.tensor(args.gate, "gate", args.gate.rows, args.gate.cols, 0));
    QLORA_TRY(call.tensor(args.up, "up", args.gate.rows, args.gate.cols, args.gate.type, ungated));
    call.nothing_to_do = args.gate.rows == 0 || args.gate.cols == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_swiglu_args &args) {
    QLORA_TRY(check_activation(call, args));
    return call.tensor(args.y, "y", args.gate.rows, args.gate.cols, args.gate.type);
}

int32_t check(Call &call, qlora_swiglu_grad_args &args) {
    QLORA_TRY(check_activation(call, args));
    if (args.up.type == 0 && args.dup.type != 0) return call.error(QLORA_ERROR_ARGUMENT, "dup", "must be absent with UNGATED");
    QLORA_TRY(call.tensor(args.dy, "dy", args.gate.rows, args.gate.cols, args.gate.type));
    QLORA_TRY(call.tensor(args.dgate, "dgate", args.gate.rows, args.gate.cols, args.gate.type));
    return call.tensor(args.dup, "dup", args.gate.rows, args.gate.cols, args.gate.type, args.up.type == 0);
}

int32_t check(Call &call, qlora_dropout_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE));
    if (!(args.probability >= 0 && args.probability < 1)) return call.error(QLORA_ERROR_VALUE, "probability", "must be at least 0 and below 1");
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.x.cols, 0));
    QLORA_TRY(call.tensor(args.y, "y", args.x.rows, args.x.cols, args.x.type));
    call.nothing_to_do = args.x.rows == 0 || args.x.cols == 0;
    return QLORA_OK;
}

// 0 = none, else a bound that scores approach.
int32_t check_soft_cap(Call &call, float soft_cap) {
    return soft_cap == 0 || (soft_cap > 0 && soft_cap - soft_cap == 0) ? QLORA_OK : call.error(QLORA_ERROR_VALUE, "soft_cap", "must be positive and finite, or 0 for none");
}

// What attention forward and backward share; rows and types of q, k, v, y, lse and the sequence table.
template <class Args> int32_t check_attention(Call &call, Args &args, bool lse_optional) {
    QLORA_TRY(call.flags(args.flags, 0));
    if (args.head_dim == 0 || args.head_dim > 256) return call.error(QLORA_ERROR_SHAPE, "head_dim", "must be 1..256");
    if (args.heads == 0 || args.kv_heads == 0 || args.heads % args.kv_heads)
        return call.error(QLORA_ERROR_SHAPE, "heads", "heads and kv_heads must be positive and kv_heads must divide heads");
    const uint64_t q_cols = uint64_t(args.heads) * args.head_dim, k_cols = uint64_t(args.kv_heads) * args.head_dim;
    QLORA_TRY(call.tensor(args.q, "q", args.q.rows, q_cols, 0));
    QLORA_TRY(call.tensor(args.k, "k", args.k.rows, k_cols, args.q.type));
    QLORA_TRY(call.tensor(args.v, "v", args.k.rows, k_cols, args.q.type));
    QLORA_TRY(call.tensor(args.y, "y", args.q.rows, q_cols, args.q.type));
    QLORA_TRY(call.span(args.lse, "lse", args.q.rows * args.heads * 4, 4, lse_optional));
    QLORA_TRY(call.span(args.sequences, "sequences", uint64_t(args.sequence_count) * 16, 4));
    if (args.max_q_rows == 0 || args.max_q_rows > args.q.rows) args.max_q_rows = uint32_t(args.q.rows);
    if (args.max_k_rows == 0 || args.max_k_rows > args.k.rows) args.max_k_rows = uint32_t(args.k.rows);
    if (args.scale == 0) args.scale = float(1 / std::sqrt(double(args.head_dim)));
    QLORA_TRY(call.span(args.slopes, "slopes", uint64_t(args.heads) * 4, 4, true));
    QLORA_TRY(check_soft_cap(call, args.soft_cap));
    call.nothing_to_do = args.q.rows == 0 || args.k.rows == 0 || args.sequence_count == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_attention_args &args) { return check_attention(call, args, true); }

int32_t check(Call &call, qlora_attention_grad_args &args) {
    QLORA_TRY(check_attention(call, args, false));
    QLORA_TRY(call.tensor(args.dy, "dy", args.q.rows, args.q.cols, args.q.type));
    QLORA_TRY(call.tensor(args.dq, "dq", args.q.rows, args.q.cols, args.q.type));
    QLORA_TRY(call.tensor(args.dk, "dk", args.k.rows, args.k.cols, args.q.type));
    return call.tensor(args.dv, "dv", args.k.rows, args.k.cols, args.q.type);
}

int32_t check(Call &call, qlora_cross_entropy_args &args) {
    QLORA_TRY(call.flags(args.flags, 0));
    QLORA_TRY(call.weight(args.weight));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.weight->cols, 0));
    QLORA_TRY(call.tensor(args.dx, "dx", args.x.rows, args.weight->cols, args.x.type, true));
    QLORA_TRY(call.span(args.targets, "targets", args.x.rows * 4, 4));
    QLORA_TRY(call.span(args.losses, "losses", args.x.rows * 4, 4));
    QLORA_TRY(call.span(args.bias, "bias", args.weight->rows * 4, 4, true));
    QLORA_TRY(check_soft_cap(call, args.soft_cap));
    if (args.weight->rows == 0) return call.error(QLORA_ERROR_SHAPE, "weight", "the vocabulary is empty");
    call.nothing_to_do = args.x.rows == 0;
    return call.compute(args.compute_type, args.x.type);
}

} // namespace
} // namespace qlora
