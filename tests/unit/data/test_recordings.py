import json
import os

from kamerton.data.recordings import find_recordings


def names(folder):
    return [recording.name for recording in find_recordings(folder)]


def test_nested_files_in_order_without_notes_and_hidden_ones(tmp_path):
    for name in ["b.wav", "a/z.FLAC", "a/notes.txt", "a/.DS_Store", ".git/x.wav", "voice", "c.SRT"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert names(tmp_path) == ["a/z.FLAC", "b.wav", "voice"]


def test_links_are_followed_and_loops_end(tmp_path):
    folder, other = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    other.mkdir()
    (other / "x.wav").touch()
    (folder / "linked").symlink_to(other)
    (folder / "again").symlink_to(folder)
    (folder / "y.wav").symlink_to(other / "x.wav")
    (folder / "broken.wav").symlink_to("nowhere")
    assert names(folder) == ["broken.wav", "linked/x.wav", "y.wav"]


def test_names_in_any_script_and_in_none_fit_json(tmp_path):
    (tmp_path / "запись 1.wav").touch()
    with open(os.path.join(os.fsencode(tmp_path), b"\xff\xfe.wav"), "w"):
        pass
    found = find_recordings(tmp_path)
    assert [r.name for r in found] == ["\\xff\\xfe.wav", "запись 1.wav"]
    json.dumps([r.name for r in found], ensure_ascii=False).encode("utf-8")
    assert all(recording.path.exists() for recording in found)


def test_an_empty_folder(tmp_path):
    assert names(tmp_path) == []
