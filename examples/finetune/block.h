// One transformer block, forward and backward, as calls of the library, written once over what architectures differ in.
// Shapes: tokens x width; rows of several sequences lie one after the other without padding, and a table says where each
// begins.
#pragma once

#include "trainable.h"

namespace finetune {

// Activations are of one type; products are formed in the compute type.
struct Precision {
    int32_t activations = QLORA_FORMAT_F32, compute = QLORA_FORMAT_F32;
};

// Of the adapters' inputs. The masks of a pass follow from its seed, so that what is computed again has the same.
struct Dropout {
    float probability = 0; // 0: none, and no room
    uint64_t seed = 0;
    qlora_span input;                // of the linear layer at hand: tokens x the widest input
    qlora_span first, second, third; // tokens x rank
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
    uint32_t reach = 0; // tokens that the longest sequence will have in the end; 0: most_k_rows
    const int32_t *host_ids = nullptr; // where the embedding is on the host
    Dropout dropout = {};

    uint32_t longest() const { return reach != 0 ? reach : most_k_rows; }
    qlora_tensor view(qlora_span span, uint64_t cols) const {
        return qlora::tensor(precision.activations, tokens, cols, span);
    }
};

// What a block keeps between its forward and its backward pass; what the architecture does not have is absent. Where one
// linear layer makes q, k and v they are columns of `q`, and gate and up likewise of `gate`; without a gate the
// activation's argument is `gate`.
struct BlockSpace {
    qlora_span normed, q, k, v, attended, lse, middle, normed2, gate, up, product;
    qlora_span plain_q, plain_k; // before their norms
    qlora_span output, down;     // of the two parts, before the norms after them
    qlora_span rstd, rstd2, rstd_q, rstd_k, rstd_output, rstd_down;
    qlora_span xa[linear_count];
    qlora_span scaled_xa; // of the linear layer at hand, where the base's products are in integers
};

// Temporary gradients of a backward pass; q as in BlockSpace.
struct GradientSpace {
    qlora_span hidden, q, k, v, attended, product;
};

BlockSpace take_block_space(Arena &arena, const ModelShape &shape, uint32_t rank, int32_t type, uint64_t tokens);
GradientSpace take_gradient_space(Arena &arena, const ModelShape &shape, int32_t type, uint64_t tokens);

// Where a block's keys and values go and come from when earlier ones are kept; absent: from this pass alone. Where one
// linear layer makes q, k and v, all three are kept, as keys.
struct KeyValueCache {
    qlora_tensor new_k, new_v, all_k, all_v;
    qlora_span rows; // int32: 0, 1, 2, ... for each row of new_k
};

// Widths of a token in the two; no values where they are kept with the keys.
uint64_t key_width(const ModelShape &shape);
uint64_t value_width(const ModelShape &shape);

// x -> y. Without y (span absent) only what backward needs is computed.
void forward_block(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x, qlora_span y,
                   const KeyValueCache *cache = nullptr);
// The same without y, and `space` as the backward pass then takes it.
void forward_block_again(Pass &pass, uint32_t layer, BlockSpace &space, qlora_span x);

// Its parts, in order, with what each leaves in `space`. All read the block's input x.
// normed = norm(x), or x itself where no norm comes before: the input of q, k and v
qlora_tensor attention_input(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x);
// attended = attend(rope(q), rope(k), v) of it
void forward_attention(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x,
                       const KeyValueCache *cache = nullptr);
// middle = x + output(attended), or x + norm(output(attended))
void forward_output(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x);
// normed2 = norm(middle), or of x in parallel, or as above: the input of gate and up
qlora_tensor feed_forward_input(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x);
// product = activation(gate) * up of it
void forward_gated(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x);
// y = middle + down(product), or middle + norm(down(product))
void forward_down(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span y);

// dx holds the gradient of the block's output and receives that of its input x. Parameter gradients are overwritten,
// or added to when `accumulate`. Overwrites gate and up in `space`; an absent xa there is computed again. The first
// block's input needs no gradient: nothing below it is trained.
void backward_block(Pass &pass, uint32_t layer, const BlockSpace &space, const GradientSpace &gradients, qlora_span x,
                    qlora_span dx, bool accumulate);

// Hidden states of token ids at pass.positions; of the pass's host_ids where the embedding is on the host.
// place_rows is the host's part of it, after which the pass has no host_ids; what is left can be recorded.
void place_rows(Pass &pass, qlora_span y);
void embed(Pass &pass, qlora_span ids, qlora_span y);

// Rows of hidden states by number, in the type of `to`: a matrix of floats is a weight too, whose rows embedding_gather delivers.
void gather_rows(Pass &pass, qlora_span from, uint64_t from_rows, qlora_span rows, qlora_span to, uint64_t to_rows);
void gather_rows(Pass &pass, qlora_span from, uint64_t from_rows, qlora_span rows, const qlora_tensor &to);

// y = norm(x), ACCUMULATE: y += norm(x), with `rstd` kept; and dx (ACCUMULATE: dx += ...) of dy.
void forward_norm(Pass &pass, const qlora_tensor &x, const Norm &norm, const qlora_tensor &y, qlora_span rstd,
                  uint32_t flags = 0);
void backward_norm(Pass &pass, const qlora_tensor &x, const Norm &norm, const qlora_tensor &dy, const qlora_tensor &dx,
                   qlora_span rstd, uint32_t flags = 0);

// f32 memory for the logits of `count` tokens and what they are made of, whatever the hidden states are.
struct LogitsSpace {
    qlora_span picked, normed, rstd, logits;
};
LogitsSpace take_logits_space(Arena &arena, const ModelShape &shape, uint64_t count);
// Logits before the soft cap, of the rows of the last layer's hidden states whose numbers lie at `rows`.
void forward_logits(Pass &pass, qlora_span hidden, uint64_t hidden_rows, qlora_span rows, uint64_t count, const LogitsSpace &space);

// logits = head(normed) before the soft cap of the model; and that cap.
void forward_head(Pass &pass, const qlora_tensor &normed, const qlora_tensor &logits);
void cap_logits(const ModelShape &shape, std::vector<float> &logits);

} // namespace finetune
