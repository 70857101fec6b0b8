#include "csrc/cpu/norms.h"

#include "csrc/cpu/pack.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class Source>
double sum_squares(const Source* x, int64_t count) {
  constexpr int kWays = 4, kL = kLanes<double>;
  Vector<double> sums[kWays] = {};
  int64_t i = 0;
  for (; i + kWays * kL <= count; i += kWays * kL) {
#pragma GCC unroll 4
    for (int way = 0; way < kWays; ++way) {
      const Vector<double> value = load_converted<double>(x + i + way * kL);
      sums[way] += value * value;
    }
  }
  const Vector<double> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0;
  for (int lane = 0; lane < kL; ++lane) total += sum[lane];
  for (; i < count; ++i) {
    const double value = convert<double>(x[i]);
    total += value * value;
  }
  return total;
}

}  // namespace

double squared_norm(const Stretch& stretch) {
  switch (stretch.dtype) {
    case Dtype::kFloat64:
      return sum_squares(static_cast<const double*>(stretch.data), stretch.count);
    case Dtype::kFloat32:
      return sum_squares(static_cast<const float*>(stretch.data), stretch.count);
    case Dtype::kBFloat16:
      return sum_squares(static_cast<const BFloat16*>(stretch.data), stretch.count);
    case Dtype::kFloat16:
      break;
  }
  return sum_squares(static_cast<const Float16*>(stretch.data), stretch.count);
}

}  // namespace kronext::cpu::KRONEXT_CPU
