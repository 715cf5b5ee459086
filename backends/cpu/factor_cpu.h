// The factor behind quantize_gptq and quantize_spqr, blocked: R with H = R R^T (upper triangular, H damped and in the order of
// processing) from its last columns; U = R^-1 from its last rows. Every element is summed in ref's order, without fused operations,
// so U is ref's to the bit, for any instruction set and number of threads.
#pragma once
#include "backends/cpu/quantize_cpu.h"
#include "backends/search/gptq.h"

namespace qlora {
namespace cpu {

constexpr uint64_t panel_cols = 128; // of W whose errors are made up for together in the columns after them

struct Factor {
    Context &context;
    const Kernels &kernels;
    const uint64_t cols;
    double *u, *strip, *diagonal; // strip is free before and after find
    uint32_t *order;              // columns in the order of processing
    uint8_t *dead;                // by column: no input was ever non-zero
    // memory is of bytes(cols).
    Factor(Context &context, const qlora_span &hessian, bool wide, uint64_t cols, char *memory);
    static uint64_t bytes(uint64_t cols);
    // ERROR_VALUE at the first NaN or infinity.
    int32_t refuse_not_finite(const char *entry) const;
    // Fills diagonal, in which dead columns are 1, dead, and order, as columns are. Returns how many are dead.
    uint32_t begin();
    double mean(bool with_dead) const; // of the diagonal; dead columns count 1, or 0
    double largest() const;
    // u, by the attempts of a ladder; false when none gives a factor.
    bool find(search::DampingLadder &ladder) const;

private:
    const void *hessian_;
    bool wide_;
    double hessian(uint64_t r, uint64_t c) const { return wide_ ? static_cast<const double *>(hessian_)[r * cols + c] : double(static_cast<const float *>(hessian_)[r * cols + c]); }
    void load(const search::DampingLadder &ladder) const;
    bool solve_rows(uint64_t begin, uint64_t end, uint64_t j0, uint64_t j1) const;
    bool solve() const;
    void invert_cols(uint64_t i0, uint64_t i1, uint64_t c, uint64_t count) const;
    void invert() const;
};

} // namespace cpu
} // namespace qlora
