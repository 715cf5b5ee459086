#include "checkpoints.h"

#include "error.h"
#include "file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

namespace finetune {
namespace {

namespace fs = std::filesystem;
const char *const prefix = "step-", *const filling = "filling-", *const leaving = "leaving-";

bool begins(const std::string &name, const char *with) { return name.compare(0, strlen(with), with) == 0; }

void rename_folder(const std::string &from, const std::string &to) {
    const int error = file_functions.rename(from.c_str(), to.c_str());
    if (error != 0) fail(to, ": cannot be completed: ", strerror(error));
}

} // namespace

Checkpoints::Checkpoints(const std::string &folder) : folder_(folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(folder, ": cannot be created: ", error.message());
    std::vector<fs::path> broken;
    for (const fs::directory_entry &entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        if (begins(name, filling) || begins(name, leaving)) broken.push_back(entry.path());
    }
    for (const fs::path &path : broken) fs::remove_all(path, error);
}

std::string Checkpoints::path(uint64_t step) const {
    char name[32];
    snprintf(name, sizeof name, "%s%08llu", prefix, static_cast<unsigned long long>(step));
    return folder_ + "/" + name;
}

std::vector<uint64_t> Checkpoints::steps() const {
    std::vector<uint64_t> found;
    std::error_code error;
    for (const fs::directory_entry &entry : fs::directory_iterator(folder_, error)) {
        const std::string name = entry.path().filename().string();
        if (!begins(name, prefix)) continue;
        const std::string digits = name.substr(strlen(prefix));
        if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) continue;
        found.push_back(strtoull(digits.c_str(), nullptr, 10));
    }
    std::sort(found.begin(), found.end());
    return found;
}

void Checkpoints::write(uint64_t step, const std::function<void(const std::string &)> &fill) {
    const std::string place = path(step), name = place.substr(folder_.size() + 1), unfinished = folder_ + "/" + filling + name;
    if (is_directory(place)) return;
    std::error_code error;
    fs::remove_all(unfinished, error);
    if (!fs::create_directory(unfinished, error)) fail(unfinished, ": cannot be created: ", error.message());
    try {
        fill(unfinished);
        rename_folder(unfinished, place);
    } catch (...) {
        fs::remove_all(unfinished, error);
        throw;
    }
    sync_folder(folder_);
}

void Checkpoints::discard(uint64_t step) {
    const std::string place = path(step), gone = folder_ + "/" + leaving + place.substr(folder_.size() + 1);
    rename_folder(place, gone);
    std::error_code error;
    fs::remove_all(gone, error);
}

void Checkpoints::set_aside(uint64_t step) {
    const std::string place = path(step), aside = folder_ + "/damaged-" + place.substr(folder_.size() + 1);
    std::error_code error;
    fs::remove_all(aside, error);
    rename_folder(place, aside);
}

void Checkpoints::prune(uint32_t keep, std::optional<uint64_t> best) {
    const std::vector<uint64_t> all = steps();
    for (size_t i = 0; i + keep < all.size(); ++i)
        if (!best || all[i] != *best) discard(all[i]);
}

} // namespace finetune
