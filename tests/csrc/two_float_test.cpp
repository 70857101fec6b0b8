// Sums and products of two float32 lose what lies below 2^-44, and error-free parts lose nothing.
#include "csrc/core/two_float.h"

#include <cmath>
#include <random>

#include "tests/csrc/expect.h"

using namespace kronext;

// Relative to the larger of the operands that meet in the last sum.
constexpr double kUnit = 0x1p-44;

static double value(const TwoFloat& x) { return double(x); }

static TwoFloat split(double x) { return {float(x), float(x - double(float(x)))}; }

static void check(const char* what, const TwoFloat& result, double exact, double size) {
  EXPECT(std::fabs(value(result) - exact) <= kUnit * size, "%s is %.17g, not %.17g", what,
         value(result), exact);
  EXPECT(result.high + result.low == result.high, "%s: the parts overlap", what);
}

int main() {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int> exponent(-20, 20);
  const auto number = [&] { return std::ldexp(normal(random), exponent(random)); };
  for (int i = 0; i < 100000; ++i) {
    const TwoFloat x = split(number()), y = split(number()), z = split(number());
    const double xy = value(x) * value(y);
    check("x + y", x + y, value(x) + value(y), std::fabs(value(x)) + std::fabs(value(y)));
    check("x - y", x - y, value(x) - value(y), std::fabs(value(x)) + std::fabs(value(y)));
    check("x y", x * y, xy, std::fabs(xy));
    check("x y + z", multiply_add(x, y, z), xy + value(z), std::fabs(xy) + std::fabs(value(z)));
    check("x y + z of float32", multiply_add(x.high, y.high, z),
          double(x.high) * double(y.high) + value(z), std::fabs(xy) + std::fabs(value(z)));
    const TwoFloat square = x * x;
    const double root = 1 / std::sqrt(value(square));
    // A Newton step squares the error of an approximation that is off by two units.
    for (const double error : {0., 2e-7, -2e-7}) {
      check("1 / sqrt(x)", refined_inverse_root(square, float(root * (1 + error))), root, 4 * root);
    }
    const TwoFloat sum = exact_sum(x.high, y.high), product = exact_product(x.high, y.high);
    EXPECT(value(sum) == double(x.high) + double(y.high), "%g + %g is not exact", double(x.high),
           double(y.high));
    EXPECT(value(product) == double(x.high) * double(y.high), "%g * %g is not exact",
           double(x.high), double(y.high));
  }
  return failures != 0;
}
