// Batches of the shapes that come most often, recorded once and replayed: forward and backward in one call instead of hundreds.
// What a batch holds is read from the same places each time; what its operations are given by value is its shape, the scale of
// its gradients, and where things lie.
#pragma once

#include "batch.h"
#include "device.h"

#include <functional>

namespace finetune {

class StepGraphs {
public:
    StepGraphs() = default;
    // `operations` of the library make the work of a batch. Counts the memory of all graphs in the device's plan.
    StepGraphs(Device &device, const std::vector<BatchShape> &shapes, uint64_t operations);

    // What work() enqueues, by itself or from a graph: the first batch of a shape loads kernels, the second is recorded. With
    // another scale than its graph's a batch goes by itself, and when that scale comes again it is recorded anew.
    void run(const BatchShape &shape, float scale, const std::function<void()> &work);

    struct Use {
        uint64_t graphs = 0, nodes = 0, bytes = 0, replayed = 0, batches = 0;
        std::string failure; // why there are no more of them, if so
    };
    Use use() const;

private:
    struct Given {
        float scale = 0;
        uint64_t scratch_place = 0;
        bool operator==(const Given &o) const { return scale == o.scale && scratch_place == o.scratch_place; }
    };
    struct Entry {
        BatchShape shape;
        Given last, recorded;
        bool seen = false;
        qlora::Graph graph;
    };
    // False when there can be no more graphs.
    bool record(Entry &entry, const std::function<void()> &work);

    Device *device_ = nullptr;
    std::vector<Entry> entries_;
    uint64_t room_ = 0, replayed_ = 0, batches_ = 0;
    std::string failure_;
};

} // namespace finetune
