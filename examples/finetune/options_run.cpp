// The options of train that say how a run is kept, watched and resumed, and what its adapter is.
#include "options_run.h"

#include "file.h"
#include "options.h"

#include <CLI/CLI.hpp>

namespace finetune {

void add_run_options(CLI::App &app, Options &o) {
    const auto number = [&](const char *name, auto &value, const char *group, const char *about) {
        app.add_option(name, value, about)->capture_default_str()->group(group);
    };
    app.add_option("--config", o.config,
                   "read options from this TOML file, lines name = value; the command line wins. A run's folder holds one that "
                   "repeats it")
        ->group("Run");
    app.add_option("--run-dir", o.run.folder,
                   "a new folder for the run: checkpoints, metrics.jsonl, report.html, config.toml, and adapter.gguf unless --out "
                   "says another place")
        ->group("Run");
    app.add_option("--resume", o.train.resume,
                   "go on with the run of this folder, from its newest checkpoint, to the same bits as without the pause; or with a "
                   "file that --save-state wrote, up to --steps or --epochs")
        ->group("Run");
    number("--save-every", o.run.save_every, "Run", "steps between checkpoints; 0: twenty checkpoints a run");
    number("--keep", o.run.keep, "Run", "checkpoints that stay: the last so many, besides the best");
    number("--eval-every", o.run.eval_every, "Run", "steps between validations on the held-out rows; 0: before and after only");
    number("--early-stop", o.run.watchdog.early_stop, "Run", "end well after so many validations without a new best; 0: never");
    number("--bad-steps", o.run.watchdog.bad_steps, "Run",
           "give up after so many steps in a row that are not finite; fewer are skipped");
    number("--divergence", o.run.watchdog.divergence, "Run",
           "give up when the loss' moving average is so many times its best, and 1 more; 0: never");
}

void add_adapter_options(CLI::App &app, Options &o) {
    app.add_option("--targets", o.targets,
                   "linear layers with an adapter: all, attention, feed-forward, or some of q,k,v,o,gate,up,down (qkv and gate_up where "
                   "a model has them in one)")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--lora-dropout", o.train.dropout, "share of the adapters' inputs that a step leaves out, 0 to below 1")
        ->capture_default_str()
        ->group("Training");
    app.add_flag("--rslora", o.rslora, "scale updates by alpha / sqrt(rank) (rsLoRA): steadier at high ranks")->group("Training");
    app.add_option("--lora-plus", o.train.optimizer.b_rate, "learn B so many times as fast as A (LoRA+), as 16; 0: as fast")
        ->capture_default_str()
        ->group("Training");
}

void check_run_options(Options &o) {
    check_range("--lora-dropout", o.train.dropout, 0, 0.99);
    check_range("--lora-plus", o.train.optimizer.b_rate, 0, 1e4);
    RunOptions &run = o.run;
    check_range("--keep", run.keep, 1, 1e6);
    check_range("--save-every", double(run.save_every), 0, 1e9);
    check_range("--eval-every", double(run.eval_every), 0, 1e9);
    check_range("--bad-steps", run.watchdog.bad_steps, 1, 1e6);
    check_range("--divergence", run.watchdog.divergence, 0, 1e6);
    if (run.watchdog.divergence > 0) check_range("--divergence", run.watchdog.divergence, 1, 1e6);
    for (std::string *folder : {&run.folder, &o.train.resume})
        while (folder->size() > 1 && folder->back() == '/') folder->pop_back();
    if (is_directory(o.train.resume)) {
        if (!run.folder.empty() && run.folder != o.train.resume) fail("--run-dir and --resume ", o.train.resume, ": give one of them");
        run.folder = o.train.resume;
        run.resume = true;
        o.train.resume.clear();
    }
    const bool held_out = !o.eval_data.empty() || !o.eval_ids.empty() || o.eval_fraction > 0;
    if (run.eval_every > 0 && !held_out) fail("--eval-every needs held-out rows: give --eval-data, --eval-ids or --eval-fraction");
    if (run.watchdog.early_stop > 0 && run.eval_every == 0) fail("--early-stop counts validations: give --eval-every");
    if (!run.folder.empty() && o.out.empty()) o.out = run.folder + "/adapter.gguf";
}

} // namespace finetune
