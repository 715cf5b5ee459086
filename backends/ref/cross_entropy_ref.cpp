// losses[t] = logsumexp(logits) - logits[target]; dlogits = grad_scale * (softmax - onehot), times the slope of the soft cap;
// dx = dlogits W. Row by row.
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t cross_entropy_scratch(Context &, const qlora_cross_entropy_args &) { return 0; }

int32_t cross_entropy(Context &context, const qlora_cross_entropy_args &args) {
    const uint64_t tokens = args.x.rows, cols = args.x.cols, vocabulary = args.weight->rows;
    const int32_t *targets = address<const int32_t>(args.targets);
    for (uint64_t t = 0; t < tokens; t++)
        if (targets[t] >= 0 && uint64_t(targets[t]) >= vocabulary)
            return context.fail(QLORA_ERROR_ARGUMENT, "qlora_cross_entropy_loss: targets[%llu] is %d; the head has rows 0..%llu", (unsigned long long)t, targets[t],
                                (unsigned long long)vocabulary - 1);
    Grid w(context, cols, vocabulary), turned(context, args.dx.type ? vocabulary : 0, cols), x(context, 1, cols), logits(context, 1, vocabulary), slopes(context, 1, vocabulary),
        dx(context, 1, cols);
    for (Grid *grid : {&w, &turned, &x, &logits, &slopes, &dx}) QLORA_TRY(grid->status());
    fill(w, *args.weight, args.compute_type, true);
    if (args.dx.type) fill(turned, *args.weight, args.compute_type, false);
    for (uint64_t t = 0; t < tokens; t++) {
        for (uint64_t c = 0; c < cols; c++) dx[0][c] = 0;
        double loss = 0;
        if (targets[t] >= 0) {
            for (uint64_t c = 0; c < cols; c++) x[0][c] = round_to(args.compute_type, get(args.x, t, c));
            for (uint64_t v = 0; v < vocabulary; v++) logits[0][v] = args.bias.handle ? address<const float>(args.bias)[v] : 0;
            multiply(x, w, logits);
            for (uint64_t v = 0; v < vocabulary; v++) {
                const double t = args.soft_cap > 0 ? std::tanh(logits[0][v] / args.soft_cap) : 0;
                slopes[0][v] = 1 - t * t;
                if (args.soft_cap > 0) logits[0][v] = args.soft_cap * t;
            }
            double maximum = -INFINITY, sum = 0;
            for (uint64_t v = 0; v < vocabulary; v++) maximum = std::fmax(maximum, logits[0][v]);
            for (uint64_t v = 0; v < vocabulary; v++) sum += std::exp(logits[0][v] - maximum);
            loss = maximum + std::log(sum) - logits[0][targets[t]];
            if (args.dx.type) {
                for (uint64_t v = 0; v < vocabulary; v++) {
                    const double softmax = std::exp(logits[0][v] - maximum) / sum;
                    logits[0][v] = round_to(args.compute_type, float(args.grad_scale * (softmax - (v == uint64_t(targets[t]))) * slopes[0][v]));
                }
                multiply(logits, turned, dx);
            }
        }
        address<float>(args.losses)[t] = float(loss);
        if (args.dx.type)
            for (uint64_t c = 0; c < cols; c++) set(args.dx, t, c, dx[0][c]);
    }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
