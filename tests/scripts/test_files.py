"""A file that a script cannot write is refused before its work."""

import pytest

from slm_core.cli.output_file import PICTURES, output_file
from slm_core.errors import UserError


def test_a_file_that_can_be_written(tmp_path):
    for name in ("new.png", "there.svg"):
        (tmp_path / "there.svg").touch()
        assert output_file("figure", str(tmp_path / name), PICTURES) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gif", "must end in .png or .svg"),
        ("a", "must end in"),
        ("none/a.png", "there is no folder"),
        ("folder.png", "cannot be written"),
    ],
)
def test_a_file_that_cannot(tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=f"^--figure=.*{words}"):
        output_file("figure", str(tmp_path / name), PICTURES)
