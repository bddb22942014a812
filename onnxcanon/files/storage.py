"""Files on disk: mapping them into memory, finding external tensor data safely, writing atomically."""

from __future__ import annotations

import mmap
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from types import TracebackType
from typing import BinaryIO

from onnxcanon.errors import ModelError
from onnxcanon.files.wire import (
    Payload,
    Piece,
    WireError,
    chunks,
)

# Smaller files are read: every mapping costs a file descriptor, and some exporters write one file per tensor.
SMALLEST_MAPPING = 1 << 16
# Bytes that may be read before the memory they are mapped to is given back: doing so often costs time.
MOST_MAPPED = 1 << 25
# Tensors of a page or more start where any platform can map them alone, the others at a cache line.
PAGE, CACHE_LINE = 1 << 16, 64


class InvalidFile(Exception):
    """What is wrong with a file and what to do about it; `blame` adds the file's name."""

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(f"{cause}; {advice}")
        self.cause, self.advice = cause, advice


@contextmanager
def blame(name: str) -> Iterator[None]:
    """Turn whatever a bad file causes into a `ModelError` of one line that begins with the file's name."""
    try:
        yield
    except InvalidFile as refusal:
        raise ModelError(" ".join(f"{name}: {refusal}".split())) from refusal
    except WireError as error:
        advice = "fetch or export it again"
        raise ModelError(f"{name}: not an ONNX file, or damaged: {error}; {advice}") from error
    except OSError as error:
        other = f" ({error.filename})" if error.filename and os.fspath(error.filename) != name else ""
        advice = "check the path and its permissions"
        raise ModelError(f"{name}: {error.strerror or error}{other}; {advice}") from error


def one_line(error: BaseException) -> str:
    """The innermost cause of an error, on one line of bearable length."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"there is no {text}"
    return text if len(text) <= 300 else text[:297] + "..."


def same_file(one: Path, other: Path) -> bool:
    """Whether both names lead to one existing file."""
    try:
        return one.samefile(other)
    except OSError:
        return False


class MappedFiles:
    """The files a model reads from, mapped once each and kept as they were when it was loaded.

    Keeping the mapping, not the path, is what makes saving over the source safe: the model goes on reading
    the old file after the new one has taken its name. (A file that another program overwrites in its place is
    lost to us too; none of ours does that.)
    """

    def __init__(self) -> None:
        self._views: dict[Path, memoryview] = {}
        self._maps: list[mmap.mmap] = []
        self._read = 0

    @property
    def paths(self) -> list[Path]:
        """The mapped files."""
        return list(self._views)

    def view(self, path: Path) -> memoryview:
        """The bytes of a file, read-only.

        Raises:
            Refusal: If it is no regular file (a folder, a pipe, a device).
            OSError: If it cannot be opened.
        """
        if path not in self._views:
            self._views[path] = self._map(path)
        return self._views[path]

    def _map(self, path: Path) -> memoryview:
        try:
            status = path.stat()
        except ValueError:
            raise InvalidFile("the path holds a null character", "check the path") from None
        if stat.S_ISDIR(status.st_mode):
            raise InvalidFile("it is a folder", "name the .onnx file in it")
        if not stat.S_ISREG(status.st_mode):
            raise InvalidFile("it is not a regular file", "copy it to one first")
        with path.open("rb") as file:
            if status.st_size < SMALLEST_MAPPING:
                return memoryview(file.read())
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(mapped)
        return memoryview(mapped)

    def release(self, nbytes: int) -> None:
        """Say that some bytes were read and are not needed soon: when they are many, pages are dropped."""
        self._read += nbytes
        if self._read >= MOST_MAPPED:
            self._read = 0
            self.drop_pages()

    def drop_pages(self) -> None:
        """Give back the memory of pages read so far; they come again from the file when touched."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)


class DataFolder:
    """Where a model file may take tensor data from: its own folder, and the folder its symlink leads to.

    Model caches hold `snapshots/<x>/model.onnx -> ../../blobs/<y>`, and the data file is such a link too,
    which onnx and onnx-ir refuse. Here a location must stay inside lexically, its target in either folder.
    """

    def __init__(self, model: Path, mappings: MappedFiles) -> None:
        real = Path(os.path.realpath(model))
        self._folders = [model.parent, real.parent]
        self._allowed = [Path(os.path.realpath(folder)) for folder in self._folders]
        self._mappings = mappings

    def read(self, location: str, offset: int, nbytes: int) -> memoryview:
        """The bytes `[offset, offset + nbytes)` of a data file.

        Raises:
            Refusal: If the file is missing or too short, or the location leaves the folder.
        """
        where = f"external data '{location}'"
        try:
            data = self._mappings.view(self._locate(location))
        except InvalidFile as refusal:
            raise InvalidFile(f"{where}: {refusal.cause}", refusal.advice) from refusal
        if offset + nbytes > len(data):
            cause = f"{where} is too short: {nbytes} bytes at {offset} are asked of {len(data)}"
            raise InvalidFile(cause, "fetch the data file again")
        return data[offset : offset + nbytes]

    def _locate(self, location: str) -> Path:
        for folder in self._folders:
            candidate = folder / location
            if candidate.exists():
                target = Path(os.path.realpath(candidate))
                if not any(target.is_relative_to(folder) for folder in self._allowed):
                    raise InvalidFile(
                        f"a link leads out of the model's folder, to {target}", "copy the file there"
                    )
                return target
        raise InvalidFile("the file is missing", "fetch it too, and put it there")


def check_location(location: str) -> None:
    """Refuse an external location that is no relative path staying inside its folder, on any platform."""
    parts = re.split(r"[\\/]", location)
    if "_ORT_MEM_ADDR_" in parts:
        raise InvalidFile(
            "external data is at an address in another program's memory", "save the model from there"
        )
    if not parts[0] or ".." in parts or "\0" in location or PureWindowsPath(location).drive:
        raise InvalidFile(
            f"external data '{location}' lies outside the model's folder", "store it beside the model"
        )


class DataFile:
    """The one external data file of a model being saved: who lies where, then the bytes, tensor by tensor."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._parts: list[tuple[int, Payload]] = []
        self._shared: dict[object, int] = {}
        self._end = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was placed."""
        return not self._parts

    def place(self, payload: Payload, key: object = None) -> int:
        """Reserve room and return the offset; equal keys share one place (tied weights stay stored once)."""
        if key is not None and key in self._shared:
            return self._shared[key]
        align = PAGE if payload.nbytes >= PAGE else CACHE_LINE
        offset = -(-self._end // align) * align
        self._parts.append((offset, payload))
        self._end = offset + payload.nbytes
        if key is not None:
            self._shared[key] = offset
        return offset

    def pieces(self) -> Iterator[Piece]:
        """The content of the file, padding included."""
        end = 0
        for offset, payload in self._parts:
            yield bytes(offset - end)
            yield payload
            end = offset + payload.nbytes


class Staging:
    """Files that appear all together or not at all: written under other names, synced, renamed in order.

    Use as a context manager; whatever ends the block before `commit`, Ctrl-C included, leaves no file behind
    and every existing file as it was.
    """

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path]] = []

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for temporary, _ in self._files:
            temporary.unlink(missing_ok=True)
            _backup(temporary).unlink(missing_ok=True)

    def write(self, target: Path, pieces: Iterator[Piece], after_each: Callable[[], None]) -> None:
        """Write the pieces to a temporary file beside `target`, and sync it to the disk."""
        if target.exists() and not target.is_file():
            raise InvalidFile("the output is not a regular file", "name a new file")
        temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(6)}.tmp")
        self._files.append((temporary, target))
        with temporary.open("xb") as file:
            for piece in pieces:
                _write(file, piece)
                if isinstance(piece, Payload):
                    after_each()
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))

    def commit(self) -> None:
        """Rename all files, the last one (the model, which makes the others valid) at the end."""
        companions = [(temporary, target, os.path.lexists(target)) for temporary, target in self._files[:-1]]
        try:
            for temporary, target, existed in companions:
                if existed:
                    _set_aside(target, _backup(temporary))
            for temporary, target in self._files:
                temporary.replace(target)
        except BaseException:
            if self._files[-1][0].exists():
                for temporary, target, existed in companions:
                    _undo(temporary, target, existed)
            raise
        for folder in {target.parent for _, target in self._files}:
            _sync_folder(folder)


def _backup(temporary: Path) -> Path:
    return temporary.with_suffix(".bak")


def _set_aside(target: Path, backup: Path) -> None:
    try:
        os.link(target, backup, follow_symlinks=False)
    except (OSError, NotImplementedError):  # not every file system has hard links
        target.replace(backup)


def _undo(temporary: Path, target: Path, existed: bool) -> None:
    if os.path.lexists(_backup(temporary)):
        _backup(temporary).replace(target)
    elif not existed and not temporary.exists():
        target.unlink(missing_ok=True)


def _write(file: BinaryIO, piece: Piece) -> None:
    written = sum(file.write(chunk) for chunk in chunks(piece))
    if isinstance(piece, Payload) and written != piece.nbytes:
        raise AssertionError(f"a payload of {piece.nbytes} bytes gave {written}")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
