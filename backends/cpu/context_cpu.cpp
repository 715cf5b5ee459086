// The cpu context: picks an instruction set and threads, once; device memory is host memory.
#include "backends/cpu/cpu.h"

#include <cstdio>
#include <cstring>
#include <new>
#include <thread>
#if defined(__linux__)
#include <unistd.h>
#endif

namespace qlora {
namespace cpu {

namespace {

struct IsaRow {
    int32_t isa;
    const char *name;
    const Kernels *(*kernels)();
    const char *(*missing)(); // the first feature that this machine lacks, or null
};

const char *nothing_missing() { return nullptr; }
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
const char *avx2_missing() {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) return "AVX2";
    if (!__builtin_cpu_supports("fma")) return "FMA";
    return nullptr; // every processor with AVX2 has F16C, for which compilers of this age have no test
}
const char *avx512_missing() {
    if (const char *feature = avx2_missing()) return feature;
    if (!__builtin_cpu_supports("avx512f")) return "AVX-512 F";
    if (!__builtin_cpu_supports("avx512bw")) return "AVX-512 BW";
    if (!__builtin_cpu_supports("avx512dq")) return "AVX-512 DQ";
    if (!__builtin_cpu_supports("avx512vl")) return "AVX-512 VL";
    return nullptr;
}
bool has_vnni() { return __builtin_cpu_supports("avx512vnni") != 0; }
bool has_vbmi() { return __builtin_cpu_supports("avx512vbmi") != 0; }
#else
bool has_vnni() { return false; }
bool has_vbmi() { return false; }
const char *avx2_missing() { return "AVX2"; }
const char *avx512_missing() { return "AVX-512"; }
#endif
#if defined(__aarch64__)
const char *neon_missing() { return nullptr; }
#else
const char *neon_missing() { return "NEON"; }
#endif

// Best first.
const IsaRow isa_rows[] = {
    {QLORA_ISA_AVX512, "avx512", avx512_kernels, avx512_missing},
    {QLORA_ISA_AVX2, "avx2", avx2_kernels, avx2_missing},
    {QLORA_ISA_NEON, "neon", neon_kernels, neon_missing},
    {QLORA_ISA_SCALAR, "scalar", scalar_kernels, nothing_missing},
};

const IsaRow *find_isa(int32_t isa) {
    for (const IsaRow &row : isa_rows)
        if (isa == QLORA_ISA_BEST ? row.kernels() && !row.missing() : row.isa == isa) return &row;
    return nullptr;
}

} // namespace

int32_t device_count(uint32_t *count) { *count = 1; return QLORA_OK; }

int32_t create(Context &context, const qlora_context_args &args) {
    if (args.device != 0) return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: device: the cpu backend has only device 0");
    const IsaRow *row = find_isa(args.isa);
    if (!row) return context.fail(QLORA_ERROR_ARGUMENT, "qlora_context_create: isa %d: none of QLORA_ISA_*", args.isa);
    if (const char *feature = row->missing())
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: isa %s: this machine has no %s; use QLORA_ISA_BEST", row->name, feature);
    if (!row->kernels())
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: isa %s: not in this build; use QLORA_ISA_BEST", row->name);
    uint32_t threads = args.threads ? args.threads : std::thread::hardware_concurrency();
    if (threads == 0) threads = 1;
    if (threads > 1024) threads = 1024;
    void *memory = context.allocate(sizeof(State), "state");
    if (!memory) return context.fail(QLORA_ERROR_MEMORY, "qlora_context_create: state: no host memory");
    State *state = new (memory) State();
    state->isa = row->isa;
    state->threads = threads;
    state->kernels = row->kernels();
    state->int8 = row->isa == QLORA_ISA_AVX512 && has_vnni() ? vnni_kernels() : &state->kernels->int8;
    state->optimizer = row->isa == QLORA_ISA_AVX512 && has_vbmi() ? vbmi_kernels() : state->kernels->optimizer;
    if (threads > 1 && !context.host.parallel_for) {
        context.message[0] = 0;
        state->pool = pool_create(context, threads);
        if (!state->pool) {
            context.release(memory, sizeof(State));
            return std::strstr(context.message, "refused") ? QLORA_ERROR_UNAVAILABLE : QLORA_ERROR_MEMORY;
        }
    }
    context.state = state;
    return QLORA_OK;
}

void destroy(Context &context) {
    State *state = static_cast<State *>(context.state);
    pool_destroy(context, state->pool);
    context.release(state, sizeof(State));
}

int32_t query(Context &context, qlora_context_info &info) {
    const State &state = state_of(context);
    info.isa = state.isa;
    info.threads = state.threads;
#if defined(__linux__)
    const uint64_t page = uint64_t(sysconf(_SC_PAGESIZE));
    info.memory_bytes = uint64_t(sysconf(_SC_PHYS_PAGES)) * page;
    info.memory_free_bytes = uint64_t(sysconf(_SC_AVPHYS_PAGES)) * page;
#endif
    std::snprintf(info.name, sizeof info.name, "cpu %s", find_isa(state.isa)->name);
    return QLORA_OK;
}

int32_t synchronize(Context &) { return QLORA_OK; }

int32_t buffer_create(Context &context, qlora_buffer_args &args) {
    // In front of the memory stands its size, which release needs and a caller's span may have lost.
    const size_t bytes = size_t(args.bytes) + scratch_alignment;
    char *memory = bytes < args.bytes ? nullptr : static_cast<char *>(context.allocate(bytes + scratch_alignment, "buffer"));
    if (!memory) return context.fail(QLORA_ERROR_MEMORY, "qlora_buffer_create: bytes: no host memory for %llu", (unsigned long long)args.bytes);
    char *place = memory + scratch_alignment - reinterpret_cast<uintptr_t>(memory) % scratch_alignment;
    if (place - memory < 16) place += scratch_alignment;
    std::memcpy(place - 16, &memory, sizeof memory);
    const uint64_t given = bytes + scratch_alignment;
    std::memcpy(place - 8, &given, sizeof given);
    args.dst = qlora_span{uint64_t(reinterpret_cast<uintptr_t>(place)), 0, args.bytes};
    if (args.flags & QLORA_BUFFER_HOST) args.host = place;
    return QLORA_OK;
}

int32_t buffer_destroy(Context &context, const qlora_buffer_args &args) {
    char *place = reinterpret_cast<char *>(uintptr_t(args.dst.handle)), *memory;
    uint64_t given;
    std::memcpy(&memory, place - 16, sizeof memory);
    std::memcpy(&given, place - 8, sizeof given);
    context.release(memory, size_t(given));
    return QLORA_OK;
}

int32_t buffer_write(Context &, const qlora_buffer_args &args) {
    std::memcpy(address<void>(args.dst), args.host, size_t(args.bytes));
    return QLORA_OK;
}

int32_t buffer_read(Context &, const qlora_buffer_args &args) {
    std::memcpy(args.host, address<void>(args.src), size_t(args.bytes));
    return QLORA_OK;
}

int32_t buffer_copy(Context &, const qlora_buffer_args &args) {
    std::memmove(address<void>(args.dst), address<void>(args.src), size_t(args.bytes));
    return QLORA_OK;
}

int32_t buffer_fill(Context &, const qlora_buffer_args &args) {
    uint32_t *dst = address<uint32_t>(args.dst);
    for (uint64_t i = 0; i < args.bytes / 4; i++) dst[i] = args.pattern;
    return QLORA_OK;
}

int32_t buffer_join(Context &, const qlora_buffer_args &) { return QLORA_OK; } // copies were done when they were called

// Every operation takes every format and type.
bool supports(Context &, uint32_t, int32_t, int32_t) { return true; }

#define QLORA_VTABLE_KIND QLORA_BACKEND_CPU
#define QLORA_VTABLE_NAME "cpu"
#include "backends/vtable.inc"

} // namespace cpu
} // namespace qlora
