"""Arrays inside an npz file, read row by row without unpickling and without trusting its sizes.

An npz file is a zip of .npy members. An uncompressed member is memory-mapped where it lies; a compressed
one is read forwards as rows are asked for. Either way a 3 GB file never needs 3 GB of memory or a copy on disk.
"""

from __future__ import annotations

import math
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import ImageError, SourceError

MAX_MEMBERS = 64
MAX_RATIO = 500
"""Uncompressed over compressed size that no set of photographs reaches; deflate's limit is about 1030."""
RATIO_MATTERS_FROM = 64 * 2**20
MAX_SMALL_ARRAY = 512 * 2**20
"""Largest label or name array, in bytes; also the largest compressed column-major image array."""

_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, SyntaxError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Member:
    """One array of an npz file, by its header."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    info: zipfile.ZipInfo
    header_bytes: int


def read_members(path: Path) -> dict[str, Member]:
    """Name to header of every array in the npz file at ``path``. Raises SourceError for a hostile or damaged one."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{path} is not a regular file")
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_archive(path, infos)
            return {
                info.filename.removesuffix(".npy"): _read_header(path, archive, info)
                for info in infos
                if info.filename.endswith(".npy")
            }
    except PermissionError:
        raise SourceError(f"no permission to read {path}") from None
    except (*_UNREADABLE, zlib.error) as error:
        raise SourceError(
            f"{path} is not a readable npz file ({error}); copy it again, or save it with numpy.savez"
        ) from None


def _check_archive(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_MEMBERS:
        raise SourceError(f"{path} holds {len(infos):,} members, more than the limit of {MAX_MEMBERS}")
    for info in infos:
        if info.flag_bits & 1:
            raise SourceError(f"{path} is encrypted; save it again without a password")
        if info.file_size > RATIO_MATTERS_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise SourceError(
                f"{path}: {info.filename} unpacks to {info.file_size:,} bytes from {info.compress_size:,}; "
                "this looks like a decompression bomb and is refused"
            )
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise SourceError(f"{path} holds two members of one name; save it again with numpy.savez")


def _read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with archive.open(info) as stream:
        try:
            version = np.lib.format.read_magic(stream)
        except ValueError:
            raise SourceError(
                f"{path}: {info.filename} is not an array, whatever its name says; save the file again with numpy.savez"
            ) from None
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise SourceError(f"{path}: {info.filename} is of .npy version {version}, which is not read; save it again")
        if dtype.hasobject:
            raise SourceError(
                f"{path}: {info.filename} holds Python objects, which could run code when read and are refused; "
                "save it as a plain number array (numpy.stack, then numpy.savez)"
            )
        header_bytes = stream.tell()
    held, needed = info.file_size - header_bytes, math.prod(int(side) for side in shape) * dtype.itemsize
    if held != needed:
        raise SourceError(f"{path}: {info.filename} is truncated or damaged: {held:,} bytes for {needed:,}")
    return Member(shape, dtype, fortran, info, header_bytes)


def read_small(path: Path, member: Member) -> NDArray[Any]:
    """A whole array, for labels and names. Raises SourceError where it is damaged or unreasonably large."""
    if member.info.file_size > MAX_SMALL_ARRAY:
        raise SourceError(f"{path}: {member.info.filename} has {member.info.file_size:,} bytes, more than can be right")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member.info) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except (*_UNREADABLE, zlib.error) as error:
        raise SourceError(f"{path}: {member.info.filename} is damaged: {error}") from None


class RowReader:
    """Rows of one array by index. Rising order costs nothing extra; going back reads from the start again."""

    def __init__(self, path: Path, member: Member) -> None:
        self._path, self._member = path, member
        self._mapped: NDArray[Any] | None = None
        self._stream: IO[bytes] | None = None
        self._archive: zipfile.ZipFile | None = None
        self._next = 0
        self._unchecked = False
        if member.info.compress_type == zipfile.ZIP_STORED and math.prod(member.shape) > 0:
            self._mapped = np.memmap(
                path,
                dtype=member.dtype,
                mode="r",
                offset=_data_offset(path, member),
                shape=member.shape,
                order="F" if member.fortran else "C",
            )
            self._unchecked = True
        elif member.fortran:
            self._mapped = read_small(path, member)

    def __call__(self, index: int) -> NDArray[Any]:
        """Row ``index``. Raises ImageError where the file cannot be read there, SourceError for a wrong checksum."""
        if self._unchecked:  # at the first row, so that a file whose rows lie in the cache is not read again
            _check_stored(self._path, self._member)
            self._unchecked = False
        if self._mapped is not None:
            return np.asarray(self._mapped[index])
        shape, dtype = self._member.shape[1:], self._member.dtype
        row_bytes = math.prod(shape) * dtype.itemsize
        try:
            if self._stream is None or index < self._next:
                self._reopen()
            assert self._stream is not None
            self._stream.seek(self._member.header_bytes + index * row_bytes)
            content = self._stream.read(row_bytes)
        except zipfile.BadZipFile as error:
            # The checksum stands at the end: any row before may be wrong as well, so none can be trusted.
            self.close()
            raise _untrusted(self._path, self._member) from error
        except (*_UNREADABLE, zlib.error) as error:
            self.close()
            raise ImageError(f"the array is damaged here ({error})") from None
        self._next = index + 1
        if len(content) != row_bytes:
            raise ImageError("the array ends before this row")
        return np.frombuffer(content, dtype=dtype).reshape(shape)

    def close(self) -> None:
        """Let go of the file."""
        for held in (self._stream, self._archive):
            if held is not None:
                held.close()
        self._stream = self._archive = None

    def _reopen(self) -> None:
        self.close()
        self._archive = zipfile.ZipFile(self._path)
        self._stream = self._archive.open(self._member.info)
        self._next = 0


def _untrusted(path: Path, member: Member) -> SourceError:
    return SourceError(
        f"{path}: {member.info.filename} is damaged (its checksum is wrong), so none of its images can be trusted; "
        "copy the file again from its source"
    )


def _check_stored(path: Path, member: Member) -> None:
    """Compare an uncompressed member with its checksum, which a memory map would never look at."""
    left, checksum = member.info.file_size, 0
    try:
        with path.open("rb") as file:
            file.seek(_data_offset(path, member) - member.header_bytes)
            while left and (content := file.read(min(left, 2**24))):
                checksum = zlib.crc32(content, checksum)
                left -= len(content)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    if left or checksum != member.info.CRC:
        raise _untrusted(path, member)


def _data_offset(path: Path, member: Member) -> int:
    """Where the numbers of an uncompressed member begin in the file: behind its local header and .npy header."""
    local_header = 30  # bytes, before the name and the extra field, whose lengths stand at 26 and 28
    with path.open("rb") as file:
        file.seek(member.info.header_offset + 26)
        lengths = file.read(4)
    if len(lengths) != 4:
        raise SourceError(f"{path} is truncated")
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    offset = member.info.header_offset + local_header + name + extra + member.header_bytes
    if offset + member.info.file_size - member.header_bytes > path.stat().st_size:
        raise SourceError(f"{path} is truncated: {member.info.filename} ends behind the end of the file")
    return offset
