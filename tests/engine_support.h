// What the tests of examples/finetune share: golden files, temporary files, errors as text, GGUF bytes right or wrong.
#pragma once
#include <doctest/doctest.h>

#include "error.h"
#include "file.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>
#include <unistd.h>

#ifndef QLORA_SHARED_DIR
#define QLORA_SHARED_DIR "../shared"
#endif
#ifndef QLORA_SOURCE_DIR
#define QLORA_SOURCE_DIR "."
#endif

namespace finetune {

inline std::string shared(const std::string &name) {
    const char *folder = getenv("QLORA_SHARED");
    const std::string path = std::string(folder != nullptr ? folder : QLORA_SHARED_DIR) + "/" + name;
    if (access(path.c_str(), R_OK) == 0) return path;
    MESSAGE("SKIPPED: " << path << " is not here; set QLORA_SHARED to the folder of golden files");
    return "";
}

inline std::string bundled_model() { return std::string(QLORA_SOURCE_DIR) + "/examples/data/demo-base-f16.gguf"; }

// A file in the temporary folder that is gone with the object.
struct Scratch {
    explicit Scratch(const std::string &content = "", const char *suffix = "") {
        const char *folder = getenv("TMPDIR");
        static int count = 0;
        path = std::string(folder != nullptr ? folder : P_tmpdir) + "/engine_test_" + std::to_string(getpid()) + "_" +
               std::to_string(count++) + suffix;
        write(content);
    }
    ~Scratch() { unlink(path.c_str()); }
    void write(const std::string &content) const {
        std::ofstream(path, std::ios::binary | std::ios::trunc).write(content.data(), std::streamsize(content.size()));
    }
    std::string read() const {
        std::ifstream file(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    std::string path;
};

// The message of the Error that an action ends with; "" when it succeeds. Anything but Error fails the test.
template <class Action> std::string error_of(Action action) {
    try {
        action();
    } catch (const Error &error) {
        CHECK(std::string(error.what()).find('\n') == std::string::npos);
        return error.what();
    }
    return "";
}

inline bool contains(const std::string &text, const std::string &part) {
    if (text.find(part) != std::string::npos) return true;
    MESSAGE("'" << text << "' does not contain '" << part << "'");
    return false;
}

// Builds GGUF bytes field by field, right or wrong.
struct Bytes {
    std::string data;
    template <class T> Bytes &put(T value) {
        data.append(reinterpret_cast<const char *>(&value), sizeof(T));
        return *this;
    }
    Bytes &text(const std::string &value) {
        put<uint64_t>(value.size());
        data += value;
        return *this;
    }
    Bytes &head(uint32_t version, int64_t tensors, int64_t values) {
        data += "GGUF";
        return put(version).put(tensors).put(values);
    }
    Bytes &u32(const std::string &key, uint32_t value) { return text(key).put<uint32_t>(4).put(value); }
    Bytes &tensor(const std::string &name, std::vector<int64_t> ne, uint32_t type, uint64_t offset) {
        text(name).put<uint32_t>(uint32_t(ne.size()));
        for (int64_t size : ne) put(size);
        return put(type).put(offset);
    }
    Bytes &payload(size_t bytes, size_t alignment = 32) {
        data.resize((data.size() + alignment - 1) / alignment * alignment);
        data.resize(data.size() + bytes, '\1');
        return *this;
    }
};

} // namespace finetune
