// A context on a device that the caller made, with nothing switched on that Vulkan 1.2 does not promise: it gives the bits that
// the library's own device gives, where integer dot products may be in use.
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include <dlfcn.h>
#include <doctest/doctest.h>

using namespace test;

namespace {

// Instance, device and queue of a program that uses Vulkan itself.
class Host {
public:
    // Takes the device whose name begins the given one.
    explicit Host(const std::string &name) {
        library_ = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        REQUIRE(library_ != nullptr);
        get_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library_, "vkGetInstanceProcAddr"));
        VkApplicationInfo application = {};
        application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
        application.apiVersion = VK_API_VERSION_1_2;
        VkInstanceCreateInfo info = {};
        info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
        info.pApplicationInfo = &application;
        REQUIRE(call<PFN_vkCreateInstance>("vkCreateInstance")(&info, nullptr, &instance_) == VK_SUCCESS);
        VkPhysicalDevice devices[16];
        uint32_t count = 16;
        call<PFN_vkEnumeratePhysicalDevices>("vkEnumeratePhysicalDevices")(instance_, &count, devices);
        for (uint32_t i = 0; i < count && !physical_; i++) {
            VkPhysicalDeviceProperties properties;
            call<PFN_vkGetPhysicalDeviceProperties>("vkGetPhysicalDeviceProperties")(devices[i], &properties);
            if (name.compare(0, std::strlen(properties.deviceName), properties.deviceName) == 0) physical_ = devices[i];
        }
        REQUIRE(physical_ != nullptr);
        VkQueueFamilyProperties families[16];
        count = 16;
        call<PFN_vkGetPhysicalDeviceQueueFamilyProperties>("vkGetPhysicalDeviceQueueFamilyProperties")(physical_, &count, families);
        while (family_ < count && !(families[family_].queueFlags & VK_QUEUE_COMPUTE_BIT)) family_++;
        REQUIRE(family_ < count);
        const float priority = 1;
        VkDeviceQueueCreateInfo queue = {};
        queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
        queue.queueFamilyIndex = family_;
        queue.queueCount = 1;
        queue.pQueuePriorities = &priority;
        VkDeviceCreateInfo device = {};
        device.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
        device.queueCreateInfoCount = 1;
        device.pQueueCreateInfos = &queue;
        REQUIRE(call<PFN_vkCreateDevice>("vkCreateDevice")(physical_, &device, nullptr, &device_) == VK_SUCCESS);
        call<PFN_vkGetDeviceQueue>("vkGetDeviceQueue")(device_, family_, 0, &queue_);
    }
    ~Host() {
        if (device_) call<PFN_vkDestroyDevice>("vkDestroyDevice")(device_, nullptr);
        if (instance_) call<PFN_vkDestroyInstance>("vkDestroyInstance")(instance_, nullptr);
    }
    Host(const Host &) = delete;

    qlora_context_args options() const {
        auto args = qlora::make<qlora_context_args>();
        args.vulkan_get_instance_proc_addr = uint64_t(reinterpret_cast<uintptr_t>(get_));
        args.vulkan_instance = uint64_t(reinterpret_cast<uintptr_t>(instance_));
        args.vulkan_physical_device = uint64_t(reinterpret_cast<uintptr_t>(physical_));
        args.vulkan_device = uint64_t(reinterpret_cast<uintptr_t>(device_));
        args.vulkan_queue = uint64_t(reinterpret_cast<uintptr_t>(queue_));
        args.vulkan_queue_family = family_;
        return args;
    }

private:
    template <class Function> Function call(const char *name) const { return reinterpret_cast<Function>(get_(instance_, name)); }

    void *library_ = nullptr;
    PFN_vkGetInstanceProcAddr get_ = nullptr;
    VkInstance instance_ = nullptr;
    VkPhysicalDevice physical_ = nullptr;
    VkDevice device_ = nullptr;
    VkQueue queue_ = nullptr;
    uint32_t family_ = 0;
};

std::vector<Output> outputs_of(const Case &one, const qlora::Context &context) {
    Stage stage(context);
    one.act(stage);
    CHECK_MESSAGE(stage.status() == QLORA_OK, text(one.name, ": ", stage.last_message()));
    return stage.outputs();
}

} // namespace

TEST_SUITE_BEGIN("borrowed");

TEST_CASE("a device of the caller's gives the same bits") {
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_VULKAN) continue;
        const qlora::Context &own = shared_context(target);
        const Host host(own.query().name);
        const qlora_context_args options = host.options();
        const qlora::Context borrowed = open(target, &options);
        for (const Operation &operation : all_operations()) {
            const Case &one = operation.cases[0];
            if (!own.operation_supports(operation.number, one.format, one.type)) continue;
            const std::vector<Output> expected = outputs_of(one, own), found = outputs_of(one, borrowed);
            REQUIRE(found.size() == expected.size());
            for (size_t i = 0; i < found.size(); i++) CHECK_MESSAGE(found[i].bytes == expected[i].bytes, text(operation.name, " ", one.name, " ", found[i].name));
        }
        for (const Case &one : cases<QLORA_OP_INT8_MATMUL>()) // integer products by other instructions
            if (one.name.find("17x64x256") != std::string::npos) CHECK_MESSAGE(outputs_of(one, borrowed)[0].bytes == outputs_of(one, own)[0].bytes, one.name);
    }
}

TEST_SUITE_END();
