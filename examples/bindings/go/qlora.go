// Package qlora is quantized LoRA fine-tuning, over the C library of that name.
//
//	context, err := qlora.New(qlora.CPU, nil)
//	weight, err := context.Quantize("nf4-dq", rows, cols, values)
//	x, err := context.Buffer(inputs)
//	y, err := context.Zeros(tokens * rows)
//	err = weight.MatMul(x, tokens, y)
//	outputs, err := y.Read()
//
// By default the library is compiled with the package: run `go generate` once, which needs python3. With the build tag
// qlora_system it is the one that pkg-config finds. A context serves one goroutine at a time.
package qlora

// #include "qlora.h"
// #include <stdlib.h>
// extern void qloraForward(void *user, char *line);
import "C"

import (
	"fmt"
	"runtime/cgo"
	"unsafe"
)

// Backends, as in qlora.h.
const (
	Reference = C.QLORA_BACKEND_REF
	CPU       = C.QLORA_BACKEND_CPU
	CUDA      = C.QLORA_BACKEND_CUDA
	Vulkan    = C.QLORA_BACKEND_VULKAN
)

// Statuses of an Error, as in qlora.h.
const (
	ErrorArgument    = C.QLORA_ERROR_ARGUMENT
	ErrorShape       = C.QLORA_ERROR_SHAPE
	ErrorFormat      = C.QLORA_ERROR_FORMAT
	ErrorValue       = C.QLORA_ERROR_VALUE
	ErrorUnsupported = C.QLORA_ERROR_UNSUPPORTED
	ErrorUnavailable = C.QLORA_ERROR_UNAVAILABLE
	ErrorMemory      = C.QLORA_ERROR_MEMORY
	ErrorScratch     = C.QLORA_ERROR_SCRATCH
	ErrorDevice      = C.QLORA_ERROR_DEVICE
)

// Error is what the library answered: a status of qlora.h and the sentence that goes with it.
type Error struct {
	Status  int32
	Message string
}

func (e *Error) Error() string { return e.Message }

// Version is the version of the library that runs.
func Version() string {
	number := uint32(C.qlora_version())
	return fmt.Sprintf("%d.%d.%d", number/1000000, number/1000%1000, number%1000)
}

// Context is one device. Close it after everything made with it.
type Context struct {
	raw     *C.qlora_context
	sink    *sink
	handle  *cgo.Handle // in C's memory, where the library keeps its address
	scratch C.qlora_span
}

// sink receives lines of the log, and keeps the panic that this ended in.
type sink struct {
	log   func(line string)
	panic interface{}
}

//export qloraForward
func qloraForward(user unsafe.Pointer, line *C.char) {
	sink := (*(*cgo.Handle)(user)).Value().(*sink)
	// A panic may not pass through C; it goes on where the library was called.
	defer func() {
		if reason := recover(); reason != nil && sink.panic == nil {
			sink.panic = reason
		}
	}()
	sink.log(C.GoString(line))
}

// New opens a device of a backend. log, unless nil, receives whole lines; a panic in it comes out of the call that logged.
func New(backend int32, log func(line string)) (*Context, error) {
	const messageBytes = 512
	message := (*C.char)(C.calloc(1, messageBytes))
	defer C.free(unsafe.Pointer(message))
	context := &Context{}
	args := C.qlora_context_args{backend: C.int32_t(backend), message: message, message_bytes: messageBytes}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	if log != nil {
		context.sink = &sink{log: log}
		context.handle = (*cgo.Handle)(C.calloc(1, C.size_t(unsafe.Sizeof(cgo.Handle(0)))))
		*context.handle = cgo.NewHandle(context.sink)
		args.log = (*[0]byte)(C.qloraForward)
		args.log_user = unsafe.Pointer(context.handle)
	}
	status := C.qlora_context_create(&args, &context.raw)
	if status != C.QLORA_OK {
		context.Close()
		return nil, &Error{int32(status), C.GoString(message)}
	}
	return context, nil
}

// Close frees what the context owns. A second time does nothing.
func (context *Context) Close() {
	if context.raw != nil {
		context.free(&context.scratch)
		C.qlora_context_destroy(context.raw)
		context.raw = nil
	}
	if context.handle != nil {
		context.handle.Delete()
		C.free(unsafe.Pointer(context.handle))
		context.handle = nil
	}
}

// Name is such as "cpu avx2".
func (context *Context) Name() (string, error) {
	info := C.qlora_context_info{}
	info.struct_size = C.uint32_t(unsafe.Sizeof(info))
	if err := context.check(C.qlora_context_query(context.raw, &info)); err != nil {
		return "", err
	}
	return C.GoString(&info.name[0]), nil
}

func (context *Context) check(status C.int32_t) error {
	if context.sink != nil && context.sink.panic != nil {
		reason := context.sink.panic
		context.sink.panic = nil
		panic(reason)
	}
	if status == C.QLORA_OK {
		return nil
	}
	return &Error{int32(status), C.GoString(C.qlora_context_message(context.raw))}
}

// grow gives scratch for an operation, kept for the next one.
func (context *Context) grow(operation C.uint32_t, args unsafe.Pointer, span *C.qlora_span) error {
	var needed C.uint64_t
	if err := context.check(C.qlora_operation_scratch(context.raw, operation, args, &needed)); err != nil {
		return err
	}
	if needed > context.scratch.size {
		context.free(&context.scratch)
		made, err := context.allocate(needed)
		if err != nil {
			return err
		}
		context.scratch = made
	}
	*span = context.scratch
	return nil
}

func (context *Context) allocate(bytes C.uint64_t) (C.qlora_span, error) {
	args := C.qlora_buffer_args{bytes: bytes}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	err := context.check(C.qlora_buffer_create(context.raw, &args))
	return args.dst, err
}

func (context *Context) free(span *C.qlora_span) {
	if span.handle != 0 {
		args := C.qlora_buffer_args{dst: *span}
		args.struct_size = C.uint32_t(unsafe.Sizeof(args))
		C.qlora_buffer_destroy(context.raw, &args)
	}
	*span = C.qlora_span{}
}

// Buffer is device memory of a context. Its values are f32.
type Buffer struct {
	context *Context
	span    C.qlora_span
	count   int
}

// Buffer gives device memory that holds values.
func (context *Context) Buffer(values []float32) (*Buffer, error) {
	span, err := context.allocate(C.uint64_t(4 * len(values)))
	if err != nil {
		return nil, err
	}
	buffer := &Buffer{context, span, len(values)}
	return buffer, buffer.Write(values)
}

// Zeros gives device memory for count values.
func (context *Context) Zeros(count int) (*Buffer, error) {
	return context.Buffer(make([]float32, count))
}

// Close frees the memory, after the work that was enqueued before.
func (buffer *Buffer) Close() { buffer.context.free(&buffer.span) }

// Write copies values into the buffer.
func (buffer *Buffer) Write(values []float32) error {
	if len(values) == 0 {
		return nil
	}
	args := C.qlora_buffer_args{dst: buffer.span, bytes: C.uint64_t(4 * len(values))}
	return buffer.move(&args, values, true)
}

// Read gives the values, once all work before is done.
func (buffer *Buffer) Read() ([]float32, error) {
	values := make([]float32, buffer.count)
	args := C.qlora_buffer_args{src: buffer.span, bytes: C.uint64_t(4 * len(values))}
	return values, buffer.move(&args, values, false)
}

// move goes by C's memory, since args hold an address and Go's own may not lie in them.
func (buffer *Buffer) move(args *C.qlora_buffer_args, values []float32, write bool) error {
	memory := C.malloc(C.size_t(args.bytes) + 1)
	defer C.free(memory)
	host := unsafe.Slice((*float32)(memory), len(values))
	args.struct_size = C.uint32_t(unsafe.Sizeof(*args))
	args.host = memory
	if write {
		copy(host, values)
		return buffer.context.check(C.qlora_buffer_write(buffer.context.raw, args))
	}
	err := buffer.context.check(C.qlora_buffer_read(buffer.context.raw, args))
	copy(values, host)
	return err
}

func (buffer *Buffer) tensor(rows, cols int) C.qlora_tensor {
	tensor := C.qlora_tensor{rows: C.uint64_t(rows), cols: C.uint64_t(cols), data: buffer.span}
	tensor._type = C.QLORA_FORMAT_F32
	return tensor
}

// Weight is a quantized matrix at rest.
type Weight struct {
	context    *Context
	raw        *C.qlora_weight // in C's memory, so that args may point to it
	planes     C.qlora_span
	Rows, Cols int
}

// Quantize makes a weight W[rows][cols] from values; format is a name such as "nf4-dq".
func (context *Context) Quantize(format string, rows, cols int, values []float32) (*Weight, error) {
	name := C.CString(format)
	defer C.free(unsafe.Pointer(name))
	weight := &Weight{context: context, Rows: rows, Cols: cols}
	weight.raw = (*C.qlora_weight)(C.calloc(1, C.size_t(unsafe.Sizeof(C.qlora_weight{}))))
	weight.raw.struct_size = C.uint32_t(unsafe.Sizeof(C.qlora_weight{}))
	weight.raw.rows, weight.raw.cols = C.uint64_t(rows), C.uint64_t(cols)
	layout := C.qlora_weight_layout_info{}
	layout.struct_size = C.uint32_t(unsafe.Sizeof(layout))
	status := C.qlora_format_find(name, &weight.raw.format)
	if status == C.QLORA_OK {
		status = C.qlora_weight_layout(weight.raw, &layout)
	}
	if status != C.QLORA_OK {
		weight.Close()
		return nil, &Error{int32(status), fmt.Sprintf("no weight [%d][%d] of format %q", rows, cols, format)}
	}
	err := weight.fill(layout.total_bytes, values)
	if err != nil {
		weight.Close()
		return nil, err
	}
	return weight, nil
}

func (weight *Weight) fill(bytes C.uint64_t, values []float32) (err error) {
	context := weight.context
	if weight.planes, err = context.allocate(bytes); err != nil {
		return err
	}
	C.qlora_weight_place(weight.raw, weight.planes)
	source, err := context.Buffer(values)
	if err != nil {
		return err
	}
	defer source.Close()
	args := C.qlora_quantize_args{weight: weight.raw, src: source.tensor(weight.Rows, weight.Cols)}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	if err = context.grow(C.QLORA_OP_QUANTIZE, unsafe.Pointer(&args), &args.scratch); err != nil {
		return err
	}
	return context.check(C.qlora_weight_quantize(context.raw, &args))
}

// Close frees the weight. A second time does nothing.
func (weight *Weight) Close() {
	weight.context.free(&weight.planes)
	C.free(unsafe.Pointer(weight.raw))
	weight.raw = nil
}

// MatMul computes y[tokens][rows] = x[tokens][cols] W^T.
func (weight *Weight) MatMul(x *Buffer, tokens int, y *Buffer) error {
	context := weight.context
	args := C.qlora_matmul_args{weight: weight.raw, x: x.tensor(tokens, weight.Cols), y: y.tensor(tokens, weight.Rows)}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	if err := context.grow(C.QLORA_OP_MATMUL, unsafe.Pointer(&args), &args.scratch); err != nil {
		return err
	}
	return context.check(C.qlora_weight_matmul(context.raw, &args))
}
