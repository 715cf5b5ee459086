#include "block.h"

namespace finetune {
namespace {

// y (+)= x m^T with a matrix of floats.
void multiply(Pass &pass, const qlora_tensor &x, const qlora_tensor &m, const qlora_tensor &y, uint32_t flags) {
    auto weight = qlora::make<qlora_weight>();
    weight.format = m.type;
    weight.rows = m.rows;
    weight.cols = m.cols;
    weight.planes[QLORA_PLANE_CODE] = m.data;
    auto args = qlora::make<qlora_matmul_args>();
    args.flags = flags;
    args.weight = &weight;
    args.x = x;
    args.y = y;
    args.compute_type = pass.precision.compute;
    pass.device.run(QLORA_OP_MATMUL, qlora_weight_matmul, args);
}

// The base's product in integers, then the adapter's.
void linear_in_integers(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y,
                        const BlockSpace &space, uint32_t flags) {
    if (x.type != QLORA_FORMAT_F32) fail("products in integers need --activations f32");
    auto args = qlora::make<qlora_int8_matmul_args>();
    args.flags = flags;
    args.weight = pass.model.layer(layer).linear[which].get();
    args.x = x;
    args.y = y;
    args.bias = pass.model.layer(layer).bias[which].span();
    args.threshold = pass.model.outlier_threshold();
    pass.device.run(QLORA_OP_INT8_MATMUL, qlora_int8_matmul, args);
    const uint64_t rank = pass.adapter.rank();
    const auto matrix = [&](uint64_t rows, qlora_span span) { return qlora::tensor(QLORA_FORMAT_F32, rows, rank, span); };
    const qlora_tensor xa = matrix(x.rows, space.xa[which]), scaled = matrix(x.rows, space.scaled_xa);
    multiply(pass, x, pass.adapter.a(layer, which), xa, 0);
    multiply(pass, xa, matrix(rank, pass.adapter.scaling()), scaled, 0);
    multiply(pass, scaled, pass.adapter.b(layer, which), y, QLORA_FLAG_ACCUMULATE);
}

void linear(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y,
            const BlockSpace &space, uint32_t flags = 0) {
    if (pass.model.in_integers()) return linear_in_integers(pass, layer, which, x, y, space, flags);
    auto args = qlora::make<qlora_linear_args>();
    args.flags = flags;
    args.weight = pass.model.layer(layer).linear[which].get();
    args.x = x;
    args.y = y;
    args.a = pass.adapter.a(layer, which);
    args.b = pass.adapter.b(layer, which);
    args.bias = pass.model.layer(layer).bias[which].span();
    args.xa = space.xa[which];
    args.scale = pass.adapter.scale();
    args.compute_type = pass.precision.compute;
    pass.device.run(QLORA_OP_LINEAR, qlora_linear_forward, args);
}

// dx absent: only da and db.
void linear_grad(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &dy,
                 const qlora_tensor &dx, qlora_span xa, uint32_t flags) {
    auto args = qlora::make<qlora_linear_grad_args>();
    args.flags = flags;
    args.weight = pass.model.layer(layer).linear[which].get();
    args.x = x;
    args.dy = dy;
    args.dx = dx;
    args.a = pass.adapter.a(layer, which);
    args.b = pass.adapter.b(layer, which);
    args.da = pass.adapter.da(layer, which);
    args.db = pass.adapter.db(layer, which);
    args.xa = xa;
    args.scale = pass.adapter.scale();
    args.compute_type = pass.precision.compute;
    pass.device.run(QLORA_OP_LINEAR_GRAD, qlora_linear_grad, args);
}

void norm_grad(Pass &pass, const qlora_tensor &x, const Memory &weight, const qlora_tensor &dy,
               const qlora_tensor &dx, qlora_span rstd) {
    auto args = qlora::make<qlora_rms_norm_grad_args>();
    args.flags = QLORA_FLAG_ACCUMULATE; // onto the gradient of the residual path
    args.x = x;
    args.weight = qlora::tensor(QLORA_FORMAT_F32, 1, x.cols, weight.span());
    args.dy = dy;
    args.dx = dx;
    args.rstd = rstd;
    pass.device.run(QLORA_OP_RMS_NORM_GRAD, qlora_rms_norm_grad, args);
}

void rope(Pass &pass, const qlora_tensor &x, uint32_t flags) {
    const ModelShape &shape = pass.model.shape();
    auto args = qlora::make<qlora_rope_args>();
    args.flags = flags;
    args.x = x;
    args.positions = pass.positions;
    args.freq_factors = pass.model.rope_factors();
    args.head_dim = shape.head_dim;
    args.rotary_dim = shape.rope_dim;
    args.layout = shape.rope_layout;
    args.freq_base = shape.rope_base;
    args.freq_scale = shape.rope_scale;
    pass.device.run(QLORA_OP_ROPE, qlora_rope_apply, args);
}

template <class Args> Args attention_args(const Pass &pass, const BlockSpace &space) {
    const ModelShape &shape = pass.model.shape();
    auto args = qlora::make<Args>();
    args.q = pass.view(space.q, shape.q_width());
    args.k = pass.view(space.k, shape.kv_width());
    args.v = pass.view(space.v, shape.kv_width());
    args.y = pass.view(space.attended, shape.q_width());
    args.lse = space.lse;
    args.sequences = pass.sequences;
    args.sequence_count = pass.sequence_count;
    args.heads = shape.heads;
    args.kv_heads = shape.kv_heads;
    args.head_dim = shape.head_dim;
    args.max_q_rows = pass.most_q_rows;
    args.max_k_rows = pass.most_k_rows;
    return args;
}

} // namespace

BlockSpace take_block_space(Arena &arena, const ModelShape &shape, uint32_t rank, int32_t type, uint64_t tokens) {
    const auto activations = [&](uint64_t width) { return arena.take(tokens * width * type_bytes(type)); };
    BlockSpace space;
    space.normed = activations(shape.embedding);
    space.q = activations(shape.q_width());
    space.k = activations(shape.kv_width());
    space.v = activations(shape.kv_width());
    space.attended = activations(shape.q_width());
    space.lse = arena.take(tokens * shape.heads * 4);
    space.middle = activations(shape.embedding);
    space.normed2 = activations(shape.embedding);
    space.gate = activations(shape.feed_forward);
    space.up = activations(shape.feed_forward);
    space.product = activations(shape.feed_forward);
    space.rstd = arena.take(tokens * 4);
    space.rstd2 = arena.take(tokens * 4);
    for (qlora_span &xa : space.xa) xa = arena.take(tokens * rank * 4);
    space.scaled_xa = arena.take(tokens * rank * 4);
    return space;
}

GradientSpace take_gradient_space(Arena &arena, const ModelShape &shape, int32_t type, uint64_t tokens) {
    const auto activations = [&](uint64_t width) { return arena.take(tokens * width * type_bytes(type)); };
    GradientSpace space;
    space.hidden = activations(shape.embedding);
    // The feed-forward part is done before those of attention are needed.
    const uint64_t shared = arena.mark();
    space.product = activations(shape.feed_forward);
    const uint64_t end = arena.mark();
    arena.rewind(shared);
    space.q = activations(shape.q_width());
    space.k = activations(shape.kv_width());
    space.v = activations(shape.kv_width());
    space.attended = activations(shape.q_width());
    arena.rewind(std::max(end, arena.mark()));
    return space;
}

void embed(Pass &pass, qlora_span ids, qlora_span y) {
    if (HostEmbedding *rows = pass.model.host_embedding()) {
        if (pass.device.idle()) return;
        const uint64_t bytes = pass.tokens * pass.model.shape().embedding * type_bytes(pass.precision.activations);
        pass.device.write(y, rows->gather(pass.host_ids, pass.tokens, pass.precision.activations), bytes);
        return;
    }
    if (pass.model.embedding().size() == 0) return; // while planning for one on the host
    auto args = qlora::make<qlora_embedding_args>();
    args.weight = pass.model.embedding().get();
    args.ids = ids;
    args.y = pass.view(y, pass.model.shape().embedding);
    pass.device.run(QLORA_OP_EMBEDDING, qlora_embedding_gather, args);
}

void gather_rows(Pass &pass, qlora_span from, uint64_t from_rows, qlora_span rows, qlora_span to, uint64_t to_rows) {
    const uint64_t cols = pass.model.shape().embedding;
    auto table = qlora::make<qlora_weight>();
    table.format = pass.precision.activations;
    table.rows = from_rows;
    table.cols = cols;
    table.planes[QLORA_PLANE_CODE] = from;
    auto args = qlora::make<qlora_embedding_args>();
    args.weight = &table;
    args.ids = rows;
    args.y = qlora::tensor(pass.precision.activations, to_rows, cols, to);
    pass.device.run(QLORA_OP_EMBEDDING, qlora_embedding_gather, args);
}

void forward_norm(Pass &pass, const qlora_tensor &x, const Memory &weight, const qlora_tensor &y,
                  qlora_span rstd) {
    auto args = qlora::make<qlora_rms_norm_args>();
    args.x = x;
    args.weight = qlora::tensor(QLORA_FORMAT_F32, 1, x.cols, weight.span());
    args.y = y;
    args.rstd = rstd;
    args.epsilon = pass.model.shape().epsilon;
    pass.device.run(QLORA_OP_RMS_NORM, qlora_rms_norm_forward, args);
}

void forward_attention(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x, const KeyValueCache *cache) {
    const qlora_tensor normed = pass.view(space.normed, pass.model.shape().embedding);
    auto attention = attention_args<qlora_attention_args>(pass, space);
    const qlora_tensor k = cache ? cache->new_k : attention.k, v = cache ? cache->new_v : attention.v;
    forward_norm(pass, pass.view(x, normed.cols), pass.model.layer(layer).attention_norm, normed, space.rstd);
    linear(pass, layer, linear_q, normed, attention.q, space);
    linear(pass, layer, linear_k, normed, k, space);
    linear(pass, layer, linear_v, normed, v, space);
    rope(pass, attention.q, 0);
    rope(pass, k, 0);
    if (cache) {
        attention.k = cache->all_k;
        attention.v = cache->all_v;
    }
    pass.device.run(QLORA_OP_ATTENTION, qlora_attention_forward, attention);
}

void forward_output(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x) {
    const qlora_tensor middle = pass.view(space.middle, pass.model.shape().embedding);
    pass.device.copy(space.middle, x, middle.rows * middle.cols * type_bytes(middle.type));
    linear(pass, layer, linear_output, pass.view(space.attended, pass.model.shape().q_width()), middle,
           space, QLORA_FLAG_ACCUMULATE);
}

void forward_gated(Pass &pass, uint32_t layer, const BlockSpace &space) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor normed2 = pass.view(space.normed2, shape.embedding);
    const qlora_tensor gate = pass.view(space.gate, shape.feed_forward), up = pass.view(space.up, shape.feed_forward);
    forward_norm(pass, pass.view(space.middle, shape.embedding), pass.model.layer(layer).feed_forward_norm, normed2,
                 space.rstd2);
    linear(pass, layer, linear_gate, normed2, gate, space);
    linear(pass, layer, linear_up, normed2, up, space);
    auto swiglu = qlora::make<qlora_swiglu_args>();
    swiglu.gate = gate;
    swiglu.up = up;
    swiglu.y = pass.view(space.product, shape.feed_forward);
    pass.device.run(QLORA_OP_SWIGLU, qlora_swiglu_forward, swiglu);
}

void forward_down(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span y_span) {
    const qlora_tensor y = pass.view(y_span, pass.model.shape().embedding);
    pass.device.copy(y_span, space.middle, y.rows * y.cols * type_bytes(y.type));
    linear(pass, layer, linear_down, pass.view(space.product, pass.model.shape().feed_forward), y,
           space, QLORA_FLAG_ACCUMULATE);
}

void forward_block(Pass &pass, uint32_t layer, const BlockSpace &space, qlora_span x, qlora_span y,
                   const KeyValueCache *cache) {
    forward_attention(pass, layer, space, x, cache);
    forward_output(pass, layer, space, x);
    forward_gated(pass, layer, space);
    if (y.handle != 0) forward_down(pass, layer, space, y);
}

void backward_block(Pass &pass, uint32_t layer, const BlockSpace &space, const GradientSpace &gradients,
                    qlora_span x_span, qlora_span dx_span, bool accumulate) {
    const ModelShape &shape = pass.model.shape();
    const Layer &weights = pass.model.layer(layer);
    const uint32_t sum = accumulate ? QLORA_FLAG_ACCUMULATE_GRADIENTS : 0;
    const qlora_tensor x = pass.view(x_span, shape.embedding), dx = pass.view(dx_span, shape.embedding);
    const qlora_tensor middle = pass.view(space.middle, shape.embedding),
                       dhidden = pass.view(gradients.hidden, shape.embedding);
    const qlora_tensor normed = pass.view(space.normed, shape.embedding),
                       normed2 = pass.view(space.normed2, shape.embedding);
    const qlora_tensor gate = pass.view(space.gate, shape.feed_forward), up = pass.view(space.up, shape.feed_forward);
    const qlora_tensor dproduct = pass.view(gradients.product, shape.feed_forward);

    // feed forward; the gradients of gate and up take the place of their values
    linear_grad(pass, layer, linear_down, pass.view(space.product, shape.feed_forward), dx, dproduct,
                space.xa[linear_down], sum);
    auto swiglu = qlora::make<qlora_swiglu_grad_args>();
    swiglu.gate = swiglu.dgate = gate;
    swiglu.up = swiglu.dup = up;
    swiglu.dy = dproduct;
    pass.device.run(QLORA_OP_SWIGLU_GRAD, qlora_swiglu_grad, swiglu);
    linear_grad(pass, layer, linear_gate, normed2, gate, dhidden, space.xa[linear_gate], sum);
    linear_grad(pass, layer, linear_up, normed2, up, dhidden, space.xa[linear_up], sum | QLORA_FLAG_ACCUMULATE);
    norm_grad(pass, middle, weights.feed_forward_norm, dhidden, dx, space.rstd2);

    // attention
    const qlora_tensor dattended = pass.view(gradients.attended, shape.q_width());
    linear_grad(pass, layer, linear_output, pass.view(space.attended, shape.q_width()), dx, dattended,
                space.xa[linear_output], sum);
    auto attention = attention_args<qlora_attention_grad_args>(pass, space);
    attention.dy = dattended;
    attention.dq = pass.view(gradients.q, shape.q_width());
    attention.dk = pass.view(gradients.k, shape.kv_width());
    attention.dv = pass.view(gradients.v, shape.kv_width());
    pass.device.run(QLORA_OP_ATTENTION_GRAD, qlora_attention_grad, attention);
    rope(pass, attention.dq, QLORA_FLAG_INVERSE);
    rope(pass, attention.dk, QLORA_FLAG_INVERSE);
    const bool lowest = layer == 0;
    const qlora_tensor dnormed = lowest ? qlora_tensor{} : dhidden;
    linear_grad(pass, layer, linear_q, normed, attention.dq, dnormed, space.xa[linear_q], sum);
    const uint32_t onto = sum | (lowest ? 0 : QLORA_FLAG_ACCUMULATE);
    linear_grad(pass, layer, linear_k, normed, attention.dk, dnormed, space.xa[linear_k], onto);
    linear_grad(pass, layer, linear_v, normed, attention.dv, dnormed, space.xa[linear_v], onto);
    if (!lowest) norm_grad(pass, x, weights.attention_norm, dhidden, dx, space.rstd);
}

} // namespace finetune
