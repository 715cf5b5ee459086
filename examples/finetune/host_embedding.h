// The rows of an embedding, delivered by the host from the mapped file: a batch needs few of them, so that the matrix takes
// no memory of the device.
#pragma once

#include "stored_weight.h"

namespace finetune {

class HostEmbedding {
public:
    // `stored` outlives this.
    explicit HostEmbedding(const StoredWeight &stored);

    // The rows of `count` ids times a scale (0: 1) as activations of a type. Valid until the next call.
    const void *gather(const int32_t *ids, uint64_t count, int32_t type, float scale);

private:
    qlora::Context context_;
    qlora::Weight copy_;  // where the file's planes are not aligned for their elements
    qlora_weight weight_;
    std::vector<float> rows_;
};

} // namespace finetune
