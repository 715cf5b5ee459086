// Made from qlora.h by examples/bindings/generate.py; do not edit. qlora.h is the manual.
using System;
using System.Runtime.InteropServices;

namespace Qlora.Native
{
    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_format_info
    {
        public uint struct_size;
        public uint flags;
        public int format;
        public uint bits;
        public uint block;
        public uint block_min;
        public uint block_max;
        public uint block_bytes;
        public byte* name;
        /// All zero, but for struct_size.
        public static qlora_format_info Create() { return new qlora_format_info { struct_size = (uint)sizeof(qlora_format_info) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_span
    {
        public ulong handle;
        public ulong offset;
        public ulong size;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_tensor
    {
        public int type;
        public uint reserved;
        public ulong rows;
        public ulong cols;
        public ulong stride;
        public qlora_span data;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_weight
    {
        public uint struct_size;
        public uint flags;
        public int format;
        public uint block;
        public uint nested_block;
        public uint reserved;
        public ulong rows;
        public ulong cols;
        public qlora_span planes0, planes1, planes2, planes3, planes4, planes5, planes6, planes7;
        public ulong outliers;
        public float tensor_scale;
        public uint reserved2;
        /// All zero, but for struct_size.
        public static qlora_weight Create() { return new qlora_weight { struct_size = (uint)sizeof(qlora_weight) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_weight_layout_info
    {
        public uint struct_size;
        public uint flags;
        public ulong total_bytes;
        public fixed ulong plane_bytes[8];
        public fixed ulong plane_offset[8];
        /// All zero, but for struct_size.
        public static qlora_weight_layout_info Create() { return new qlora_weight_layout_info { struct_size = (uint)sizeof(qlora_weight_layout_info) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_context_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public int backend;
        public int device;
        public int isa;
        public uint threads;
        public IntPtr allocate;
        public IntPtr release;
        public IntPtr allocator_user;
        public IntPtr log;
        public IntPtr log_user;
        public IntPtr parallel_for;
        public IntPtr parallel_user;
        public IntPtr inject_failure;
        public IntPtr inject_user;
        public ulong vulkan_get_instance_proc_addr;
        public ulong vulkan_instance;
        public ulong vulkan_physical_device;
        public ulong vulkan_device;
        public ulong vulkan_queue;
        public uint vulkan_queue_family;
        public uint reserved;
        public byte* message;
        public UIntPtr message_bytes;
        /// All zero, but for struct_size.
        public static qlora_context_args Create() { return new qlora_context_args { struct_size = (uint)sizeof(qlora_context_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_context_info
    {
        public uint struct_size;
        public uint flags;
        public int backend;
        public int device;
        public int isa;
        public uint threads;
        public ulong memory_bytes;
        public ulong memory_free_bytes;
        public fixed byte name[128];
        public fixed byte driver[128];
        /// All zero, but for struct_size.
        public static qlora_context_info Create() { return new qlora_context_info { struct_size = (uint)sizeof(qlora_context_info) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_buffer_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span dst;
        public qlora_span src;
        public IntPtr host;
        public ulong bytes;
        public uint pattern;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_buffer_args Create() { return new qlora_buffer_args { struct_size = (uint)sizeof(qlora_buffer_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_graph_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public ulong graph;
        public ulong nodes;
        public ulong device_bytes;
        /// All zero, but for struct_size.
        public static qlora_graph_args Create() { return new qlora_graph_args { struct_size = (uint)sizeof(qlora_graph_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_quantize_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor src;
        public qlora_span importance;
        public ulong seed;
        public int power;
        public uint reserved;
        public qlora_span not_finite;
        /// All zero, but for struct_size.
        public static qlora_quantize_args Create() { return new qlora_quantize_args { struct_size = (uint)sizeof(qlora_quantize_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_dequantize_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor dst;
        /// All zero, but for struct_size.
        public static qlora_dequantize_args Create() { return new qlora_dequantize_args { struct_size = (uint)sizeof(qlora_dequantize_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_matmul_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor x;
        public qlora_tensor y;
        public int compute_type;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_matmul_args Create() { return new qlora_matmul_args { struct_size = (uint)sizeof(qlora_matmul_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_hessian_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor x;
        public qlora_span hessian;
        public ulong count;
        public ulong batch;
        /// All zero, but for struct_size.
        public static qlora_hessian_args Create() { return new qlora_hessian_args { struct_size = (uint)sizeof(qlora_hessian_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_gptq_outcome
    {
        public uint struct_size;
        public uint method;
        public uint dead_columns;
        public uint attempts;
        public double damping;
        public double floor;
        public double loss;
        /// All zero, but for struct_size.
        public static qlora_gptq_outcome Create() { return new qlora_gptq_outcome { struct_size = (uint)sizeof(qlora_gptq_outcome) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_quantize_gptq_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor src;
        public qlora_span hessian;
        public qlora_span outcome;
        public float damping;
        public uint lag;
        /// All zero, but for struct_size.
        public static qlora_quantize_gptq_args Create() { return new qlora_quantize_gptq_args { struct_size = (uint)sizeof(qlora_quantize_gptq_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_spqr_outcome
    {
        public uint struct_size;
        public uint method;
        public uint dead_columns;
        public uint attempts;
        public double damping;
        public double floor;
        public double loss;
        public double limit;
        public ulong outliers;
        /// All zero, but for struct_size.
        public static qlora_spqr_outcome Create() { return new qlora_spqr_outcome { struct_size = (uint)sizeof(qlora_spqr_outcome) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_quantize_spqr_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor src;
        public qlora_span hessian;
        public qlora_span outcome;
        public float damping;
        public float threshold;
        /// All zero, but for struct_size.
        public static qlora_quantize_spqr_args Create() { return new qlora_quantize_spqr_args { struct_size = (uint)sizeof(qlora_quantize_spqr_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_gptq_tensors
    {
        public uint struct_size;
        public uint flags;
        public qlora_weight* weight;
        public qlora_span qweight;
        public qlora_span qzeros;
        public qlora_span scales;
        public qlora_span g_idx;
        public ulong ambiguous_zeros;
        public uint version;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_gptq_tensors Create() { return new qlora_gptq_tensors { struct_size = (uint)sizeof(qlora_gptq_tensors) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_spqr_tensors
    {
        public uint struct_size;
        public uint flags;
        public qlora_weight* weight;
        public qlora_span dense;
        public qlora_span row_offsets;
        public qlora_span col_vals;
        public qlora_span in_perm;
        public ulong entry_count;
        public ulong outliers;
        /// All zero, but for struct_size.
        public static qlora_spqr_tensors Create() { return new qlora_spqr_tensors { struct_size = (uint)sizeof(qlora_spqr_tensors) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_int8_matmul_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor x;
        public qlora_tensor y;
        public qlora_span bias;
        public float threshold;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_int8_matmul_args Create() { return new qlora_int8_matmul_args { struct_size = (uint)sizeof(qlora_int8_matmul_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_int8_matmul_grad_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor dy;
        public qlora_tensor dx;
        /// All zero, but for struct_size.
        public static qlora_int8_matmul_grad_args Create() { return new qlora_int8_matmul_grad_args { struct_size = (uint)sizeof(qlora_int8_matmul_grad_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_weight_gradient_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* saved;
        public qlora_tensor x;
        public qlora_tensor dy;
        public qlora_tensor dw;
        public qlora_span dbias;
        public int compute_type;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_weight_gradient_args Create() { return new qlora_weight_gradient_args { struct_size = (uint)sizeof(qlora_weight_gradient_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_linear_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor x;
        public qlora_tensor y;
        public qlora_tensor a;
        public qlora_tensor b;
        public qlora_span bias;
        public qlora_span xa;
        public float scale;
        public int compute_type;
        /// All zero, but for struct_size.
        public static qlora_linear_args Create() { return new qlora_linear_args { struct_size = (uint)sizeof(qlora_linear_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_linear_grad_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor x;
        public qlora_tensor dy;
        public qlora_tensor dx;
        public qlora_tensor a;
        public qlora_tensor b;
        public qlora_tensor da;
        public qlora_tensor db;
        public qlora_span xa;
        public qlora_span dbias;
        public float scale;
        public int compute_type;
        /// All zero, but for struct_size.
        public static qlora_linear_grad_args Create() { return new qlora_linear_grad_args { struct_size = (uint)sizeof(qlora_linear_grad_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_embedding_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_span ids;
        public qlora_tensor y;
        public float scale;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_embedding_args Create() { return new qlora_embedding_args { struct_size = (uint)sizeof(qlora_embedding_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_rms_norm_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor x;
        public qlora_tensor weight;
        public qlora_tensor y;
        public qlora_span rstd;
        public float epsilon;
        public uint reserved;
        public qlora_tensor bias;
        /// All zero, but for struct_size.
        public static qlora_rms_norm_args Create() { return new qlora_rms_norm_args { struct_size = (uint)sizeof(qlora_rms_norm_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_rms_norm_grad_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor x;
        public qlora_tensor weight;
        public qlora_tensor dy;
        public qlora_tensor dx;
        public qlora_span rstd;
        public qlora_span dweight;
        public qlora_span dbias;
        /// All zero, but for struct_size.
        public static qlora_rms_norm_grad_args Create() { return new qlora_rms_norm_grad_args { struct_size = (uint)sizeof(qlora_rms_norm_grad_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_rope_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor x;
        public qlora_span positions;
        public qlora_span freq_factors;
        public uint head_dim;
        public uint rotary_dim;
        public int layout;
        public float freq_base;
        public float freq_scale;
        public float magnitude;
        /// All zero, but for struct_size.
        public static qlora_rope_args Create() { return new qlora_rope_args { struct_size = (uint)sizeof(qlora_rope_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_swiglu_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor gate;
        public qlora_tensor up;
        public qlora_tensor y;
        public int activation;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_swiglu_args Create() { return new qlora_swiglu_args { struct_size = (uint)sizeof(qlora_swiglu_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_swiglu_grad_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor gate;
        public qlora_tensor up;
        public qlora_tensor dy;
        public qlora_tensor dgate;
        public qlora_tensor dup;
        public int activation;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_swiglu_grad_args Create() { return new qlora_swiglu_grad_args { struct_size = (uint)sizeof(qlora_swiglu_grad_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_dropout_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor x;
        public qlora_tensor y;
        public ulong seed;
        public float probability;
        public uint reserved;
        /// All zero, but for struct_size.
        public static qlora_dropout_args Create() { return new qlora_dropout_args { struct_size = (uint)sizeof(qlora_dropout_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_attention_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor q;
        public qlora_tensor k;
        public qlora_tensor v;
        public qlora_tensor y;
        public qlora_span lse;
        public qlora_span sequences;
        public uint sequence_count;
        public uint heads;
        public uint kv_heads;
        public uint head_dim;
        public uint max_q_rows;
        public uint max_k_rows;
        public float scale;
        public uint reserved;
        public qlora_span slopes;
        public float soft_cap;
        public uint window;
        /// All zero, but for struct_size.
        public static qlora_attention_args Create() { return new qlora_attention_args { struct_size = (uint)sizeof(qlora_attention_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_attention_grad_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_tensor q;
        public qlora_tensor k;
        public qlora_tensor v;
        public qlora_tensor y;
        public qlora_tensor dy;
        public qlora_tensor dq;
        public qlora_tensor dk;
        public qlora_tensor dv;
        public qlora_span lse;
        public qlora_span sequences;
        public uint sequence_count;
        public uint heads;
        public uint kv_heads;
        public uint head_dim;
        public uint max_q_rows;
        public uint max_k_rows;
        public float scale;
        public uint reserved;
        public qlora_span slopes;
        public float soft_cap;
        public uint window;
        /// All zero, but for struct_size.
        public static qlora_attention_grad_args Create() { return new qlora_attention_grad_args { struct_size = (uint)sizeof(qlora_attention_grad_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_cross_entropy_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_weight* weight;
        public qlora_tensor x;
        public qlora_tensor dx;
        public qlora_span targets;
        public qlora_span losses;
        public float grad_scale;
        public uint chunk_rows;
        public int compute_type;
        public uint reserved;
        public qlora_span bias;
        public float soft_cap;
        public uint reserved2;
        /// All zero, but for struct_size.
        public static qlora_cross_entropy_args Create() { return new qlora_cross_entropy_args { struct_size = (uint)sizeof(qlora_cross_entropy_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_parameter
    {
        public uint struct_size;
        public uint flags;
        public ulong count;
        public qlora_span value;
        public qlora_span gradient;
        public qlora_span state1;
        public qlora_span state2;
        public int value_type;
        public int gradient_type;
        public int state_type;
        public float learning_rate_scale;
        public qlora_span state3;
        public qlora_span absmax1;
        public qlora_span absmax2;
        public qlora_span absmax3;
        public qlora_span history;
        /// All zero, but for struct_size.
        public static qlora_parameter Create() { return new qlora_parameter { struct_size = (uint)sizeof(qlora_parameter) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_state_layout_info
    {
        public uint struct_size;
        public uint flags;
        public int algorithm;
        public uint min_8bit_size;
        public int state_type;
        public uint reserved;
        public ulong total_bytes;
        public fixed ulong piece_bytes[6];
        public fixed ulong piece_offset[6];
        /// All zero, but for struct_size.
        public static qlora_state_layout_info Create() { return new qlora_state_layout_info { struct_size = (uint)sizeof(qlora_state_layout_info) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_gradient_norm_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_parameter* parameters;
        public uint parameter_count;
        public uint reserved;
        public qlora_span norm;
        public qlora_span norms;
        public float gradient_scale;
        public uint reserved2;
        /// All zero, but for struct_size.
        public static qlora_gradient_norm_args Create() { return new qlora_gradient_norm_args { struct_size = (uint)sizeof(qlora_gradient_norm_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_optimizer_args
    {
        public uint struct_size;
        public uint flags;
        public ulong stream;
        public qlora_span scratch;
        public qlora_parameter* parameters;
        public uint parameter_count;
        public int algorithm;
        public ulong step;
        public qlora_span norm;
        public float max_norm;
        public float gradient_scale;
        public float learning_rate;
        public float beta1;
        public float beta2;
        public float epsilon;
        public float weight_decay;
        public uint reserved;
        public float beta3;
        public float alpha;
        public float max_unorm;
        public uint percentile;
        public ulong seed;
        public qlora_span norms;
        public qlora_span skipped;
        public qlora_span factors;
        public qlora_span window;
        public ulong page_bytes;
        /// All zero, but for struct_size.
        public static qlora_optimizer_args Create() { return new qlora_optimizer_args { struct_size = (uint)sizeof(qlora_optimizer_args) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_schedule
    {
        public uint struct_size;
        public uint flags;
        public int kind;
        public uint cycles;
        public ulong warmup;
        public ulong steps;
        public double learning_rate;
        public double min_ratio;
        /// All zero, but for struct_size.
        public static qlora_schedule Create() { return new qlora_schedule { struct_size = (uint)sizeof(qlora_schedule) }; }
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct qlora_pager
    {
        public uint struct_size;
        public uint flags;
        public qlora_parameter* parameters;
        public uint parameter_count;
        public int algorithm;
        public uint min_8bit_size;
        public uint resident_count;
        public ulong budget_bytes;
        public ulong page_bytes;
        public ulong state_bytes;
        public ulong resident_bytes;
        public ulong window_bytes;
        public ulong arena_bytes;
        public qlora_span resident;
        public qlora_span window;
        public qlora_span arena;
        /// All zero, but for struct_size.
        public static qlora_pager Create() { return new qlora_pager { struct_size = (uint)sizeof(qlora_pager) }; }
    }

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public unsafe delegate IntPtr qlora_context_args_allocate(IntPtr user, UIntPtr bytes, UIntPtr alignment);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public unsafe delegate void qlora_context_args_release(IntPtr user, IntPtr memory, UIntPtr bytes);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public unsafe delegate void qlora_context_args_log(IntPtr user, byte* line);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public unsafe delegate void qlora_context_args_parallel_for(IntPtr user, uint count, IntPtr task, IntPtr task_user);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public unsafe delegate int qlora_context_args_inject_failure(IntPtr user, byte* call);

    public static unsafe class Api
    {
        const string Library = "qlora";

        public const int QLORA_VERSION_MAJOR = 0;
        public const int QLORA_VERSION_MINOR = 1;
        public const int QLORA_VERSION_PATCH = 0;
        public const int QLORA_OK = 0;
        public const int QLORA_ERROR_ARGUMENT = -100;
        public const int QLORA_ERROR_SHAPE = -101;
        public const int QLORA_ERROR_FORMAT = -102;
        public const int QLORA_ERROR_VALUE = -103;
        public const int QLORA_ERROR_UNSUPPORTED = -200;
        public const int QLORA_ERROR_UNAVAILABLE = -201;
        public const int QLORA_ERROR_MEMORY = -300;
        public const int QLORA_ERROR_SCRATCH = -301;
        public const int QLORA_ERROR_DEVICE = -400;
        public const int QLORA_FORMAT_F32 = 256;
        public const int QLORA_FORMAT_F16 = 257;
        public const int QLORA_FORMAT_BF16 = 286;
        public const int QLORA_FORMAT_Q4_0 = 258;
        public const int QLORA_FORMAT_Q8_0 = 264;
        public const int QLORA_FORMAT_NF4 = 1;
        public const int QLORA_FORMAT_NF4_DQ = 2;
        public const int QLORA_FORMAT_FP4 = 3;
        public const int QLORA_FORMAT_FP4_DQ = 4;
        public const int QLORA_FORMAT_DYN8 = 5;
        public const int QLORA_FORMAT_UDYN8 = 6;
        public const int QLORA_FORMAT_FP8_E4M3 = 16;
        public const int QLORA_FORMAT_FP8_E5M2 = 17;
        public const int QLORA_FORMAT_MXFP8_E4M3 = 18;
        public const int QLORA_FORMAT_MXFP8_E5M2 = 19;
        public const int QLORA_FORMAT_MXFP6_E2M3 = 20;
        public const int QLORA_FORMAT_MXFP6_E3M2 = 21;
        public const int QLORA_FORMAT_GPTQ2 = 24;
        public const int QLORA_FORMAT_GPTQ3 = 25;
        public const int QLORA_FORMAT_GPTQ4 = 26;
        public const int QLORA_FORMAT_GPTQ8 = 27;
        public const int QLORA_FORMAT_INT8 = 28;
        public const int QLORA_FORMAT_SPQR3 = 29;
        public const int QLORA_FORMAT_SPQR4 = 30;
        public const int QLORA_FORMAT_Q4_1 = 259;
        public const int QLORA_FORMAT_Q5_0 = 262;
        public const int QLORA_FORMAT_Q5_1 = 263;
        public const int QLORA_FORMAT_Q2_K = 266;
        public const int QLORA_FORMAT_Q3_K = 267;
        public const int QLORA_FORMAT_Q4_K = 268;
        public const int QLORA_FORMAT_Q5_K = 269;
        public const int QLORA_FORMAT_Q6_K = 270;
        public const int QLORA_FORMAT_IQ4_NL = 276;
        public const int QLORA_FORMAT_IQ4_XS = 279;
        public const int QLORA_FORMAT_MXFP4 = 295;
        public const int QLORA_FORMAT_NVFP4 = 296;
        public const int QLORA_PLANE_CODE = 0;
        public const int QLORA_PLANE_SCALE = 1;
        public const int QLORA_PLANE_NESTED = 2;
        public const int QLORA_PLANE_OFFSET = 3;
        public const int QLORA_PLANE_ZERO = 4;
        public const int QLORA_PLANE_INDEX = 5;
        public const int QLORA_PLANE_COLUMN = 6;
        public const int QLORA_PLANE_OUTLIER = 7;
        public const int QLORA_PLANE_COUNT = 8;
        public const uint QLORA_WEIGHT_INDEXED = 1;
        public const int QLORA_BACKEND_REF = 1;
        public const int QLORA_BACKEND_CPU = 2;
        public const int QLORA_BACKEND_CUDA = 3;
        public const int QLORA_BACKEND_VULKAN = 4;
        public const int QLORA_ISA_BEST = 0;
        public const int QLORA_ISA_SCALAR = 1;
        public const int QLORA_ISA_AVX2 = 2;
        public const int QLORA_ISA_AVX512 = 3;
        public const int QLORA_ISA_NEON = 4;
        public const uint QLORA_CONTEXT_LEAN = 1;
        public const uint QLORA_BUFFER_HOST = 1;
        public const uint QLORA_BUFFER_BESIDE = 2;
        public const uint QLORA_OP_QUANTIZE = 1;
        public const uint QLORA_OP_DEQUANTIZE = 2;
        public const uint QLORA_OP_MATMUL = 3;
        public const uint QLORA_OP_MATMUL_GRAD = 4;
        public const uint QLORA_OP_LINEAR = 5;
        public const uint QLORA_OP_LINEAR_GRAD = 6;
        public const uint QLORA_OP_EMBEDDING = 7;
        public const uint QLORA_OP_RMS_NORM = 8;
        public const uint QLORA_OP_RMS_NORM_GRAD = 9;
        public const uint QLORA_OP_ROPE = 10;
        public const uint QLORA_OP_SWIGLU = 11;
        public const uint QLORA_OP_SWIGLU_GRAD = 12;
        public const uint QLORA_OP_ATTENTION = 13;
        public const uint QLORA_OP_ATTENTION_GRAD = 14;
        public const uint QLORA_OP_CROSS_ENTROPY = 15;
        public const uint QLORA_OP_GRADIENT_NORM = 16;
        public const uint QLORA_OP_OPTIMIZER_STEP = 17;
        public const uint QLORA_OP_HESSIAN = 18;
        public const uint QLORA_OP_QUANTIZE_GPTQ = 19;
        public const uint QLORA_OP_INT8_MATMUL = 21;
        public const uint QLORA_OP_INT8_MATMUL_GRAD = 22;
        public const uint QLORA_OP_WEIGHT_GRADIENT = 23;
        public const uint QLORA_OP_QUANTIZE_SPQR = 24;
        public const uint QLORA_OP_DROPOUT = 25;
        public const uint QLORA_FLAG_ACCUMULATE = 1;
        public const uint QLORA_FLAG_ACCUMULATE_GRADIENTS = 2;
        public const uint QLORA_FLAG_INVERSE = 4;
        public const uint QLORA_FLAG_STOCHASTIC = 8;
        public const uint QLORA_FLAG_SYMMETRIC = 16;
        public const uint QLORA_FLAG_SEARCH = 32;
        public const uint QLORA_FLAG_ACT_ORDER = 64;
        public const uint QLORA_FLAG_STATIC_GROUPS = 128;
        public const uint QLORA_FLAG_LAGGING = 256;
        public const uint QLORA_FLAG_WIDE = 512;
        public const uint QLORA_FLAG_BITSANDBYTES = 1024;
        public const uint QLORA_FLAG_SKIP_STEP = 2048;
        public const uint QLORA_FLAG_SKIP_TENSORS = 4096;
        public const uint QLORA_FLAG_SKIP_ZEROS = 8192;
        public const uint QLORA_FLAG_ZERO_GRADIENTS = 16384;
        public const uint QLORA_FLAG_SIMPLIFIED = 32768;
        public const uint QLORA_FLAG_CENTERED = 65536;
        public const uint QLORA_FLAG_UNGATED = 131072;
        public const int QLORA_POWER_FLOOR = 0;
        public const int QLORA_POWER_CEIL = 1;
        public const int QLORA_POWER_EVEN = 2;
        public const int QLORA_POWER_RCEIL = 3;
        public const int QLORA_GPTQ_DONE = 1;
        public const int QLORA_GPTQ_DAMPED = 2;
        public const int QLORA_GPTQ_FLOORED = 3;
        public const int QLORA_GPTQ_NEAREST = 4;
        public const uint QLORA_SPQR_ADDED = 1;
        public const uint QLORA_SPQR_PTCSR = 2;
        public const int QLORA_ROPE_ADJACENT = 0;
        public const int QLORA_ROPE_HALF = 1;
        public const int QLORA_ACTIVATION_SILU = 0;
        public const int QLORA_ACTIVATION_GELU = 1;
        public const int QLORA_ACTIVATION_GELU_TANH = 2;
        public const int QLORA_ACTIVATION_RELU = 3;
        public const int QLORA_OPTIMIZER_ADAMW = 1;
        public const int QLORA_OPTIMIZER_ADAM = 2;
        public const int QLORA_OPTIMIZER_STABLE_ADAMW = 3;
        public const int QLORA_OPTIMIZER_LION = 4;
        public const int QLORA_OPTIMIZER_MOMENTUM = 5;
        public const int QLORA_OPTIMIZER_RMSPROP = 6;
        public const int QLORA_OPTIMIZER_ADAGRAD = 7;
        public const int QLORA_OPTIMIZER_LAMB = 8;
        public const int QLORA_OPTIMIZER_LARS = 9;
        public const int QLORA_OPTIMIZER_ADEMAMIX = 10;
        public const uint QLORA_PARAMETER_NO_DECAY = 1;
        public const uint QLORA_PARAMETER_PAGED = 2;
        public const int QLORA_STATE_1 = 0;
        public const int QLORA_STATE_2 = 1;
        public const int QLORA_STATE_3 = 2;
        public const int QLORA_STATE_ABSMAX1 = 3;
        public const int QLORA_STATE_ABSMAX2 = 4;
        public const int QLORA_STATE_ABSMAX3 = 5;
        public const int QLORA_STATE_COUNT = 6;
        public const int QLORA_SCHEDULE_CONSTANT = 0;
        public const int QLORA_SCHEDULE_LINEAR = 1;
        public const int QLORA_SCHEDULE_COSINE = 2;

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern uint qlora_version();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern byte* qlora_status_name(int status);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_constant_find(byte* name, long* value);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_format_query(int format, qlora_format_info* info);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_format_find(byte* name, int* format);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_layout(qlora_weight* weight, qlora_weight_layout_info* layout);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_place(qlora_weight* weight, qlora_span memory);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_context_create(qlora_context_args* args, IntPtr* context);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern void qlora_context_destroy(IntPtr context);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern byte* qlora_context_message(IntPtr context);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_context_synchronize(IntPtr context);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_context_query(IntPtr context, qlora_context_info* info);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_device_count(int backend, uint* count);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_create(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_destroy(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_write(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_read(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_copy(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_join(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_buffer_fill(IntPtr context, qlora_buffer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_graph_begin(IntPtr context, qlora_graph_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_graph_end(IntPtr context, qlora_graph_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_graph_launch(IntPtr context, qlora_graph_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_graph_destroy(IntPtr context, qlora_graph_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_operation_scratch(IntPtr context, uint operation, IntPtr args, ulong* bytes);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_operation_supports(IntPtr context, uint operation, int format, int type);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_quantize(IntPtr context, qlora_quantize_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_dequantize(IntPtr context, qlora_dequantize_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_matmul(IntPtr context, qlora_matmul_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_matmul_grad(IntPtr context, qlora_matmul_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_hessian_accumulate(IntPtr context, qlora_hessian_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_quantize_gptq(IntPtr context, qlora_quantize_gptq_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_quantize_spqr(IntPtr context, qlora_quantize_spqr_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_gptq_import(IntPtr context, qlora_gptq_tensors* tensors);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_gptq_export(IntPtr context, qlora_gptq_tensors* tensors);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_spqr_import(IntPtr context, qlora_spqr_tensors* tensors);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_int8_matmul(IntPtr context, qlora_int8_matmul_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_int8_matmul_grad(IntPtr context, qlora_int8_matmul_grad_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_weight_gradient(IntPtr context, qlora_weight_gradient_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_linear_forward(IntPtr context, qlora_linear_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_linear_grad(IntPtr context, qlora_linear_grad_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_embedding_gather(IntPtr context, qlora_embedding_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_rms_norm_forward(IntPtr context, qlora_rms_norm_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_rms_norm_grad(IntPtr context, qlora_rms_norm_grad_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_rope_apply(IntPtr context, qlora_rope_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_swiglu_forward(IntPtr context, qlora_swiglu_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_swiglu_grad(IntPtr context, qlora_swiglu_grad_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_dropout_apply(IntPtr context, qlora_dropout_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_attention_forward(IntPtr context, qlora_attention_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_attention_grad(IntPtr context, qlora_attention_grad_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_cross_entropy_loss(IntPtr context, qlora_cross_entropy_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_state_layout(qlora_parameter* parameter, qlora_state_layout_info* layout);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_state_place(qlora_parameter* parameter, qlora_state_layout_info* layout, qlora_span memory);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_gradient_norm(IntPtr context, qlora_gradient_norm_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_optimizer_step(IntPtr context, qlora_optimizer_args* args);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_schedule_rate(qlora_schedule* schedule, ulong step, double* rate);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_pager_plan(IntPtr context, qlora_pager* pager);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        public static extern int qlora_pager_place(IntPtr context, qlora_pager* pager);
    }
}
