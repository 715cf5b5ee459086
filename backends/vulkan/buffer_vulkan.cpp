// Buffers: device memory behind a VkBuffer each, and the ways in and out through a batch's staging memory.
#include "backends/vulkan/device_vulkan.h"

#include <cstring>

namespace qlora {
namespace vulkan {
namespace {

constexpr VkBufferUsageFlags usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;

// The first memory type of the wanted kind; UINT32_MAX when there is none.
uint32_t memory_type(const State &state, uint32_t allowed, VkMemoryPropertyFlags wanted) {
    for (uint32_t i = 0; i < state.memory.memoryTypeCount; i++)
        if ((allowed >> i & 1) && (state.memory.memoryTypes[i].propertyFlags & wanted) == wanted) return i;
    return UINT32_MAX;
}

uint32_t best_memory_type(const State &state, uint32_t allowed, bool host) {
    constexpr VkMemoryPropertyFlags visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags choices[] = {host ? visible | VK_MEMORY_PROPERTY_HOST_CACHED_BIT : VkMemoryPropertyFlags(VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT),
                                             host ? visible : VkMemoryPropertyFlags(0)};
    for (VkMemoryPropertyFlags wanted : choices) {
        const uint32_t type = memory_type(state, allowed, wanted);
        if (type != UINT32_MAX) return type;
    }
    return UINT32_MAX;
}

int32_t allocate_parts(Context &context, uint64_t bytes, bool host, Allocation *allocation) {
    State &state = state_of(context);
    VkBufferCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
    info.size = bytes;
    info.usage = usage;
    const uint32_t families[2] = {state.family, state.beside.family};
    if (state.owned && families[0] != families[1]) { // any buffer may be copied beside
        info.sharingMode = VK_SHARING_MODE_CONCURRENT;
        info.queueFamilyIndexCount = 2;
        info.pQueueFamilyIndices = families;
    }
    QLORA_VULKAN_TRY(context, state.vk, CreateBuffer, state.device, &info, nullptr, &allocation->buffer);
    VkMemoryRequirements needs;
    state.vk.GetBufferMemoryRequirements(state.device, allocation->buffer, &needs);
    VkMemoryAllocateInfo memory = {};
    memory.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
    memory.allocationSize = needs.size;
    memory.memoryTypeIndex = best_memory_type(state, needs.memoryTypeBits, host);
    if (memory.memoryTypeIndex == UINT32_MAX) return context.fail(QLORA_ERROR_DEVICE, "vulkan: the device has no suitable memory type");
    QLORA_VULKAN_TRY(context, state.vk, AllocateMemory, state.device, &memory, nullptr, &allocation->memory);
    QLORA_VULKAN_TRY(context, state.vk, BindBufferMemory, state.device, allocation->buffer, allocation->memory, 0);
    return QLORA_OK;
}

int32_t map_memory(Context &context, const Allocation &allocation, void **memory) {
    State &state = state_of(context);
    QLORA_VULKAN_TRY(context, state.vk, MapMemory, state.device, allocation.memory, 0, VK_WHOLE_SIZE, 0, memory);
    return QLORA_OK;
}

} // namespace

int32_t allocate_buffer(Context &context, uint64_t bytes, bool host, Allocation *allocation) {
    *allocation = Allocation{};
    const int32_t status = allocate_parts(context, bytes, host, allocation);
    if (status != QLORA_OK) {
        free_buffer(state_of(context), *allocation);
        *allocation = Allocation{};
    }
    return status;
}

void free_buffer(State &state, const Allocation &allocation) {
    if (allocation.buffer) state.vk.DestroyBuffer(state.device, allocation.buffer, nullptr);
    if (allocation.memory) state.vk.FreeMemory(state.device, allocation.memory, nullptr);
}

int32_t buffer_create(Context &context, qlora_buffer_args &args) {
    State &state = state_of(context);
    if (args.bytes > UINT64_MAX / 2) return context.fail(QLORA_ERROR_MEMORY, "qlora_buffer_create: %llu bytes: more than any device has", (unsigned long long)args.bytes);
    Allocation allocation;
    // Whole words for shaders, which read 16-bit elements through them.
    const bool host = args.flags & QLORA_BUFFER_HOST;
    QLORA_TRY(allocate_buffer(context, align_scratch(args.bytes), host, &allocation));
    if (host) {
        const int32_t status = map_memory(context, allocation, &args.host); // unmapped as it is freed
        if (status != QLORA_OK) {
            free_buffer(state, allocation);
            return status;
        }
    }
    if (!state.buffers.push(context, allocation, "vulkan buffers")) {
        free_buffer(state, allocation);
        return context.fail(QLORA_ERROR_MEMORY, "qlora_buffer_create: no host memory to remember the buffer");
    }
    args.dst = qlora_span{handle_of(allocation.buffer), 0, args.bytes};
    return QLORA_OK;
}

int32_t buffer_destroy(Context &context, const qlora_buffer_args &args) {
    State &state = state_of(context);
    for (uint32_t i = 0; i < state.buffers.count; i++) {
        const Allocation allocation = state.buffers.data[i];
        if (handle_of(allocation.buffer) != args.dst.handle) continue;
        int32_t status = finish(context);
        if (status == QLORA_OK) status = finish_lanes(context);
        state.buffers.data[i] = state.buffers.data[--state.buffers.count];
        free_buffer(state, allocation);
        return status;
    }
    return context.fail(QLORA_ERROR_ARGUMENT, "qlora_buffer_destroy: dst: not a buffer of this context; pass what qlora_buffer_create gave");
}

int32_t buffer_write(Context &context, const qlora_buffer_args &args) {
    State &state = state_of(context);
    for (uint64_t done = 0; done < args.bytes;) {
        const uint64_t bytes = args.bytes - done < staging_bytes ? args.bytes - done : staging_bytes;
        VkCommandBuffer commands;
        QLORA_TRY(begin(context, 0, bytes, &commands));
        Batch &batch = state.batches[state.current];
        const VkBufferCopy copy = {state.current * staging_bytes + batch.staged, args.dst.offset + done, bytes};
        std::memcpy(state.staging_memory + copy.srcOffset, static_cast<const char *>(args.host) + done, size_t(bytes));
        barrier(state, commands);
        state.vk.CmdCopyBuffer(commands, state.staging.buffer, buffer_of(args.dst.handle), 1, &copy);
        batch.staged += align_scratch(bytes);
        done += bytes;
    }
    return QLORA_OK;
}

int32_t buffer_read(Context &context, const qlora_buffer_args &args) {
    State &state = state_of(context);
    for (uint64_t done = 0; done < args.bytes;) {
        const uint64_t bytes = args.bytes - done < staging_bytes ? args.bytes - done : staging_bytes;
        VkCommandBuffer commands;
        QLORA_TRY(begin(context, 0, bytes, &commands));
        Batch &batch = state.batches[state.current];
        const VkBufferCopy copy = {args.src.offset + done, state.current * staging_bytes + batch.staged, bytes};
        barrier(state, commands);
        state.vk.CmdCopyBuffer(commands, buffer_of(args.src.handle), state.staging.buffer, 1, &copy);
        batch.staged += align_scratch(bytes);
        QLORA_TRY(finish(context));
        std::memcpy(static_cast<char *>(args.host) + done, state.staging_memory + copy.dstOffset, size_t(bytes));
        done += bytes;
    }
    return QLORA_OK;
}

int32_t buffer_copy(Context &context, const qlora_buffer_args &args) {
    State &state = state_of(context);
    if (args.src.handle == args.dst.handle && args.src.offset < args.dst.offset + args.bytes && args.dst.offset < args.src.offset + args.bytes)
        return context.fail(QLORA_ERROR_ARGUMENT, "qlora_buffer_copy: src, dst: they overlap; copy through another buffer");
    if (args.flags & QLORA_BUFFER_BESIDE && state.beside.ready && !args.stream) return copy_beside(context, args);
    VkCommandBuffer commands;
    QLORA_TRY(begin(context, args.stream, 0, &commands));
    const VkBufferCopy copy = {args.src.offset, args.dst.offset, args.bytes};
    barrier(state, commands);
    state.vk.CmdCopyBuffer(commands, buffer_of(args.src.handle), buffer_of(args.dst.handle), 1, &copy);
    if (args.stream) barrier(state, commands);
    return QLORA_OK;
}

int32_t buffer_fill(Context &context, const qlora_buffer_args &args) {
    State &state = state_of(context);
    VkCommandBuffer commands;
    QLORA_TRY(begin(context, args.stream, 0, &commands));
    barrier(state, commands);
    state.vk.CmdFillBuffer(commands, buffer_of(args.dst.handle), args.dst.offset, args.bytes, args.pattern);
    if (args.stream) barrier(state, commands);
    return QLORA_OK;
}

int32_t buffer_join(Context &context, const qlora_buffer_args &args) { return join_lane(context, args.flags & QLORA_BUFFER_HOST); }

} // namespace vulkan
} // namespace qlora
