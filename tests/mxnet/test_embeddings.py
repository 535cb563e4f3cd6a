"""Files of token vectors that are not what they should be, and names of files that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from diptych.mxnet.base import MXNetError
from diptych.mxnet.contrib import text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("content", "match"), [
    ("a 1 2\nb 1 2 3\n", "line 2 .*length 3, those before it 2"), ("a 1 2\nb\n", "line 2 .*a token and its vector"),
    ("a 1 x\n", "line 1 .*'x'"), ("", "no vectors"),
])  # fmt: skip
def test_the_line_of_a_fault_is_told(content: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_text(content)
    with pytest.raises((ValueError, AssertionError), match=match):
        text.embedding.CustomEmbedding(str(path))


def test_named_files_are_read_where_they_are_and_asked_for_where_they_are_not(tmp_path: Path) -> None:
    with pytest.raises(MXNetError, match=r"glove.glove.6B.50d.txt.*put it there"):
        text.embedding.create("glove", pretrained_file_name="glove.6B.50d.txt", embedding_root=str(tmp_path))
    with pytest.raises(KeyError, match="Valid pretrained files"):
        text.embedding.GloVe("glove.txt", embedding_root=str(tmp_path))
    (tmp_path / "fasttext").mkdir()
    (tmp_path / "fasttext" / "wiki.eo.vec").write_text("2 3\ndomo 1 2 3\nhundo 4 5 6\n")
    with pytest.warns(UserWarning, match="likely a header"):
        found = text.embedding.create("FastText", pretrained_file_name="wiki.eo.vec", embedding_root=str(tmp_path))
    assert found.get_vecs_by_tokens(["hundo", "kato"]).asnumpy().tolist() == [[4, 5, 6], [0, 0, 0]]
    assert "glove.6B.50d.txt" in text.embedding.get_pretrained_file_names("glove")
    with pytest.raises(ValueError, match="kato is unknown"):
        found.update_token_vectors("kato", found.get_vecs_by_tokens("hundo"))
