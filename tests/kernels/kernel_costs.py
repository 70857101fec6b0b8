"""Bytes and operations of each kernel at named sizes, and the time that they imply."""

from __future__ import annotations

from dataclasses import dataclass

from kernel_rules import KernelShape


@dataclass(frozen=True)
class Device:
    """Peak rates from the vendor's data sheet; dense, float32 accumulation."""

    name: str
    bytes_per_second: float
    tensor_flops: float  # bfloat16 and float16
    double_flops: float


DEVICES = (
    Device("H100 SXM", 3.35e12, 989e12, 34e12),
    Device("RTX 5090", 1.79e12, 209.5e12, 1.64e12),
)

# name, gradients in the list, m, n
SIZES = (
    ("one 1024 x 1024", 1, 1024, 1024),
    ("one 4096 x 1024", 1, 4096, 1024),
    ("1000 of 64 x 64", 1000, 64, 64),
)

PRODUCTS = {"float32 medium": 1, "float32 high": 4, "float32 highest": 6}


@dataclass(frozen=True)
class Cost:
    read_bytes: int
    written_bytes: int
    operations: int  # multiplications and additions, of padding too

    def seconds(self, device: Device, double: bool) -> float:
        rate = device.double_flops if double else device.tensor_flops
        memory = (self.read_bytes + self.written_bytes) / device.bytes_per_second
        return max(memory, self.operations / rate)


def element_bytes(shape: KernelShape) -> int:
    return {"float64": 8, "float32": 4}.get(shape.name.split()[0], 2)


def cost(shape: KernelShape, count: int, m: int, n: int) -> Cost:
    """G is read once, each factor in its lower triangle, and written whole."""
    factor_bytes = 8 if shape.name == "float64" else 4
    products = PRODUCTS.get(shape.name.rsplit(" ", 1)[0], 1)
    read, written, operations = m * n * element_bytes(shape), 0, 0
    for size, depth in ((m, n), (n, m)):
        panels, chunks = -(-size // shape.tile_size), -(-depth // shape.depth)
        tiles = panels * (panels + 1) // 2
        read += size * (size + 1) // 2 * factor_bytes
        written += size * size * factor_bytes
        operations += 2 * products * tiles * shape.tile_size**2 * chunks * shape.depth
    return Cost(count * read, count * written, count * operations)
