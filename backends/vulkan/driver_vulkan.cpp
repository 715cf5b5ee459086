// Finding the Vulkan loader at run time, and its functions.
#include "backends/vulkan/device_vulkan.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace qlora {
namespace vulkan {

#ifdef _WIN32
void *open_library() { return reinterpret_cast<void *>(LoadLibraryA("vulkan-1.dll")); }
void close_library(void *library) { if (library) FreeLibrary(static_cast<HMODULE>(library)); }
PFN_vkGetInstanceProcAddr library_entry(void *library) {
    return reinterpret_cast<PFN_vkGetInstanceProcAddr>(reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(library), "vkGetInstanceProcAddr")));
}
#else
void *open_library() {
#ifdef __APPLE__
    const char *const names[] = {"libvulkan.1.dylib", "libMoltenVK.dylib"};
#else
    const char *const names[] = {"libvulkan.so.1", "libvulkan.so"};
#endif
    for (const char *name : names)
        // Stays mapped: drivers leave threads and exit handlers behind, and crash when their code is gone.
        if (void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) return library;
    return nullptr;
}
void close_library(void *library) { if (library) dlclose(library); }
PFN_vkGetInstanceProcAddr library_entry(void *library) {
    return reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
}
#endif

namespace {

enum Level { GLOBAL, INSTANCE, DEVICE };

bool load(Functions &vk, Level level, VkInstance instance, VkDevice device) {
    bool complete = true;
#define QLORA_VULKAN_FUNCTION(at, name)                                                                       \
    if (level == at) {                                                                                        \
        vk.name = reinterpret_cast<PFN_vk##name>(at == DEVICE ? vk.GetDeviceProcAddr(device, "vk" #name)      \
                                                              : vk.GetInstanceProcAddr(instance, "vk" #name)); \
        complete = complete && vk.name;                                                                       \
    }
#include "backends/vulkan/functions.def"
#undef QLORA_VULKAN_FUNCTION
    return complete;
}

const char *result_name(VkResult result) {
#define QLORA_RESULT(name) if (result == VK_##name) return "VK_" #name;
    QLORA_RESULT(ERROR_OUT_OF_HOST_MEMORY) QLORA_RESULT(ERROR_OUT_OF_DEVICE_MEMORY) QLORA_RESULT(ERROR_INITIALIZATION_FAILED)
    QLORA_RESULT(ERROR_DEVICE_LOST) QLORA_RESULT(ERROR_MEMORY_MAP_FAILED) QLORA_RESULT(ERROR_LAYER_NOT_PRESENT)
    QLORA_RESULT(ERROR_EXTENSION_NOT_PRESENT) QLORA_RESULT(ERROR_FEATURE_NOT_PRESENT) QLORA_RESULT(ERROR_INCOMPATIBLE_DRIVER)
    QLORA_RESULT(ERROR_TOO_MANY_OBJECTS) QLORA_RESULT(ERROR_OUT_OF_POOL_MEMORY) QLORA_RESULT(ERROR_FRAGMENTED_POOL)
    QLORA_RESULT(ERROR_UNKNOWN) QLORA_RESULT(TIMEOUT) QLORA_RESULT(NOT_READY)
#undef QLORA_RESULT
    return "VkResult";
}

} // namespace

bool load_global(Functions &vk) { return load(vk, GLOBAL, nullptr, nullptr); }
bool load_instance(Functions &vk, VkInstance instance) { return load(vk, INSTANCE, instance, nullptr); }
bool load_device(Functions &vk, VkDevice device) { return load(vk, DEVICE, nullptr, device); }

uint32_t compute_family(const Functions &vk, VkPhysicalDevice device) {
    VkPhysicalDeviceProperties properties;
    vk.GetPhysicalDeviceProperties(device, &properties);
    const VkPhysicalDeviceLimits &limits = properties.limits;
    // What the shaders take for granted; Vulkan itself promises less, but no desktop or current mobile device gives less.
    if (properties.apiVersion < VK_API_VERSION_1_2 || limits.maxComputeWorkGroupInvocations < 256 || limits.maxComputeWorkGroupSize[0] < 256 ||
        limits.maxPerStageDescriptorStorageBuffers < binding_limit || limits.maxComputeSharedMemorySize < 16384)
        return UINT32_MAX;
    VkQueueFamilyProperties families[16];
    uint32_t count = 16;
    vk.GetPhysicalDeviceQueueFamilyProperties(device, &count, families);
    for (uint32_t i = 0; i < count; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) return i;
    return UINT32_MAX;
}

int32_t driver_status(Context &context, VkResult result, const char *call) {
    if (result == VK_SUCCESS) return QLORA_OK;
    const bool memory = result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_TOO_MANY_OBJECTS;
    return context.fail(memory ? QLORA_ERROR_MEMORY : QLORA_ERROR_DEVICE, "vulkan: %s: %s (%d)%s", call, result_name(result), int(result),
                        result == VK_ERROR_DEVICE_LOST ? "; the context is lost, destroy it" : "");
}

} // namespace vulkan
} // namespace qlora
