"""`python -m benchmarks.device`: what a result depends on besides the code, as JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import machine


def describe() -> dict[str, Any]:
    """`machine()`, and for a GPU what its name leaves open."""
    about = machine()
    if torch.get_default_device().type != "cuda":
        return about
    properties = torch.cuda.get_device_properties(torch.get_default_device())
    return about | {
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
        "cuda_runtime": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.splitlines()[0].strip()


def main() -> None:
    """Prints it, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or a CUDA device")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    text = json.dumps(describe(), indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
