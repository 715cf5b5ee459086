// The device of a run: one qlora context, one scratch space that is large enough for every operation, and memory for
// everything else, all sized before the first step. Operations go through run(), which can also just measure.
#pragma once

#include "memory.h"

#include <functional>
#include <string>
#include <vector>

namespace finetune {

class Device {
public:
    // "ref", "cpu", "cuda[:N]", "vulkan[:N]", or "auto": the first GPU that works, else the CPU.
    explicit Device(const std::string &name, uint32_t threads);

    const qlora::Context &context() const { return context_; }
    const std::string &name() const { return name_; }
    bool is_host() const { return is_host_; } // its memory is the host's

    // A plan is a dry run: between plan() and commit() what takes memory, moves data or computes only counts what it would
    // need. After commit() the same things, made again in the same order, lie in what was counted. Without, everything
    // that is taken is a buffer of its own. plan() again forgets the plan before.
    void plan();
    void commit();
    // Gives back what a plan took; what is taken next is a buffer of its own.
    void release();
    bool planning() const { return planning_; }

    // Memory on the device or, where `host`, host memory that it copies from and to. Counted under the section's name.
    Memory take(uint64_t bytes, bool host = false);
    // What is taken until it ends is counted as `name`.
    class Section {
    public:
        Section(Device &device, const char *name) : device_(device), before_(device.section_) { device.section_ = name; }
        ~Section() { device_.section_ = before_; }
        Section(const Section &) = delete;
        Section &operator=(const Section &) = delete;

    private:
        Device &device_;
        std::string before_;
    };
    // Memory of the device that is taken while it lives is given back with it.
    class Passing {
    public:
        explicit Passing(Device &device) : device_(device), mark_(device.pool_.mark()), section_(device, "") {}
        ~Passing() { device_.pool_.rewind(mark_); }
        Passing(const Passing &) = delete;
        Passing &operator=(const Passing &) = delete;

    private:
        Device &device_;
        MemoryPool::Mark mark_;
        Section section_;
    };
    // Things that are used one after the other share places: what is taken after next() lies where that lies which was taken
    // since the beginning or the next() before. Of these the one that takes most is counted.
    class Turns {
    public:
        explicit Turns(Device &device)
            : device_(device), begin_(device.pool_.mark()), end_(begin_), before_(device.tally_), most_(before_) {}
        void next();
        void end(); // what is taken from here on lies behind all of them

    private:
        void note();

        Device &device_;
        MemoryPool::Mark begin_, end_;
        MemoryTally before_, most_;
    };
    // Counts bytes under another name than the section's, which has `bytes` less.
    void count_as(const std::string &name, uint64_t bytes);
    // Counts device memory that the driver will take beside the arena, and what it took.
    void set_aside(const std::string &name, uint64_t bytes);
    void took_beside(uint64_t bytes) { beside_ += bytes; }

    uint64_t planned_bytes() const { return pool_.planned() + aside_ + scratch_bytes(); }
    uint64_t used_bytes() const { return pool_.used() + beside_ + scratch_bytes(); }
    uint64_t planned_host_bytes() const { return host_pool_.planned(); }
    // Device memory by section; scratch is beside. What shares places counts each time, so that the sum may be more.
    const MemoryTally &tally() const { return tally_; }

    // Enqueues an operation, or, while measuring, asks how much scratch it would need.
    template <class Args> void run(uint32_t operation, int32_t (*call)(qlora_context *, const Args *), Args &args) {
        if (idle()) {
            ++asked_;
            needed_ = std::max(needed_, context_.operation_scratch(operation, args));
            return;
        }
        args.scratch = scratch_.span();
        context_.check(call(context_.get(), &args));
    }

    // Quantizes, whatever scratch it needs. A NaN or an infinity in the values is an Error on every device, which counts
    // rows from first_row.
    void quantize(qlora_quantize_args &args, uint64_t first_row = 0);

    // Runs `work` for its questions only, then makes the scratch space large enough for all of it.
    void measure(const std::function<void()> &work);

    // Copies and transfers; nothing happens while measuring.
    void copy(qlora_span dst, qlora_span src, uint64_t bytes);
    void fill_zero(qlora_span dst, uint64_t bytes);
    void write(qlora_span dst, const void *host, uint64_t bytes);
    void read(qlora_span src, void *host, uint64_t bytes);

    // The same beside the operations: it comes after all work before it, operations that are enqueued later do not wait
    // for it until join(). to_host: dst is host memory.
    void copy_beside(qlora_span dst, qlora_span src, uint64_t bytes, bool to_host = false);
    void join(bool to_host = false);
    // While nothing is to happen but questions.
    bool idle() const { return measuring_ || planning_; }
    uint64_t asked() const { return asked_; } // operations, so far

    // Whether it can: what work() enqueues is recorded instead of done, and done by each launch of the graph.
    bool records() const { return records_; }
    qlora::Graph record(const std::function<void()> &work) const;
    // Where scratch lies. A graph keeps to it.
    uint64_t scratch_place() const { return scratch_.span().handle + scratch_.span().offset; }

    uint64_t scratch_bytes() const { return planning_ ? needed_ : scratch_.size(); }

private:
    static uint64_t aligned(uint64_t bytes) { return (bytes + 255) / 256 * 256; }
    void grow_scratch();

    qlora::Context context_;
    std::string name_;
    MemoryPool pool_, host_pool_;
    MemoryTally tally_;
    std::string section_;
    Memory scratch_, found_;
    uint64_t needed_ = 0, asked_ = 0, aside_ = 0, beside_ = 0;
    bool measuring_ = false, planning_ = false, records_ = false, is_host_ = false;
};

// Places for many spans in one piece of memory. Spans are handed out twice by the same code: the first pass counts, then
// commit() takes the memory, and the second pass gives real places.
class Arena {
public:
    qlora_span take(uint64_t bytes);
    void commit(Device &device);
    uint64_t bytes() const { return total_; }

    // What is taken from here on counts as `name` in the device's plan.
    void section(const char *name) { section_ = name; }
    // What is taken after a rewind shares places with what was taken since the mark.
    uint64_t mark() const { return next_; }
    void rewind(uint64_t mark) { next_ = mark; }

private:
    Memory memory_;
    MemoryTally tally_;
    std::string section_;
    uint64_t next_ = 0, total_ = 0;
    bool committed_ = false;
};

inline uint32_t type_bytes(int32_t type) { return type == QLORA_FORMAT_F32 ? 4 : 2; }

// Part of a span; an absent one stays absent.
inline qlora_span part(qlora_span span, uint64_t offset, uint64_t bytes) {
    return span.handle == 0 ? span : qlora_span{span.handle, span.offset + offset, bytes};
}

} // namespace finetune
