// Checkpoints of a run: folders DIR/step-00000120, each complete or not there. One is filled under another name, flushed to
// the disk and renamed; one that goes is renamed before its files are removed. A kill at any moment leaves whole ones.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

class Checkpoints {
public:
    // Creates the folder, and removes what an earlier process left half done.
    explicit Checkpoints(const std::string &folder);

    std::string path(uint64_t step) const;
    std::vector<uint64_t> steps() const; // complete ones, rising

    // `fill` writes files into the folder that it is given. A step that is there already stays as it is.
    void write(uint64_t step, const std::function<void(const std::string &)> &fill);
    // Removes all but the last `keep` and `best`.
    void prune(uint32_t keep, std::optional<uint64_t> best);
    // One that cannot be read gets the name damaged-step-..., for someone to look at.
    void set_aside(uint64_t step);

private:
    void discard(uint64_t step);

    std::string folder_;
};

} // namespace finetune
