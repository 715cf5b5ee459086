// Rows to signed bytes: absmax first, then codes.
#include "backends/vulkan/int8_vulkan.h"

namespace qlora {
namespace vulkan {

int32_t enqueue_row_codes(Context &context, uint64_t stream, const char *entry, const RowCodes &job) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, x_stride, padded, threshold;
    };
    const qlora_tensor &x = job.x;
    QLORA_TRY(check_elements(context, entry, x.rows * x.stride));
    QLORA_TRY(check_elements(context, entry, x.rows * job.padded));
    const bool fold = job.fold != nullptr, marks = job.threshold > 0;
    const qlora_span scales = fold ? spans_of(*job.fold).scale : qlora_span{};
    const Constants constants = {uint32_t(x.type), fold, fold && one_scale(*job.fold), marks};
    Push push = {{}, uint32_t(x.rows), uint32_t(x.cols), uint32_t(x.stride), uint32_t(job.padded), 0};
    std::memcpy(&push.threshold, &job.threshold, sizeof push.threshold);
    QLORA_TRY(enqueue(context, stream, Shader::row_absmax, constants, {exact(x), scales, job.outliers, job.one ? job.maxima : job.absmax, job.inverse}, push, x.rows));
    if (job.one) // the largest of the largest, as a row of its own
        QLORA_TRY(enqueue(context, stream, Shader::row_absmax, {uint32_t(QLORA_FORMAT_F32), 0, 0, 0}, {job.maxima, qlora_span{}, qlora_span{}, job.absmax, job.inverse},
                          Push{{}, 1, uint32_t(x.rows), uint32_t(x.rows), 0, 0}, 1));
    Constants writes = constants;
    writes.add({job.one});
    return enqueue(context, stream, Shader::row_codes, writes, {exact(x), scales, job.outliers, job.inverse, job.codes}, push, groups_of(x.rows * job.padded, 1024));
}

} // namespace vulkan
} // namespace qlora
