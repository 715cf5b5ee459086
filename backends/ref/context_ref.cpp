// Host memory as device memory, and every operation of the table.
#include "backends/ref/ref.h"

#include <cstdio>

namespace qlora {
namespace ref {

int32_t device_count(uint32_t *count) {
    *count = 1;
    return QLORA_OK;
}

int32_t create(Context &context, const qlora_context_args &args) {
    if (args.device != 0) return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: ref has only device 0");
    return QLORA_OK;
}

void destroy(Context &) {}

int32_t query(Context &, qlora_context_info &info) {
    info.threads = 1;
    info.isa = QLORA_ISA_SCALAR;
    std::snprintf(info.name, sizeof info.name, "ref (double)");
    return QLORA_OK;
}

int32_t synchronize(Context &) { return QLORA_OK; }

int32_t buffer_create(Context &context, qlora_buffer_args &args) {
    // The size stands in front of the data, since release wants it back.
    constexpr uint64_t front = 256;
    if (args.bytes > SIZE_MAX - front) return context.fail(QLORA_ERROR_MEMORY, "qlora_buffer_create: %llu bytes cannot be addressed", (unsigned long long)args.bytes);
    char *memory = static_cast<char *>(context.allocate(size_t(args.bytes + front), "buffer", front));
    if (!memory) return context.fail(QLORA_ERROR_MEMORY, "qlora_buffer_create: no host memory for %llu bytes", (unsigned long long)args.bytes);
    std::memcpy(memory, &args.bytes, 8);
    args.dst = qlora_span{uint64_t(reinterpret_cast<uintptr_t>(memory + front)), 0, args.bytes};
    if (args.flags & QLORA_BUFFER_HOST) args.host = memory + front;
    return QLORA_OK;
}

int32_t buffer_destroy(Context &context, const qlora_buffer_args &args) {
    char *memory = reinterpret_cast<char *>(uintptr_t(args.dst.handle)) - 256;
    uint64_t bytes;
    std::memcpy(&bytes, memory, 8);
    context.release(memory, size_t(bytes + 256));
    return QLORA_OK;
}

int32_t buffer_write(Context &, const qlora_buffer_args &args) {
    std::memcpy(address<void>(args.dst), args.host, size_t(args.bytes));
    return QLORA_OK;
}

int32_t buffer_read(Context &, const qlora_buffer_args &args) {
    std::memcpy(args.host, address<const void>(args.src), size_t(args.bytes));
    return QLORA_OK;
}

int32_t buffer_copy(Context &, const qlora_buffer_args &args) {
    std::memmove(address<void>(args.dst), address<const void>(args.src), size_t(args.bytes));
    return QLORA_OK;
}

int32_t buffer_fill(Context &, const qlora_buffer_args &args) {
    for (uint64_t i = 0; i < args.bytes / 4; i++) std::memcpy(address<char>(args.dst) + i * 4, &args.pattern, 4);
    return QLORA_OK;
}

int32_t buffer_join(Context &, const qlora_buffer_args &) { return QLORA_OK; } // copies were done when they were called

bool supports(Context &, uint32_t, int32_t, int32_t) { return true; }

#define QLORA_VTABLE_KIND QLORA_BACKEND_REF
#define QLORA_VTABLE_NAME "ref"
#include "backends/vtable.inc"

} // namespace ref
} // namespace qlora
