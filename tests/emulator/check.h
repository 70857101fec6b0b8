// A test of kernels without Python, for sanitizers and mutants: <op>_check.cpp holds it.
#pragma once

#include <functional>
#include <string>

namespace kronext::emulator {

struct Check {
  std::string name;          // as program.cpp takes it
  std::function<int()> run;  // says what is wrong, and returns how much

  Check(std::string name, std::function<int()> run);
};

}  // namespace kronext::emulator
