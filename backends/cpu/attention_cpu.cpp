// Attention by tiles. Rows of one side (queries, or keys in the second half of the backward pass) stand in tiles of
// tile_cols rows, the rows of the other side stream past them from panels packed once per head:
//   forward  tiles of queries against keys and values
//   dq       tiles of queries against keys and values, scores computed again
//   dk, dv   tiles of keys against queries and dy of every head of the group, in order
// No two tasks write the same row, and no sum depends on the threads.
#include "backends/cpu/cpu.h"

#include <cmath>
#include <cstring>
#include <initializer_list>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t pack_budget = 32 << 20; // panels of several heads at a time, up to here
constexpr uint64_t block_rows = 84;        // packed per task; a multiple of every tile_rows
constexpr uint64_t others = 84;            // score tiles have at most this many rows

uint64_t round_up(uint64_t a, uint64_t b) { return (a + b - 1) / b * b; }

// One side of a sequence, and how much of everything stands before it.
struct Side {
    uint64_t first, rows, rows_before, panel_rows_before, tiles_before, blocks_before;
};
enum { Q = 0, K = 1 };
struct Sequence {
    Side side[2];
};

// What forward and backward share: the args, the geometry and the table of sequences (in scratch).
template <class Args> struct Layout {
    Context &context;
    const Kernels &kernels;
    const Args &args;
    uint64_t head_dim, group, count;
    Sequence *table; // [count + 1]

    Layout(Context &context, const Args &args) : context(context), kernels(kernels_of(context)), args(args), head_dim(args.head_dim), group(args.heads / args.kv_heads), count(args.sequence_count), table(nullptr) {}

    uint64_t table_bytes() const { return align_scratch((count + 1) * sizeof(Sequence)); }
    const qlora_tensor &tensor(int side) const { return side == Q ? args.q : args.k; }
    // Floats of one head's panels, over all sequences.
    uint64_t turned_floats(int side) const { return round_up((tensor(side).rows + count * kernels.tile_rows) * head_dim, 64); }
    uint64_t straight_floats(int side) const { return round_up(tensor(side).rows * round_up(head_dim, kernels.tile_rows), 64); }

    int32_t build(const char *entry, Sequence *memory) {
        table = memory;
        table[0] = Sequence{};
        const int32_t *row = address<const int32_t>(args.sequences);
        for (uint64_t s = 0; s < count; s++, row += 4) {
            table[s + 1] = table[s];
            const int64_t q_end = int64_t(row[0]) + row[1], k_end = int64_t(row[2]) + row[3];
            if (row[0] < 0 || row[1] < 0 || row[2] < 0 || row[3] < 0 || q_end > int64_t(args.q.rows) || k_end > int64_t(args.k.rows) || row[1] > row[3])
                return context.fail(QLORA_ERROR_SHAPE, "%s: sequences[%llu] = {%d, %d, %d, %d} does not fit %llu query and %llu key rows, or has more queries than keys", entry,
                                    (unsigned long long)s, row[0], row[1], row[2], row[3], (unsigned long long)args.q.rows, (unsigned long long)args.k.rows);
            for (int i : {Q, K}) {
                Side &side = table[s].side[i], &next = table[s + 1].side[i];
                side.first = uint64_t(row[i * 2]);
                side.rows = uint64_t(row[i * 2 + 1]);
                next.rows_before = side.rows_before + side.rows;
                next.panel_rows_before = side.panel_rows_before + round_up(side.rows, kernels.tile_rows);
                next.tiles_before = side.tiles_before + divide_up(side.rows, kernels.tile_cols);
                next.blocks_before = side.blocks_before + divide_up(side.rows, block_rows);
                if (next.rows_before > tensor(i).rows)
                    return context.fail(QLORA_ERROR_SHAPE, "%s: sequences overlap: up to sequences[%llu] they have more rows than there are", entry, (unsigned long long)s);
            }
        }
        return QLORA_OK;
    }

    // What a head's distances to its keys are multiplied by.
    float slope(uint64_t head) const { return args.slopes.handle ? address<const float>(args.slopes)[head] : 0; }

    // The sequence that holds a tile or block.
    uint64_t find(int side, uint64_t Side::*before, uint64_t unit) const {
        uint64_t low = 0, high = count;
        while (high - low > 1) {
            const uint64_t middle = low + (high - low) / 2;
            (table[middle].side[side].*before <= unit ? low : high) = middle;
        }
        return low;
    }

    // Rows first.. of a head as f32, then zeros up to rows.
    void load(const qlora_tensor &x, uint64_t head, uint64_t first, uint64_t count, uint64_t rows, float *dst) const {
        for (uint64_t i = 0; i < count; i++) kernels.load[type_index(x.type)](element(x, first + i, head * head_dim), head_dim, dst + i * head_dim);
        if (count < rows) std::memset(dst + count * head_dim, 0, (rows - count) * head_dim * sizeof(float));
    }

    // Packs one block of one head of x: turned panels [rows / tile_rows][head_dim][tile_rows] of its sequence, straight ones
    // [head_dim / tile_rows][rows][tile_rows]; either may be null. rows is [tile_rows][head_dim] of working space.
    void pack(int side, uint64_t block, const qlora_tensor &x, uint64_t head, float *turned, float *straight, float *rows) const {
        const Side &place = table[find(side, &Side::blocks_before, block)].side[side];
        const uint64_t begin = (block - place.blocks_before) * block_rows, end = least(begin + block_rows, place.rows);
        const uint32_t width = kernels.tile_rows;
        for (uint64_t r = begin; r < end; r += width) {
            const uint64_t here = least(width, end - r);
            load(x, head, place.first + r, here, width, rows);
            if (turned) kernels.pack_turned(rows, head_dim, head_dim, width, turned + (place.panel_rows_before + r) * head_dim);
            if (straight) {
                float *panels = straight + place.rows_before * round_up(head_dim, width);
                for (uint64_t i = 0; i < here; i++) kernels.pack_straight(rows + i * head_dim, head_dim, width, place.rows * width, panels + (r + i) * width);
            }
        }
    }
    const float *turned_of(int side, uint64_t s, const float *panels) const { return panels + table[s].side[side].panel_rows_before * head_dim; }
    const float *straight_of(int side, uint64_t s, const float *panels) const { return panels + table[s].side[side].rows_before * round_up(head_dim, kernels.tile_rows); }

    // Writes tile_cols turned rows to rows first.. of a head of y.
    void store(const float *turned, const qlora_tensor &y, uint64_t head, uint64_t first, uint64_t count, float *row) const {
        for (uint64_t i = 0; i < count; i++) {
            for (uint64_t d = 0; d < head_dim; d++) row[d] = turned[d * kernels.tile_cols + i];
            kernels.store[type_index(y.type)](row, head_dim, element(y, first + i, head * head_dim));
        }
    }
};

// One worker's space, in floats: rows before packing, and seven tiles.
struct Worker {
    uint64_t rows, x, dy, out0, out1, work, lse, floats;
    Worker(const Kernels &kernels, uint64_t head_dim) {
        const uint64_t tile = round_up(kernels.tile_cols * head_dim, 64), widest = most(kernels.tile_cols, kernels.tile_rows);
        rows = 0;
        x = rows + round_up(widest * head_dim, 64);
        dy = x + tile;
        out0 = dy + tile;
        out1 = out0 + tile;
        work = out1 + tile;
        lse = work + 2 * others * kernels.tile_cols;
        floats = round_up(lse + 2 * kernels.tile_cols, 64);
    }
};

// Floats for the panels of as many heads as the budget takes, at least one of count. Grows with floats, as scratch must.
uint64_t panels_floats(uint64_t floats, uint64_t count) { return least(floats * count, most(floats, pack_budget / 4)); }

} // namespace

// ---- forward --------------------------------------------------------------------------------------------------------

namespace {

struct ForwardPieces {
    uint64_t head_floats, heads, worker, panels, bytes;
    ForwardPieces(const Layout<qlora_attention_args> &layout) {
        head_floats = layout.turned_floats(K) + layout.straight_floats(K);
        const uint64_t floats = panels_floats(head_floats, layout.args.kv_heads);
        heads = floats / most(head_floats, 1);
        worker = layout.table_bytes();
        panels = worker + align_scratch(Worker(layout.kernels, layout.head_dim).floats * 4) * state_of(layout.context).threads;
        bytes = panels + align_scratch(floats * 4);
    }
};

} // namespace

uint64_t attention_scratch(Context &context, const qlora_attention_args &args) { return ForwardPieces(Layout<qlora_attention_args>(context, args)).bytes; }

int32_t attention(Context &context, const qlora_attention_args &args) {
    Layout<qlora_attention_args> layout(context, args);
    const ForwardPieces pieces(layout);
    const Kernels &kernels = layout.kernels;
    const Worker space(kernels, layout.head_dim);
    char *scratch = address<char>(args.scratch);
    QLORA_TRY(layout.build("qlora_attention_forward", reinterpret_cast<Sequence *>(scratch)));
    float *panels = reinterpret_cast<float *>(scratch + pieces.panels), *lse = optional<float>(args.lse);
    const uint64_t blocks = layout.table[layout.count].side[K].blocks_before, tiles = layout.table[layout.count].side[Q].tiles_before;
    auto worker_space = [&](uint32_t worker) { return reinterpret_cast<float *>(scratch + pieces.worker) + worker * (align_scratch(space.floats * 4) / 4); };
    for (uint64_t kv = 0; kv < args.kv_heads; kv += pieces.heads) {
        const uint64_t kv_count = least(pieces.heads, args.kv_heads - kv), head_count = kv_count * layout.group;
        parallel(context, blocks * kv_count, [&](uint64_t unit, uint32_t worker) {
            const uint64_t h = unit / blocks;
            float *turned = panels + h * pieces.head_floats, *straight = turned + layout.turned_floats(K);
            layout.pack(K, unit % blocks, args.k, kv + h, turned, nullptr, worker_space(worker));
            layout.pack(K, unit % blocks, args.v, kv + h, nullptr, straight, worker_space(worker));
        });
        parallel(context, tiles * head_count, [&](uint64_t unit, uint32_t worker) {
            // Late queries see most keys: they go first.
            const uint64_t h = unit % head_count, t = tiles - 1 - unit / head_count, head = kv * layout.group + h;
            const uint64_t s = layout.find(Q, &Side::tiles_before, t);
            const Side &q = layout.table[s].side[Q], &k = layout.table[s].side[K];
            const uint64_t first = (t - q.tiles_before) * kernels.tile_cols, rows = least(kernels.tile_cols, q.rows - first);
            const float *turned = panels + h / layout.group * pieces.head_floats, *straight = turned + layout.turned_floats(K);
            float *own = worker_space(worker), *x = own + space.x, *y = own + space.out0, *sums = own + space.lse;
            layout.load(args.q, head, q.first + first, rows, kernels.tile_cols, own);
            kernels.pack_turned(own, layout.head_dim, layout.head_dim, kernels.tile_cols, x);
            const AttentionTile tile = {args.head_dim, rows, k.rows, int64_t(first), int64_t(k.rows) - int64_t(q.rows), args.scale,
                                        {layout.turned_of(K, s, turned), layout.straight_of(K, s, straight), nullptr, nullptr},
                                        x, nullptr, nullptr, nullptr, {y, nullptr}, own + space.work, args.soft_cap, layout.slope(head), args.window};
            kernels.attention(tile, sums);
            layout.store(y, args.y, head, q.first + first, rows, own);
            for (uint64_t i = 0; lse && i < rows; i++)
                lse[(q.first + first + i) * args.heads + head] = float(double(sums[i]) + std::log(double(sums[kernels.tile_cols + i])));
        });
    }
    return QLORA_OK;
}

// ---- backward -------------------------------------------------------------------------------------------------------

namespace {

struct BackwardPieces {
    uint64_t k_floats, q_floats, heads, worker, lse, panels, bytes;
    BackwardPieces(const Layout<qlora_attention_grad_args> &layout) {
        k_floats = 2 * layout.turned_floats(K) + layout.straight_floats(K);
        q_floats = 2 * layout.turned_floats(Q) + 2 * layout.straight_floats(Q);
        const uint64_t both = most(k_floats, q_floats * layout.group), floats = panels_floats(both, layout.args.kv_heads);
        heads = floats / most(both, 1);
        worker = layout.table_bytes();
        lse = worker + align_scratch(Worker(layout.kernels, layout.head_dim).floats * 4) * state_of(layout.context).threads;
        panels = lse + 2 * align_scratch(layout.args.q.rows * layout.args.heads * 4);
        bytes = panels + align_scratch(floats * 4);
    }
};

} // namespace

uint64_t attention_grad_scratch(Context &context, const qlora_attention_grad_args &args) { return BackwardPieces(Layout<qlora_attention_grad_args>(context, args)).bytes; }

int32_t attention_grad(Context &context, const qlora_attention_grad_args &args) {
    Layout<qlora_attention_grad_args> layout(context, args);
    const BackwardPieces pieces(layout);
    const Kernels &kernels = layout.kernels;
    const Worker space(kernels, layout.head_dim);
    const uint64_t head_dim = layout.head_dim, group = layout.group, q_rows = args.q.rows;
    const uint32_t width = kernels.tile_cols;
    char *scratch = address<char>(args.scratch);
    QLORA_TRY(layout.build("qlora_attention_grad", reinterpret_cast<Sequence *>(scratch)));
    float *panels = reinterpret_cast<float *>(scratch + pieces.panels);
    // By head: lse, and delta = dy . y.
    float *lse = reinterpret_cast<float *>(scratch + pieces.lse), *delta = lse + align_scratch(q_rows * args.heads * 4) / 4;
    const Sequence &all = layout.table[layout.count];
    const uint64_t q_blocks = all.side[Q].blocks_before, k_blocks = all.side[K].blocks_before, q_tiles = all.side[Q].tiles_before, k_tiles = all.side[K].tiles_before;
    auto worker_space = [&](uint32_t worker) { return reinterpret_cast<float *>(scratch + pieces.worker) + worker * (align_scratch(space.floats * 4) / 4); };

    parallel(context, q_blocks * args.heads, [&](uint64_t unit, uint32_t worker) {
        const uint64_t head = unit / q_blocks, block = unit % q_blocks;
        const Side &q = layout.table[layout.find(Q, &Side::blocks_before, block)].side[Q];
        const uint64_t begin = (block - q.blocks_before) * block_rows;
        float *own = worker_space(worker), *other = own + space.x;
        for (uint64_t r = q.first + begin; r < q.first + least(begin + block_rows, q.rows); r++) {
            layout.load(args.dy, head, r, 1, 1, own);
            layout.load(args.y, head, r, 1, 1, other);
            float sum = 0;
            kernels.dots(own, other, head_dim, 1, head_dim, &sum);
            delta[head * q_rows + r] = sum;
            lse[head * q_rows + r] = address<const float>(args.lse)[r * args.heads + head];
        }
    });
    // A tile of rows of x and of dy, turned.
    auto load_tile = [&](const qlora_tensor &x, const qlora_tensor &dy, uint64_t head, uint64_t first, uint64_t rows, float *own) {
        layout.load(x, head, first, rows, width, own);
        kernels.pack_turned(own, head_dim, head_dim, width, own + space.x);
        layout.load(dy, head, first, rows, width, own);
        kernels.pack_turned(own, head_dim, head_dim, width, own + space.dy);
    };

    for (uint64_t kv = 0; kv < args.kv_heads; kv += pieces.heads) {
        const uint64_t kv_count = least(pieces.heads, args.kv_heads - kv), head_count = kv_count * group, head_begin = kv * group;
        parallel(context, k_blocks * kv_count, [&](uint64_t unit, uint32_t worker) {
            const uint64_t h = unit / k_blocks;
            float *k = panels + h * pieces.k_floats, *v = k + layout.turned_floats(K), *straight = v + layout.turned_floats(K);
            layout.pack(K, unit % k_blocks, args.k, kv + h, k, straight, worker_space(worker));
            layout.pack(K, unit % k_blocks, args.v, kv + h, v, nullptr, worker_space(worker));
        });
        parallel(context, q_tiles * head_count, [&](uint64_t unit, uint32_t worker) {
            const uint64_t h = unit % head_count, t = q_tiles - 1 - unit / head_count, head = head_begin + h;
            const uint64_t s = layout.find(Q, &Side::tiles_before, t);
            const Side &q = layout.table[s].side[Q], &k = layout.table[s].side[K];
            const uint64_t first = (t - q.tiles_before) * width, rows = least(width, q.rows - first), row = head * q_rows + q.first + first;
            const float *kp = panels + h / group * pieces.k_floats, *vp = kp + layout.turned_floats(K), *straight = vp + layout.turned_floats(K);
            float *own = worker_space(worker), *sums = own + space.lse;
            load_tile(args.q, args.dy, head, q.first + first, rows, own);
            for (uint64_t i = 0; i < width; i++) {
                sums[i] = i < rows ? lse[row + i] : 0;
                sums[width + i] = i < rows ? delta[row + i] : 0;
            }
            const AttentionTile tile = {args.head_dim, rows, k.rows, int64_t(first), int64_t(k.rows) - int64_t(q.rows), args.scale,
                                        {layout.turned_of(K, s, kp), layout.turned_of(K, s, vp), layout.straight_of(K, s, straight), nullptr},
                                        own + space.x, own + space.dy, sums, sums + width, {own + space.out0, nullptr}, own + space.work, args.soft_cap, layout.slope(head), args.window};
            kernels.attention_dq(tile);
            layout.store(tile.out[0], args.dq, head, q.first + first, rows, own);
        });
        parallel(context, q_blocks * head_count, [&](uint64_t unit, uint32_t worker) {
            const uint64_t h = unit / q_blocks;
            float *q = panels + h * pieces.q_floats, *dy = q + layout.turned_floats(Q), *q_straight = dy + layout.turned_floats(Q), *dy_straight = q_straight + layout.straight_floats(Q);
            layout.pack(Q, unit % q_blocks, args.q, head_begin + h, q, q_straight, worker_space(worker));
            layout.pack(Q, unit % q_blocks, args.dy, head_begin + h, dy, dy_straight, worker_space(worker));
        });
        parallel(context, k_tiles * kv_count, [&](uint64_t unit, uint32_t worker) {
            const uint64_t h = unit % kv_count, t = unit / kv_count; // early keys are seen by most queries
            const uint64_t s = layout.find(K, &Side::tiles_before, t);
            const Side &q = layout.table[s].side[Q], &k = layout.table[s].side[K];
            const uint64_t first = (t - k.tiles_before) * width, rows = least(width, k.rows - first);
            float *own = worker_space(worker);
            load_tile(args.k, args.v, kv + h, k.first + first, rows, own);
            std::memset(own + space.out0, 0, (space.work - space.out0) * sizeof(float));
            for (uint64_t g = h * group; g < (h + 1) * group; g++) {
                const float *qp = panels + g * pieces.q_floats, *dyp = qp + layout.turned_floats(Q), *q_straight = dyp + layout.turned_floats(Q), *dy_straight = q_straight + layout.straight_floats(Q);
                const uint64_t row = (head_begin + g) * q_rows + q.first;
                const AttentionTile tile = {args.head_dim, rows, q.rows, int64_t(first), int64_t(k.rows) - int64_t(q.rows), args.scale,
                                            {layout.turned_of(Q, s, qp), layout.turned_of(Q, s, dyp), layout.straight_of(Q, s, q_straight), layout.straight_of(Q, s, dy_straight)},
                                            own + space.x, own + space.dy, lse + row, delta + row, {own + space.out0, own + space.out1}, own + space.work, args.soft_cap, layout.slope(head_begin + g), args.window};
                kernels.attention_dkv(tile);
            }
            layout.store(own + space.out0, args.dk, kv + h, k.first + first, rows, own);
            layout.store(own + space.out1, args.dv, kv + h, k.first + first, rows, own);
        });
    }
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
