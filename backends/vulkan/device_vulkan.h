// What the Vulkan files share: the driver's functions, the state of a context, and how an operation is enqueued.
//
// Work is recorded into batches, each a command buffer with its own descriptor pool, staging memory and fence. A batch is
// submitted when it is full or somebody waits, and recycled when its fence is done. With a caller's command buffer
// (args.stream) work is only recorded; its descriptor sets live as long as the context, since the caller may submit the
// recording any number of times.
#pragma once
#include "backends/backend.h"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include <cstring>
#include <initializer_list>

namespace qlora {
namespace vulkan {

enum class Shader : uint32_t {
#define QLORA_SHADER(name) name,
#include "backends/vulkan/shaders.def"
#undef QLORA_SHADER
};

struct Functions {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
#define QLORA_VULKAN_FUNCTION(level, name) PFN_vk##name name;
#include "backends/vulkan/functions.def"
#undef QLORA_VULKAN_FUNCTION
};

constexpr uint32_t binding_limit = 14;     // storage buffers of one dispatch; number 11 is the codebooks
constexpr uint32_t constant_limit = 32;    // specialisation constants of one pipeline
constexpr uint32_t push_limit = 128;       // bytes
constexpr uint32_t batch_dispatches = 256; // a longer recording is submitted
constexpr uint32_t batch_count = 4;
constexpr uint64_t staging_bytes = uint64_t(8) << 20; // of one batch

struct Batch {
    VkCommandBuffer commands;
    VkFence fence;
    VkDescriptorPool descriptors;
    bool recording, submitted;
    uint32_t dispatches;
    uint64_t staged; // bytes of its staging memory in use
};

// Cooperative matrices of subgroups, where the device was created with them: m x k times k x n of a 16-bit type, sums of f32.
// There are none of a type whose m is 0.
struct Cooperative {
    struct Size {
        uint32_t m, n, k;
    } f16, bf16;
    Size of(int32_t type) const { return type == QLORA_FORMAT_F16 ? f16 : type == QLORA_FORMAT_BF16 ? bf16 : Size{}; }
    uint32_t subgroup; // invocations of a subgroup, which their pipelines ask for
};

struct Pipeline {
    uint64_t hash;
    Shader shader;
    uint32_t constants[constant_limit];
    VkPipeline handle;
};

// A buffer that buffer_create made.
struct Allocation {
    VkBuffer buffer;
    VkDeviceMemory memory;
};

// A queue of copies beside the operations in one direction, and a semaphore that counts those that are done.
constexpr uint32_t lane_copies = 16; // under way; the next one waits for the oldest
struct Lane {
    VkQueue queue;
    VkCommandPool pool;
    VkCommandBuffer commands[lane_copies];
    VkSemaphore done;
    uint64_t submitted, joined, waited; // copies, those of them that later operations wait for, and those that one was told to
};
struct Beside {
    bool ready; // else copies are recorded among the operations
    uint32_t family, first, queues; // the lanes' queues: their family, the first one's place in it, how many of their own there are
    VkSemaphore operations;  // counts the batches that are done
    uint64_t submitted;      // batches
    Lane lanes[2];           // to the device, to host memory
};

// An array in the host's memory that grows; elements are plain data.
template <class T> struct Array {
    T *data;
    uint32_t count, capacity;
    bool push(Context &context, const T &element, const char *name) {
        if (count == capacity) {
            const uint32_t larger = capacity ? capacity * 2 : 64;
            T *grown = static_cast<T *>(context.allocate(sizeof(T) * larger, name));
            if (!grown) return false;
            for (uint32_t i = 0; i < count; i++) grown[i] = data[i];
            release(context);
            data = grown;
            capacity = larger;
        }
        data[count++] = element;
        return true;
    }
    void release(Context &context) {
        context.release(data, sizeof(T) * capacity);
        data = nullptr;
    }
};

struct State {
    void *library; // null when the caller lent its device
    Functions vk;
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    bool owned; // instance and device are ours
    bool dot_product; // the device was created with VK_KHR_shader_integer_dot_product
    Cooperative cooperative;
    int32_t index;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
    VkCommandPool commands;
    Batch batches[batch_count];
    uint32_t current;
    Beside beside;
    Allocation staging, tables; // tables: the codebooks, and what is bound where a span is absent
    char *staging_memory;
    Array<Pipeline> pipelines;
    Array<Allocation> buffers;
    Array<VkDescriptorPool> caller_pools; // for callers' command buffers
    uint32_t caller_sets;                 // left in the last of them
};

inline State &state_of(Context &context) { return *static_cast<State *>(context.state); }

// ---- driver (driver_vulkan.cpp) ---------------------------------------------------------------------------------

// Loads the Vulkan loader; null when the machine has none.
void *open_library();
void close_library(void *library);
PFN_vkGetInstanceProcAddr library_entry(void *library);
// Fills the functions that need no instance, those of an instance, those of a device; false when one is missing.
bool load_global(Functions &vk);
bool load_instance(Functions &vk, VkInstance instance);
bool load_device(Functions &vk, VkDevice device);
// The family of a device's queues that compute, or UINT32_MAX when the device is none that this backend can use.
uint32_t compute_family(const Functions &vk, VkPhysicalDevice device);
// Turns a driver's result into a status with its name in the message.
int32_t driver_status(Context &context, VkResult result, const char *call);

#define QLORA_VULKAN_TRY(context, vk, name, ...)                                                              \
    QLORA_TRY(driver_status(context, (context).injected("vk" #name) ? VK_ERROR_UNKNOWN : (vk).name(__VA_ARGS__), "vk" #name))

// ---- cooperative matrices (cooperative_vulkan.cpp) --------------------------------------------------------------

// What a new device must be asked for to have them: a chain of features and names of extensions.
struct CooperativeRequest {
    VkPhysicalDeviceVulkanMemoryModelFeatures memory_model;
    VkPhysicalDeviceShaderFloat16Int8Features float16;
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT subgroup_size;
    struct { // VkPhysicalDeviceCooperativeMatrixFeaturesKHR, which older headers lack
        VkStructureType type;
        void *next;
        VkBool32 matrices, robust;
    } matrices;
    struct { // VkPhysicalDeviceShaderBfloat16FeaturesKHR, likewise
        VkStructureType type;
        void *next;
        VkBool32 scalars, dot_products, matrices;
    } bfloat16;
    const char *names[3];
    uint32_t name_count; // 0: the device has no such matrices
};
// Fills the request and state.cooperative, and puts the request's features before those of the chain.
void ask_for_cooperative(State &state, CooperativeRequest &request, const void **chain);
// A module over matrices of f16 becomes the same over bf16: words has room for count + bfloat16_words. Returns the new count, 0
// where the module is not what is expected.
constexpr size_t bfloat16_words = 9;
size_t change_to_bfloat16(const uint32_t *module, size_t count, uint32_t *words);
bool has_extension(const Functions &vk, VkPhysicalDevice device, const char *name);

// ---- buffers (buffer_vulkan.cpp) --------------------------------------------------------------------------------

// A VkBuffer is a pointer or 64 bits, depending on the machine.
inline uint64_t handle_of(VkBuffer buffer) { uint64_t handle = 0; std::memcpy(&handle, &buffer, sizeof buffer); return handle; }
inline VkBuffer buffer_of(uint64_t handle) { VkBuffer buffer; std::memcpy(&buffer, &handle, sizeof buffer); return buffer; }
int32_t allocate_buffer(Context &context, uint64_t bytes, bool host, Allocation *allocation);
void free_buffer(State &state, const Allocation &allocation);
// Puts the codebooks into device memory (codebooks_vulkan.cpp).
int32_t create_tables(Context &context);

// ---- copies beside the operations (beside_vulkan.cpp) -----------------------------------------------------------

// Chooses the lanes' queues; returns how many the device must be created with beside the first of the operations' family, where
// state.beside.family says.
uint32_t choose_lanes(State &state);
int32_t create_lanes(Context &context);
void destroy_lanes(State &state);
int32_t copy_beside(Context &context, const qlora_buffer_args &args);
// What is recorded from now on waits for the copies of a direction.
int32_t join_lane(Context &context, bool to_host);
int32_t finish_lanes(Context &context);
// Submits a batch after all copies that were joined.
int32_t submit_in_order(Context &context, VkCommandBuffer commands, VkFence fence);

// ---- recording (enqueue_vulkan.cpp) -----------------------------------------------------------------------------

int32_t create_recording(Context &context);
void destroy_recording(Context &context);
// The command buffer to record into: the caller's, or that of a batch with room for one more dispatch and the given
// bytes of staging memory.
int32_t begin(Context &context, uint64_t stream, uint64_t bytes, VkCommandBuffer *commands);
int32_t submit(Context &context);
// Submits and waits for everything.
int32_t finish(Context &context);
// Orders all work before against all work after.
void barrier(State &state, VkCommandBuffer commands);

// A push constant block begins with where the spans begin inside their bindings, a byte of 32-bit words for each.
struct PushHeader {
    uint32_t base[4];
};

// The spans of bindings 0, 1, 2, ...
struct Spans {
    qlora_span data[binding_limit];
    uint32_t count = 0;
    Spans(std::initializer_list<qlora_span> list) {
        for (const qlora_span &span : list) data[count++] = span;
    }
    // A span at its binding, those before it absent unless given.
    void put(uint32_t binding, const qlora_span &span) {
        while (count <= binding) data[count++] = qlora_span{};
        data[binding] = span;
    }
};

// The specialisation constants of a pipeline, ids 0, 1, 2, ...
struct Constants {
    uint32_t values[constant_limit] = {};
    uint32_t count = 0;
    Constants(std::initializer_list<uint32_t> list) { add(list); }
    Constants &add(std::initializer_list<uint32_t> list) {
        for (uint32_t value : list) values[count++] = value;
        return *this;
    }
};

enum class Order { AFTER_PREVIOUS, WITH_PREVIOUS }; // WITH_PREVIOUS: independent of the dispatch before

int32_t enqueue_bytes(Context &context, uint64_t stream, Shader shader, const Constants &constants, const Spans &spans, void *push, uint32_t push_bytes,
                      uint64_t groups, Order order);
// Records one dispatch of groups workgroups (shaders count them with group_index()). push begins with a PushHeader.
template <class Push>
int32_t enqueue(Context &context, uint64_t stream, Shader shader, const Constants &constants, const Spans &spans, Push push, uint64_t groups,
                Order order = Order::AFTER_PREVIOUS) {
    static_assert(sizeof(Push) <= push_limit, "the portable limit of push constants");
    return enqueue_bytes(context, stream, shader, constants, spans, &push, sizeof(Push), groups, order);
}
// Records an update of at most a few KiB of device memory from the host's; bytes is a multiple of 4.
int32_t enqueue_update(Context &context, uint64_t stream, const qlora_span &span, const void *data, uint64_t bytes);
// Records zeros; bytes is a multiple of 4.
int32_t enqueue_fill(Context &context, uint64_t stream, const qlora_span &span, uint64_t bytes);

// ---- what operations say of their operands ----------------------------------------------------------------------

constexpr uint64_t groups_of(uint64_t items, uint64_t each) { return (items + each - 1) / each; }

inline qlora_span part(const qlora_span &span, uint64_t offset, uint64_t bytes) {
    return span.handle ? qlora_span{span.handle, span.offset + offset, bytes} : qlora_span{};
}
// The bytes of a tensor that hold elements, so that a caller's span may be a whole arena.
inline qlora_span exact(const qlora_tensor &tensor) {
    const uint64_t elements = tensor.rows && tensor.cols ? (tensor.rows - 1) * tensor.stride + tensor.cols : 0;
    return tensor.type ? part(tensor.data, 0, elements * type_bytes(tensor.type)) : qlora_span{};
}
// True when every row of a tensor can be read 16 bytes at a time, eight elements at once.
inline bool vectors(const qlora_tensor &tensor) {
    return tensor.data.offset % 16 == 0 && tensor.cols % 8 == 0 && tensor.stride % 8 == 0;
}
inline qlora_tensor float_tensor(const qlora_span &span, uint64_t rows, uint64_t cols) {
    return qlora_tensor{QLORA_FORMAT_F32, 0, rows, cols, cols, span};
}
// True when this backend quantizes into a format (quantize_vulkan.cpp).
bool encodes(int32_t format);
// A counter that shaders hold in 32 bits.
int32_t check_elements(Context &context, const char *entry, uint64_t elements);

} // namespace vulkan
} // namespace qlora
