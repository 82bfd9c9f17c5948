"""One self-contained HTML page: style, pictures and sound inside, nothing fetched."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Literal, Self

from kamerton.core.errors import ToolMissingError

_STYLE = """
:root{--ink:#1c2330;--soft:#5b6472;--line:#dfe3ea;--paper:#fff;--wash:#f5f7fa;--accent:#1f5fae;
--good:#1d7f4f;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#a2abba;--line:#343b48;--paper:#151a22;
--wash:#1d232d;--accent:#7db2f5;--good:#63c796;--bad:#ff8a80}img{background:#fff;border-radius:4px}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 24px 60px}
header{border-bottom:2px solid var(--accent);padding-bottom:12px;margin-bottom:20px}
h1{font-size:26px;margin:0}h2{font-size:19px;margin:34px 0 8px}p{margin:6px 0 12px;max-width:75ch}
.sub,figcaption,caption{color:var(--soft)}
figcaption,caption{font-size:13px;text-align:left;caption-side:bottom}
.verdict{padding:12px 16px;border-left:5px solid var(--accent);background:var(--wash);
font-size:17px;margin:16px 0}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--bad)}
.facts{display:grid;
grid-template-columns:repeat(auto-fill,minmax(165px,1fr));gap:10px;margin:14px 0}
.fact{background:var(--wash);border-radius:6px;padding:10px 12px}
.fact b{display:block;font-size:20px;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.fact span{color:var(--soft);font-size:13px}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:10px 0;font-size:14px}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600}th.num,td.num{text-align:right;font-variant-numeric:tabular-nums}
del{color:var(--bad)}ins{color:var(--good);text-decoration:none;font-weight:600}
figure{margin:14px 0}img{max-width:100%;height:auto;display:block}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:4px 14px}
.gallery figure{margin:6px 0}
.players{display:flex;flex-wrap:wrap;gap:14px;margin:8px 0 16px}
.players label{font-size:13px;color:var(--soft)}
.players audio{display:block;width:280px;height:36px}
"""


def encode_audio(wave: Any, rate_hz: int) -> tuple[str, bytes]:
    """Mono float audio as (MIME type, bytes) in the smallest format that every browser plays.

    libsndfile's MP3 is used where it is built in, else 16-bit WAV.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ToolMissingError("soundfile", extra="audio") from error
    buffer = io.BytesIO()
    if "MP3" in soundfile.available_formats():
        soundfile.write(buffer, wave, rate_hz, format="MP3", subtype="MPEG_LAYER_III")
        return "audio/mpeg", buffer.getvalue()
    soundfile.write(buffer, wave, rate_hz, format="WAV", subtype="PCM_16")
    return "audio/wav", buffer.getvalue()


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def audio_uri(wave: Any, rate_hz: int) -> str:
    """Mono float audio as an address that holds all of it, for the ``src`` of a player."""
    return _data_uri(*encode_audio(wave, rate_hz))


_CLASS_NUMBER = ' class="num"'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    """Whether a column holds numbers alone; its heading then stands above them, on the right."""
    values = [row[column] for row in rows if column < len(row) and row[column] is not None]
    return bool(values) and all(map(_is_number, values))


def _cell(value: Any) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int):
        return f'<td class="num">{value:,}</td>'.replace(",", "\u202f")
    if isinstance(value, float):
        return f'<td class="num">{value:.3f}</td>'
    return f"<td>{escape(str(value))}</td>"


class Page:
    """A report under construction; every method adds below what is there and returns the page."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._parts = [
            f'<header><h1>{escape(title)}</h1><div class="sub">{escape(subtitle)}</div></header>'
        ]

    def verdict(self, text: str, ok: bool | None = None) -> Self:
        """One sentence that says how it went; green, red or neutral."""
        mood = "" if ok is None else " good" if ok else " bad"
        self._parts.append(f'<div class="verdict{mood}">{escape(text)}</div>')
        return self

    def section(self, title: str, text: str = "") -> Self:
        """A heading with an optional paragraph."""
        self._parts.append(f"<h2>{escape(title)}</h2>")
        return self.text(text) if text else self

    def text(self, paragraph: str) -> Self:
        """A paragraph."""
        self._parts.append(f"<p>{escape(paragraph)}</p>")
        return self

    def marked(
        self, label: str, words: Iterable[tuple[str, Literal["same", "gone", "new"]]]
    ) -> Self:
        """A line of words in which what is missing is struck out and what is new stands out."""
        tags = {"same": "span", "gone": "del", "new": "ins"}
        line = " ".join(f"<{tags[kind]}>{escape(word)}</{tags[kind]}>" for word, kind in words)
        self._parts.append(f'<p><span class="sub">{escape(label)}</span> {line}</p>')
        return self

    def facts(self, facts: Mapping[str, str]) -> Self:
        """The few figures one looks for first, each with its name."""
        tiles = "".join(
            f'<div class="fact"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
            for name, value in facts.items()
        )
        self._parts.append(f'<div class="facts">{tiles}</div>')
        return self

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = ""
    ) -> Self:
        """A table; numbers are aligned right, None is a dash."""
        listed = [tuple(row) for row in rows]
        head = "".join(
            f"<th{_CLASS_NUMBER if _is_numeric(listed, column) else ''}>{escape(header)}</th>"
            for column, header in enumerate(headers)
        )
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in listed)
        below = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._parts.append(
            f'<div class="wide"><table>{below}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        return self

    def figure(self, png: bytes, caption: str = "") -> Self:
        """A PNG picture; the caption is also its alternative text."""
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        image = f'<img alt="{escape(caption, quote=True)}" src="{_data_uri("image/png", png)}">'
        self._parts.append(f"<figure>{image}{below}</figure>")
        return self

    def gallery(self, pictures: Iterable[tuple[bytes, str]], caption: str = "") -> Self:
        """Small PNG pictures side by side, each with a few words below it."""
        cells = "".join(
            f'<figure><img alt="{escape(label, quote=True)}" src="{_data_uri("image/png", png)}">'
            f"<figcaption>{escape(label)}</figcaption></figure>"
            for png, label in pictures
        )
        below = f'<div class="sub">{escape(caption)}</div>' if caption else ""
        self._parts.append(f'{below}<div class="gallery">{cells}</div>')
        return self

    def drawing(self, svg: str, caption: str = "") -> Self:
        """An SVG element of our own making; it may use the colours of the page."""
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._parts.append(f"<figure>{svg}{below}</figure>")
        return self

    def element(self, html: str) -> Self:
        """HTML of our own making; what comes from users must be escaped in it."""
        self._parts.append(html)
        return self

    def audio(self, players: Iterable[tuple[str, Any, int]], caption: str = "") -> Self:
        """Players side by side: (label, mono float wave, rate in Hz) each."""
        cells = "".join(
            f"<label>{escape(label)}<audio controls preload=none "
            f'src="{audio_uri(wave, rate_hz)}"></audio></label>'
            for label, wave, rate_hz in players
        )
        below = f'<div class="sub">{escape(caption)}</div>' if caption else ""
        self._parts.append(f'{below}<div class="players">{cells}</div>')
        return self

    def render(self) -> str:
        """The whole page; equal content gives equal bytes."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(self._title)}</title>"
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<style>{_STYLE}</style></head><body><main>{''.join(self._parts)}</main></body></html>\n"
        )
