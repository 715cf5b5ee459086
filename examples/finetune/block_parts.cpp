#include "block_parts.h"

#include <cmath>
#include <utility>

namespace finetune {
namespace {

qlora_weight weight_of(const qlora_tensor &m) {
    auto weight = qlora::make<qlora_weight>();
    weight.format = m.type;
    weight.rows = m.rows;
    weight.cols = m.cols;
    weight.planes[QLORA_PLANE_CODE] = m.data;
    return weight;
}

qlora_tensor vector_of(const Memory &values, uint64_t cols) {
    return values.size() == 0 ? qlora_tensor{} : qlora::tensor(QLORA_FORMAT_F32, 1, cols, values.span());
}

uint32_t centered(const Pass &pass) {
    return pass.model.shape().traits->norm == NormKind::layer ? QLORA_FLAG_CENTERED : 0;
}

// y (+)= x W^T + bias in integers.
void base_in_integers(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y, uint32_t flags) {
    if (x.type != QLORA_FORMAT_F32) fail("products in integers need --activations f32");
    auto args = qlora::make<qlora_int8_matmul_args>();
    args.flags = flags;
    args.weight = pass.model.layer(layer).linear[which].get();
    args.x = x;
    args.y = y;
    args.bias = pass.model.layer(layer).bias[which].span();
    args.threshold = pass.model.outlier_threshold();
    pass.device.run(QLORA_OP_INT8_MATMUL, qlora_int8_matmul, args);
}

} // namespace

void multiply(Pass &pass, const qlora_tensor &x, const qlora_tensor &m, const qlora_tensor &y, uint32_t flags, int32_t compute) {
    const qlora_weight weight = weight_of(m);
    auto args = qlora::make<qlora_matmul_args>();
    args.flags = flags;
    args.weight = &weight;
    args.x = x;
    args.y = y;
    args.compute_type = compute != 0 ? compute : pass.precision.compute;
    pass.device.run(QLORA_OP_MATMUL, qlora_weight_matmul, args);
}

void multiply_transposed(Pass &pass, const qlora_tensor &x, const qlora_tensor &m, const qlora_tensor &y) {
    const qlora_weight weight = weight_of(m);
    auto args = qlora::make<qlora_matmul_args>();
    args.weight = &weight;
    args.y = x; // the gradient call's names
    args.x = y;
    args.compute_type = pass.precision.compute;
    pass.device.run(QLORA_OP_MATMUL_GRAD, qlora_weight_matmul_grad, args);
}

qlora_tensor columns(const qlora_tensor &matrix, uint64_t first, uint64_t count) {
    const uint64_t stride = matrix.stride != 0 ? matrix.stride : matrix.cols,
                   offset = first * type_bytes(matrix.type);
    return qlora::tensor(matrix.type, matrix.rows, count, part(matrix.data, offset, matrix.data.size - offset), stride);
}

Heads heads_of(const ModelShape &shape, const qlora_tensor &all) {
    const uint64_t q = shape.q_width(), kv = shape.kv_width();
    return {all, columns(all, 0, q), columns(all, q, kv), columns(all, q + kv, kv)};
}

Heads heads_of(const Pass &pass, qlora_span q, qlora_span k, qlora_span v) {
    const ModelShape &shape = pass.model.shape();
    if (shape.traits->has(linear_qkv)) return heads_of(shape, pass.view(q, shape.outputs(linear_qkv)));
    return {{}, pass.view(q, shape.q_width()), pass.view(k, shape.kv_width()), pass.view(v, shape.kv_width())};
}

Gates gates_of(const Pass &pass, const BlockSpace &space) {
    const uint64_t width = pass.model.shape().feed_forward;
    switch (pass.model.shape().traits->feed_forward) {
    case FeedForward::fused: {
        const qlora_tensor all = pass.view(space.gate, 2 * width);
        return {all, columns(all, 0, width), columns(all, width, width)};
    }
    case FeedForward::plain:
        return {{}, pass.view(space.gate, width), {}};
    default:
        return {{}, pass.view(space.gate, width), pass.view(space.up, width)};
    }
}

qlora_tensor normed_heads(const Pass &pass, const qlora_tensor &x) {
    const ModelShape &shape = pass.model.shape();
    if (shape.traits->head_norm == HeadNorm::width) return x;
    return qlora::tensor(x.type, x.rows * (x.cols / shape.head_dim), shape.head_dim, x.data);
}

void linear(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y,
            const BlockSpace &space, uint32_t flags) {
    const qlora_tensor a = pass.adapter.a(layer, which), b = pass.adapter.b(layer, which);
    const bool integers = pass.model.in_integers(), adapted = a.type != 0, drops = adapted && pass.dropout.probability > 0;
    if (integers) {
        base_in_integers(pass, layer, which, x, y, flags);
    } else {
        auto args = qlora::make<qlora_linear_args>();
        args.flags = flags;
        args.weight = pass.model.layer(layer).linear[which].get();
        args.x = x;
        args.y = y;
        args.bias = pass.model.layer(layer).bias[which].span();
        args.scale = pass.adapter.scale();
        args.compute_type = pass.precision.compute;
        if (adapted && !drops) {
            args.a = a;
            args.b = b;
            args.xa = space.xa[which];
        }
        pass.device.run(QLORA_OP_LINEAR, qlora_linear_forward, args);
    }
    if (drops) return add_dropped_adapter(pass, layer, which, x, y, space.xa[which]);
    if (!integers || !adapted) return;
    const uint64_t rank = pass.adapter.rank();
    const auto matrix = [&](uint64_t rows, qlora_span span) { return qlora::tensor(QLORA_FORMAT_F32, rows, rank, span); };
    const qlora_tensor xa = matrix(x.rows, space.xa[which]), scaled = matrix(x.rows, space.scaled_xa);
    multiply(pass, x, a, xa, 0);
    multiply(pass, xa, matrix(rank, pass.adapter.scaling()), scaled, 0);
    multiply(pass, scaled, b, y, QLORA_FLAG_ACCUMULATE);
}

void linear_grad(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &dy,
                 const qlora_tensor &dx, qlora_span xa, uint32_t flags) {
    auto args = qlora::make<qlora_linear_grad_args>();
    args.flags = flags;
    args.weight = pass.model.layer(layer).linear[which].get();
    args.x = x;
    args.dy = dy;
    args.dx = dx;
    args.scale = pass.adapter.scale();
    args.compute_type = pass.precision.compute;
    const qlora_tensor a = pass.adapter.a(layer, which);
    const bool adapted = a.type != 0, drops = adapted && pass.dropout.probability > 0;
    if (adapted && !drops) {
        args.a = a;
        args.b = pass.adapter.b(layer, which);
        args.da = pass.adapter.da(layer, which);
        args.db = pass.adapter.db(layer, which);
        args.xa = xa;
    }
    if (dx.type != 0 || args.a.type != 0) pass.device.run(QLORA_OP_LINEAR_GRAD, qlora_linear_grad, args);
    if (drops) dropped_adapter_grad(pass, layer, which, x, dy, dx, xa, flags);
}

void rope(Pass &pass, uint32_t layer, const qlora_tensor &x, uint32_t flags) {
    const ModelShape &shape = pass.model.shape();
    const int which = shape.layer[layer].rope;
    if (which < 0) return;
    const Rope &rope = shape.ropes[size_t(which)];
    auto args = qlora::make<qlora_rope_args>();
    args.flags = flags;
    args.x = x;
    args.positions = pass.positions;
    args.freq_factors = pass.model.rope_factors(which, pass.longest());
    args.head_dim = shape.head_dim;
    args.rotary_dim = shape.rope_dim;
    args.layout = shape.rope_layout;
    args.freq_base = rope.base;
    args.freq_scale = rope.scale;
    args.magnitude = rope.magnitude;
    pass.device.run(QLORA_OP_ROPE, qlora_rope_apply, args);
}

void forward_norm(Pass &pass, const qlora_tensor &x, const Norm &norm, const qlora_tensor &y, qlora_span rstd,
                  uint32_t flags) {
    if (norm.weight.size() == 0) { // none before this model's head
        pass.device.copy(y.data, x.data, x.rows * x.cols * type_bytes(x.type));
        return;
    }
    auto args = qlora::make<qlora_rms_norm_args>();
    args.flags = flags | centered(pass);
    args.x = x;
    args.weight = vector_of(norm.weight, x.cols);
    args.bias = vector_of(norm.bias, x.cols);
    args.y = y;
    args.rstd = rstd;
    args.epsilon = pass.model.shape().epsilon;
    pass.device.run(QLORA_OP_RMS_NORM, qlora_rms_norm_forward, args);
}

void backward_norm(Pass &pass, const qlora_tensor &x, const Norm &norm, const qlora_tensor &dy, const qlora_tensor &dx,
                   qlora_span rstd, uint32_t flags) {
    if (norm.weight.size() == 0) {
        pass.device.copy(dx.data, dy.data, dy.rows * dy.cols * type_bytes(dy.type));
        return;
    }
    auto args = qlora::make<qlora_rms_norm_grad_args>();
    args.flags = flags | centered(pass);
    args.x = x;
    args.weight = vector_of(norm.weight, x.cols);
    args.dy = dy;
    args.dx = dx;
    args.rstd = rstd;
    pass.device.run(QLORA_OP_RMS_NORM_GRAD, qlora_rms_norm_grad, args);
}

void gather_rows(Pass &pass, qlora_span from, uint64_t from_rows, qlora_span rows, const qlora_tensor &to) {
    const qlora_weight table = weight_of(qlora::tensor(pass.precision.activations, from_rows, to.cols, from));
    auto args = qlora::make<qlora_embedding_args>();
    args.weight = &table;
    args.ids = rows;
    args.y = to;
    pass.device.run(QLORA_OP_EMBEDDING, qlora_embedding_gather, args);
}

void gather_rows(Pass &pass, qlora_span from, uint64_t from_rows, qlora_span rows, qlora_span to, uint64_t to_rows) {
    gather_rows(pass, from, from_rows, rows,
                qlora::tensor(pass.precision.activations, to_rows, pass.model.shape().embedding, to));
}

void place_rows(Pass &pass, qlora_span y) {
    const int32_t *ids = std::exchange(pass.host_ids, nullptr);
    HostEmbedding *rows = pass.model.host_embedding();
    if (ids == nullptr || rows == nullptr || pass.device.idle()) return;
    const ModelShape &shape = pass.model.shape();
    const int32_t type = pass.precision.activations;
    pass.device.write(y, rows->gather(ids, pass.tokens, type, shape.embedding_scale), pass.tokens * shape.embedding * type_bytes(type));
}

void embed(Pass &pass, qlora_span ids, qlora_span y) {
    const ModelShape &shape = pass.model.shape();
    auto args = qlora::make<qlora_embedding_args>();
    args.weight = pass.model.embedding().get();
    args.ids = ids;
    args.y = pass.view(y, shape.embedding);
    args.scale = shape.embedding_scale;
    place_rows(pass, y);
    if (pass.model.host_embedding() == nullptr && pass.model.embedding().size() > 0) { // a plan does not read the host's
        pass.device.run(QLORA_OP_EMBEDDING, qlora_embedding_gather, args);
    }
    if (shape.traits->positions == Positions::learned) {
        args.flags = QLORA_FLAG_ACCUMULATE;
        args.weight = pass.model.positions().get();
        args.ids = pass.positions;
        args.scale = 1;
        pass.device.run(QLORA_OP_EMBEDDING, qlora_embedding_gather, args);
    }
    if (shape.traits->embedding_norm) forward_norm(pass, args.y, pass.model.embedding_norm(), args.y, {});
}

LogitsSpace take_logits_space(Arena &arena, const ModelShape &shape, uint64_t count) {
    LogitsSpace space;
    space.picked = arena.take(count * shape.embedding * 4);
    space.normed = arena.take(count * shape.embedding * 4);
    space.rstd = arena.take(count * 4);
    space.logits = arena.take(count * shape.vocabulary * 4);
    return space;
}

void forward_logits(Pass &pass, qlora_span hidden, uint64_t hidden_rows, qlora_span rows, uint64_t count, const LogitsSpace &space) {
    const ModelShape &shape = pass.model.shape();
    const qlora_tensor picked = qlora::tensor(QLORA_FORMAT_F32, count, shape.embedding, space.picked);
    const qlora_tensor normed = qlora::tensor(QLORA_FORMAT_F32, count, shape.embedding, space.normed);
    gather_rows(pass, hidden, hidden_rows, rows, picked);
    forward_norm(pass, picked, pass.model.output_norm(), normed, space.rstd);
    forward_head(pass, normed, qlora::tensor(QLORA_FORMAT_F32, count, shape.vocabulary, space.logits));
}

void forward_head(Pass &pass, const qlora_tensor &normed, const qlora_tensor &logits) {
    if (pass.model.head_bias().handle == 0) {
        auto args = qlora::make<qlora_matmul_args>();
        args.weight = pass.model.head().get();
        args.x = normed;
        args.y = logits;
        args.compute_type = pass.precision.compute;
        pass.device.run(QLORA_OP_MATMUL, qlora_weight_matmul, args);
        return;
    }
    auto args = qlora::make<qlora_linear_args>();
    args.weight = pass.model.head().get();
    args.x = normed;
    args.y = logits;
    args.bias = pass.model.head_bias();
    args.compute_type = pass.precision.compute;
    pass.device.run(QLORA_OP_LINEAR, qlora_linear_forward, args);
}

void cap_logits(const ModelShape &shape, std::vector<float> &logits) {
    if (shape.logit_cap == 0) return;
    for (float &logit : logits) logit = shape.logit_cap * std::tanh(logit / shape.logit_cap);
}

} // namespace finetune
