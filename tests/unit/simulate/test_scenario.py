"""Scenario files: what they may say, what is said of mistakes, and the command that takes them."""

from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from qmpmem.configuration import Source
from qmpmem.configuration.files import read_file
from qmpmem.errors import ConfigError
from qmpmem.model.config import Config
from qmpmem.simulate.loads import Steps
from qmpmem.simulate.policy_table import RIVALS
from qmpmem.simulate.results import ResultsCounter
from qmpmem.simulate.scenario import read
from qmpmem.simulate.scenario_keys import GUEST as GUEST_KEYS
from qmpmem.simulate.scenario_keys import HOST as HOST_KEYS
from qmpmem.simulate.scenario_keys import TOP
from qmpmem.simulate.spec import Contained, Pause, Plug, Reboot, World
from qmpmem.simulate.trace import Recorder
from qmpmem.units import GIB, MIB, Bytes
from qmpmem.view import simulation_plot
from tests.rig import readme

SCENARIOS: Final = sorted((Path(__file__).parents[2] / "data" / "scenarios").glob("*.toml"))
HOST: Final = '[host]\nmemory = "4G"\n'
GUEST: Final = '[[guest]]\nname = "a"\nmemory = "1G"\n'


def world(text: str) -> World:
    return read(Source(file="s.toml", text=text), Config())


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenarios_here_can_be_read(path: Path) -> None:
    assert read(read_file(path), Config()).guests


def test_the_scenario_in_the_readme_can_be_read() -> None:
    [example] = readme.blocks("scenario")
    assert len(world(example.text).guests) == 4


def test_little_needs_to_be_said() -> None:
    found = world(HOST + GUEST)
    assert found.seconds == 300
    assert found.host.memory == 4 * GIB
    assert found.host.own.at(0) == 4 * GIB * 5 // 100
    assert [(guest.id, guest.memory) for guest in found.guests] == [("a", GIB)]


def test_what_the_host_itself_needs_may_change() -> None:
    found = world(f"{HOST}own_demand = [[0, '100M'], [60, '2G']]\n{GUEST}")
    assert [found.host.own.at(time) for time in (0, 61)] == [100 * MIB, 2 * GIB]


def test_a_count_numbers_the_guests_and_their_rules() -> None:
    found = world(f'{HOST}{GUEST}count = 3\nminimum = "25%"\nshares = 7\n')
    assert [guest.id for guest in found.guests] == ["a1", "a2", "a3"]
    assert [rule.match for rule in found.config.rules] == ["a1", "a2", "a3"]
    limits = found.config.limits("a2", Bytes(GIB))
    assert (limits.minimum, limits.shares) == (256 * MIB, 7)


def test_all_that_may_be_said_is_heard() -> None:
    found = world(
        'seconds = "2min"\nseed = 4\ngrace = 5\nreserve = "100M"\nksm = true\n'
        + HOST
        + 'own = "10%"\nswap = "1G"\nswap_speed = "50M"\nbudget = "3G"\nsame = "30%"\n'
        + '[request]\nsize = "1G"\nat = 30\n'
        + GUEST
        + 'kind = "cache-heavy"\ndemand = [[0, "100M"], ["1min", "200M"]]\nhot = "50%"\n'
        + 'files = "2G"\nhot_files = "10%"\nswap = "512M"\nstarts = 3\ndeflate_on_oom = false\n'
        + 'free_page_reporting = true\nmodern = true\ntouches_all = true\nhas = "75%"\n'
        + 'speed = "10M"\nsticks = 2\nstops_at = "50%"\ngrows_to = "90%"\nmisses = "4M"\n'
        + 'maximum = "80%"\nclass = "database"\nallocates = "100M"\nreads = "50M"\n'
        + 'rereads = "20M"\nmapped = true\nswap_speed = "500M"\nzram = true\ncgroup = true\n'
        + 'reports = "high"\nreboots = [9, "1min"]\npauses = [[30, "4s"]]\n'
        + 'plugs = [[40, "1G"]]\ncontained = [50]\n'
    )
    (guest,) = found.guests
    assert (found.seconds, found.config.grace, found.config.reserve) == (120, 5, 100 * MIB)
    assert (found.host.swap_speed, found.host.budget, found.host.same) == (50 * MIB, 3 * GIB, 0.3)
    assert found.config.ksm.managed
    assert found.request is not None
    assert (found.request.size, found.request.at) == (GIB, 30)
    assert guest.load == Steps(points=((0.0, Bytes(100 * MIB)), (60.0, Bytes(200 * MIB))))
    assert (guest.hot, guest.files, guest.swap) == (0.5, 2 * GIB, 512 * MIB)
    assert guest.free_page_reporting
    assert not guest.deflate_on_oom
    assert guest.balloon == 256 * MIB
    assert guest.driver is not None
    assert (guest.driver.period, guest.driver.works) == (4, 2)
    assert (guest.driver.least, guest.driver.misses) == (512 * MIB, 4 * MIB)
    assert (guest.allocates, guest.reads, guest.rereads) == (100 * MIB, 50 * MIB, 20 * MIB)
    assert (guest.swap_speed, guest.zram, guest.mapped) == (500 * MIB, True, True)
    assert (guest.cgroup, guest.reports) == (True, "high")
    assert guest.events == (
        Reboot(at=9.0),
        Reboot(at=60.0),
        Contained(at=50.0),
        Pause(at=30.0, lasts=4.0),
        Plug(at=40.0, size=Bytes(GIB)),
    )
    limits = found.config.limits("a", Bytes(GIB))
    assert limits.maximum == GIB * 80 // 100 // 4096 * 4096
    assert (limits.shares, limits.headroom_percent) == (2000, 30)


def test_what_a_kind_does_goes_on_beside_what_is_said() -> None:
    (guest,) = world(f"{HOST}{GUEST}kind = 'rebooting'\npauses = [[30, 4]]\n").guests
    assert [type(event) for event in guest.events] == [Reboot, Reboot, Pause]


def test_many_guests_may_start_one_after_the_other() -> None:
    found = world(f"{HOST}{GUEST}count = 3\nstarts = 5\napart = 0.5\n")
    assert [guest.starts for guest in found.guests] == [5.0, 5.5, 6.0]


def test_the_manual_names_every_key_of_a_guest() -> None:
    told = readme.chapter("simulate")
    assert [key for key in (*TOP, *HOST_KEYS, *GUEST_KEYS) if f"`{key}`" not in told] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "s.toml: host.memory: missing (and 1 more)"),
        (GUEST, "s.toml: host.memory: missing"),
        (HOST, "s.toml: guest: missing"),
        (f"{HOST}[[guest]]\nname = 'a'\n", "s.toml:3: guest.memory: missing"),
        (f"{HOST}[[guest]]\nmemory = '1G'\n", "s.toml:3: guest.name: missing"),
        (f"{HOST}{GUEST}memroy = '2G'\n", "s.toml:6: guest.memroy: unknown key; did you mean"),
        (f"{HOST}swop = 1\n{GUEST}", "s.toml:3: host.swop: unknown key"),
        (f"hosts = 1\n{HOST}{GUEST}", "s.toml:1: hosts: unknown key"),
        (f"{HOST}{GUEST}{GUEST}", "s.toml:7: guest.name: a is there twice"),
        (f"{HOST}{GUEST}kind = 'angry'\n", "s.toml:6: guest.kind: expected"),
        (f"{HOST}{GUEST}count = 0\n", "s.toml:6: guest.count: expected a whole number"),
        (f"{HOST}{GUEST}count = 201\n", "s.toml:6: guest.count: expected a whole number"),
        (f"{HOST}{GUEST}low = 5\n", "s.toml:6: guest.low: expected a size"),
        (f"{HOST}{GUEST}demand = []\n", "s.toml:6: guest.demand: expected pairs"),
        (f"{HOST}{GUEST}demand = [[0]]\n", "s.toml:6: guest.demand: expected pairs"),
        (
            f"{HOST}{GUEST}demand = [[9, '1M'], [0, '1M']]\n",
            's.toml:6: guest.demand: expected pairs such as [[0, "200M"], [60, "1G"]], got a list',
        ),
        (f"{HOST}{GUEST}reboots = [5, 'x']\n", "s.toml:6: guest.reboots: expected times such as"),
        (f"{HOST}{GUEST}reboots = [5, 1]\n", "s.toml:6: guest.reboots: expected times such as"),
        (f"{HOST}{GUEST}reboots = 5\n", "s.toml:6: guest.reboots: expected times such as"),
        (f"{HOST}{GUEST}pauses = [5]\n", "s.toml:6: guest.pauses: expected pairs such as"),
        (f"{HOST}{GUEST}plugs = [[5, 5]]\n", "s.toml:6: guest.plugs: expected pairs such as"),
        (f"{HOST}{GUEST}class = 'web'\n", "s.toml:6: guest.class: expected"),
        (f"{HOST}{GUEST}reports = 'lies'\n", "s.toml:6: guest.reports: expected"),
        (f"{HOST}{GUEST}cgroup = 'yes'\n", "s.toml:6: guest.cgroup: expected"),
        (f"seconds = 0\n{HOST}{GUEST}", "s.toml:1: seconds: expected a time"),
        (f"seconds = 1e9\n{HOST}{GUEST}", "s.toml:1: seconds: expected a time"),
        (f"host = 5\n{GUEST}", "s.toml:1: host: expected a table, got 5"),
        (f"guest = 5\n{HOST}", "s.toml:1: guest: expected tables [[guest]], got 5"),
        (f"{HOST}{GUEST}[request]\nat = 5\n", "s.toml:6: request.size: missing"),
        (f"{HOST}{GUEST}[request]\nsize = '5'\n", "s.toml:7: request.size: expected a size"),
        ("[host\n", "s.toml:1: "),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        world(text)
    assert error.value.message.startswith(said)
    assert error.value.exit_code == 2


def test_more_mistakes_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"\(and 2 more\)"):
        world(f"{HOST}{GUEST}a = 1\nb = 2\nc = 3\n")


def test_a_picture_is_well_formed_and_shows_every_guest() -> None:
    found = world(f"seconds = 30\n{HOST}{GUEST}count = 2\n")
    traces = []
    for name in ("ours", "mom"):
        counter = ResultsCounter(found, RIVALS[name])
        recorder = Recorder(name, counter.run.host, found.seconds)
        for tick in counter.ticks():
            recorder.note(tick.snapshot.time)
        traces.append(recorder.trace)
    drawn = ET.fromstring(simulation_plot.plot(traces))  # noqa: S314 - our own
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for word in ("ours", "mom", "host, 4 GiB", "a1, 1 GiB", "a2, 1 GiB"):
        assert word in words
    lines = [
        element
        for element in drawn.iter("{http://www.w3.org/2000/svg}path")
        if element.get("class") == "actual"
    ]
    assert len(lines) == 1 + 4, "one in the legend, one for each guest of each policy"
