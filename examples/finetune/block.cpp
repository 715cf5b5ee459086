#include "block_parts.h"

namespace finetune {

BlockSpace take_block_space(Arena &arena, const ModelShape &shape, uint32_t rank, int32_t type, uint64_t tokens) {
    const Traits &traits = *shape.traits;
    const auto take = [&](bool used, uint64_t bytes) { return used ? arena.take(tokens * bytes) : qlora_span{}; };
    const auto activations = [&](bool used, uint64_t width) { return take(used, width * type_bytes(type)); };
    const bool before = norms_before(shape), after = norms_after(shape),
               wide = traits.has(linear_qkv), head_norm = traits.head_norm != HeadNorm::none;
    BlockSpace space;
    space.normed = activations(before, shape.embedding);
    space.q = activations(true, wide ? shape.outputs(linear_qkv) : shape.q_width());
    space.k = activations(!wide, shape.kv_width());
    space.v = activations(!wide, shape.kv_width());
    space.plain_q = activations(head_norm, shape.q_width());
    space.plain_k = activations(head_norm, shape.kv_width());
    space.attended = activations(true, shape.q_width());
    space.lse = take(true, uint64_t(shape.heads) * 4);
    space.output = activations(after, shape.embedding);
    space.middle = activations(true, shape.embedding);
    space.normed2 = activations(before && shape.residual != Residual::shared, shape.embedding);
    space.gate = activations(true, traits.has(linear_gate_up) ? shape.outputs(linear_gate_up) : shape.feed_forward);
    space.up = activations(traits.has(linear_gate), shape.feed_forward);
    space.product = activations(true, shape.feed_forward);
    space.down = activations(after, shape.embedding);
    space.rstd = take(before, 4);
    space.rstd2 = take(before, 4);
    space.rstd_q = take(head_norm, uint64_t(shape.heads) * 4);
    space.rstd_k = take(head_norm, uint64_t(shape.kv_heads) * 4);
    space.rstd_output = take(after, 4);
    space.rstd_down = take(after, 4);
    for (int i = 0; i < linear_count; ++i) space.xa[i] = take(traits.has(Linear(i)), uint64_t(rank) * 4);
    space.scaled_xa = take(true, uint64_t(rank) * 4);
    return space;
}

GradientSpace take_gradient_space(Arena &arena, const ModelShape &shape, int32_t type, uint64_t tokens) {
    const auto activations = [&](uint64_t width) { return arena.take(tokens * width * type_bytes(type)); };
    const bool wide = shape.traits->has(linear_qkv);
    GradientSpace space;
    space.hidden = activations(shape.embedding);
    // Where the feed-forward part is done before those of attention are needed, they share its place.
    const bool shares = shape.residual == Residual::sequential;
    const uint64_t start = arena.mark();
    space.product = activations(shape.feed_forward);
    const uint64_t end = arena.mark();
    if (shares) arena.rewind(start);
    space.q = activations(wide ? shape.outputs(linear_qkv) : shape.q_width());
    space.k = wide ? qlora_span{} : activations(shape.kv_width());
    space.v = wide ? qlora_span{} : activations(shape.kv_width());
    space.attended = activations(shape.q_width());
    arena.rewind(std::max(end, arena.mark()));
    return space;
}

uint64_t key_width(const ModelShape &shape) {
    return shape.traits->has(linear_qkv) ? shape.outputs(linear_qkv) : shape.kv_width();
}

uint64_t value_width(const ModelShape &shape) { return shape.traits->has(linear_qkv) ? 0 : shape.kv_width(); }

qlora_tensor attention_input(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x_span) {
    const uint64_t width = pass.model.shape().embedding;
    const qlora_tensor x = pass.view(x_span, width);
    if (!norms_before(pass.model.shape())) return x;
    const qlora_tensor normed = pass.view(space.normed, width);
    forward_norm(pass, x, pass.model.layer(layer).attention_norm, normed, space.rstd);
    return normed;
}

namespace {

// One linear layer makes all three, straight into the cache where there is one.
Heads fused_heads(Pass &pass, uint32_t layer, const BlockSpace &space, const qlora_tensor &input,
                  const KeyValueCache *cache) {
    const ModelShape &shape = pass.model.shape();
    const Heads heads = cache ? heads_of(shape, cache->new_k) : heads_of(pass, space.q, {}, {});
    linear(pass, layer, linear_qkv, input, heads.all, space);
    return heads;
}

// A norm of heads needs their rows without gaps, which the cache has.
void norm_into(Pass &pass, const qlora_tensor &plain, const Norm &norm, qlora_span place, const qlora_tensor &to,
               qlora_span rstd, const KeyValueCache *cache) {
    const qlora_tensor normed = pass.view(place, to.cols);
    forward_norm(pass, normed_heads(pass, plain), norm, normed_heads(pass, normed), rstd);
    if (cache) gather_rows(pass, place, to.rows, cache->rows, to);
}

Heads separate_heads(Pass &pass, uint32_t layer, const BlockSpace &space, const qlora_tensor &input,
                     const KeyValueCache *cache) {
    const ModelShape &shape = pass.model.shape();
    const Layer &weights = pass.model.layer(layer);
    Heads heads = heads_of(pass, space.q, space.k, space.v);
    if (cache) {
        heads.k = cache->new_k;
        heads.v = cache->new_v;
    }
    if (shape.traits->head_norm == HeadNorm::none) {
        linear(pass, layer, linear_q, input, heads.q, space);
        linear(pass, layer, linear_k, input, heads.k, space);
    } else {
        const qlora_tensor q = pass.view(space.plain_q, shape.q_width()), k = pass.view(space.plain_k, shape.kv_width());
        linear(pass, layer, linear_q, input, q, space);
        linear(pass, layer, linear_k, input, k, space);
        norm_into(pass, q, weights.q_norm, space.q, heads.q, space.rstd_q, nullptr);
        norm_into(pass, k, weights.k_norm, space.k, heads.k, space.rstd_k, cache);
    }
    linear(pass, layer, linear_v, input, heads.v, space);
    return heads;
}

} // namespace

void forward_attention(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x, const KeyValueCache *cache) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor input = attention_input(pass, layer, space, x);
    const bool fused = shape.traits->has(linear_qkv);
    const Heads heads =
        fused ? fused_heads(pass, layer, space, input, cache) : separate_heads(pass, layer, space, input, cache);
    rope(pass, layer, heads.q, 0);
    rope(pass, layer, heads.k, 0);
    auto attention = attention_args<qlora_attention_args>(pass, layer, space, heads);
    if (cache) {
        const Heads all = fused ? heads_of(shape, cache->all_k) : Heads{{}, {}, cache->all_k, cache->all_v};
        attention.k = all.k;
        attention.v = all.v;
    }
    pass.device.run(QLORA_OP_ATTENTION, qlora_attention_forward, attention);
}

namespace {

// to = residual + linear(x)
void add_to(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const BlockSpace &space, qlora_span residual,
            qlora_span to) {
    const qlora_tensor y = pass.view(to, pass.model.shape().embedding);
    pass.device.copy(to, residual, y.rows * y.cols * type_bytes(y.type));
    linear(pass, layer, which, x, y, space, QLORA_FLAG_ACCUMULATE);
}

// to = residual + linear(x), residual + norm(linear(x)), or norm(residual + linear(x)), what is normed kept in `plain`.
void join(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const BlockSpace &space, qlora_span residual,
          qlora_span plain, const Norm &norm, qlora_span rstd, qlora_span to) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor y = pass.view(to, shape.embedding), kept = pass.view(plain, shape.embedding);
    if (!norms_after(shape)) {
        add_to(pass, layer, which, x, space, residual, to);
    } else if (shape.place == NormPlace::sum) {
        add_to(pass, layer, which, x, space, residual, plain);
        forward_norm(pass, kept, norm, y, rstd);
    } else {
        linear(pass, layer, which, x, kept, space);
        pass.device.copy(to, residual, y.rows * y.cols * type_bytes(y.type));
        forward_norm(pass, kept, norm, y, rstd, QLORA_FLAG_ACCUMULATE);
    }
}

} // namespace

void forward_output(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x) {
    const ModelShape &shape = pass.model.shape();
    join(pass, layer, linear_output, pass.view(space.attended, shape.q_width()), space,
         shape.normed_residual ? space.normed : x, space.output, pass.model.layer(layer).attention_after, space.rstd_output, space.middle);
}

qlora_tensor feed_forward_input(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor from = pass.view(shape.residual == Residual::sequential ? space.middle : x, shape.embedding);
    if (!norms_before(shape)) return from;
    if (shape.residual == Residual::shared) return pass.view(space.normed, shape.embedding);
    const qlora_tensor normed2 = pass.view(space.normed2, shape.embedding);
    forward_norm(pass, from, pass.model.layer(layer).feed_forward_norm, normed2, space.rstd2);
    return normed2;
}

void forward_gated(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor input = feed_forward_input(pass, layer, space, x);
    const Gates gates = gates_of(pass, space);
    switch (shape.traits->feed_forward) {
    case FeedForward::fused:
        linear(pass, layer, linear_gate_up, input, gates.all, space);
        break;
    case FeedForward::plain:
        linear(pass, layer, linear_up, input, gates.gate, space);
        break;
    default:
        linear(pass, layer, linear_gate, input, gates.gate, space);
        linear(pass, layer, linear_up, input, gates.up, space);
    }
    auto activation = activation_args<qlora_swiglu_args>(pass, gates);
    activation.y = pass.view(space.product, shape.feed_forward);
    pass.device.run(QLORA_OP_SWIGLU, qlora_swiglu_forward, activation);
}

void forward_down(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span y) {
    const ModelShape &shape = pass.model.shape();
    join(pass, layer, linear_down, pass.view(space.product, shape.feed_forward), space,
         shape.normed_residual ? space.normed2 : space.middle, space.down, pass.model.layer(layer).feed_forward_after, space.rstd_down, y);
}

namespace {

// What forward_down norms, without y.
void keep_down(Pass &pass, uint32_t layer, const BlockSpace &space) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor product = pass.view(space.product, shape.feed_forward);
    if (shape.place == NormPlace::sum) add_to(pass, layer, linear_down, product, space, space.middle, space.down);
    else linear(pass, layer, linear_down, product, pass.view(space.down, shape.embedding), space);
}

} // namespace

void forward_block(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x, qlora_span y,
                   const KeyValueCache *cache) {
    const ModelShape &shape = pass.model.shape();
    forward_attention(pass, layer, space, x, cache);
    forward_output(pass, layer, space, x);
    forward_gated(pass, layer, space, x);
    if (y.handle != 0) forward_down(pass, layer, space, y);
    else if (norms_after(shape)) // of the last product, too, there is a backward pass that needs its result
        keep_down(pass, layer, space);
}

void forward_block_again(Pass &pass, uint32_t layer, BlockSpace &space, qlora_span x) {
    forward_block(pass, layer, space, x, {});
    if (!norms_after(pass.model.shape())) space.xa[linear_down] = {}; // the last linear layer did not run
}

} // namespace finetune
