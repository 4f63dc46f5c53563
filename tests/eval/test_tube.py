"""Several files in one tube, at a small size: each comes back by its pair, and few reads go to the wrong file."""

import json
import sys

from eval import tube

OPTIMISED = True  # see tests/conftest.py


def test_files_come_back(tmp_path, monkeypatch, capsys, one_shape):
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)  # a test session has eight devices
    out = tmp_path / "tube.json"
    small = ["--bytes", "300", "--constraints", "strand", "--length", "100", "--preset", "illumina"]
    monkeypatch.setattr(sys, "argv", ["tube", "--files", "2", "--coverage", "6", *small, "--json", str(out)])
    tube.main()
    [row] = json.loads(out.read_text())
    assert (row["files"], row["recovered"]) == (2, 1.0)
    assert abs(row["reads"] / row["strands"] - 6) < 1
    assert row["kept"] > 0.98
    assert row["wrong"] < 0.05
    assert row["seconds"] > 0
    assert "recovered" in capsys.readouterr().out
