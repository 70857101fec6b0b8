// Every tile of the lower triangle belongs to exactly one strip, and no strip is too wide.
#include "csrc/core/strips.h"

#include <vector>

#include "tests/csrc/expect.h"

using namespace kronext;

static void check_grid(int64_t panels, int64_t width) {
  std::vector<int> visits(panels * panels, 0);
  for (int64_t number = 0; number < lower_strip_count(panels, width); ++number) {
    const Strip s = lower_strip(panels, width, number);
    EXPECT(s.last_column > s.first_column, "panels=%ld width=%ld strip=%ld is empty", long(panels),
           long(width), long(number));
    EXPECT(s.last_column - s.first_column <= width, "panels=%ld width=%ld strip=%ld is too wide",
           long(panels), long(width), long(number));
    for (int64_t column = s.first_column; column < s.last_column; ++column) {
      ++visits[s.row * panels + column];
    }
  }
  for (int64_t row = 0; row < panels; ++row) {
    for (int64_t column = 0; column < panels; ++column) {
      const int expected = column <= row;
      EXPECT(visits[row * panels + column] == expected,
             "panels=%ld width=%ld: tile (%ld, %ld) is visited %d times", long(panels), long(width),
             long(row), long(column), visits[row * panels + column]);
    }
  }
}

int main() {
  for (int64_t panels = 0; panels <= 40; ++panels) {
    for (int64_t width : {1, 3, 4, 16, 64}) check_grid(panels, width);
  }
  EXPECT(strip_width(0) == kMaxStripTiles, "an empty panel leaves the widest strip");
  EXPECT(strip_width(int64_t(1) << 40) == 4, "a huge panel still leaves 4 tiles a strip");
  return failures != 0;
}
