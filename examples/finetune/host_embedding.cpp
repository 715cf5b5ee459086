#include "host_embedding.h"

#include "device.h"

namespace finetune {
namespace {

qlora_span span_of(const void *data, uint64_t bytes) { return {reinterpret_cast<uint64_t>(data), 0, bytes}; }

} // namespace

HostEmbedding::HostEmbedding(const StoredWeight &stored)
    : context_(QLORA_BACKEND_CPU), weight_(weight_shape(stored)) {
    auto layout = qlora::make<qlora_weight_layout_info>();
    bool aligned = stored.gptq.qweight == nullptr;
    qlora_weight_layout(&weight_, &layout);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) {
        weight_.planes[plane] = span_of(stored.planes[plane], layout.plane_bytes[plane]);
        aligned = aligned && reinterpret_cast<uint64_t>(stored.planes[plane]) % 4 == 0;
    }
    if (aligned) return;
    copy_ = upload_weight(context_, stored);
    weight_ = *copy_.get();
}

const void *HostEmbedding::gather(const int32_t *ids, uint64_t count, int32_t type, float scale) {
    rows_.resize((count * weight_.cols * type_bytes(type) + 3) / 4);
    auto args = qlora::make<qlora_embedding_args>();
    args.weight = &weight_;
    args.ids = span_of(ids, count * 4);
    args.scale = scale;
    args.y = qlora::tensor(type, count, weight_.cols, span_of(rows_.data(), rows_.size() * 4));
    const qlora::Buffer scratch(context_, context_.operation_scratch(QLORA_OP_EMBEDDING, args));
    args.scratch = scratch.span();
    context_.embedding_gather(args);
    return rows_.data();
}

} // namespace finetune
