#include "tests/support/targets.h"

#include <cstdio>
#include <map>
#include <memory>

namespace test {
namespace {

struct Named {
    const char *name;
    int32_t value;
};
constexpr Named backends[] = {{"ref", QLORA_BACKEND_REF}, {"cpu", QLORA_BACKEND_CPU}, {"cuda", QLORA_BACKEND_CUDA}, {"vulkan", QLORA_BACKEND_VULKAN}};
constexpr Named isas[] = {{"best", QLORA_ISA_BEST}, {"scalar", QLORA_ISA_SCALAR}, {"avx2", QLORA_ISA_AVX2}, {"avx512", QLORA_ISA_AVX512}, {"neon", QLORA_ISA_NEON}};

std::string chosen_backend;
int32_t chosen_device = 0;

void add_if_it_opens(std::vector<Target> &list, const Target &target) {
    try {
        const qlora::Context context = open(target);
        const qlora_context_info info = context.query();
        std::printf("testing  %-12s %s\n", target.name.c_str(), info.name);
        list.push_back(target);
    } catch (const qlora::Error &error) {
        std::printf("SKIPPED  %-12s %s\n", target.name.c_str(), error.what());
    }
}

std::vector<Target> find_targets() {
    std::vector<Target> list;
    for (const Named &backend : backends) {
        if (!chosen_backend.empty() && chosen_backend != backend.name) continue;
        if (backend.value == QLORA_BACKEND_CPU) {
            for (const Named &isa : isas)
                if (isa.value != QLORA_ISA_BEST) add_if_it_opens(list, {std::string("cpu ") + isa.name, backend.value, 0, isa.value});
        } else {
            add_if_it_opens(list, {backend.name, backend.value, chosen_device, 0});
        }
    }
    std::fflush(stdout);
    return list;
}

} // namespace

qlora::Context open(const Target &target, const qlora_context_args *options) {
    auto args = options ? *options : qlora::make<qlora_context_args>();
    args.backend = target.backend;
    args.device = target.device;
    args.isa = target.isa;
    return qlora::Context(args);
}

const std::vector<Target> &targets() {
    static const std::vector<Target> list = find_targets();
    return list;
}

namespace {
std::map<std::string, std::unique_ptr<qlora::Context>> &open_contexts() {
    static std::map<std::string, std::unique_ptr<qlora::Context>> contexts;
    return contexts;
}
} // namespace

qlora::Context &shared_context(const Target &target) {
    std::unique_ptr<qlora::Context> &context = open_contexts()[target.name];
    if (!context) context = std::make_unique<qlora::Context>(open(target));
    return *context;
}

void close_shared_contexts() { open_contexts().clear(); }

const Target &reference() {
    static const Target ref = {"ref", QLORA_BACKEND_REF, 0, 0};
    return ref;
}

int32_t backend_by_name(const std::string &name) {
    for (const Named &backend : backends)
        if (name == backend.name) return backend.value;
    return 0;
}

int32_t isa_by_name(const std::string &name) {
    for (const Named &isa : isas)
        if (name == isa.name) return isa.value;
    return -1;
}

void choose_backend(const std::string &name, int32_t device) {
    chosen_backend = name;
    chosen_device = device;
}

} // namespace test
