// Made from qlora.h by examples/bindings/generate.py; do not edit. qlora.h is the manual.
use std::os::raw::{c_char, c_void};

pub const QLORA_VERSION_MAJOR: i32 = 0;
pub const QLORA_VERSION_MINOR: i32 = 1;
pub const QLORA_VERSION_PATCH: i32 = 0;
pub const QLORA_OK: i32 = 0;
pub const QLORA_ERROR_ARGUMENT: i32 = -100;
pub const QLORA_ERROR_SHAPE: i32 = -101;
pub const QLORA_ERROR_FORMAT: i32 = -102;
pub const QLORA_ERROR_VALUE: i32 = -103;
pub const QLORA_ERROR_UNSUPPORTED: i32 = -200;
pub const QLORA_ERROR_UNAVAILABLE: i32 = -201;
pub const QLORA_ERROR_MEMORY: i32 = -300;
pub const QLORA_ERROR_SCRATCH: i32 = -301;
pub const QLORA_ERROR_DEVICE: i32 = -400;
pub const QLORA_FORMAT_F32: i32 = 256;
pub const QLORA_FORMAT_F16: i32 = 257;
pub const QLORA_FORMAT_BF16: i32 = 286;
pub const QLORA_FORMAT_Q4_0: i32 = 258;
pub const QLORA_FORMAT_Q8_0: i32 = 264;
pub const QLORA_FORMAT_NF4: i32 = 1;
pub const QLORA_FORMAT_NF4_DQ: i32 = 2;
pub const QLORA_FORMAT_FP4: i32 = 3;
pub const QLORA_FORMAT_FP4_DQ: i32 = 4;
pub const QLORA_FORMAT_DYN8: i32 = 5;
pub const QLORA_FORMAT_UDYN8: i32 = 6;
pub const QLORA_FORMAT_FP8_E4M3: i32 = 16;
pub const QLORA_FORMAT_FP8_E5M2: i32 = 17;
pub const QLORA_FORMAT_MXFP8_E4M3: i32 = 18;
pub const QLORA_FORMAT_MXFP8_E5M2: i32 = 19;
pub const QLORA_FORMAT_MXFP6_E2M3: i32 = 20;
pub const QLORA_FORMAT_MXFP6_E3M2: i32 = 21;
pub const QLORA_FORMAT_GPTQ2: i32 = 24;
pub const QLORA_FORMAT_GPTQ3: i32 = 25;
pub const QLORA_FORMAT_GPTQ4: i32 = 26;
pub const QLORA_FORMAT_GPTQ8: i32 = 27;
pub const QLORA_FORMAT_INT8: i32 = 28;
pub const QLORA_FORMAT_SPQR3: i32 = 29;
pub const QLORA_FORMAT_SPQR4: i32 = 30;
pub const QLORA_FORMAT_Q4_1: i32 = 259;
pub const QLORA_FORMAT_Q5_0: i32 = 262;
pub const QLORA_FORMAT_Q5_1: i32 = 263;
pub const QLORA_FORMAT_Q2_K: i32 = 266;
pub const QLORA_FORMAT_Q3_K: i32 = 267;
pub const QLORA_FORMAT_Q4_K: i32 = 268;
pub const QLORA_FORMAT_Q5_K: i32 = 269;
pub const QLORA_FORMAT_Q6_K: i32 = 270;
pub const QLORA_FORMAT_IQ4_NL: i32 = 276;
pub const QLORA_FORMAT_IQ4_XS: i32 = 279;
pub const QLORA_FORMAT_MXFP4: i32 = 295;
pub const QLORA_FORMAT_NVFP4: i32 = 296;
pub const QLORA_PLANE_CODE: i32 = 0;
pub const QLORA_PLANE_SCALE: i32 = 1;
pub const QLORA_PLANE_NESTED: i32 = 2;
pub const QLORA_PLANE_OFFSET: i32 = 3;
pub const QLORA_PLANE_ZERO: i32 = 4;
pub const QLORA_PLANE_INDEX: i32 = 5;
pub const QLORA_PLANE_COLUMN: i32 = 6;
pub const QLORA_PLANE_OUTLIER: i32 = 7;
pub const QLORA_PLANE_COUNT: usize = 8;
pub const QLORA_WEIGHT_INDEXED: u32 = 1;
pub const QLORA_BACKEND_REF: i32 = 1;
pub const QLORA_BACKEND_CPU: i32 = 2;
pub const QLORA_BACKEND_CUDA: i32 = 3;
pub const QLORA_BACKEND_VULKAN: i32 = 4;
pub const QLORA_ISA_BEST: i32 = 0;
pub const QLORA_ISA_SCALAR: i32 = 1;
pub const QLORA_ISA_AVX2: i32 = 2;
pub const QLORA_ISA_AVX512: i32 = 3;
pub const QLORA_ISA_NEON: i32 = 4;
pub const QLORA_CONTEXT_LEAN: u32 = 1;
pub const QLORA_BUFFER_HOST: u32 = 1;
pub const QLORA_BUFFER_BESIDE: u32 = 2;
pub const QLORA_OP_QUANTIZE: u32 = 1;
pub const QLORA_OP_DEQUANTIZE: u32 = 2;
pub const QLORA_OP_MATMUL: u32 = 3;
pub const QLORA_OP_MATMUL_GRAD: u32 = 4;
pub const QLORA_OP_LINEAR: u32 = 5;
pub const QLORA_OP_LINEAR_GRAD: u32 = 6;
pub const QLORA_OP_EMBEDDING: u32 = 7;
pub const QLORA_OP_RMS_NORM: u32 = 8;
pub const QLORA_OP_RMS_NORM_GRAD: u32 = 9;
pub const QLORA_OP_ROPE: u32 = 10;
pub const QLORA_OP_SWIGLU: u32 = 11;
pub const QLORA_OP_SWIGLU_GRAD: u32 = 12;
pub const QLORA_OP_ATTENTION: u32 = 13;
pub const QLORA_OP_ATTENTION_GRAD: u32 = 14;
pub const QLORA_OP_CROSS_ENTROPY: u32 = 15;
pub const QLORA_OP_GRADIENT_NORM: u32 = 16;
pub const QLORA_OP_OPTIMIZER_STEP: u32 = 17;
pub const QLORA_OP_HESSIAN: u32 = 18;
pub const QLORA_OP_QUANTIZE_GPTQ: u32 = 19;
pub const QLORA_OP_INT8_MATMUL: u32 = 21;
pub const QLORA_OP_INT8_MATMUL_GRAD: u32 = 22;
pub const QLORA_OP_WEIGHT_GRADIENT: u32 = 23;
pub const QLORA_OP_QUANTIZE_SPQR: u32 = 24;
pub const QLORA_OP_DROPOUT: u32 = 25;
pub const QLORA_FLAG_ACCUMULATE: u32 = 1;
pub const QLORA_FLAG_ACCUMULATE_GRADIENTS: u32 = 2;
pub const QLORA_FLAG_INVERSE: u32 = 4;
pub const QLORA_FLAG_STOCHASTIC: u32 = 8;
pub const QLORA_FLAG_SYMMETRIC: u32 = 16;
pub const QLORA_FLAG_SEARCH: u32 = 32;
pub const QLORA_FLAG_ACT_ORDER: u32 = 64;
pub const QLORA_FLAG_STATIC_GROUPS: u32 = 128;
pub const QLORA_FLAG_LAGGING: u32 = 256;
pub const QLORA_FLAG_WIDE: u32 = 512;
pub const QLORA_FLAG_BITSANDBYTES: u32 = 1024;
pub const QLORA_FLAG_SKIP_STEP: u32 = 2048;
pub const QLORA_FLAG_SKIP_TENSORS: u32 = 4096;
pub const QLORA_FLAG_SKIP_ZEROS: u32 = 8192;
pub const QLORA_FLAG_ZERO_GRADIENTS: u32 = 16384;
pub const QLORA_FLAG_SIMPLIFIED: u32 = 32768;
pub const QLORA_FLAG_CENTERED: u32 = 65536;
pub const QLORA_FLAG_UNGATED: u32 = 131072;
pub const QLORA_POWER_FLOOR: i32 = 0;
pub const QLORA_POWER_CEIL: i32 = 1;
pub const QLORA_POWER_EVEN: i32 = 2;
pub const QLORA_POWER_RCEIL: i32 = 3;
pub const QLORA_GPTQ_DONE: i32 = 1;
pub const QLORA_GPTQ_DAMPED: i32 = 2;
pub const QLORA_GPTQ_FLOORED: i32 = 3;
pub const QLORA_GPTQ_NEAREST: i32 = 4;
pub const QLORA_SPQR_ADDED: u32 = 1;
pub const QLORA_SPQR_PTCSR: u32 = 2;
pub const QLORA_ROPE_ADJACENT: i32 = 0;
pub const QLORA_ROPE_HALF: i32 = 1;
pub const QLORA_ACTIVATION_SILU: i32 = 0;
pub const QLORA_ACTIVATION_GELU: i32 = 1;
pub const QLORA_ACTIVATION_GELU_TANH: i32 = 2;
pub const QLORA_ACTIVATION_RELU: i32 = 3;
pub const QLORA_OPTIMIZER_ADAMW: i32 = 1;
pub const QLORA_OPTIMIZER_ADAM: i32 = 2;
pub const QLORA_OPTIMIZER_STABLE_ADAMW: i32 = 3;
pub const QLORA_OPTIMIZER_LION: i32 = 4;
pub const QLORA_OPTIMIZER_MOMENTUM: i32 = 5;
pub const QLORA_OPTIMIZER_RMSPROP: i32 = 6;
pub const QLORA_OPTIMIZER_ADAGRAD: i32 = 7;
pub const QLORA_OPTIMIZER_LAMB: i32 = 8;
pub const QLORA_OPTIMIZER_LARS: i32 = 9;
pub const QLORA_OPTIMIZER_ADEMAMIX: i32 = 10;
pub const QLORA_PARAMETER_NO_DECAY: u32 = 1;
pub const QLORA_PARAMETER_PAGED: u32 = 2;
pub const QLORA_STATE_1: i32 = 0;
pub const QLORA_STATE_2: i32 = 1;
pub const QLORA_STATE_3: i32 = 2;
pub const QLORA_STATE_ABSMAX1: i32 = 3;
pub const QLORA_STATE_ABSMAX2: i32 = 4;
pub const QLORA_STATE_ABSMAX3: i32 = 5;
pub const QLORA_STATE_COUNT: usize = 6;
pub const QLORA_SCHEDULE_CONSTANT: i32 = 0;
pub const QLORA_SCHEDULE_LINEAR: i32 = 1;
pub const QLORA_SCHEDULE_COSINE: i32 = 2;

#[repr(C)]
pub struct qlora_context {
    _private: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_format_info {
    pub struct_size: u32,
    pub flags: u32,
    pub format: i32,
    pub bits: u32,
    pub block: u32,
    pub block_min: u32,
    pub block_max: u32,
    pub block_bytes: u32,
    pub name: *const c_char,
}

/// All zero, but for struct_size.
impl Default for qlora_format_info {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_span {
    pub handle: u64,
    pub offset: u64,
    pub size: u64,
}

/// All zero.
impl Default for qlora_span {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        unsafe { std::mem::zeroed() }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_tensor {
    pub r#type: i32,
    pub reserved: u32,
    pub rows: u64,
    pub cols: u64,
    pub stride: u64,
    pub data: qlora_span,
}

/// All zero.
impl Default for qlora_tensor {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        unsafe { std::mem::zeroed() }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_weight {
    pub struct_size: u32,
    pub flags: u32,
    pub format: i32,
    pub block: u32,
    pub nested_block: u32,
    pub reserved: u32,
    pub rows: u64,
    pub cols: u64,
    pub planes: [qlora_span; 8],
    pub outliers: u64,
    pub tensor_scale: f32,
    pub reserved2: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_weight {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_weight_layout_info {
    pub struct_size: u32,
    pub flags: u32,
    pub total_bytes: u64,
    pub plane_bytes: [u64; 8],
    pub plane_offset: [u64; 8],
}

/// All zero, but for struct_size.
impl Default for qlora_weight_layout_info {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_context_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub backend: i32,
    pub device: i32,
    pub isa: i32,
    pub threads: u32,
    pub allocate: Option<unsafe extern "C" fn(user: *mut c_void, bytes: usize, alignment: usize) -> *mut c_void>,
    pub release: Option<unsafe extern "C" fn(user: *mut c_void, memory: *mut c_void, bytes: usize)>,
    pub allocator_user: *mut c_void,
    pub log: Option<unsafe extern "C" fn(user: *mut c_void, line: *const c_char)>,
    pub log_user: *mut c_void,
    pub parallel_for: Option<unsafe extern "C" fn(user: *mut c_void, count: u32, task: Option<unsafe extern "C" fn(task_user: *mut c_void, index: u32)>, task_user: *mut c_void)>,
    pub parallel_user: *mut c_void,
    pub inject_failure: Option<unsafe extern "C" fn(user: *mut c_void, call: *const c_char) -> i32>,
    pub inject_user: *mut c_void,
    pub vulkan_get_instance_proc_addr: u64,
    pub vulkan_instance: u64,
    pub vulkan_physical_device: u64,
    pub vulkan_device: u64,
    pub vulkan_queue: u64,
    pub vulkan_queue_family: u32,
    pub reserved: u32,
    pub message: *mut c_char,
    pub message_bytes: usize,
}

/// All zero, but for struct_size.
impl Default for qlora_context_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_context_info {
    pub struct_size: u32,
    pub flags: u32,
    pub backend: i32,
    pub device: i32,
    pub isa: i32,
    pub threads: u32,
    pub memory_bytes: u64,
    pub memory_free_bytes: u64,
    pub name: [c_char; 128],
    pub driver: [c_char; 128],
}

/// All zero, but for struct_size.
impl Default for qlora_context_info {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_buffer_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub dst: qlora_span,
    pub src: qlora_span,
    pub host: *mut c_void,
    pub bytes: u64,
    pub pattern: u32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_buffer_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_graph_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub graph: u64,
    pub nodes: u64,
    pub device_bytes: u64,
}

/// All zero, but for struct_size.
impl Default for qlora_graph_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_quantize_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub src: qlora_tensor,
    pub importance: qlora_span,
    pub seed: u64,
    pub power: i32,
    pub reserved: u32,
    pub not_finite: qlora_span,
}

/// All zero, but for struct_size.
impl Default for qlora_quantize_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_dequantize_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub dst: qlora_tensor,
}

/// All zero, but for struct_size.
impl Default for qlora_dequantize_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_matmul_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub x: qlora_tensor,
    pub y: qlora_tensor,
    pub compute_type: i32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_matmul_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_hessian_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub x: qlora_tensor,
    pub hessian: qlora_span,
    pub count: u64,
    pub batch: u64,
}

/// All zero, but for struct_size.
impl Default for qlora_hessian_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_gptq_outcome {
    pub struct_size: u32,
    pub method: u32,
    pub dead_columns: u32,
    pub attempts: u32,
    pub damping: f64,
    pub floor: f64,
    pub loss: f64,
}

/// All zero, but for struct_size.
impl Default for qlora_gptq_outcome {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_quantize_gptq_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub src: qlora_tensor,
    pub hessian: qlora_span,
    pub outcome: qlora_span,
    pub damping: f32,
    pub lag: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_quantize_gptq_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_spqr_outcome {
    pub struct_size: u32,
    pub method: u32,
    pub dead_columns: u32,
    pub attempts: u32,
    pub damping: f64,
    pub floor: f64,
    pub loss: f64,
    pub limit: f64,
    pub outliers: u64,
}

/// All zero, but for struct_size.
impl Default for qlora_spqr_outcome {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_quantize_spqr_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub src: qlora_tensor,
    pub hessian: qlora_span,
    pub outcome: qlora_span,
    pub damping: f32,
    pub threshold: f32,
}

/// All zero, but for struct_size.
impl Default for qlora_quantize_spqr_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_gptq_tensors {
    pub struct_size: u32,
    pub flags: u32,
    pub weight: *const qlora_weight,
    pub qweight: qlora_span,
    pub qzeros: qlora_span,
    pub scales: qlora_span,
    pub g_idx: qlora_span,
    pub ambiguous_zeros: u64,
    pub version: u32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_gptq_tensors {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_spqr_tensors {
    pub struct_size: u32,
    pub flags: u32,
    pub weight: *const qlora_weight,
    pub dense: qlora_span,
    pub row_offsets: qlora_span,
    pub col_vals: qlora_span,
    pub in_perm: qlora_span,
    pub entry_count: u64,
    pub outliers: u64,
}

/// All zero, but for struct_size.
impl Default for qlora_spqr_tensors {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_int8_matmul_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub x: qlora_tensor,
    pub y: qlora_tensor,
    pub bias: qlora_span,
    pub threshold: f32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_int8_matmul_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_int8_matmul_grad_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub dy: qlora_tensor,
    pub dx: qlora_tensor,
}

/// All zero, but for struct_size.
impl Default for qlora_int8_matmul_grad_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_weight_gradient_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub saved: *const qlora_weight,
    pub x: qlora_tensor,
    pub dy: qlora_tensor,
    pub dw: qlora_tensor,
    pub dbias: qlora_span,
    pub compute_type: i32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_weight_gradient_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_linear_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub x: qlora_tensor,
    pub y: qlora_tensor,
    pub a: qlora_tensor,
    pub b: qlora_tensor,
    pub bias: qlora_span,
    pub xa: qlora_span,
    pub scale: f32,
    pub compute_type: i32,
}

/// All zero, but for struct_size.
impl Default for qlora_linear_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_linear_grad_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub x: qlora_tensor,
    pub dy: qlora_tensor,
    pub dx: qlora_tensor,
    pub a: qlora_tensor,
    pub b: qlora_tensor,
    pub da: qlora_tensor,
    pub db: qlora_tensor,
    pub xa: qlora_span,
    pub dbias: qlora_span,
    pub scale: f32,
    pub compute_type: i32,
}

/// All zero, but for struct_size.
impl Default for qlora_linear_grad_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_embedding_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub ids: qlora_span,
    pub y: qlora_tensor,
    pub scale: f32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_embedding_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_rms_norm_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub x: qlora_tensor,
    pub weight: qlora_tensor,
    pub y: qlora_tensor,
    pub rstd: qlora_span,
    pub epsilon: f32,
    pub reserved: u32,
    pub bias: qlora_tensor,
}

/// All zero, but for struct_size.
impl Default for qlora_rms_norm_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_rms_norm_grad_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub x: qlora_tensor,
    pub weight: qlora_tensor,
    pub dy: qlora_tensor,
    pub dx: qlora_tensor,
    pub rstd: qlora_span,
    pub dweight: qlora_span,
    pub dbias: qlora_span,
}

/// All zero, but for struct_size.
impl Default for qlora_rms_norm_grad_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_rope_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub x: qlora_tensor,
    pub positions: qlora_span,
    pub freq_factors: qlora_span,
    pub head_dim: u32,
    pub rotary_dim: u32,
    pub layout: i32,
    pub freq_base: f32,
    pub freq_scale: f32,
    pub magnitude: f32,
}

/// All zero, but for struct_size.
impl Default for qlora_rope_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_swiglu_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub gate: qlora_tensor,
    pub up: qlora_tensor,
    pub y: qlora_tensor,
    pub activation: i32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_swiglu_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_swiglu_grad_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub gate: qlora_tensor,
    pub up: qlora_tensor,
    pub dy: qlora_tensor,
    pub dgate: qlora_tensor,
    pub dup: qlora_tensor,
    pub activation: i32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_swiglu_grad_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_dropout_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub x: qlora_tensor,
    pub y: qlora_tensor,
    pub seed: u64,
    pub probability: f32,
    pub reserved: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_dropout_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_attention_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub q: qlora_tensor,
    pub k: qlora_tensor,
    pub v: qlora_tensor,
    pub y: qlora_tensor,
    pub lse: qlora_span,
    pub sequences: qlora_span,
    pub sequence_count: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub max_q_rows: u32,
    pub max_k_rows: u32,
    pub scale: f32,
    pub reserved: u32,
    pub slopes: qlora_span,
    pub soft_cap: f32,
    pub window: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_attention_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_attention_grad_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub q: qlora_tensor,
    pub k: qlora_tensor,
    pub v: qlora_tensor,
    pub y: qlora_tensor,
    pub dy: qlora_tensor,
    pub dq: qlora_tensor,
    pub dk: qlora_tensor,
    pub dv: qlora_tensor,
    pub lse: qlora_span,
    pub sequences: qlora_span,
    pub sequence_count: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub max_q_rows: u32,
    pub max_k_rows: u32,
    pub scale: f32,
    pub reserved: u32,
    pub slopes: qlora_span,
    pub soft_cap: f32,
    pub window: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_attention_grad_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_cross_entropy_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub weight: *const qlora_weight,
    pub x: qlora_tensor,
    pub dx: qlora_tensor,
    pub targets: qlora_span,
    pub losses: qlora_span,
    pub grad_scale: f32,
    pub chunk_rows: u32,
    pub compute_type: i32,
    pub reserved: u32,
    pub bias: qlora_span,
    pub soft_cap: f32,
    pub reserved2: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_cross_entropy_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_parameter {
    pub struct_size: u32,
    pub flags: u32,
    pub count: u64,
    pub value: qlora_span,
    pub gradient: qlora_span,
    pub state1: qlora_span,
    pub state2: qlora_span,
    pub value_type: i32,
    pub gradient_type: i32,
    pub state_type: i32,
    pub learning_rate_scale: f32,
    pub state3: qlora_span,
    pub absmax1: qlora_span,
    pub absmax2: qlora_span,
    pub absmax3: qlora_span,
    pub history: qlora_span,
}

/// All zero, but for struct_size.
impl Default for qlora_parameter {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_state_layout_info {
    pub struct_size: u32,
    pub flags: u32,
    pub algorithm: i32,
    pub min_8bit_size: u32,
    pub state_type: i32,
    pub reserved: u32,
    pub total_bytes: u64,
    pub piece_bytes: [u64; 6],
    pub piece_offset: [u64; 6],
}

/// All zero, but for struct_size.
impl Default for qlora_state_layout_info {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_gradient_norm_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub parameters: *const qlora_parameter,
    pub parameter_count: u32,
    pub reserved: u32,
    pub norm: qlora_span,
    pub norms: qlora_span,
    pub gradient_scale: f32,
    pub reserved2: u32,
}

/// All zero, but for struct_size.
impl Default for qlora_gradient_norm_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_optimizer_args {
    pub struct_size: u32,
    pub flags: u32,
    pub stream: u64,
    pub scratch: qlora_span,
    pub parameters: *const qlora_parameter,
    pub parameter_count: u32,
    pub algorithm: i32,
    pub step: u64,
    pub norm: qlora_span,
    pub max_norm: f32,
    pub gradient_scale: f32,
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    pub weight_decay: f32,
    pub reserved: u32,
    pub beta3: f32,
    pub alpha: f32,
    pub max_unorm: f32,
    pub percentile: u32,
    pub seed: u64,
    pub norms: qlora_span,
    pub skipped: qlora_span,
    pub factors: qlora_span,
    pub window: qlora_span,
    pub page_bytes: u64,
}

/// All zero, but for struct_size.
impl Default for qlora_optimizer_args {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_schedule {
    pub struct_size: u32,
    pub flags: u32,
    pub kind: i32,
    pub cycles: u32,
    pub warmup: u64,
    pub steps: u64,
    pub learning_rate: f64,
    pub min_ratio: f64,
}

/// All zero, but for struct_size.
impl Default for qlora_schedule {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct qlora_pager {
    pub struct_size: u32,
    pub flags: u32,
    pub parameters: *mut qlora_parameter,
    pub parameter_count: u32,
    pub algorithm: i32,
    pub min_8bit_size: u32,
    pub resident_count: u32,
    pub budget_bytes: u64,
    pub page_bytes: u64,
    pub state_bytes: u64,
    pub resident_bytes: u64,
    pub window_bytes: u64,
    pub arena_bytes: u64,
    pub resident: qlora_span,
    pub window: qlora_span,
    pub arena: qlora_span,
}

/// All zero, but for struct_size.
impl Default for qlora_pager {
    fn default() -> Self {
        // Numbers, pointers and optional functions: zero is a value of each.
        let mut made: Self = unsafe { std::mem::zeroed() };
        made.struct_size = std::mem::size_of::<Self>() as u32;
        made
    }
}

extern "C" {
    pub fn qlora_version() -> u32;
    pub fn qlora_status_name(status: i32) -> *const c_char;
    pub fn qlora_constant_find(name: *const c_char, value: *mut i64) -> i32;
    pub fn qlora_format_query(format: i32, info: *mut qlora_format_info) -> i32;
    pub fn qlora_format_find(name: *const c_char, format: *mut i32) -> i32;
    pub fn qlora_weight_layout(weight: *const qlora_weight, layout: *mut qlora_weight_layout_info) -> i32;
    pub fn qlora_weight_place(weight: *mut qlora_weight, memory: qlora_span) -> i32;
    pub fn qlora_context_create(args: *const qlora_context_args, context: *mut *mut qlora_context) -> i32;
    pub fn qlora_context_destroy(context: *mut qlora_context);
    pub fn qlora_context_message(context: *const qlora_context) -> *const c_char;
    pub fn qlora_context_synchronize(context: *mut qlora_context) -> i32;
    pub fn qlora_context_query(context: *mut qlora_context, info: *mut qlora_context_info) -> i32;
    pub fn qlora_device_count(backend: i32, count: *mut u32) -> i32;
    pub fn qlora_buffer_create(context: *mut qlora_context, args: *mut qlora_buffer_args) -> i32;
    pub fn qlora_buffer_destroy(context: *mut qlora_context, args: *const qlora_buffer_args) -> i32;
    pub fn qlora_buffer_write(context: *mut qlora_context, args: *const qlora_buffer_args) -> i32;
    pub fn qlora_buffer_read(context: *mut qlora_context, args: *const qlora_buffer_args) -> i32;
    pub fn qlora_buffer_copy(context: *mut qlora_context, args: *const qlora_buffer_args) -> i32;
    pub fn qlora_buffer_join(context: *mut qlora_context, args: *const qlora_buffer_args) -> i32;
    pub fn qlora_buffer_fill(context: *mut qlora_context, args: *const qlora_buffer_args) -> i32;
    pub fn qlora_graph_begin(context: *mut qlora_context, args: *const qlora_graph_args) -> i32;
    pub fn qlora_graph_end(context: *mut qlora_context, args: *mut qlora_graph_args) -> i32;
    pub fn qlora_graph_launch(context: *mut qlora_context, args: *const qlora_graph_args) -> i32;
    pub fn qlora_graph_destroy(context: *mut qlora_context, args: *const qlora_graph_args) -> i32;
    pub fn qlora_operation_scratch(context: *mut qlora_context, operation: u32, args: *const c_void, bytes: *mut u64) -> i32;
    pub fn qlora_operation_supports(context: *mut qlora_context, operation: u32, format: i32, r#type: i32) -> i32;
    pub fn qlora_weight_quantize(context: *mut qlora_context, args: *const qlora_quantize_args) -> i32;
    pub fn qlora_weight_dequantize(context: *mut qlora_context, args: *const qlora_dequantize_args) -> i32;
    pub fn qlora_weight_matmul(context: *mut qlora_context, args: *const qlora_matmul_args) -> i32;
    pub fn qlora_weight_matmul_grad(context: *mut qlora_context, args: *const qlora_matmul_args) -> i32;
    pub fn qlora_hessian_accumulate(context: *mut qlora_context, args: *const qlora_hessian_args) -> i32;
    pub fn qlora_weight_quantize_gptq(context: *mut qlora_context, args: *const qlora_quantize_gptq_args) -> i32;
    pub fn qlora_weight_quantize_spqr(context: *mut qlora_context, args: *const qlora_quantize_spqr_args) -> i32;
    pub fn qlora_gptq_import(context: *mut qlora_context, tensors: *mut qlora_gptq_tensors) -> i32;
    pub fn qlora_gptq_export(context: *mut qlora_context, tensors: *mut qlora_gptq_tensors) -> i32;
    pub fn qlora_spqr_import(context: *mut qlora_context, tensors: *mut qlora_spqr_tensors) -> i32;
    pub fn qlora_int8_matmul(context: *mut qlora_context, args: *const qlora_int8_matmul_args) -> i32;
    pub fn qlora_int8_matmul_grad(context: *mut qlora_context, args: *const qlora_int8_matmul_grad_args) -> i32;
    pub fn qlora_weight_gradient(context: *mut qlora_context, args: *const qlora_weight_gradient_args) -> i32;
    pub fn qlora_linear_forward(context: *mut qlora_context, args: *const qlora_linear_args) -> i32;
    pub fn qlora_linear_grad(context: *mut qlora_context, args: *const qlora_linear_grad_args) -> i32;
    pub fn qlora_embedding_gather(context: *mut qlora_context, args: *const qlora_embedding_args) -> i32;
    pub fn qlora_rms_norm_forward(context: *mut qlora_context, args: *const qlora_rms_norm_args) -> i32;
    pub fn qlora_rms_norm_grad(context: *mut qlora_context, args: *const qlora_rms_norm_grad_args) -> i32;
    pub fn qlora_rope_apply(context: *mut qlora_context, args: *const qlora_rope_args) -> i32;
    pub fn qlora_swiglu_forward(context: *mut qlora_context, args: *const qlora_swiglu_args) -> i32;
    pub fn qlora_swiglu_grad(context: *mut qlora_context, args: *const qlora_swiglu_grad_args) -> i32;
    pub fn qlora_dropout_apply(context: *mut qlora_context, args: *const qlora_dropout_args) -> i32;
    pub fn qlora_attention_forward(context: *mut qlora_context, args: *const qlora_attention_args) -> i32;
    pub fn qlora_attention_grad(context: *mut qlora_context, args: *const qlora_attention_grad_args) -> i32;
    pub fn qlora_cross_entropy_loss(context: *mut qlora_context, args: *const qlora_cross_entropy_args) -> i32;
    pub fn qlora_state_layout(parameter: *const qlora_parameter, layout: *mut qlora_state_layout_info) -> i32;
    pub fn qlora_state_place(parameter: *mut qlora_parameter, layout: *const qlora_state_layout_info, memory: qlora_span) -> i32;
    pub fn qlora_gradient_norm(context: *mut qlora_context, args: *const qlora_gradient_norm_args) -> i32;
    pub fn qlora_optimizer_step(context: *mut qlora_context, args: *const qlora_optimizer_args) -> i32;
    pub fn qlora_schedule_rate(schedule: *const qlora_schedule, step: u64, rate: *mut f64) -> i32;
    pub fn qlora_pager_plan(context: *mut qlora_context, pager: *mut qlora_pager) -> i32;
    pub fn qlora_pager_place(context: *mut qlora_context, pager: *mut qlora_pager) -> i32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_c() {
        let machine = if cfg!(target_pointer_width = "64") { 0 } else if cfg!(target_arch = "x86") && !cfg!(windows) { 2 } else { 1 };
        assert_eq!(std::mem::size_of::<qlora_format_info>(), [40, 36, 36][machine]);
        let made = qlora_format_info::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.format as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.bits as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.block as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.block_min as *const _ as usize - base, [20, 20, 20][machine]);
        assert_eq!(&made.block_max as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.block_bytes as *const _ as usize - base, [28, 28, 28][machine]);
        assert_eq!(&made.name as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(std::mem::size_of::<qlora_span>(), [24, 24, 24][machine]);
        let made = qlora_span::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.handle as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.offset as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.size as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(std::mem::size_of::<qlora_tensor>(), [56, 56, 56][machine]);
        let made = qlora_tensor::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.r#type as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.rows as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.cols as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.stride as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.data as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(std::mem::size_of::<qlora_weight>(), [248, 248, 248][machine]);
        let made = qlora_weight::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.format as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.block as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.nested_block as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [20, 20, 20][machine]);
        assert_eq!(&made.rows as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.cols as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(&made.planes as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.outliers as *const _ as usize - base, [232, 232, 232][machine]);
        assert_eq!(&made.tensor_scale as *const _ as usize - base, [240, 240, 240][machine]);
        assert_eq!(&made.reserved2 as *const _ as usize - base, [244, 244, 244][machine]);
        assert_eq!(std::mem::size_of::<qlora_weight_layout_info>(), [144, 144, 144][machine]);
        let made = qlora_weight_layout_info::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.total_bytes as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.plane_bytes as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.plane_offset as *const _ as usize - base, [80, 80, 80][machine]);
        assert_eq!(std::mem::size_of::<qlora_context_args>(), [168, 128, 124][machine]);
        let made = qlora_context_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.backend as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.device as *const _ as usize - base, [20, 20, 20][machine]);
        assert_eq!(&made.isa as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.threads as *const _ as usize - base, [28, 28, 28][machine]);
        assert_eq!(&made.allocate as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(&made.release as *const _ as usize - base, [40, 36, 36][machine]);
        assert_eq!(&made.allocator_user as *const _ as usize - base, [48, 40, 40][machine]);
        assert_eq!(&made.log as *const _ as usize - base, [56, 44, 44][machine]);
        assert_eq!(&made.log_user as *const _ as usize - base, [64, 48, 48][machine]);
        assert_eq!(&made.parallel_for as *const _ as usize - base, [72, 52, 52][machine]);
        assert_eq!(&made.parallel_user as *const _ as usize - base, [80, 56, 56][machine]);
        assert_eq!(&made.inject_failure as *const _ as usize - base, [88, 60, 60][machine]);
        assert_eq!(&made.inject_user as *const _ as usize - base, [96, 64, 64][machine]);
        assert_eq!(&made.vulkan_get_instance_proc_addr as *const _ as usize - base, [104, 72, 68][machine]);
        assert_eq!(&made.vulkan_instance as *const _ as usize - base, [112, 80, 76][machine]);
        assert_eq!(&made.vulkan_physical_device as *const _ as usize - base, [120, 88, 84][machine]);
        assert_eq!(&made.vulkan_device as *const _ as usize - base, [128, 96, 92][machine]);
        assert_eq!(&made.vulkan_queue as *const _ as usize - base, [136, 104, 100][machine]);
        assert_eq!(&made.vulkan_queue_family as *const _ as usize - base, [144, 112, 108][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [148, 116, 112][machine]);
        assert_eq!(&made.message as *const _ as usize - base, [152, 120, 116][machine]);
        assert_eq!(&made.message_bytes as *const _ as usize - base, [160, 124, 120][machine]);
        assert_eq!(std::mem::size_of::<qlora_context_info>(), [296, 296, 296][machine]);
        let made = qlora_context_info::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.backend as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.device as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.isa as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.threads as *const _ as usize - base, [20, 20, 20][machine]);
        assert_eq!(&made.memory_bytes as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.memory_free_bytes as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(&made.name as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.driver as *const _ as usize - base, [168, 168, 168][machine]);
        assert_eq!(std::mem::size_of::<qlora_buffer_args>(), [88, 88, 84][machine]);
        let made = qlora_buffer_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.dst as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.src as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.host as *const _ as usize - base, [64, 64, 64][machine]);
        assert_eq!(&made.bytes as *const _ as usize - base, [72, 72, 68][machine]);
        assert_eq!(&made.pattern as *const _ as usize - base, [80, 80, 76][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [84, 84, 80][machine]);
        assert_eq!(std::mem::size_of::<qlora_graph_args>(), [40, 40, 40][machine]);
        let made = qlora_graph_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.graph as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.nodes as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.device_bytes as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(std::mem::size_of::<qlora_quantize_args>(), [168, 168, 164][machine]);
        let made = qlora_quantize_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.src as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.importance as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.seed as *const _ as usize - base, [128, 128, 124][machine]);
        assert_eq!(&made.power as *const _ as usize - base, [136, 136, 132][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [140, 140, 136][machine]);
        assert_eq!(&made.not_finite as *const _ as usize - base, [144, 144, 140][machine]);
        assert_eq!(std::mem::size_of::<qlora_dequantize_args>(), [104, 104, 100][machine]);
        let made = qlora_dequantize_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.dst as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(std::mem::size_of::<qlora_matmul_args>(), [168, 168, 164][machine]);
        let made = qlora_matmul_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.compute_type as *const _ as usize - base, [160, 160, 156][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [164, 164, 160][machine]);
        assert_eq!(std::mem::size_of::<qlora_hessian_args>(), [136, 136, 136][machine]);
        let made = qlora_hessian_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.hessian as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.count as *const _ as usize - base, [120, 120, 120][machine]);
        assert_eq!(&made.batch as *const _ as usize - base, [128, 128, 128][machine]);
        assert_eq!(std::mem::size_of::<qlora_gptq_outcome>(), [40, 40, 40][machine]);
        let made = qlora_gptq_outcome::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.method as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.dead_columns as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.attempts as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.damping as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.floor as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.loss as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(std::mem::size_of::<qlora_quantize_gptq_args>(), [160, 160, 156][machine]);
        let made = qlora_quantize_gptq_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.src as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.hessian as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.outcome as *const _ as usize - base, [128, 128, 124][machine]);
        assert_eq!(&made.damping as *const _ as usize - base, [152, 152, 148][machine]);
        assert_eq!(&made.lag as *const _ as usize - base, [156, 156, 152][machine]);
        assert_eq!(std::mem::size_of::<qlora_spqr_outcome>(), [56, 56, 56][machine]);
        let made = qlora_spqr_outcome::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.method as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.dead_columns as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.attempts as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.damping as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.floor as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.loss as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(&made.limit as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.outliers as *const _ as usize - base, [48, 48, 48][machine]);
        assert_eq!(std::mem::size_of::<qlora_quantize_spqr_args>(), [160, 160, 156][machine]);
        let made = qlora_quantize_spqr_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.src as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.hessian as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.outcome as *const _ as usize - base, [128, 128, 124][machine]);
        assert_eq!(&made.damping as *const _ as usize - base, [152, 152, 148][machine]);
        assert_eq!(&made.threshold as *const _ as usize - base, [156, 156, 152][machine]);
        assert_eq!(std::mem::size_of::<qlora_gptq_tensors>(), [128, 128, 124][machine]);
        let made = qlora_gptq_tensors::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.qweight as *const _ as usize - base, [16, 16, 12][machine]);
        assert_eq!(&made.qzeros as *const _ as usize - base, [40, 40, 36][machine]);
        assert_eq!(&made.scales as *const _ as usize - base, [64, 64, 60][machine]);
        assert_eq!(&made.g_idx as *const _ as usize - base, [88, 88, 84][machine]);
        assert_eq!(&made.ambiguous_zeros as *const _ as usize - base, [112, 112, 108][machine]);
        assert_eq!(&made.version as *const _ as usize - base, [120, 120, 116][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [124, 124, 120][machine]);
        assert_eq!(std::mem::size_of::<qlora_spqr_tensors>(), [128, 128, 124][machine]);
        let made = qlora_spqr_tensors::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.dense as *const _ as usize - base, [16, 16, 12][machine]);
        assert_eq!(&made.row_offsets as *const _ as usize - base, [40, 40, 36][machine]);
        assert_eq!(&made.col_vals as *const _ as usize - base, [64, 64, 60][machine]);
        assert_eq!(&made.in_perm as *const _ as usize - base, [88, 88, 84][machine]);
        assert_eq!(&made.entry_count as *const _ as usize - base, [112, 112, 108][machine]);
        assert_eq!(&made.outliers as *const _ as usize - base, [120, 120, 116][machine]);
        assert_eq!(std::mem::size_of::<qlora_int8_matmul_args>(), [192, 192, 188][machine]);
        let made = qlora_int8_matmul_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.bias as *const _ as usize - base, [160, 160, 156][machine]);
        assert_eq!(&made.threshold as *const _ as usize - base, [184, 184, 180][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [188, 188, 184][machine]);
        assert_eq!(std::mem::size_of::<qlora_int8_matmul_grad_args>(), [160, 160, 156][machine]);
        let made = qlora_int8_matmul_grad_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.dy as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.dx as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(std::mem::size_of::<qlora_weight_gradient_args>(), [248, 248, 244][machine]);
        let made = qlora_weight_gradient_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.saved as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.dy as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.dw as *const _ as usize - base, [160, 160, 156][machine]);
        assert_eq!(&made.dbias as *const _ as usize - base, [216, 216, 212][machine]);
        assert_eq!(&made.compute_type as *const _ as usize - base, [240, 240, 236][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [244, 244, 240][machine]);
        assert_eq!(std::mem::size_of::<qlora_linear_args>(), [328, 328, 324][machine]);
        let made = qlora_linear_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.a as *const _ as usize - base, [160, 160, 156][machine]);
        assert_eq!(&made.b as *const _ as usize - base, [216, 216, 212][machine]);
        assert_eq!(&made.bias as *const _ as usize - base, [272, 272, 268][machine]);
        assert_eq!(&made.xa as *const _ as usize - base, [296, 296, 292][machine]);
        assert_eq!(&made.scale as *const _ as usize - base, [320, 320, 316][machine]);
        assert_eq!(&made.compute_type as *const _ as usize - base, [324, 324, 320][machine]);
        assert_eq!(std::mem::size_of::<qlora_linear_grad_args>(), [496, 496, 492][machine]);
        let made = qlora_linear_grad_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.dy as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.dx as *const _ as usize - base, [160, 160, 156][machine]);
        assert_eq!(&made.a as *const _ as usize - base, [216, 216, 212][machine]);
        assert_eq!(&made.b as *const _ as usize - base, [272, 272, 268][machine]);
        assert_eq!(&made.da as *const _ as usize - base, [328, 328, 324][machine]);
        assert_eq!(&made.db as *const _ as usize - base, [384, 384, 380][machine]);
        assert_eq!(&made.xa as *const _ as usize - base, [440, 440, 436][machine]);
        assert_eq!(&made.dbias as *const _ as usize - base, [464, 464, 460][machine]);
        assert_eq!(&made.scale as *const _ as usize - base, [488, 488, 484][machine]);
        assert_eq!(&made.compute_type as *const _ as usize - base, [492, 492, 488][machine]);
        assert_eq!(std::mem::size_of::<qlora_embedding_args>(), [136, 136, 132][machine]);
        let made = qlora_embedding_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.ids as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [72, 72, 68][machine]);
        assert_eq!(&made.scale as *const _ as usize - base, [128, 128, 124][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [132, 132, 128][machine]);
        assert_eq!(std::mem::size_of::<qlora_rms_norm_args>(), [296, 296, 296][machine]);
        let made = qlora_rms_norm_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.rstd as *const _ as usize - base, [208, 208, 208][machine]);
        assert_eq!(&made.epsilon as *const _ as usize - base, [232, 232, 232][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [236, 236, 236][machine]);
        assert_eq!(&made.bias as *const _ as usize - base, [240, 240, 240][machine]);
        assert_eq!(std::mem::size_of::<qlora_rms_norm_grad_args>(), [336, 336, 336][machine]);
        let made = qlora_rms_norm_grad_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.dy as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.dx as *const _ as usize - base, [208, 208, 208][machine]);
        assert_eq!(&made.rstd as *const _ as usize - base, [264, 264, 264][machine]);
        assert_eq!(&made.dweight as *const _ as usize - base, [288, 288, 288][machine]);
        assert_eq!(&made.dbias as *const _ as usize - base, [312, 312, 312][machine]);
        assert_eq!(std::mem::size_of::<qlora_rope_args>(), [168, 168, 168][machine]);
        let made = qlora_rope_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.positions as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.freq_factors as *const _ as usize - base, [120, 120, 120][machine]);
        assert_eq!(&made.head_dim as *const _ as usize - base, [144, 144, 144][machine]);
        assert_eq!(&made.rotary_dim as *const _ as usize - base, [148, 148, 148][machine]);
        assert_eq!(&made.layout as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.freq_base as *const _ as usize - base, [156, 156, 156][machine]);
        assert_eq!(&made.freq_scale as *const _ as usize - base, [160, 160, 160][machine]);
        assert_eq!(&made.magnitude as *const _ as usize - base, [164, 164, 164][machine]);
        assert_eq!(std::mem::size_of::<qlora_swiglu_args>(), [216, 216, 216][machine]);
        let made = qlora_swiglu_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.gate as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.up as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.activation as *const _ as usize - base, [208, 208, 208][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [212, 212, 212][machine]);
        assert_eq!(std::mem::size_of::<qlora_swiglu_grad_args>(), [328, 328, 328][machine]);
        let made = qlora_swiglu_grad_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.gate as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.up as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.dy as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.dgate as *const _ as usize - base, [208, 208, 208][machine]);
        assert_eq!(&made.dup as *const _ as usize - base, [264, 264, 264][machine]);
        assert_eq!(&made.activation as *const _ as usize - base, [320, 320, 320][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [324, 324, 324][machine]);
        assert_eq!(std::mem::size_of::<qlora_dropout_args>(), [168, 168, 168][machine]);
        let made = qlora_dropout_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.seed as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.probability as *const _ as usize - base, [160, 160, 160][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [164, 164, 164][machine]);
        assert_eq!(std::mem::size_of::<qlora_attention_args>(), [376, 376, 376][machine]);
        let made = qlora_attention_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.q as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.k as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.v as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [208, 208, 208][machine]);
        assert_eq!(&made.lse as *const _ as usize - base, [264, 264, 264][machine]);
        assert_eq!(&made.sequences as *const _ as usize - base, [288, 288, 288][machine]);
        assert_eq!(&made.sequence_count as *const _ as usize - base, [312, 312, 312][machine]);
        assert_eq!(&made.heads as *const _ as usize - base, [316, 316, 316][machine]);
        assert_eq!(&made.kv_heads as *const _ as usize - base, [320, 320, 320][machine]);
        assert_eq!(&made.head_dim as *const _ as usize - base, [324, 324, 324][machine]);
        assert_eq!(&made.max_q_rows as *const _ as usize - base, [328, 328, 328][machine]);
        assert_eq!(&made.max_k_rows as *const _ as usize - base, [332, 332, 332][machine]);
        assert_eq!(&made.scale as *const _ as usize - base, [336, 336, 336][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [340, 340, 340][machine]);
        assert_eq!(&made.slopes as *const _ as usize - base, [344, 344, 344][machine]);
        assert_eq!(&made.soft_cap as *const _ as usize - base, [368, 368, 368][machine]);
        assert_eq!(&made.window as *const _ as usize - base, [372, 372, 372][machine]);
        assert_eq!(std::mem::size_of::<qlora_attention_grad_args>(), [600, 600, 600][machine]);
        let made = qlora_attention_grad_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.q as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.k as *const _ as usize - base, [96, 96, 96][machine]);
        assert_eq!(&made.v as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.y as *const _ as usize - base, [208, 208, 208][machine]);
        assert_eq!(&made.dy as *const _ as usize - base, [264, 264, 264][machine]);
        assert_eq!(&made.dq as *const _ as usize - base, [320, 320, 320][machine]);
        assert_eq!(&made.dk as *const _ as usize - base, [376, 376, 376][machine]);
        assert_eq!(&made.dv as *const _ as usize - base, [432, 432, 432][machine]);
        assert_eq!(&made.lse as *const _ as usize - base, [488, 488, 488][machine]);
        assert_eq!(&made.sequences as *const _ as usize - base, [512, 512, 512][machine]);
        assert_eq!(&made.sequence_count as *const _ as usize - base, [536, 536, 536][machine]);
        assert_eq!(&made.heads as *const _ as usize - base, [540, 540, 540][machine]);
        assert_eq!(&made.kv_heads as *const _ as usize - base, [544, 544, 544][machine]);
        assert_eq!(&made.head_dim as *const _ as usize - base, [548, 548, 548][machine]);
        assert_eq!(&made.max_q_rows as *const _ as usize - base, [552, 552, 552][machine]);
        assert_eq!(&made.max_k_rows as *const _ as usize - base, [556, 556, 556][machine]);
        assert_eq!(&made.scale as *const _ as usize - base, [560, 560, 560][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [564, 564, 564][machine]);
        assert_eq!(&made.slopes as *const _ as usize - base, [568, 568, 568][machine]);
        assert_eq!(&made.soft_cap as *const _ as usize - base, [592, 592, 592][machine]);
        assert_eq!(&made.window as *const _ as usize - base, [596, 596, 596][machine]);
        assert_eq!(std::mem::size_of::<qlora_cross_entropy_args>(), [256, 256, 252][machine]);
        let made = qlora_cross_entropy_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.weight as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.x as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.dx as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.targets as *const _ as usize - base, [160, 160, 156][machine]);
        assert_eq!(&made.losses as *const _ as usize - base, [184, 184, 180][machine]);
        assert_eq!(&made.grad_scale as *const _ as usize - base, [208, 208, 204][machine]);
        assert_eq!(&made.chunk_rows as *const _ as usize - base, [212, 212, 208][machine]);
        assert_eq!(&made.compute_type as *const _ as usize - base, [216, 216, 212][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [220, 220, 216][machine]);
        assert_eq!(&made.bias as *const _ as usize - base, [224, 224, 220][machine]);
        assert_eq!(&made.soft_cap as *const _ as usize - base, [248, 248, 244][machine]);
        assert_eq!(&made.reserved2 as *const _ as usize - base, [252, 252, 248][machine]);
        assert_eq!(std::mem::size_of::<qlora_parameter>(), [248, 248, 248][machine]);
        let made = qlora_parameter::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.count as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.value as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.gradient as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.state1 as *const _ as usize - base, [64, 64, 64][machine]);
        assert_eq!(&made.state2 as *const _ as usize - base, [88, 88, 88][machine]);
        assert_eq!(&made.value_type as *const _ as usize - base, [112, 112, 112][machine]);
        assert_eq!(&made.gradient_type as *const _ as usize - base, [116, 116, 116][machine]);
        assert_eq!(&made.state_type as *const _ as usize - base, [120, 120, 120][machine]);
        assert_eq!(&made.learning_rate_scale as *const _ as usize - base, [124, 124, 124][machine]);
        assert_eq!(&made.state3 as *const _ as usize - base, [128, 128, 128][machine]);
        assert_eq!(&made.absmax1 as *const _ as usize - base, [152, 152, 152][machine]);
        assert_eq!(&made.absmax2 as *const _ as usize - base, [176, 176, 176][machine]);
        assert_eq!(&made.absmax3 as *const _ as usize - base, [200, 200, 200][machine]);
        assert_eq!(&made.history as *const _ as usize - base, [224, 224, 224][machine]);
        assert_eq!(std::mem::size_of::<qlora_state_layout_info>(), [128, 128, 128][machine]);
        let made = qlora_state_layout_info::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.algorithm as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.min_8bit_size as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.state_type as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [20, 20, 20][machine]);
        assert_eq!(&made.total_bytes as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.piece_bytes as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(&made.piece_offset as *const _ as usize - base, [80, 80, 80][machine]);
        assert_eq!(std::mem::size_of::<qlora_gradient_norm_args>(), [112, 112, 108][machine]);
        let made = qlora_gradient_norm_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.parameters as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.parameter_count as *const _ as usize - base, [48, 44, 44][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [52, 48, 48][machine]);
        assert_eq!(&made.norm as *const _ as usize - base, [56, 56, 52][machine]);
        assert_eq!(&made.norms as *const _ as usize - base, [80, 80, 76][machine]);
        assert_eq!(&made.gradient_scale as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.reserved2 as *const _ as usize - base, [108, 108, 104][machine]);
        assert_eq!(std::mem::size_of::<qlora_optimizer_args>(), [248, 248, 244][machine]);
        let made = qlora_optimizer_args::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.stream as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.scratch as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.parameters as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(&made.parameter_count as *const _ as usize - base, [48, 44, 44][machine]);
        assert_eq!(&made.algorithm as *const _ as usize - base, [52, 48, 48][machine]);
        assert_eq!(&made.step as *const _ as usize - base, [56, 56, 52][machine]);
        assert_eq!(&made.norm as *const _ as usize - base, [64, 64, 60][machine]);
        assert_eq!(&made.max_norm as *const _ as usize - base, [88, 88, 84][machine]);
        assert_eq!(&made.gradient_scale as *const _ as usize - base, [92, 92, 88][machine]);
        assert_eq!(&made.learning_rate as *const _ as usize - base, [96, 96, 92][machine]);
        assert_eq!(&made.beta1 as *const _ as usize - base, [100, 100, 96][machine]);
        assert_eq!(&made.beta2 as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.epsilon as *const _ as usize - base, [108, 108, 104][machine]);
        assert_eq!(&made.weight_decay as *const _ as usize - base, [112, 112, 108][machine]);
        assert_eq!(&made.reserved as *const _ as usize - base, [116, 116, 112][machine]);
        assert_eq!(&made.beta3 as *const _ as usize - base, [120, 120, 116][machine]);
        assert_eq!(&made.alpha as *const _ as usize - base, [124, 124, 120][machine]);
        assert_eq!(&made.max_unorm as *const _ as usize - base, [128, 128, 124][machine]);
        assert_eq!(&made.percentile as *const _ as usize - base, [132, 132, 128][machine]);
        assert_eq!(&made.seed as *const _ as usize - base, [136, 136, 132][machine]);
        assert_eq!(&made.norms as *const _ as usize - base, [144, 144, 140][machine]);
        assert_eq!(&made.skipped as *const _ as usize - base, [168, 168, 164][machine]);
        assert_eq!(&made.factors as *const _ as usize - base, [192, 192, 188][machine]);
        assert_eq!(&made.window as *const _ as usize - base, [216, 216, 212][machine]);
        assert_eq!(&made.page_bytes as *const _ as usize - base, [240, 240, 236][machine]);
        assert_eq!(std::mem::size_of::<qlora_schedule>(), [48, 48, 48][machine]);
        let made = qlora_schedule::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.kind as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.cycles as *const _ as usize - base, [12, 12, 12][machine]);
        assert_eq!(&made.warmup as *const _ as usize - base, [16, 16, 16][machine]);
        assert_eq!(&made.steps as *const _ as usize - base, [24, 24, 24][machine]);
        assert_eq!(&made.learning_rate as *const _ as usize - base, [32, 32, 32][machine]);
        assert_eq!(&made.min_ratio as *const _ as usize - base, [40, 40, 40][machine]);
        assert_eq!(std::mem::size_of::<qlora_pager>(), [152, 152, 148][machine]);
        let made = qlora_pager::default();
        let base = &made as *const _ as usize;
        assert_eq!(&made.struct_size as *const _ as usize - base, [0, 0, 0][machine]);
        assert_eq!(&made.flags as *const _ as usize - base, [4, 4, 4][machine]);
        assert_eq!(&made.parameters as *const _ as usize - base, [8, 8, 8][machine]);
        assert_eq!(&made.parameter_count as *const _ as usize - base, [16, 12, 12][machine]);
        assert_eq!(&made.algorithm as *const _ as usize - base, [20, 16, 16][machine]);
        assert_eq!(&made.min_8bit_size as *const _ as usize - base, [24, 20, 20][machine]);
        assert_eq!(&made.resident_count as *const _ as usize - base, [28, 24, 24][machine]);
        assert_eq!(&made.budget_bytes as *const _ as usize - base, [32, 32, 28][machine]);
        assert_eq!(&made.page_bytes as *const _ as usize - base, [40, 40, 36][machine]);
        assert_eq!(&made.state_bytes as *const _ as usize - base, [48, 48, 44][machine]);
        assert_eq!(&made.resident_bytes as *const _ as usize - base, [56, 56, 52][machine]);
        assert_eq!(&made.window_bytes as *const _ as usize - base, [64, 64, 60][machine]);
        assert_eq!(&made.arena_bytes as *const _ as usize - base, [72, 72, 68][machine]);
        assert_eq!(&made.resident as *const _ as usize - base, [80, 80, 76][machine]);
        assert_eq!(&made.window as *const _ as usize - base, [104, 104, 100][machine]);
        assert_eq!(&made.arena as *const _ as usize - base, [128, 128, 124][machine]);
    }
}
