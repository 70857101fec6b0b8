// Which blocks meet in which round, so that every two of an even number of them meet once and all
// pairs of a round are disjoint (the circle method: one block stands still, the others walk).
#pragma once

#include "csrc/core/host_device.h"

namespace kronext {

struct BlockPair {
  int left, right;
};

// 0 <= round < blocks - 1, 0 <= pair < blocks / 2.
KRONEXT_HOST_DEVICE BlockPair round_robin(int round, int pair, int blocks) {
  const int walking = blocks - 1;
  int left = pair == 0 ? walking : round + pair, right = round - pair;
  if (pair != 0 && left >= walking) left -= walking;
  if (right < 0) right += walking;
  return {left, right};
}

}  // namespace kronext
