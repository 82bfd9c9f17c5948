"""Text to a sequence of encodings: embedding, convolutions, bidirectional LSTM."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kamerton.model.tacotron2.convolution import ConvolutionBlock


class Encoder(nn.Module):
    """The encoder of Tacotron 2 (arXiv:1712.05884, section 2.2).

    Shapes use: B batch, N symbols, M encoding.
    """

    def __init__(
        self, symbols: int, embedding: int, channels: int, *, convolutions: int, kernel: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding, padding_idx=0)
        self.blocks = nn.ModuleList(
            ConvolutionBlock(
                channels if index else embedding, channels, kernel=kernel, activation="relu",
                dropout=dropout,
            )
            for index in range(convolutions)
        )  # fmt: skip
        self.lstm = nn.LSTM(channels, channels // 2, batch_first=True, bidirectional=True)

    def convolved(self, symbols: Tensor, valid: Tensor) -> Tensor:
        """Symbols (B, N) with their neighbours in view, (B, N, M), zero on padding."""
        mask = valid.unsqueeze(1)  # (B, 1, N)
        x: Tensor = self.embedding(symbols).transpose(1, 2) * mask  # (B, embedding, N)
        for block in self.blocks:
            x = block(x, mask)  # (B, M, N)
        return x.transpose(1, 2)

    def forward(self, symbols: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        """Encode a batch of texts.

        Args:
            symbols: ids, (B, N); 0 on padding.
            lengths: number of symbols of each text, (B,), on the CPU.
            valid: 1.0 where there is a symbol, (B, N).

        Returns:
            Encodings (B, N, M), zero on padding.
        """
        x = self.convolved(symbols, valid)
        # Packed, so that the backward direction starts at each text's own end.
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        encoded, _ = self.lstm(packed)
        return pad_packed_sequence(encoded, batch_first=True, total_length=symbols.shape[1])[0]
