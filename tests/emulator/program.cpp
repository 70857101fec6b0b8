// The emulated kernels in a program of their own, for ASan, TSan and mutants:
//   bug NAME         one kernel of bugs.cu
//   outer [SEED]     all kernels of outer_update, in forward order or in a random one
//   outer-bias       whether long sums are biased
// Exit status 1: a result is wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/emulator/bugs.h"
#include "tests/emulator/outer_check.h"
#include "tests/emulator/runtime/emulator.h"

using namespace kronext::emulator;

constexpr double kLargestBias = 5e-7;

static int run(const std::string& what, const char* argument) {
  if (what == "bug" && argument) {
    run_bug(argument);
    return 0;
  }
  if (what == "outer") {
    if (argument) schedule() = {Order::kRandom, std::strtoull(argument, nullptr, 10)};
    return check_outer() != 0;
  }
  if (what == "outer-bias") {
    const double bias = outer_bias();
    std::fprintf(stderr, "bias %.1e\n", bias);
    return !(bias < kLargestBias);
  }
  std::fprintf(stderr, "what to run: bug NAME, outer [SEED] or outer-bias\n");
  return 2;
}

int main(int count, char** arguments) {
  try {
    return run(count > 1 ? arguments[1] : "", count > 2 ? arguments[2] : nullptr);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
