// Lists of tensors travel in kernel parameters, in batches: nothing of the host is read when a captured graph runs.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr int list_batch = 48, list_chunk = 8192; // tensors per launch; elements per block

struct ListEntry {
    float *value, *state1, *state2;
    const float *gradient;
    int64_t count;
    float rate_scale;
    int32_t blocks_before; // of this batch, by the tensors before this one
};

struct TensorList {
    ListEntry entries[list_batch];
    int32_t count;
    int64_t blocks, first_block; // of this batch; of all batches before it
    // The tensor that block works on, and its first element.
    __device__ __forceinline__ int find(int64_t block, int64_t &begin) const {
        int low = 0, high = count - 1;
        while (low < high) {
            const int middle = (low + high + 1) / 2;
            if (entries[middle].blocks_before <= block) low = middle;
            else high = middle - 1;
        }
        begin = (block - entries[low].blocks_before) * list_chunk;
        return low;
    }
};

inline uint64_t list_blocks(uint64_t elements) { return ceil_divide(elements, list_chunk); }

// Calls run(list, index of the first parameter) for every batch.
template <class Run> int32_t each_batch(const qlora_parameter *parameters, uint32_t count, Run &&run) {
    int64_t first_block = 0;
    for (uint32_t first = 0; first < count; first += list_batch) {
        TensorList list = {};
        list.first_block = first_block;
        for (; list.count < list_batch && first + list.count < count; list.count++) {
            const qlora_parameter &parameter = parameters[first + list.count];
            list.entries[list.count] = ListEntry{address<float>(parameter.value), address<float>(parameter.state1), address<float>(parameter.state2),
                                                 address<const float>(parameter.gradient), int64_t(parameter.count), parameter.learning_rate_scale, int32_t(list.blocks)};
            list.blocks += int64_t(list_blocks(parameter.count));
        }
        first_block += list.blocks;
        QLORA_TRY(run(list, first));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
