// What fits: the choices that bring a run under a budget, cheapest first. A plan is a dry run of the Machine that will be
// made, so that the two cannot drift apart.
#pragma once

#include "machine.h"

#include <optional>

namespace finetune {

// What the command line says about memory. Absent: for the planner to choose.
struct MemoryOptions {
    std::string memory;      // "6G"; empty: what the device has free, and on a CPU no bound
    std::string host_memory; // of what is not on the device; empty: what the machine has free
    bool checkpointing = true;
    std::optional<bool> host_embedding, offload, graphs;
    std::optional<uint32_t> chunk_rows, streamed_layers, file_layers, kept_layers, context;
    std::optional<uint64_t> eval_tokens, prompt_tokens, optimizer_bytes;
    std::optional<std::string> head; // "none" or a format

    // The choice before anything is done about memory.
    MemoryChoice start() const;
};

// Bytes that are there for what a run takes.
struct Budget {
    uint64_t limit = 0;    // of the device, for the whole process; 0: no bound
    uint64_t overhead = 0; // what driver and context take of it
    std::string source;    // for people: "--memory 6G", "free on the device"
    bool one_memory = false; // the device computes in host memory: nothing is gained by what waits there instead
    uint64_t host_limit = 0; // of host memory, where there is another; 0: no bound
    std::string host_source;

    uint64_t arena() const { return limit <= overhead ? 0 : limit - overhead; }
};
// As the device is before anything was taken. Its context takes part of its memory already: what is in use then, as long as that
// is what a context takes, else 600 MiB are set aside (other processes use the device); for kernels that are loaded at
// their first use, 64 MiB more. Of host memory an eighth of what is free is left to others.
Budget find_budget(const Device &device, const MemoryOptions &options);

struct Saving {
    std::string what, flag;
    uint64_t bytes;
};

struct MemoryPlan {
    MemoryChoice choice;
    Budget budget;
    std::vector<Saving> savings; // choices made, in order
    MemoryTally tally;           // of the device
    uint64_t device_bytes = 0, scratch_bytes = 0, host_bytes = 0;
    uint64_t mapped_bytes = 0;      // weights that are used where their file is mapped; not counted
    uint64_t file_bytes = 0;        // weights that come from the file each time
    bool from_file = false;         // whether all streamed layers could
    uint32_t layers = 0, context = 0;

    // What the budget bounds.
    uint64_t bytes() const { return device_bytes + (budget.one_memory ? host_bytes : 0); }
    bool fits() const { return budget.limit == 0 || bytes() <= budget.arena(); }
    bool fits_host() const { return budget.one_memory || budget.host_limit == 0 || host_bytes <= budget.host_limit; }
};

// The bytes of the device that a run takes with a choice, found by a dry run.
uint64_t planned_bytes(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice);

// The plan for a task, which may not fit.
MemoryPlan make_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const Budget &budget);
// An Error with the three cheapest flags that would help and what each saves; `failure` is what a driver said instead of
// giving what was planned.
[[noreturn]] void reject_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                              const MemoryPlan &plan, const std::string &failure = "");
// The machine of a plan, in memory of just the planned size; or, where plan or driver say no, reject_plan's Error.
std::unique_ptr<Machine> carry_out(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                                   const MemoryPlan &plan);

// The longest sequence and the largest rank: with the choice of the plan, and with every choice that is allowed.
struct Largest {
    uint64_t sequence[2], rank[2];
};
Largest find_largest(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const MemoryPlan &plan, uint64_t longest);

void print_plan(const MemoryPlan &plan, const Model &model);
// The same in a line, and one more for each choice that was made.
std::string brief_plan(const MemoryPlan &plan);

} // namespace finetune
