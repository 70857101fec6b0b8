// The kernels of bugs.cu, each as a check: only a sanitizer knows what is wrong.
#include <list>

#include "tests/emulator/bugs.h"
#include "tests/emulator/check.h"

namespace kronext::emulator {
namespace {

std::list<Check> bug_checks() {
  std::list<Check> checks;  // of fixed addresses
  for (const std::string& name : bug_names()) {
    checks.emplace_back(name, [name] {
      run_bug(name);
      return 0;
    });
  }
  return checks;
}

const std::list<Check> bugs = bug_checks();

}  // namespace
}  // namespace kronext::emulator
