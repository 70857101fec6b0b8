"""`python change_device.py RUN SETTINGS FOLDER`: a quick run that goes on on another device.

Prints what is measured on the CPU, and what where the device changes, from the CPU to the pretended
one and back.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pretend_device

from kronext.reproduce import sources
from kronext.reproduce.experiments import EXPERIMENTS, PRESETS
from kronext.reproduce.measure import GaussNewtonMeter
from kronext.reproduce.runs import Run


def measured(name: str, folder: Path, *devices: str) -> list[dict]:
    """What a run finds that is interrupted after step 2, once for each change of the device."""
    images = sources.bundled(EXPERIMENTS[name].data, PRESETS["quick"][name].image_size)

    def interrupt(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    for device in devices[:-1]:
        try:
            Run(name, "quick", images, folder, device=device)(interrupt)
        except KeyboardInterrupt:
            continue
        raise AssertionError("the run must be interrupted")
    return Run(name, "quick", images, folder, device=devices[-1])()["measurements"]


def main(name: str, changes: str, folder: str) -> None:
    pretend_device.install()
    # Nothing of it goes on after an interruption, and the device has no forward derivatives.
    GaussNewtonMeter.measure = lambda self, _: {layer: {} for layer in self._layers}
    PRESETS["quick"][name] = replace(PRESETS["quick"][name], **json.loads(changes))
    print(
        json.dumps(
            [
                measured(name, Path(folder, "-".join(devices)), *devices)
                for devices in (["cpu"], ["cpu", pretend_device.NAME], [pretend_device.NAME, "cpu"])
            ]
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
