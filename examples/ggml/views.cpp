// Forward by a ggml graph, backward and optimizer by qlora, over the same memory: a ggml tensor in a CPU buffer is a view for qlora,
// and nothing is copied. Each step's gradients are held against those of the reference backend.
//
// With CUDA the same spans carry device pointers, between ggml_backend_synchronize and qlora_context_synchronize (or one stream for
// both). ggml keeps its Vulkan device to itself, so there qlora has its own and tensors go through the host.
#include "model.h"
#include "qlora.h"

#include <cstdio>
#include <cstdlib>

namespace {

template <class Args> Args sized() {
    Args args = {};
    args.struct_size = sizeof args;
    return args;
}
qlora_span span_of(void *data, uint64_t bytes) { return {reinterpret_cast<uint64_t>(data), 0, bytes}; }
qlora_tensor view_of(const ggml_tensor *tensor) {
    return {QLORA_FORMAT_F32, 0, uint64_t(ggml_nrows(tensor)), uint64_t(tensor->ne[0]), 0, span_of(tensor->data, ggml_nbytes(tensor))};
}
qlora_tensor view_of(std::vector<float> &values, uint64_t rows) {
    return {QLORA_FORMAT_F32, 0, rows, values.size() / rows, 0, span_of(values.data(), values.size() * sizeof(float))};
}

struct Device {
    qlora_context *context = nullptr;
    std::vector<char> scratch;
    explicit Device(int32_t backend) {
        auto args = sized<qlora_context_args>();
        args.backend = backend;
        if (qlora_context_create(&args, &context) != QLORA_OK) std::exit(1);
    }
    ~Device() { qlora_context_destroy(context); }
    template <class Args> void run(uint32_t operation, int32_t (*call)(qlora_context *, const Args *), Args args) {
        uint64_t bytes = 0;
        int32_t status = qlora_operation_scratch(context, operation, &args, &bytes);
        scratch.resize(bytes + 256);
        args.scratch = span_of(scratch.data(), scratch.size());
        args.scratch.offset = 256 - args.scratch.handle % 256;
        args.scratch.size -= args.scratch.offset;
        if (status == QLORA_OK) status = call(context, &args);
        if (status != QLORA_OK) std::fprintf(stderr, "%s\n", qlora_context_message(context)), std::exit(1);
    }
};

double distance(const std::vector<float> &found, const std::vector<float> &expected) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < found.size(); i++) error += std::pow(double(found[i]) - expected[i], 2), norm += std::pow(double(expected[i]), 2);
    return std::sqrt(error / norm);
}

} // namespace

int main(int count, char **arguments) {
    const double tolerance = count > 1 ? std::atof(arguments[1]) : 5e-6; // of linear_grad in f32, as backends/ops.def has it
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, 2);
    ggml_context *context = ggml_init({64 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true});
    const Layer layer(context, GGML_TYPE_Q4_K, width, outputs);
    ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, width, tokens), *y = layer.forward(context, x);
    ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    layer.fill(1);
    put(x, numbers(ggml_nelements(x), 8), 1);
    const std::vector<float> goal = numbers(ggml_nelements(y), 9);

    Device cpu(QLORA_BACKEND_CPU), ref(QLORA_BACKEND_REF);
    auto weight = sized<qlora_weight>();
    weight.format = 0x100 + int32_t(layer.w->type);
    weight.rows = outputs;
    weight.cols = width;
    weight.planes[QLORA_PLANE_CODE] = span_of(layer.w->data, ggml_nbytes(layer.w));
    const size_t a_count = size_t(ggml_nelements(layer.a)), b_count = size_t(ggml_nelements(layer.b));
    std::vector<float> da(a_count), db(b_count), dx(size_t(width * tokens)), a1(a_count), a2(a_count), b1(b_count), b2(b_count);
    std::vector<float> true_da(a_count), true_db(b_count), true_dx(dx.size());

    double first = 0, last = 0, worst = 0;
    const int steps = 30;
    for (int step = 1; step <= steps; step++) {
        if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) return 1; // returns when y is there
        float *dy = static_cast<float *>(y->data); // of the mean squared error, in place of y
        last = 0;
        for (size_t i = 0; i < goal.size(); i++) {
            dy[i] -= goal[i];
            last += double(dy[i]) * dy[i] / double(goal.size());
            dy[i] *= 2 / float(goal.size());
        }
        if (step == 1) first = last;

        auto grad = sized<qlora_linear_grad_args>();
        grad.weight = &weight;
        grad.x = view_of(x);
        grad.dy = view_of(y);
        grad.a = view_of(layer.a);
        grad.b = view_of(layer.b);
        grad.scale = adapter_scale;
        grad.dx = view_of(dx, tokens);
        grad.da = view_of(da, rank);
        grad.db = view_of(db, outputs);
        cpu.run(QLORA_OP_LINEAR_GRAD, qlora_linear_grad, grad);
        grad.dx = view_of(true_dx, tokens);
        grad.da = view_of(true_da, rank);
        grad.db = view_of(true_db, outputs);
        ref.run(QLORA_OP_LINEAR_GRAD, qlora_linear_grad, grad);
        // B is zero at first, and with it the gradient of A.
        for (const double error : {distance(dx, true_dx), step == 1 ? 0 : distance(da, true_da), distance(db, true_db)})
            if (!(error <= worst)) worst = error;

        qlora_parameter parameters[2] = {sized<qlora_parameter>(), sized<qlora_parameter>()};
        parameters[0].count = a_count;
        parameters[0].value = span_of(layer.a->data, a_count * 4);
        parameters[0].gradient = span_of(da.data(), a_count * 4);
        parameters[0].state1 = span_of(a1.data(), a_count * 4);
        parameters[0].state2 = span_of(a2.data(), a_count * 4);
        parameters[1].count = b_count;
        parameters[1].value = span_of(layer.b->data, b_count * 4);
        parameters[1].gradient = span_of(db.data(), b_count * 4);
        parameters[1].state1 = span_of(b1.data(), b_count * 4);
        parameters[1].state2 = span_of(b2.data(), b_count * 4);
        auto optimizer = sized<qlora_optimizer_args>();
        optimizer.parameters = parameters;
        optimizer.parameter_count = 2;
        optimizer.algorithm = QLORA_OPTIMIZER_ADAMW;
        optimizer.step = uint64_t(step);
        optimizer.learning_rate = 0.01f;
        cpu.run(QLORA_OP_OPTIMIZER_STEP, qlora_optimizer_step, optimizer);
    }
    std::printf("loss %.4f -> %.4f in %d steps; gradients within %.1e of ref (allowed %.1e)\n", first, last, steps, worst, tolerance);
    ggml_backend_buffer_free(buffer);
    ggml_backend_free(backend);
    ggml_free(context);
    // Of a goal that is noise a rank of 8 fits about 16 %, as hundreds of steps show; most of that is to be there.
    return last < 0.9 * first && worst <= tolerance ? 0 : 1;
}
