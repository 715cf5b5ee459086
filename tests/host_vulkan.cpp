// A host with a Vulkan device of its own lends it: instance, device, queue, buffers and the command buffer are the host's. A training
// step recorded once and submitted three times gives the bits of three steps on the library's own recording.
#include "tests/support/step.h"

#include <vulkan/vulkan.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

#define TRY(call)                                                                                             \
    do {                                                                                                      \
        const VkResult result = (call);                                                                       \
        if (result != VK_SUCCESS) std::printf("FAILED  %s: %d\n", #call, int(result)), std::exit(1);           \
    } while (0)

struct Host {
    VkInstance instance = VK_NULL_HANDLE;
    VkPhysicalDevice physical = VK_NULL_HANDLE;
    VkDevice device = VK_NULL_HANDLE;
    VkQueue queue = VK_NULL_HANDLE;
    uint32_t family = 0;
    VkBuffer buffer = VK_NULL_HANDLE; // one for all, as engines have it
    VkDeviceMemory memory = VK_NULL_HANDLE;
    char *mapped = nullptr;
    uint64_t used = 0;
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer commands = VK_NULL_HANDLE;

    // False where there is no device with Vulkan 1.2.
    bool open(uint64_t bytes) {
        VkApplicationInfo application = {VK_STRUCTURE_TYPE_APPLICATION_INFO, nullptr, "host", 1, "host", 1, VK_API_VERSION_1_2};
        VkInstanceCreateInfo instance_info = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, nullptr, 0, &application, 0, nullptr, 0, nullptr};
        if (vkCreateInstance(&instance_info, nullptr, &instance) != VK_SUCCESS) return false;
        uint32_t count = 1;
        if (vkEnumeratePhysicalDevices(instance, &count, &physical) < 0 || count == 0) return false;
        VkQueueFamilyProperties families[16];
        count = 16;
        vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
        while (family < count && !(families[family].queueFlags & VK_QUEUE_COMPUTE_BIT)) family++;
        if (family == count) return false;
        const float priority = 1;
        VkDeviceQueueCreateInfo queue_info = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, nullptr, 0, family, 1, &priority};
        VkDeviceCreateInfo device_info = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, nullptr, 0, 1, &queue_info, 0, nullptr, 0, nullptr, nullptr};
        TRY(vkCreateDevice(physical, &device_info, nullptr, &device));
        vkGetDeviceQueue(device, family, 0, &queue);

        VkBufferCreateInfo buffer_info = {VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, nullptr, 0, bytes, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                                          VK_SHARING_MODE_EXCLUSIVE, 0, nullptr};
        TRY(vkCreateBuffer(device, &buffer_info, nullptr, &buffer));
        VkMemoryRequirements needs;
        vkGetBufferMemoryRequirements(device, buffer, &needs);
        VkPhysicalDeviceMemoryProperties kinds;
        vkGetPhysicalDeviceMemoryProperties(physical, &kinds);
        const VkMemoryPropertyFlags wanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
        uint32_t kind = 0;
        while (kind < kinds.memoryTypeCount && (!(needs.memoryTypeBits >> kind & 1) || (kinds.memoryTypes[kind].propertyFlags & wanted) != wanted)) kind++;
        VkMemoryAllocateInfo memory_info = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, nullptr, needs.size, kind};
        TRY(vkAllocateMemory(device, &memory_info, nullptr, &memory));
        TRY(vkBindBufferMemory(device, buffer, memory, 0));
        TRY(vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, reinterpret_cast<void **>(&mapped)));

        VkCommandPoolCreateInfo pool_info = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, nullptr, 0, family};
        TRY(vkCreateCommandPool(device, &pool_info, nullptr, &pool));
        VkCommandBufferAllocateInfo commands_info = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, nullptr, pool, VK_COMMAND_BUFFER_LEVEL_PRIMARY, 1};
        TRY(vkAllocateCommandBuffers(device, &commands_info, &commands));
        return true;
    }
    ~Host() {
        if (device) {
            vkDestroyCommandPool(device, pool, nullptr);
            vkDestroyBuffer(device, buffer, nullptr);
            vkFreeMemory(device, memory, nullptr);
            vkDestroyDevice(device, nullptr);
        }
        if (instance) vkDestroyInstance(instance, nullptr);
    }
    qlora_span take(uint64_t bytes) {
        const qlora_span span = {uint64_t(buffer), used, bytes};
        used += (bytes + 255) / 256 * 256;
        return span;
    }
    void submit() {
        VkSubmitInfo info = {VK_STRUCTURE_TYPE_SUBMIT_INFO, nullptr, 0, nullptr, nullptr, 1, &commands, 0, nullptr};
        TRY(vkQueueSubmit(queue, 1, &info, VK_NULL_HANDLE));
        TRY(vkQueueWaitIdle(queue));
    }
};

} // namespace

int main() {
    Host host;
    if (!host.open(uint64_t(8) << 20)) return std::printf("SKIPPED: no Vulkan device here\n"), 77;
    auto args = qlora::make<qlora_context_args>();
    args.backend = QLORA_BACKEND_VULKAN;
    args.vulkan_get_instance_proc_addr = reinterpret_cast<uint64_t>(vkGetInstanceProcAddr);
    args.vulkan_instance = reinterpret_cast<uint64_t>(host.instance);
    args.vulkan_physical_device = reinterpret_cast<uint64_t>(host.physical);
    args.vulkan_device = reinterpret_cast<uint64_t>(host.device);
    args.vulkan_queue_family = host.family;
    try {
        { // Half of them is an error.
            qlora_context *none = nullptr;
            if (qlora_context_create(&args, &none) != QLORA_ERROR_ARGUMENT) return std::printf("FAILED  a device without its queue is taken\n"), 1;
        }
        args.vulkan_queue = reinterpret_cast<uint64_t>(host.queue);
        const qlora::Context context(args);
        test::Step step(context, [&](uint64_t bytes) { return host.take(bytes); }, [&](qlora_span span, const void *data) { std::memcpy(host.mapped + span.offset, data, span.size); },
                        [&](qlora_span span, void *data) { std::memcpy(data, host.mapped + span.offset, span.size); });
        constexpr int steps = 3;
        for (int i = 0; i < steps; i++) step.enqueue(0);
        context.synchronize();
        const auto expected = step.results();

        step.reset();
        VkCommandBufferBeginInfo begin = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, nullptr, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT, nullptr};
        TRY(vkBeginCommandBuffer(host.commands, &begin));
        step.enqueue(reinterpret_cast<uint64_t>(host.commands));
        TRY(vkEndCommandBuffer(host.commands));
        if (step.results() == expected) return std::printf("FAILED  recording computed at once\n"), 1;
        for (int i = 0; i < steps; i++) host.submit();
        const auto found = step.results();
        for (size_t i = 0; i < found.size(); i++)
            if (std::memcmp(found[i].data(), expected[i].data(), found[i].size() * 4) != 0) return std::printf("FAILED  result %zu of the host's recording differs\n", i), 1;
        std::printf("%s: a step in the host's command buffer, submitted %d times, has the bits of %d steps\n", context.query().name, steps, steps);
    } catch (const qlora::Error &error) {
        return std::printf("FAILED  %s\n", error.what()), 1;
    }
    return 0;
}
