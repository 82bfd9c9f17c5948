"""Parameters to the network they ask for."""

from __future__ import annotations

from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError
from kamerton.model.tacotron2.architecture import Architecture

SEVERAL_SPEAKERS_DIM = 64


def architecture_of(params: Params, symbols: int, *, speakers: int = 1) -> Architecture:
    """The network that resolved parameters ask for.

    Args:
        params: Parameters; nothing in ``train`` is null that a preset stands for.
        symbols: Size of the symbol table.
        speakers: How many the dataset has.

    Raises:
        ParamsError: the coarse decoder is asked for and is no coarser than the first.
    """
    train = params.train
    sizes = train.model.model_dump(exclude={"speaker_embedding_dim", "double_decoder_reduction"})
    dim = train.model.speaker_embedding_dim
    if dim is None:
        dim = SEVERAL_SPEAKERS_DIM if speakers > 1 else 0
    coarse = train.model.double_decoder_reduction if train.losses.double_decoder_weight else 0
    if coarse and coarse <= train.model.reduction_factor:
        raise ParamsError(
            f"train.model.double_decoder_reduction is {coarse}, and the decoder that it shall be "
            f"coarser than makes {train.model.reduction_factor} frames per step",
            hint=f"set it to {2 * train.model.reduction_factor}, or "
            "train.losses.double_decoder_weight to 0",
        )
    return Architecture(
        symbols=symbols,
        mels=params.audio.mel_channels,
        encoder_dropout=train.encoder_dropout,
        prenet_dropout=train.prenet_dropout,
        attention_dropout=train.attention_dropout,
        decoder_dropout=train.decoder_dropout,
        postnet_dropout=train.postnet_dropout,
        speakers=speakers if dim else 1,  # without a vector all of them are one
        speaker_embedding_dim=dim,
        double_decoder_reduction=coarse,
        recurrent_noise=train.regularisation.recurrent or "output",
        variational=train.regularisation.variational,
        spectral_dropout=train.regularisation.spectral_dropout or 0.0,
        **sizes,
    )
