#include "step_graphs.h"

#include "report.h"

#include <algorithm>

namespace finetune {
namespace {

// Of device memory that a driver takes for what one operation enqueues: about 14 KiB a kernel, copy or fill (driver 580, H100), of
// which an operation has up to three and a half. It takes whole granules.
const uint64_t operation_bytes = uint64_t(48) << 10, granule = uint64_t(2) << 20;

} // namespace

StepGraphs::StepGraphs(Device &device, const std::vector<BatchShape> &shapes, uint64_t operations) : device_(&device) {
    if (!device.records()) return;
    for (const BatchShape &shape : shapes) {
        entries_.emplace_back();
        entries_.back().shape = shape;
    }
    room_ = entries_.size() * (operations * operation_bytes / granule + 1) * granule;
    device.set_aside("recorded steps", room_);
}

bool StepGraphs::record(Entry &entry, const std::function<void()> &work) {
    device_->took_beside(0 - entry.graph.device_bytes());
    entry.graph = qlora::Graph();
    try {
        entry.graph = device_->record(work);
    } catch (const qlora::Error &error) {
        failure_ = error.what();
        return false;
    }
    const uint64_t taken = use().bytes;
    if (taken > room_) {
        failure_ = readable_bytes(taken) + " taken by the driver for them, " + readable_bytes(room_) + " were set aside";
        entry.graph = qlora::Graph();
        return false;
    }
    device_->took_beside(entry.graph.device_bytes());
    entry.recorded = entry.last;
    return true;
}

void StepGraphs::run(const BatchShape &shape, float scale, const std::function<void()> &work) {
    ++batches_;
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry &entry) { return entry.shape == shape; });
    if (found == entries_.end() || !failure_.empty()) return work();
    Entry &entry = *found;
    const Given given = {scale, device_->scratch_place()};
    const bool again = entry.seen && entry.last == given, ready = entry.graph.nodes() > 0 && entry.recorded == given;
    entry.seen = true;
    entry.last = given;
    if (!ready && (!again || !record(entry, work))) return work();
    if (ready) ++replayed_;
    entry.graph.launch();
}

StepGraphs::Use StepGraphs::use() const {
    Use use;
    use.replayed = replayed_;
    use.batches = batches_;
    use.failure = failure_;
    for (const Entry &entry : entries_) {
        use.graphs += entry.graph.nodes() > 0;
        use.nodes += entry.graph.nodes();
        use.bytes += entry.graph.device_bytes();
    }
    return use;
}

} // namespace finetune
