// qlora: quantized LoRA fine-tuning, over the C library of that name.
//
//     using (var context = new Context(Backend.Cpu))
//     using (var weight = context.Quantize("nf4-dq", rows, cols, values))
//     using (var x = context.Buffer(inputs))
//     using (var y = context.Zeros(tokens * rows))
//     {
//         weight.MatMul(x, tokens, y);
//         float[] outputs = y.Read();
//     }
//
// Everything of qlora.h is in Qlora.Native; this file wraps what a first program needs. A context serves one thread at a time.
using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Text;
using Qlora.Native;

namespace Qlora
{
    public enum Backend { Reference = Api.QLORA_BACKEND_REF, Cpu = Api.QLORA_BACKEND_CPU, Cuda = Api.QLORA_BACKEND_CUDA, Vulkan = Api.QLORA_BACKEND_VULKAN }

    /// What the library answered: a status of qlora.h and the sentence that goes with it.
    public sealed class QloraException : Exception
    {
        public readonly int Status;
        public QloraException(int status, string message) : base(message) { Status = status; }
    }

    /// Owns a qlora_context. Everything made with it holds on to it, so that it is freed last, whatever the order of finalizers.
    sealed class ContextHandle : SafeHandle
    {
        internal qlora_span Scratch;

        internal ContextHandle() : base(IntPtr.Zero, true) { }
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
        internal IntPtr Pointer { get { if (IsClosed) throw new ObjectDisposedException("Context"); return handle; } }
        internal void Own(IntPtr made) { SetHandle(made); }

        internal unsafe void Free(ref qlora_span span)
        {
            if (span.handle != 0)
            {
                var args = qlora_buffer_args.Create();
                args.dst = span;
                Api.qlora_buffer_destroy(handle, &args);
            }
            span = new qlora_span();
        }

        protected override bool ReleaseHandle()
        {
            Free(ref Scratch);
            Api.qlora_context_destroy(handle);
            return true;
        }
    }

    /// One device.
    public sealed unsafe class Context : IDisposable
    {
        internal readonly ContextHandle Handle = new ContextHandle();
        readonly qlora_context_args_log forward; // the library keeps its address
        readonly Action<string> log;
        Exception thrown;

        /// log, unless null, receives whole lines; what it throws comes out of the call that logged.
        public Context(Backend backend = Backend.Cpu, Action<string> log = null)
        {
            var args = qlora_context_args.Create();
            byte* message = stackalloc byte[512];
            message[0] = 0;
            args.backend = (int)backend;
            args.message = message;
            args.message_bytes = (UIntPtr)512;
            if (log != null)
            {
                this.log = log;
                forward = Forward;
                args.log = Marshal.GetFunctionPointerForDelegate(forward);
            }
            IntPtr made;
            int status = Api.qlora_context_create(&args, &made);
            Rethrow();
            if (status != Api.QLORA_OK) throw new QloraException(status, Text(message));
            Handle.Own(made);
        }

        public static string Version
        {
            get { uint number = Api.qlora_version(); return (number / 1000000) + "." + (number / 1000 % 1000) + "." + (number % 1000); }
        }

        void Forward(IntPtr user, byte* line)
        {
            try { log(Text(line)); } // an exception may not pass through C
            catch (Exception exception) { if (thrown == null) thrown = exception; }
        }

        void Rethrow()
        {
            Exception exception = thrown;
            thrown = null;
            if (exception != null) ExceptionDispatchInfo.Capture(exception).Throw();
        }

        internal static string Text(byte* text)
        {
            int length = 0;
            while (text[length] != 0) length++;
            var bytes = new byte[length];
            Marshal.Copy((IntPtr)text, bytes, 0, length);
            return Encoding.UTF8.GetString(bytes);
        }

        internal void Check(int status)
        {
            Rethrow();
            if (status != Api.QLORA_OK) throw new QloraException(status, Text(Api.qlora_context_message(Handle.Pointer)));
        }

        /// Scratch for an operation, kept for the next one.
        internal qlora_span Scratch(uint operation, void* args)
        {
            ulong needed;
            Check(Api.qlora_operation_scratch(Handle.Pointer, operation, (IntPtr)args, &needed));
            if (needed > Handle.Scratch.size)
            {
                Handle.Free(ref Handle.Scratch);
                Handle.Scratch = Allocate(needed);
            }
            return Handle.Scratch;
        }

        internal qlora_span Allocate(ulong bytes)
        {
            var args = qlora_buffer_args.Create();
            args.bytes = bytes;
            Check(Api.qlora_buffer_create(Handle.Pointer, &args));
            return args.dst;
        }

        /// Such as "cpu avx2".
        public string Name
        {
            get
            {
                var info = qlora_context_info.Create();
                Check(Api.qlora_context_query(Handle.Pointer, &info));
                return Text(info.name);
            }
        }

        /// Device memory that holds values.
        public Buffer Buffer(float[] values)
        {
            var made = new Buffer(this, (ulong)values.Length * 4, values.Length);
            made.Write(values);
            return made;
        }

        public Buffer Zeros(int count) { return Buffer(new float[count]); }

        /// A weight W[rows][cols]; format is a name such as "nf4-dq".
        public Weight Quantize(string format, int rows, int cols, float[] values)
        {
            var weight = qlora_weight.Create();
            var layout = qlora_weight_layout_info.Create();
            weight.rows = (ulong)rows;
            weight.cols = (ulong)cols;
            int status;
            fixed (byte* name = Encoding.UTF8.GetBytes(format + "\0")) status = Api.qlora_format_find(name, &weight.format);
            if (status == Api.QLORA_OK) status = Api.qlora_weight_layout(&weight, &layout);
            if (status != Api.QLORA_OK) throw new QloraException(status, "no weight [" + rows + "][" + cols + "] of format '" + format + "'");
            var planes = new Buffer(this, layout.total_bytes, 0);
            Api.qlora_weight_place(&weight, planes.Span);
            using (Buffer source = Buffer(values))
            {
                var args = qlora_quantize_args.Create();
                args.weight = &weight;
                args.src = source.Tensor(rows, cols);
                args.scratch = Scratch(Api.QLORA_OP_QUANTIZE, &args);
                Check(Api.qlora_weight_quantize(Handle.Pointer, &args));
            }
            return new Weight(this, weight, planes);
        }

        public void Dispose() { Handle.Dispose(); }
    }

    /// Device memory of a context. Its values are f32.
    public sealed unsafe class Buffer : IDisposable
    {
        readonly Context context;
        readonly int count;
        bool holds; // a reference to the context's handle, which keeps that alive
        internal qlora_span Span;

        internal Buffer(Context context, ulong bytes, int count)
        {
            this.context = context;
            this.count = count;
            if (bytes != 0) Span = context.Allocate(bytes);
            context.Handle.DangerousAddRef(ref holds);
        }

        internal int Count { get { return count; } }

        public void Write(float[] values)
        {
            if (values.Length == 0) return;
            var args = qlora_buffer_args.Create();
            args.dst = Span;
            args.bytes = (ulong)values.Length * 4;
            fixed (float* host = values)
            {
                args.host = (IntPtr)host;
                context.Check(Api.qlora_buffer_write(context.Handle.Pointer, &args));
            }
        }

        /// The values, once all work before is done.
        public float[] Read()
        {
            var values = new float[count];
            if (count == 0) return values;
            var args = qlora_buffer_args.Create();
            args.src = Span;
            args.bytes = (ulong)count * 4;
            fixed (float* host = values)
            {
                args.host = (IntPtr)host;
                context.Check(Api.qlora_buffer_read(context.Handle.Pointer, &args));
            }
            return values;
        }

        internal qlora_tensor Tensor(int rows, int cols)
        {
            return new qlora_tensor { type = Api.QLORA_FORMAT_F32, rows = (ulong)rows, cols = (ulong)cols, data = Span };
        }

        public void Dispose()
        {
            if (holds)
            {
                context.Handle.Free(ref Span);
                context.Handle.DangerousRelease();
                holds = false;
            }
        }

        // A context serves one thread at a time, and finalizers run on another: memory that was not disposed of goes with the process.
    }

    /// A quantized matrix at rest; made by Context.Quantize.
    public sealed unsafe class Weight : IDisposable
    {
        internal readonly Context Context;
        internal qlora_weight Raw;
        readonly Buffer planes;
        public readonly int Rows, Cols;

        internal Weight(Context context, qlora_weight raw, Buffer planes)
        {
            Context = context;
            Raw = raw;
            this.planes = planes;
            Rows = (int)raw.rows;
            Cols = (int)raw.cols;
        }

        /// y[tokens][rows] = x[tokens][cols] W^T
        public void MatMul(Buffer x, int tokens, Buffer y)
        {
            var args = qlora_matmul_args.Create();
            args.x = x.Tensor(tokens, Cols);
            args.y = y.Tensor(tokens, Rows);
            fixed (qlora_weight* weight = &Raw)
            {
                args.weight = weight;
                args.scratch = Context.Scratch(Api.QLORA_OP_MATMUL, &args);
                Context.Check(Api.qlora_weight_matmul(Context.Handle.Pointer, &args));
            }
        }

        public void Dispose() { planes.Dispose(); }
    }

    /// LoRA on a frozen weight: y = x W^T + scale * (x A^T) B^T, with B zero at first, trained by AdamW.
    public sealed unsafe class Adapter : IDisposable
    {
        // A tensor with its gradient and the two moments of AdamW.
        sealed class Trained : IDisposable
        {
            internal readonly Buffer Value, Gradient, Moment1, Moment2;

            internal Trained(Context context, float[] values)
            {
                Value = context.Buffer(values);
                Gradient = context.Zeros(values.Length);
                Moment1 = context.Zeros(values.Length);
                Moment2 = context.Zeros(values.Length);
            }

            internal qlora_parameter Parameter()
            {
                var made = qlora_parameter.Create();
                made.count = (ulong)Value.Count;
                made.value = Value.Span;
                made.gradient = Gradient.Span;
                made.state1 = Moment1.Span;
                made.state2 = Moment2.Span;
                return made;
            }

            public void Dispose() { Value.Dispose(); Gradient.Dispose(); Moment1.Dispose(); Moment2.Dispose(); }
        }

        readonly Weight weight;
        readonly int rank;
        readonly float scale;
        readonly Trained a, b;
        ulong steps;

        /// a is A[rank][cols].
        public Adapter(Weight weight, int rank, float scale, float[] a)
        {
            this.weight = weight;
            this.rank = rank;
            this.scale = scale;
            this.a = new Trained(weight.Context, a);
            b = new Trained(weight.Context, new float[weight.Rows * rank]);
        }

        public void Forward(Buffer x, int tokens, Buffer y)
        {
            Context context = weight.Context;
            var args = qlora_linear_args.Create();
            args.x = x.Tensor(tokens, weight.Cols);
            args.y = y.Tensor(tokens, weight.Rows);
            args.a = a.Value.Tensor(rank, weight.Cols);
            args.b = b.Value.Tensor(weight.Rows, rank);
            args.scale = scale;
            using (Buffer xa = context.Zeros(tokens * rank))
            fixed (qlora_weight* raw = &weight.Raw)
            {
                args.weight = raw;
                args.xa = xa.Span;
                args.scratch = context.Scratch(Api.QLORA_OP_LINEAR, &args);
                context.Check(Api.qlora_linear_forward(context.Handle.Pointer, &args));
            }
        }

        /// The gradients of A and B, which Step uses.
        public void Backward(Buffer x, int tokens, Buffer dy)
        {
            Context context = weight.Context;
            var args = qlora_linear_grad_args.Create();
            args.x = x.Tensor(tokens, weight.Cols);
            args.dy = dy.Tensor(tokens, weight.Rows);
            args.a = a.Value.Tensor(rank, weight.Cols);
            args.b = b.Value.Tensor(weight.Rows, rank);
            args.da = a.Gradient.Tensor(rank, weight.Cols);
            args.db = b.Gradient.Tensor(weight.Rows, rank);
            args.scale = scale;
            fixed (qlora_weight* raw = &weight.Raw)
            {
                args.weight = raw;
                args.scratch = context.Scratch(Api.QLORA_OP_LINEAR_GRAD, &args);
                context.Check(Api.qlora_linear_grad(context.Handle.Pointer, &args));
            }
        }

        public void Step(float learningRate)
        {
            Context context = weight.Context;
            qlora_parameter* parameters = stackalloc qlora_parameter[2];
            parameters[0] = a.Parameter();
            parameters[1] = b.Parameter();
            var args = qlora_optimizer_args.Create();
            args.parameters = parameters;
            args.parameter_count = 2;
            args.algorithm = Api.QLORA_OPTIMIZER_ADAMW;
            args.step = ++steps;
            args.learning_rate = learningRate;
            args.scratch = context.Scratch(Api.QLORA_OP_OPTIMIZER_STEP, &args);
            context.Check(Api.qlora_optimizer_step(context.Handle.Pointer, &args));
        }

        public void Dispose() { a.Dispose(); b.Dispose(); }
    }
}
