// What tests need of libcuda, whose handles are pointers and whose status is 0 when all is well. It is opened at run time, so that this
// compiles without the CUDA toolkit.
#pragma once
#ifndef _WIN32
#include <dlfcn.h>
#endif

#include <cstddef>
#include <stdexcept>
#include <string>

namespace test {

inline void *cuda_library() {
#ifdef _WIN32
    return nullptr;
#else
    static void *const library = dlopen("libcuda.so.1", RTLD_NOW);
    return library;
#endif
}

// Calls a function of the driver by its name; arguments have their exact types. -1 when there is none.
template <class... Arguments> int cuda_result(const char *name, Arguments... arguments) {
#ifdef _WIN32
    (void)name;
    return -1;
#else
    const auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(cuda_library(), name));
    return function ? function(arguments...) : -1;
#endif
}
// The same, and throws when that fails.
template <class... Arguments> void cuda_call(const char *name, Arguments... arguments) {
    const int result = cuda_result(name, arguments...);
    if (result != 0) throw std::runtime_error(std::string(name) + " answers " + std::to_string(result));
}

// A stream that does not wait for the default one; of the current context.
class CudaStream {
public:
    CudaStream() { cuda_call("cuStreamCreate", &stream_, 1u); }
    CudaStream(const CudaStream &) = delete;
    ~CudaStream() { cuda_result("cuStreamDestroy_v2", stream_); }
    void *get() const { return stream_; }
    void synchronize() const { cuda_call("cuStreamSynchronize", stream_); }

private:
    void *stream_ = nullptr;
};

// What act() enqueues on a stream, captured instead of run.
class CudaGraph {
public:
    template <class Act> CudaGraph(const CudaStream &stream, Act &&act) : stream_(stream) {
        cuda_call("cuStreamBeginCapture_v2", stream.get(), 1); // 1: only this thread's unsafe calls are errors
        act();
        cuda_call("cuStreamEndCapture", stream.get(), &graph_);
        cuda_call("cuGraphInstantiateWithFlags", &executable_, graph_, 0ull);
    }
    CudaGraph(const CudaGraph &) = delete;
    ~CudaGraph() {
        cuda_result("cuGraphExecDestroy", executable_);
        cuda_result("cuGraphDestroy", graph_);
    }
    size_t nodes() const {
        size_t count = 0;
        cuda_call("cuGraphGetNodes", graph_, static_cast<void *>(nullptr), &count);
        return count;
    }
    void launch() const { cuda_call("cuGraphLaunch", executable_, stream_.get()); }

private:
    const CudaStream &stream_;
    void *graph_ = nullptr, *executable_ = nullptr;
};

} // namespace test
