// The barrier, the shared work list and the threads of a Team; meant to run under TSan too.
#include "hata/team.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "hata/types.h"

namespace hata {
namespace {

TEST(TeamState, BarrierSeparatesPhases) {
  for (const int nth : {2, 3, 8}) {
    TeamState state;
    std::vector<int> values(static_cast<size_t>(nth));  // plain: TSan sees a missing barrier
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int ith = 0; ith < nth; ++ith) {
      threads.emplace_back([&, ith] {
        for (int phase = 1; phase <= 300; ++phase) {
          values[static_cast<size_t>(ith)] = phase;
          state.barrier(nth);
          for (const int value : values) wrong += value != phase;
          state.barrier(nth);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong.load(), 0);
  }
}

TEST(Worker, ShareGivesEachItemOnce) {
  for (const int nth : {1, 2, 5}) {
    Team team(nth);
    std::vector<int> taken(1000);
    for (int round = 1; round <= 20; ++round) {
      team.run([&](const Worker& worker) {
        for (int list = 0; list < 2; ++list) {
          worker.share(500, [&](int64_t i) { ++taken[static_cast<size_t>(i + list * 500)]; });
        }
        // After share() every thread sees what all have done.
        EXPECT_EQ(std::count(taken.begin(), taken.end(), round), 1000);
        worker.barrier();
      });
    }
  }
}

TEST(Team, RunsOnEveryThread) {
  for (const int n : {1, 2, 7}) {
    Team team(n);
    EXPECT_EQ(team.size(), n);
    std::vector<int> calls(static_cast<size_t>(n));
    for (int i = 0; i < 200; ++i) {
      team.run([&](const Worker& worker) {
        EXPECT_EQ(worker.nth, n);
        ++calls[static_cast<size_t>(worker.ith)];
      });
    }
    EXPECT_EQ(calls, std::vector<int>(static_cast<size_t>(n), 200));
  }
}

TEST(Team, WakesAfterALongPause) {
  Team team(3);
  std::atomic<int> calls{0};
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    team.run([&](const Worker&) { ++calls; });
  }
  EXPECT_EQ(calls.load(), 9);
}

TEST(Team, NeedsAThread) {
  EXPECT_THROW(Team(0), Error);
  EXPECT_THROW(Team(-2), Error);
}

}  // namespace
}  // namespace hata
