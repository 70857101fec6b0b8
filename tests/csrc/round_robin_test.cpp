// Every two blocks meet exactly once in a sweep, and no block is twice in a round.
#include "csrc/core/round_robin.h"

#include <vector>

#include "tests/csrc/expect.h"

using namespace kronext;

int main() {
  for (int blocks = 2; blocks <= 64; blocks += 2) {
    std::vector<int> meetings(blocks * blocks, 0);
    for (int round = 0; round < blocks - 1; ++round) {
      std::vector<int> seen(blocks, 0);
      for (int pair = 0; pair < blocks / 2; ++pair) {
        const BlockPair met = round_robin(round, pair, blocks);
        for (const int block : {met.left, met.right}) {
          EXPECT(block >= 0 && block < blocks && ++seen[block] == 1,
                 "blocks=%d round=%d: block %d is there more than once", blocks, round, block);
        }
        ++meetings[met.left * blocks + met.right];
        ++meetings[met.right * blocks + met.left];
      }
    }
    for (int i = 0; i < blocks; ++i) {
      for (int j = 0; j < blocks; ++j) {
        EXPECT(meetings[i * blocks + j] == (i != j), "blocks=%d: %d and %d meet %d times", blocks,
               i, j, meetings[i * blocks + j]);
      }
    }
  }
  return failures != 0;
}
