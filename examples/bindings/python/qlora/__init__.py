"""qlora: quantized LoRA fine-tuning, over the C library of that name. Standard library only.

    import qlora
    with qlora.Context(qlora.CPU) as context:
        weight = context.quantize("nf4-dq", rows, cols, values)
        x, y = context.buffer(inputs), context.zeros(tokens * rows)
        weight.matmul(x, tokens, y)
        print(y.read())

The library is taken from the environment variable QLORA_LIBRARY, or found as the system finds libraries. Everything of qlora.h is
in qlora.declarations; this module wraps what a first program needs."""
import array
import ctypes
import ctypes.util
import os
import sys

from . import declarations as api

REF, CPU, CUDA, VULKAN = api.QLORA_BACKEND_REF, api.QLORA_BACKEND_CPU, api.QLORA_BACKEND_CUDA, api.QLORA_BACKEND_VULKAN


class Error(Exception):
    """What the library answered: status, one of QLORA_ERROR_*, and the sentence that goes with it."""

    def __init__(self, status, message):
        super().__init__(message or library.qlora_status_name(status).decode())
        self.status = status


def _load():
    path = os.environ.get("QLORA_LIBRARY") or ctypes.util.find_library("qlora")
    if not path:
        raise ImportError("libqlora was not found; install it, or set QLORA_LIBRARY to its path")
    loaded = api.declare(ctypes.CDLL(path))
    found, needed = loaded.qlora_version(), api.QLORA_VERSION_MAJOR * 1000000 + api.QLORA_VERSION_MINOR * 1000
    if found // 1000000 != api.QLORA_VERSION_MAJOR or found < needed:
        raise ImportError("libqlora is %d, these declarations need %d or later of the same major version" % (found, needed))
    return loaded


library = _load()


def version():
    """(major, minor, patch) of the library that runs."""
    number = library.qlora_version()
    return number // 1000000, number // 1000 % 1000, number % 1000


def _floats(values):
    return values if isinstance(values, array.array) and values.typecode == "f" else array.array("f", values)


class Context:
    """One device. log(line) receives whole lines; what it raises comes out of the call that logged."""

    def __init__(self, backend=CPU, device=0, threads=0, log=None):
        self._handle = ctypes.c_void_p()
        self._raised = None
        self._log = api.qlora_context_args.log_type(self._forward(log)) if log else None  # must live as long as the context
        message = ctypes.create_string_buffer(512)
        args = api.qlora_context_args(backend=backend, device=device, threads=threads, message=ctypes.addressof(message), message_bytes=512)
        if self._log:
            args.log = self._log
        status = library.qlora_context_create(args, self._handle)
        self._finish(status, message.value.decode())
        self._scratch = Buffer(self, 0)

    def _forward(self, log):
        def call(_user, line):  # an exception may not pass through C
            try:
                log(line.decode())
            except BaseException as raised:
                self._raised = self._raised or raised
        return call

    def _finish(self, status, message=None):
        raised, self._raised = self._raised, None
        if raised:
            raise raised
        if status != api.QLORA_OK:
            raise Error(status, library.qlora_context_message(self._handle).decode() if message is None else message)

    def check(self, status):
        """Raises what a callback raised meanwhile, or an Error unless status is QLORA_OK."""
        self._finish(status)

    def run(self, operation, function, args):
        """An operation of qlora.h, with scratch."""
        needed = ctypes.c_uint64()
        self.check(library.qlora_operation_scratch(self._handle, operation, ctypes.byref(args), needed))
        if needed.value > self._scratch.bytes:
            self._scratch.close()
            self._scratch = Buffer(self, needed.value)
        args.scratch = self._scratch.span
        self.check(function(self._handle, args))

    @property
    def handle(self):
        return self._handle

    @property
    def name(self):
        info = api.qlora_context_info()
        self.check(library.qlora_context_query(self._handle, info))
        return info.name.decode()

    def buffer(self, values):
        """Device memory that holds f32 values."""
        values = _floats(values)
        made = Buffer(self, 4 * len(values))
        made.write(values)
        return made

    def zeros(self, count):
        return self.buffer(array.array("f", bytes(4 * count)))

    def quantize(self, format, rows, cols, values):
        """A weight W[rows][cols] from f32 values; format is a name such as "nf4-dq"."""
        number = ctypes.c_int32()
        if library.qlora_format_find(format.encode(), number) != api.QLORA_OK:
            raise Error(api.QLORA_ERROR_FORMAT, "no format is called '%s'" % format)
        weight = api.qlora_weight(format=number.value, rows=rows, cols=cols)
        layout = api.qlora_weight_layout_info()
        status = library.qlora_weight_layout(weight, layout)
        if status != api.QLORA_OK:
            raise Error(status, "%s does not take a weight of [%d][%d]" % (format, rows, cols))
        planes = Buffer(self, layout.total_bytes)
        library.qlora_weight_place(weight, planes.span)
        with self.buffer(values) as source:
            args = api.qlora_quantize_args(weight=ctypes.pointer(weight), src=source.tensor(rows, cols))
            self.run(api.QLORA_OP_QUANTIZE, library.qlora_weight_quantize, args)
        return Weight(self, weight, planes)

    def close(self):
        if self._handle:
            self._scratch.close()
            library.qlora_context_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_scratch", None) is not None and not sys.is_finalizing():
            self.close()


class Buffer:
    """Device memory of a context. Its values are f32."""

    def __init__(self, context, bytes):
        self._context, self.bytes, self.span = context, bytes, api.qlora_span()
        if bytes:
            args = api.qlora_buffer_args(bytes=bytes)
            context.check(library.qlora_buffer_create(context.handle, args))
            self.span = args.dst

    def _move(self, function, values):
        address, count = values.buffer_info()
        args = api.qlora_buffer_args(dst=self.span, src=self.span, host=address, bytes=4 * count)
        self._context.check(function(self._context.handle, args))

    def write(self, values):
        self._move(library.qlora_buffer_write, _floats(values))

    def read(self):
        """The values, once all work before is done."""
        values = array.array("f", bytes(self.bytes // 4 * 4))
        self._move(library.qlora_buffer_read, values)
        return values

    def tensor(self, rows, cols):
        return api.qlora_tensor(type=api.QLORA_FORMAT_F32, rows=rows, cols=cols, data=self.span)

    def close(self):
        if self.span.handle and self._context.handle:
            library.qlora_buffer_destroy(self._context.handle, api.qlora_buffer_args(dst=self.span))
        self.span = api.qlora_span()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if not sys.is_finalizing():
            self.close()


class Weight:
    """A quantized matrix at rest; made by Context.quantize."""

    def __init__(self, context, weight, planes):
        self.context, self.weight, self._planes = context, weight, planes
        self.rows, self.cols = weight.rows, weight.cols

    @property
    def pointer(self):
        return ctypes.pointer(self.weight)

    def matmul(self, x, tokens, y):
        """y[tokens][rows] = x[tokens][cols] W^T"""
        args = api.qlora_matmul_args(weight=self.pointer, x=x.tensor(tokens, self.cols), y=y.tensor(tokens, self.rows))
        self.context.run(api.QLORA_OP_MATMUL, library.qlora_weight_matmul, args)


class Adapter:
    """LoRA on a frozen weight: y = x W^T + scale * (x A^T) B^T, with B zero at first, trained by AdamW."""

    def __init__(self, weight, rank, scale, a):
        context = weight.context
        self.weight, self.rank, self.scale, self.steps = weight, rank, scale, 0
        self.a, self.b = context.buffer(a), context.zeros(weight.rows * rank)
        self.da, self.db = context.zeros(rank * weight.cols), context.zeros(weight.rows * rank)
        self._states = [context.zeros(count) for count in (rank * weight.cols, rank * weight.cols, weight.rows * rank, weight.rows * rank)]

    def _args(self, kind, tokens, **fields):
        rank, cols, rows = self.rank, self.weight.cols, self.weight.rows
        return kind(weight=self.weight.pointer, a=self.a.tensor(rank, cols), b=self.b.tensor(rows, rank), scale=self.scale, **fields)

    def forward(self, x, tokens, y):
        with self.weight.context.zeros(tokens * self.rank) as xa:
            args = self._args(api.qlora_linear_args, tokens, x=x.tensor(tokens, self.weight.cols), y=y.tensor(tokens, self.weight.rows), xa=xa.span)
            self.weight.context.run(api.QLORA_OP_LINEAR, library.qlora_linear_forward, args)

    def backward(self, x, tokens, dy):
        """The gradients of A and B into da and db."""
        args = self._args(api.qlora_linear_grad_args, tokens, x=x.tensor(tokens, self.weight.cols), dy=dy.tensor(tokens, self.weight.rows),
                          da=self.da.tensor(self.rank, self.weight.cols), db=self.db.tensor(self.weight.rows, self.rank))
        self.weight.context.run(api.QLORA_OP_LINEAR_GRAD, library.qlora_linear_grad, args)

    def step(self, learning_rate):
        self.steps += 1
        pairs = ((self.a, self.da, 0), (self.b, self.db, 2))
        parameters = (api.qlora_parameter * 2)(*[
            api.qlora_parameter(count=value.bytes // 4, value=value.span, gradient=gradient.span, state1=self._states[at].span, state2=self._states[at + 1].span)
            for value, gradient, at in pairs])
        args = api.qlora_optimizer_args(parameters=ctypes.cast(parameters, ctypes.POINTER(api.qlora_parameter)), parameter_count=2,
                                        algorithm=api.QLORA_OPTIMIZER_ADAMW, step=self.steps, learning_rate=learning_rate)
        self.weight.context.run(api.QLORA_OP_OPTIMIZER_STEP, library.qlora_optimizer_step, args)
