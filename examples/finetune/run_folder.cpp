#include "run_folder.h"

#include "file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <unistd.h>

namespace finetune {
namespace {

const char *const no_run = ": holds no run: neither config.toml nor checkpoints; --resume takes the folder of --run-dir, or a file of --save-state";

// Whether training has begun there: a run that failed before leaves empty places only.
bool holds_run(const std::string &path) {
    std::error_code error;
    const bool checkpoints = exists(path + "/checkpoints") && !std::filesystem::is_empty(path + "/checkpoints", error);
    const bool metrics = exists(path + "/metrics.jsonl") && std::filesystem::file_size(path + "/metrics.jsonl", error) > 0;
    return checkpoints || metrics || exists(path + "/config.toml");
}

// The lock of a folder is a file's, which the system gives back when a process ends, however it ends.
int lock_folder(const std::string &path) {
    const std::string name = path + "/.lock";
    const int lock = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0) fail(path, ": cannot be written to: ", strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        const int why = errno;
        close(lock);
        if (why == EWOULDBLOCK) fail(path, ": another process trains in this folder; wait for it, or end it");
        // Some network file systems have no locks: go on without.
        return -1;
    }
    return lock;
}

int take(const std::string &path, bool resume) {
    if (resume && !exists(path + "/.lock") && !holds_run(path)) fail(path, no_run);
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) fail(path, ": cannot be created: ", error.message());
    const int lock = lock_folder(path);
    if (holds_run(path) == resume) return lock;
    if (lock >= 0) close(lock);
    if (resume) fail(path, no_run);
    fail(path, ": holds a run already; go on with --resume ", path, ", or give --run-dir another name");
}

// The lines that are whole records.
template <class Take> void read_records(const std::string &path, Take take) {
    if (!exists(path)) return;
    const MappedFile file(path);
    const std::string_view text = file.text();
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string_view::npos; begin = end + 1) {
        const std::string_view line = text.substr(begin, end - begin);
        const Json record = Json::parse(line.begin(), line.end(), nullptr, false);
        if (record.is_object() && record.contains("step") && record["step"].is_number_unsigned()) take(record, line);
    }
}

} // namespace

RunFolder::RunFolder(const std::string &path, bool resume)
    : path_(path), lock_(take(path, resume)), checkpoints_(path + "/checkpoints") {
    open_log();
}

RunFolder::~RunFolder() {
    if (log_ >= 0) close(log_);
    if (lock_ >= 0) close(lock_);
}

void RunFolder::open_log() {
    if (log_ >= 0) close(log_);
    const std::string name = file("metrics.jsonl");
    log_ = open(name.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_ < 0) fail(name, ": cannot be written: ", strerror(errno));
}

void RunFolder::log(const Json &record) {
    const std::string line = record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    const int error = file_functions.write(log_, line.data(), line.size());
    if (error != 0) fail(file("metrics.jsonl"), ": cannot be written: ", strerror(error));
}

void RunFolder::flush_log() {
    if (fsync(log_) != 0) fail(file("metrics.jsonl"), ": cannot be flushed to the disk: ", strerror(errno));
}

void RunFolder::rewind_log(std::optional<uint64_t> step) {
    std::string kept;
    read_records(file("metrics.jsonl"), [&](const Json &record, std::string_view line) {
        if (step && record["step"].get<uint64_t>() <= *step) kept.append(line) += '\n';
    });
    write_text(file("metrics.jsonl"), kept);
    open_log();
}

std::vector<Json> RunFolder::records() const {
    std::vector<Json> all;
    read_records(file("metrics.jsonl"), [&](const Json &record, std::string_view) { all.push_back(record); });
    return all;
}

void write_text(const std::string &path, const std::string &text) {
    NewFile file(path);
    file.write(text.data(), text.size());
    file.commit();
}

} // namespace finetune
