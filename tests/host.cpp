// What the library takes from a host that gives it everything: with an allocator, a thread runner and a log of the host's, it
// allocates nothing, starts no thread, opens no file, asks for no environment variable and writes nothing by itself.
#include "tests/support/accounting.h"
#include "tests/support/inputs.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEST_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SANITIZED
#endif

// The functions of libc through which all of that goes are this program's own, while glibc says how to go on. Sanitizers have them
// already.
#if defined(__GLIBC__) && !defined(TEST_SANITIZED)
#define TEST_WATCHES
#include <cerrno>
#include <cstdarg>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {
std::atomic<bool> watching{false};
std::atomic<int> seen{0};
std::atomic<const char *> first_seen{nullptr};
thread_local int host_depth = 0; // inside a callback of the host, which may do as it likes

void notice(const char *what) {
    if (!watching.load(std::memory_order_relaxed) || host_depth) return;
    if (seen++ == 0) first_seen = what;
}
template <class Function> Function next(const char *name) { return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name)); }
} // namespace

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *malloc(size_t bytes) { notice("malloc"); return __libc_malloc(bytes); }
void *calloc(size_t count, size_t bytes) { notice("calloc"); return __libc_calloc(count, bytes); }
void *realloc(void *memory, size_t bytes) { notice("realloc"); return __libc_realloc(memory, bytes); }
void *memalign(size_t alignment, size_t bytes) { notice("memalign"); return __libc_memalign(alignment, bytes); }
void *aligned_alloc(size_t alignment, size_t bytes) { notice("aligned_alloc"); return __libc_memalign(alignment, bytes); }
int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    notice("posix_memalign");
    *memory = __libc_memalign(alignment, bytes);
    return *memory ? 0 : ENOMEM;
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *user) {
    notice("pthread_create");
    static const auto real = next<int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)>("pthread_create");
    return real(thread, attributes, body, user);
}
int open(const char *path, int flags, ...) {
    notice("open");
    va_list list;
    va_start(list, flags);
    const mode_t mode = mode_t(va_arg(list, int));
    va_end(list);
    return openat(AT_FDCWD, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode) {
    notice("fopen");
    static const auto real = next<FILE *(*)(const char *, const char *)>("fopen");
    return real(path, mode);
}
char *getenv(const char *name) {
    notice("getenv");
    static const auto real = next<char *(*)(const char *)>("getenv");
    return real(name);
}
} // extern "C"
#endif

using namespace test;

TEST_SUITE_BEGIN("host");

#ifdef TEST_WATCHES
namespace {

// The host's services, around those of Accounting; what they do is not the library's doing.
struct WatchedHost {
    Accounting accounting;
    qlora_context_args inner = accounting.options();
    uint64_t runs = 0;

    qlora_context_args options() {
        auto args = qlora::make<qlora_context_args>();
        args.allocate = [](void *user, size_t bytes, size_t alignment) {
            const qlora_context_args &own = static_cast<WatchedHost *>(user)->inner;
            host_depth++;
            void *memory = own.allocate(own.allocator_user, bytes, alignment);
            host_depth--;
            return memory;
        };
        args.release = [](void *user, void *memory, size_t bytes) {
            const qlora_context_args &own = static_cast<WatchedHost *>(user)->inner;
            host_depth++;
            own.release(own.allocator_user, memory, bytes);
            host_depth--;
        };
        args.log = [](void *user, const char *line) {
            const qlora_context_args &own = static_cast<WatchedHost *>(user)->inner;
            host_depth++;
            own.log(own.log_user, line);
            host_depth--;
        };
        args.parallel_for = [](void *user, uint32_t count, void (*task)(void *, uint32_t), void *task_user) {
            static_cast<WatchedHost *>(user)->runs++;
            for (uint32_t i = count; i-- > 0;) task(task_user, i);
        };
        args.allocator_user = args.log_user = args.parallel_user = this;
        return args;
    }
};

// Watches while it lives, standard output and error included.
class Watch {
public:
    explicit Watch(const std::string &what) : what_(what) {
        std::fflush(nullptr);
        for (int i = 0; i < 2; i++) {
            kept_[i] = dup(i + 1);
            dup2(fileno(sink()), i + 1);
        }
        struct stat status;
        fstat(fileno(sink()), &status);
        before_ = status.st_size;
        seen = 0;
        first_seen = nullptr;
        watching = true;
    }
    ~Watch() {
        watching = false;
        std::fflush(nullptr);
        for (int i = 0; i < 2; i++) dup2(kept_[i], i + 1), close(kept_[i]);
        struct stat status;
        fstat(fileno(sink()), &status);
        CHECK_MESSAGE(seen == 0, text(what_, ": ", seen.load(), " calls behind the host's back, the first of ", first_seen.load() ? first_seen.load() : "none"));
        CHECK_MESSAGE(status.st_size == before_, text(what_, " writes to the host's output"));
    }

private:
    static FILE *sink() {
        static FILE *const file = std::tmpfile();
        return file;
    }
    std::string what_;
    int kept_[2];
    off_t before_;
};

} // namespace

TEST_CASE("with the host's allocator, threads and log, nothing else is taken from the machine") {
    {
        // That the watch sees at all.
        void *volatile memory; // or a compiler leaves out what has no use
        int *volatile number;
        watching = true;
        memory = std::malloc(1);
        number = new int;
        const bool home = std::getenv("HOME") != nullptr;
        watching = false;
        std::free(memory);
        delete number;
        CHECK_MESSAGE(seen >= 3, text(seen.load(), " of 3 calls were seen; HOME is ", home ? "set" : "not set"));
    }
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_REF && target.backend != QLORA_BACKEND_CPU) continue; // drivers do as they like
        WatchedHost host;
        const auto options = host.options();
        {
            auto args = options;
            args.backend = target.backend;
            args.isa = target.isa;
            qlora_context *context = nullptr;
            const Watch watch(target.name + " create, query, buffers, destroy");
            int32_t status = qlora_context_create(&args, &context);
            auto info = qlora::make<qlora_context_info>();
            status += qlora_context_query(context, &info);
            uint32_t count;
            status += qlora_device_count(target.backend, &count);
            float words[4] = {1, 2, 3, 4};
            auto buffer = qlora::make<qlora_buffer_args>();
            buffer.bytes = sizeof words;
            status += qlora_buffer_create(context, &buffer);
            buffer.src = buffer.dst;
            buffer.host = words;
            status += qlora_buffer_write(context, &buffer) + qlora_buffer_fill(context, &buffer) + qlora_buffer_read(context, &buffer) + qlora_buffer_destroy(context, &buffer);
            status += qlora_context_synchronize(context);
            buffer.host = nullptr;
            if (qlora_buffer_write(context, &buffer) != QLORA_ERROR_ARGUMENT) status--; // an error, with its sentence in the log
            qlora_context_destroy(context);
            watching = false;
            CHECK(status == QLORA_OK);
        }
        CHECK(host.accounting.last_line.find("qlora_buffer_write") == 0);
        CHECK(host.accounting.blocks == 0);
        {
            const qlora::Context context = open(target, &options);
            for (const Operation &operation : all_operations())
                for (size_t c = 0; c < operation.cases.size(); c++) {
                    const Case &one = operation.cases[c];
                    if (mix(operation.number + 77, c) % std::max<size_t>(1, operation.cases.size() / 24) != 0) continue; // some 24 of them
                    if (!context.operation_supports(operation.number, one.format, one.type)) continue;
                    Stage stage(context);
                    std::unique_ptr<Watch> watch;
                    stage.before_call = [&] { watch = std::make_unique<Watch>(text(target.name, " ", operation.name, " ", one.name)); };
                    stage.after_call = [&] { watching = false; watch.reset(); };
                    one.act(stage);
                    CHECK_MESSAGE(stage.status() == QLORA_OK, stage.last_message());
                }
        }
        CHECK(host.accounting.blocks == 0);
        CHECK(!host.accounting.wrong_release);
        if (target.backend == QLORA_BACKEND_CPU) CHECK(host.runs > 0);
    }
}
#endif

TEST_SUITE_END();
