// Operations still to be written.
#include "backends/cpu/cpu.h"
#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    int32_t qlora::cpu::name(Context &context, const args_type &) { return context.fail(QLORA_ERROR_UNSUPPORTED, #entry ": not written yet"); } \
    uint64_t qlora::cpu::name##_scratch(Context &, const args_type &) { return 0; }
#include "backends/ops.def"
