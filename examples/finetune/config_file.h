// Options in a file, a line each, as TOML has them: learning-rate = 1e-3, data = "rows.jsonl", strict = true. Names are those
// of the command line, which wins where it says the same.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace finetune {

struct ConfigEntry {
    std::string name, value;
    int line;
    bool is_text; // in quotes
};

// Throws an Error that names file and line, for what is not a name and a value: strings, numbers, true and false.
std::vector<ConfigEntry> parse_config(const std::string &text, const std::string &path);

// Puts the options of --config FILE, or of the folder of --resume FOLDER, before those of the command line. Names that `app`
// does not have are an Error with the nearest one that it has.
void expand_config(const CLI::App &app, std::vector<std::string> &arguments);

// All options of `app` with their values, defaults too, but for those of the run's own place. Paths become absolute, so that the
// file does the same from anywhere.
std::string config_text(const CLI::App &app);

} // namespace finetune
