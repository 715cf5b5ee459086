// Cooperative matrices (VK_KHR_cooperative_matrix): what a device has of them, and modules over bf16.
#include "backends/vulkan/device_vulkan.h"

#include <cstring>

namespace qlora {
namespace vulkan {

bool has_extension(const Functions &vk, VkPhysicalDevice device, const char *name) {
    VkExtensionProperties extensions[512];
    uint32_t count = 512;
    const VkResult result = vk.EnumerateDeviceExtensionProperties(device, nullptr, &count, extensions);
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) return false;
    for (uint32_t i = 0; i < count; i++)
        if (std::strcmp(extensions[i].extensionName, name) == 0) return true;
    return false;
}

#ifdef QLORA_WITH_COOPERATIVE
namespace {

constexpr const char *matrix_extension = "VK_KHR_cooperative_matrix", *bfloat16_extension = "VK_KHR_shader_bfloat16", *size_extension = "VK_EXT_subgroup_size_control";

// Numbers that headers before 1.3.255 (matrices) and 1.4.311 (bf16) lack.
constexpr VkStructureType matrix_features_type = VkStructureType(1000506000), matrix_properties_type = VkStructureType(1000506001), bfloat16_features_type = VkStructureType(1000141000);
constexpr int32_t component_f16 = 0, component_f32 = 1, component_bf16 = 1000141000, scope_subgroup = 3;

struct MatrixProperties { // VkCooperativeMatrixPropertiesKHR
    VkStructureType type;
    void *next;
    uint32_t m, n, k;
    int32_t a, b, c, result;
    VkBool32 saturating;
    int32_t scope;
};
using GetMatrixProperties = VkResult(VKAPI_PTR *)(VkPhysicalDevice, uint32_t *, MatrixProperties *);

// Larger matrices need fewer instructions; beyond 16 x 16 x 16 the tiles would not divide by them.
void keep_larger(Cooperative::Size &kept, const MatrixProperties &row) {
    const bool fits = 16 % row.m == 0 && 16 % row.n == 0 && 16 % row.k == 0 && row.k % 8 == 0 && row.m % 8 == 0 && row.n % 8 == 0;
    if (fits && row.m * row.n * row.k > kept.m * kept.n * kept.k) kept = {row.m, row.n, row.k};
}

} // namespace

void ask_for_cooperative(State &state, CooperativeRequest &request, const void **chain) {
    std::memset(&request, 0, sizeof request);
    const auto here = [&](const char *name) { return has_extension(state.vk, state.physical, name); };
    if (!here(matrix_extension) || !here(size_extension)) return;
    const bool bfloat16 = here(bfloat16_extension);
    request.memory_model.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES;
    request.memory_model.pNext = &request.float16;
    request.float16.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES;
    request.float16.pNext = &request.subgroup_size;
    request.subgroup_size.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT;
    request.subgroup_size.pNext = &request.matrices;
    request.matrices.type = matrix_features_type;
    request.matrices.next = bfloat16 ? &request.bfloat16 : nullptr;
    request.bfloat16.type = bfloat16_features_type;
    VkPhysicalDeviceFeatures2 features = {};
    features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    features.pNext = &request.memory_model;
    state.vk.GetPhysicalDeviceFeatures2(state.physical, &features);
    if (!request.memory_model.vulkanMemoryModel || !request.float16.shaderFloat16 || !request.subgroup_size.subgroupSizeControl || !request.subgroup_size.computeFullSubgroups ||
        !request.matrices.matrices)
        return;
    request.matrices.robust = VK_FALSE; // they are read from shared memory only
    VkPhysicalDeviceSubgroupProperties subgroup = {};
    subgroup.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES;
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT sizes = {};
    sizes.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT;
    sizes.pNext = &subgroup;
    VkPhysicalDeviceProperties2 properties = {};
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    properties.pNext = &sizes;
    state.vk.GetPhysicalDeviceProperties2(state.physical, &properties);
    if (!(sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) || subgroup.subgroupSize < sizes.minSubgroupSize || subgroup.subgroupSize > sizes.maxSubgroupSize) return;
    const auto get = reinterpret_cast<GetMatrixProperties>(state.vk.GetInstanceProcAddr(state.instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"));
    constexpr uint32_t limit = 64;
    MatrixProperties rows[limit] = {};
    for (MatrixProperties &row : rows) row.type = matrix_properties_type;
    uint32_t count = limit;
    const VkResult result = get ? get(state.physical, &count, rows) : VK_ERROR_UNKNOWN;
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) return;
    Cooperative found = {};
    found.subgroup = subgroup.subgroupSize;
    for (uint32_t i = 0; i < count; i++) {
        const MatrixProperties &row = rows[i];
        if (row.scope != scope_subgroup || row.a != row.b || row.c != component_f32 || row.result != component_f32) continue;
        if (row.a == component_f16) keep_larger(found.f16, row);
        if (row.a == component_bf16 && bfloat16 && request.bfloat16.scalars && request.bfloat16.matrices) keep_larger(found.bf16, row);
    }
    if (!found.f16.m && !found.bf16.m) return;
    state.cooperative = found;
    (bfloat16 ? request.bfloat16.next : request.matrices.next) = const_cast<void *>(*chain);
    *chain = &request.memory_model;
    request.names[request.name_count++] = matrix_extension;
    request.names[request.name_count++] = size_extension;
    if (bfloat16) request.names[request.name_count++] = bfloat16_extension;
}

size_t change_to_bfloat16(const uint32_t *module, size_t count, uint32_t *words) {
    constexpr uint32_t op_extension = 10, op_type_float = 22, op_capability = 17, float16 = 9, bfloat16_type = 5116, bfloat16_matrix = 5118, encoding_bfloat16 = 0;
    constexpr size_t header = 5;
    constexpr char name[] = "SPV_KHR_bfloat16"; // 16 characters and a zero: five words
    uint32_t extension[6] = {6u << 16 | op_extension};
    std::memcpy(&extension[1], name, sizeof name);
    std::memcpy(words, module, header * 4);
    size_t length = header;
    bool capable = false, extended = false, typed = false;
    for (size_t i = header; i < count;) {
        const uint32_t operation = module[i] & 0xffff, size = module[i] >> 16;
        if (size == 0 || i + size > count) return 0;
        if (operation == op_extension && !extended) { // capabilities come before all extensions
            for (uint32_t word : extension) words[length++] = word;
            extended = true;
        }
        if (operation == op_capability && module[i + 1] == float16) {
            for (uint32_t word : {2u << 16 | op_capability, bfloat16_type, 2u << 16 | op_capability, bfloat16_matrix}) words[length++] = word;
            capable = true;
        } else if (operation == op_type_float && module[i + 2] == 16) {
            for (uint32_t word : {4u << 16 | op_type_float, module[i + 1], 16u, encoding_bfloat16}) words[length++] = word;
            typed = true;
        } else {
            std::memcpy(words + length, module + i, size * 4);
            length += size;
        }
        i += size;
    }
    return capable && extended && typed ? length : 0;
}

#else
void ask_for_cooperative(State &, CooperativeRequest &request, const void **) { request.name_count = 0; }
size_t change_to_bfloat16(const uint32_t *, size_t, uint32_t *) { return 0; }
#endif

} // namespace vulkan
} // namespace qlora
