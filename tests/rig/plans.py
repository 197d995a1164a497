"""What the policy decides in worlds made by chance and in all scenarios of the bench, as hashes.

    python -m tests.rig.plans    writes tests/data/plans.txt anew, in some minutes

A change of names, files or words changes none of them. One that is to change decisions changes
some, and its commit says which and why. A hash covers what is done in each round, not how it is
explained: the host's state, the targets and their kinds, KSM's files and what is reclaimed.
"""

import multiprocessing
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from qmpmem.model.round import Tick
from qmpmem.simulate.policy_table import RIVALS
from qmpmem.simulate.run import Run
from qmpmem.simulate.spec import World
from tests.bench import scenarios
from tests.rig import laws

FILE: Final = Path(__file__).parents[1] / "data" / "plans.txt"
WORLDS: Final = 2_000
DIGITS: Final = 12


def names() -> list[str]:
    """Return what there is a hash of: numbers of worlds and names of scenarios."""
    files = sorted(path.stem for path in scenarios.FOLDER.glob("*.toml"))
    return [*map(str, range(WORLDS)), *files]


def recorded() -> dict[str, str]:
    """Return the hashes as they were written down."""
    lines = FILE.read_text().splitlines()
    return dict(line.split() for line in lines)


def digest(name: str) -> str:
    """Play a world or a scenario, and return the hash of what the policy decided."""
    run = Run(_world(name), RIVALS["ours"])
    return _digest(run.ticks())


def changed(some: Sequence[str]) -> list[str]:
    """Return those of which the hash is another one than was written down."""
    known = recorded()
    return [name for name in some if digest(name) != known.get(name)]


def _world(name: str) -> World:
    if name.isdecimal():
        return laws.world(int(name))
    return scenarios.world(scenarios.FOLDER / f"{name}.toml", 0)


def _digest(ticks: Iterable[Tick]) -> str:
    found = sha256()
    for tick in ticks:
        plan = tick.plan
        balloons = [(each.guest, each.target, each.kind) for each in plan.balloons]
        reclaims = [(each.guest, each.size) for each in plan.reclaims]
        ksm = None if plan.ksm is None else sorted(plan.ksm.changes.items())
        found.update(repr((plan.state, plan.reserve, balloons, reclaims, ksm)).encode())
    return found.hexdigest()[:DIGITS]


def main() -> None:
    """Write the file."""
    with multiprocessing.Pool() as pool:
        digests = pool.map(digest, names(), chunksize=8)
    pairs = zip(names(), digests, strict=True)
    FILE.write_text("".join(f"{name} {found}\n" for name, found in pairs))


if __name__ == "__main__":
    main()
