// A trainer that knows ggml only: forward, backward and AdamW by ggml, on whatever backends it finds. Run with GGML_BACKEND_PATH set, the
// products with quantized weights are computed elsewhere; this program is the same.
//   host [STEPS] [TYPE: q4_0, q8_0, q4_K, ...] [THREADS]
#include "model.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int count, char **arguments) {
    const int steps = count > 1 ? std::atoi(arguments[1]) : 10;
    const int threads = count > 3 ? std::atoi(arguments[3]) : 2;
    ggml_type type = GGML_TYPE_Q4_0;
    for (int i = 0; count > 2 && i < GGML_TYPE_COUNT; i++)
        if (ggml_type_name(ggml_type(i)) && std::strcmp(ggml_type_name(ggml_type(i)), arguments[2]) == 0) type = ggml_type(i);

    ggml_backend_load_all();
    std::vector<ggml_backend_t> backends; // accelerators before the CPU, as the scheduler wants it
    for (auto kind : {GGML_BACKEND_DEVICE_TYPE_ACCEL, GGML_BACKEND_DEVICE_TYPE_CPU})
        for (size_t i = 0; i < ggml_backend_dev_count(); i++)
            if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == kind) backends.push_back(ggml_backend_dev_init(ggml_backend_dev_get(i), nullptr));
    for (ggml_backend_t backend : backends) {
        ggml_backend_reg_t registration = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
        const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(registration, "ggml_backend_set_n_threads"));
        if (set_threads) set_threads(backend, threads);
    }
    ggml_backend_sched_t scheduler = ggml_backend_sched_new(backends.data(), nullptr, int(backends.size()), 512, false, true);

    // Weights and what is trained live in a buffer of their own; activations and gradients in the scheduler's.
    ggml_context *weights = ggml_init({64 * ggml_tensor_overhead(), nullptr, true}), *compute = ggml_init({512 * ggml_tensor_overhead() + ggml_graph_overhead_custom(512, true), nullptr, true});
    const Layer first(weights, type, width, width), second(weights, type, width, outputs);
    ggml_tensor *x = ggml_new_tensor_2d(weights, GGML_TYPE_F32, width, tokens), *goal = ggml_new_tensor_2d(weights, GGML_TYPE_F32, outputs, tokens);
    ggml_tensor *adamw = ggml_new_tensor_1d(weights, GGML_TYPE_F32, 7);
    std::vector<ggml_tensor *> trained = {first.a, first.b, second.a, second.b}, moments;
    for (ggml_tensor *tensor : trained) {
        ggml_set_param(tensor);
        for (int i = 0; i < 2; i++) moments.push_back(ggml_dup_tensor(weights, tensor));
    }
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(weights, ggml_backend_cpu_buffer_type());
    first.fill(1);
    second.fill(4);
    put(x, numbers(ggml_nelements(x), 8), 1);
    put(goal, numbers(ggml_nelements(goal), 9), 1);
    for (ggml_tensor *tensor : moments) ggml_backend_tensor_memset(tensor, 0, 0, ggml_nbytes(tensor));

    ggml_cgraph *graph = ggml_new_graph_custom(compute, 512, true);
    ggml_tensor *error = ggml_sub(compute, second.forward(compute, ggml_silu(compute, first.forward(compute, x))), goal);
    ggml_tensor *loss = ggml_scale(compute, ggml_sum(compute, ggml_sqr(compute, error)), 1.0f / float(outputs * tokens));
    ggml_set_loss(loss);
    ggml_set_output(loss);
    ggml_build_forward_expand(graph, loss);
    ggml_build_backward_expand(compute, graph, nullptr);
    for (size_t i = 0; i < trained.size(); i++)
        ggml_build_forward_expand(graph, ggml_opt_step_adamw(compute, trained[i], ggml_graph_get_grad(graph, trained[i]), moments[2 * i], moments[2 * i + 1], adamw));
    ggml_backend_sched_alloc_graph(scheduler, graph);
    ggml_graph_reset(graph);
    for (ggml_tensor *tensor : moments) ggml_backend_tensor_memset(tensor, 0, 0, ggml_nbytes(tensor));

    const auto begin = std::chrono::steady_clock::now();
    for (int step = 1; step <= steps; step++) {
        const float beta1 = 0.9f, beta2 = 0.999f;
        const float parameters[7] = {0.01f, beta1, beta2, 1e-8f, 0, 1 / (1 - std::pow(beta1, float(step))), 1 / (1 - std::pow(beta2, float(step)))};
        ggml_backend_tensor_set(adamw, parameters, 0, sizeof parameters);
        if (ggml_backend_sched_graph_compute(scheduler, graph) != GGML_STATUS_SUCCESS) return 1;
        float value = 0;
        ggml_backend_tensor_get(loss, &value, 0, sizeof value);
        std::printf("loss %.6f\n", double(value));
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("seconds %.3f\nsplits %d\n", seconds, ggml_backend_sched_get_n_splits(scheduler));
    ggml_backend_sched_free(scheduler);
    for (ggml_backend_t backend : backends) ggml_backend_free(backend);
    ggml_backend_buffer_free(buffer);
    ggml_free(compute);
    ggml_free(weights);
    return 0;
}
