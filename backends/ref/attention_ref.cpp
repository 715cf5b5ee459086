// One query row at a time: scores over its keys, softmax, weighted sum of values; and the textbook gradients.
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t attention_scratch(Context &, const qlora_attention_args &) { return 0; }
uint64_t attention_grad_scratch(Context &, const qlora_attention_grad_args &) { return 0; }

namespace {

template <class Args> double dot(const Args &args, const qlora_tensor &left, uint64_t l, uint32_t left_head, const qlora_tensor &right, uint64_t r, uint32_t right_head) {
    double sum = 0;
    for (uint32_t d = 0; d < args.head_dim; d++)
        sum += double(get(left, l, uint64_t(left_head) * args.head_dim + d)) * get(right, r, uint64_t(right_head) * args.head_dim + d);
    return sum;
}

struct Score {
    double value, slope; // slope: of the value by the scaled product
};

// Key j of the `keys` that a query could see without a window.
template <class Args> Score score(const Args &args, uint64_t m, uint32_t h, uint64_t first, uint32_t kv, uint64_t j, uint64_t keys) {
    Score score = {args.scale * dot(args, args.q, m, h, args.k, first + j, kv), 1};
    if (args.soft_cap > 0) {
        const double t = std::tanh(score.value / args.soft_cap);
        score = {args.soft_cap * t, 1 - t * t};
    }
    if (args.slopes.handle) score.value -= double(address<const float>(args.slopes)[h]) * double(keys - 1 - j);
    return score;
}

// The first key that a window leaves to a query.
template <class Args> uint64_t oldest(const Args &args, uint64_t keys) { return args.window && keys > args.window ? keys - args.window : 0; }

// Calls visit(query row, head, kv head, first key row, number of keys up to the query's own) for every query of every sequence.
template <class Args, class Visit> int32_t each_query(Context &context, const Args &args, Visit &&visit) {
    const int32_t *table = address<const int32_t>(args.sequences);
    for (uint32_t s = 0; s < args.sequence_count; s++) {
        const int64_t q_first = table[s * 4], q_rows = table[s * 4 + 1], k_first = table[s * 4 + 2], k_rows = table[s * 4 + 3];
        if (q_first < 0 || q_rows < 0 || k_first < 0 || k_rows < 0 || q_first + q_rows > int64_t(args.q.rows) || k_first + k_rows > int64_t(args.k.rows) || q_rows > k_rows)
            return context.fail(QLORA_ERROR_SHAPE, "attention: sequences[%u] = {%lld, %lld, %lld, %lld} does not fit %llu query and %llu key rows", s, (long long)q_first,
                                (long long)q_rows, (long long)k_first, (long long)k_rows, (unsigned long long)args.q.rows, (unsigned long long)args.k.rows);
        for (int64_t i = 0; i < q_rows; i++)
            for (uint32_t h = 0; h < args.heads; h++)
                visit(uint64_t(q_first + i), h, h / (args.heads / args.kv_heads), uint64_t(k_first), uint64_t(i + k_rows - q_rows + 1));
    }
    return QLORA_OK;
}

} // namespace

int32_t attention(Context &context, const qlora_attention_args &args) {
    Grid p(context, 1, args.k.rows);
    QLORA_TRY(p.status());
    return each_query(context, args, [&](uint64_t m, uint32_t h, uint32_t kv, uint64_t first, uint64_t keys) {
        double maximum = -INFINITY, sum = 0;
        const uint64_t begin = oldest(args, keys);
        for (uint64_t j = begin; j < keys; j++) {
            p[0][j] = score(args, m, h, first, kv, j, keys).value;
            maximum = std::fmax(maximum, p[0][j]);
        }
        for (uint64_t j = begin; j < keys; j++) sum += p[0][j] = std::exp(p[0][j] - maximum);
        for (uint32_t d = 0; d < args.head_dim; d++) {
            double y = 0;
            for (uint64_t j = begin; j < keys; j++) y += p[0][j] * get(args.v, first + j, uint64_t(kv) * args.head_dim + d);
            set(args.y, m, uint64_t(h) * args.head_dim + d, y / sum);
        }
        if (args.lse.handle) address<float>(args.lse)[m * args.heads + h] = float(maximum + std::log(sum));
    });
}

// p = exp(score - lse); ds = p * (dy . v - dy . y) * slope; dq = scale * ds k; dk = scale * ds^T q; dv = p^T dy
int32_t attention_grad(Context &context, const qlora_attention_grad_args &args) {
    Grid dk(context, args.k.rows, args.k.cols), dv(context, args.k.rows, args.k.cols), dq(context, 1, args.head_dim);
    for (Grid *grid : {&dk, &dv, &dq}) QLORA_TRY(grid->status());
    QLORA_TRY(each_query(context, args, [&](uint64_t m, uint32_t h, uint32_t kv, uint64_t first, uint64_t keys) {
        const double lse = address<const float>(args.lse)[m * args.heads + h], delta = dot(args, args.dy, m, h, args.y, m, h);
        for (uint32_t d = 0; d < args.head_dim; d++) dq[0][d] = 0;
        for (uint64_t j = oldest(args, keys); j < keys; j++) {
            const Score at = score(args, m, h, first, kv, j, keys);
            const double p = std::exp(at.value - lse);
            const double ds = p * (dot(args, args.dy, m, h, args.v, first + j, kv) - delta) * at.slope * args.scale;
            for (uint32_t d = 0; d < args.head_dim; d++) {
                const uint64_t q_col = uint64_t(h) * args.head_dim + d, k_col = uint64_t(kv) * args.head_dim + d;
                dq[0][d] += ds * get(args.k, first + j, k_col);
                dk[first + j][k_col] += ds * get(args.q, m, q_col);
                dv[first + j][k_col] += p * get(args.dy, m, q_col);
            }
        }
        for (uint32_t d = 0; d < args.head_dim; d++) set(args.dq, m, uint64_t(h) * args.head_dim + d, dq[0][d]);
    }));
    const int32_t *table = address<const int32_t>(args.sequences);
    for (uint32_t s = 0; s < args.sequence_count; s++)
        for (int64_t r = table[s * 4 + 2]; r < int64_t(table[s * 4 + 2]) + table[s * 4 + 3]; r++)
            for (uint64_t c = 0; c < args.k.cols; c++) {
                set(args.dk, uint64_t(r), c, dk[uint64_t(r)][c]);
                set(args.dv, uint64_t(r), c, dv[uint64_t(r)][c]);
            }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
