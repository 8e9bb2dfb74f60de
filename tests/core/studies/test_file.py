"""Study files: what they may say, and what is told to a user who made a mistake."""

import pytest

from slm_core.config import presets
from slm_core.errors import UserError
from slm_core.studies.file import load_study
from slm_core.studies.study import Study
from slm_core.studies.variants import Variant

STUDIES = sorted(str(path.relative_to(presets.ROOT)) for path in (presets.ROOT / "configs" / "studies").glob("*.py"))


@pytest.mark.parametrize("path", STUDIES)
def test_the_studies_of_the_project_have_valid_variants(path, tmp_path):
    file = load_study(path)
    study = Study(
        folder=tmp_path,
        preset=file.get("config", presets.DEFAULT),
        overrides=file.get("overrides", {}),
        variants=tuple(Variant(name, fields) for name, fields in file["variants"].items()),
        frameworks=("torch",),
        seeds=1,
        match="steps",
        threads=1,
        question=file["question"],
        command="",
    )
    study.check()
    assert study.variants and study.question.endswith("?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "write def get_study"),
        ("def get_study(): return 3", "write def get_study"),
        ("def get_study(): return 1 / 0", "fails: ZeroDivisionError"),
        ("def get_study(): return {'seedz': 3}", "'seedz' is not one of .*did you mean seeds"),
        ("def get_study(): return {'seeds': '3'}", "seeds='3' must be of type int"),
        ("def get_study(): return {'variants': {'a': {'model.d_modl': 3}}}", "did you mean model.d_model"),
        ("def get_study(): return {'variants': {'a': {'model.d_model': 'wide'}}}", "model.d_model='wide'"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, text, message):
    (tmp_path / "study.py").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_study(str(tmp_path / "study.py"))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_names_those_that_are():
    with pytest.raises(UserError, match="is not a file.*configs/studies/attention.py"):
        load_study("configs/studies/atention.py")
