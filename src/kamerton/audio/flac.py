"""What the first bytes of a FLAC file say of its sound, without decoding any of it."""

from dataclasses import dataclass
from typing import Self

_MAGIC = b"fLaC"
_STREAMINFO = slice(8, 42)  # after the magic and the block's own header; always the first block
_BLOCK_TYPE = 0x7F


@dataclass(frozen=True, slots=True)
class FlacHeader:
    """The STREAMINFO block, as far as it matters here (RFC 9639, section 8.2)."""

    rate_hz: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.samples / self.rate_hz

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read it from the start of a file.

        Raises:
            ValueError: this is no FLAC file, or one that does not say how long it is.
        """
        block = payload[_STREAMINFO]
        if payload[:4] != _MAGIC or len(block) < 34 or payload[4] & _BLOCK_TYPE != 0:
            raise ValueError("it does not begin like a FLAC file")
        # 20 bits of rate, 3 of channels - 1, 5 of bits per sample - 1, 36 of length.
        packed = int.from_bytes(block[10:18], "big")
        header = cls(packed >> 44, (packed >> 41 & 0x7) + 1, packed & (1 << 36) - 1)
        if header.rate_hz == 0 or header.samples == 0:
            raise ValueError("its header states no length")
        return header
