// Linear layers whose adapter sees its input through dropout: y = x W^T + bias + scale (drop(x) A^T) B^T. The base sees all of x,
// so that the two are products of their own, of the activations' type as in PEFT under autocast.
#include "block_parts.h"

#include "rng.h"

namespace finetune {
namespace {

// Of one linear layer in one pass.
struct Dropped {
    Pass &pass;
    uint32_t layer;
    Linear which;

    void drop(const qlora_tensor &x, const qlora_tensor &y, uint32_t flags) {
        auto args = qlora::make<qlora_dropout_args>();
        args.flags = flags;
        args.x = x;
        args.y = y;
        args.seed = Random(pass.dropout.seed, uint64_t(layer) * linear_count + which).at(0);
        args.probability = pass.dropout.probability;
        pass.device.run(QLORA_OP_DROPOUT, qlora_dropout_apply, args);
    }
    qlora_tensor narrow(const qlora_tensor &like, qlora_span span) const {
        return qlora::tensor(like.type, like.rows, pass.adapter.rank(), span);
    }
    // x as the adapter sees it.
    qlora_tensor dropped(const qlora_tensor &x) {
        const qlora_tensor y = qlora::tensor(x.type, x.rows, x.cols, pass.dropout.input);
        drop(x, y, 0);
        return y;
    }
    qlora_tensor scaled(const qlora_tensor &x, qlora_span place) {
        const uint64_t rank = pass.adapter.rank();
        const qlora_tensor y = narrow(x, place);
        multiply(pass, x, qlora::tensor(QLORA_FORMAT_F32, rank, rank, pass.adapter.scaling()), y, 0, QLORA_FORMAT_F32);
        return y;
    }
    void gradient(const qlora_tensor &x, const qlora_tensor &dy, const qlora_tensor &dw, uint32_t flags) {
        auto args = qlora::make<qlora_weight_gradient_args>();
        args.flags = flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
        args.x = x;
        args.dy = dy;
        args.dw = dw;
        args.compute_type = pass.precision.compute;
        pass.device.run(QLORA_OP_WEIGHT_GRADIENT, qlora_weight_gradient, args);
    }
};

} // namespace

void add_dropped_adapter(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &y, qlora_span xa) {
    Dropped at = {pass, layer, which};
    const qlora_tensor narrow = at.narrow(x, xa);
    multiply(pass, at.dropped(x), pass.adapter.a(layer, which), narrow, 0);
    multiply(pass, at.scaled(narrow, pass.dropout.first), pass.adapter.b(layer, which), y, QLORA_FLAG_ACCUMULATE);
}

void dropped_adapter_grad(Pass &pass, uint32_t layer, Linear which, const qlora_tensor &x, const qlora_tensor &dy, const qlora_tensor &dx,
                          qlora_span xa, uint32_t flags) {
    Dropped at = {pass, layer, which};
    const qlora_tensor a = pass.adapter.a(layer, which), b = pass.adapter.b(layer, which), input = at.dropped(x);
    const bool kept = xa.handle != 0;
    const qlora_tensor narrow = at.narrow(x, kept ? xa : pass.dropout.third);
    if (!kept) multiply(pass, input, a, narrow, 0);
    at.gradient(at.scaled(narrow, pass.dropout.first), dy, pass.adapter.db(layer, which), flags);

    const qlora_tensor dxa = at.narrow(x, pass.dropout.first);
    multiply_transposed(pass, dy, b, dxa);
    const qlora_tensor scaled = at.scaled(dxa, pass.dropout.second);
    at.gradient(input, scaled, pass.adapter.da(layer, which), flags);
    if (dx.type == 0) return;
    multiply_transposed(pass, scaled, a, input); // its place; the values are behind us
    at.drop(input, dx, QLORA_FLAG_ACCUMULATE);
}

} // namespace finetune
