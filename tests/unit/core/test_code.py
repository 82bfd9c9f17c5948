from kamerton.core import code


def make(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_digest_covers_the_parts_that_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(code.kamerton, "__file__", str(tmp_path / "__init__.py"))
    for name in ("audio/a.py", "audio/deep/b.py", "data/cuts.py", "data/other.py"):
        make(tmp_path, name, name)
    parts = ("audio", "data/cuts.py")
    before = code.code_digest(parts)
    assert code.code_digest(parts) == before
    make(tmp_path, "data/other.py", "changed")
    make(tmp_path, "audio/notes.txt", "no code")
    assert code.code_digest(parts) == before
    digests = {before}
    for name in ("audio/deep/b.py", "data/cuts.py", "audio/new.py"):
        make(tmp_path, name, "changed")
        digests.add(code.code_digest(parts))
    assert len(digests) == 4
