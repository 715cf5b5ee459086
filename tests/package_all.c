/* Calls every function of qlora.h, or none of them: the difference of two programs is what the library adds. */
#include "qlora.h"

int main(void) {
#ifdef WITH_QLORA
    qlora_context *context = 0;
    qlora_context_args args = {0};
    qlora_span span = {0, 0, 0};
    uint64_t bytes = 0;
    int64_t value = 0;
    int32_t format = 0;
    uint32_t count = 0;
    int wrong = 0;
    args.struct_size = sizeof args;
    args.backend = QLORA_BACKEND_CPU;
    wrong += qlora_context_create(&args, &context) != QLORA_OK;
    wrong += qlora_version() == 0 || !qlora_status_name(QLORA_OK) || qlora_constant_find("QLORA_OK", &value) != QLORA_OK;
    wrong += qlora_format_query(QLORA_FORMAT_NF4, 0) == QLORA_OK || qlora_format_find("nf4", &format) != QLORA_OK;
    wrong += qlora_weight_layout(0, 0) == QLORA_OK || qlora_weight_place(0, span) == QLORA_OK;
    wrong += qlora_device_count(QLORA_BACKEND_CPU, &count) != QLORA_OK || qlora_context_query(context, 0) == QLORA_OK;
    wrong += qlora_operation_scratch(context, 0, 0, &bytes) == QLORA_OK || qlora_operation_supports(context, 0, 0, QLORA_FORMAT_F32) == QLORA_OK;
    wrong += qlora_buffer_create(context, 0) == QLORA_OK || qlora_buffer_destroy(context, 0) == QLORA_OK || qlora_buffer_write(context, 0) == QLORA_OK;
    wrong += qlora_buffer_read(context, 0) == QLORA_OK || qlora_buffer_copy(context, 0) == QLORA_OK || qlora_buffer_fill(context, 0) == QLORA_OK || qlora_buffer_join(context, 0) == QLORA_OK;
    wrong += qlora_graph_begin(context, 0) == QLORA_OK || qlora_graph_end(context, 0) == QLORA_OK || qlora_graph_launch(context, 0) == QLORA_OK || qlora_graph_destroy(context, 0) == QLORA_OK;
    wrong += qlora_gptq_import(context, 0) == QLORA_OK || qlora_gptq_export(context, 0) == QLORA_OK;
#define QLORA_OPERATION(ID, name, entry, args_type, ...) wrong += entry(context, (const args_type *)0) == QLORA_OK;
#include "backends/ops.def"
    wrong += qlora_context_synchronize(context) != QLORA_OK || !qlora_context_message(context)[0];
    qlora_context_destroy(context);
    return wrong;
#else
    return 0;
#endif
}
