"""What the machine can do at best, measured in the same run: multiply-adds and copies."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.clock import clock, wait_for_device
from benchmarks.inputs import bytes_beyond_caches
from kronext import build_info

_FLAGS = {
    "amx": ["-march=native"],
    "avx512_bf16": ["-march=native"],
    "avx512": ["-march=native"],
    "avx2": ["-mavx2", "-mfma", "-mno-avx512f"],
    "portable": [],
}
_NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double, "bfloat16": ctypes.c_float}


@dataclass(frozen=True)
class Ceilings:
    """Operations and bytes a second; 0 where there is no compiler to measure with.

    Attributes:
        float32: multiply-adds in float32, two operations each, on all threads.
        float64: the same in float64.
        bfloat16: the same of bfloat16 numbers: by vdpbf16ps where the ops use it, elsewhere in
            float32. Not measured on AMX: 0.
        copy: bytes that a copy beyond the caches reads and writes.
    """

    float32: float
    float64: float
    bfloat16: float
    copy: float

    def least_seconds(
        self, flops: float, wide_flops: float, moved: float, bfloat16_flops: float = 0.0
    ) -> tuple[float, str]:
        """Return how long a job takes at least, and whether "FMA" or "memory" says so.

        Args:
            flops: its operations in float32.
            wide_flops: those in float64.
            moved: the bytes that it reads and writes.
            bfloat16_flops: those between bfloat16 numbers.
        """
        by_memory = moved / self.copy
        if not self.float32:
            return by_memory, "memory"
        by_arithmetic = flops / self.float32 + wide_flops / self.float64
        if self.bfloat16:
            by_arithmetic += bfloat16_flops / self.bfloat16
        return max((by_arithmetic, "FMA"), (by_memory, "memory"))


def measure() -> Ceilings:
    """Measures both: on as many CPU threads as torch uses, or the copy alone on another device."""
    on_cpu = torch.get_default_device().type == "cpu"
    return Ceilings(*(_multiply_adds() if on_cpu else (0.0, 0.0, 0.0)), _copy())


def _multiply_adds() -> tuple[float, float, float]:
    capability = str(build_info()["cpu_capability"])
    flags = _FLAGS[capability]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ceilings.so"
        source = Path(__file__).with_name("ceilings.c")
        command = ["cc", "-O3", "-ffp-contract=fast", *flags, "-shared", "-fPIC"]
        try:
            subprocess.run([*command, str(source), "-o", str(library)], check=True)
        except (OSError, subprocess.CalledProcessError):
            return 0.0, 0.0, 0.0
        functions = ctypes.CDLL(str(library))
    float32, float64 = (_rate(functions, name) for name in ("float32", "float64"))
    if capability == "avx512_bf16":
        return float32, float64, _rate(functions, "bfloat16")
    return float32, float64, 0.0 if capability.startswith("amx") else float32


def _rate(functions: ctypes.CDLL, name: str) -> float:
    function = getattr(functions, f"multiply_add_{name}")
    function.restype = ctypes.c_long
    rounds = 2_000_000

    def run(_: int) -> int:
        return int(function(ctypes.c_long(rounds), ctypes.byref(_NUMBERS[name]())))

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        return max(_in_a_second(lambda: sum(pool.map(run, range(threads)))) for _ in range(8))


def _copy() -> float:
    source = torch.zeros(bytes_beyond_caches(), dtype=torch.uint8)
    target = torch.ones_like(source)

    def copy() -> int:
        target.copy_(source)
        return 2 * source.numel()

    return max(_in_a_second(copy) for _ in range(8))


def _in_a_second(work: Callable[[], int]) -> float:
    """Returns how much of what `work` counts is done in a second."""
    now = clock()
    wait_for_device()
    start = now()
    count = work()
    wait_for_device()
    return count / (now() - start)
