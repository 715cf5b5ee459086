// Causal attention over packed sequences, and its gradients.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint32_t tile_rows = 32, chunk_dimensions = 32;

// Four dimensions of every head lie in one aligned load.
bool fits_vectors(uint32_t head_dim, std::initializer_list<const qlora_tensor *> tensors) {
    bool fits = head_dim % 4 == 0;
    for (const qlora_tensor *tensor : tensors) fits = fits && tensor->stride % 4 == 0 && tensor->data.offset % 16 == 0;
    return fits;
}

// What the push constants of every shader of attention begin with.
struct Sizes {
    uint32_t heads, kv_heads, head_dim, q_rows, k_rows, tiles, sequence_count;
};
template <class Args> Sizes sizes_of(const Args &args, uint64_t tiles) {
    return {args.heads, args.kv_heads, args.head_dim, uint32_t(args.q.rows), uint32_t(args.k.rows), uint32_t(tiles), args.sequence_count};
}

// What scores.glsl does to scores, and with what.
struct Scores {
    uint32_t window;
    float scale, soft_cap, cap_scale;
};
template <class Args> Scores scores_of(const Args &args) {
    const uint32_t keys = uint32_t(args.k.rows);
    return {args.window && args.window < keys ? args.window : keys, args.scale, args.soft_cap, args.soft_cap > 0 ? float(double(args.scale) / args.soft_cap) : 0};
}
template <class Args> uint32_t kind_of_scores(const Args &args) { return (args.soft_cap > 0 ? 1u : 0u) | (args.slopes.handle ? 2u : 0u); }
template <class Args> qlora_span slopes_of(const Args &args) { return part(args.slopes, 0, args.heads * uint64_t(4)); }

int32_t check_sizes(Context &context, const char *entry, std::initializer_list<const qlora_tensor *> tensors) {
    for (const qlora_tensor *tensor : tensors) QLORA_TRY(check_elements(context, entry, tensor->rows * tensor->stride));
    return QLORA_OK;
}

// ---- by cooperative matrices ----

constexpr uint32_t cooperative_subgroups = 4, own_rows = 16, other_rows = 32; // as in attention_cooperative_vulkan.comp

// Rows are read in aligned octets, and tiles of all dimensions fit the shared memory.
bool fits_cooperative(const State &state, uint32_t head_dim, std::initializer_list<const qlora_tensor *> tensors) {
    const qlora_tensor &q = **tensors.begin();
    const uint32_t octets = (head_dim + 15) / 16 * 2, rows = cooperative_subgroups * own_rows;
    const uint32_t shared = rows * (octets + 1) * 16 + cooperative_subgroups * own_rows * (2 * other_rows * 4 + other_rows * 2 + 16) + other_rows * 8;
    bool fits = state.cooperative.of(q.type).m && head_dim % 8 == 0 && head_dim <= 128 && shared <= state.properties.limits.maxComputeSharedMemorySize &&
                cooperative_subgroups * state.cooperative.subgroup <= state.properties.limits.maxComputeWorkGroupInvocations;
    for (const qlora_tensor *tensor : tensors) fits = fits && tensor->stride % 8 == 0 && tensor->data.offset % 16 == 0;
    return fits;
}

// One of the shader's modes: 0 y, 1 dq, 2 dk, 3 dv. Own and other operands are what the shader calls so.
template <class Args>
int32_t enqueue_cooperative(Context &context, const Args &args, uint32_t mode, const qlora_tensor &own_first, const qlora_tensor &own_second, const qlora_tensor &other_first,
                            const qlora_tensor &other_second, const qlora_tensor &out, const qlora_span &delta, Order order) {
    struct Push {
        PushHeader header;
        Sizes sizes;
        uint32_t own_first_stride, own_second_stride, other_first_stride, other_second_stride, out_stride;
        Scores scores;
    };
    const Cooperative &cooperative = state_of(context).cooperative;
    const Cooperative::Size matrix = cooperative.of(args.q.type);
    const bool keys = mode >= 2;
    const uint64_t tiles = groups_of(keys ? args.max_k_rows : args.max_q_rows, cooperative_subgroups * own_rows);
    const Push push = {{},
                       sizes_of(args, tiles),
                       uint32_t(own_first.stride),
                       uint32_t(own_second.stride),
                       uint32_t(other_first.stride),
                       uint32_t(other_second.stride),
                       uint32_t(out.stride),
                       scores_of(args)};
    return enqueue(context, args.stream, Shader::attention_cooperative,
                   {mode, (args.head_dim + 15) / 16 * 16, args.lse.handle != 0, kind_of_scores(args), cooperative.subgroup, matrix.m, matrix.n, matrix.k,
                    cooperative_subgroups * cooperative.subgroup, 0, uint32_t(args.q.type)},
                   {exact(own_first), exact(own_second), exact(other_first), exact(other_second), exact(out), part(args.lse, 0, args.q.rows * args.heads * 4), delta,
                    part(args.sequences, 0, args.sequence_count * uint64_t(16)), slopes_of(args)},
                   push, tiles * (keys ? args.kv_heads : args.heads) * args.sequence_count, order);
}

} // namespace

uint64_t attention_scratch(Context &, const qlora_attention_args &) { return 0; }
// delta: dy . y per query and head.
uint64_t attention_grad_scratch(Context &, const qlora_attention_grad_args &args) { return align_scratch(args.q.rows * args.heads * 4); }

int32_t attention(Context &context, const qlora_attention_args &args) {
    struct Push {
        PushHeader header;
        Sizes sizes;
        uint32_t q_stride, k_stride, v_stride, y_stride;
        Scores scores;
    };
    QLORA_TRY(check_sizes(context, "qlora_attention_forward", {&args.q, &args.k, &args.v, &args.y}));
    if (fits_cooperative(state_of(context), args.head_dim, {&args.q, &args.k, &args.v}))
        return enqueue_cooperative(context, args, 0, args.q, args.q, args.k, args.v, args.y, qlora_span{}, Order::AFTER_PREVIOUS);
    const uint64_t tiles = groups_of(args.max_q_rows, tile_rows);
    const Push push = {{},
                       sizes_of(args, tiles),
                       uint32_t(args.q.stride),
                       uint32_t(args.k.stride),
                       uint32_t(args.v.stride),
                       uint32_t(args.y.stride),
                       scores_of(args)};
    return enqueue(context, args.stream, Shader::attention,
                   {uint32_t(args.q.type), uint32_t(groups_of(args.head_dim, chunk_dimensions)), fits_vectors(args.head_dim, {&args.q, &args.k, &args.v}), args.lse.handle != 0, kind_of_scores(args)},
                   {exact(args.q), exact(args.k), exact(args.v), exact(args.y), part(args.lse, 0, args.q.rows * args.heads * 4), part(args.sequences, 0, args.sequence_count * uint64_t(16)), slopes_of(args)},
                   push, tiles * args.heads * args.sequence_count);
}

int32_t attention_grad(Context &context, const qlora_attention_grad_args &args) {
    struct Push {
        PushHeader header;
        Sizes sizes;
        uint32_t q_stride, k_stride, v_stride, dy_stride, first_stride, second_stride;
        Scores scores;
    };
    QLORA_TRY(check_sizes(context, "qlora_attention_grad", {&args.q, &args.k, &args.v, &args.y, &args.dy, &args.dq, &args.dk, &args.dv}));
    const uint32_t chunks = uint32_t(groups_of(args.head_dim, chunk_dimensions)), type = uint32_t(args.q.type);
    const bool vector = fits_vectors(args.head_dim, {&args.q, &args.k, &args.v, &args.dy});
    const qlora_span q = exact(args.q), k = exact(args.k), v = exact(args.v), dy = exact(args.dy), dv = exact(args.dv);
    const qlora_span lse = part(args.lse, 0, args.q.rows * args.heads * 4), delta = part(args.scratch, 0, args.q.rows * args.heads * 4);
    const qlora_span sequences = part(args.sequences, 0, args.sequence_count * uint64_t(16));
    // mode 0: delta, 1: dq, 2: dk and dv; first and second are the tensors that the shader calls so.
    const auto run = [&](uint32_t mode, bool want_first, bool want_second, const qlora_tensor &first, uint64_t max_rows, uint64_t owners, Order order) {
        const uint64_t tiles = groups_of(max_rows, tile_rows);
        const Push push = {{},
                           sizes_of(args, tiles),
                           uint32_t(args.q.stride),
                           uint32_t(args.k.stride),
                           uint32_t(args.v.stride),
                           uint32_t(args.dy.stride),
                           uint32_t(first.stride),
                           uint32_t(args.dv.stride),
                           scores_of(args)};
        const uint64_t groups = mode == 0 ? groups_of(args.q.rows * args.heads, 64) : tiles * owners * args.sequence_count;
        return enqueue(context, args.stream, Shader::attention_grad, {type, chunks, vector, mode, want_first, want_second, kind_of_scores(args)},
                       {q, k, v, dy, exact(first), dv, lse, delta, sequences, slopes_of(args)}, push,
                       groups, order);
    };
    QLORA_TRY(run(0, false, false, args.y, 0, 0, Order::AFTER_PREVIOUS));
    if (fits_cooperative(state_of(context), args.head_dim, {&args.q, &args.k, &args.v, &args.dy})) {
        QLORA_TRY(enqueue_cooperative(context, args, 1, args.q, args.dy, args.k, args.v, args.dq, delta, Order::AFTER_PREVIOUS));
        QLORA_TRY(enqueue_cooperative(context, args, 2, args.k, args.v, args.q, args.dy, args.dk, delta, Order::WITH_PREVIOUS));
        return enqueue_cooperative(context, args, 3, args.k, args.v, args.q, args.dy, args.dv, delta, Order::WITH_PREVIOUS);
    }
    QLORA_TRY(run(1, true, false, args.dq, args.max_q_rows, args.heads, Order::AFTER_PREVIOUS));
    // Sums of dk and dv together would not fit the registers of a wide head.
    const bool together = chunks <= 4;
    QLORA_TRY(run(2, true, together, args.dk, args.max_k_rows, args.kv_heads, Order::WITH_PREVIOUS));
    return together ? QLORA_OK : run(2, false, true, args.dk, args.max_k_rows, args.kv_heads, Order::WITH_PREVIOUS);
}

} // namespace vulkan
} // namespace qlora
