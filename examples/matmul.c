/* y = x W^T and dx = dy W with a 4-bit W, on any backend: device buffers, one packed copy of the weight for both passes.
 *   ./matmul [1 = ref, 2 = cpu, 3 = cuda, 4 = vulkan] */
#include "qlora.h"

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 4, ROWS = 96, COLS = 64 };
static qlora_context *context;

static int32_t check(int32_t status) {
    if (status != QLORA_OK) fprintf(stderr, "%s\n", qlora_context_message(context)), exit(1);
    return status;
}
/* Device memory with the given contents, or none; freed by the caller of span. */
static qlora_span device(const void *host, uint64_t bytes) {
    qlora_buffer_args args = {.struct_size = sizeof args, .bytes = bytes ? bytes : 4, .host = (void *)host};
    check(qlora_buffer_create(context, &args));
    if (host) check(qlora_buffer_write(context, &args));
    return args.dst;
}

int main(int count, char **arguments) {
    qlora_context_args create = {.struct_size = sizeof create, .backend = count > 1 ? atoi(arguments[1]) : QLORA_BACKEND_CPU};
    if (qlora_context_create(&create, &context) != QLORA_OK) return 77; /* no such device here */
    static float w[ROWS][COLS], x[TOKENS][COLS], y[TOKENS][ROWS];
    for (int i = 0; i < ROWS; i++) w[i][i % COLS] = 1; /* the identity, one and a half times */
    for (int i = 0; i < TOKENS; i++)
        for (int j = 0; j < COLS; j++) x[i][j] = (float)((i * COLS + j) % 13);

    qlora_weight weight = {.struct_size = sizeof weight, .format = QLORA_FORMAT_NF4, .rows = ROWS, .cols = COLS};
    qlora_weight_layout_info layout = {.struct_size = sizeof layout};
    qlora_weight_layout(&weight, &layout);
    const qlora_span memory = device(NULL, layout.total_bytes), source = device(w, sizeof w), scratch = device(NULL, 1 << 22);
    qlora_weight_place(&weight, memory);
    qlora_quantize_args quantize = {.struct_size = sizeof quantize, .weight = &weight, .scratch = scratch};
    quantize.src = (qlora_tensor){QLORA_FORMAT_F32, 0, ROWS, COLS, 0, source};
    check(qlora_weight_quantize(context, &quantize));

    const qlora_span input = device(x, sizeof x), output = device(NULL, sizeof y);
    qlora_matmul_args matmul = {.struct_size = sizeof matmul, .weight = &weight, .scratch = scratch};
    matmul.x = (qlora_tensor){QLORA_FORMAT_F32, 0, TOKENS, COLS, 0, input};
    matmul.y = (qlora_tensor){QLORA_FORMAT_F32, 0, TOKENS, ROWS, 0, output};
    check(qlora_weight_matmul(context, &matmul));      /* y = x W^T */
    check(qlora_weight_matmul_grad(context, &matmul)); /* x = y W: here y plays dy, and x receives dx */

    check(qlora_buffer_read(context, &(qlora_buffer_args){.struct_size = sizeof(qlora_buffer_args), .src = output, .host = y, .bytes = sizeof y}));
    check(qlora_buffer_read(context, &(qlora_buffer_args){.struct_size = sizeof(qlora_buffer_args), .src = input, .host = x, .bytes = sizeof x}));
    printf("y[1][0..2] = %g %g %g   dx[1][0..2] = %g %g %g\n", y[1][0], y[1][1], y[1][2], x[1][0], x[1][1], x[1][2]);
    const qlora_span all[] = {memory, source, scratch, input, output};
    for (int i = 0; i < 5; i++) check(qlora_buffer_destroy(context, &(qlora_buffer_args){.struct_size = sizeof(qlora_buffer_args), .dst = all[i]}));
    qlora_context_destroy(context);
    return y[1][0] == 12 && y[1][64] == 12 && x[1][0] == 24 ? 0 : 1; /* 64 % 13 = 12; two rows of W see each column */
}
