"""The same checkpoint for faster-whisper: CTranslate2 weights and the files it reads beside them.

The usual converter goes through a third library's copy of the model; Whisper's own weights map
onto CTranslate2's description one to one, so they are mapped here.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from kamerton.core.files import output_directory, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    State = dict[str, Tensor]

QUANTIZATION: Final = "int8"


def convert(checkpoint: Path, folder: Path) -> None:
    """Convert a Whisper checkpoint (English vocabulary) into a folder for faster-whisper.

    The folder is replaced if it exists. Weights become 8-bit integers with one scale per row.
    """
    import torch
    from ctranslate2.specs import WhisperSpec
    from whisper.tokenizer import get_tokenizer

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    dims = saved["dims"]
    state = {name: value.float() for name, value in saved["model_state_dict"].items()}
    spec = WhisperSpec(
        dims["n_audio_layer"], dims["n_audio_head"], dims["n_text_layer"], dims["n_text_head"]
    )
    _fill_encoder(spec.encoder, state)
    _fill_decoder(spec.decoder, state)

    tokenizer = get_tokenizer(multilingual=False)
    vocabulary = _vocabulary(tokenizer.encoding)
    spec.register_vocabulary(vocabulary)
    spec.config.suppress_ids = _suppressed(tokenizer)
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = sorted(  # the tokenizer lists them in another order every time
        tokenizer.encoding.encode_single_token(f"<|{code}|>")
        for code in tokenizer.all_language_codes
    )
    # Which heads follow the words was never trained for; CTranslate2 wants some all the same.
    last = dims["n_text_layer"] - 1
    spec.config.alignment_heads = [[last, head] for head in range(dims["n_text_head"])]
    spec.validate()
    spec.optimize(quantization=QUANTIZATION)

    with output_directory(folder, force=True) as target:
        spec.save(str(target))
        write_text(target / "tokenizer.json", _tokenizer_json(tokenizer.encoding))
        write_text(target / "preprocessor_config.json", _preprocessor_json(dims["n_mels"]))


def _fill_encoder(spec: Any, state: State) -> None:
    spec.position_encodings.encodings = state["encoder.positional_embedding"]
    _fill_linear(spec.conv1, state, "encoder.conv1")
    _fill_linear(spec.conv2, state, "encoder.conv2")
    _fill_norm(spec.layer_norm, state, "encoder.ln_post")
    for index, layer in enumerate(spec.layer):
        _fill_block(layer, state, f"encoder.blocks.{index}")


def _fill_decoder(spec: Any, state: State) -> None:
    spec.embeddings.weight = state["decoder.token_embedding.weight"]
    spec.projection.weight = state["decoder.token_embedding.weight"]  # tied, as in Whisper
    spec.position_encodings.encodings = state["decoder.positional_embedding"]
    _fill_norm(spec.layer_norm, state, "decoder.ln")
    for index, layer in enumerate(spec.layer):
        name = f"decoder.blocks.{index}"
        _fill_block(layer, state, name)
        _fill_attention(
            layer.attention, state, f"{name}.cross_attn", (("query",), ("key", "value"))
        )
        _fill_norm(layer.attention.layer_norm, state, f"{name}.cross_attn_ln")


def _fill_block(spec: Any, state: State, name: str) -> None:
    _fill_attention(spec.self_attention, state, f"{name}.attn", (("query", "key", "value"),))
    _fill_norm(spec.self_attention.layer_norm, state, f"{name}.attn_ln")
    _fill_linear(spec.ffn.linear_0, state, f"{name}.mlp.0")
    _fill_linear(spec.ffn.linear_1, state, f"{name}.mlp.2")
    _fill_norm(spec.ffn.layer_norm, state, f"{name}.mlp_ln")


def _fill_attention(spec: Any, state: State, name: str, groups: Sequence[Sequence[str]]) -> None:
    """CTranslate2 multiplies the projections of a group at once; the output one comes last."""
    import torch

    for linear, group in zip(spec.linear[:-1], groups, strict=True):
        weights = [state[f"{name}.{part}.weight"] for part in group]
        linear.weight = torch.cat(weights)
        linear.bias = torch.cat(
            [
                state.get(f"{name}.{part}.bias", torch.zeros(len(weight)))  # keys have no bias
                for part, weight in zip(group, weights, strict=True)
            ]
        )
    _fill_linear(spec.linear[-1], state, f"{name}.out")


def _fill_linear(spec: Any, state: State, name: str) -> None:
    spec.weight, spec.bias = state[f"{name}.weight"], state[f"{name}.bias"]


def _fill_norm(spec: Any, state: State, name: str) -> None:
    spec.gamma, spec.beta = state[f"{name}.weight"], state[f"{name}.bias"]


def _suppressed(tokenizer: Any) -> list[int]:
    """What Whisper never says: marks of non-speech and the tokens that steer it."""
    steering = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    return sorted({*tokenizer.non_speech_tokens, *steering})


def _vocabulary(encoding: Any) -> list[str]:
    """Every token in the printable spelling of byte-level vocabularies, in order of id."""
    specials = {index: token for token, index in encoding._special_tokens.items()}
    letters = _byte_letters()
    return [
        specials[index] if index in specials else _spelled(_bytes(encoding, index), letters)
        for index in range(encoding.n_vocab)
    ]


def _tokenizer_json(encoding: Any) -> str:
    """Whisper's byte-pair encoding in the format of the `tokenizers` library."""
    letters = _byte_letters()
    ranks = {_bytes(encoding, index): index for index in range(encoding.eot_token)}
    merges = [
        [_spelled(part, letters) for part in _parts(token, rank, ranks)]
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, "special": True, **flags}
            for token, index in sorted(encoding._special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {_spelled(token, letters): rank for token, rank in ranks.items()},
            "merges": merges,
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def _bytes(encoding: Any, index: int) -> bytes:
    return bytes(encoding.decode_single_token_bytes(index))


def _parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that a byte-pair encoding joins to make ``token``."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        at = min(range(len(joined)), key=joined.__getitem__)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte: itself where that prints, the next ones from U+0100 if not."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(0x100 + number) for number, byte in enumerate(hidden)}


def _spelled(token: bytes, letters: dict[int, str]) -> str:
    return "".join(letters[byte] for byte in token)


def _preprocessor_json(mels: int) -> str:
    from whisper.audio import CHUNK_LENGTH, HOP_LENGTH, N_FFT, SAMPLE_RATE

    sizes = {
        "feature_size": mels,
        "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP_LENGTH,
        "chunk_length": CHUNK_LENGTH,
        "n_fft": N_FFT,
    }
    return json.dumps(sizes, indent=2) + "\n"
