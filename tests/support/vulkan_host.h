// A program that uses Vulkan itself: instance, device and queue of its own, with nothing switched on that Vulkan 1.2 does not promise.
// The loader is opened at run time.
#pragma once
#include "cpp/qlora.hpp"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include <dlfcn.h>

#include <cstring>
#include <stdexcept>
#include <string>

namespace test {

// Throws what a driver answers to a call when it is no success.
inline void expect(VkResult result, const char *name) {
    if (result != VK_SUCCESS) throw std::runtime_error(std::string(name) + " answers " + std::to_string(int(result)));
}

class VulkanHost {
public:
    VulkanHost() = default;
    VulkanHost(const VulkanHost &) = delete;
    // Takes the first device whose name the given one begins with, or the first of all; false where there is none that computes.
    bool open(const std::string &name = "") {
        void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!library) return false;
        get_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
        VkApplicationInfo application = {VK_STRUCTURE_TYPE_APPLICATION_INFO, nullptr, "host", 1, "host", 1, VK_API_VERSION_1_2};
        VkInstanceCreateInfo instance_info = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, nullptr, 0, &application, 0, nullptr, 0, nullptr};
        if (call<PFN_vkCreateInstance>("vkCreateInstance")(&instance_info, nullptr, &instance_) != VK_SUCCESS) return false;
        VkPhysicalDevice devices[16];
        uint32_t count = 16;
        if (call<PFN_vkEnumeratePhysicalDevices>("vkEnumeratePhysicalDevices")(instance_, &count, devices) < 0) return false;
        for (uint32_t i = 0; i < count && !physical_; i++) {
            VkPhysicalDeviceProperties properties;
            call<PFN_vkGetPhysicalDeviceProperties>("vkGetPhysicalDeviceProperties")(devices[i], &properties);
            if (name.empty() || name.compare(0, std::strlen(properties.deviceName), properties.deviceName) == 0) physical_ = devices[i];
        }
        if (!physical_) return false;
        VkQueueFamilyProperties families[16];
        count = 16;
        call<PFN_vkGetPhysicalDeviceQueueFamilyProperties>("vkGetPhysicalDeviceQueueFamilyProperties")(physical_, &count, families);
        while (family_ < count && !(families[family_].queueFlags & VK_QUEUE_COMPUTE_BIT)) family_++;
        if (family_ == count) return false;
        const float priority = 1;
        VkDeviceQueueCreateInfo queue_info = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, nullptr, 0, family_, 1, &priority};
        VkDeviceCreateInfo device_info = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, nullptr, 0, 1, &queue_info, 0, nullptr, 0, nullptr, nullptr};
        expect(call<PFN_vkCreateDevice>("vkCreateDevice")(physical_, &device_info, nullptr, &device_), "vkCreateDevice");
        call<PFN_vkGetDeviceQueue>("vkGetDeviceQueue")(device_, family_, 0, &queue_);
        return true;
    }
    ~VulkanHost() {
        if (device_) call<PFN_vkDestroyDevice>("vkDestroyDevice")(device_, nullptr);
        if (instance_) call<PFN_vkDestroyInstance>("vkDestroyInstance")(instance_, nullptr);
    }

    // What lends all of it to a context.
    qlora_context_args options() const {
        auto args = qlora::make<qlora_context_args>();
        args.backend = QLORA_BACKEND_VULKAN;
        args.vulkan_get_instance_proc_addr = uint64_t(reinterpret_cast<uintptr_t>(get_));
        args.vulkan_instance = uint64_t(reinterpret_cast<uintptr_t>(instance_));
        args.vulkan_physical_device = uint64_t(reinterpret_cast<uintptr_t>(physical_));
        args.vulkan_device = uint64_t(reinterpret_cast<uintptr_t>(device_));
        args.vulkan_queue = uint64_t(reinterpret_cast<uintptr_t>(queue_));
        args.vulkan_queue_family = family_;
        return args;
    }
    template <class Function> Function call(const char *name) const { return reinterpret_cast<Function>(get_(instance_, name)); }
    VkPhysicalDevice physical() const { return physical_; }
    VkDevice device() const { return device_; }
    VkQueue queue() const { return queue_; }
    uint32_t family() const { return family_; }

private:
    PFN_vkGetInstanceProcAddr get_ = nullptr;
    VkInstance instance_ = nullptr;
    VkPhysicalDevice physical_ = nullptr;
    VkDevice device_ = nullptr;
    VkQueue queue_ = nullptr;
    uint32_t family_ = 0;
};

} // namespace test
