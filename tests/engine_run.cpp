// What keeps and watches a training run of examples/finetune: checkpoints, metrics, the watchdog, loss scaling, targets, the report.
// Kills are for kill_resume.sh.
#include "engine_support.h"

#include "adapter_file.h"
#include "base_model.h"
#include "html_report.h"
#include "signals.h"
#include "targets.h"
#include "trainable.h"
#include "watchdog.h"

#include <cmath>
#include <csignal>
#include <filesystem>

using namespace finetune;

namespace {

struct Folder {
    Folder() {
        static int count = 0;
        path = (std::filesystem::temp_directory_path() / ("engine_run_" + std::to_string(getpid()) + "_" + std::to_string(count++))).string();
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

StepReport report_of(uint64_t step, double loss) {
    StepReport report = {step};
    report.loss = loss;
    return report;
}

void fill(const std::string &place) { write_text(place + "/state", place); }

} // namespace

TEST_CASE("checkpoints: complete or not there, the last few and the best stay") {
    const Folder folder;
    {
        Checkpoints checkpoints(folder.path);
        for (uint64_t step : {3, 6, 9, 12}) checkpoints.write(step, fill);
        checkpoints.prune(2, 3);
        CHECK(checkpoints.steps() == std::vector<uint64_t>{3, 9, 12});
        // One that cannot be filled leaves nothing, and neither does one that cannot be renamed.
        CHECK(error_of([&] { checkpoints.write(15, [](const std::string &) { fail("no room"); }); }) == "no room");
        const auto rename = file_functions.rename;
        file_functions.rename = [](const char *, const char *) { return EIO; };
        CHECK(error_of([&] { checkpoints.write(15, [](const std::string &) {}); }).find("cannot be completed") != std::string::npos);
        file_functions.rename = rename;
        CHECK(checkpoints.steps() == std::vector<uint64_t>{3, 9, 12});
        checkpoints.set_aside(12);
        CHECK(checkpoints.steps() == std::vector<uint64_t>{3, 9});
    }
    // What a kill leaves is gone at the next start.
    std::filesystem::create_directory(folder.path + "/filling-step-00000015");
    std::filesystem::create_directory(folder.path + "/leaving-step-00000003");
    CHECK(Checkpoints(folder.path).steps() == std::vector<uint64_t>{3, 9});
    CHECK(!exists(folder.path + "/filling-step-00000015"));
    CHECK(!exists(folder.path + "/leaving-step-00000003"));
}

TEST_CASE("run folder: one process, one run; metrics go back to a step and lose a torn line") {
    const Folder folder;
    CHECK(error_of([&] { RunFolder(folder.path, true); }).find("holds no run") != std::string::npos);
    {
        RunFolder run(folder.path, false);
        CHECK(error_of([&] { RunFolder(folder.path, true); }).find("another process") != std::string::npos);
        for (uint64_t step : {1, 2, 3}) run.log({{"step", step}, {"loss", 1.5}});
    }
    CHECK(error_of([&] { RunFolder(folder.path, false); }).find("holds a run already") != std::string::npos);
    RunFolder run(folder.path, true);
    std::ofstream(run.file("metrics.jsonl"), std::ios::app) << "{\"step\": 2, \"lo";
    run.rewind_log(2);
    run.log({{"step", 3}, {"loss", NAN}});
    const std::vector<Json> records = run.records();
    REQUIRE(records.size() == 3);
    CHECK(records[2]["step"] == 3);
    CHECK(records[2]["loss"].is_null());
    run.rewind_log({});
    CHECK(run.records().empty());
}

TEST_CASE("watchdog: not finite, running away, over-fit, early stop; its memory comes back") {
    WatchdogOptions options;
    options.bad_steps = 3;
    options.early_stop = 4;
    {
        Watchdog watchdog(options);
        CHECK(!watchdog.observe(report_of(0, NAN)));
        CHECK(!watchdog.observe(report_of(1, INFINITY)));
        CHECK(!watchdog.observe(report_of(2, 1)));
        CHECK(!watchdog.observe(report_of(3, NAN)));
        CHECK(!watchdog.observe(report_of(4, NAN)));
        Watchdog later(options);
        later.load(parse_json(watchdog.save().dump(), "notes", 4));
        const auto problem = later.observe(report_of(5, NAN));
        REQUIRE(problem);
        CHECK(problem->find("step 6: ") == 0);
        CHECK(problem->find("--learning-rate") != std::string::npos);
    }
    {
        Watchdog watchdog(options);
        uint64_t step = 0;
        for (; step < 50; ++step) CHECK(!watchdog.observe(report_of(step, 1)));
        CHECK(watchdog.average() == doctest::Approx(1));
        std::optional<std::string> problem;
        while (!problem && step < 200) problem = watchdog.observe(report_of(step++, 9));
        REQUIRE(problem);
        CHECK(problem->find("ran away") != std::string::npos);
        CHECK(step < 70);
        options.divergence = 0;
        Watchdog patient(options);
        for (step = 0; step < 100; ++step) CHECK(!patient.observe(report_of(step, step < 50 ? 1 : 1e6)));
    }
    Watchdog watchdog(options);
    CHECK(watchdog.validated(10, 2) == Watchdog::Verdict::best);
    CHECK(watchdog.validated(20, 1) == Watchdog::Verdict::best);
    CHECK(watchdog.validated(30, 1.1) == Watchdog::Verdict::fine);
    CHECK(watchdog.validated(40, 1.2) == Watchdog::Verdict::fine);
    CHECK(watchdog.validated(50, 1.3) == Watchdog::Verdict::overfit);
    Watchdog later(options);
    later.load(parse_json(watchdog.save().dump(), "notes", 4));
    CHECK(later.validated(60, 1.4) == Watchdog::Verdict::stop);
    CHECK(later.best_step() == 20);
    CHECK(*later.best_validation() == 1);
}

TEST_CASE("loss scale: halved by an overflow, doubled after many steps without") {
    LossScale scale;
    const float first = scale.value;
    scale.update(false);
    CHECK(scale.value == first / 2);
    for (uint64_t i = 0; i < LossScale::growth_steps; ++i) scale.update(true);
    CHECK(scale.value == first);
    for (int i = 0; i < 100; ++i) scale.update(false);
    CHECK(scale.value == LossScale::least);
    // While it can fall, an overflow of the gradient alone does not count as a bad step.
    WatchdogOptions options;
    options.bad_steps = 1;
    Watchdog watchdog(options);
    StepReport report = report_of(0, 1);
    report.gradient_norm = INFINITY;
    report.loss_scale = 2;
    CHECK(!watchdog.observe(report));
    report.loss_scale = LossScale::least;
    CHECK(watchdog.observe(report));
}

TEST_CASE("targets: by group, short name and Hugging Face's; an unknown one is told what there is") {
    const Gguf file(bundled_model());
    const ModelShape shape = read_model_shape(file);
    const auto chosen = [&](const std::string &names) {
        AdapterShape adapter = shape.adapter_shape(4);
        choose_targets(adapter, names);
        std::vector<Linear> list;
        for (const AdapterLinear &linear : adapter.linears) list.push_back(linear.use);
        return list;
    };
    CHECK(chosen("all").size() == 7);
    CHECK(chosen("attention") == std::vector<Linear>{linear_q, linear_k, linear_v, linear_output});
    CHECK(chosen("v_proj,q,down") == std::vector<Linear>{linear_q, linear_v, linear_down});
    CHECK(chosen("feed-forward,o") == std::vector<Linear>{linear_output, linear_gate, linear_up, linear_down});
    CHECK(error_of([&] { chosen("q,gatee"); }).find("--targets 'gatee': this model's linear layers are") == 0);
    CHECK(error_of([&] { chosen(","); }).find("--targets") == 0);
    AdapterShape adapter = shape.adapter_shape(4);
    choose_targets(adapter, "q,v");
    const Scratch written("", ".gguf");
    const Adapter initial = initial_adapter(adapter, 8, 1);
    write_adapter_gguf(written.path, initial, adapter);
    CHECK(Gguf(written.path).tensors().size() == 2 * 2 * shape.layers);
    CHECK(read_adapter_file(written.path).pairs.at(1).a == initial.pairs.at(1).a);
}

TEST_CASE("signals: a terminal that closes and a pipe that nobody reads ask for the end, too, unless they are ignored") {
    const auto before = std::signal(SIGHUP, SIG_DFL), pipe_before = std::signal(SIGPIPE, SIG_DFL);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
        CAPTURE(signal);
        const StopSignals signals;
        CHECK(!signals.stop());
        raise(signal);
        CHECK(signals.stop());
    }
    for (const int signal : {SIGHUP, SIGPIPE}) {
        CAPTURE(signal);
        std::signal(signal, SIG_IGN);
        const StopSignals signals;
        raise(signal);
        CHECK(!signals.stop());
    }
    std::signal(SIGHUP, before);
    std::signal(SIGPIPE, pipe_before);
}

TEST_CASE("report: data cannot leave its place in the page") {
    const Folder folder;
    RunFolder run(folder.path, false);
    write_text(run.file("config.toml"), "# comment\ndata = \"a<b>.jsonl\"\nrank = 8\n");
    write_report(run);
    CHECK(std::string(MappedFile(run.file("report.html")).text()).find("Nothing yet") != std::string::npos);
    for (uint64_t step = 1; step <= 4000; ++step)
        run.log({{"step", step}, {"loss", step == 7 ? NAN : 1.0 / double(step)}, {"average", 1}, {"learning_rate", 1e-4}, {"gradient_norm", 2}});
    run.log({{"step", 4000}, {"validation_loss", 0.5}});
    write_report(run, {{"<script>alert(1)</script>", "\xff\x01 & \"q\"", "b", "</pre><img src=x>"}});
    const MappedFile file(run.file("report.html"));
    const std::string page(file.text());
    CHECK(page.find("<script") == std::string::npos);
    CHECK(page.find("<img") == std::string::npos);
    CHECK(page.find("&lt;script&gt;") != std::string::npos);
    CHECK(page.find("&#xfffd;&#xfffd; &amp; &quot;q&quot;") != std::string::npos);
    CHECK(page.find("a&lt;b&gt;.jsonl") != std::string::npos);
    CHECK(page.find("http") == std::string::npos);
    CHECK(page.find("nan") == std::string::npos);
    CHECK(page.size() < 400000);
}
