"""Let a program go on when stdout or stderr is closed, lacks letters, or is on a full disk."""
from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class _Raw(io.RawIOBase):
    """Write to a descriptor; after the first error, such as a full disk, drop what is written.

    Attributes:
        fault: the words of the first error.
    """

    def __init__(self, target: io.RawIOBase, needs_reader: bool):
        self.target, self.needs_reader, self.fault = target, needs_reader, None

    def write(self, content: memoryview) -> int:
        """Write or drop bytes; return their number.

        Raises:
            BrokenPipeError: the stream needs a reader, and its reader has ended.
        """
        if self.fault is None:
            try:
                return self.target.write(content)
            except OSError as error:
                if self.needs_reader and isinstance(error, BrokenPipeError):
                    raise
                self.fault = error.strerror  # the error itself would keep open files alive
        return len(content)

    def writable(self) -> bool:
        """Return True, as a buffer demands."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.target.fileno()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.target.isatty()


def fault_of_stdout() -> str | None:
    """Write what stdout buffers; return the words of the error that has ended its printing."""
    sys.stdout.flush()
    return getattr(_raw_of(sys.stdout), "fault", None)


def make_streams_last() -> None:
    """Give the process streams whose writes cannot fail; `fault_of_stdout` tells what was lost.

    Only a reader of stdout that has ended, such as `head`, still ends a program. Letters that a
    stream's encoding lacks are printed as escapes, such as \\xfc. A stream that a test or a
    notebook has put into the place of stdout or stderr stays.
    """
    _open_closed_descriptors()
    for name, needs_reader in (("stdout", True), ("stderr", False)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _lasting(stream, needs_reader))


def _open_closed_descriptors() -> None:
    """Open /dev/null in place of a closed stream; a file would get its number, and its lines."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
        if getattr(sys, name) is None and name != "stdin":
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def _lasting(stream: io.TextIOWrapper, needs_reader: bool) -> io.TextIOWrapper:
    """Return a stream like the given one, with the same descriptor, whose writes cannot fail."""
    with suppress(OSError):
        stream.flush()
    raw = _Raw(_raw_of(stream), needs_reader)
    is_buffered = raw.target is not stream.buffer  # not with `python -u`
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw, stream.encoding,
        "backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering, write_through=stream.write_through)


def _raw_of(stream: io.TextIOWrapper) -> io.RawIOBase | None:
    """Return the unbuffered end of a text stream."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
