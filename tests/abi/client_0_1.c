/* A program compiled when 0.1 was new, run against today's library: structs of that size, functions and numbers of that header.
 * Quantizes, multiplies, trains one adapter by a few steps, and meets an error. */
#include "tests/abi/qlora_0_1.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 6, ROWS = 16, COLS = 64, RANK = 2 };
static float w[ROWS * COLS], decoded[ROWS * COLS], x[TOKENS * COLS], y[TOKENS * ROWS], xa[TOKENS * RANK], planes[ROWS * COLS];
static float a[RANK * COLS], da[RANK * COLS], a1[RANK * COLS], a2[RANK * COLS], b[ROWS * RANK], db[ROWS * RANK], b1[ROWS * RANK], b2[ROWS * RANK], norm[1];
static float scratch_memory[1 << 18];
static qlora_context *context;

#define CHECK(condition)                                                                                      \
    do {                                                                                                      \
        if (!(condition)) {                                                                                   \
            printf("client_0_1.c:%d: %s (%s)\n", __LINE__, #condition, qlora_context_message(context));       \
            return 1;                                                                                         \
        }                                                                                                     \
    } while (0)
#define SIZED(type) .struct_size = sizeof(type)
#define SPAN(array) {(uint64_t)(uintptr_t)(array), 0, sizeof(array)}
#define TENSOR(array, rows, cols) {QLORA_FORMAT_F32, 0, rows, cols, 0, SPAN(array)}

int main(void) {
    CHECK(qlora_version() >= QLORA_VERSION_MAJOR * 1000000u + QLORA_VERSION_MINOR * 1000u + QLORA_VERSION_PATCH);
    CHECK(qlora_version() / 1000000u == QLORA_VERSION_MAJOR);
    for (int32_t backend = QLORA_BACKEND_REF; backend <= QLORA_BACKEND_CPU; backend++) {
        qlora_context_args create = {SIZED(qlora_context_args), .backend = backend};
        qlora_span memory = SPAN(planes), scratch = SPAN(scratch_memory);
        qlora_weight weight = {SIZED(qlora_weight), .format = QLORA_FORMAT_NF4_DQ, .rows = ROWS, .cols = COLS};
        qlora_context_info info = {SIZED(qlora_context_info)};
        double error = 0, first = 0, last = 0;

        CHECK(qlora_context_create(&create, &context) == QLORA_OK);
        CHECK(qlora_context_query(context, &info) == QLORA_OK && info.backend == backend && strlen(info.name) > 0);
        for (int i = 0; i < ROWS * COLS; i++) w[i] = (float)sin(i * 0.37);
        for (int i = 0; i < TOKENS * COLS; i++) x[i] = (float)cos(i * 1.3);
        for (int i = 0; i < RANK * COLS; i++) a[i] = (float)sin(i * 2.1) / 8;
        memset(b, 0, sizeof b);
        memset(a1, 0, sizeof a1), memset(a2, 0, sizeof a2), memset(b1, 0, sizeof b1), memset(b2, 0, sizeof b2);
        scratch.offset = 256 - scratch.handle % 256;
        scratch.size -= scratch.offset;

        CHECK(qlora_weight_place(&weight, memory) == QLORA_OK);
        qlora_quantize_args quantize = {SIZED(qlora_quantize_args), .scratch = scratch, .weight = &weight, .src = TENSOR(w, ROWS, COLS)};
        qlora_dequantize_args dequantize = {SIZED(qlora_dequantize_args), .scratch = scratch, .weight = &weight, .dst = TENSOR(decoded, ROWS, COLS)};
        CHECK(qlora_weight_quantize(context, &quantize) == QLORA_OK);
        CHECK(qlora_weight_dequantize(context, &dequantize) == QLORA_OK);
        for (int i = 0; i < ROWS * COLS; i++) error += fabs(decoded[i] - w[i]);
        CHECK(error > 0 && error / (ROWS * COLS) < 0.1);

        qlora_linear_args forward = {SIZED(qlora_linear_args), .scratch = scratch, .weight = &weight, .x = TENSOR(x, TOKENS, COLS),
            .y = TENSOR(y, TOKENS, ROWS), .a = TENSOR(a, RANK, COLS), .b = TENSOR(b, ROWS, RANK), .xa = SPAN(xa), .scale = 2};
        qlora_linear_grad_args backward = {SIZED(qlora_linear_grad_args), .scratch = scratch, .weight = &weight, .x = forward.x, .dy = forward.y,
            .a = forward.a, .b = forward.b, .xa = forward.xa, .da = TENSOR(da, RANK, COLS), .db = TENSOR(db, ROWS, RANK), .scale = 2};
        qlora_parameter parameters[] = {
            {SIZED(qlora_parameter), .count = RANK * COLS, .value = SPAN(a), .gradient = SPAN(da), .state1 = SPAN(a1), .state2 = SPAN(a2)},
            {SIZED(qlora_parameter), .count = ROWS * RANK, .value = SPAN(b), .gradient = SPAN(db), .state1 = SPAN(b1), .state2 = SPAN(b2)}};
        qlora_gradient_norm_args measure = {SIZED(qlora_gradient_norm_args), .scratch = scratch, .parameters = parameters, .parameter_count = 2, .norm = SPAN(norm)};
        qlora_optimizer_args optimizer = {SIZED(qlora_optimizer_args), .scratch = scratch, .parameters = parameters, .parameter_count = 2,
            .algorithm = QLORA_OPTIMIZER_ADAMW, .norm = SPAN(norm), .max_norm = 1, .learning_rate = 0.02f};
        for (optimizer.step = 1; optimizer.step <= 20; optimizer.step++) {
            CHECK(qlora_linear_forward(context, &forward) == QLORA_OK);
            last = 0;
            for (int i = 0; i < TOKENS * ROWS; i++) last += 0.5 * y[i] * y[i]; /* the goal is zero, and dy is y */
            if (optimizer.step == 1) first = last;
            CHECK(qlora_linear_grad(context, &backward) == QLORA_OK);
            CHECK(qlora_gradient_norm(context, &measure) == QLORA_OK && norm[0] > 0);
            CHECK(qlora_optimizer_step(context, &optimizer) == QLORA_OK);
        }
        CHECK(last < first);
        forward.x.cols = 63;
        CHECK(qlora_linear_forward(context, &forward) == QLORA_ERROR_SHAPE && strstr(qlora_context_message(context), "63"));
        CHECK(qlora_context_synchronize(context) == QLORA_OK);
        printf("a client of 0.1 on %s: loss %.3f -> %.3f\n", info.name, first, last);
        qlora_context_destroy(context);
        context = NULL;
    }
    return 0;
}
