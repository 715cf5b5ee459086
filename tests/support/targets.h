// The contexts that tests run on: ref, the CPU with each instruction set this machine has, and the devices found.
#pragma once
#include "cpp/qlora.hpp"

#include <string>
#include <vector>

namespace test {

struct Target {
    std::string name; // "cpu avx2"
    int32_t backend, device, isa;
};

// Opens a new context; options, when given, supply everything but backend, device and isa.
qlora::Context open(const Target &target, const qlora_context_args *options = nullptr);

// Targets of the backend that was asked for (every backend when none was), in the order ref, cpu, cuda, vulkan. What
// cannot run here is printed once, with the library's own reason.
const std::vector<Target> &targets();
// One context per target, kept open.
qlora::Context &shared_context(const Target &target);
// Before main returns: a driver's own exit handlers may run before the destructors of statics.
void close_shared_contexts();
const Target &reference();

// "cpu" -> QLORA_BACKEND_CPU; 0 when there is no such name. "avx2" -> QLORA_ISA_AVX2; -1.
int32_t backend_by_name(const std::string &name);
int32_t isa_by_name(const std::string &name);

// Restricts targets(); the name of a backend, or empty. main() sets it from --backend or QLORA_TEST_BACKEND.
void choose_backend(const std::string &name, int32_t device);

// For ctest: this run had nothing to run on.
constexpr int skip_code = 77;

} // namespace test
