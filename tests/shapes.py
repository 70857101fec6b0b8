"""Shapes for tests and benchmarks: empty, one, primes, and the panel widths of every set +- 1."""

SHAPES = [
    (0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (2, 3), (5, 5), (8, 16), (15, 17), (16, 16), (17, 31),
    (31, 33), (32, 64), (33, 32), (63, 65), (97, 13), (13, 97), (128, 64), (130, 129),
]  # fmt: skip
