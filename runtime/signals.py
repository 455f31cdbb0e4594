"""What signals ask of a run: to end, or to save a checkpoint and go on. Asked between updates, never inside one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Asked:
    """What signals asked for: to end (which one), to save a checkpoint and go on."""

    stop: int | None = None
    save: bool = False


@contextmanager
def signals() -> Iterator[Asked]:
    """SIGTERM and Ctrl-C end the run after the update or the crop in progress; a second one ends it at once.

    SIGUSR1 saves a checkpoint.
    """
    asked = Asked()

    def stop(number: int, frame: Any) -> None:
        if asked.stop is not None:
            os._exit(128 + number)
        asked.stop = number

    def save(number: int, frame: Any) -> None:
        asked.save = True

    old: dict[int, Any] = {}
    try:
        for number, handler in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGUSR1, save)):
            old[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread: whoever runs us handles signals
        pass
    try:
        yield asked
    finally:
        for changed, before in old.items():
            signal.signal(changed, before)
