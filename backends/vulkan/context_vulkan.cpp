// A context: its own instance, device and queue, or the caller's.
#include "backends/vulkan/device_vulkan.h"

#include <cstdio>
#include <cstring>

namespace qlora {
namespace vulkan {
namespace {

constexpr uint32_t device_limit = 32;

VkResult create_instance(const Functions &vk, VkInstance *instance) {
    VkApplicationInfo application = {};
    application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.pApplicationName = "qlora";
    application.apiVersion = VK_API_VERSION_1_2;
    VkInstanceCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &application;
    return vk.CreateInstance(&info, nullptr, instance);
}

// The devices that this backend can use, in the loader's order.
VkResult usable_devices(const Functions &vk, VkInstance instance, VkPhysicalDevice *devices, uint32_t *count) {
    VkPhysicalDevice all[device_limit];
    uint32_t total = device_limit;
    const VkResult result = vk.EnumeratePhysicalDevices(instance, &total, all);
    *count = 0;
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) return result;
    for (uint32_t i = 0; i < total; i++)
        if (compute_family(vk, all[i]) != UINT32_MAX) devices[(*count)++] = all[i];
    return VK_SUCCESS;
}

int32_t own_instance(Context &context, State &state) {
    state.library = context.injected("dlopen") ? nullptr : open_library();
    if (!state.library)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: no Vulkan loader (libvulkan.so.1); install the GPU driver or the loader package");
    state.vk.GetInstanceProcAddr = library_entry(state.library);
    uint32_t version = 0;
    if (!state.vk.GetInstanceProcAddr || !load_global(state.vk) || state.vk.EnumerateInstanceVersion(&version) != VK_SUCCESS || version < VK_API_VERSION_1_2)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: the loader is older than Vulkan 1.2; update it");
    const VkResult result = context.injected("vkCreateInstance") ? VK_ERROR_INITIALIZATION_FAILED : create_instance(state.vk, &state.instance);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: the loader found no driver; install one for this GPU");
    QLORA_TRY(driver_status(context, result, "vkCreateInstance"));
    state.owned = true;
    if (!load_instance(state.vk, state.instance))
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: the driver lacks functions of Vulkan 1.2; update it");
    return QLORA_OK;
}

int32_t own_device(Context &context, State &state, int32_t index) {
    VkPhysicalDevice devices[device_limit];
    uint32_t count = 0;
    QLORA_TRY(driver_status(context, context.injected("vkEnumeratePhysicalDevices") ? VK_ERROR_UNKNOWN : usable_devices(state.vk, state.instance, devices, &count),
                            "vkEnumeratePhysicalDevices"));
    if (index < 0 || uint32_t(index) >= count)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: device %d does not exist; %u with Vulkan 1.2 compute were found", index, count);
    state.index = index;
    state.physical = devices[index];
    state.family = compute_family(state.vk, state.physical);
    const float priorities[3] = {1, 1, 1};
    const uint32_t lanes = choose_lanes(state);
    VkDeviceQueueCreateInfo queues[2] = {};
    for (VkDeviceQueueCreateInfo &queue : queues) {
        queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
        queue.pQueuePriorities = priorities;
    }
    const bool apart = state.beside.family != state.family;
    queues[0].queueFamilyIndex = state.family;
    queues[0].queueCount = apart ? 1 : 1 + lanes;
    queues[1].queueFamilyIndex = state.beside.family;
    queues[1].queueCount = lanes;
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {}; // every device of Vulkan 1.2 has them
    timeline.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES;
    timeline.timelineSemaphore = VK_TRUE;
    VkDeviceCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    info.pNext = &timeline;
    info.queueCreateInfoCount = apart ? 2 : 1;
    info.pQueueCreateInfos = queues;
    // Products of four bytes at once, where there are such; of a caller's device nobody knows what was switched on.
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot = {};
    dot.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES;
    const char *const dot_extension = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
    if (has_extension(state.vk, state.physical, dot_extension)) {
        VkPhysicalDeviceFeatures2 features = {};
        features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
        features.pNext = &dot;
        state.vk.GetPhysicalDeviceFeatures2(state.physical, &features);
        state.dot_product = dot.shaderIntegerDotProduct == VK_TRUE;
    }
    const char *extensions[8];
    if (state.dot_product) {
        dot.pNext = &timeline;
        info.pNext = &dot;
        extensions[info.enabledExtensionCount++] = dot_extension;
    }
    CooperativeRequest cooperative;
    ask_for_cooperative(state, cooperative, &info.pNext);
    for (uint32_t i = 0; i < cooperative.name_count; i++) extensions[info.enabledExtensionCount++] = cooperative.names[i];
    const Cooperative &found = state.cooperative;
    char line[160];
    if (found.subgroup)
        std::snprintf(line, sizeof line, "vulkan: cooperative matrices f16 %ux%ux%u, bf16 %ux%ux%u (0: none), subgroups of %u", found.f16.m, found.f16.n, found.f16.k, found.bf16.m, found.bf16.n, found.bf16.k, found.subgroup);
    else
        std::snprintf(line, sizeof line, "vulkan: no cooperative matrices; products of 16-bit types are made by f32 instructions");
    context.log(line);
    info.ppEnabledExtensionNames = extensions;
    QLORA_VULKAN_TRY(context, state.vk, CreateDevice, state.physical, &info, nullptr, &state.device);
    if (!load_device(state.vk, state.device))
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: the device lacks functions of Vulkan 1.2; update its driver");
    state.vk.GetDeviceQueue(state.device, state.family, 0, &state.queue);
    return QLORA_OK;
}

// The caller's instance, device and queue. Non-dispatchable handles of Vulkan are 64-bit, dispatchable ones pointers.
int32_t borrow(Context &context, State &state, const qlora_context_args &args) {
    if (!args.vulkan_get_instance_proc_addr || !args.vulkan_instance || !args.vulkan_physical_device || !args.vulkan_device || !args.vulkan_queue)
        return context.fail(QLORA_ERROR_ARGUMENT, "qlora_context_create: vulkan: give all of get_instance_proc_addr, instance, physical_device, device and queue, or none");
    state.vk.GetInstanceProcAddr = reinterpret_cast<PFN_vkGetInstanceProcAddr>(uintptr_t(args.vulkan_get_instance_proc_addr));
    state.instance = reinterpret_cast<VkInstance>(uintptr_t(args.vulkan_instance));
    state.physical = reinterpret_cast<VkPhysicalDevice>(uintptr_t(args.vulkan_physical_device));
    state.device = reinterpret_cast<VkDevice>(uintptr_t(args.vulkan_device));
    state.queue = reinterpret_cast<VkQueue>(uintptr_t(args.vulkan_queue));
    state.family = args.vulkan_queue_family;
    state.index = args.device;
    if (!load_instance(state.vk, state.instance) || !load_device(state.vk, state.device))
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: the instance or device lacks functions of Vulkan 1.2; create it with apiVersion 1.2");
    if (compute_family(state.vk, state.physical) == UINT32_MAX)
        return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: the device has no Vulkan 1.2 compute or limits that are too small");
    return QLORA_OK;
}

int32_t create_all(Context &context, State &state, const qlora_context_args &args) {
    if (args.vulkan_instance || args.vulkan_device || args.vulkan_get_instance_proc_addr) {
        QLORA_TRY(borrow(context, state, args));
    } else {
        QLORA_TRY(own_instance(context, state));
        QLORA_TRY(own_device(context, state, args.device));
    }
    state.vk.GetPhysicalDeviceProperties(state.physical, &state.properties);
    VkPhysicalDeviceMemoryProperties2 memory = {};
    memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
    state.vk.GetPhysicalDeviceMemoryProperties2(state.physical, &memory);
    state.memory = memory.memoryProperties;
    QLORA_TRY(create_recording(context));
    return finish(context); // the tables are on the device before anything can be lost
}

} // namespace

int32_t device_count(uint32_t *count) {
    *count = 0;
    void *library = open_library();
    if (!library) return QLORA_OK;
    Functions vk = {};
    VkInstance instance = nullptr;
    uint32_t version = 0;
    vk.GetInstanceProcAddr = library_entry(library);
    if (vk.GetInstanceProcAddr && load_global(vk) && vk.EnumerateInstanceVersion(&version) == VK_SUCCESS && version >= VK_API_VERSION_1_2 &&
        create_instance(vk, &instance) == VK_SUCCESS) {
        VkPhysicalDevice devices[device_limit];
        if (load_instance(vk, instance)) usable_devices(vk, instance, devices, count);
        if (vk.DestroyInstance) vk.DestroyInstance(instance, nullptr);
    }
    close_library(library);
    return QLORA_OK;
}

int32_t create(Context &context, const qlora_context_args &args) {
    void *memory = context.allocate(sizeof(State), "vulkan state");
    if (!memory) return context.fail(QLORA_ERROR_MEMORY, "qlora_context_create: vulkan: no host memory");
    std::memset(memory, 0, sizeof(State));
    context.state = memory;
    const int32_t status = create_all(context, state_of(context), args);
    if (status != QLORA_OK) destroy(context);
    return status;
}

// Takes apart whatever create had put together.
void destroy(Context &context) {
    State &state = state_of(context);
    destroy_recording(context);
    if (state.owned) {
        if (state.device && state.vk.DestroyDevice) state.vk.DestroyDevice(state.device, nullptr);
        if (state.instance && state.vk.DestroyInstance) state.vk.DestroyInstance(state.instance, nullptr);
    }
    close_library(state.library);
    context.release(&state, sizeof(State));
    context.state = nullptr;
}

// "NVIDIA 570.86.15, Vulkan 1.4.303"
void describe_driver(const State &state, char *text, size_t bytes) {
    VkPhysicalDeviceDriverProperties driver = {};
    driver.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES;
    VkPhysicalDeviceProperties2 properties = {};
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    properties.pNext = &driver;
    state.vk.GetPhysicalDeviceProperties2(state.physical, &properties);
    const uint32_t version = state.properties.apiVersion;
    std::snprintf(text, bytes, "%.40s %.50s, Vulkan %u.%u.%u", driver.driverName, driver.driverInfo,
                  VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version), VK_API_VERSION_PATCH(version));
}

int32_t query(Context &context, qlora_context_info &info) {
    State &state = state_of(context);
    describe_driver(state, info.driver, sizeof info.driver);
    info.device = state.index;
    std::snprintf(info.name, sizeof info.name, "%.110s (vulkan)", state.properties.deviceName);
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {};
    budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
    VkPhysicalDeviceMemoryProperties2 memory = {};
    memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
    const bool budgeted = has_extension(state.vk, state.physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    if (budgeted) memory.pNext = &budget;
    state.vk.GetPhysicalDeviceMemoryProperties2(state.physical, &memory);
    for (uint32_t i = 0; i < state.memory.memoryHeapCount; i++) {
        if (!(state.memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)) continue;
        info.memory_bytes += state.memory.memoryHeaps[i].size;
        if (budgeted && budget.heapBudget[i] > budget.heapUsage[i]) info.memory_free_bytes += budget.heapBudget[i] - budget.heapUsage[i];
    }
    return QLORA_OK;
}

int32_t synchronize(Context &context) {
    QLORA_TRY(finish(context));
    return finish_lanes(context);
}

// Shaders reach 16-bit elements through 32-bit words, so no optional feature decides.
bool supports(Context &, uint32_t operation, int32_t format, int32_t) {
    if (operation == QLORA_OP_QUANTIZE_GPTQ || operation == QLORA_OP_QUANTIZE_SPQR) return false;
    return operation != QLORA_OP_QUANTIZE || encodes(format);
}

#define QLORA_VTABLE_KIND QLORA_BACKEND_VULKAN
#define QLORA_VTABLE_NAME "vulkan"
#include "backends/vtable.inc"

} // namespace vulkan
} // namespace qlora
