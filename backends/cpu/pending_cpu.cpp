// Operations still to be written.
#include "backends/cpu/cpu.h"
int32_t qlora::cpu::attention(Context &context, const qlora_attention_args &) { return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_attention_forward: not written yet"); }
uint64_t qlora::cpu::attention_scratch(Context &, const qlora_attention_args &) { return 0; }
int32_t qlora::cpu::attention_grad(Context &context, const qlora_attention_grad_args &) { return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_attention_grad: not written yet"); }
uint64_t qlora::cpu::attention_grad_scratch(Context &, const qlora_attention_grad_args &) { return 0; }
