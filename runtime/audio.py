"""Audio files in and out, torch-free: what the header says, samples at the rate and width asked for, WAV written whole.

A file from a stranger can lie, be cut off, hold NaN, or unpack a few kilobytes into gigabytes. Every way in which a
file cannot be used ends in one `BadAudio` with the path and a reason; bounds are checked on the header before anything
is decoded, and decoding runs in blocks. What the header says is not proof: check rate and channels against your
manifest if you have one.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import soundfile

MAX_SECONDS = 7200
MIN_RATE, MAX_RATE = 1_000, 384_000  # Hz
MAX_CHANNELS = 64
MAX_VALUES = 1 << 30  # frames * channels, as stored and as returned: 4 GiB of float32
MAX_AMPLITUDE = 100.0  # float files may overshoot full scale, but 40 dB over it is a damaged file
BLOCK_FRAMES = 1 << 16

PathLike = str | os.PathLike[str]
Stereo = Literal["mix", "left", "right", "refuse"]  # what a file of several channels becomes where one is wanted
Mono = Literal["duplicate", "refuse"]  # what a file of one channel becomes where several are wanted
P = TypeVar("P", bound=PathLike)


class BadAudio(Exception):
    """A file that cannot be used: `path` and `reason` (one line, no path in it)."""

    def __init__(self, path: PathLike, reason: str) -> None:
        # A name in a foreign encoding must not break the terminal that prints this.
        super().__init__(f"{os.fspath(path).encode('utf-8', 'backslashreplace').decode()}: {reason}")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class AudioInfo:
    """What the header says: `frames` (per channel), `rate` in Hz, `channels`."""

    frames: int
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def probe(path: PathLike) -> AudioInfo:
    """The header of `path`, within bounds; decodes nothing. Raises BadAudio."""
    with _opened(path) as file:
        return _checked_header(path, file)


def read(
    path: PathLike, rate: int, channels: int, *, stereo: Stereo = "mix", mono: Mono = "duplicate"
) -> NDArray[np.float32]:
    """All of `path` as float32 `[frames, channels]` at `rate` Hz.

    One channel of a file with several is, by `stereo`, their mean, the first or the second; a mono file is repeated
    in every channel. Beyond that the width must be the file's own: there is no one way from six channels to two.
    Another rate is resampled with soxr (HQ). Full scale is [-1, 1]; a float file or the resampler may overshoot it.
    Raises BadAudio if the file cannot be used, ValueError if `rate` or `channels` are out of bounds themselves.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"rate is {rate} Hz; it is {MIN_RATE}..{MAX_RATE}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"channels is {channels}; it is 1..{MAX_CHANNELS}")
    with _opened(path) as file:
        info = _checked_header(path, file)
        fit = _fitting(path, info.channels, channels, stereo, mono)
        if info.seconds * rate * channels > MAX_VALUES:
            raise BadAudio(path, f"is too long to hold at {rate} Hz with {_counted(channels, 'channel')}")
        samples = np.concatenate([fit(block) for block in _blocks(path, file, info)])
    if info.rate == rate:
        return samples
    return _resampled(path, samples, info.rate, rate)


def write_wav(path: PathLike, samples: ArrayLike, rate: int) -> None:
    """Write `samples` `[frames, channels]`, clipped to [-1, 1], as 16-bit PCM WAV at `rate` Hz.

    The file appears whole or not at all: a temporary file in the same folder is flushed to disk and renamed. Samples
    that came from a 16-bit file through `read` are written back unchanged.
    Raises ValueError for another shape, for NaN or infinity, or for more than a WAV file holds; OSError from the disk.
    """
    import soundfile

    x = np.asarray(samples)
    if x.ndim != 2 or not 1 <= x.shape[1] <= MAX_CHANNELS:
        raise ValueError(f"samples have shape {x.shape}; it is [frames, channels] with 1..{MAX_CHANNELS} channels")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"rate is {rate} Hz; it is {MIN_RATE}..{MAX_RATE}")
    if x.size * 2 > (1 << 32) - 4096:
        raise ValueError(f"{x.size} samples do not fit a WAV file")
    target = Path(path)
    part = target.parent / f".{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        with open(part, "xb") as raw:
            with soundfile.SoundFile(raw, "w", rate, x.shape[1], "PCM_16", format="WAV") as wav:
                for start in range(0, len(x), BLOCK_FRAMES):
                    wav.write(_as_pcm16(x[start : start + BLOCK_FRAMES]))
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(target.parent)


def natural_order(paths: Iterable[P]) -> list[P]:
    """`paths` sorted as a reader would: folder by folder, take2 before take10, letter case last."""
    return sorted(paths, key=_natural_key)


def _natural_key(path: PathLike) -> tuple[object, ...]:
    def piece(text: str) -> tuple[int, int, str]:
        # Digits compare as numbers: by length without leading zeros, then by text. No int(): a name may be all digits.
        return (0, len(text.lstrip("0")), text.lstrip("0")) if text[:1].isdecimal() else (1, 0, text)

    parts = Path(path).parts
    folded = tuple(tuple(piece(t) for t in re.findall(r"[0-9]+|[^0-9]+", part.casefold())) for part in parts)
    return folded, parts


def _opened(path: PathLike) -> soundfile.SoundFile:
    import soundfile  # here, not above: listing a folder should not load libsndfile

    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadAudio(path, f"cannot be opened: {_first_line(error)}") from None
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise BadAudio(path, "is not a regular file")
    if status.st_size == 0:
        raise BadAudio(path, "is empty")
    try:
        return soundfile.SoundFile(os.fspath(path))
    except Exception as error:  # foreign code on foreign bytes: it also raises TypeError (.raw) and AssertionError
        raise BadAudio(path, f"is not readable as audio: {_first_line(error)}") from None


def _checked_header(path: PathLike, file: soundfile.SoundFile) -> AudioInfo:
    info = AudioInfo(int(file.frames), int(file.samplerate), int(file.channels))
    if not MIN_RATE <= info.rate <= MAX_RATE:
        raise BadAudio(path, f"has a sample rate of {info.rate} Hz, outside {MIN_RATE}..{MAX_RATE}")
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise BadAudio(path, f"has {_counted(info.channels, 'channel')}, outside 1..{MAX_CHANNELS}")
    if info.frames <= 0:
        raise BadAudio(path, "has no frames")
    if info.seconds > MAX_SECONDS:
        raise BadAudio(path, f"lasts {info.seconds:.0f} s, more than {MAX_SECONDS} s")
    if info.frames * info.channels > MAX_VALUES:
        raise BadAudio(path, f"would decode to {info.frames * info.channels} samples, more than {MAX_VALUES}")
    return info


def _fitting(
    path: PathLike, there: int, wanted: int, stereo: Stereo, mono: Mono
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """From blocks `[n, there]` to blocks `[n, wanted]`."""
    if there == wanted:
        return lambda block: block
    differs = f"has {_counted(there, 'channel')}, {wanted} wanted"
    if there == 1 and mono == "duplicate":
        return lambda block: np.repeat(block, wanted, axis=1)
    if wanted == 1 and there > 1 and stereo == "mix":
        return lambda block: block.mean(axis=1, keepdims=True, dtype=np.float32)
    if wanted == 1 and there > 1 and stereo != "refuse":
        only = 0 if stereo == "left" else 1
        return lambda block: block[:, only : only + 1].copy()  # a view would hold all channels in memory
    raise BadAudio(path, differs)


def _blocks(path: PathLike, file: soundfile.SoundFile, info: AudioInfo) -> Iterator[NDArray[np.float32]]:
    """The file's blocks `[n, channels]`, checked; together exactly `info.frames` frames."""
    # soundfile seeks after every read, and a seek in an MP3 starts its next frame without the bits that it borrows from
    # those before: half a thousand wrong samples at each seam. So an MP3 is one block; the header bounds that, too.
    size = info.frames if file.subtype.startswith("MPEG") else BLOCK_FRAMES
    done = 0
    while done < info.frames:
        try:
            block = file.read(min(size, info.frames - done), dtype="float32", always_2d=True)
        except Exception as error:
            raise BadAudio(path, f"breaks off after frame {done}: {_first_line(error)}") from None
        if not len(block):
            raise BadAudio(path, f"ends after {done} of {info.frames} frames")
        done += len(block)
        if not np.isfinite(block).all():
            raise BadAudio(path, f"holds NaN or infinity before frame {done}")
        if np.abs(block).max() > MAX_AMPLITUDE:
            raise BadAudio(path, f"has amplitudes above {MAX_AMPLITUDE:g} before frame {done}")
        yield block


def _resampled(path: PathLike, samples: NDArray[np.float32], rate_in: int, rate_out: int) -> NDArray[np.float32]:
    import soxr

    try:
        out = np.asarray(soxr.resample(samples, rate_in, rate_out, quality="HQ"), np.float32)
    except Exception as error:
        raise BadAudio(path, f"cannot be resampled from {rate_in} to {rate_out} Hz: {_first_line(error)}") from None
    if not len(out):
        raise BadAudio(path, f"is too short to resample from {rate_in} to {rate_out} Hz")
    return out


def _as_pcm16(x: NDArray[np.floating]) -> NDArray[np.int16]:
    if not np.isfinite(x).all():
        raise ValueError("samples hold NaN or infinity")
    # 2**15 as libsndfile's reader has it, so read then write is the identity; +1 has no 16-bit code and loses one step.
    return np.clip(np.rint(np.clip(x, -1.0, 1.0) * 32768.0), -32768, 32767).astype(np.int16)


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder cannot be opened on Windows; the rename stands all the same
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _first_line(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return (str(text).strip().splitlines() or [type(error).__name__])[0][:200]


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
