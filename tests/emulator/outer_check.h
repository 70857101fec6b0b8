// outer_update against float64, without Python: for the sanitizers and for mutants of the kernels.
#pragma once

namespace kronext::emulator {

// Runs every kernel on small lists. Returns the number of wrong results and says what they are.
int check_outer();

// The relative error of the diagonal's mean over a long sum of positive terms, the largest of all
// kernels.
double outer_bias();

}  // namespace kronext::emulator
