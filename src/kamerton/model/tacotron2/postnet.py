"""A residual that sharpens the decoder's mel frames, seeing those before and after."""

from __future__ import annotations

from torch import Tensor, nn

from kamerton.model.tacotron2.convolution import ConvolutionBlock


class Postnet(nn.Module):
    """The post-net of Tacotron 2 (arXiv:1712.05884, section 2.2).

    Shapes use: B batch, F frames, C mel channels.
    """

    def __init__(
        self, mels: int, channels: int, *, convolutions: int, kernel: int, dropout: float
    ) -> None:
        super().__init__()
        sizes = [mels] + [channels] * (convolutions - 1) + [mels]
        last = convolutions - 1
        self.blocks = nn.ModuleList(
            ConvolutionBlock(
                sizes[index],
                sizes[index + 1],
                kernel=kernel,
                activation="none" if index == last else "tanh",
                dropout=dropout,
            )
            for index in range(convolutions)
        )

    def forward(self, frames: Tensor, valid: Tensor) -> Tensor:
        """Add the residual to ``frames`` (B, F, C); ``valid`` is 1.0 on real frames, (B, F)."""
        mask = valid.unsqueeze(1)  # (B, 1, F)
        x = frames.transpose(1, 2) * mask  # (B, C, F)
        for block in self.blocks:
            x = block(x, mask)
        return frames + x.transpose(1, 2)
