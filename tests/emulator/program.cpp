// The main function of a check's program:
//   NAME [SEED]    one check (<op>_check.cpp), in forward order or in a random one
// Exit status 1: a result is wrong.
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "tests/emulator/check.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {

// A function, so that it exists before the first Check of another file asks for it.
static std::vector<const Check*>& checks() {
  static std::vector<const Check*> all;
  return all;
}

Check::Check(std::string name, std::function<int()> run)
    : name(std::move(name)), run(std::move(run)) {
  checks().push_back(this);
}

static int run(const std::string& what, const char* seed) {
  for (const Check* check : checks()) {
    if (what != check->name) continue;
    if (seed) schedule() = {Order::kRandom, std::strtoull(seed, nullptr, 10)};
    return check->run() != 0;
  }
  std::fprintf(stderr, "what to run: one of these with an optional seed:");
  for (const Check* check : checks()) std::fprintf(stderr, " %s", check->name.c_str());
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
