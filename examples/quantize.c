/* Quantizes a matrix to 4 bits and back: context, layout before memory, quantize, dequantize.
 *   cc -std=c99 examples/quantize.c -I. -Lbuild -lqlora -lstdc++ -lm -lpthread -ldl -o quantize && ./quantize */
#include "qlora.h"

#include <math.h>
#include <stdio.h>

enum { ROWS = 512, COLS = 1024 };
static float values[ROWS][COLS], decoded[ROWS][COLS];

/* On ref and cpu a span is the caller's own memory. The library wants scratch and planes aligned, hence the arena. */
static qlora_span span_of(void *memory, uint64_t bytes) {
    const qlora_span span = {(uint64_t)(uintptr_t)memory, 0, bytes};
    return span;
}
static qlora_span take(uint64_t bytes) {
    static unsigned char arena[4 << 20];
    static size_t used;
    const uintptr_t begin = ((uintptr_t)arena + used + 255) / 256 * 256;
    used = begin - (uintptr_t)arena + bytes;
    return span_of((void *)begin, used <= sizeof arena ? bytes : 0);
}

int main(void) {
    qlora_context *context;
    qlora_context_args create = {.struct_size = sizeof create, .backend = QLORA_BACKEND_CPU};
    if (qlora_context_create(&create, &context) != QLORA_OK) return 1;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++) values[i][j] = (float)sin(0.7 * i + 0.3 * j * j);

    qlora_weight weight = {.struct_size = sizeof weight, .format = QLORA_FORMAT_NF4_DQ, .rows = ROWS, .cols = COLS};
    qlora_weight_layout_info layout = {.struct_size = sizeof layout};
    qlora_weight_layout(&weight, &layout);
    qlora_weight_place(&weight, take(layout.total_bytes));

    qlora_quantize_args quantize = {.struct_size = sizeof quantize, .weight = &weight};
    quantize.src = (qlora_tensor){QLORA_FORMAT_F32, 0, ROWS, COLS, 0, span_of(values, sizeof values)};
    uint64_t scratch;
    qlora_operation_scratch(context, QLORA_OP_QUANTIZE, &quantize, &scratch);
    quantize.scratch = take(scratch);
    if (qlora_weight_quantize(context, &quantize) != QLORA_OK) return puts(qlora_context_message(context)), 1;

    qlora_dequantize_args dequantize = {.struct_size = sizeof dequantize, .weight = &weight};
    dequantize.dst = (qlora_tensor){QLORA_FORMAT_F32, 0, ROWS, COLS, 0, span_of(decoded, sizeof decoded)};
    qlora_operation_scratch(context, QLORA_OP_DEQUANTIZE, &dequantize, &scratch);
    dequantize.scratch = take(scratch);
    if (qlora_weight_dequantize(context, &dequantize) != QLORA_OK) return puts(qlora_context_message(context)), 1;
    qlora_context_destroy(context);

    double error = 0, norm = 0;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++) error += pow(decoded[i][j] - values[i][j], 2), norm += pow(values[i][j], 2);
    printf("%.3f bits a weight, relative error %.3f\n", 8.0 * (double)layout.total_bytes / (ROWS * COLS), sqrt(error / norm));
    return sqrt(error / norm) < 0.1 ? 0 : 1;
}
