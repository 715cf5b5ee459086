// What fits: the choices that bring a run under a budget, cheapest first. A plan is a dry run of the Machine that will be
// made, so that the two cannot drift apart.
#pragma once

#include "machine.h"

#include <optional>

namespace finetune {

// What the command line says about memory. Absent: for the planner to choose.
struct MemoryOptions {
    std::string memory; // "6G"; empty: what the device has free, and on a CPU no bound
    bool checkpointing = true;
    std::optional<bool> host_embedding, offload, graphs;
    std::optional<uint32_t> chunk_rows, streamed_layers, kept_layers;
    std::optional<uint64_t> eval_tokens, optimizer_bytes;
    std::optional<std::string> head; // "none" or a format

    // The choice before anything is done about memory.
    MemoryChoice start() const;
};

// Bytes of the device that are there for the arena.
struct Budget {
    uint64_t limit = 0;    // of the whole process; 0: no bound
    uint64_t overhead = 0; // what driver and context take besides
    std::string source;    // for people: "--memory 6G", "free on the device"

    uint64_t arena() const { return limit <= overhead ? 0 : limit - overhead; }
};
// As the device is before anything was taken. Its context takes part of its memory already: what is in use then, as long as that
// is what a context takes, else 600 MiB are set aside (other processes use the device); for kernels that are loaded at
// their first use, 64 MiB more.
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
    uint32_t layers = 0;

    bool fits() const { return budget.limit == 0 || device_bytes <= budget.arena(); }
};

// The bytes that a run takes with a choice, found by a dry run.
uint64_t planned_bytes(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice);

// The plan for a task, which may not fit.
MemoryPlan make_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const Budget &budget);
// An Error with the three cheapest flags that would help and what each saves; `failure` is what a driver said instead of
// giving what was planned.
[[noreturn]] void reject_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                              const MemoryPlan &plan, const std::string &failure = "");

// The longest sequence and the largest rank: with the choice of the plan, and with every choice that is allowed.
struct Largest {
    uint64_t sequence[2], rank[2];
};
Largest find_largest(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const MemoryPlan &plan, uint64_t longest);

void print_plan(const MemoryPlan &plan, const Model &model);

} // namespace finetune
