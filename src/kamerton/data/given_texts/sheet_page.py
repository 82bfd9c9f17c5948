"""The correction sheet as a page: listen, type, save; it works without a network or a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from kamerton.core.progress import Progress, silent
from kamerton.data.filters import REASONS
from kamerton.data.given_texts.matching import NOTES
from kamerton.data.given_texts.sheet import SHEET_COLUMNS, SheetRow
from kamerton.data.manifest import decode_flac
from kamerton.data.tables import read_clip_file
from kamerton.report.page import Page, audio_uri

_STYLE = """<style>
.clip{border-bottom:1px solid var(--line);padding:12px 0;display:grid;gap:6px 14px;
grid-template-columns:300px 1fr}
.clip audio{width:290px;height:36px}.clip .sub{font-size:13px;grid-column:1/-1}
.clip textarea{width:100%;font:inherit;color:inherit;background:var(--wash);padding:6px 8px;
border:1px solid var(--line);border-radius:6px;resize:vertical}
.clip label{font-size:13px;color:var(--soft)}
.clip.changed textarea,.clip.accepted textarea{border-color:var(--good)}
.clip.dropped textarea{border-color:var(--bad)}
.bar{position:sticky;top:0;background:var(--paper);padding:10px 0;z-index:1;
border-bottom:1px solid var(--line)}
.bar button{font:inherit;padding:6px 16px;border:0;border-radius:6px;background:var(--accent);
color:var(--paper);cursor:pointer}.bar span{margin-left:14px;color:var(--soft)}
@media(max-width:700px){.clip{grid-template-columns:1fr}}
</style>"""

# Cells that a spreadsheet would take for formulas get an apostrophe, as `escape_cell` does it.
_SCRIPT = r"""<script>
const table=JSON.parse(document.getElementById('rows').textContent);
const columns=table.columns,rows=table.rows,text=columns.indexOf('text'),
accept=columns.indexOf('accept'),clips=[...document.querySelectorAll('.clip')];
let saved=true;
const tidy=value=>value.normalize('NFC').split(/\s+/).filter(Boolean).join(' ');
const state=clip=>{const typed=tidy(clip.querySelector('textarea').value),
ticked=clip.querySelector('input').checked,changed=typed!==tidy(clip.dataset.recognised);
return{typed,ticked,changed,dropped:(changed||ticked)&&!typed}};
function show(){let count=0;for(const clip of clips){const now=state(clip);
count+=now.changed||now.ticked;clip.classList.toggle('changed',now.changed);
clip.classList.toggle('accepted',now.ticked);clip.classList.toggle('dropped',now.dropped)}
document.getElementById('count').textContent=`${count} of ${clips.length} corrected or accepted`}
const guard=value=>/^\s*['=+@-]/.test(value)?"'"+value:value;
const quote=value=>/[",\r\n]/.test(value)?'"'+value.replaceAll('"','""')+'"':value;
function csv(){const lines=[columns];rows.forEach((row,at)=>{const now=state(clips[at]),
line=[...row];line[text]=guard(now.typed);line[accept]=now.ticked?'yes':'';lines.push(line)});
return'\ufeff'+lines.map(line=>line.map(quote).join(',')+'\r\n').join('')}
document.addEventListener('input',()=>{saved=false;show()});
document.getElementById('save').addEventListener('click',()=>{
const link=document.createElement('a');
link.href=URL.createObjectURL(new Blob([csv()],{type:'text/csv;charset=utf-8'}));
link.download='corrections.csv';link.click();saved=true});
addEventListener('beforeunload',event=>{if(!saved)event.preventDefault()});
document.addEventListener('play',event=>{for(const other of document.querySelectorAll('audio'))
if(other!==event.target)other.pause()},true);
show();
</script>"""

_HELP = (
    "Play a clip and correct its text. An empty text drops the clip. Tick the box where the text "
    "is right as it stands. Save the file and put it beside your recordings; clips that you "
    "neither change nor tick stay as they are."
)


def render_sheet_page(clips: Path, rows: Sequence[SheetRow], on_progress: Progress = silent) -> str:
    """The sheet as a page that holds the sound of each clip.

    Raises:
        InputCorruptError: the sound of a clip is missing or damaged.
    """
    page = Page("Corrections", f"{len(rows)} clips of {clips}")
    page.text(_HELP)
    table = {"columns": SHEET_COLUMNS, "rows": [row.cells for row in rows]}
    page.element(
        f'{_STYLE}<div class="bar"><button id="save">Save corrections.csv</button>'
        '<span id="count"></span></div>'
        f'<script type="application/json" id="rows">{_inside_script(table)}</script>'
    )
    for done, row in enumerate(rows):
        on_progress(done, len(rows), row.clip.source)
        page.element(_clip(clips, row))
    on_progress(len(rows), len(rows))
    return page.element(_SCRIPT).render()


def _inside_script(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _clip(clips: Path, row: SheetRow) -> str:
    payload = read_clip_file(clips, row.clip)
    sound = decode_flac(payload, f"{clips} (clip {row.clip.id})", written_by="segment")
    text, ticked = escape(row.text, quote=True), " checked" if row.accepted else ""
    return (
        f'<div class="clip" data-recognised="{text}">'
        f'<div class="sub">{escape(_about(row))}</div>'
        f'<div><audio controls preload=none src="{audio_uri(*sound)}"></audio>'
        f'<label><input type="checkbox"{ticked}> right as it stands</label></div>'
        f'<textarea rows="2" dir="auto" spellcheck="true" aria-label="text">{text}</textarea></div>'
    )


def _about(row: SheetRow) -> str:
    told = {**REASONS, **NOTES}
    start = row.clip.start_sample / row.clip.sample_rate_hz
    said = [f"{row.clip.source} at {start:.1f} s"]
    said += ["corrected earlier"] if row.accepted else []
    said += [] if row.avg_logprob is None else [f"log probability {row.avg_logprob:.2f}"]
    return ", ".join([*said, *(told.get(reason, reason) for reason in row.reasons)])
