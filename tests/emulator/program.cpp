// The emulated kernels in a program of their own, for ASan, TSan and mutants:
//   bug NAME       one kernel of bugs.cu
//   NAME [SEED]    one check (<op>_check.cpp), in forward order or in a random one
// Exit status 1: a result is wrong.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/emulator/bugs.h"
#include "tests/emulator/check.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {

// A function, so that it exists before the first Check of another file asks for it.
static std::vector<const Check*>& checks() {
  static std::vector<const Check*> all;
  return all;
}

Check::Check(const char* name, int (*run)()) : name(name), run(run) { checks().push_back(this); }

static int run(const std::string& what, const char* argument) {
  if (what == "bug" && argument) {
    run_bug(argument);
    return 0;
  }
  for (const Check* check : checks()) {
    if (what != check->name) continue;
    if (argument) schedule() = {Order::kRandom, std::strtoull(argument, nullptr, 10)};
    return check->run() != 0;
  }
  std::fprintf(stderr, "what to run: bug NAME, or one of these with an optional seed:");
  for (const Check* check : checks()) std::fprintf(stderr, " %s", check->name);
  std::fprintf(stderr, "\n");
  return 2;
}

}  // namespace kronext::emulator

int main(int count, char** arguments) {
  try {
    return kronext::emulator::run(count > 1 ? arguments[1] : "",
                                  count > 2 ? arguments[2] : nullptr);
  } catch (const kronext::emulator::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
