/* qlora.h as a C99 program meets it: included first, compiled with -pedantic -Werror, and called. */
#include "qlora.h"
#include "qlora.h"

#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                                                      \
    do {                                                                                                      \
        if (!(condition)) {                                                                                   \
            printf("header_c.c:%d: %s\n", __LINE__, #condition);                                              \
            return 1;                                                                                         \
        }                                                                                                     \
    } while (0)

int main(void) {
    qlora_format_info info;
    qlora_context_args args;
    qlora_context *context = NULL;
    qlora_buffer_args buffer;
    uint32_t count = 0, words[4] = {0, 0, 0, 0};

    memset(&info, 0, sizeof info);
    memset(&args, 0, sizeof args);
    memset(&buffer, 0, sizeof buffer);
    info.struct_size = sizeof info;
    args.struct_size = sizeof args;
    buffer.struct_size = sizeof buffer;

    CHECK(qlora_version() == QLORA_VERSION_MAJOR * 1000000u + QLORA_VERSION_MINOR * 1000u + QLORA_VERSION_PATCH);
    CHECK(strcmp(qlora_status_name(QLORA_ERROR_SHAPE), "ERROR_SHAPE") == 0);
    CHECK(qlora_format_query(QLORA_FORMAT_NF4_DQ, &info) == QLORA_OK);
    CHECK(strcmp(info.name, "nf4-dq") == 0 && info.block == 64);
    CHECK(qlora_device_count(QLORA_BACKEND_REF, &count) == QLORA_OK && count == 1);

    args.backend = QLORA_BACKEND_REF;
    CHECK(qlora_context_create(&args, &context) == QLORA_OK);
    buffer.bytes = sizeof words;
    CHECK(qlora_buffer_create(context, &buffer) == QLORA_OK);
    buffer.pattern = 0x01020304u;
    CHECK(qlora_buffer_fill(context, &buffer) == QLORA_OK);
    buffer.src = buffer.dst;
    buffer.host = words;
    CHECK(qlora_buffer_read(context, &buffer) == QLORA_OK);
    CHECK(words[0] == 0x01020304u && words[3] == 0x01020304u);
    CHECK(qlora_buffer_destroy(context, &buffer) == QLORA_OK);
    /* Every operation has C linkage and the declared type. */
#define QLORA_OPERATION(ID, name, entry, args_type, ...) CHECK(entry(context, (const args_type *)NULL) == QLORA_ERROR_ARGUMENT);
#include "backends/ops.def"
#undef QLORA_OPERATION
    CHECK(strlen(qlora_context_message(context)) > 0);
    qlora_context_destroy(context);
    printf("qlora %u from C\n", (unsigned)qlora_version());
    return 0;
}
