// Recording: batches, pipelines made at first use, descriptor sets, dispatches.
#include "backends/vulkan/device_vulkan.h"

#include <cstring>

namespace qlora {
namespace vulkan {
namespace {

#include "shaders_vulkan.h" // vulkan.cmake makes it

struct Words {
    const uint32_t *data;
    size_t bytes;
};
const Words shader_words[] = {
#define QLORA_SHADER(name) {name##_vulkan, sizeof name##_vulkan},
#ifndef QLORA_WITH_COOPERATIVE
#define QLORA_SHADER_COOPERATIVE(name) {nullptr, 0},
#endif
#include "backends/vulkan/shaders.def"
#undef QLORA_SHADER
};

// Constant 10 of shaders over cooperative matrices is the type that they compute in, as of all products.
constexpr uint32_t compute_constant = 10;
bool cooperative(Shader shader) { return shader >= Shader::matmul_cooperative; }

constexpr uint32_t caller_pool_sets = 256;

int32_t create_pool(Context &context, uint32_t sets, VkDescriptorPool *pool) {
    State &state = state_of(context);
    const VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, sets * binding_limit};
    VkDescriptorPoolCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO;
    info.maxSets = sets;
    info.poolSizeCount = 1;
    info.pPoolSizes = &size;
    QLORA_VULKAN_TRY(context, state.vk, CreateDescriptorPool, state.device, &info, nullptr, pool);
    return QLORA_OK;
}

// One layout serves every shader: binding_limit storage buffers, of which each uses its first few.
int32_t create_layout(Context &context) {
    State &state = state_of(context);
    VkDescriptorSetLayoutBinding bindings[binding_limit] = {};
    for (uint32_t i = 0; i < binding_limit; i++) bindings[i] = {i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
    VkDescriptorSetLayoutCreateInfo set = {};
    set.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
    set.bindingCount = binding_limit;
    set.pBindings = bindings;
    QLORA_VULKAN_TRY(context, state.vk, CreateDescriptorSetLayout, state.device, &set, nullptr, &state.set_layout);
    const VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, push_limit};
    VkPipelineLayoutCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
    info.setLayoutCount = 1;
    info.pSetLayouts = &state.set_layout;
    info.pushConstantRangeCount = 1;
    info.pPushConstantRanges = &range;
    QLORA_VULKAN_TRY(context, state.vk, CreatePipelineLayout, state.device, &info, nullptr, &state.layout);
    return QLORA_OK;
}

int32_t create_batch(Context &context, Batch &batch) {
    State &state = state_of(context);
    VkCommandBufferAllocateInfo commands = {};
    commands.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    commands.commandPool = state.commands;
    commands.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    commands.commandBufferCount = 1;
    QLORA_VULKAN_TRY(context, state.vk, AllocateCommandBuffers, state.device, &commands, &batch.commands);
    VkFenceCreateInfo fence = {};
    fence.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO;
    QLORA_VULKAN_TRY(context, state.vk, CreateFence, state.device, &fence, nullptr, &batch.fence);
    return create_pool(context, batch_dispatches, &batch.descriptors);
}

// Waits for a batch and makes it ready to record again.
int32_t recycle(Context &context, Batch &batch) {
    State &state = state_of(context);
    if (!batch.submitted) return QLORA_OK;
    QLORA_VULKAN_TRY(context, state.vk, WaitForFences, state.device, 1, &batch.fence, VK_TRUE, UINT64_MAX);
    QLORA_VULKAN_TRY(context, state.vk, ResetDescriptorPool, state.device, batch.descriptors, 0);
    QLORA_VULKAN_TRY(context, state.vk, ResetFences, state.device, 1, &batch.fence); // last: a wait after a failure here returns
    batch.submitted = false;
    batch.dispatches = 0;
    batch.staged = 0;
    return QLORA_OK;
}

uint64_t hash_of(Shader shader, const Constants &constants) {
    uint64_t hash = 0xcbf29ce484222325u ^ uint64_t(shader);
    for (uint32_t value : constants.values) hash = (hash ^ value) * 0x100000001b3u;
    return hash;
}

int32_t create_module(Context &context, Shader shader, const Constants &constants, VkShaderModule *module) {
    State &state = state_of(context);
    const Words &words = shader_words[uint32_t(shader)];
    VkShaderModuleCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
    info.codeSize = words.bytes;
    info.pCode = words.data;
    uint32_t *changed = nullptr;
    const size_t room = words.bytes + bfloat16_words * 4;
    if (cooperative(shader) && constants.values[compute_constant] == QLORA_FORMAT_BF16) {
        changed = static_cast<uint32_t *>(context.allocate(room, "vulkan module"));
        if (!changed) return context.fail(QLORA_ERROR_MEMORY, "vulkan: no host memory for a shader");
        info.codeSize = change_to_bfloat16(words.data, words.bytes / 4, changed) * 4;
        info.pCode = changed;
        if (info.codeSize == 0) {
            context.release(changed, room);
            return context.fail(QLORA_ERROR_UNSUPPORTED, "vulkan: a shader over cooperative matrices has no bf16 form; compute in f16 or f32");
        }
    }
    const VkResult result = context.injected("vkCreateShaderModule") ? VK_ERROR_UNKNOWN : state.vk.CreateShaderModule(state.device, &info, nullptr, module);
    if (changed) context.release(changed, room);
    return driver_status(context, result, "vkCreateShaderModule");
}

int32_t find_pipeline(Context &context, Shader shader, const Constants &constants, VkPipeline *handle) {
    State &state = state_of(context);
    const uint64_t hash = hash_of(shader, constants);
    for (uint32_t i = 0; i < state.pipelines.count; i++) {
        const Pipeline &pipeline = state.pipelines.data[i];
        if (pipeline.hash == hash && pipeline.shader == shader && std::memcmp(pipeline.constants, constants.values, sizeof pipeline.constants) == 0) {
            *handle = pipeline.handle;
            return QLORA_OK;
        }
    }
    VkShaderModule module;
    QLORA_TRY(create_module(context, shader, constants, &module));
    VkSpecializationMapEntry entries[constant_limit];
    for (uint32_t i = 0; i < constant_limit; i++) entries[i] = {i, i * 4, 4};
    const VkSpecializationInfo specialization = {constants.count, entries, sizeof constants.values, constants.values};
    VkComputePipelineCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
    info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
    info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
    info.stage.module = module;
    info.stage.pName = "main";
    info.stage.pSpecializationInfo = &specialization;
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfoEXT subgroup = {};
    if (cooperative(shader)) {
        subgroup.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO_EXT;
        subgroup.requiredSubgroupSize = state.cooperative.subgroup;
        info.stage.pNext = &subgroup;
        info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT;
    }
    info.layout = state.layout;
    Pipeline pipeline = {hash, shader, {}, VkPipeline()};
    std::memcpy(pipeline.constants, constants.values, sizeof pipeline.constants);
    const VkResult result = context.injected("vkCreateComputePipelines") ? VK_ERROR_UNKNOWN
                                                                         : state.vk.CreateComputePipelines(state.device, VK_NULL_HANDLE, 1, &info, nullptr, &pipeline.handle);
    state.vk.DestroyShaderModule(state.device, module, nullptr);
    QLORA_TRY(driver_status(context, result, "vkCreateComputePipelines"));
    if (!state.pipelines.push(context, pipeline, "vulkan pipelines")) {
        state.vk.DestroyPipeline(state.device, pipeline.handle, nullptr);
        return context.fail(QLORA_ERROR_MEMORY, "vulkan: no host memory to remember a pipeline");
    }
    *handle = pipeline.handle;
    return QLORA_OK;
}

int32_t take_set(Context &context, uint64_t stream, VkDescriptorSet *set) {
    State &state = state_of(context);
    VkDescriptorPool pool = state.batches[state.current].descriptors;
    if (stream) {
        if (state.caller_sets == 0) {
            VkDescriptorPool fresh;
            QLORA_TRY(create_pool(context, caller_pool_sets, &fresh));
            if (!state.caller_pools.push(context, fresh, "vulkan pools")) {
                state.vk.DestroyDescriptorPool(state.device, fresh, nullptr);
                return context.fail(QLORA_ERROR_MEMORY, "vulkan: no host memory to remember a descriptor pool");
            }
            state.caller_sets = caller_pool_sets;
        }
        pool = state.caller_pools.data[state.caller_pools.count - 1];
        state.caller_sets--;
    }
    VkDescriptorSetAllocateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
    info.descriptorPool = pool;
    info.descriptorSetCount = 1;
    info.pSetLayouts = &state.set_layout;
    QLORA_VULKAN_TRY(context, state.vk, AllocateDescriptorSets, state.device, &info, set);
    return QLORA_OK;
}

// Binds each span at the last multiple of 256 before it and leaves the rest, in words, to the push constants.
int32_t bind_spans(Context &context, VkDescriptorSet set, const Spans &spans, PushHeader &header) {
    State &state = state_of(context);
    constexpr uint64_t alignment = 256; // the largest minStorageBufferOffsetAlignment there can be
    VkDescriptorBufferInfo infos[binding_limit];
    VkWriteDescriptorSet writes[binding_limit] = {};
    header = PushHeader{};
    // Every binding is written, since a shader may name more of them than a variant of it uses; absent ones are the codebooks.
    for (uint32_t i = 0; i < binding_limit; i++) {
        const qlora_span span = i < spans.count ? spans.data[i] : qlora_span{};
        if (span.handle == 0 || span.size == 0) {
            infos[i] = {state.tables.buffer, 0, VK_WHOLE_SIZE};
        } else {
            const uint64_t start = span.offset / alignment * alignment, range = (span.offset - start + span.size + 3) / 4 * 4;
            if (range > state.properties.limits.maxStorageBufferRange)
                return context.fail(QLORA_ERROR_UNSUPPORTED, "vulkan: an operand of %llu bytes: this device reaches %llu in one binding; split the tensor",
                                    (unsigned long long)span.size, (unsigned long long)state.properties.limits.maxStorageBufferRange);
            infos[i] = {buffer_of(span.handle), start, range};
            header.base[i / 4] |= uint32_t((span.offset - start) / 4) << (i % 4 * 8);
        }
        writes[i].sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
        writes[i].dstSet = set;
        writes[i].dstBinding = i;
        writes[i].descriptorCount = 1;
        writes[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
        writes[i].pBufferInfo = &infos[i];
    }
    state.vk.UpdateDescriptorSets(state.device, binding_limit, writes, 0, nullptr);
    return QLORA_OK;
}

} // namespace

int32_t create_recording(Context &context) {
    State &state = state_of(context);
    QLORA_TRY(create_layout(context));
    VkCommandPoolCreateInfo pool = {};
    pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
    pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
    pool.queueFamilyIndex = state.family;
    QLORA_VULKAN_TRY(context, state.vk, CreateCommandPool, state.device, &pool, nullptr, &state.commands);
    for (Batch &batch : state.batches) QLORA_TRY(create_batch(context, batch));
    QLORA_TRY(create_lanes(context));
    QLORA_TRY(allocate_buffer(context, staging_bytes * batch_count, true, &state.staging));
    void *memory;
    QLORA_VULKAN_TRY(context, state.vk, MapMemory, state.device, state.staging.memory, 0, VK_WHOLE_SIZE, 0, &memory);
    state.staging_memory = static_cast<char *>(memory);
    return create_tables(context);
}

void destroy_recording(Context &context) {
    State &state = state_of(context);
    if (!state.device || !state.vk.DeviceWaitIdle) return;
    submit(context);
    state.vk.DeviceWaitIdle(state.device);
    for (uint32_t i = 0; i < state.buffers.count; i++) free_buffer(state, state.buffers.data[i]);
    for (uint32_t i = 0; i < state.pipelines.count; i++) state.vk.DestroyPipeline(state.device, state.pipelines.data[i].handle, nullptr);
    for (uint32_t i = 0; i < state.caller_pools.count; i++) state.vk.DestroyDescriptorPool(state.device, state.caller_pools.data[i], nullptr);
    for (Batch &batch : state.batches) {
        if (batch.fence) state.vk.DestroyFence(state.device, batch.fence, nullptr);
        if (batch.descriptors) state.vk.DestroyDescriptorPool(state.device, batch.descriptors, nullptr);
    }
    destroy_lanes(state);
    free_buffer(state, state.staging);
    free_buffer(state, state.tables);
    if (state.commands) state.vk.DestroyCommandPool(state.device, state.commands, nullptr);
    if (state.layout) state.vk.DestroyPipelineLayout(state.device, state.layout, nullptr);
    if (state.set_layout) state.vk.DestroyDescriptorSetLayout(state.device, state.set_layout, nullptr);
    state.buffers.release(context);
    state.pipelines.release(context);
    state.caller_pools.release(context);
}

int32_t begin(Context &context, uint64_t stream, uint64_t bytes, VkCommandBuffer *commands) {
    State &state = state_of(context);
    if (stream) {
        *commands = reinterpret_cast<VkCommandBuffer>(uintptr_t(stream));
        return QLORA_OK;
    }
    Batch *batch = &state.batches[state.current];
    if (batch->recording && (batch->dispatches == batch_dispatches || batch->staged + bytes > staging_bytes)) {
        QLORA_TRY(submit(context));
        batch = &state.batches[state.current];
    }
    if (!batch->recording) {
        QLORA_TRY(recycle(context, *batch));
        VkCommandBufferBeginInfo info = {};
        info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
        info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
        QLORA_VULKAN_TRY(context, state.vk, BeginCommandBuffer, batch->commands, &info);
        batch->recording = true;
    }
    *commands = batch->commands;
    return QLORA_OK;
}

static int32_t end_and_submit(Context &context, State &state, Batch &batch) {
    VkMemoryBarrier visible = {}; // what reached host buffers is for the host to read
    visible.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    visible.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_SHADER_WRITE_BIT;
    visible.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
    state.vk.CmdPipelineBarrier(batch.commands, VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &visible, 0, nullptr, 0, nullptr);
    QLORA_VULKAN_TRY(context, state.vk, EndCommandBuffer, batch.commands);
    return submit_in_order(context, batch.commands, batch.fence);
}

int32_t submit(Context &context) {
    State &state = state_of(context);
    Batch &batch = state.batches[state.current];
    if (!batch.recording) return QLORA_OK;
    const int32_t status = end_and_submit(context, state, batch);
    batch.recording = false;
    if (status != QLORA_OK) { // what was recorded is lost; the next batch begins clean
        state.vk.ResetCommandBuffer(batch.commands, 0);
        state.vk.ResetDescriptorPool(state.device, batch.descriptors, 0);
        batch.dispatches = 0;
        batch.staged = 0;
        return status;
    }
    batch.submitted = true;
    state.current = (state.current + 1) % batch_count;
    return QLORA_OK;
}

int32_t finish(Context &context) {
    State &state = state_of(context);
    QLORA_TRY(submit(context));
    for (Batch &batch : state.batches) QLORA_TRY(recycle(context, batch));
    return QLORA_OK;
}

void barrier(State &state, VkCommandBuffer commands) {
    VkMemoryBarrier memory = {};
    memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    constexpr VkPipelineStageFlags stages = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    state.vk.CmdPipelineBarrier(commands, stages, stages, 0, 1, &memory, 0, nullptr, 0, nullptr);
}

int32_t enqueue_bytes(Context &context, uint64_t stream, Shader shader, const Constants &constants, const Spans &spans, void *push, uint32_t push_bytes,
                      uint64_t groups, Order order) {
    State &state = state_of(context);
    if (groups == 0) return QLORA_OK;
    constexpr uint64_t row = 32768; // workgroups in x; both dimensions may be 65535 at least
    const uint32_t x = uint32_t(groups < row ? groups : row);
    const uint64_t y = (groups + x - 1) / x;
    if (y > state.properties.limits.maxComputeWorkGroupCount[1]) return context.fail(QLORA_ERROR_UNSUPPORTED, "vulkan: %llu workgroups in one dispatch; split the tensor", (unsigned long long)groups);
    VkPipeline pipeline;
    QLORA_TRY(find_pipeline(context, shader, constants, &pipeline));
    VkCommandBuffer commands;
    QLORA_TRY(begin(context, stream, 0, &commands));
    VkDescriptorSet set;
    QLORA_TRY(take_set(context, stream, &set));
    if (!stream) state.batches[state.current].dispatches++;
    QLORA_TRY(bind_spans(context, set, spans, *static_cast<PushHeader *>(push)));
    if (order == Order::AFTER_PREVIOUS) barrier(state, commands);
    state.vk.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    state.vk.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, state.layout, 0, 1, &set, 0, nullptr);
    state.vk.CmdPushConstants(commands, state.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes, push);
    state.vk.CmdDispatch(commands, x, uint32_t(y), 1);
    if (stream) barrier(state, commands);
    return QLORA_OK;
}

int32_t enqueue_update(Context &context, uint64_t stream, const qlora_span &span, const void *data, uint64_t bytes) {
    State &state = state_of(context);
    VkCommandBuffer commands;
    QLORA_TRY(begin(context, stream, 0, &commands));
    barrier(state, commands);
    constexpr uint64_t limit = 65536; // of one vkCmdUpdateBuffer
    for (uint64_t done = 0; done < bytes; done += limit)
        state.vk.CmdUpdateBuffer(commands, buffer_of(span.handle), span.offset + done, bytes - done < limit ? bytes - done : limit, static_cast<const char *>(data) + done);
    return QLORA_OK;
}

int32_t enqueue_fill(Context &context, uint64_t stream, const qlora_span &span, uint64_t bytes) {
    State &state = state_of(context);
    if (bytes == 0) return QLORA_OK; // which would mean all that there is
    VkCommandBuffer commands;
    QLORA_TRY(begin(context, stream, 0, &commands));
    barrier(state, commands);
    state.vk.CmdFillBuffer(commands, buffer_of(span.handle), span.offset, bytes, 0);
    return QLORA_OK;
}

int32_t check_elements(Context &context, const char *entry, uint64_t elements) {
    if (elements < (uint64_t(1) << 32)) return QLORA_OK;
    return context.fail(QLORA_ERROR_UNSUPPORTED, "%s: %llu elements: vulkan shaders count to 2^32; split the tensor", entry, (unsigned long long)elements);
}

} // namespace vulkan
} // namespace qlora
