// A host with a Vulkan device of its own lends it: instance, device, queue, buffers and the command buffer are the host's. A training
// step recorded once and submitted three times gives the bits of three steps on the library's own recording.
#include "tests/support/step.h"
#include "tests/support/vulkan_host.h"

#include <cstdio>

namespace {

#define CALL(host, name) (host).call<PFN_##name>(#name)
#define TRY(host, name, ...) test::expect(CALL(host, name)(__VA_ARGS__), #name)

// Memory and a command buffer of the host's.
struct Recording {
    const test::VulkanHost &host;
    VkBuffer buffer = VK_NULL_HANDLE; // one for all, as engines have it
    VkDeviceMemory memory = VK_NULL_HANDLE;
    char *mapped = nullptr;
    uint64_t used = 0;
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer commands = VK_NULL_HANDLE;

    Recording(const test::VulkanHost &on, uint64_t bytes) : host(on) {
        const VkDevice device = host.device();
        VkBufferCreateInfo buffer_info = {VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, nullptr, 0, bytes, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                                          VK_SHARING_MODE_EXCLUSIVE, 0, nullptr};
        TRY(host, vkCreateBuffer, device, &buffer_info, nullptr, &buffer);
        VkMemoryRequirements needs;
        CALL(host, vkGetBufferMemoryRequirements)(device, buffer, &needs);
        VkPhysicalDeviceMemoryProperties kinds;
        CALL(host, vkGetPhysicalDeviceMemoryProperties)(host.physical(), &kinds);
        const VkMemoryPropertyFlags wanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
        uint32_t kind = 0;
        while (kind < kinds.memoryTypeCount && (!(needs.memoryTypeBits >> kind & 1) || (kinds.memoryTypes[kind].propertyFlags & wanted) != wanted)) kind++;
        VkMemoryAllocateInfo memory_info = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, nullptr, needs.size, kind};
        TRY(host, vkAllocateMemory, device, &memory_info, nullptr, &memory);
        TRY(host, vkBindBufferMemory, device, buffer, memory, 0);
        TRY(host, vkMapMemory, device, memory, 0, VK_WHOLE_SIZE, 0, reinterpret_cast<void **>(&mapped));

        VkCommandPoolCreateInfo pool_info = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, nullptr, 0, host.family()};
        TRY(host, vkCreateCommandPool, device, &pool_info, nullptr, &pool);
        VkCommandBufferAllocateInfo commands_info = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, nullptr, pool, VK_COMMAND_BUFFER_LEVEL_PRIMARY, 1};
        TRY(host, vkAllocateCommandBuffers, device, &commands_info, &commands);
    }
    ~Recording() {
        CALL(host, vkDestroyCommandPool)(host.device(), pool, nullptr);
        CALL(host, vkDestroyBuffer)(host.device(), buffer, nullptr);
        CALL(host, vkFreeMemory)(host.device(), memory, nullptr);
    }
    Recording(const Recording &) = delete;
    qlora_span take(uint64_t bytes) {
        const qlora_span span = {uint64_t(buffer), used, bytes};
        used += (bytes + 255) / 256 * 256;
        return span;
    }
    void submit() {
        VkSubmitInfo info = {VK_STRUCTURE_TYPE_SUBMIT_INFO, nullptr, 0, nullptr, nullptr, 1, &commands, 0, nullptr};
        TRY(host, vkQueueSubmit, host.queue(), 1, &info, VK_NULL_HANDLE);
        TRY(host, vkQueueWaitIdle, host.queue());
    }
};

} // namespace

int main() {
    try {
        test::VulkanHost host;
        if (!host.open()) return std::printf("SKIPPED: no Vulkan device here\n"), 77;
        Recording recording(host, uint64_t(8) << 20);
        auto args = host.options();
        { // Half of them is an error.
            qlora_context *none = nullptr;
            auto half = args;
            half.vulkan_queue = 0;
            if (qlora_context_create(&half, &none) != QLORA_ERROR_ARGUMENT) return std::printf("FAILED  a device without its queue is taken\n"), 1;
        }
        const qlora::Context context(args);
        test::Step step(context, [&](uint64_t bytes) { return recording.take(bytes); }, [&](qlora_span span, const void *data) { std::memcpy(recording.mapped + span.offset, data, span.size); },
                        [&](qlora_span span, void *data) { std::memcpy(data, recording.mapped + span.offset, span.size); });
        constexpr int steps = 3;
        for (int i = 0; i < steps; i++) step.enqueue(0);
        context.synchronize();
        const auto expected = step.results();

        step.reset();
        VkCommandBufferBeginInfo begin = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, nullptr, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT, nullptr};
        TRY(host, vkBeginCommandBuffer, recording.commands, &begin);
        step.enqueue(reinterpret_cast<uint64_t>(recording.commands));
        TRY(host, vkEndCommandBuffer, recording.commands);
        if (step.results() == expected) return std::printf("FAILED  recording computed at once\n"), 1;
        for (int i = 0; i < steps; i++) recording.submit();
        const auto found = step.results();
        for (size_t i = 0; i < found.size(); i++)
            if (std::memcmp(found[i].data(), expected[i].data(), found[i].size() * 4) != 0) return std::printf("FAILED  result %zu of the host's recording differs\n", i), 1;
        std::printf("%s: a step in the host's command buffer, submitted %d times, has the bits of %d steps\n", context.query().name, steps, steps);
    } catch (const std::exception &error) {
        return std::printf("FAILED  %s\n", error.what()), 1;
    }
    return 0;
}
