// Copies beside the operations: a queue for each direction, as far as the device has queues, ordered against the operations by
// timeline semaphores. Where it has but one queue they run there, in the order of the calls.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

int32_t create_semaphore(Context &context, VkSemaphore *semaphore) {
    State &state = state_of(context);
    VkSemaphoreTypeCreateInfo timeline = {};
    timeline.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
    timeline.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
    VkSemaphoreCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
    info.pNext = &timeline;
    QLORA_VULKAN_TRY(context, state.vk, CreateSemaphore, state.device, &info, nullptr, semaphore);
    return QLORA_OK;
}

int32_t create_lane(Context &context, Lane &lane, uint32_t place) {
    State &state = state_of(context);
    state.vk.GetDeviceQueue(state.device, state.beside.family, place, &lane.queue);
    VkCommandPoolCreateInfo pool = {};
    pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
    pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
    pool.queueFamilyIndex = state.beside.family;
    QLORA_VULKAN_TRY(context, state.vk, CreateCommandPool, state.device, &pool, nullptr, &lane.pool);
    VkCommandBufferAllocateInfo commands = {};
    commands.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    commands.commandPool = lane.pool;
    commands.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    commands.commandBufferCount = lane_copies;
    QLORA_VULKAN_TRY(context, state.vk, AllocateCommandBuffers, state.device, &commands, lane.commands);
    return create_semaphore(context, &lane.done);
}

int32_t wait_for(Context &context, VkSemaphore semaphore, uint64_t value) {
    State &state = state_of(context);
    VkSemaphoreWaitInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
    info.semaphoreCount = 1;
    info.pSemaphores = &semaphore;
    info.pValues = &value;
    QLORA_VULKAN_TRY(context, state.vk, WaitSemaphores, state.device, &info, UINT64_MAX);
    return QLORA_OK;
}

int32_t record(Context &context, VkCommandBuffer commands, const qlora_buffer_args &args) {
    State &state = state_of(context);
    VkCommandBufferBeginInfo begin = {};
    begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    QLORA_VULKAN_TRY(context, state.vk, BeginCommandBuffer, commands, &begin);
    VkMemoryBarrier after = {}; // the copies before, on this queue
    after.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    after.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
    after.dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    state.vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1, &after, 0, nullptr, 0, nullptr);
    const VkBufferCopy copy = {args.src.offset, args.dst.offset, args.bytes};
    state.vk.CmdCopyBuffer(commands, buffer_of(args.src.handle), buffer_of(args.dst.handle), 1, &copy);
    VkMemoryBarrier visible = {}; // to the host, which a semaphore does not see to
    visible.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    visible.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
    visible.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
    state.vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &visible, 0, nullptr, 0, nullptr);
    QLORA_VULKAN_TRY(context, state.vk, EndCommandBuffer, commands);
    return QLORA_OK;
}

} // namespace

uint32_t choose_lanes(State &state) {
    VkQueueFamilyProperties families[16];
    uint32_t count = 16;
    state.vk.GetPhysicalDeviceQueueFamilyProperties(state.physical, &count, families);
    // A family that does nothing else drives a copy engine of its own.
    for (uint32_t i = 0; i < count; i++) {
        const VkQueueFlags other = families[i].queueFlags & ~VkQueueFlags(VK_QUEUE_TRANSFER_BIT | VK_QUEUE_SPARSE_BINDING_BIT | VK_QUEUE_PROTECTED_BIT);
        if (!(families[i].queueFlags & VK_QUEUE_TRANSFER_BIT) || other || families[i].queueCount == 0) continue;
        state.beside.family = i;
        state.beside.first = 0;
        return state.beside.queues = families[i].queueCount < 2 ? 1 : 2;
    }
    state.beside.family = state.family;
    const uint32_t more = families[state.family].queueCount - 1;
    state.beside.queues = more < 2 ? more : 2;
    state.beside.first = more ? 1 : 0;
    return state.beside.queues;
}

int32_t create_lanes(Context &context) {
    State &state = state_of(context);
    if (!state.owned) return QLORA_OK; // of a caller's device nobody knows what it was created with
    Beside &beside = state.beside;
    QLORA_TRY(create_semaphore(context, &beside.operations));
    for (uint32_t i = 0; i < 2; i++) QLORA_TRY(create_lane(context, beside.lanes[i], beside.first + (beside.queues == 2 ? i : 0)));
    beside.ready = true;
    return QLORA_OK;
}

void destroy_lanes(State &state) {
    for (Lane &lane : state.beside.lanes) {
        if (lane.done) state.vk.DestroySemaphore(state.device, lane.done, nullptr);
        if (lane.pool) state.vk.DestroyCommandPool(state.device, lane.pool, nullptr);
    }
    if (state.beside.operations) state.vk.DestroySemaphore(state.device, state.beside.operations, nullptr);
}

int32_t copy_beside(Context &context, const qlora_buffer_args &args) {
    State &state = state_of(context);
    const uint32_t direction = args.flags & QLORA_BUFFER_HOST ? 1 : 0;
    Lane &lane = state.beside.lanes[direction];
    const Lane &other = state.beside.lanes[1 - direction];
    QLORA_TRY(submit(context)); // what the copy comes after
    const uint64_t value = lane.submitted + 1;
    if (value > lane_copies) QLORA_TRY(wait_for(context, lane.done, value - lane_copies));
    const VkCommandBuffer commands = lane.commands[value % lane_copies];
    QLORA_TRY(record(context, commands, args));
    VkTimelineSemaphoreSubmitInfo values = {};
    values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    const VkSemaphore waits[2] = {state.beside.operations, other.done};
    const uint64_t wait_values[2] = {state.beside.submitted, other.joined};
    const VkPipelineStageFlags stages[2] = {VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT};
    const uint32_t wait_count = other.joined != other.waited ? 2 : 1; // a join that no batch has taken along
    values.waitSemaphoreValueCount = wait_count;
    values.pWaitSemaphoreValues = wait_values;
    values.signalSemaphoreValueCount = 1;
    values.pSignalSemaphoreValues = &value;
    VkSubmitInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.pNext = &values;
    info.waitSemaphoreCount = wait_count;
    info.pWaitSemaphores = waits;
    info.pWaitDstStageMask = stages;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &commands;
    info.signalSemaphoreCount = 1;
    info.pSignalSemaphores = &lane.done;
    QLORA_VULKAN_TRY(context, state.vk, QueueSubmit, lane.queue, 1, &info, VK_NULL_HANDLE);
    lane.submitted = value;
    return QLORA_OK;
}

int32_t join_lane(Context &context, bool to_host) {
    Lane &lane = state_of(context).beside.lanes[to_host];
    if (lane.joined == lane.submitted) return QLORA_OK;
    QLORA_TRY(submit(context)); // what need not wait
    lane.joined = lane.submitted;
    return QLORA_OK;
}

int32_t finish_lanes(Context &context) {
    for (const Lane &lane : state_of(context).beside.lanes)
        if (lane.submitted) QLORA_TRY(wait_for(context, lane.done, lane.submitted));
    return QLORA_OK;
}

int32_t submit_in_order(Context &context, VkCommandBuffer commands, VkFence fence) {
    State &state = state_of(context);
    Beside &beside = state.beside;
    VkSubmitInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &commands;
    VkSemaphore waits[2];
    uint64_t values[2];
    const VkPipelineStageFlags stages[2] = {VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT};
    const uint64_t value = beside.submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {};
    if (beside.ready) {
        for (const Lane &lane : beside.lanes)
            if (lane.joined != lane.waited) {
                waits[info.waitSemaphoreCount] = lane.done;
                values[info.waitSemaphoreCount++] = lane.joined;
            }
        timeline.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
        timeline.waitSemaphoreValueCount = info.waitSemaphoreCount;
        timeline.pWaitSemaphoreValues = values;
        timeline.signalSemaphoreValueCount = 1;
        timeline.pSignalSemaphoreValues = &value;
        info.pNext = &timeline;
        info.pWaitSemaphores = waits;
        info.pWaitDstStageMask = stages;
        info.signalSemaphoreCount = 1;
        info.pSignalSemaphores = &beside.operations;
    }
    QLORA_VULKAN_TRY(context, state.vk, QueueSubmit, state.queue, 1, &info, fence);
    if (!beside.ready) return QLORA_OK;
    beside.submitted = value;
    for (Lane &lane : beside.lanes) lane.waited = lane.joined; // what is submitted later waits as well
    return QLORA_OK;
}

} // namespace vulkan
} // namespace qlora
