// qlora_bench [--backend B] [--device N] [--isa I] [--only TEXT,TEXT] [--quick]: one self-describing row per measurement.
#include "tests/bench/bench.h"

#include <cstdio>
#include <cstdlib>

int main(int count, char **arguments) {
    bench::Settings settings;
    settings.target = {"", QLORA_BACKEND_CPU, 0, QLORA_ISA_BEST};
    for (int i = 1; i < count; i++) {
        const std::string argument = arguments[i], value = i + 1 < count ? arguments[i + 1] : "";
        if (argument == "--quick") settings.quick = true;
        else if (argument == "--backend") settings.target.backend = test::backend_by_name(value), i++;
        else if (argument == "--device") settings.target.device = std::atoi(value.c_str()), i++;
        else if (argument == "--isa") settings.target.isa = test::isa_by_name(value), i++;
        else if (argument == "--only") settings.only = value, i++;
        else settings.target.backend = 0;
    }
    if (settings.target.backend == 0 || settings.target.isa < 0) {
        std::fprintf(stderr, "usage: qlora_bench [--backend cpu|cuda|vulkan] [--device N] [--isa scalar|avx2|avx512] [--only TEXT,TEXT] [--quick]\n");
        return 2;
    }
    try {
        bench::Bench bench(settings);
        bench.ceilings();
        bench::bench_quantize(bench);
        bench::bench_dequantize(bench);
        bench::bench_matmul(bench);
        bench::bench_linear(bench);
        bench::bench_int8(bench);
        bench::bench_calibration(bench);
        bench::bench_elementwise(bench);
        bench::bench_attention(bench);
        bench::bench_cross_entropy(bench);
        bench::bench_optimizer(bench);
        std::printf("\n%llu rows, %llu of them void\n", (unsigned long long)bench.printed(), (unsigned long long)bench.void_rows());
        return bench.void_rows() || bench.printed() == 0 ? 1 : 0;
    } catch (const qlora::Error &error) {
        std::printf("%s: %s\n", error.status() == QLORA_ERROR_UNAVAILABLE ? "SKIPPED" : "FAILED", error.what());
        return error.status() == QLORA_ERROR_UNAVAILABLE ? test::skip_code : 1;
    }
}
