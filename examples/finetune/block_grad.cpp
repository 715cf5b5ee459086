#include "block_parts.h"

namespace finetune {
namespace {

struct Backward {
    Pass &pass;
    uint32_t layer;
    const BlockSpace &space;
    const GradientSpace &gradients;
    qlora_tensor x, dx, dhidden;
    uint32_t sum; // ACCUMULATE_GRADIENTS or nothing
    const ModelShape &shape = pass.model.shape();
    const Layer &weights = pass.model.layer(layer);

    bool lowest() const { return layer == 0; }

    // The gradient of a part's last product: dx, or what comes through the norm after it, which in the norm of a sum dx
    // does as well.
    qlora_tensor before_join(qlora_span plain, const Norm &norm, qlora_span rstd) {
        if (!norms_after(shape)) return dx;
        const qlora_tensor &to = shape.place == NormPlace::sum ? dx : dhidden;
        backward_norm(pass, pass.view(plain, shape.embedding), norm, dx, to, rstd);
        return to;
    }

    // Gradients of several linear layers with the same input add up, and go on through the norm before them or join dx,
    // which goes with them through that norm where the residual comes from behind it.
    struct Inputs {
        Backward &back;
        qlora_tensor input;
        bool needed, first = true;

        void grad(Linear which, const qlora_tensor &dy) {
            const bool through = norms_before(back.shape), joined = through && back.shape.normed_residual;
            const qlora_tensor to = !needed ? qlora_tensor{} : through ? back.dhidden : back.dx;
            if (needed && joined && first)
                back.pass.device.copy(to.data, back.dx.data, to.rows * to.cols * type_bytes(to.type));
            const bool onto = needed && (!through || !first || joined);
            linear_grad(back.pass, back.layer, which, input, dy, to, back.space.xa[which],
                        back.sum | (onto ? QLORA_FLAG_ACCUMULATE : 0));
            first = false;
        }
        void norm(const qlora_tensor &x, const Norm &norm, qlora_span rstd) {
            if (needed && norms_before(back.shape))
                backward_norm(back.pass, x, norm, back.dhidden, back.dx, rstd,
                              back.shape.normed_residual ? 0 : QLORA_FLAG_ACCUMULATE);
        }
    };

    void output() {
        const qlora_tensor dy = before_join(space.output, weights.attention_after, space.rstd_output);
        linear_grad(pass, layer, linear_output, pass.view(space.attended, shape.q_width()), dy,
                    pass.view(gradients.attended, shape.q_width()), space.xa[linear_output], sum);
    }

    // The gradients of gate and up take the place of their values.
    void feed_forward() {
        if (norms_after(shape)) // a pass without y did not come to this norm; dhidden is free
            forward_norm(pass, pass.view(space.down, shape.embedding), weights.feed_forward_after, dhidden, space.rstd_down);
        const qlora_tensor dy = before_join(space.down, weights.feed_forward_after, space.rstd_down);
        const qlora_tensor dproduct = pass.view(gradients.product, shape.feed_forward);
        linear_grad(pass, layer, linear_down, pass.view(space.product, shape.feed_forward), dy, dproduct,
                    space.xa[linear_down], sum);
        const Gates gates = gates_of(pass, space);
        auto activation = activation_args<qlora_swiglu_grad_args>(pass, gates);
        activation.dgate = gates.gate;
        activation.dup = gates.up;
        activation.dy = dproduct;
        pass.device.run(QLORA_OP_SWIGLU_GRAD, qlora_swiglu_grad, activation);

        const bool sequential = shape.residual == Residual::sequential, shared = shape.residual == Residual::shared;
        const qlora_tensor from = sequential ? pass.view(space.middle, shape.embedding) : x;
        const qlora_span normed = shared ? space.normed : space.normed2;
        Inputs inputs = {*this, norms_before(shape) ? pass.view(normed, shape.embedding) : from, sequential || !lowest()};
        switch (shape.traits->feed_forward) {
        case FeedForward::fused:
            inputs.grad(linear_gate_up, gates.all);
            break;
        case FeedForward::plain:
            inputs.grad(linear_up, gates.gate);
            break;
        default:
            inputs.grad(linear_gate, gates.gate);
            inputs.grad(linear_up, gates.up);
        }
        inputs.norm(from, shared ? weights.attention_norm : weights.feed_forward_norm, shared ? space.rstd : space.rstd2);
    }

    void heads_norm(const qlora_tensor &plain, const Norm &norm, const qlora_tensor &d, qlora_span rstd) {
        backward_norm(pass, normed_heads(pass, plain), norm, normed_heads(pass, d), normed_heads(pass, d), rstd);
    }

    void attention() {
        auto args = attention_args<qlora_attention_grad_args>(pass, layer, space, heads_of(pass, space.q, space.k, space.v));
        const Heads d = heads_of(pass, gradients.q, gradients.k, gradients.v);
        args.dy = pass.view(gradients.attended, shape.q_width());
        args.dq = d.q;
        args.dk = d.k;
        args.dv = d.v;
        pass.device.run(QLORA_OP_ATTENTION_GRAD, qlora_attention_grad, args);
        rope(pass, layer, d.q, QLORA_FLAG_INVERSE);
        rope(pass, layer, d.k, QLORA_FLAG_INVERSE);
        if (shape.traits->head_norm != HeadNorm::none) {
            heads_norm(pass.view(space.plain_q, shape.q_width()), weights.q_norm, d.q, space.rstd_q);
            heads_norm(pass.view(space.plain_k, shape.kv_width()), weights.k_norm, d.k, space.rstd_k);
        }
        Inputs inputs = {*this, norms_before(shape) ? pass.view(space.normed, shape.embedding) : x, !lowest()};
        if (shape.traits->has(linear_qkv)) {
            inputs.grad(linear_qkv, d.all);
        } else {
            inputs.grad(linear_q, d.q);
            inputs.grad(linear_k, d.k);
            inputs.grad(linear_v, d.v);
        }
        inputs.norm(x, weights.attention_norm, space.rstd);
    }
};

} // namespace

void backward_block(Pass &pass, uint32_t layer, const BlockSpace &space, const GradientSpace &gradients, qlora_span x,
                    qlora_span dx, bool accumulate) {
    const uint64_t width = pass.model.shape().embedding;
    Backward back = {pass,
                     layer,
                     space,
                     gradients,
                     pass.view(x, width),
                     pass.view(dx, width),
                     pass.view(gradients.hidden, width),
                     accumulate ? QLORA_FLAG_ACCUMULATE_GRADIENTS : 0u};
    // In parallel both parts have the gradient of the sum, which the first to add to dx would spoil.
    const bool sequential = pass.model.shape().residual == Residual::sequential;
    if (!sequential) back.output();
    back.feed_forward();
    if (sequential) back.output();
    back.attention();
}

} // namespace finetune
