// dst = W, in octets where rows are whole octets.
#include "backends/vulkan/weight_vulkan.h"

namespace qlora {
namespace vulkan {

int32_t enqueue_dequantize(Context &context, uint64_t stream, const char *entry, const qlora_weight &weight, uint64_t weight_stride, const Gather &gather, const qlora_tensor &dst) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, weight_rows, weight_stride, stride, weight_factor;
        float scale;
    };
    QLORA_TRY(check_elements(context, entry, weight.rows * weight_stride));
    QLORA_TRY(check_elements(context, entry, dst.rows * dst.stride));
    const bool octets = dst.cols % 8 == 0 && weight_stride % 8 == 0;
    const WeightSpans planes = spans_of(weight);
    Constants constants = constants_of(weight);
    constants.add({uint32_t(dst.type), gather.ids.handle != 0, octets, octets && vectors(dst) && !gather.accumulate, gather.scale != 1, gather.accumulate});
    const Push push = {{}, uint32_t(dst.rows), uint32_t(dst.cols), uint32_t(weight.rows), uint32_t(weight_stride), uint32_t(dst.stride), factor_bits(weight), gather.scale};
    Spans spans = {code_span(weight, weight_stride), planes.scale, planes.nested, planes.offset, exact(dst), gather.ids};
    put_sparse(spans, weight);
    return enqueue(context, stream, shader_for(weight, Shader::dequantize, Shader::dequantize_blocks, Shader::dequantize_affine, Shader::dequantize_bilevel), constants, spans, push, groups_of(dst.rows * groups_of(dst.cols, octets ? 8 : 2), 256));
}

uint64_t dequantize_scratch(Context &, const qlora_dequantize_args &) { return 0; }

int32_t dequantize(Context &context, const qlora_dequantize_args &args) {
    return enqueue_dequantize(context, args.stream, "qlora_weight_dequantize", *args.weight, args.weight->cols, Gather{}, args.dst);
}

} // namespace vulkan
} // namespace qlora
