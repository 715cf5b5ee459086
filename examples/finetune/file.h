// Files, through functions that tests may replace: whole files mapped read-only, and new files that appear complete or
// not at all (written beside their final name, flushed to the disk, renamed).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace finetune {

// Each returns 0 or an errno value.
struct FileFunctions {
    int (*map)(const char *path, const uint8_t **data, uint64_t *size);
    void (*unmap)(const uint8_t *data, uint64_t size);
    int (*create)(const char *path, int *file);
    int (*write)(int file, const void *data, size_t size);
    int (*finish)(int file); // flush to the disk and close
    int (*rename)(const char *from, const char *to);
    void (*remove)(const char *path);
    int (*sync_folder)(const char *path); // names in it are on the disk
};

extern FileFunctions file_functions;

// A file as a span of bytes for as long as the object lives. Throws Error when it cannot be read.
class MappedFile {
public:
    explicit MappedFile(const std::string &path);
    MappedFile(MappedFile &&other) noexcept;
    MappedFile &operator=(MappedFile &&) = delete;
    ~MappedFile();

    const uint8_t *data() const { return data_; }
    uint64_t size() const { return size_; }
    const std::string &path() const { return path_; }
    std::string_view text() const { return {reinterpret_cast<const char *>(data_), static_cast<size_t>(size_)}; }

private:
    std::string path_;
    const uint8_t *data_ = nullptr;
    uint64_t size_ = 0;
};

// A file under construction. Without commit() nothing remains. A link keeps pointing to its file, which is replaced; a device or a
// pipe is written to.
class NewFile {
public:
    explicit NewFile(const std::string &path);
    NewFile(const NewFile &) = delete;
    NewFile &operator=(const NewFile &) = delete;
    ~NewFile();

    void write(const void *data, size_t size);
    void commit();

private:
    std::string path_, target_, partial_; // partial_ empty: written in place, or complete
    int file_ = -1;
};

// Flushes the names in a folder to the disk. Throws Error.
void sync_folder(const std::string &path);

bool exists(const std::string &path);
std::string folder_of(const std::string &path); // "a/b/" of "a/b/c", "" of "c"
bool is_directory(const std::string &path);

// Fails now, before hours of work, when a file could not be created at `path` later, or would take the place of one that is read.
void check_writable(const std::string &path, std::initializer_list<std::string> inputs = {});

} // namespace finetune
