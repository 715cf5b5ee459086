/* Trains a LoRA adapter on one frozen 4-bit layer: forward, gradients, AdamW. A and B learn a correction; W never moves. */
#include "qlora.h"

#include <math.h>
#include <stdio.h>

enum { TOKENS = 32, ROWS = 48, COLS = 64, RANK = 4, STEPS = 150 };
static float w[ROWS * COLS], x[TOKENS * COLS], y[TOKENS * ROWS], goal[TOKENS * ROWS], xa[TOKENS * RANK], planes[ROWS * COLS];
static float a[RANK * COLS], da[RANK * COLS], a1[RANK * COLS], a2[RANK * COLS], scratch_memory[1 << 20];
static float b[ROWS * RANK], db[ROWS * RANK], b1[ROWS * RANK], b2[ROWS * RANK]; /* B = 0: the adapter begins as nothing */

#define SIZED(type) .struct_size = sizeof(type)
#define SPAN(array) {(uint64_t)(uintptr_t)(array), 0, sizeof(array)}
#define TENSOR(array, rows, cols) {QLORA_FORMAT_F32, 0, rows, cols, 0, SPAN(array)}
static qlora_context *context;
static int check(int32_t status) { return status == QLORA_OK ? 0 : (puts(qlora_context_message(context)), 1); }

int main(void) {
    qlora_context_args create = {SIZED(qlora_context_args), .backend = QLORA_BACKEND_CPU};
    if (qlora_context_create(&create, &context) != QLORA_OK) return 1;
    for (int i = 0; i < ROWS * COLS; i++) w[i] = (float)sin(i * 0.37 + i % 5);
    for (int i = 0; i < TOKENS * COLS; i++) x[i] = (float)cos(i * 1.3 + i % 7);
    for (int i = 0; i < RANK * COLS; i++) a[i] = (float)sin(i * 2.1) / 8;

    const qlora_span memory = SPAN(planes);
    qlora_span scratch = SPAN(scratch_memory);
    scratch.offset = 256 - scratch.handle % 256; /* scratch is aligned to 256 bytes */
    scratch.size -= scratch.offset;
    qlora_weight weight = {SIZED(qlora_weight), .format = QLORA_FORMAT_NF4, .rows = ROWS, .cols = COLS};
    qlora_weight_place(&weight, memory);
    qlora_quantize_args quantize = {SIZED(qlora_quantize_args), .scratch = scratch, .weight = &weight, .src = TENSOR(w, ROWS, COLS)};
    qlora_linear_args forward = {SIZED(qlora_linear_args), .scratch = scratch, .weight = &weight, .x = TENSOR(x, TOKENS, COLS),
        .y = TENSOR(y, TOKENS, ROWS), .a = TENSOR(a, RANK, COLS), .b = TENSOR(b, ROWS, RANK), .xa = SPAN(xa), .scale = 2};
    if (check(qlora_weight_quantize(context, &quantize)) || check(qlora_linear_forward(context, &forward))) return 1;
    for (int i = 0; i < TOKENS * ROWS; i++) goal[i] = y[i] + x[i / ROWS * COLS] * (float)(i % ROWS % 3 - 1); /* y plus rank 1 */

    qlora_linear_grad_args backward = {SIZED(qlora_linear_grad_args), .scratch = scratch, .weight = &weight, .x = forward.x,
        .dy = forward.y, .a = forward.a, .b = forward.b, .xa = forward.xa, .da = TENSOR(da, RANK, COLS), .db = TENSOR(db, ROWS, RANK), .scale = 2};
    qlora_parameter parameters[] = {
        {SIZED(qlora_parameter), .count = RANK * COLS, .value = SPAN(a), .gradient = SPAN(da), .state1 = SPAN(a1), .state2 = SPAN(a2)},
        {SIZED(qlora_parameter), .count = ROWS * RANK, .value = SPAN(b), .gradient = SPAN(db), .state1 = SPAN(b1), .state2 = SPAN(b2)}};
    qlora_optimizer_args optimizer = {SIZED(qlora_optimizer_args), .scratch = scratch, .parameters = parameters, .parameter_count = 2,
        .algorithm = QLORA_OPTIMIZER_ADAMW, .learning_rate = 0.02f};
    double losses[STEPS + 1] = {0};
    for (optimizer.step = 1; optimizer.step <= STEPS; optimizer.step++) {
        if (check(qlora_linear_forward(context, &forward))) return 1;
        for (int i = 0; i < TOKENS * ROWS; i++) y[i] -= goal[i]; /* now dy of half the squared error */
        for (int i = 0; i < TOKENS * ROWS; i++) losses[optimizer.step] += 0.5 * y[i] * y[i];
        if (check(qlora_linear_grad(context, &backward)) || check(qlora_optimizer_step(context, &optimizer))) return 1;
    }
    printf("loss %.2f -> %.2f after %d steps\n", losses[1], losses[STEPS], STEPS);
    qlora_context_destroy(context);
    return losses[STEPS] < 0.05 * losses[1] ? 0 : 1;
}
