#include "simt.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"

namespace simt {

namespace {

constexpr int kWarp = 32;
constexpr size_t kLargestValue = 8;

enum class State { ready, at_barrier, at_exchange, ended };

struct Thread {
  Fiber fiber;
  State state = State::ended;
  // Values of the lanes of its warp, two exchanges deep; kept by the warp's first thread.
  alignas(kLargestValue) char values[2][kWarp * kLargestValue];
  int exchanges = 0;
};

// Of the block that runs; they are kept for the blocks that follow.
std::vector<std::unique_ptr<Thread>> team;
std::vector<char> shared;
const std::function<void()>* body = nullptr;
size_t current = 0;

void yield(State state) {
  team[current]->state = state;
  team[current]->fiber.leave(state == State::ended);
}

void resume(size_t index) {
  current = index;
  thread.x = static_cast<unsigned>(index);
  team[index]->state = State::ready;
  team[index]->fiber.enter();
}

// Runs a block whose threads take turns in `order`.
void run_block(const std::vector<size_t>& order) {
  const size_t count = order.size();
  for (size_t index : order) {
    team[index]->exchanges = 0;
    team[index]->fiber.start([] {
      (*body)();
      yield(State::ended);
    });
    resume(index);
  }
  const auto all = [&](size_t first, size_t end, State state) {
    return std::all_of(team.begin() + static_cast<long>(first), team.begin() + static_cast<long>(end),
                       [&](const auto& one) { return one->state == state || one->state == State::ended; });
  };
  while (!all(0, count, State::ended)) {
    bool moved = false;
    // A warp goes on when all of its lanes have brought their values, a block when all of its threads wait.
    std::vector<char> may(count);
    const bool block = all(0, count, State::at_barrier);
    for (size_t first = 0; first < count; first += kWarp) {
      const size_t end = std::min(first + kWarp, count);
      const bool warp = all(first, end, State::at_exchange);
      for (size_t index = first; index < end; ++index) {
        const State state = team[index]->state;
        may[index] = (state == State::at_exchange && warp) || (state == State::at_barrier && block);
      }
    }
    for (size_t index : order) {
      if (may[index]) {
        moved = true;
        resume(index);
      }
    }
    if (!moved) {
      throw std::runtime_error("simt: threads wait for each other at different places");
    }
  }
}

}  // namespace

int64_t setting(const char* name, int64_t otherwise) {
  const char* text = std::getenv(("SCAV_SIMT_" + std::string(name)).c_str());
  return text != nullptr ? std::atoll(text) : otherwise;
}

void run(int64_t grid, int block_size, size_t bytes, const std::function<void()>& kernel) {
  const auto count = static_cast<size_t>(block_size);
  while (team.size() < count) {
    team.push_back(std::make_unique<Thread>());
  }
  body = &kernel;
  threads.x = static_cast<unsigned>(block_size);
  blocks.x = static_cast<unsigned>(grid);
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  // 0: as numbered; 1: backwards; else a seed of a shuffle.
  const int64_t kind = setting("ORDER", 0);
  if (kind == 1) {
    std::reverse(order.begin(), order.end());
  }
  std::mt19937_64 random(static_cast<uint64_t>(kind));
  for (int64_t index = 0; index < grid; ++index) {
    block.x = static_cast<unsigned>(kind == 1 ? grid - 1 - index : index);
    if (kind > 1) {
      std::shuffle(order.begin(), order.end(), random);
    }
    // As large as asked for, so that what lies beyond is not the block's.
    shared = std::vector<char>(bytes, char(0xff));
    shared.shrink_to_fit();
    run_block(order);
  }
}

void* shared_memory() { return shared.data(); }

void wait_for_block() { yield(State::at_barrier); }

const void* exchange(const void* value, size_t size) {
  const size_t lane = current % kWarp;
  char* values = team[current - lane]->values[team[current]->exchanges++ % 2];
  std::memcpy(values + lane * size, value, size);
  yield(State::at_exchange);
  return values;
}

}  // namespace simt
