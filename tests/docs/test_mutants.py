"""The list of mutants, which `make prove` tries, keeps up with the code."""

from collections import Counter

import pytest

from kit.mutant_list import FOLDER, compiles, written_down
from kit.paths import ROOT

ROOMS = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_mutant_still_applies(room: str) -> None:
    wrong = []
    for mutant in written_down():
        if mutant.room == room:
            try:
                compiles(mutant)
            except (ValueError, SyntaxError) as error:
                wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


def test_every_mutant_has_a_name_of_its_own_and_tests_that_exist() -> None:
    mutants = written_down()
    assert [name for name, n in Counter(each.name for each in mutants).items() if n > 1] == []
    texts = {
        path.relative_to(ROOT).as_posix(): path for path in (ROOT / "tests").rglob("test_*.py")
    }
    for mutant in mutants:
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert file in texts or (ROOT / file).is_dir(), f"{mutant.name}: there is no {file}"
            wanted = f"def {name.rpartition('::')[2].partition('[')[0]}(" if name else ""
            assert wanted in texts.get(file, ROOT / "Makefile").read_text() or not name, (
                f"{mutant.name}: there is no {test}"
            )
