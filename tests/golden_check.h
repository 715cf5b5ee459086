// The parts of golden_check.
#pragma once
#include "cpp/qlora.hpp"
#include "tests/support/safetensors.h"

#include <map>
#include <set>
#include <string>

namespace test {

struct OptimizerTally {
    uint64_t groups = 0, failures = 0, codes = 0, neighbours = 0; // codes one step off
};

// Every opt8.* and opt32.* group of a file: each golden step is run from the golden state before it. metadata is the file's,
// with hyper-parameters in "hyper". Names of the tensors used go into seen.
OptimizerTally check_optimizers(const qlora::Context &context, const std::map<std::string, SafeTensor> &tensors, const std::map<std::string, std::string> &metadata, std::set<std::string> &seen);

} // namespace test
