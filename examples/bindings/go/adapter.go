package qlora

// #include "qlora.h"
// #include <stdlib.h>
import "C"

import "unsafe"

// Adapter is LoRA on a frozen weight: y = x W^T + scale * (x A^T) B^T, with B zero at first, trained by AdamW.
type Adapter struct {
	weight *Weight
	rank   int
	scale  float32
	steps  uint64
	a, b   trained
}

// trained is a tensor with its gradient and the two moments of AdamW.
type trained struct{ value, gradient, moment1, moment2 *Buffer }

func newTrained(context *Context, values []float32) (trained, error) {
	made := trained{}
	contents := [][]float32{values, make([]float32, len(values)), make([]float32, len(values)), make([]float32, len(values))}
	for i, place := range []**Buffer{&made.value, &made.gradient, &made.moment1, &made.moment2} {
		buffer, err := context.Buffer(contents[i])
		if err != nil {
			made.close()
			return trained{}, err
		}
		*place = buffer
	}
	return made, nil
}

func (t *trained) close() {
	for _, buffer := range []*Buffer{t.value, t.gradient, t.moment1, t.moment2} {
		if buffer != nil {
			buffer.Close()
		}
	}
}

func (t *trained) parameter() C.qlora_parameter {
	parameter := C.qlora_parameter{count: C.uint64_t(t.value.count), value: t.value.span, gradient: t.gradient.span, state1: t.moment1.span, state2: t.moment2.span}
	parameter.struct_size = C.uint32_t(unsafe.Sizeof(parameter))
	return parameter
}

// NewAdapter begins with A[rank][cols] = a.
func NewAdapter(weight *Weight, rank int, scale float32, a []float32) (*Adapter, error) {
	made := &Adapter{weight: weight, rank: rank, scale: scale}
	var err error
	if made.a, err = newTrained(weight.context, a); err != nil {
		return nil, err
	}
	if made.b, err = newTrained(weight.context, make([]float32, weight.Rows*rank)); err != nil {
		made.a.close()
		return nil, err
	}
	return made, nil
}

// Close frees the adapter, not its weight.
func (adapter *Adapter) Close() {
	adapter.a.close()
	adapter.b.close()
}

// Forward computes y[tokens][rows] from x[tokens][cols].
func (adapter *Adapter) Forward(x *Buffer, tokens int, y *Buffer) error {
	weight, context := adapter.weight, adapter.weight.context
	xa, err := context.Zeros(tokens * adapter.rank)
	if err != nil {
		return err
	}
	defer xa.Close()
	args := C.qlora_linear_args{weight: weight.raw, x: x.tensor(tokens, weight.Cols), y: y.tensor(tokens, weight.Rows), a: adapter.a.value.tensor(adapter.rank, weight.Cols),
		b: adapter.b.value.tensor(weight.Rows, adapter.rank), xa: xa.span, scale: C.float(adapter.scale)}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	if err := context.grow(C.QLORA_OP_LINEAR, unsafe.Pointer(&args), &args.scratch); err != nil {
		return err
	}
	return context.check(C.qlora_linear_forward(context.raw, &args))
}

// Backward computes the gradients of A and B, which Step uses.
func (adapter *Adapter) Backward(x *Buffer, tokens int, dy *Buffer) error {
	weight, context := adapter.weight, adapter.weight.context
	args := C.qlora_linear_grad_args{weight: weight.raw, x: x.tensor(tokens, weight.Cols), dy: dy.tensor(tokens, weight.Rows), a: adapter.a.value.tensor(adapter.rank, weight.Cols),
		b: adapter.b.value.tensor(weight.Rows, adapter.rank), da: adapter.a.gradient.tensor(adapter.rank, weight.Cols), db: adapter.b.gradient.tensor(weight.Rows, adapter.rank),
		scale: C.float(adapter.scale)}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	if err := context.grow(C.QLORA_OP_LINEAR_GRAD, unsafe.Pointer(&args), &args.scratch); err != nil {
		return err
	}
	return context.check(C.qlora_linear_grad(context.raw, &args))
}

// Step updates A and B by AdamW.
func (adapter *Adapter) Step(learningRate float32) error {
	context := adapter.weight.context
	adapter.steps++
	memory := C.calloc(2, C.size_t(unsafe.Sizeof(C.qlora_parameter{})))
	defer C.free(memory)
	parameters := unsafe.Slice((*C.qlora_parameter)(memory), 2)
	parameters[0], parameters[1] = adapter.a.parameter(), adapter.b.parameter()
	args := C.qlora_optimizer_args{parameters: &parameters[0], parameter_count: 2, algorithm: C.QLORA_OPTIMIZER_ADAMW, step: C.uint64_t(adapter.steps), learning_rate: C.float(learningRate)}
	args.struct_size = C.uint32_t(unsafe.Sizeof(args))
	if err := context.grow(C.QLORA_OP_OPTIMIZER_STEP, unsafe.Pointer(&args), &args.scratch); err != nil {
		return err
	}
	return context.check(C.qlora_optimizer_step(context.raw, &args))
}
