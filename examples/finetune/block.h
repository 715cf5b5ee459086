// One transformer block of a llama model, forward and backward, as calls of the library. Shapes: tokens x width; rows
// of several sequences lie one after the other without padding, and a table says where each begins.
#pragma once

#include "trainable.h"

namespace finetune {

// Activations are of one type; products are formed in the compute type.
struct Precision {
    int32_t activations = QLORA_FORMAT_F32, compute = QLORA_FORMAT_F32;
};

// What every block of one pass shares.
struct Pass {
    Device &device;
    const Model &model;
    const Trainable &adapter;
    Precision precision;
    uint64_t tokens;
    qlora_span positions; // int32[tokens]
    qlora_span sequences; // int32[sequence_count][4]
    uint32_t sequence_count, most_q_rows, most_k_rows;
    const int32_t *host_ids = nullptr; // where the embedding is on the host

    qlora_tensor view(qlora_span span, uint64_t cols) const {
        return qlora::tensor(precision.activations, tokens, cols, span);
    }
};

// What a block keeps between its forward and its backward pass.
struct BlockSpace {
    qlora_span normed, q, k, v, attended, lse, middle, normed2, gate, up, product;
    qlora_span rstd, rstd2;
    qlora_span xa[linear_count];
    qlora_span scaled_xa; // of the linear layer at hand, where the base's products are in integers
};

// Temporary gradients of a backward pass.
struct GradientSpace {
    qlora_span hidden, q, k, v, attended, product;
};

BlockSpace take_block_space(Arena &arena, const ModelShape &shape, uint32_t rank, int32_t type, uint64_t tokens);
GradientSpace take_gradient_space(Arena &arena, const ModelShape &shape, int32_t type, uint64_t tokens);

// Where a block's keys and values go and come from when earlier ones are kept; absent: from this pass alone.
struct KeyValueCache {
    qlora_tensor new_k, new_v, all_k, all_v;
};

// x -> y. Without y (span absent) only what backward needs is computed: the last product of a block is spared.
void forward_block(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x, qlora_span y,
                   const KeyValueCache *cache = nullptr);

// Its four parts, in order, with what each leaves in `space`:
// attended = attend(rope(q), rope(k), v) of normed = norm(x)
void forward_attention(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x,
                       const KeyValueCache *cache = nullptr);
// middle = x + output(attended)
void forward_output(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x);
// product = silu(gate) * up of normed2 = norm(middle)
void forward_gated(Pass &pass, uint32_t layer, const BlockSpace &space);
// y = middle + down(product)
void forward_down(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span y);

// dx holds the gradient of the block's output and receives that of its input x. Parameter gradients are overwritten,
// or added to when `accumulate`. Overwrites gate and up in `space`; an absent xa there is computed again. The first
// block's input needs no gradient: nothing below it is trained.
void backward_block(Pass &pass, uint32_t layer, const BlockSpace &space, const GradientSpace &gradients, qlora_span x,
                    qlora_span dx, bool accumulate);

// Hidden states of token ids; of the pass's host_ids where the embedding is on the host.
void embed(Pass &pass, qlora_span ids, qlora_span y);

// Rows of hidden states by number: a matrix of floats is a weight too, whose rows embedding_gather delivers.
void gather_rows(Pass &pass, qlora_span from, uint64_t from_rows, qlora_span rows, qlora_span to, uint64_t to_rows);

// y = RMSNorm(x) with `rstd` kept.
void forward_norm(Pass &pass, const qlora_tensor &x, const Memory &weight, const qlora_tensor &y,
                  qlora_span rstd);

} // namespace finetune
