// A test of an op's kernels without Python, for sanitizers and mutants: <op>_check.cpp holds it.
#pragma once

namespace kronext::emulator {

struct Check {
  const char* name;  // as program.cpp takes it
  int (*run)();      // says what is wrong, and returns how much

  Check(const char* name, int (*run)());
};

}  // namespace kronext::emulator
