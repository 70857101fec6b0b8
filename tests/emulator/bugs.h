// Kernels with one seeded bug each, to prove that each kind of bug is caught, and by whom.
#pragma once

#include <string>
#include <vector>

namespace kronext::emulator {

std::vector<std::string> bug_names();

// What the kernel wrote.
std::vector<float> run_bug(const std::string& name);

}  // namespace kronext::emulator
