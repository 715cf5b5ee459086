// The calls of the library that a block is made of, with everything that does not change from call to call filled in.
#pragma once

#include "block.h"

namespace finetune {

// Columns first .. first + count of a matrix.
qlora_tensor columns(const qlora_tensor &matrix, uint64_t first, uint64_t count);

// q, k and v by themselves, and, where one linear layer makes them, all three.
struct Heads {
    qlora_tensor all, q, k, v;
};
Heads heads_of(const ModelShape &shape, const qlora_tensor &all);
Heads heads_of(const Pass &pass, qlora_span q, qlora_span k, qlora_span v);

// up is absent without a gate; `all` only where one linear layer makes both.
struct Gates {
    qlora_tensor all, gate, up;
};
Gates gates_of(const Pass &pass, const BlockSpace &space);

// q or k as their norm sees them: a row of one head, or of all.
qlora_tensor normed_heads(const Pass &pass, const qlora_tensor &x);

void linear(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y,
            const BlockSpace &space, uint32_t flags = 0);
// dx absent: only da and db.
void linear_grad(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &dy,
                 const qlora_tensor &dx, qlora_span xa, uint32_t flags);

// y (ACCUMULATE: +)= x m^T, and y = x m, with a matrix of floats. compute 0: as the pass.
void multiply(Pass &pass, const qlora_tensor &x, const qlora_tensor &m, const qlora_tensor &y, uint32_t flags,
              int32_t compute = 0);
void multiply_transposed(Pass &pass, const qlora_tensor &x, const qlora_tensor &m, const qlora_tensor &y);

// The adapter's part of a linear layer, and what its gradients are, where the pass has dropout. xa: of `linear`.
void add_dropped_adapter(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y,
                         qlora_span xa);
void dropped_adapter_grad(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &dy,
                          const qlora_tensor &dx, qlora_span xa, uint32_t flags);

// In place, of q or k; nothing where this layer's positions are not rotary.
void rope(Pass &pass, uint32_t layer, const qlora_tensor &x, uint32_t flags);

template <class Args> Args activation_args(const Pass &pass, const Gates &gates) {
    auto args = qlora::make<Args>();
    args.flags = gates.up.type == 0 ? QLORA_FLAG_UNGATED : 0;
    args.activation = pass.model.shape().activation;
    args.gate = gates.gate;
    args.up = gates.up;
    return args;
}

template <class Args>
Args attention_args(const Pass &pass, uint32_t layer, const BlockSpace &space, const Heads &heads) {
    const ModelShape &shape = pass.model.shape();
    auto args = qlora::make<Args>();
    args.q = heads.q;
    args.k = heads.k;
    args.v = heads.v;
    args.y = pass.view(space.attended, shape.q_width());
    args.lse = space.lse;
    args.sequences = pass.sequences;
    args.sequence_count = pass.sequence_count;
    args.heads = shape.heads;
    args.kv_heads = shape.kv_heads;
    args.head_dim = shape.head_dim;
    args.max_q_rows = pass.most_q_rows;
    args.max_k_rows = pass.most_k_rows;
    args.scale = shape.attention_scale;
    args.slopes = pass.model.slopes();
    args.soft_cap = shape.attention_cap;
    args.window = shape.layer[layer].window;
    return args;
}

inline bool norms_before(const ModelShape &shape) {
    return shape.place == NormPlace::before || shape.place == NormPlace::both;
}
inline bool norms_after(const ModelShape &shape) { return shape.place != NormPlace::before; }

} // namespace finetune
