// config.json and its relatives, with typed access. A key that is null counts as absent; where names of one thing differ
// between architectures, the first that is there counts.
#pragma once

#include "error.h"
#include "file.h"
#include "json.h"

namespace finetune {

class ModelConfig {
public:
    using Keys = std::initializer_list<const char *>;

    explicit ModelConfig(const std::string &path) : path_(path) {
        const MappedFile file(path);
        json_ = parse_json(file.text(), path, 16);
        if (!json_.is_object()) fail(path, ": expected a JSON object");
    }

    // Keys that are not there get these values.
    void assume(const Json &values) {
        for (const auto &[key, value] : values.items())
            if (!json_.contains(key)) json_[key] = value;
    }
    // The keys of an object in the file take the place of those beside it, but for tokens, which are the whole's.
    void narrow(const char *part, const char *model_type) {
        const Json *found = find(part);
        if (found != nullptr && !found->is_object()) reject("key '", part, "' is not an object");
        const Json inner = found == nullptr ? Json::object() : *found;
        json_["model_type"] = model_type;
        for (const auto &[key, value] : inner.items()) {
            const bool token = key.size() > 9 && key.compare(key.size() - 9, 9, "_token_id") == 0;
            if (!token || !json_.contains(key)) json_[key] = value;
        }
        narrowed_ = true;
    }
    bool narrowed() const { return narrowed_; }

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path_, ": ", parts...); }

    const Json *find(const Json &object, const char *key) const {
        const auto found = object.find(key);
        return found == object.end() || found->is_null() ? nullptr : &*found;
    }
    const Json *find(const char *key) const { return find(json_, key); }
    // The first key that is there, else the last; its value, null when absent.
    const Json *find(Keys keys, const char **key) const {
        for (const char *one : keys) {
            *key = one;
            if (const Json *value = find(one)) return value;
        }
        return nullptr;
    }

    std::string text(Keys keys, const std::string &absent) const {
        const char *key = nullptr;
        const Json *value = find(keys, &key);
        if (value == nullptr) return absent;
        if (!value->is_string()) reject("key '", key, "' is not a string");
        return value->get<std::string>();
    }

    bool flag(const char *key, bool absent) const {
        const Json *value = find(key);
        if (value == nullptr) return absent;
        if (!value->is_boolean()) reject("key '", key, "' is not true or false");
        return value->get<bool>();
    }

    // A size that may be none: null, or 0. Absent: none.
    uint32_t optional_size(const char *key, uint64_t most) const {
        const Json *value = find(key);
        return value == nullptr || *value == 0 ? 0 : size({key}, most);
    }

    // absent 0: the key must be there.
    uint32_t size(Keys keys, uint64_t most, uint64_t absent = 0) const {
        const char *key = nullptr;
        const Json *value = find(keys, &key);
        if (value == nullptr && absent == 0) reject("key '", *keys.begin(), "' is missing");
        if (value != nullptr && !value->is_number_unsigned()) reject("key '", key, "' is not a size");
        const uint64_t number = value == nullptr ? absent : value->get<uint64_t>();
        if (number < 1 || number > most) reject("key '", key, "' is ", number, ", expected 1 to ", most);
        return static_cast<uint32_t>(number);
    }

    float number(const Json &object, Keys keys, double absent) const {
        const Json *value = nullptr;
        const char *found = *keys.begin();
        for (const char *key : keys)
            if (value == nullptr && (value = find(object, key)) != nullptr) found = key;
        if (value == nullptr && absent == 0) reject("key '", found, "' is missing");
        if (value != nullptr && !value->is_number()) reject("key '", found, "' is not a number");
        const double given = value == nullptr ? absent : value->get<double>();
        if (!(given > 0) || given > 1e30) reject("key '", found, "' is ", given, ", expected a positive number");
        return static_cast<float>(given);
    }
    float number(Keys keys, double absent) const { return number(json_, keys, absent); }

    // A soft cap: null, or 0, is none. Absent: what the architecture has.
    float cap(const char *key, float absent) const {
        const auto found = json_.find(key);
        if (found == json_.end()) return absent;
        return found->is_null() || (found->is_number() && found->get<double>() == 0) ? 0 : number({key}, 0);
    }

    // A list of a number of positive numbers.
    std::vector<float> numbers(const Json &object, const char *key, size_t count) const {
        const Json *value = find(object, key);
        if (value == nullptr || !value->is_array() || value->size() != count)
            reject("key '", key, "': expected an array of ", count, " numbers");
        std::vector<float> all;
        for (const Json &one : *value) {
            if (!one.is_number() || !(one.get<double>() > 0) || one.get<double>() > 1e30)
                reject("key '", key, "': element ", all.size(), " is no positive number");
            all.push_back(one.get<float>());
        }
        return all;
    }

    // A token, or the first of several; -1: none.
    int32_t token(const char *key) const {
        const Json *value = find(key);
        if (value != nullptr && value->is_array()) value = value->empty() ? nullptr : &value->front();
        if (value == nullptr) return -1;
        if (!value->is_number_unsigned() || value->get<uint64_t>() > INT32_MAX)
            reject("key '", key, "' is not a token id");
        return value->get<int32_t>();
    }

private:
    std::string path_;
    Json json_;
    bool narrowed_ = false;
};

} // namespace finetune
