"""The time that bytes and operations of a kernel imply."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Device:
    """Peak rates from the vendor's data sheet; dense, float32 accumulation."""

    name: str
    bytes_per_second: float
    flops: dict[str, float]  # by arithmetic; "tensor" is bfloat16 and float16


DEVICES = (
    Device("H100 SXM", 3.35e12, {"tensor": 989e12, "float32": 67e12, "float64": 34e12}),
    Device("RTX 5090", 1.79e12, {"tensor": 209.5e12, "float32": 104.8e12, "float64": 1.64e12}),
)


@dataclass(frozen=True)
class Cost:
    read_bytes: float
    written_bytes: float
    operations: float  # multiplications and additions, of padding too
    arithmetic: str
    before: dict[str, float] = field(default_factory=dict)  # operations in other arithmetics

    def seconds(self, device: Device) -> float:
        memory = (self.read_bytes + self.written_bytes) / device.bytes_per_second
        work = {self.arithmetic: self.operations, **self.before}
        return max(memory, sum(count / device.flops[name] for name, count in work.items()))
