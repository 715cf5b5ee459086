// The factor behind quantize_gptq and quantize_spqr. With H = R R^T (R upper triangular, H damped and in the order of processing)
// U = R^-1, so that U^T U = H^-1. Every sum runs in an order that blocked code can keep, so that cpu gives the same bits.
#pragma once
#include "backends/ref/ref.h"
#include "backends/search/gptq.h"

namespace qlora {
namespace ref {

struct Factor {
    Context &context;
    const char *entry;
    const uint64_t cols;
    Grid h, u, line, order_room, dead_room;
    uint32_t *order; // columns in the order of processing
    uint8_t *dead;   // by column: no input was ever non-zero
    Factor(Context &context, const char *entry, uint64_t cols)
        : context(context), entry(entry), cols(cols), h(context, cols, cols), u(context, cols, cols), line(context, 1, cols), order_room(context, 1, cols), dead_room(context, 1, cols),
          order(reinterpret_cast<uint32_t *>(order_room.data)), dead(reinterpret_cast<uint8_t *>(dead_room.data)) {}
    int32_t status() const;
    // h, ERROR_VALUE at its first NaN or infinity; order, as columns are.
    int32_t load(const qlora_span &hessian, bool wide);
    // Dead columns stand alone with 1 on the diagonal. Returns how many there are.
    uint32_t cut_dead_columns();
    double diagonal_mean() const;
    double diagonal_largest() const;
    // u, by the attempts of a ladder; false when none gives a factor.
    bool find(search::DampingLadder &ladder);

private:
    bool attempt(const search::DampingLadder &ladder);
};

} // namespace ref
} // namespace qlora
