"""The table of the policy's numbers: as its source has them."""

from qmpmem.api.policy_constants import constants
from qmpmem.policy.constants_table import CONSTANTS
from tests.rig.policy_constants import COMMAND, TABLE, rows, table


def test_the_table_is_what_the_source_says() -> None:
    known = tuple(rows())
    assert known == CONSTANTS, f"made anew by `{COMMAND}`"
    assert table(known) == TABLE.read_text(), f"made anew by `{COMMAND}`"


def test_constants_have_the_words_that_stand_below_them() -> None:
    found = {each.name: each for each in constants()}
    percent = found["config.MINIMUM_PERCENT"]
    assert percent.value == "35"
    assert percent.meaning == (
        "Percent of its maximum that a guest keeps by default: ESX caps the balloon at 65 % "
        "(Mem.CtlMaxPercent)."
    )
    assert found["allocation.REVOKED_PERCENT"].value == "2"
    assert len(found) > 50
    assert all("\n" not in each.value for each in found.values())
    assert [name for name, each in found.items() if not each.meaning] == []
    assert found["reach.LEAST_STEP"].value == "16 MiB"
    assert found["config.PRESETS"].value.startswith("default: minimum_percent: 35, shares: 1000,")
