// Column sums in two levels: chunks of rows into scratch, then the chunks in order.
#include "backends/vulkan/sums_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint64_t chunk_rows = 128;

int32_t enqueue_level(Context &context, uint64_t stream, const ColumnSum &job, uint64_t chunk, Order order) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, dy_stride, x_stride, chunk;
    };
    const uint64_t rows = job.dy.rows, cols = job.dy.cols, chunks = rows ? groups_of(rows, chunk) : 1;
    QLORA_TRY(check_elements(context, "column sums", rows * job.dy.stride));
    const Push push = {{}, uint32_t(rows), uint32_t(cols), uint32_t(job.dy.stride), uint32_t(job.x.stride), uint32_t(chunk)};
    return enqueue(context, stream, Shader::column_sum, {uint32_t(job.dy.type), job.x.type != 0, job.accumulate, job.centers.handle != 0},
                   {exact(job.dy), exact(job.x), part(job.rstd, 0, rows * 4), job.sum, job.centers}, push, chunks * groups_of(cols, 64), order);
}

} // namespace

uint64_t column_sum_scratch(uint64_t rows, uint64_t cols) { return rows > chunk_rows ? align_scratch(groups_of(rows, chunk_rows) * cols * 4) : 0; }

int32_t enqueue_column_sum(Context &context, uint64_t stream, const ColumnSum &job, const qlora_span &partial, Order order) {
    if (job.dy.rows <= chunk_rows) return enqueue_level(context, stream, job, chunk_rows, order);
    const uint64_t chunks = groups_of(job.dy.rows, chunk_rows);
    ColumnSum first = job;
    first.sum = partial;
    first.accumulate = false;
    QLORA_TRY(enqueue_level(context, stream, first, chunk_rows, order));
    const ColumnSum second = {float_tensor(partial, chunks, job.dy.cols), qlora_tensor{}, qlora_span{}, job.sum, job.accumulate};
    return enqueue_level(context, stream, second, chunks, Order::AFTER_PREVIOUS);
}

} // namespace vulkan
} // namespace qlora
