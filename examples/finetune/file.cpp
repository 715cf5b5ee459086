#include "file.h"

#include "error.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace finetune {
namespace {

int map_file(const char *path, const uint8_t **data, uint64_t *size) {
    *data = nullptr;
    *size = 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return errno;
    struct stat status;
    int error = fstat(file, &status) != 0 ? errno : 0;
    if (error == 0 && S_ISDIR(status.st_mode)) error = EISDIR;
    if (error == 0 && !S_ISREG(status.st_mode)) error = EINVAL;
    if (error == 0 && status.st_size > 0) {
        void *address = mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
        if (address == MAP_FAILED) {
            error = errno;
        } else {
            *data = static_cast<const uint8_t *>(address);
            *size = static_cast<uint64_t>(status.st_size);
        }
    }
    close(file);
    return error;
}

void unmap_file(const uint8_t *data, uint64_t size) { munmap(const_cast<uint8_t *>(data), static_cast<size_t>(size)); }

int create_file(const char *path, int *file) {
    *file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return *file < 0 ? errno : 0;
}

int write_file(int file, const void *data, size_t size) {
    const char *next = static_cast<const char *>(data);
    while (size > 0) {
        const ssize_t written = write(file, next, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return written < 0 ? errno : EIO;
        next += written;
        size -= static_cast<size_t>(written);
    }
    return 0;
}

int finish_file(int file) {
    // A pipe or a terminal has no disk to flush to and says EINVAL.
    int error = fsync(file) != 0 && errno != EINVAL ? errno : 0;
    if (close(file) != 0 && error == 0) error = errno;
    return error;
}

int rename_file(const char *from, const char *to) { return rename(from, to) != 0 ? errno : 0; }

void remove_file(const char *path) { unlink(path); }

int sync_directory(const char *path) {
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return errno;
    // Some file systems have no such notion and say EINVAL.
    const int error = fsync(folder) != 0 && errno != EINVAL ? errno : 0;
    close(folder);
    return error;
}

// Where a rename to `path` would have to go: a link stays one.
std::string target_of(const std::string &path) {
    std::string target = path;
    if (char *resolved = realpath(path.c_str(), nullptr)) {
        target = resolved;
        free(resolved);
    }
    return target;
}

// A device, a pipe: there is nothing to put in its place.
bool is_special(const std::string &path) {
    struct stat status;
    return stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

} // namespace

FileFunctions file_functions = {map_file, unmap_file, create_file, write_file, finish_file, rename_file, remove_file, sync_directory};

MappedFile::MappedFile(const std::string &path) : path_(path) {
    const int error = file_functions.map(path.c_str(), &data_, &size_);
    if (error == EINVAL) fail(path, ": not a regular file; give the path of a file that can be mapped into memory");
    if (error != 0) fail(path, ": cannot be read: ", strerror(error));
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : path_(static_cast<std::string &&>(other.path_)), data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) file_functions.unmap(data_, size_);
}

NewFile::NewFile(const std::string &path) : path_(path), target_(target_of(path)) {
    if (!is_special(path)) partial_ = target_ + ".partial-" + std::to_string(getpid());
    const int error = file_functions.create(partial_.empty() ? path_.c_str() : partial_.c_str(), &file_);
    if (error != 0) fail(path_, ": cannot be created: ", strerror(error));
}

NewFile::~NewFile() {
    if (file_ >= 0) file_functions.finish(file_);
    if (!partial_.empty()) file_functions.remove(partial_.c_str());
}

void NewFile::write(const void *data, size_t size) {
    const int error = file_functions.write(file_, data, size);
    if (error != 0) fail(path_, ": cannot be written: ", strerror(error), "; no file was left behind");
}

void NewFile::commit() {
    int error = file_functions.finish(file_);
    file_ = -1;
    if (error == 0 && !partial_.empty()) error = file_functions.rename(partial_.c_str(), target_.c_str());
    if (error != 0) fail(path_, ": cannot be completed: ", strerror(error), "; no file was left behind");
    if (partial_.empty()) return;
    partial_.clear();
    // Its name must be on the disk as well.
    const std::string folder = folder_of(target_);
    error = file_functions.sync_folder(folder.empty() ? "." : folder.c_str());
    if (error != 0) fail(path_, ": is written, but its folder cannot be flushed to the disk: ", strerror(error));
}

std::string folder_of(const std::string &path) { return path.substr(0, path.rfind('/') + 1); }

void sync_folder(const std::string &path) {
    const int error = file_functions.sync_folder(path.c_str());
    if (error != 0) fail(path, ": cannot be flushed to the disk: ", strerror(error));
}

bool exists(const std::string &path) {
    struct stat status;
    return stat(path.c_str(), &status) == 0;
}

bool is_directory(const std::string &path) {
    struct stat status;
    return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void check_writable(const std::string &path, std::initializer_list<std::string> inputs) {
    struct stat out, in;
    for (const std::string &input : inputs)
        if (stat(path.c_str(), &out) == 0 && stat(input.c_str(), &in) == 0 && S_ISREG(in.st_mode) && out.st_dev == in.st_dev && out.st_ino == in.st_ino)
            fail(path, ": is a file that is read here; give the result another name");
    if (is_directory(path))
        fail(path, ": is a folder; give the name of a file");
    if (!is_special(path)) NewFile probe(path); // removed again by its destructor
}

} // namespace finetune
