#include "host_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace finetune {
namespace {

// The number on a file's line that begins with `name`; 0 where there is none.
uint64_t number_of(const char *path, const char *name) {
    FILE *file = fopen(path, "r");
    if (file == nullptr) return 0;
    char line[256];
    unsigned long long value = 0;
    while (fgets(line, sizeof line, file) != nullptr)
        if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), "%llu", &value) == 1) break;
    fclose(file);
    return value;
}

} // namespace

uint64_t free_host_memory() {
    const uint64_t machine = number_of("/proc/meminfo", "MemAvailable:") * 1024; // KiB
    // A container sees its own group at the top. Mapped files count as used there but give way.
    const uint64_t most = number_of("/sys/fs/cgroup/memory.max", ""), used = number_of("/sys/fs/cgroup/memory.current", "");
    const uint64_t files = number_of("/sys/fs/cgroup/memory.stat", "file ");
    if (machine == 0 || most == 0) return machine;
    return std::min(machine, most - std::min(most, used - std::min(used, files)));
}

} // namespace finetune
