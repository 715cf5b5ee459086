/* qlora.h - quantized fine-tuning that embeds anywhere.
 *
 * SPDX-License-Identifier: MIT
 *
 * A C library for engines that fine-tune quantized models. It takes views of memory that the caller owns
 * and enqueues work on a device that the caller chose: quantize, dequantize, matrix products with quantized
 * weights forward and backward, LoRA-fused linear layers, the training operations around them, and the
 * optimizer. Backends: a scalar reference in double precision, CPU, CUDA, Vulkan.
 *
 * The library does NOT own tensors, build graphs of them, read files, print, abort, exit, throw across this
 * boundary, or read environment variables that change results. Inside an operation it neither allocates
 * device memory nor synchronises.
 *
 * CONVENTIONS, said once
 *
 *   Matrices are row-major. A weight is W[rows = outputs][cols = inputs]; a linear layer is y = x W^T with
 *   x[tokens][inputs] and y[tokens][outputs].
 *   Sizes count elements unless the name ends in _bytes. Every dimension is below 2^31; products are 64-bit.
 *   Zero means "default" or "absent" in every field, and keeps that meaning for ever.
 *   Structs that begin with struct_size grow at their end only: set struct_size = sizeof(the struct) and zero
 *   what you do not use. A shorter struct is zero-extended, a longer one is accepted if its excess is zero.
 *   qlora_span and qlora_tensor have no struct_size and never change.
 *   Every function that can fail returns an int32_t status: QLORA_OK (0) or a negative QLORA_ERROR_*. The
 *   sentence behind the last error of a context is qlora_context_message().
 *   A context serves one thread at a time; several contexts may run in several threads. Weights at rest are
 *   immutable and may be shared between threads and contexts of one device.
 *   Operations are asynchronous on CUDA and Vulkan and run in the order of the calls. Pointers to host
 *   structs and arrays in args are read during the call only.
 *   Results are deterministic: same input, same device, same bits. Reductions have a fixed order.
 *   Tensors named in one call do not overlap unless the call says that they may.
 */
#ifndef QLORA_H
#define QLORA_H

#include <stddef.h>
#include <stdint.h>

#if defined(QLORA_SHARED) && defined(_WIN32)
#  ifdef QLORA_BUILD
#    define QLORA_API __declspec(dllexport)
#  else
#    define QLORA_API __declspec(dllimport)
#  endif
#elif defined(QLORA_SHARED) && defined(__GNUC__)
#  define QLORA_API __attribute__((visibility("default")))
#else
#  define QLORA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version and status ------------------------------------------------------------------------------- */

#define QLORA_VERSION_MAJOR 0
#define QLORA_VERSION_MINOR 1
#define QLORA_VERSION_PATCH 0

/* The version of the library that runs: major * 1000000 + minor * 1000 + patch. */
QLORA_API uint32_t qlora_version(void);

#define QLORA_OK                     0
#define QLORA_ERROR_ARGUMENT      -100 /* null pointer, wrong struct_size, unknown flag, value out of range */
#define QLORA_ERROR_SHAPE         -101 /* sizes that do not fit together */
#define QLORA_ERROR_FORMAT        -102 /* an unknown format, or one that this place does not take */
#define QLORA_ERROR_VALUE         -103 /* NaN or infinity in data where none may be */
#define QLORA_ERROR_UNSUPPORTED   -200 /* a valid request that this backend has no kernel for; see supports */
#define QLORA_ERROR_UNAVAILABLE   -201 /* no such backend in this build, no driver, no such device */
#define QLORA_ERROR_MEMORY        -300 /* host or device memory is exhausted */
#define QLORA_ERROR_SCRATCH       -301 /* the scratch span is smaller than qlora_operation_scratch() says */
#define QLORA_ERROR_DEVICE        -400 /* a driver call failed; the driver's own text is in the message */

/* The name of a status without its prefix, such as "ERROR_SHAPE"; "unknown" for other values. Never null. */
QLORA_API const char *qlora_status_name(int32_t status);

/* The value of any integer macro of this header, by its name: for bindings that cannot read macros.
 * Returns QLORA_ERROR_ARGUMENT when there is no such macro. */
QLORA_API int32_t qlora_constant_find(const char *name, int64_t *value);

/* ---- formats ------------------------------------------------------------------------------------------ */
/* Storage formats. Numbers are pinned; ggml types are 0x100 + GGML_TYPE_x. The first three are also the
 * element types of activations and the compute types. */
#define QLORA_FORMAT_F32    0x100
#define QLORA_FORMAT_F16    0x101
#define QLORA_FORMAT_BF16   0x11e
#define QLORA_FORMAT_Q4_0   0x102 /* ggml, 32 values: f16 scale, 4-bit codes with offset 8 */
#define QLORA_FORMAT_Q8_0   0x108 /* ggml, 32 values: f16 scale, signed 8-bit codes */
#define QLORA_FORMAT_NF4        1 /* bitsandbytes 4-bit NormalFloat, f32 absmax per block (QLoRA, 2305.14314) */
#define QLORA_FORMAT_NF4_DQ     2 /* NF4, absmax itself quantized: dynamic 8-bit minus mean, blocks of 256 */
#define QLORA_FORMAT_FP4        3 /* bitsandbytes 4-bit float, f32 absmax per block */
#define QLORA_FORMAT_FP4_DQ     4 /* FP4 with double-quantized absmax */
#define QLORA_FORMAT_DYN8       5 /* bitsandbytes dynamic 8-bit, signed, f32 absmax per block (2110.02861) */
#define QLORA_FORMAT_UDYN8      6 /* bitsandbytes dynamic 8-bit, unsigned */
#define QLORA_FORMAT_FP8_E4M3   16 /* 8-bit floats (2209.05433), f32 scale per block: absmax / largest value; */
#define QLORA_FORMAT_FP8_E5M2   17 /* a block of 2^30 is one scale per tensor */
#define QLORA_FORMAT_MXFP8_E4M3 18 /* OCP MX 1.0: 32 values along a row share a power of two (a byte, E8M0, */
#define QLORA_FORMAT_MXFP8_E5M2 19 /* 255 = NaN) */
#define QLORA_FORMAT_MXFP6_E2M3 20 /* codes are a little-endian stream of 6 bits */
#define QLORA_FORMAT_MXFP6_E3M2 21
#define QLORA_FORMAT_GPTQ2       24 /* groups of any size along a row: f16 scale, integer zero (GPTQ, 2210.17323) */
#define QLORA_FORMAT_GPTQ3       25
#define QLORA_FORMAT_GPTQ4       26
#define QLORA_FORMAT_GPTQ8       27
#define QLORA_FORMAT_INT8        28 /* signed bytes, f32 absmax per row (LLM.int8(), 2208.07339) or per tensor */
#define QLORA_FORMAT_SPQR3       29 /* groups whose 3-bit scales and zeros share a grid, outliers apart (SpQR, 2306.03078) */
#define QLORA_FORMAT_SPQR4       30
#define QLORA_FORMAT_Q4_1    0x103
#define QLORA_FORMAT_Q5_0    0x106
#define QLORA_FORMAT_Q5_1    0x107
#define QLORA_FORMAT_Q2_K    0x10a /* ggml K types: 256 values in groups of 16 or 32 with quantized scales */
#define QLORA_FORMAT_Q3_K    0x10b
#define QLORA_FORMAT_Q4_K    0x10c
#define QLORA_FORMAT_Q5_K    0x10d
#define QLORA_FORMAT_Q6_K    0x10e
#define QLORA_FORMAT_IQ4_NL  0x114
#define QLORA_FORMAT_IQ4_XS  0x117
#define QLORA_FORMAT_MXFP4   0x127
#define QLORA_FORMAT_NVFP4   0x128 /* 64 values, an E4M3 scale per 16; and one per tensor, in qlora_weight */

typedef struct qlora_format_info {
    uint32_t struct_size, flags;
    int32_t format;
    uint32_t bits;          /* bits of one code */
    uint32_t block;         /* default number of values that share a scale; 1 for plain floats; 0 = a row */
    uint32_t block_min, block_max; /* any power of two between them is a valid block; any number in GPTQ and SpQR formats */
    uint32_t block_bytes;   /* bytes of one interleaved block (ggml formats and plain floats), else 0 */
    const char *name;       /* "nf4-dq"; static */
} qlora_format_info;

/* Fills *info for a format. ERROR_FORMAT if there is no such format. */
QLORA_API int32_t qlora_format_query(int32_t format, qlora_format_info *info);
/* Finds a format by its name ("nf4-dq", "q8_0"). ERROR_FORMAT if there is none. */
QLORA_API int32_t qlora_format_find(const char *name, int32_t *format);

/* ---- views -------------------------------------------------------------------------------------------- */
/* A range of device memory. handle is a host pointer (ref, cpu), a device pointer (cuda) or a VkBuffer
 * (vulkan); offset and size are bytes. handle 0 means absent. host and CUDA addresses (handle + offset)
 * are aligned to the element size, Vulkan offsets to 4 bytes. */
typedef struct qlora_span {
    uint64_t handle, offset, size;
} qlora_span;

/* A matrix of activations, adapters or gradients: element (r, c) lies at data + (r * stride + c) elements.
 * type is QLORA_FORMAT_F32, F16 or BF16. stride 0 means cols. An absent tensor is all zero. */
typedef struct qlora_tensor {
    int32_t type;
    uint32_t reserved; /* zero */
    uint64_t rows, cols, stride;
    qlora_span data;
} qlora_tensor;

/* Planes of a weight; which of them a format has is in qlora_weight_layout(). */
#define QLORA_PLANE_CODE    0 /* codes; or whole interleaved blocks; or plain floats */
#define QLORA_PLANE_SCALE   1 /* scale per block: f32; u8 codes when double-quantized; E8M0 bytes in MX formats; f16 in GPTQ; codes in SpQR */
#define QLORA_PLANE_NESTED  2 /* f32 absmax per nested block of scale codes; SpQR: f16[4] per nested block and group */
#define QLORA_PLANE_OFFSET  3 /* f32[1]: mean absmax, added back after decoding a scale; SpQR: u32[rows + 1], first outlier of each row */
#define QLORA_PLANE_ZERO    4 /* GPTQ: zero of each row and group; SpQR: its code */
#define QLORA_PLANE_INDEX   5 /* with QLORA_WEIGHT_INDEXED, int32[cols]: GPTQ: group of each column; SpQR: its place among codes */
#define QLORA_PLANE_COLUMN  6 /* SpQR: u32 column of each outlier, rising within a row */
#define QLORA_PLANE_OUTLIER 7 /* SpQR: f16 value of each outlier */
#define QLORA_PLANE_COUNT   8

/* Flags of a weight. */
#define QLORA_WEIGHT_INDEXED 1u /* GPTQ and SpQR formats: columns say their group or place in an index plane (act-order) */

/* A weight W[rows][cols] at rest. Blocks run over the flattened matrix and may straddle rows, except in ggml
 * and MX formats, whose cols are a multiple of the block. In 4-bit codes of bitsandbytes formats element 2j is the
 * high nibble of byte j.
 * GPTQ formats have groups = ceil(cols / block) per row; block is any number from 1, and one of cols or more makes one
 * group per row. value = scale[row][group] * (code - zero[row][group]), exact in f32, with group = column / block or
 * index[column]; a column whose index is no group is zero. scale is f16[rows][groups]. Codes [rows][cols] and zeros
 * [rows][groups] are little-endian streams: element i has the bits from i * bits on, bit 0 being the lowest of byte 0.
 * INT8 has an absmax per row (block 0) or one in all (block 2^30): value = code * (absmax * (1 / 127)), every operation
 * rounded in f32, and code = x * (127 / absmax) to nearest even. Its cols are below 2^30.
 * NVFP4 may have a tensor_scale g: value = element * (block scale * g), every operation rounded in f32. Without it blocks
 * are ggml's; with it they are quantized as NVIDIA's recipe has it: block scale = E4M3 of (absmax / 6) / g, clamped to
 * 2^-6 .. 448, to nearest even, and element = E2M1 of x / (block scale * g), to nearest even, saturated. The recipe's
 * g is absmax of the tensor / 2688. GGUF files hold it as a tensor of its own.
 * SpQR formats have groups = ceil(cols / block) per row as well, and with n = nested_block, grid[ceil(rows / n)][groups] of
 * four f16 each: scale_unit, zero_unit, scale_zero, zero_zero. Codes of b bits [rows][cols], of 3 bits for scales and zeros
 * [rows][groups], are streams as above. With every operation rounded in f32,
 *   scale = scale_unit * (scale_code - scale_zero)   zero = zero_unit * (zero_code - zero_zero)   value = scale * (code - zero)
 * and an outlier at (row, column) is added to that: those of row r are numbers offset[r] .. offset[r + 1] - 1 of their planes,
 * which hold `outliers` of them. There may be fewer (an offset beyond counts as `outliers`; what is not used is zero), and no
 * such planes if outliers is 0. Indexed, the code of a column lies at its index in the row, in the group of that place; the
 * value of a column whose index is no place is zero without its outlier. Bits per weight, when n and block divide: b + 6 /
 * block + 64 / (block n), and with outliers 48 for each and 32 (rows + 1). */
typedef struct qlora_weight {
    uint32_t struct_size, flags;
    int32_t format;
    uint32_t block;        /* values per scale; 0 = the format's default */
    uint32_t nested_block; /* scales per nested scale; 0 = 256, the only value taken but in SpQR: any number of rows, 0 = 16 */
    uint32_t reserved;
    uint64_t rows, cols;
    qlora_span planes[QLORA_PLANE_COUNT];
    uint64_t outliers;     /* SpQR: how many there is room for, below 2^32 and at most rows * cols; else 0 */
    float tensor_scale;    /* NVFP4: from 2^-100 to 2^100; 0 = 1, and blocks as ggml makes them */
    uint32_t reserved2;
} qlora_weight;

typedef struct qlora_weight_layout_info {
    uint32_t struct_size, flags;
    uint64_t total_bytes;                       /* one allocation that holds every plane */
    uint64_t plane_bytes[QLORA_PLANE_COUNT];    /* 0: the format has no such plane */
    uint64_t plane_offset[QLORA_PLANE_COUNT];   /* place in that allocation, multiples of 256 */
} qlora_weight_layout_info;

/* Sizes of the planes of a weight with this format, block, rows and cols; its planes are not looked at.
 * ERROR_FORMAT for an unknown format, ERROR_SHAPE when cols do not divide into ggml blocks or a size
 * overflows, ERROR_ARGUMENT for a block outside the format's range. */
QLORA_API int32_t qlora_weight_layout(const qlora_weight *weight, qlora_weight_layout_info *layout);
/* Sets weight->planes to their places inside memory, which is at least total_bytes. ERROR_SCRATCH if not. */
QLORA_API int32_t qlora_weight_place(qlora_weight *weight, qlora_span memory);

/* ---- context ------------------------------------------------------------------------------------------ */

typedef struct qlora_context qlora_context;

#define QLORA_BACKEND_REF     1 /* scalar, double precision: the oracle */
#define QLORA_BACKEND_CPU     2
#define QLORA_BACKEND_CUDA    3
#define QLORA_BACKEND_VULKAN  4

#define QLORA_ISA_BEST    0
#define QLORA_ISA_SCALAR  1
#define QLORA_ISA_AVX2    2 /* AVX2 + FMA + F16C */
#define QLORA_ISA_AVX512  3 /* AVX-512 F, BW, DQ, VL */
#define QLORA_ISA_NEON    4

/* cuda: the stack that the driver keeps ready for every thread that the device could run (1 KiB each: 264 MiB of device memory
 * on an H100) shrinks to nothing, for the whole process; the driver grows it again for a kernel that needs some, as it
 * does without the flag beyond 1 KiB. For programs that own their process. Other backends ignore it. */
#define QLORA_CONTEXT_LEAN 1u

/* Everything the library may take from its host. All of it is optional. */
typedef struct qlora_context_args {
    uint32_t struct_size, flags; /* QLORA_CONTEXT_* */
    uint64_t stream;       /* cuda: the caller's cudaStream_t; 0 = the context makes its own */
    int32_t backend;       /* QLORA_BACKEND_* */
    int32_t device;        /* index among the backend's devices; cuda and vulkan */
    int32_t isa;           /* cpu: QLORA_ISA_*; ERROR_UNAVAILABLE if the machine has it not */
    uint32_t threads;      /* cpu: 0 = one per core, 1 = none but the caller's */

    /* Host memory of the library. allocate returns null when there is none left; alignment is a power of two. */
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory, size_t bytes);
    void *allocator_user;

    /* Whole lines of diagnostics, without newline. */
    void (*log)(void *user, const char *line);
    void *log_user;

    /* Runs task(task_user, i) for every i below count, in any order and on any thread, and returns when all
     * are done. Given one, the cpu backend starts no thread of its own. */
    void (*parallel_for)(void *user, uint32_t count, void (*task)(void *task_user, uint32_t index), void *task_user);
    void *parallel_user;

    /* Asked before every driver call and host allocation with the call's name; a non-zero answer makes the
     * library treat that call as failed. For tests of failure paths, the library's and the host's own. */
    int32_t (*inject_failure)(void *user, const char *call);
    void *inject_user;

    /* vulkan: all zero = the context makes instance, device and queue. Else all are given; the device has
     * Vulkan 1.2, and the queue is used from the calling thread only. */
    uint64_t vulkan_get_instance_proc_addr, vulkan_instance, vulkan_physical_device, vulkan_device, vulkan_queue;
    uint32_t vulkan_queue_family;
    uint32_t reserved;

    /* Receives the message when creation fails and there is no context to ask. */
    char *message;
    size_t message_bytes;
} qlora_context_args;

/* Creates a context for one device. ERROR_UNAVAILABLE says what is missing (backend not built, driver not
 * found, no such device); nothing else is tried in its place. *context is null after a failure. */
QLORA_API int32_t qlora_context_create(const qlora_context_args *args, qlora_context **context);
/* Waits for the device and frees what the context owns. Null is allowed. */
QLORA_API void qlora_context_destroy(qlora_context *context);
/* The sentence behind the last error of this context; "" when there was none. Never null. */
QLORA_API const char *qlora_context_message(const qlora_context *context);
/* Returns when all enqueued work is done, with ERROR_DEVICE if the device failed meanwhile. */
QLORA_API int32_t qlora_context_synchronize(qlora_context *context);

typedef struct qlora_context_info {
    uint32_t struct_size, flags;
    int32_t backend, device;
    int32_t isa;                /* cpu: the instruction set in use */
    uint32_t threads;           /* cpu: threads in use */
    uint64_t memory_bytes;      /* device memory in all; 0 = not known */
    uint64_t memory_free_bytes; /* free now; 0 = not known */
    char name[128];             /* "NVIDIA H200 (sm_90)", "cpu avx2" */
    char driver[128];           /* of a device: "CUDA 12.8", "NVIDIA 570.86.15, Vulkan 1.4.303"; ref and cpu have none: "" */
} qlora_context_info;

QLORA_API int32_t qlora_context_query(qlora_context *context, qlora_context_info *info);
/* The number of devices of a backend on this machine; 0 with QLORA_OK when there is no driver. */
QLORA_API int32_t qlora_device_count(int32_t backend, uint32_t *count);

/* ---- buffers ------------------------------------------------------------------------------------------ */
/* For callers with no device API of their own. */
#define QLORA_BUFFER_HOST   1u /* create and destroy: host memory that the device copies from and to by itself; copy, join: to it */
#define QLORA_BUFFER_BESIDE 2u /* copy: beside the operations, see join */

typedef struct qlora_buffer_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span dst, src;   /* device memory */
    void *host;            /* read: receives; write: gives; create with BUFFER_HOST: receives its host address */
    uint64_t bytes;        /* create, write, read, copy, fill */
    uint32_t pattern;      /* fill: the 32-bit word, bytes is a multiple of 4 */
    uint32_t reserved;
} qlora_buffer_args;

/* Allocates bytes of device memory; args->dst receives the span. Contents are undefined. With BUFFER_HOST it is host
 * memory (cuda: pinned; vulkan: a mapped buffer), which write, read, copy and fill take as well; args->host receives its
 * address, whose contents are the device's until a synchronize. */
QLORA_API int32_t qlora_buffer_create(qlora_context *context, qlora_buffer_args *args);
/* Frees args->dst, which create made, after the work that was enqueued before. */
QLORA_API int32_t qlora_buffer_destroy(qlora_context *context, const qlora_buffer_args *args);
/* host -> dst in order with the operations; host may be reused when the call returns. */
QLORA_API int32_t qlora_buffer_write(qlora_context *context, const qlora_buffer_args *args);
/* src -> host; returns when the data has arrived, hence after all work before it. */
QLORA_API int32_t qlora_buffer_read(qlora_context *context, const qlora_buffer_args *args);
/* src -> dst on the device. With BESIDE it comes after all work that was enqueued before, copies beside in the other direction
 * excepted, but what is enqueued later does not wait for it until a join: the next weights arrive, or results leave, while
 * operations go on. One of src and dst is then memory of BUFFER_HOST; HOST says that it is dst. cuda has a stream for each
 * direction, vulkan a queue as far as a device that the context made has more of them; ref, cpu, and vulkan on a caller's device or
 * command buffer copy in the order of the calls. */
QLORA_API int32_t qlora_buffer_copy(qlora_context *context, const qlora_buffer_args *args);
/* What is enqueued from now on comes after all copies beside so far: those to the device, or with HOST those to host memory.
 * Only flags and stream are looked at. A capture that such copies are part of ends after their join. */
QLORA_API int32_t qlora_buffer_join(qlora_context *context, const qlora_buffer_args *args);
/* Fills dst with a 32-bit pattern. */
QLORA_API int32_t qlora_buffer_fill(qlora_context *context, const qlora_buffer_args *args);

/* ---- graphs ------------------------------------------------------------------------------------------- */
/* Work that is enqueued again and again, recorded once and then enqueued in one call: a small model's step is mostly the host's
 * time for its launches. For callers with no device API of their own; others record what this library enqueues on a stream of
 * theirs. cuda alone records; elsewhere begin answers ERROR_UNSUPPORTED and nothing changes.
 *
 * Between begin and end, what goes to the recorded stream is checked and recorded but not done: operations, buffer_copy,
 * buffer_fill and buffer_join. What a call answers for itself - buffer_create, destroy, write and read, context_synchronize, another
 * begin, launch and destroy - is ERROR_UNSUPPORTED meanwhile and leaves the recording as it was, as does a call that is refused for
 * its arguments. Does one fail while it enqueues, end throws the recording away and answers that call's status. Either way the context
 * is as usable afterwards as before.
 *
 * A graph holds all that calls were given by value: numbers, flags, shapes, parameter lists, and addresses, scratch's among them.
 * Launches read what lies at the addresses then, in device memory and in memory of BUFFER_HOST, so a batch changes by writing
 * to the same places. Results have the bits of the same calls made one by one. */
typedef struct qlora_graph_args {
    uint32_t struct_size, flags;
    uint64_t stream;       /* begin: the stream to record, launch: the one to enqueue on; 0 = the context's own */
    uint64_t graph;        /* end: receives it; launch and destroy: that one */
    uint64_t nodes;        /* end: receives the number of kernels, copies and fills */
    uint64_t device_bytes; /* end: receives the device memory that the driver took for it; 0 = not known */
} qlora_graph_args;

/* From here on the stream is recorded. It comes after all copies beside so far, which it joins. */
QLORA_API int32_t qlora_graph_begin(qlora_context *context, const qlora_graph_args *args);
/* The recording becomes a graph, ready to launch; recorded copies beside are joined. Nothing is recorded any more, also after a
 * failure. ERROR_ARGUMENT when nothing was. */
QLORA_API int32_t qlora_graph_end(qlora_context *context, qlora_graph_args *args);
/* Enqueues all that was recorded, in order with the operations. Launches of one graph do not overlap: one stream, or the caller's
 * events between. */
QLORA_API int32_t qlora_graph_launch(qlora_context *context, const qlora_graph_args *args);
/* Frees args->graph, which end made with this context, after the work that was enqueued before; 0 is allowed. Graphs go before
 * their context. */
QLORA_API int32_t qlora_graph_destroy(qlora_context *context, const qlora_graph_args *args);

/* ---- operations: sizes and support -------------------------------------------------------------------- */
/* Every operation has an args struct that begins struct_size, flags, stream, scratch.
 *   stream   0 = the context's own; cuda: a cudaStream_t; vulkan: a VkCommandBuffer in recording state.
 *   scratch  device memory of at least qlora_operation_scratch() bytes, aligned to 256; its contents before
 *            and after are of no meaning. May be absent where that answer is 0.
 * Activations in one call (x, y, dx, dy, q, k, ...) share one type. compute_type says in what precision
 * products are formed: F32, or F16 / BF16 (both operands rounded once to it) with f32 accumulation; it is
 * F32, or the activations' type, or anything when activations are F32. 0 = the activations' type. */

#define QLORA_OP_QUANTIZE        1
#define QLORA_OP_DEQUANTIZE      2
#define QLORA_OP_MATMUL          3
#define QLORA_OP_MATMUL_GRAD     4
#define QLORA_OP_LINEAR          5
#define QLORA_OP_LINEAR_GRAD     6
#define QLORA_OP_EMBEDDING       7
#define QLORA_OP_RMS_NORM        8
#define QLORA_OP_RMS_NORM_GRAD   9
#define QLORA_OP_ROPE           10
#define QLORA_OP_SWIGLU         11
#define QLORA_OP_SWIGLU_GRAD    12
#define QLORA_OP_ATTENTION      13
#define QLORA_OP_ATTENTION_GRAD 14
#define QLORA_OP_CROSS_ENTROPY  15
#define QLORA_OP_GRADIENT_NORM  16
#define QLORA_OP_OPTIMIZER_STEP 17
#define QLORA_OP_HESSIAN         18
#define QLORA_OP_QUANTIZE_GPTQ   19
#define QLORA_OP_INT8_MATMUL      21
#define QLORA_OP_INT8_MATMUL_GRAD 22
#define QLORA_OP_WEIGHT_GRADIENT  23
#define QLORA_OP_QUANTIZE_SPQR    24
#define QLORA_OP_DROPOUT          25

/* The scratch bytes that an operation (QLORA_OP_*) needs for these args, whose spans may still be absent:
 * types, shapes and flags decide. Monotone: fewer tokens never need more. */
QLORA_API int32_t qlora_operation_scratch(qlora_context *context, uint32_t operation, const void *args,
                                          uint64_t *bytes);
/* QLORA_OK if this context has a kernel for an operation on this weight format (0 where the operation takes
 * no weight) with activations of this type; else ERROR_UNSUPPORTED. */
QLORA_API int32_t qlora_operation_supports(qlora_context *context, uint32_t operation, int32_t format, int32_t type);

/* Flags of operations. */
#define QLORA_FLAG_ACCUMULATE           1u /* add to y or dx instead of overwriting it */
#define QLORA_FLAG_ACCUMULATE_GRADIENTS 2u /* add to parameter gradients (da, db, dbias, dweight) */
#define QLORA_FLAG_INVERSE              4u /* rope: rotate back */
#define QLORA_FLAG_STOCHASTIC           8u /* quantize, optimizer_step: round up or down at random, the nearer more likely */
#define QLORA_FLAG_SYMMETRIC           16u /* GPTQ formats: the zero is the middle code */
#define QLORA_FLAG_SEARCH              32u /* GPTQ formats: of 80 smaller ranges take the one with least sum |error|^2.4; quantize_spqr: try codes */
#define QLORA_FLAG_ACT_ORDER           64u /* quantize_gptq, _spqr: columns in falling order of the Hessian's diagonal */
#define QLORA_FLAG_STATIC_GROUPS      128u /* quantize_gptq: scales and zeros from the weight as given */
#define QLORA_FLAG_LAGGING            256u /* quantize_gptq: scales and zeros from values that lag behind, as in the first GPTQ */
#define QLORA_FLAG_WIDE               512u /* the Hessian is f64, not f32 */
#define QLORA_FLAG_BITSANDBYTES      1024u /* optimizer_step: orders and roundings of bitsandbytes' CUDA kernels */
#define QLORA_FLAG_SKIP_STEP         2048u /* optimizer_step: not finite in norm: no tensor is stepped */
#define QLORA_FLAG_SKIP_TENSORS      4096u /* optimizer_step: a tensor not finite in norms is not stepped */
#define QLORA_FLAG_SKIP_ZEROS        8192u /* optimizer_step: elements whose gradient is 0 stay, and their state */
#define QLORA_FLAG_ZERO_GRADIENTS   16384u /* optimizer_step: gradients are 0 afterwards, skipped tensors' too */
#define QLORA_FLAG_SIMPLIFIED       32768u /* quantize_spqr: ranges of groups are found from all their values */
#define QLORA_FLAG_CENTERED         65536u /* rms_norm: of x minus its row's mean, which is LayerNorm */
#define QLORA_FLAG_UNGATED         131072u /* swiglu: the activation alone, without up */

/* ---- weights ------------------------------------------------------------------------------------------ */
/* How a block's power of two follows from its absmax in MXFP8 and MXFP6. */
#define QLORA_POWER_FLOOR 0 /* the OCP rule; the largest values of a block may saturate */
#define QLORA_POWER_CEIL  1 /* absmax rounded up to a power of two, then as FLOOR */
#define QLORA_POWER_EVEN  2 /* absmax rounded to the element's mantissa, then as FLOOR */
#define QLORA_POWER_RCEIL 3 /* the smallest power that saturates nothing */

/* Quantizes src[rows][cols] (F32, F16 or BF16) into the planes of weight, the only writer of planes.
 * Algorithm: bitsandbytes (CUDA kernels' results) or ggml's reference quantizer, to the bit but for blocks that
 * ggml gets wrong (backends/README.md). Plain floats: to nearest even, beyond their range infinity.
 * NaN and infinity: ref and cpu return ERROR_VALUE, which names the first; cuda and vulkan return
 * before a value is seen. not_finite, u64[1] in device memory or absent, receives the index of the first on every backend,
 * UINT64_MAX if there is none; where there is one the weight is of no meaning. It costs one more reading of src.
 * What is finite has the same bytes everywhere: an absmax below 2^-126 (INT8: 2^-119) or a ggml scale whose reciprocal
 * overflows counts as zero, scale 0 and codes 0; beyond a format's range FP8, MX, NVFP4 and GPTQ saturate, other ggml
 * formats keep an infinite scale, as ggml does, double-quantized scales have an infinite mean where the sum of all absmax
 * overflows, as in bitsandbytes, and the others have no limit. importance, f32[cols] or absent, says how much errors of a column
 * matter (finite, not negative): Q4_0, Q4_1, Q5_0, Q5_1, the K and IQ4 types search with it, others do not look.
 * STOCHASTIC (FP8, MX, NVFP4): element i rounds by a random word of (seed, i), the same everywhere.
 * GPTQ formats round to nearest, each row and group on its own, zero included in its range: scale = (high - low) / (2^bits
 * - 1) in f16 (beyond that type: 65504; a scale that would be 0 counts as a group of zeros), zero = round(-low / scale),
 * code = round(w / scale) + zero, all to even, saturated. SYMMETRIC: low = -high where any value is negative, zero =
 * 2^(bits - 1). SEARCH shrinks the range. An index plane is filled with column / block.
 * SpQR formats round to nearest as qlora_weight_quantize_spqr does, with no outliers; an index plane is filled with columns. */
typedef struct qlora_quantize_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor src;
    qlora_span importance;
    uint64_t seed;
    int32_t power; /* QLORA_POWER_* */
    uint32_t reserved;
    qlora_span not_finite;
} qlora_quantize_args;
QLORA_API int32_t qlora_weight_quantize(qlora_context *context, const qlora_quantize_args *args);

/* dst[rows][cols] = W, decoded in f32 and rounded once to dst's type. */
typedef struct qlora_dequantize_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor dst;
} qlora_dequantize_args;
QLORA_API int32_t qlora_weight_dequantize(qlora_context *context, const qlora_dequantize_args *args);

/* forward: y[tokens][rows] = x[tokens][cols] W^T        (weight_matmul;      ACCUMULATE: y += ...)
 * grad:    x[tokens][cols] = y[tokens][rows] W          (weight_matmul_grad; ACCUMULATE: x += ...)
 * In the gradient call y holds dy and x receives dx. The result equals dequantize followed by a matrix
 * product, up to the order of summation. */
typedef struct qlora_matmul_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor x, y;
    int32_t compute_type;
    uint32_t reserved;
} qlora_matmul_args;
QLORA_API int32_t qlora_weight_matmul(qlora_context *context, const qlora_matmul_args *args);
QLORA_API int32_t qlora_weight_matmul_grad(qlora_context *context, const qlora_matmul_args *args);

/* ---- calibrated quantization -------------------------------------------------------------------------- */
/* The Hessian of a linear layer's inputs, for qlora_weight_quantize_gptq (GPTQ, 2210.17323), one batch x[tokens][cols]
 * at a time:   H = H * count / (count + batch) + 2 / (count + batch) * x^T x
 * count is what the calls before added up to, batch what this one adds: sequences or tokens, as the caller likes;
 * batch 0 = x.rows. hessian is [cols][cols] f32 (WIDE: f64), both triangles; with count 0 what it held is not read.
 * NaN and infinity in x land in it. cols is below 2^28. */
typedef struct qlora_hessian_args {
    uint32_t struct_size, flags; /* WIDE */
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor x;
    qlora_span hessian;
    uint64_t count, batch;
} qlora_hessian_args;
QLORA_API int32_t qlora_hessian_accumulate(qlora_context *context, const qlora_hessian_args *args);

/* What qlora_weight_quantize_gptq did, most wanted first. */
#define QLORA_GPTQ_DONE    1 /* with the damping that was asked for */
#define QLORA_GPTQ_DAMPED  2 /* the Hessian had no factor at that damping; with the larger one in damping */
#define QLORA_GPTQ_FLOORED 3 /* nor below 1: with its diagonal raised to floor */
#define QLORA_GPTQ_NEAREST 4 /* nor then, or the loss overflowed: rounded to nearest; loss is NaN */

typedef struct qlora_gptq_outcome {
    uint32_t struct_size;  /* bytes that the library wrote */
    uint32_t method;       /* QLORA_GPTQ_* */
    uint32_t dead_columns; /* whose inputs were never non-zero; their weights became 0 */
    uint32_t attempts;     /* factorizations tried */
    double damping, floor;
    double loss;           /* half the sum over rows of (w - q) H (w - q)^T, H damped and w zero in dead columns */
} qlora_gptq_outcome;

/* Quantizes src[rows][cols] into a weight of a GPTQ format so that the outputs x W^T change little: column by column,
 * each column's error is made up for in the columns after it (GPTQ, 2210.17323). hessian is what
 * qlora_hessian_accumulate made; its upper triangle is read. damping times the mean of its diagonal is added to the
 * diagonal; 0 = 0.01. While there is no factor damping grows by 0.01 below 1; then the diagonal is raised to 1e-6, 1e-5
 * ... 0.1 of its largest; then columns round to nearest. outcome, unless absent, is device memory that receives a
 * qlora_gptq_outcome.
 *   ACT_ORDER      needs an index plane (QLORA_WEIGHT_INDEXED) unless STATIC_GROUPS is set as well or there is one group
 *                  per row; ties keep the order of columns. With STATIC_GROUPS it costs nothing later and loses little.
 *   LAGGING        scales and zeros of a group are found before its columns have received the errors of earlier columns
 *                  in the same block of lag columns (0 = 128), as the first implementation has it.
 *   SYMMETRIC, SEARCH, and the rounding itself: as in qlora_weight_quantize, which this equals for H = identity.
 * ERROR_VALUE names the first NaN or infinity of src or hessian. cuda and vulkan: ERROR_UNSUPPORTED; quantize on cpu
 * and write the planes. */
typedef struct qlora_quantize_gptq_args {
    uint32_t struct_size, flags; /* SYMMETRIC, SEARCH, ACT_ORDER, STATIC_GROUPS, LAGGING, WIDE */
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor src;
    qlora_span hessian, outcome;
    float damping;
    uint32_t lag;
} qlora_quantize_gptq_args;
QLORA_API int32_t qlora_weight_quantize_gptq(qlora_context *context, const qlora_quantize_gptq_args *args);

typedef struct qlora_spqr_outcome {
    uint32_t struct_size;  /* bytes that the library wrote */
    uint32_t method;       /* QLORA_GPTQ_*; DAMPED and FLOORED as there */
    uint32_t dead_columns; /* whose inputs were never non-zero */
    uint32_t attempts;     /* factorizations tried */
    double damping, floor;
    double loss;           /* as in qlora_gptq_outcome */
    double limit;          /* the squared error from which on a weight is an outlier */
    uint64_t outliers;     /* found: the room that the weight needs */
} qlora_spqr_outcome;

/* Quantizes src[rows][cols] into a weight of an SpQR format (2306.03078): columns make up for each other as in GPTQ, and
 * weights that none could make up for become outliers. hessian, damping, outcome (a qlora_spqr_outcome) and the attempts at a
 * factor as in qlora_weight_quantize_gptq, but that dead columns have no part in the mean of the diagonal.
 *   grids    A group's range, once earlier columns are made up for, gives scale = (high - low) / (2^bits - 1); nested_block rows'
 *            scales are rounded to 3 bits between their least and largest, with f16 units and zeros. Then zero = (2^bits - 1) / 2
 *            - middle of the range / scale, rounded alike: the original's zero, but for what rounding the scale shifts.
 *   limit    threshold * mean over columns of (variance of the column's weights / U^2), U^2 being the column's diagonal of the
 *            inverse Hessian as elimination leaves it; threshold 0 = 0.2, and infinity means no outliers.
 *   fit      A value is left out of its group's range if that lowers the group's squared error / U^2 by more than limit
 *            (SIMPLIFIED: none is).
 *   SEARCH   Of a row's scale and zero codes, up to 2 from the nearest, those with the least sum of squared errors / U^2 over the
 *            group, where a value counts up to limit: 16 % less error in 3 bits, 37 % in 4 on a test layer.
 *   mark     A value whose squared error / U^2 is above limit when its column is reached becomes an outlier: what the code
 *            lacks, in f16. Dead columns have none.
 * ACT_ORDER takes groups in falling order of their largest diagonal, and columns so within a group, which needs no index plane.
 * ERROR_VALUE names the first NaN or infinity of src or hessian. ERROR_SHAPE: there were more outliers than weight.outliers;
 * outcome says how many, the planes are undefined. Less room than outliers found needs no copy: shrink weight.outliers, and
 * bytes in use stay where they were in each plane. cuda and vulkan: ERROR_UNSUPPORTED; quantize on cpu and write the planes. */
typedef struct qlora_quantize_spqr_args {
    uint32_t struct_size, flags; /* SEARCH, ACT_ORDER, SIMPLIFIED, WIDE */
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor src;
    qlora_span hessian, outcome;
    float damping;
    float threshold;
} qlora_quantize_spqr_args;
QLORA_API int32_t qlora_weight_quantize_spqr(qlora_context *context, const qlora_quantize_spqr_args *args);

/* The tensors of a linear layer in a GPTQ checkpoint, in host memory, and a weight of a GPTQ format whose planes are in
 * host memory too, whatever the context: write them to the device afterwards. With K = cols, N = rows, b = bits:
 *   qweight  int32[K b / 32][N]: codes of an output as a little-endian stream along K, word by word
 *   qzeros   int32[groups][N b / 32]: the same along N; version 1 stores zero - 1, version 2 the zero, modulo 2^b
 *   scales   f16[groups][N]          g_idx  int32[K]: group of each input, or absent
 * K b and N b are multiples of 32, else ERROR_SHAPE. version 0 = 1; when importing, 0 = told by qzeros, which only
 * symmetric files allow (else ERROR_VALUE), and filled in. A g_idx other than column / block needs QLORA_WEIGHT_INDEXED
 * (else ERROR_ARGUMENT); one that is no group is ERROR_VALUE. ambiguous_zeros receives how many zeros an imported
 * version 1 stores as 2^b - 1: true zeros 0 in asymmetric files, which some writers spoil, with their neighbours. */
typedef struct qlora_gptq_tensors {
    uint32_t struct_size, flags;
    const qlora_weight *weight;
    qlora_span qweight, qzeros, scales, g_idx;
    uint64_t ambiguous_zeros;
    uint32_t version;
    uint32_t reserved;
} qlora_gptq_tensors;
/* Checkpoint -> planes. */
QLORA_API int32_t qlora_gptq_import(qlora_context *context, qlora_gptq_tensors *tensors);
/* Planes -> checkpoint. */
QLORA_API int32_t qlora_gptq_export(qlora_context *context, qlora_gptq_tensors *tensors);

/* The tensors of a linear layer in SpQR's inference files, in host memory, and a weight of format SPQR3 with block and
 * nested_block 16, and QLORA_WEIGHT_INDEXED if there is an in_perm, whose planes are in host memory too, whatever the context.
 *   dense        u64[ceil(rows / 16)][ceil(cols / 16)][16]: for each row of a tile 3 bits of scale code, 3 of zero code, 16 codes;
 *                rows 2k and 2k + 1 of a tile have byte k of its grid at bit 54
 *   row_offsets  int32[rows + 1] or, with PTCSR, int32[ceil(rows / 16) + 1]: where entries begin
 *   col_vals     u32[entry_count]: f16 value << 16 | column. PTCSR: entry k of row i of a strip of 16 rows is number 16 k + i of
 *                the strip's, filled up with entries of value 0
 *   in_perm      u16[cols]: the column of each place, or absent
 * An outlier takes the place of what its code says, as the files' writers meant; with ADDED it is added to that, as the files'
 * kernels do. outliers receives how many there are: entries that are not 0. ERROR_VALUE names the first column out of range or
 * twice in a row, offset that falls or leaves col_vals, NaN or infinity, and place that in_perm says twice. */
#define QLORA_SPQR_ADDED 1u
#define QLORA_SPQR_PTCSR 2u
typedef struct qlora_spqr_tensors {
    uint32_t struct_size, flags; /* QLORA_SPQR_* */
    const qlora_weight *weight;
    qlora_span dense, row_offsets, col_vals, in_perm;
    uint64_t entry_count;
    uint64_t outliers;
} qlora_spqr_tensors;
/* Files -> planes. */
QLORA_API int32_t qlora_spqr_import(qlora_context *context, qlora_spqr_tensors *tensors);

/* ---- products in int8 --------------------------------------------------------------------------------- */
/* y[tokens][rows] = x[tokens][cols] W^T (ACCUMULATE: y += ...) with a weight of format INT8, in integers (LLM.int8(),
 * 2208.07339). A column of x in which any |x| reaches threshold is an outlier column; threshold 0: there are none. Each
 * row of x is scaled by sx = its largest |x| below threshold; its codes are x * (127 / sx) to nearest even, 0 in outlier
 * columns. Then, with sw the weight's absmax and products of outlier columns in the type of the activations:
 *   y = f32(sum of code products) * ((sx * sw) * 6.200012e-05f) + sum over outlier columns of x w + bias
 * where the first sum is exact in int32 (so cols is below 2^17) and the others are f32, rounded once to y's type. bias is
 * f32[rows] or absent. An absmax below 2^-119, in x as in weights, counts as zero: scale 0, codes 0.
 * ERROR_VALUE names the first NaN or infinity in x on ref and cpu.
 * The same call is the forward pass of SwitchBack (2304.13013), with threshold 0 and a weight of either kind. The backward
 * pass of LLM.int8() is qlora_weight_matmul_grad. */
typedef struct qlora_int8_matmul_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor x, y;
    qlora_span bias;
    float threshold;
    uint32_t reserved;
} qlora_int8_matmul_args;
QLORA_API int32_t qlora_int8_matmul(qlora_context *context, const qlora_int8_matmul_args *args);

/* dx[tokens][cols] = dy[tokens][rows] W in integers (ACCUMULATE: dx += ...): SwitchBack's backward pass. The scales of the
 * weight's rows go into dy first, dy' = dy * (sw * (1 / 127)), which is quantized row by row as x above, with scale s; then
 *   dx = f32(sum of code products) * (s * (1 / 127))
 * rows is below 2^17. ERROR_VALUE names the first element of dy whose dy' is NaN or infinite, on ref and cpu. */
typedef struct qlora_int8_matmul_grad_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor dy, dx;
} qlora_int8_matmul_grad_args;
QLORA_API int32_t qlora_int8_matmul_grad(qlora_context *context, const qlora_int8_matmul_grad_args *args);

/* The gradient of a trained weight: dw[rows][cols] = dy[tokens][rows]^T x[tokens][cols], and dbias f32[rows], unless absent
 * = column sums of dy (ACCUMULATE_GRADIENTS: both += ...). Nothing is quantized on this path, which is what SwitchBack
 * switches back to: products of the compute type, summed in f32, one rounding to dw's type, F32, F16 or BF16. Activations
 * that were saved in 8 bits to save memory come as saved, an INT8 weight[tokens][cols], with x absent; else saved is null. */
typedef struct qlora_weight_gradient_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *saved;
    qlora_tensor x, dy, dw;
    qlora_span dbias;
    int32_t compute_type;
    uint32_t reserved;
} qlora_weight_gradient_args;
QLORA_API int32_t qlora_weight_gradient(qlora_context *context, const qlora_weight_gradient_args *args);

/* ---- adapters ----------------------------------------------------------------------------------------- */
/* LoRA-fused linear layer (LoRA, 2106.09685), r = rank, 0 < r <= 1024:
 *   xa = x A^T                              xa[tokens][r] in f32, kept for the backward call
 *   y  = x W^T + bias + scale * xa B^T      ACCUMULATE: y += ..., which makes a residual connection free
 * a is A[r][cols], b is B[rows][r] in F32 (masters), F16 or BF16; scale is alpha / r. Without adapter (a and
 * b absent) it is the base layer with bias. bias is f32[rows] or absent. */
typedef struct qlora_linear_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor x, y, a, b;
    qlora_span bias, xa;
    float scale;
    int32_t compute_type;
} qlora_linear_args;
QLORA_API int32_t qlora_linear_forward(qlora_context *context, const qlora_linear_args *args);

/* Gradients of qlora_linear_forward, with dxa = scale * dy B:
 *   dx = dy W + dxa A    (ACCUMULATE: dx += ...; absent: not computed)
 *   da = dxa^T x         db = scale * dy^T xa       dbias = column sums of dy
 * da[r][cols] and db[rows][r] are F32 tensors, dbias f32[rows]; each may be absent; ACCUMULATE_GRADIENTS adds.
 * xa is what the forward call stored; absent, it is computed again in scratch. The frozen W has no gradient. */
typedef struct qlora_linear_grad_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor x, dy, dx, a, b, da, db;
    qlora_span xa, dbias;
    float scale;
    int32_t compute_type;
} qlora_linear_grad_args;
QLORA_API int32_t qlora_linear_grad(qlora_context *context, const qlora_linear_grad_args *args);

/* ---- training operations ------------------------------------------------------------------------------ */
/* y[i] = scale * row ids[i] of weight, for i below y.rows; ACCUMULATE: y[i] += ..., for learned positions. ids is
 * int32[y.rows]; an id outside 0..weight.rows-1 is ERROR_ARGUMENT on ref and cpu and counts as a row of zeros on cuda
 * and vulkan. Every operation is rounded in f32, the result once to y's type. */
typedef struct qlora_embedding_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_span ids;
    qlora_tensor y;
    float scale; /* 0 = 1 */
    uint32_t reserved;
} qlora_embedding_args;
QLORA_API int32_t qlora_embedding_gather(qlora_context *context, const qlora_embedding_args *args);

/* y = x * rstd * weight + bias with rstd = 1 / sqrt(mean(x^2) + epsilon) per row (RMSNorm, 1910.07467).
 * CENTERED: of x minus its row's mean in both places (LayerNorm, 1607.06450). ACCUMULATE: y += ..., which joins a
 * normed branch to a residual stream. weight is a [1][cols] tensor of any type, bias likewise or absent; rstd
 * receives f32[rows] for the backward call, or is absent. y may be x when not accumulating. */
typedef struct qlora_rms_norm_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor x, weight, y;
    qlora_span rstd;
    float epsilon;
    uint32_t reserved;
    qlora_tensor bias;
} qlora_rms_norm_args;
QLORA_API int32_t qlora_rms_norm_forward(qlora_context *context, const qlora_rms_norm_args *args);

/* dx (ACCUMULATE: dx += ...) and, unless absent, dweight and dbias f32[cols] (ACCUMULATE_GRADIENTS) of the above, with
 * CENTERED as there. rstd is what the forward call stored. dx may be dy when not accumulating. */
typedef struct qlora_rms_norm_grad_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor x, weight, dy, dx;
    qlora_span rstd, dweight;
    qlora_span dbias;
} qlora_rms_norm_grad_args;
QLORA_API int32_t qlora_rms_norm_grad(qlora_context *context, const qlora_rms_norm_grad_args *args);

#define QLORA_ROPE_ADJACENT 0 /* pairs (2i, 2i+1): llama in GGUF */
#define QLORA_ROPE_HALF     1 /* pairs (i, i + rotary_dim/2): Qwen, NeoX */

/* Rotary position embedding in place on x[tokens][heads * head_dim] (RoFormer, 2104.09864). Pair i of a head
 * turns by positions[token] * freq_scale * freq_base^(-2i/rotary_dim) / freq_factors[i]; the other dimensions
 * of a head stay. Results are multiplied by magnitude. INVERSE turns back, which is the backward pass
 * (x = dy then). positions is int32[tokens]; freq_factors f32[rotary_dim / 2] or absent. */
typedef struct qlora_rope_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor x;
    qlora_span positions, freq_factors;
    uint32_t head_dim;
    uint32_t rotary_dim;   /* even, at most head_dim; 0 = head_dim */
    int32_t layout;        /* QLORA_ROPE_* */
    float freq_base;       /* 0 = 10000 */
    float freq_scale;      /* 0 = 1; linear scaling by a factor f is 1/f */
    float magnitude;       /* 0 = 1 */
} qlora_rope_args;
QLORA_API int32_t qlora_rope_apply(qlora_context *context, const qlora_rope_args *args);

#define QLORA_ACTIVATION_SILU      0 /* x * sigmoid(x) */
#define QLORA_ACTIVATION_GELU      1 /* x * (1 + erf(x / sqrt(2))) / 2 (1606.08415) */
#define QLORA_ACTIVATION_GELU_TANH 2 /* x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2 */
#define QLORA_ACTIVATION_RELU      3 /* max(x, 0), slope 0 at 0 */

/* y = activation(gate) * up, elementwise: SwiGLU with SILU, GeGLU with a GELU (2002.05202). UNGATED: y =
 * activation(gate), and up is absent. y may be gate or up. */
typedef struct qlora_swiglu_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor gate, up, y;
    int32_t activation; /* QLORA_ACTIVATION_* */
    uint32_t reserved;
} qlora_swiglu_args;
QLORA_API int32_t qlora_swiglu_forward(qlora_context *context, const qlora_swiglu_args *args);

/* dgate and, unless UNGATED, dup of the above. dgate may be gate, dup may be up. */
typedef struct qlora_swiglu_grad_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor gate, up, dy, dgate, dup;
    int32_t activation; /* QLORA_ACTIVATION_* */
    uint32_t reserved;
} qlora_swiglu_grad_args;
QLORA_API int32_t qlora_swiglu_grad(qlora_context *context, const qlora_swiglu_grad_args *args);

/* y = x m elementwise (ACCUMULATE: y += x m), with m = 0 in a share `probability` of the elements and 1 / (1 - probability) in
 * the others (dropout, 1207.0580; 1 / (1 - probability) is rounded to f32). Which ones is a function of seed and the element's
 * place r * cols + c alone, the same on every device: 0 where the first word of Threefry-2x32-20 with the seed as key and the
 * place as counter, low words first, is below probability * 2^32. So nothing is kept: the same call on dy is the backward pass,
 * and a layer that is computed again has its mask again. Every mask wants a seed of its own. y may be x. */
typedef struct qlora_dropout_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor x, y;
    uint64_t seed;
    float probability; /* 0 <= probability < 1 */
    uint32_t reserved;
} qlora_dropout_args;
QLORA_API int32_t qlora_dropout_apply(qlora_context *context, const qlora_dropout_args *args);

/* Causal attention with grouped key/value heads over any number of sequences, in memory linear in their
 * length (FlashAttention, 2205.14135):  y = softmax(scale * q k^T) v.
 *   q, y      [q tokens][heads * head_dim]        k, v  [k tokens][kv_heads * head_dim]
 *   lse       f32[q tokens][heads]: log of the sum of exponentials, kept for the backward call; may be absent
 *   sequences int32[sequence_count][4] in device memory: {first q row, q rows, first k row, k rows}. Sequences
 *             are disjoint: packed rows are block-diagonal. Query i of a sequence sees keys 0 .. i + k rows -
 *             q rows, so q rows = k rows is training and q rows = 1 is generation with a cache.
 *   max_q_rows, max_k_rows: at least the largest row counts in sequences; they size the launch. 0 = all tokens.
 * head h uses key/value head h / (heads / kv_heads). head_dim is at most 256. Rows that belong to no sequence
 * are left as they are. scale 0 = 1 / sqrt(head_dim). With s = scale * q k^T, scores are
 *   soft_cap * tanh(s / soft_cap)               if soft_cap is given (Gemma 2, 2408.00118)
 *   minus slopes[head] * (keys that lie after)  if slopes, f32[heads], are given (ALiBi, 2108.12409): 0 for the newest key
 *                                               that the query sees, 1 for the one before
 * and with a window a query sees only the newest `window` of its keys (2004.05150). */
typedef struct qlora_attention_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor q, k, v, y;
    qlora_span lse, sequences;
    uint32_t sequence_count, heads, kv_heads, head_dim, max_q_rows, max_k_rows;
    float scale;
    uint32_t reserved;
    qlora_span slopes;
    float soft_cap;  /* 0 = none */
    uint32_t window; /* 0 = all keys */
} qlora_attention_args;
QLORA_API int32_t qlora_attention_forward(qlora_context *context, const qlora_attention_args *args);

/* dq, dk, dv of the above from y and lse of the forward call; the other fields as there. */
typedef struct qlora_attention_grad_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    qlora_tensor q, k, v, y, dy, dq, dk, dv;
    qlora_span lse, sequences;
    uint32_t sequence_count, heads, kv_heads, head_dim, max_q_rows, max_k_rows;
    float scale;
    uint32_t reserved;
    qlora_span slopes;
    float soft_cap;
    uint32_t window;
} qlora_attention_grad_args;
QLORA_API int32_t qlora_attention_grad(qlora_context *context, const qlora_attention_grad_args *args);

/* Head and masked cross-entropy in one, in chunks of rows so that the logits x W^T never exist as a whole:
 *   losses[t] = log(sum_v exp(logit[t][v])) - logit[t][targets[t]]     f32[tokens]; 0 where targets[t] < 0
 *   dx        = grad_scale * d(sum of losses) / dx                     absent: loss only
 * weight is the head W[vocabulary][cols]; targets is int32[tokens], negative = no loss there. A target at or
 * above weight.rows is ERROR_ARGUMENT on ref and cpu and counts as negative on cuda and vulkan. Logits are f32
 * whatever the types: logit = x W^T + bias, then soft_cap * tanh(logit / soft_cap) where that is given; bias is
 * f32[vocabulary] or absent. chunk_rows bounds the tokens whose logits exist at a time; 0 = chosen by the backend. */
typedef struct qlora_cross_entropy_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor x, dx;
    qlora_span targets, losses;
    float grad_scale;
    uint32_t chunk_rows;
    int32_t compute_type;
    uint32_t reserved;
    qlora_span bias;
    float soft_cap; /* 0 = none */
    uint32_t reserved2;
} qlora_cross_entropy_args;
QLORA_API int32_t qlora_cross_entropy_loss(qlora_context *context, const qlora_cross_entropy_args *args);

/* ---- optimizers --------------------------------------------------------------------------------------- */
#define QLORA_OPTIMIZER_ADAMW         1 /* 1711.05101; state 1, 2 */
#define QLORA_OPTIMIZER_ADAM          2 /* decay as L2 in the gradient; state 1, 2 */
#define QLORA_OPTIMIZER_STABLE_ADAMW  3 /* AdamW with update clipping, 2304.13013; state 1, 2 */
#define QLORA_OPTIMIZER_LION          4 /* 2302.06675; state 1 */
#define QLORA_OPTIMIZER_MOMENTUM      5 /* SGD with momentum; state 1 */
#define QLORA_OPTIMIZER_RMSPROP       6 /* state 1 */
#define QLORA_OPTIMIZER_ADAGRAD       7 /* state 1 */
#define QLORA_OPTIMIZER_LAMB          8 /* 1904.00962; state 1, 2 */
#define QLORA_OPTIMIZER_LARS          9 /* 1708.03888; state 1 */
#define QLORA_OPTIMIZER_ADEMAMIX     10 /* 2409.03137; state 1, 2, 3 */

#define QLORA_PARAMETER_NO_DECAY 1u /* weight_decay counts as 0 here: norms and biases */
#define QLORA_PARAMETER_PAGED    2u /* state and absmax lie in host memory; qlora_pager_place sets it */

/* One trained tensor of count elements. value and gradient are F32, F16 or BF16. Which states an algorithm has is said
 * above; they are zero (bytes) before the first step. state_type F32, or DYN8 for 8-bit state (2110.02861): codes with an
 * f32 absmax per 256 elements, of table DYN8 in states 1 and 3 and UDYN8 in state 2, as bitsandbytes stores them.
 * history, for percentile clipping only, is f32[100], zero before the first step. */
typedef struct qlora_parameter {
    uint32_t struct_size, flags; /* QLORA_PARAMETER_* */
    uint64_t count;
    qlora_span value, gradient, state1, state2;
    int32_t value_type, gradient_type, state_type; /* 0 = QLORA_FORMAT_F32 */
    float learning_rate_scale;                     /* 0 = 1; LoRA+ sets it on B */
    qlora_span state3, absmax1, absmax2, absmax3, history;
} qlora_parameter;

#define QLORA_STATE_1       0
#define QLORA_STATE_2       1
#define QLORA_STATE_3       2
#define QLORA_STATE_ABSMAX1 3
#define QLORA_STATE_ABSMAX2 4
#define QLORA_STATE_ABSMAX3 5
#define QLORA_STATE_COUNT   6

/* The pieces of a parameter's state. */
typedef struct qlora_state_layout_info {
    uint32_t struct_size, flags;
    int32_t algorithm;      /* asked with: QLORA_OPTIMIZER_* */
    uint32_t min_8bit_size; /* asked with: smaller tensors get F32 state; 0 = 4096, 1 = none does */
    int32_t state_type;     /* answer: F32, or DYN8 where the parameter's state_type asks for it and count is not too small */
    uint32_t reserved;
    uint64_t total_bytes;   /* one allocation for all, a multiple of 256 */
    uint64_t piece_bytes[QLORA_STATE_COUNT];  /* 0: there is no such piece */
    uint64_t piece_offset[QLORA_STATE_COUNT]; /* place in that allocation, multiples of 256 */
} qlora_state_layout_info;

/* Sizes of the state of a parameter, of which count and state_type are looked at. ERROR_ARGUMENT for an unknown
 * algorithm, ERROR_FORMAT for a state_type that is neither F32 nor DYN8, ERROR_SHAPE when sizes overflow. */
QLORA_API int32_t qlora_state_layout(const qlora_parameter *parameter, qlora_state_layout_info *layout);
/* Sets the parameter's state_type and its spans of state and absmax to their places in memory, which is at least
 * total_bytes; ERROR_SCRATCH if not. */
QLORA_API int32_t qlora_state_place(qlora_parameter *parameter, const qlora_state_layout_info *layout, qlora_span memory);

/* norm f32[1] = gradient_scale * sqrt(sum of squares over all gradients), in a fixed order; norms, unless
 * absent, f32[parameter_count] receives each tensor's own. Only count and gradient of each parameter are used.
 * parameters is a host array of parameter_count structs. */
typedef struct qlora_gradient_norm_args {
    uint32_t struct_size, flags;
    uint64_t stream;
    qlora_span scratch;
    const qlora_parameter *parameters;
    uint32_t parameter_count, reserved;
    qlora_span norm, norms;
    float gradient_scale; /* 0 = 1 */
    uint32_t reserved2;
} qlora_gradient_norm_args;
QLORA_API int32_t qlora_gradient_norm(qlora_context *context, const qlora_gradient_norm_args *args);

/* One step over a list of tensors, in a few launches whatever their number. Arithmetic is f32; a value is rounded once to
 * its type, to nearest even, or with STOCHASTIC (16-bit types) by a random word of (seed, step, place in the list, element),
 * the same everywhere.
 *
 * The gradient of a tensor is g = gradient_scale * clip * gradient, of which clip is the product of
 *   min(1, max_norm / (norm + 1e-6))      if norm and max_norm are given (PyTorch's clip_grad_norm_)
 *   min(1, threshold / own norm)          if percentile (1..99) is: threshold is the norm at that percentile among the last
 *                                         100 of this tensor, which norms and history hold
 * norm and norms are what qlora_gradient_norm wrote with the same gradient_scale. Accumulated gradients are averaged by
 * gradient_scale; a loss scale is taken out by it.
 *
 * With lr = learning_rate * learning_rate_scale, decay = weight_decay, step t from 1, c1 = 1 - beta1^t, c2 = 1 - beta2^t:
 *   ADAMW         p -= lr decay p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr (m / c1) / (sqrt(v / c2) + epsilon)
 *   ADAM          g += decay p, then as ADAMW without decay
 *   STABLE_ADAMW  b1, b2 are beta (1 - beta^(t-1)) / (1 - beta^t);  m, v as above;  r = sqrt(mean(g^2 / max(v, epsilon^2)));
 *                 lr /= max(1, r);  p -= lr decay p;  p -= lr m / (sqrt(v) + epsilon)
 *   LION          p -= lr decay p;  p -= lr sign(b1 m + (1-b1) g), sign(0) = 0;  m = b2 m + (1-b2) g
 *   MOMENTUM      g += decay p;  m = b1 m + g;  p -= lr m
 *   RMSPROP       g += decay p;  m = b1 m + (1-b1) g^2;  p -= lr g / (sqrt(m) + epsilon)
 *   ADAGRAD       g += decay p;  m += g^2;  p -= lr g / (sqrt(m) + epsilon)
 *   LAMB          m, v as ADAMW;  u = (m / c1) / (sqrt(v / c2) + epsilon) + decay p;  p -= lr |p| / |u| u
 *   LARS          f = max_unorm |p| / (|g| + decay |p|);  m = b1 m + f (g + decay p);  p -= lr m
 *   ADEMAMIX      p -= lr decay p;  m, v as ADAMW;  n = b3 n + (1-b3) g;  p -= lr (m / c1 + alpha n) / (sqrt(v / c2) + epsilon)
 * State 1 is m, 2 is v, 3 is n. A factor |p| / |u| or f counts as 1 where |p| or its divisor is 0.
 * Defaults for zero: beta1 0.9, RMSPROP 0.99; beta2 0.999, STABLE_ADAMW and LION 0.99; beta3 0.9999; alpha 5; epsilon 1e-8,
 * STABLE_ADAMW and LAMB 1e-6, ADAGRAD 1e-10; max_unorm of LARS 0.001; gradient_scale 1.
 * max_unorm of ADAMW, ADAM, MOMENTUM, RMSPROP and ADAGRAD, unless 0: lr is multiplied by min(1, max_unorm |p| / |u|), where
 * p -= lr u but for decay (RMSPROP, ADAGRAD and MOMENTUM: + epsilon beside max_unorm |p|).
 *
 * 8-bit state is read with its old absmax, p moves by the new state before that is rounded, and each new value over its
 * block's new absmax becomes the nearest of its table; a tie takes the even code. In states 1 and 3 a value whose code would
 * have the other sign takes the next code of its own: a negative value never becomes zero. A block of zeros has absmax 0
 * and any codes. An element of NaN or infinite gradient loses its 8-bit state and keeps its value; with F32 state NaN spreads
 * as in PyTorch.
 *
 * BITSANDBYTES (0.50, CUDA) differs thus: with F32 state g is rounded to the gradient's type after scaling, and after adding
 * decay p; ADAMW and ADAM are one: p is rounded after its step and then multiplied by 1 - lr decay, ADEMAMIX likewise; LION
 * rounds p after its decay and, with 8-bit state, lr to the gradient's type; LAMB is ADAMW with max_unorm (0 = 1), LARS is
 * MOMENTUM with max_unorm (0 = 0.02); max_unorm looks at the state without decay; MOMENTUM's first step sets m = g; RMSPROP and
 * ADAGRAD with 8-bit state divide the raw gradient. Not with STOCHASTIC nor STABLE_ADAMW.
 *
 * SKIP_STEP needs norm, SKIP_TENSORS needs norms. skipped, unless absent, uint32[parameter_count], receives 1 for a tensor
 * that was not stepped, else 0; a caller who reads it and passes the same step again has PyTorch's count. factors, unless absent,
 * f32[parameter_count], receives what multiplied each tensor's lr: 1 / max(1, r), |p| / |u|, f, that of max_unorm, or 1.
 *
 * PAGED tensors stream through window in pages of page_bytes (0 = a third of the window): while one is stepped the next
 * arrives and the last is written back. Results are those of resident state, to the bit. See qlora_pager. */
typedef struct qlora_optimizer_args {
    uint32_t struct_size, flags; /* BITSANDBYTES, SKIP_*, ZERO_GRADIENTS, STOCHASTIC */
    uint64_t stream;
    qlora_span scratch;
    const qlora_parameter *parameters;
    uint32_t parameter_count;
    int32_t algorithm; /* QLORA_OPTIMIZER_* */
    uint64_t step;
    qlora_span norm;
    float max_norm, gradient_scale;
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    uint32_t reserved;
    float beta3, alpha, max_unorm;
    uint32_t percentile; /* 0 = none */
    uint64_t seed;
    qlora_span norms, skipped, factors;
    qlora_span window; /* device memory, at least two pages */
    uint64_t page_bytes;
} qlora_optimizer_args;
QLORA_API int32_t qlora_optimizer_step(qlora_context *context, const qlora_optimizer_args *args);

/* Learning rates as pure functions of the step, which counts from 1 as the optimizer's does. Steps 1..warmup rise evenly
 * to learning_rate; then by the share done = (step - 1 - warmup) / (steps - warmup) of the rest, at most 1:
 *   CONSTANT  learning_rate
 *   LINEAR    from learning_rate down to min_ratio of it
 *   COSINE    the same along half a cosine; cycles > 1 begins again that often (SGDR, 1608.03983) */
#define QLORA_SCHEDULE_CONSTANT 0
#define QLORA_SCHEDULE_LINEAR   1
#define QLORA_SCHEDULE_COSINE   2
typedef struct qlora_schedule {
    uint32_t struct_size, flags;
    int32_t kind;    /* QLORA_SCHEDULE_* */
    uint32_t cycles; /* 0 = 1; COSINE only */
    uint64_t warmup, steps;
    double learning_rate, min_ratio;
} qlora_schedule;
/* rate receives the learning rate of a step. ERROR_ARGUMENT when step is 0, kind or cycles are none of the above,
 * steps are 0 where the kind needs them, or a number is negative or not finite. */
QLORA_API int32_t qlora_schedule_rate(const qlora_schedule *schedule, uint64_t step, double *rate);

/* ---- paged state -------------------------------------------------------------------------------------- */
/* Splits the state of a list of parameters between device memory and host memory under a budget of device bytes. State
 * that fits is resident: the first resident_count parameters. The others' lies in an arena in host memory and streams
 * through a window in every step. If all fits there is neither arena nor window. Nothing here pages by faults. */
typedef struct qlora_pager {
    uint32_t struct_size, flags;
    qlora_parameter *parameters;
    uint32_t parameter_count;
    int32_t algorithm;
    uint32_t min_8bit_size; /* as in qlora_state_layout_info */
    uint32_t resident_count;
    uint64_t budget_bytes;  /* asked with: device memory for state and window; 0 = no bound */
    uint64_t page_bytes;    /* 0 = chosen, and filled in */
    uint64_t state_bytes;   /* of all parameters */
    uint64_t resident_bytes, window_bytes, arena_bytes; /* to allocate; each may be 0 */
    qlora_span resident, window, arena; /* given to place; arena is host memory, see BUFFER_HOST */
} qlora_pager;
/* Fills in sizes and resident_count. ERROR_SCRATCH says the least budget when this one holds no three pages. */
QLORA_API int32_t qlora_pager_plan(qlora_context *context, qlora_pager *pager);
/* Sets each parameter's state spans, state_type and PAGED flag by the plan. The memory is the caller's to zero. */
QLORA_API int32_t qlora_pager_place(qlora_context *context, qlora_pager *pager);

#ifdef __cplusplus
}
#endif
#endif
