// What every binding proves; the numbers are in ../fixture.json, made by the library's reference backend.
package qlora

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type fixture struct {
	Format             string
	Rows, Cols, Tokens int
	Weights, X         []float32
	Y                  []float64
	MatmulTolerance    float64 `json:"matmul_tolerance"`
	Train              struct {
		Rank         int
		Scale        float32
		LearningRate float32 `json:"learning_rate"`
		A, Goal      []float32
		Losses       []float64
		Tolerance    float64
	}
}

func load(t *testing.T, name string, into interface{}) {
	t.Helper()
	folder := os.Getenv("QLORA_BINDINGS")
	if folder == "" {
		folder = ".."
	}
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// must gives the value, and ends the test on an error.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func begin(t *testing.T, backend int32, log func(string)) (fixture, *Context, *Weight) {
	t.Helper()
	var f fixture
	load(t, "fixture.json", &f)
	context := must(New(backend, log))(t)
	weight := must(context.Quantize(f.Format, f.Rows, f.Cols, f.Weights))(t)
	t.Cleanup(func() { weight.Close(); context.Close() })
	return f, context, weight
}

// distance is ||found - expected|| / ||expected||.
func distance(found, expected []float64) float64 {
	var above, below float64
	for i := range expected {
		above += (found[i] - expected[i]) * (found[i] - expected[i])
		below += expected[i] * expected[i]
	}
	return math.Sqrt(above / below)
}

func wide(values []float32) []float64 {
	made := make([]float64, len(values))
	for i, value := range values {
		made[i] = float64(value)
	}
	return made
}

func TestVersionIsThatOfTheDeclarations(t *testing.T) {
	var described struct{ Version string }
	load(t, "qlora.json", &described)
	if Version() != described.Version {
		t.Errorf("the library is %s, the declarations are of %s", Version(), described.Version)
	}
}

func TestAnErrorHasItsStatusAndSaysWhy(t *testing.T) {
	f, context, weight := begin(t, CPU, nil)
	err := weight.MatMul(must(context.Zeros(f.Cols))(t), 1, must(context.Zeros(1))(t))
	var failure *Error
	if !errors.As(err, &failure) || failure.Status != ErrorShape || !strings.Contains(err.Error(), "qlora_weight_matmul: y") {
		t.Error(err)
	}
	if _, err = New(77, nil); err == nil || !strings.Contains(err.Error(), "qlora_context_create") {
		t.Error(err)
	}
	if _, err = context.Quantize("nonsense", 1, 1, []float32{0}); err == nil {
		t.Error("a format called nonsense")
	}
}

func TestALogReceivesLinesAndAPanicInItComesOut(t *testing.T) {
	var lines []string
	_, context, weight := begin(t, CPU, func(line string) { lines = append(lines, line) })
	if weight.MatMul(must(context.Zeros(1))(t), 1, must(context.Zeros(1))(t)) == nil {
		t.Error("a matrix of one element is taken")
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "qlora_weight_matmul") {
		t.Error(lines)
	}

	f, context, weight := begin(t, CPU, func(line string) { panic("thrown at " + line) })
	func() {
		defer func() {
			if reason, _ := recover().(string); !strings.HasPrefix(reason, "thrown at qlora_weight_matmul") {
				t.Errorf("the panic was lost: %q", reason)
			}
		}()
		weight.MatMul(must(context.Zeros(1))(t), 1, must(context.Zeros(1))(t))
	}()
	if err := weight.MatMul(must(context.Buffer(f.X))(t), f.Tokens, must(context.Zeros(len(f.Y)))(t)); err != nil { // and all goes on
		t.Error(err)
	}
}

func TestQuantizeAndMatMul(t *testing.T) {
	for _, backend := range []int32{Reference, CPU} {
		f, context, weight := begin(t, backend, nil)
		y := must(context.Zeros(len(f.Y)))(t)
		if err := weight.MatMul(must(context.Buffer(f.X))(t), f.Tokens, y); err != nil {
			t.Fatal(err)
		}
		if error := distance(wide(must(y.Read())(t)), f.Y); error > f.MatmulTolerance {
			t.Errorf("backend %d is off by %g", backend, error)
		}
	}
}

func TestFiveStepsOfTraining(t *testing.T) {
	for _, backend := range []int32{Reference, CPU} {
		f, context, weight := begin(t, backend, nil)
		adapter := must(NewAdapter(weight, f.Train.Rank, f.Train.Scale, f.Train.A))(t)
		x, y := must(context.Buffer(f.X))(t), must(context.Zeros(len(f.Train.Goal)))(t)
		var losses []float64
		for step := 0; step < 5; step++ {
			if err := adapter.Forward(x, f.Tokens, y); err != nil {
				t.Fatal(err)
			}
			dy, loss := must(y.Read())(t), 0.0
			for i := range dy {
				dy[i] -= f.Train.Goal[i]
				loss += float64(dy[i]) * float64(dy[i]) / 2
			}
			losses = append(losses, loss)
			for _, err := range []error{y.Write(dy), adapter.Backward(x, f.Tokens, y), adapter.Step(f.Train.LearningRate)} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		adapter.Close()
		if error := distance(losses, f.Train.Losses); error > f.Train.Tolerance {
			t.Errorf("backend %d: losses %v", backend, losses)
		}
	}
}

func TestContextsComeAndGo(t *testing.T) {
	for i := 0; i < 1000; i++ {
		context := must(New(CPU, func(string) {}))(t)
		if must(context.Name())(t) == "" {
			t.Fatal("no name")
		}
		context.Close()
	}
}
