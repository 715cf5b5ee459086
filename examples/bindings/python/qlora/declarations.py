"""Made from qlora.h by examples/bindings/generate.py; do not edit. qlora.h is the manual."""
from ctypes import (CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int16, c_int32, c_int64, c_int8, c_size_t, c_uint16, c_uint32, c_uint64, c_uint8, c_void_p, sizeof)

QLORA_VERSION_MAJOR = 0
QLORA_VERSION_MINOR = 1
QLORA_VERSION_PATCH = 0
QLORA_OK = 0
QLORA_ERROR_ARGUMENT = -100
QLORA_ERROR_SHAPE = -101
QLORA_ERROR_FORMAT = -102
QLORA_ERROR_VALUE = -103
QLORA_ERROR_UNSUPPORTED = -200
QLORA_ERROR_UNAVAILABLE = -201
QLORA_ERROR_MEMORY = -300
QLORA_ERROR_SCRATCH = -301
QLORA_ERROR_DEVICE = -400
QLORA_FORMAT_F32 = 256
QLORA_FORMAT_F16 = 257
QLORA_FORMAT_BF16 = 286
QLORA_FORMAT_Q4_0 = 258
QLORA_FORMAT_Q8_0 = 264
QLORA_FORMAT_NF4 = 1
QLORA_FORMAT_NF4_DQ = 2
QLORA_FORMAT_FP4 = 3
QLORA_FORMAT_FP4_DQ = 4
QLORA_FORMAT_DYN8 = 5
QLORA_FORMAT_UDYN8 = 6
QLORA_FORMAT_FP8_E4M3 = 16
QLORA_FORMAT_FP8_E5M2 = 17
QLORA_FORMAT_MXFP8_E4M3 = 18
QLORA_FORMAT_MXFP8_E5M2 = 19
QLORA_FORMAT_MXFP6_E2M3 = 20
QLORA_FORMAT_MXFP6_E3M2 = 21
QLORA_FORMAT_GPTQ2 = 24
QLORA_FORMAT_GPTQ3 = 25
QLORA_FORMAT_GPTQ4 = 26
QLORA_FORMAT_GPTQ8 = 27
QLORA_FORMAT_INT8 = 28
QLORA_FORMAT_SPQR3 = 29
QLORA_FORMAT_SPQR4 = 30
QLORA_FORMAT_Q4_1 = 259
QLORA_FORMAT_Q5_0 = 262
QLORA_FORMAT_Q5_1 = 263
QLORA_FORMAT_Q2_K = 266
QLORA_FORMAT_Q3_K = 267
QLORA_FORMAT_Q4_K = 268
QLORA_FORMAT_Q5_K = 269
QLORA_FORMAT_Q6_K = 270
QLORA_FORMAT_IQ4_NL = 276
QLORA_FORMAT_IQ4_XS = 279
QLORA_FORMAT_MXFP4 = 295
QLORA_FORMAT_NVFP4 = 296
QLORA_PLANE_CODE = 0
QLORA_PLANE_SCALE = 1
QLORA_PLANE_NESTED = 2
QLORA_PLANE_OFFSET = 3
QLORA_PLANE_ZERO = 4
QLORA_PLANE_INDEX = 5
QLORA_PLANE_COLUMN = 6
QLORA_PLANE_OUTLIER = 7
QLORA_PLANE_COUNT = 8
QLORA_WEIGHT_INDEXED = 1
QLORA_BACKEND_REF = 1
QLORA_BACKEND_CPU = 2
QLORA_BACKEND_CUDA = 3
QLORA_BACKEND_VULKAN = 4
QLORA_ISA_BEST = 0
QLORA_ISA_SCALAR = 1
QLORA_ISA_AVX2 = 2
QLORA_ISA_AVX512 = 3
QLORA_ISA_NEON = 4
QLORA_CONTEXT_LEAN = 1
QLORA_BUFFER_HOST = 1
QLORA_BUFFER_BESIDE = 2
QLORA_OP_QUANTIZE = 1
QLORA_OP_DEQUANTIZE = 2
QLORA_OP_MATMUL = 3
QLORA_OP_MATMUL_GRAD = 4
QLORA_OP_LINEAR = 5
QLORA_OP_LINEAR_GRAD = 6
QLORA_OP_EMBEDDING = 7
QLORA_OP_RMS_NORM = 8
QLORA_OP_RMS_NORM_GRAD = 9
QLORA_OP_ROPE = 10
QLORA_OP_SWIGLU = 11
QLORA_OP_SWIGLU_GRAD = 12
QLORA_OP_ATTENTION = 13
QLORA_OP_ATTENTION_GRAD = 14
QLORA_OP_CROSS_ENTROPY = 15
QLORA_OP_GRADIENT_NORM = 16
QLORA_OP_OPTIMIZER_STEP = 17
QLORA_OP_HESSIAN = 18
QLORA_OP_QUANTIZE_GPTQ = 19
QLORA_OP_INT8_MATMUL = 21
QLORA_OP_INT8_MATMUL_GRAD = 22
QLORA_OP_WEIGHT_GRADIENT = 23
QLORA_OP_QUANTIZE_SPQR = 24
QLORA_OP_DROPOUT = 25
QLORA_FLAG_ACCUMULATE = 1
QLORA_FLAG_ACCUMULATE_GRADIENTS = 2
QLORA_FLAG_INVERSE = 4
QLORA_FLAG_STOCHASTIC = 8
QLORA_FLAG_SYMMETRIC = 16
QLORA_FLAG_SEARCH = 32
QLORA_FLAG_ACT_ORDER = 64
QLORA_FLAG_STATIC_GROUPS = 128
QLORA_FLAG_LAGGING = 256
QLORA_FLAG_WIDE = 512
QLORA_FLAG_BITSANDBYTES = 1024
QLORA_FLAG_SKIP_STEP = 2048
QLORA_FLAG_SKIP_TENSORS = 4096
QLORA_FLAG_SKIP_ZEROS = 8192
QLORA_FLAG_ZERO_GRADIENTS = 16384
QLORA_FLAG_SIMPLIFIED = 32768
QLORA_FLAG_CENTERED = 65536
QLORA_FLAG_UNGATED = 131072
QLORA_POWER_FLOOR = 0
QLORA_POWER_CEIL = 1
QLORA_POWER_EVEN = 2
QLORA_POWER_RCEIL = 3
QLORA_GPTQ_DONE = 1
QLORA_GPTQ_DAMPED = 2
QLORA_GPTQ_FLOORED = 3
QLORA_GPTQ_NEAREST = 4
QLORA_SPQR_ADDED = 1
QLORA_SPQR_PTCSR = 2
QLORA_ROPE_ADJACENT = 0
QLORA_ROPE_HALF = 1
QLORA_ACTIVATION_SILU = 0
QLORA_ACTIVATION_GELU = 1
QLORA_ACTIVATION_GELU_TANH = 2
QLORA_ACTIVATION_RELU = 3
QLORA_OPTIMIZER_ADAMW = 1
QLORA_OPTIMIZER_ADAM = 2
QLORA_OPTIMIZER_STABLE_ADAMW = 3
QLORA_OPTIMIZER_LION = 4
QLORA_OPTIMIZER_MOMENTUM = 5
QLORA_OPTIMIZER_RMSPROP = 6
QLORA_OPTIMIZER_ADAGRAD = 7
QLORA_OPTIMIZER_LAMB = 8
QLORA_OPTIMIZER_LARS = 9
QLORA_OPTIMIZER_ADEMAMIX = 10
QLORA_PARAMETER_NO_DECAY = 1
QLORA_PARAMETER_PAGED = 2
QLORA_STATE_1 = 0
QLORA_STATE_2 = 1
QLORA_STATE_3 = 2
QLORA_STATE_ABSMAX1 = 3
QLORA_STATE_ABSMAX2 = 4
QLORA_STATE_ABSMAX3 = 5
QLORA_STATE_COUNT = 6
QLORA_SCHEDULE_CONSTANT = 0
QLORA_SCHEDULE_LINEAR = 1
QLORA_SCHEDULE_COSINE = 2


class Sized(Structure):
    """A struct that knows its size; what is not named is zero."""

    def __init__(self, **fields):
        super().__init__(struct_size=sizeof(self), **fields)


class qlora_format_info(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("format", c_int32),
        ("bits", c_uint32),
        ("block", c_uint32),
        ("block_min", c_uint32),
        ("block_max", c_uint32),
        ("block_bytes", c_uint32),
        ("name", c_char_p),
    ]


class qlora_span(Structure):
    _fields_ = [
        ("handle", c_uint64),
        ("offset", c_uint64),
        ("size", c_uint64),
    ]


class qlora_tensor(Structure):
    _fields_ = [
        ("type", c_int32),
        ("reserved", c_uint32),
        ("rows", c_uint64),
        ("cols", c_uint64),
        ("stride", c_uint64),
        ("data", qlora_span),
    ]


class qlora_weight(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("format", c_int32),
        ("block", c_uint32),
        ("nested_block", c_uint32),
        ("reserved", c_uint32),
        ("rows", c_uint64),
        ("cols", c_uint64),
        ("planes", qlora_span * 8),
        ("outliers", c_uint64),
        ("tensor_scale", c_float),
        ("reserved2", c_uint32),
    ]


class qlora_weight_layout_info(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("total_bytes", c_uint64),
        ("plane_bytes", c_uint64 * 8),
        ("plane_offset", c_uint64 * 8),
    ]


class qlora_context_args(Sized):
    allocate_type = CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
    release_type = CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)
    log_type = CFUNCTYPE(None, c_void_p, c_char_p)
    parallel_for_type = CFUNCTYPE(None, c_void_p, c_uint32, CFUNCTYPE(None, c_void_p, c_uint32), c_void_p)
    inject_failure_type = CFUNCTYPE(c_int32, c_void_p, c_char_p)
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("backend", c_int32),
        ("device", c_int32),
        ("isa", c_int32),
        ("threads", c_uint32),
        ("allocate", allocate_type),
        ("release", release_type),
        ("allocator_user", c_void_p),
        ("log", log_type),
        ("log_user", c_void_p),
        ("parallel_for", parallel_for_type),
        ("parallel_user", c_void_p),
        ("inject_failure", inject_failure_type),
        ("inject_user", c_void_p),
        ("vulkan_get_instance_proc_addr", c_uint64),
        ("vulkan_instance", c_uint64),
        ("vulkan_physical_device", c_uint64),
        ("vulkan_device", c_uint64),
        ("vulkan_queue", c_uint64),
        ("vulkan_queue_family", c_uint32),
        ("reserved", c_uint32),
        ("message", c_void_p),
        ("message_bytes", c_size_t),
    ]


class qlora_context_info(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("backend", c_int32),
        ("device", c_int32),
        ("isa", c_int32),
        ("threads", c_uint32),
        ("memory_bytes", c_uint64),
        ("memory_free_bytes", c_uint64),
        ("name", c_char * 128),
        ("driver", c_char * 128),
    ]


class qlora_buffer_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("dst", qlora_span),
        ("src", qlora_span),
        ("host", c_void_p),
        ("bytes", c_uint64),
        ("pattern", c_uint32),
        ("reserved", c_uint32),
    ]


class qlora_graph_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("graph", c_uint64),
        ("nodes", c_uint64),
        ("device_bytes", c_uint64),
    ]


class qlora_quantize_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("src", qlora_tensor),
        ("importance", qlora_span),
        ("seed", c_uint64),
        ("power", c_int32),
        ("reserved", c_uint32),
        ("not_finite", qlora_span),
    ]


class qlora_dequantize_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("dst", qlora_tensor),
    ]


class qlora_matmul_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("x", qlora_tensor),
        ("y", qlora_tensor),
        ("compute_type", c_int32),
        ("reserved", c_uint32),
    ]


class qlora_hessian_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("x", qlora_tensor),
        ("hessian", qlora_span),
        ("count", c_uint64),
        ("batch", c_uint64),
    ]


class qlora_gptq_outcome(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("method", c_uint32),
        ("dead_columns", c_uint32),
        ("attempts", c_uint32),
        ("damping", c_double),
        ("floor", c_double),
        ("loss", c_double),
    ]


class qlora_quantize_gptq_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("src", qlora_tensor),
        ("hessian", qlora_span),
        ("outcome", qlora_span),
        ("damping", c_float),
        ("lag", c_uint32),
    ]


class qlora_spqr_outcome(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("method", c_uint32),
        ("dead_columns", c_uint32),
        ("attempts", c_uint32),
        ("damping", c_double),
        ("floor", c_double),
        ("loss", c_double),
        ("limit", c_double),
        ("outliers", c_uint64),
    ]


class qlora_quantize_spqr_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("src", qlora_tensor),
        ("hessian", qlora_span),
        ("outcome", qlora_span),
        ("damping", c_float),
        ("threshold", c_float),
    ]


class qlora_gptq_tensors(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("weight", POINTER(qlora_weight)),
        ("qweight", qlora_span),
        ("qzeros", qlora_span),
        ("scales", qlora_span),
        ("g_idx", qlora_span),
        ("ambiguous_zeros", c_uint64),
        ("version", c_uint32),
        ("reserved", c_uint32),
    ]


class qlora_spqr_tensors(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("weight", POINTER(qlora_weight)),
        ("dense", qlora_span),
        ("row_offsets", qlora_span),
        ("col_vals", qlora_span),
        ("in_perm", qlora_span),
        ("entry_count", c_uint64),
        ("outliers", c_uint64),
    ]


class qlora_int8_matmul_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("x", qlora_tensor),
        ("y", qlora_tensor),
        ("bias", qlora_span),
        ("threshold", c_float),
        ("reserved", c_uint32),
    ]


class qlora_int8_matmul_grad_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("dy", qlora_tensor),
        ("dx", qlora_tensor),
    ]


class qlora_weight_gradient_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("saved", POINTER(qlora_weight)),
        ("x", qlora_tensor),
        ("dy", qlora_tensor),
        ("dw", qlora_tensor),
        ("dbias", qlora_span),
        ("compute_type", c_int32),
        ("reserved", c_uint32),
    ]


class qlora_linear_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("x", qlora_tensor),
        ("y", qlora_tensor),
        ("a", qlora_tensor),
        ("b", qlora_tensor),
        ("bias", qlora_span),
        ("xa", qlora_span),
        ("scale", c_float),
        ("compute_type", c_int32),
    ]


class qlora_linear_grad_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("x", qlora_tensor),
        ("dy", qlora_tensor),
        ("dx", qlora_tensor),
        ("a", qlora_tensor),
        ("b", qlora_tensor),
        ("da", qlora_tensor),
        ("db", qlora_tensor),
        ("xa", qlora_span),
        ("dbias", qlora_span),
        ("scale", c_float),
        ("compute_type", c_int32),
    ]


class qlora_embedding_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("ids", qlora_span),
        ("y", qlora_tensor),
        ("scale", c_float),
        ("reserved", c_uint32),
    ]


class qlora_rms_norm_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("x", qlora_tensor),
        ("weight", qlora_tensor),
        ("y", qlora_tensor),
        ("rstd", qlora_span),
        ("epsilon", c_float),
        ("reserved", c_uint32),
        ("bias", qlora_tensor),
    ]


class qlora_rms_norm_grad_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("x", qlora_tensor),
        ("weight", qlora_tensor),
        ("dy", qlora_tensor),
        ("dx", qlora_tensor),
        ("rstd", qlora_span),
        ("dweight", qlora_span),
        ("dbias", qlora_span),
    ]


class qlora_rope_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("x", qlora_tensor),
        ("positions", qlora_span),
        ("freq_factors", qlora_span),
        ("head_dim", c_uint32),
        ("rotary_dim", c_uint32),
        ("layout", c_int32),
        ("freq_base", c_float),
        ("freq_scale", c_float),
        ("magnitude", c_float),
    ]


class qlora_swiglu_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("gate", qlora_tensor),
        ("up", qlora_tensor),
        ("y", qlora_tensor),
        ("activation", c_int32),
        ("reserved", c_uint32),
    ]


class qlora_swiglu_grad_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("gate", qlora_tensor),
        ("up", qlora_tensor),
        ("dy", qlora_tensor),
        ("dgate", qlora_tensor),
        ("dup", qlora_tensor),
        ("activation", c_int32),
        ("reserved", c_uint32),
    ]


class qlora_dropout_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("x", qlora_tensor),
        ("y", qlora_tensor),
        ("seed", c_uint64),
        ("probability", c_float),
        ("reserved", c_uint32),
    ]


class qlora_attention_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("q", qlora_tensor),
        ("k", qlora_tensor),
        ("v", qlora_tensor),
        ("y", qlora_tensor),
        ("lse", qlora_span),
        ("sequences", qlora_span),
        ("sequence_count", c_uint32),
        ("heads", c_uint32),
        ("kv_heads", c_uint32),
        ("head_dim", c_uint32),
        ("max_q_rows", c_uint32),
        ("max_k_rows", c_uint32),
        ("scale", c_float),
        ("reserved", c_uint32),
        ("slopes", qlora_span),
        ("soft_cap", c_float),
        ("window", c_uint32),
    ]


class qlora_attention_grad_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("q", qlora_tensor),
        ("k", qlora_tensor),
        ("v", qlora_tensor),
        ("y", qlora_tensor),
        ("dy", qlora_tensor),
        ("dq", qlora_tensor),
        ("dk", qlora_tensor),
        ("dv", qlora_tensor),
        ("lse", qlora_span),
        ("sequences", qlora_span),
        ("sequence_count", c_uint32),
        ("heads", c_uint32),
        ("kv_heads", c_uint32),
        ("head_dim", c_uint32),
        ("max_q_rows", c_uint32),
        ("max_k_rows", c_uint32),
        ("scale", c_float),
        ("reserved", c_uint32),
        ("slopes", qlora_span),
        ("soft_cap", c_float),
        ("window", c_uint32),
    ]


class qlora_cross_entropy_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("weight", POINTER(qlora_weight)),
        ("x", qlora_tensor),
        ("dx", qlora_tensor),
        ("targets", qlora_span),
        ("losses", qlora_span),
        ("grad_scale", c_float),
        ("chunk_rows", c_uint32),
        ("compute_type", c_int32),
        ("reserved", c_uint32),
        ("bias", qlora_span),
        ("soft_cap", c_float),
        ("reserved2", c_uint32),
    ]


class qlora_parameter(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("count", c_uint64),
        ("value", qlora_span),
        ("gradient", qlora_span),
        ("state1", qlora_span),
        ("state2", qlora_span),
        ("value_type", c_int32),
        ("gradient_type", c_int32),
        ("state_type", c_int32),
        ("learning_rate_scale", c_float),
        ("state3", qlora_span),
        ("absmax1", qlora_span),
        ("absmax2", qlora_span),
        ("absmax3", qlora_span),
        ("history", qlora_span),
    ]


class qlora_state_layout_info(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("algorithm", c_int32),
        ("min_8bit_size", c_uint32),
        ("state_type", c_int32),
        ("reserved", c_uint32),
        ("total_bytes", c_uint64),
        ("piece_bytes", c_uint64 * 6),
        ("piece_offset", c_uint64 * 6),
    ]


class qlora_gradient_norm_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("parameters", POINTER(qlora_parameter)),
        ("parameter_count", c_uint32),
        ("reserved", c_uint32),
        ("norm", qlora_span),
        ("norms", qlora_span),
        ("gradient_scale", c_float),
        ("reserved2", c_uint32),
    ]


class qlora_optimizer_args(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("stream", c_uint64),
        ("scratch", qlora_span),
        ("parameters", POINTER(qlora_parameter)),
        ("parameter_count", c_uint32),
        ("algorithm", c_int32),
        ("step", c_uint64),
        ("norm", qlora_span),
        ("max_norm", c_float),
        ("gradient_scale", c_float),
        ("learning_rate", c_float),
        ("beta1", c_float),
        ("beta2", c_float),
        ("epsilon", c_float),
        ("weight_decay", c_float),
        ("reserved", c_uint32),
        ("beta3", c_float),
        ("alpha", c_float),
        ("max_unorm", c_float),
        ("percentile", c_uint32),
        ("seed", c_uint64),
        ("norms", qlora_span),
        ("skipped", qlora_span),
        ("factors", qlora_span),
        ("window", qlora_span),
        ("page_bytes", c_uint64),
    ]


class qlora_schedule(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("kind", c_int32),
        ("cycles", c_uint32),
        ("warmup", c_uint64),
        ("steps", c_uint64),
        ("learning_rate", c_double),
        ("min_ratio", c_double),
    ]


class qlora_pager(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("parameters", POINTER(qlora_parameter)),
        ("parameter_count", c_uint32),
        ("algorithm", c_int32),
        ("min_8bit_size", c_uint32),
        ("resident_count", c_uint32),
        ("budget_bytes", c_uint64),
        ("page_bytes", c_uint64),
        ("state_bytes", c_uint64),
        ("resident_bytes", c_uint64),
        ("window_bytes", c_uint64),
        ("arena_bytes", c_uint64),
        ("resident", qlora_span),
        ("window", qlora_span),
        ("arena", qlora_span),
    ]


FUNCTIONS = {
    "qlora_version": (c_uint32, ()),
    "qlora_status_name": (c_char_p, (c_int32,)),
    "qlora_constant_find": (c_int32, (c_char_p, POINTER(c_int64),)),
    "qlora_format_query": (c_int32, (c_int32, POINTER(qlora_format_info),)),
    "qlora_format_find": (c_int32, (c_char_p, POINTER(c_int32),)),
    "qlora_weight_layout": (c_int32, (POINTER(qlora_weight), POINTER(qlora_weight_layout_info),)),
    "qlora_weight_place": (c_int32, (POINTER(qlora_weight), qlora_span,)),
    "qlora_context_create": (c_int32, (POINTER(qlora_context_args), POINTER(c_void_p),)),
    "qlora_context_destroy": (None, (c_void_p,)),
    "qlora_context_message": (c_char_p, (c_void_p,)),
    "qlora_context_synchronize": (c_int32, (c_void_p,)),
    "qlora_context_query": (c_int32, (c_void_p, POINTER(qlora_context_info),)),
    "qlora_device_count": (c_int32, (c_int32, POINTER(c_uint32),)),
    "qlora_buffer_create": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_buffer_destroy": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_buffer_write": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_buffer_read": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_buffer_copy": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_buffer_join": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_buffer_fill": (c_int32, (c_void_p, POINTER(qlora_buffer_args),)),
    "qlora_graph_begin": (c_int32, (c_void_p, POINTER(qlora_graph_args),)),
    "qlora_graph_end": (c_int32, (c_void_p, POINTER(qlora_graph_args),)),
    "qlora_graph_launch": (c_int32, (c_void_p, POINTER(qlora_graph_args),)),
    "qlora_graph_destroy": (c_int32, (c_void_p, POINTER(qlora_graph_args),)),
    "qlora_operation_scratch": (c_int32, (c_void_p, c_uint32, c_void_p, POINTER(c_uint64),)),
    "qlora_operation_supports": (c_int32, (c_void_p, c_uint32, c_int32, c_int32,)),
    "qlora_weight_quantize": (c_int32, (c_void_p, POINTER(qlora_quantize_args),)),
    "qlora_weight_dequantize": (c_int32, (c_void_p, POINTER(qlora_dequantize_args),)),
    "qlora_weight_matmul": (c_int32, (c_void_p, POINTER(qlora_matmul_args),)),
    "qlora_weight_matmul_grad": (c_int32, (c_void_p, POINTER(qlora_matmul_args),)),
    "qlora_hessian_accumulate": (c_int32, (c_void_p, POINTER(qlora_hessian_args),)),
    "qlora_weight_quantize_gptq": (c_int32, (c_void_p, POINTER(qlora_quantize_gptq_args),)),
    "qlora_weight_quantize_spqr": (c_int32, (c_void_p, POINTER(qlora_quantize_spqr_args),)),
    "qlora_gptq_import": (c_int32, (c_void_p, POINTER(qlora_gptq_tensors),)),
    "qlora_gptq_export": (c_int32, (c_void_p, POINTER(qlora_gptq_tensors),)),
    "qlora_spqr_import": (c_int32, (c_void_p, POINTER(qlora_spqr_tensors),)),
    "qlora_int8_matmul": (c_int32, (c_void_p, POINTER(qlora_int8_matmul_args),)),
    "qlora_int8_matmul_grad": (c_int32, (c_void_p, POINTER(qlora_int8_matmul_grad_args),)),
    "qlora_weight_gradient": (c_int32, (c_void_p, POINTER(qlora_weight_gradient_args),)),
    "qlora_linear_forward": (c_int32, (c_void_p, POINTER(qlora_linear_args),)),
    "qlora_linear_grad": (c_int32, (c_void_p, POINTER(qlora_linear_grad_args),)),
    "qlora_embedding_gather": (c_int32, (c_void_p, POINTER(qlora_embedding_args),)),
    "qlora_rms_norm_forward": (c_int32, (c_void_p, POINTER(qlora_rms_norm_args),)),
    "qlora_rms_norm_grad": (c_int32, (c_void_p, POINTER(qlora_rms_norm_grad_args),)),
    "qlora_rope_apply": (c_int32, (c_void_p, POINTER(qlora_rope_args),)),
    "qlora_swiglu_forward": (c_int32, (c_void_p, POINTER(qlora_swiglu_args),)),
    "qlora_swiglu_grad": (c_int32, (c_void_p, POINTER(qlora_swiglu_grad_args),)),
    "qlora_dropout_apply": (c_int32, (c_void_p, POINTER(qlora_dropout_args),)),
    "qlora_attention_forward": (c_int32, (c_void_p, POINTER(qlora_attention_args),)),
    "qlora_attention_grad": (c_int32, (c_void_p, POINTER(qlora_attention_grad_args),)),
    "qlora_cross_entropy_loss": (c_int32, (c_void_p, POINTER(qlora_cross_entropy_args),)),
    "qlora_state_layout": (c_int32, (POINTER(qlora_parameter), POINTER(qlora_state_layout_info),)),
    "qlora_state_place": (c_int32, (POINTER(qlora_parameter), POINTER(qlora_state_layout_info), qlora_span,)),
    "qlora_gradient_norm": (c_int32, (c_void_p, POINTER(qlora_gradient_norm_args),)),
    "qlora_optimizer_step": (c_int32, (c_void_p, POINTER(qlora_optimizer_args),)),
    "qlora_schedule_rate": (c_int32, (POINTER(qlora_schedule), c_uint64, POINTER(c_double),)),
    "qlora_pager_plan": (c_int32, (c_void_p, POINTER(qlora_pager),)),
    "qlora_pager_place": (c_int32, (c_void_p, POINTER(qlora_pager),)),
}


def declare(library):
    """Gives the functions of a loaded library their types."""
    for name, (result, parameters) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters
    return library
