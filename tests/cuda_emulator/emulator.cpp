// Blocks one after the other, their threads as fibers: ucontext makes a fiber, longjmp switches.

#include <csetjmp>
#include <cstdio>
#include <deque>

#include <sys/mman.h>
#include <ucontext.h>

#include "cuda_runtime.h"

namespace cuda_emulator {

alignas(1024) unsigned char shared_memory[kMostShared];

namespace {

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr int kMostThreads = 1024;
constexpr int kMostWarps = kMostThreads / kWarp;

struct Barrier {
  int members = 0, arrived = 0;
  unsigned generation = 0;

  void release() {
    arrived = 0;
    ++generation;
  }
  void wait() {
    const unsigned mine = generation;
    if (++arrived == members) return release();
    while (generation == mine) yield();
  }
  void leave() {
    if (--members == arrived && arrived > 0) release();
  }
};

struct Fiber {
  jmp_buf here;
  bool started = false, done = false;
  struct Copy {
    void* to;
    const void* from;
    int group;
  };
  std::deque<Copy> copies;
  int group = 0;  ///< the one that is open
};

struct Block {
  Barrier all;
  Barrier warps[kMostWarps];
  alignas(16) unsigned char exchanged[kMostWarps][2][kWarp][kExchangeBytes];
  Fiber fibers[kMostThreads];
  dim3 shape;
  std::size_t shared_bytes;
  void (*body)(void*);
  void* argument;
};

Block block;
jmp_buf scheduler;
int running = 0;
unsigned char* stacks = nullptr;

/// A fiber serves one block after the other.
void enter() {
  for (;;) {
    block.body(block.argument);
    block.all.leave();
    block.warps[running / kWarp].leave();
    block.fibers[running].done = true;
    yield();
  }
}

void resume(int index) {
  running = index;
  const auto at = static_cast<unsigned>(index);
  threadIdx = {at % block.shape.x, at / block.shape.x % block.shape.y,
               at / (block.shape.x * block.shape.y)};
  if (_setjmp(scheduler) != 0) return;
  Fiber& fiber = block.fibers[index];
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stacks + kStackBytes * index;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, enter, 0);
  setcontext(&context);
}

void run_block(int threads) {
  std::memset(shared_memory, 0xff, block.shared_bytes);
  block.all = {threads};
  for (int w = 0; w * kWarp < threads; ++w) {
    block.warps[w] = {threads - w * kWarp < kWarp ? threads - w * kWarp : kWarp};
  }
  for (int i = 0; i < threads; ++i) block.fibers[i].done = false;
  constexpr long kMostRounds = 10'000'000;
  for (long round = 0;; ++round) {
    bool waiting = false;
    for (int i = 0; i < threads; ++i) {
      const int index = reversed ? threads - 1 - i : i;
      if (block.fibers[index].done) continue;
      resume(index);
      waiting = waiting || !block.fibers[index].done;
    }
    if (!waiting) return;
    if (round == kMostRounds) {
      std::fputs("cuda_emulator: a block never ends\n", stderr);
      std::abort();
    }
  }
}

}  // namespace

int thread_index() { return running; }
void wait_for_block() { block.all.wait(); }

void yield() {
  if (_setjmp(block.fibers[running].here) == 0) _longjmp(scheduler, 1);
}

namespace {

void make(const Fiber::Copy& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
}

}  // namespace

void copy_async(void* to, const void* from) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(to) % 16 == 0 &&
                       reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
  if (!aligned) {
    std::fputs("cuda_emulator: a copy of 16 bytes is not aligned\n", stderr);
    std::abort();
  }
  Fiber& fiber = block.fibers[running];
  const Fiber::Copy copy{to, from, fiber.group};
  reversed ? make(copy) : fiber.copies.push_back(copy);
}

void commit_copies() { ++block.fibers[running].group; }

void wait_for_copies(int but_the_last) {
  Fiber& fiber = block.fibers[running];
  while (!fiber.copies.empty() && fiber.copies.front().group < fiber.group - but_the_last) {
    make(fiber.copies.front());
    fiber.copies.pop_front();
  }
}

Exchange exchange() {
  const int warp = running / kWarp;
  auto* slots = block.exchanged[warp][block.warps[warp].generation % 2];
  return {slots, slots[running % kWarp]};
}

void meet() { block.warps[running / kWarp].wait(); }

void run(dim3 grid, dim3 shape, std::size_t shared_bytes, void (*body)(void*), void* argument) {
  if (stacks == nullptr) {
    stacks = static_cast<unsigned char*>(mmap(nullptr, kStackBytes * kMostThreads,
                                              PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  block.shape = blockDim = shape;
  gridDim = grid;
  block.shared_bytes = shared_bytes;
  block.body = body;
  block.argument = argument;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(static_cast<int>(shape.x * shape.y * shape.z));
      }
    }
  }
}

}  // namespace cuda_emulator

extern "C" __attribute__((visibility("default"))) void cuda_emulator_reverse(int on) { cuda_emulator::reversed = on != 0; }
