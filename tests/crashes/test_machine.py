"""Faults of the machine: one error or a warning, and every checkpoint whole; docs/crashes.md shows them."""

import sys

import pytest

from tests.crashes.campaign import Campaign
from tests.crashes.commands import Work
from tests.crashes.fork_server import CORE, Server
from tests.crashes.machine import FAULTS, NotHere, commands, observe

FLAX = ("disk of the compile cache full", "compile cache that cannot be made", "little memory (`ulimit -v`)")
"""Faults that the slow tier does in Flax, too; elsewhere the twins run the same code of the core."""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc and Linux's limits")


@pytest.fixture(scope="module", params=[CORE, "torch", "flax"])
def twin(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with Server(request.param, folder / "home") as server:
        yield Campaign(Work(folder, request.param, server), 0)


def wrong(campaign: Campaign, name: str, values=None) -> list[str]:
    """Does a fault to each command that it concerns. Returns what was wrong."""
    todo = commands(campaign.work.twin, name)
    if not todo:
        pytest.skip("it concerns other commands")
    try:
        observed = [each for command in todo for each in observe(campaign, name, command, values)]
    except NotHere as error:
        pytest.skip(str(error))
    assert observed
    return [f"{each.command}: {each.wrong}" for each in observed if each.wrong]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_and_leaves_whole_checkpoints(twin, name):
    if twin.work.twin == "flax" and name not in FLAX:
        pytest.skip("the exhaustive tier does it in Flax")
    values = FAULTS[name].values
    assert not wrong(twin, name, values[len(values) // 2 :][:1])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAULTS)
def test_every_size_and_moment_of_a_fault(twin, name):
    assert not wrong(twin, name)
