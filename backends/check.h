// What the front door asks of every call before a backend sees it: adopts growing structs, fills zero defaults, checks
// shapes, types and spans. Included by qlora.cpp alone.
#pragma once
#include "backends/backend.h"
#include "backends/optimizer.h"
#include "backends/weight_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

namespace qlora {
namespace {

constexpr uint64_t hessian_limit = uint64_t(1) << 28; // of cols, so that bytes can be counted
constexpr uint64_t int8_depth_limit = uint64_t(1) << 17; // 127 * 127 * 2^17 < 2^31: an int32 holds every sum

// Copies a caller's growing struct into a zeroed one of ours. Null when its size cannot be understood.
template <class T> bool adopt(const T *caller, T *own) {
    if (!caller || caller->struct_size < 8) return false;
    const size_t given = caller->struct_size, known = sizeof(T) < given ? sizeof(T) : given;
    const unsigned char *bytes = reinterpret_cast<const unsigned char *>(caller);
    for (size_t i = known; i < given; i++)
        if (bytes[i] != 0) return false;
    std::memset(static_cast<void *>(own), 0, sizeof(T));
    std::memcpy(static_cast<void *>(own), caller, known);
    own->struct_size = sizeof(T);
    return true;
}

// Writes a filled struct back without passing the end of the caller's.
template <class T> void hand_back(const T &own, T *caller) {
    const uint32_t given = caller->struct_size;
    std::memcpy(static_cast<void *>(caller), &own, given < sizeof(T) ? given : sizeof(T));
    caller->struct_size = given;
}

// ---- checks -----------------------------------------------------------------------------------------------------

// One call under way: its context, the entry's name for messages, and what was adopted from nested pointers.
struct Call {
    Context &context;
    const char *entry;
    bool sizes_only; // a question about scratch: spans may be absent
    qlora_weight weight_copy;
    bool nothing_to_do; // no rows

    int32_t error(int32_t status, const char *what, const char *fix) {
        return context.fail(status, "%s: %s: %s", entry, what, fix);
    }
    int32_t flags(uint32_t given, uint32_t allowed) {
        if (given & ~allowed) return context.fail(QLORA_ERROR_ARGUMENT, "%s: flags 0x%x: this call takes only 0x%x", entry, given, allowed);
        return QLORA_OK;
    }
    int32_t span(const qlora_span &span, const char *name, uint64_t bytes, uint64_t alignment, bool optional = false) {
        if (span.handle == 0) {
            if (optional || sizes_only || bytes == 0) return QLORA_OK;
            return error(QLORA_ERROR_ARGUMENT, name, "the span is absent (handle 0); give device memory");
        }
        if (sizes_only) return QLORA_OK;
        const bool vulkan = context.backend->kind == QLORA_BACKEND_VULKAN;
        const uint64_t place = vulkan ? span.offset : span.handle + span.offset;
        if (place % (vulkan ? 4 : alignment))
            return context.fail(QLORA_ERROR_ARGUMENT, "%s: %s: misaligned; its place must be a multiple of %llu bytes", entry, name,
                                (unsigned long long)(vulkan ? 4 : alignment));
        if (span.size < bytes)
            return context.fail(QLORA_ERROR_SHAPE, "%s: %s: the span has %llu bytes, needed are %llu", entry, name,
                                (unsigned long long)span.size, (unsigned long long)bytes);
        return QLORA_OK;
    }
    // type 0 = any of the three.
    int32_t tensor(qlora_tensor &tensor, const char *name, uint64_t rows, uint64_t cols, int32_t type, bool optional = false) {
        if (tensor.type == 0) {
            if (optional) return QLORA_OK;
            return error(QLORA_ERROR_ARGUMENT, name, "the tensor is absent (type 0); set type, rows, cols and data");
        }
        if (tensor.type != QLORA_FORMAT_F32 && tensor.type != QLORA_FORMAT_F16 && tensor.type != QLORA_FORMAT_BF16)
            return error(QLORA_ERROR_FORMAT, name, "type must be QLORA_FORMAT_F32, F16 or BF16");
        if (type && tensor.type != type)
            return error(QLORA_ERROR_FORMAT, name, "type differs from what this call needs; activations share one type");
        if (tensor.rows != rows || tensor.cols != cols)
            return context.fail(QLORA_ERROR_SHAPE, "%s: %s is [%llu][%llu], needed is [%llu][%llu]", entry, name,
                                (unsigned long long)tensor.rows, (unsigned long long)tensor.cols, (unsigned long long)rows,
                                (unsigned long long)cols);
        if (rows >= dimension_limit || cols >= dimension_limit) return error(QLORA_ERROR_SHAPE, name, "rows and cols must be below 2^31");
        if (tensor.stride == 0) tensor.stride = cols;
        if (tensor.stride < cols || tensor.stride >= dimension_limit)
            return error(QLORA_ERROR_SHAPE, name, "stride must be 0, or at least cols and below 2^31");
        const uint64_t elements = rows && cols ? (rows - 1) * tensor.stride + cols : 0;
        const uint32_t bytes = type_bytes(tensor.type);
        return span(tensor.data, name, elements * bytes, bytes);
    }
    // Adopts *weight, fills its defaults, and points weight at the copy.
    int32_t weight(const qlora_weight *&weight) {
        if (!adopt(weight, &weight_copy)) return error(QLORA_ERROR_ARGUMENT, "weight", "null, or struct_size is not understood");
        qlora_weight_layout_info layout;
        const char *why;
        const int32_t status = layout_of(weight_copy, &layout, &why);
        if (status) return error(status, "weight", why);
        const FormatRow *row = format_row(weight_copy.format);
        if (weight_copy.block == 0) weight_copy.block = row->block;
        if (weight_copy.block == 0) weight_copy.block = weight_copy.cols ? uint32_t(weight_copy.cols) : 1;
        if (weight_copy.nested_block == 0) weight_copy.nested_block = row->scale == Scale::TILE ? tile_rows : 256;
        static const char *const plane_names[QLORA_PLANE_COUNT] = {"weight code plane", "weight scale plane", "weight nested plane",
                                                                   "weight offset plane", "weight zero plane", "weight index plane", "weight column plane", "weight outlier plane"};
        for (int i = 0; i < QLORA_PLANE_COUNT; i++) {
            uint64_t alignment = 4;
            if (i == QLORA_PLANE_CODE) alignment = row->scale == Scale::INLINE ? 2 : row->scale == Scale::NONE ? row->block_bytes : 1;
            if (i == QLORA_PLANE_SCALE && row->scale != Scale::F32 && row->scale != Scale::ROW) alignment = row->scale == Scale::GROUP ? 2 : 1;
            if (i == QLORA_PLANE_ZERO) alignment = 1;
            if (i == QLORA_PLANE_OUTLIER || (i == QLORA_PLANE_NESTED && row->scale == Scale::TILE)) alignment = 2;
            if (layout.plane_bytes[i]) QLORA_TRY(span(weight_copy.planes[i], plane_names[i], layout.plane_bytes[i], alignment));
        }
        weight = &weight_copy;
        return QLORA_OK;
    }
    int32_t hessian(const qlora_span &span_, uint64_t cols, uint32_t flags_) {
        const uint64_t bytes = flags_ & QLORA_FLAG_WIDE ? 8 : 4;
        return span(span_, "hessian", cols * cols * bytes, bytes);
    }
    int32_t compute(int32_t &compute_type, int32_t type) {
        if (compute_type == 0) compute_type = type;
        const bool known = compute_type == QLORA_FORMAT_F32 || compute_type == QLORA_FORMAT_F16 || compute_type == QLORA_FORMAT_BF16;
        if (!known || (compute_type != QLORA_FORMAT_F32 && type != QLORA_FORMAT_F32 && compute_type != type))
            return error(QLORA_ERROR_FORMAT, "compute_type", "must be F32, the activations' type, or F16 / BF16 with F32 activations");
        return QLORA_OK;
    }
    // One parameter's own fields; algorithm 0 looks at its gradient alone.
    int32_t parameter(qlora_parameter &parameter, uint32_t i, int32_t algorithm, bool history) {
        for (int32_t *type : {&parameter.value_type, &parameter.gradient_type, &parameter.state_type})
            if (*type == 0) *type = QLORA_FORMAT_F32;
        for (int32_t type : {parameter.value_type, parameter.gradient_type})
            if (type != QLORA_FORMAT_F32 && type != QLORA_FORMAT_F16 && type != QLORA_FORMAT_BF16)
                return context.fail(QLORA_ERROR_FORMAT, "%s: parameters[%u]: value_type and gradient_type must be F32, F16 or BF16", entry, i);
        if (parameter.state_type != QLORA_FORMAT_F32 && parameter.state_type != QLORA_FORMAT_DYN8)
            return context.fail(QLORA_ERROR_FORMAT, "%s: parameters[%u]: state_type must be F32 or DYN8", entry, i);
        if (parameter.flags & ~(QLORA_PARAMETER_NO_DECAY | QLORA_PARAMETER_PAGED))
            return context.fail(QLORA_ERROR_ARGUMENT, "%s: parameters[%u]: flags 0x%x: only QLORA_PARAMETER_NO_DECAY and PAGED are known", entry, i, parameter.flags);
        if (parameter.learning_rate_scale == 0) parameter.learning_rate_scale = 1;
        if (!(parameter.learning_rate_scale - parameter.learning_rate_scale == 0))
            return context.fail(QLORA_ERROR_VALUE, "%s: parameters[%u]: learning_rate_scale must be finite", entry, i);
        if (parameter.count >= UINT64_MAX / 16) return context.fail(QLORA_ERROR_SHAPE, "%s: parameters[%u]: count overflows", entry, i);
        QLORA_TRY(span(parameter.gradient, "parameter gradient", parameter.count * type_bytes(parameter.gradient_type), type_bytes(parameter.gradient_type)));
        if (algorithm == 0) return QLORA_OK;
        QLORA_TRY(span(parameter.value, "parameter value", parameter.count * type_bytes(parameter.value_type), type_bytes(parameter.value_type)));
        static const char *const names[QLORA_STATE_COUNT] = {"parameter state1", "parameter state2", "parameter state3", "parameter absmax1", "parameter absmax2", "parameter absmax3"};
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) {
            const uint32_t alignment = piece < QLORA_STATE_ABSMAX1 && parameter.state_type == QLORA_FORMAT_DYN8 ? 1 : 4;
            QLORA_TRY(span(state_span(parameter, piece), names[piece], state_piece_bytes(algorithm, parameter.state_type, parameter.count, piece), alignment));
        }
        return span(parameter.history, "parameter history", history ? percentile_slots * 4 : 0, 4);
    }
    // Adopts a list of parameters into the context's copies.
    int32_t parameters(const qlora_parameter *&list, uint32_t count, int32_t algorithm, bool history) {
        if (count == 0) { nothing_to_do = true; return QLORA_OK; }
        if (!list || list->struct_size < 8) return error(QLORA_ERROR_ARGUMENT, "parameters", "null, or struct_size is not understood");
        if (count > context.parameter_capacity) {
            void *memory = context.allocate(size_t(count) * sizeof(qlora_parameter), "parameters");
            if (!memory) return error(QLORA_ERROR_MEMORY, "parameters", "no host memory for the list");
            context.release(context.parameters, size_t(context.parameter_capacity) * sizeof(qlora_parameter));
            context.parameters = static_cast<qlora_parameter *>(memory);
            context.parameter_capacity = count;
        }
        const char *place = reinterpret_cast<const char *>(list);
        const size_t step = list->struct_size;
        for (uint32_t i = 0; i < count; i++, place += step) {
            const qlora_parameter *caller = reinterpret_cast<const qlora_parameter *>(place);
            if (caller->struct_size != step || !adopt(caller, &context.parameters[i]))
                return context.fail(QLORA_ERROR_ARGUMENT, "%s: parameters[%u]: struct_size differs from the first's or is not understood", entry, i);
            QLORA_TRY(parameter(context.parameters[i], i, algorithm, history));
        }
        list = context.parameters;
        return QLORA_OK;
    }
};

int32_t check(Call &call, qlora_quantize_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_STOCHASTIC | QLORA_FLAG_SYMMETRIC | QLORA_FLAG_SEARCH)); // of any format
    QLORA_TRY(call.weight(args.weight));
    const FormatRow &row = *format_row(args.weight->format);
    QLORA_TRY(call.flags(args.flags, row.codec == Codec::AFFINE ? QLORA_FLAG_SYMMETRIC | QLORA_FLAG_SEARCH : row.stochastic ? QLORA_FLAG_STOCHASTIC : 0));
    QLORA_TRY(call.tensor(args.src, "src", args.weight->rows, args.weight->cols, 0));
    QLORA_TRY(call.span(args.importance, "importance", args.weight->cols * 4, 4, true));
    QLORA_TRY(call.span(args.not_finite, "not_finite", 8, 8, true));
    if (args.power < QLORA_POWER_FLOOR || args.power > QLORA_POWER_RCEIL) return call.error(QLORA_ERROR_ARGUMENT, "power", "must be one of QLORA_POWER_*");
    call.nothing_to_do = element_count(*args.weight) == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_dequantize_args &args) {
    QLORA_TRY(call.flags(args.flags, 0));
    QLORA_TRY(call.weight(args.weight));
    QLORA_TRY(call.tensor(args.dst, "dst", args.weight->rows, args.weight->cols, 0));
    call.nothing_to_do = element_count(*args.weight) == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_hessian_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_WIDE));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.x.cols, 0));
    if (args.x.cols >= hessian_limit) return call.error(QLORA_ERROR_SHAPE, "x", "cols must be below 2^28");
    QLORA_TRY(call.hessian(args.hessian, args.x.cols, args.flags));
    if (args.batch == 0) args.batch = args.x.rows;
    if (args.count + args.batch < args.count) return call.error(QLORA_ERROR_ARGUMENT, "count, batch", "their sum overflows");
    call.nothing_to_do = args.x.cols == 0 || (args.batch == 0 && args.count != 0);
    return QLORA_OK;
}

int32_t check(Call &call, qlora_quantize_gptq_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_SYMMETRIC | QLORA_FLAG_SEARCH | QLORA_FLAG_ACT_ORDER | QLORA_FLAG_STATIC_GROUPS | QLORA_FLAG_LAGGING | QLORA_FLAG_WIDE));
    QLORA_TRY(call.weight(args.weight));
    const qlora_weight &weight = *args.weight;
    if (format_row(weight.format)->codec != Codec::AFFINE) return call.error(QLORA_ERROR_FORMAT, "weight", "its format must be QLORA_FORMAT_GPTQ2, 3, 4 or 8");
    if (weight.cols >= hessian_limit) return call.error(QLORA_ERROR_SHAPE, "weight", "cols must be below 2^28");
    QLORA_TRY(call.tensor(args.src, "src", weight.rows, weight.cols, 0));
    QLORA_TRY(call.hessian(args.hessian, weight.cols, args.flags));
    QLORA_TRY(call.span(args.outcome, "outcome", sizeof(qlora_gptq_outcome), 8, true));
    const bool scattered = (args.flags & QLORA_FLAG_ACT_ORDER) && !(args.flags & QLORA_FLAG_STATIC_GROUPS) && weight.cols > weight.block;
    if (scattered && !(weight.flags & QLORA_WEIGHT_INDEXED))
        return call.error(QLORA_ERROR_ARGUMENT, "flags", "ACT_ORDER needs a weight with QLORA_WEIGHT_INDEXED, or STATIC_GROUPS as well");
    if (args.damping == 0) args.damping = 0.01f;
    if (!(args.damping > 0 && args.damping - args.damping == 0)) return call.error(QLORA_ERROR_VALUE, "damping", "must be positive and finite, or 0 for 0.01");
    if (args.lag == 0) args.lag = 128;
    call.nothing_to_do = element_count(weight) == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_quantize_spqr_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_SEARCH | QLORA_FLAG_ACT_ORDER | QLORA_FLAG_SIMPLIFIED | QLORA_FLAG_WIDE));
    QLORA_TRY(call.weight(args.weight));
    const qlora_weight &weight = *args.weight;
    if (format_row(weight.format)->codec != Codec::BILEVEL) return call.error(QLORA_ERROR_FORMAT, "weight", "its format must be QLORA_FORMAT_SPQR3 or 4");
    if (weight.cols >= hessian_limit) return call.error(QLORA_ERROR_SHAPE, "weight", "cols must be below 2^28");
    QLORA_TRY(call.tensor(args.src, "src", weight.rows, weight.cols, 0));
    QLORA_TRY(call.hessian(args.hessian, weight.cols, args.flags));
    QLORA_TRY(call.span(args.outcome, "outcome", sizeof(qlora_spqr_outcome), 8, true));
    if (args.damping == 0) args.damping = 0.01f;
    if (!(args.damping > 0 && args.damping - args.damping == 0)) return call.error(QLORA_ERROR_VALUE, "damping", "must be positive and finite, or 0 for 0.01");
    if (args.threshold == 0) args.threshold = 0.2f;
    if (!(args.threshold > 0)) return call.error(QLORA_ERROR_VALUE, "threshold", "must be positive, or 0 for 0.2; infinity means no outliers");
    call.nothing_to_do = element_count(weight) == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_spqr_tensors &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_SPQR_ADDED | QLORA_SPQR_PTCSR));
    QLORA_TRY(call.weight(args.weight));
    const qlora_weight &weight = *args.weight;
    if (weight.format != QLORA_FORMAT_SPQR3 || weight.block != 16 || weight.nested_block != 16)
        return call.error(QLORA_ERROR_FORMAT, "weight", "its format must be QLORA_FORMAT_SPQR3, with block and nested_block 16");
    if (args.in_perm.handle && !(weight.flags & QLORA_WEIGHT_INDEXED)) return call.error(QLORA_ERROR_ARGUMENT, "weight", "in_perm needs one with QLORA_WEIGHT_INDEXED");
    if (weight.cols > 65536) return call.error(QLORA_ERROR_SHAPE, "weight", "the files count columns in 16 bits");
    const uint64_t strips = (weight.rows + 15) / 16;
    QLORA_TRY(call.span(args.dense, "dense", tile_count(weight) * 128, 8));
    if (args.entry_count >= dimension_limit) return call.error(QLORA_ERROR_SHAPE, "entry_count", "must be below 2^31");
    if (args.entry_count) QLORA_TRY(call.span(args.row_offsets, "row_offsets", ((args.flags & QLORA_SPQR_PTCSR ? strips : weight.rows) + 1) * 4, 4));
    QLORA_TRY(call.span(args.col_vals, "col_vals", args.entry_count * 4, 4));
    return call.span(args.in_perm, "in_perm", weight.cols * 2, 2, true);
}

int32_t check(Call &call, qlora_gptq_tensors &args, bool importing) {
    QLORA_TRY(call.flags(args.flags, 0));
    QLORA_TRY(call.weight(args.weight));
    const qlora_weight &weight = *args.weight;
    const FormatRow &row = *format_row(weight.format);
    if (row.codec != Codec::AFFINE) return call.error(QLORA_ERROR_FORMAT, "weight", "its format must be QLORA_FORMAT_GPTQ2, 3, 4 or 8");
    if (args.version > 2) return call.error(QLORA_ERROR_ARGUMENT, "version", "must be 1 or 2, or 0");
    if (args.version == 0 && !importing) args.version = 1;
    if (weight.cols * row.bits % 32 || weight.rows * row.bits % 32)
        return call.error(QLORA_ERROR_SHAPE, "weight", "rows and cols times the bits of a code must be multiples of 32, as the checkpoint packs words");
    QLORA_TRY(call.span(args.qweight, "qweight", stream_bytes(element_count(weight), row.bits), 4));
    QLORA_TRY(call.span(args.qzeros, "qzeros", stream_bytes(group_count(weight) * weight.rows, row.bits), 4));
    QLORA_TRY(call.span(args.scales, "scales", group_count(weight) * weight.rows * 2, 2));
    return call.span(args.g_idx, "g_idx", weight.cols * 4, 4, true);
}

int32_t check(Call &call, qlora_matmul_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE));
    QLORA_TRY(call.weight(args.weight));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.weight->cols, 0));
    QLORA_TRY(call.tensor(args.y, "y", args.x.rows, args.weight->rows, args.x.type));
    call.nothing_to_do = args.x.rows == 0;
    return call.compute(args.compute_type, args.x.type);
}

// What both products in int8 ask of their weight; depth is the number of products in a sum.
int32_t check_int8_weight(Call &call, const qlora_weight *&weight, uint64_t (*depth)(const qlora_weight &)) {
    QLORA_TRY(call.weight(weight));
    if (format_row(weight->format)->codec != Codec::ABSMAX8) return call.error(QLORA_ERROR_FORMAT, "weight", "its format must be QLORA_FORMAT_INT8");
    if (depth(*weight) >= int8_depth_limit) return call.error(QLORA_ERROR_SHAPE, "weight", "the inner dimension must be below 2^17, or int32 sums could overflow");
    return QLORA_OK;
}

int32_t check(Call &call, qlora_int8_matmul_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE));
    QLORA_TRY(check_int8_weight(call, args.weight, [](const qlora_weight &weight) { return weight.cols; }));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.weight->cols, 0));
    QLORA_TRY(call.tensor(args.y, "y", args.x.rows, args.weight->rows, args.x.type));
    QLORA_TRY(call.span(args.bias, "bias", args.weight->rows * 4, 4, true));
    if (!(args.threshold >= 0)) return call.error(QLORA_ERROR_ARGUMENT, "threshold", "must be positive, or 0 for no outliers");
    call.nothing_to_do = args.x.rows == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_int8_matmul_grad_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE));
    QLORA_TRY(check_int8_weight(call, args.weight, [](const qlora_weight &weight) { return weight.rows; }));
    QLORA_TRY(call.tensor(args.dy, "dy", args.dy.rows, args.weight->rows, 0));
    QLORA_TRY(call.tensor(args.dx, "dx", args.dy.rows, args.weight->cols, args.dy.type));
    call.nothing_to_do = args.dy.rows == 0;
    return QLORA_OK;
}

int32_t check(Call &call, qlora_weight_gradient_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE_GRADIENTS));
    const uint64_t tokens = args.dy.rows;
    QLORA_TRY(call.tensor(args.dy, "dy", tokens, args.dw.rows, 0));
    if (args.saved) {
        if (args.x.type) return call.error(QLORA_ERROR_ARGUMENT, "x, saved", "give one of them");
        QLORA_TRY(call.weight(args.saved));
        if (format_row(args.saved->format)->codec != Codec::ABSMAX8) return call.error(QLORA_ERROR_FORMAT, "saved", "its format must be QLORA_FORMAT_INT8");
        if (args.saved->rows != tokens || args.saved->cols != args.dw.cols) return call.error(QLORA_ERROR_SHAPE, "saved", "must have the rows of dy and the cols of dw");
    } else {
        QLORA_TRY(call.tensor(args.x, "x", tokens, args.dw.cols, args.dy.type));
    }
    QLORA_TRY(call.tensor(args.dw, "dw", args.dw.rows, args.dw.cols, 0));
    QLORA_TRY(call.span(args.dbias, "dbias", args.dw.rows * 4, 4, true));
    call.nothing_to_do = args.dw.rows == 0 || (tokens == 0 && (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS));
    return call.compute(args.compute_type, args.dy.type);
}

int32_t check_adapter(Call &call, qlora_tensor &a, qlora_tensor &b, const qlora_weight &weight, float scale) {
    if ((a.type == 0) != (b.type == 0)) return call.error(QLORA_ERROR_ARGUMENT, "a, b", "give both halves of the adapter or none");
    if (a.type == 0) return QLORA_OK;
    if (a.rows == 0 || a.rows > 1024) return call.error(QLORA_ERROR_SHAPE, "a", "the rank (rows of a) must be 1..1024");
    if (!(scale - scale == 0)) return call.error(QLORA_ERROR_VALUE, "scale", "must be finite; it is alpha / rank");
    QLORA_TRY(call.tensor(a, "a", a.rows, weight.cols, 0));
    return call.tensor(b, "b", weight.rows, a.rows, 0);
}

int32_t check(Call &call, qlora_linear_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE));
    QLORA_TRY(call.weight(args.weight));
    QLORA_TRY(call.tensor(args.x, "x", args.x.rows, args.weight->cols, 0));
    QLORA_TRY(call.tensor(args.y, "y", args.x.rows, args.weight->rows, args.x.type));
    QLORA_TRY(check_adapter(call, args.a, args.b, *args.weight, args.scale));
    QLORA_TRY(call.span(args.bias, "bias", args.weight->rows * 4, 4, true));
    QLORA_TRY(call.span(args.xa, "xa", args.x.rows * args.a.rows * 4, 4));
    call.nothing_to_do = args.x.rows == 0;
    return call.compute(args.compute_type, args.x.type);
}

int32_t check(Call &call, qlora_linear_grad_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_ACCUMULATE | QLORA_FLAG_ACCUMULATE_GRADIENTS));
    QLORA_TRY(call.weight(args.weight));
    const uint64_t tokens = args.dy.rows;
    const bool adapter = args.a.type != 0;
    QLORA_TRY(call.tensor(args.dy, "dy", tokens, args.weight->rows, 0));
    QLORA_TRY(check_adapter(call, args.a, args.b, *args.weight, args.scale));
    if (!adapter && (args.da.type || args.db.type)) return call.error(QLORA_ERROR_ARGUMENT, "da, db", "there is no adapter (a and b are absent)");
    const bool needs_x = args.da.type != 0 || (args.db.type != 0 && args.xa.handle == 0);
    QLORA_TRY(call.tensor(args.x, "x", tokens, args.weight->cols, args.dy.type, !needs_x));
    QLORA_TRY(call.tensor(args.dx, "dx", tokens, args.weight->cols, args.dy.type, true));
    QLORA_TRY(call.tensor(args.da, "da", args.a.rows, args.weight->cols, QLORA_FORMAT_F32, true));
    QLORA_TRY(call.tensor(args.db, "db", args.weight->rows, args.a.rows, QLORA_FORMAT_F32, true));
    QLORA_TRY(call.span(args.xa, "xa", tokens * args.a.rows * 4, 4, true));
    QLORA_TRY(call.span(args.dbias, "dbias", args.weight->rows * 4, 4, true));
    call.nothing_to_do = tokens == 0 && (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS);
    return call.compute(args.compute_type, args.dy.type);
}

int32_t check(Call &call, qlora_gradient_norm_args &args) {
    QLORA_TRY(call.flags(args.flags, 0));
    QLORA_TRY(call.parameters(args.parameters, args.parameter_count, 0, false));
    QLORA_TRY(call.span(args.norm, "norm", 4, 4));
    QLORA_TRY(call.span(args.norms, "norms", uint64_t(args.parameter_count) * 4, 4, true));
    if (args.gradient_scale == 0) args.gradient_scale = 1;
    call.nothing_to_do = false; // an empty list has norm 0
    return QLORA_OK;
}

// Zero defaults of an optimizer, and what BITSANDBYTES makes of three of them.
void fill_defaults(qlora_optimizer_args &args) {
    const bool theirs = args.flags & QLORA_FLAG_BITSANDBYTES;
    const int32_t asked = args.algorithm;
    auto fill = [](float &value, float standard) { if (value == 0) value = standard; };
    if (theirs && asked == QLORA_OPTIMIZER_ADAM) args.algorithm = QLORA_OPTIMIZER_ADAMW;
    if (theirs && asked == QLORA_OPTIMIZER_LAMB) { args.algorithm = QLORA_OPTIMIZER_ADAMW; fill(args.max_unorm, 1); }
    if (theirs && asked == QLORA_OPTIMIZER_LARS) { args.algorithm = QLORA_OPTIMIZER_MOMENTUM; fill(args.max_unorm, 0.02f); }
    if (!theirs && asked == QLORA_OPTIMIZER_LARS) fill(args.max_unorm, 0.001f);
    const bool stable = asked == QLORA_OPTIMIZER_STABLE_ADAMW;
    fill(args.gradient_scale, 1);
    fill(args.beta1, asked == QLORA_OPTIMIZER_RMSPROP ? 0.99f : 0.9f);
    fill(args.beta2, stable || asked == QLORA_OPTIMIZER_LION ? 0.99f : 0.999f);
    fill(args.beta3, 0.9999f);
    fill(args.alpha, 5);
    fill(args.epsilon, stable || asked == QLORA_OPTIMIZER_LAMB ? 1e-6f : asked == QLORA_OPTIMIZER_ADAGRAD ? 1e-10f : 1e-8f);
}

// The window is needed where a parameter is paged: two pages at least, each holding a granule of any of them.
int32_t check_pages(Call &call, qlora_optimizer_args &args) {
    uint64_t least = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++)
        if (args.parameters[i].flags & QLORA_PARAMETER_PAGED) least = std::max(least, least_page_bytes(args.algorithm, args.parameters[i].state_type, args.parameters[i].count));
    if (least == 0) return QLORA_OK;
    if (args.page_bytes == 0) args.page_bytes = args.window.handle ? args.window.size / 3 / scratch_alignment * scratch_alignment : least;
    if (args.page_bytes % scratch_alignment || args.page_bytes < least)
        return call.context.fail(QLORA_ERROR_ARGUMENT, "%s: page_bytes %llu: must be a multiple of 256 and at least %llu for these parameters; ask qlora_pager_plan", call.entry,
                                 (unsigned long long)args.page_bytes, (unsigned long long)least);
    return call.span(args.window, "window", 2 * args.page_bytes, 16);
}

int32_t check(Call &call, qlora_optimizer_args &args) {
    QLORA_TRY(call.flags(args.flags, QLORA_FLAG_BITSANDBYTES | QLORA_FLAG_SKIP_STEP | QLORA_FLAG_SKIP_TENSORS | QLORA_FLAG_SKIP_ZEROS | QLORA_FLAG_ZERO_GRADIENTS | QLORA_FLAG_STOCHASTIC));
    if (state_count(args.algorithm) == 0) return call.error(QLORA_ERROR_ARGUMENT, "algorithm", "must be one of QLORA_OPTIMIZER_*");
    if (args.step == 0) return call.error(QLORA_ERROR_ARGUMENT, "step", "counts from 1");
    if (args.flags & QLORA_FLAG_BITSANDBYTES && (args.flags & QLORA_FLAG_STOCHASTIC || args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW))
        return call.error(QLORA_ERROR_ARGUMENT, "flags", "BITSANDBYTES goes neither with STOCHASTIC nor with STABLE_ADAMW, which it does not have");
    if (args.percentile > 99) return call.error(QLORA_ERROR_ARGUMENT, "percentile", "must be 1..99, or 0 for none");
    if (!(args.max_unorm >= 0)) return call.error(QLORA_ERROR_ARGUMENT, "max_unorm", "must be positive, or 0");
    fill_defaults(args);
    if (args.max_unorm > 0 && args.algorithm != QLORA_OPTIMIZER_ADAMW && args.algorithm != QLORA_OPTIMIZER_ADAM && args.algorithm != QLORA_OPTIMIZER_MOMENTUM &&
        args.algorithm != QLORA_OPTIMIZER_RMSPROP && args.algorithm != QLORA_OPTIMIZER_LARS)
        return call.error(QLORA_ERROR_ARGUMENT, "max_unorm", "is for ADAMW, ADAM, MOMENTUM, RMSPROP and LARS (with BITSANDBYTES also LAMB); use 0");
    for (float beta : {args.beta1, args.beta2, args.beta3})
        if (!(beta > 0 && beta < 1)) return call.error(QLORA_ERROR_ARGUMENT, "beta1, beta2, beta3", "must lie between 0 and 1");
    for (float value : {args.learning_rate, args.epsilon, args.weight_decay, args.gradient_scale, args.max_norm, args.alpha, args.max_unorm})
        if (!(value - value == 0)) return call.error(QLORA_ERROR_VALUE, "hyper-parameters", "must be finite");
    QLORA_TRY(call.parameters(args.parameters, args.parameter_count, args.algorithm, args.percentile != 0));
    const uint64_t list_bytes = uint64_t(args.parameter_count) * 4;
    QLORA_TRY(call.span(args.norm, "norm (SKIP_STEP needs it)", 4, 4, !(args.flags & QLORA_FLAG_SKIP_STEP)));
    QLORA_TRY(call.span(args.norms, "norms (SKIP_TENSORS and percentile need it)", list_bytes, 4, !(args.flags & QLORA_FLAG_SKIP_TENSORS) && args.percentile == 0));
    QLORA_TRY(call.span(args.skipped, "skipped", list_bytes, 4, true));
    QLORA_TRY(call.span(args.factors, "factors", list_bytes, 4, true));
    return check_pages(call, args);
}

} // namespace
} // namespace qlora
