"""Commands are killed at random, and end as if nothing had happened: docs/crashes.md has the numbers."""

import collections
import signal
import sys
from dataclasses import replace

import pytest

from tests.crashes.campaign import Campaign, campaign, difference
from tests.crashes.commands import COMMANDS, Work, contents, damaged
from tests.crashes.fork_server import CORE, Server
from tests.crashes.kills import ALL, read_place

SLOW, EXHAUSTIVE = 20, 500
"""Kills per twin."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc and pidfd_open")


def wrong(killed) -> list[str]:
    return [f"{each.command}, {each.place}: {each.wrong}" for each in killed if each.wrong]


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """Kills commands that need no twin; its server starts in a second."""
    folder = tmp_path_factory.mktemp("core")
    with Server(CORE, folder / "home") as server:
        yield Campaign(Work(folder, CORE, server), 0)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.core], ids=lambda command: command.name)
def test_commands_without_a_twin_survive_kills(core, command):
    killed = list(core.kills(command, 1 if command.before else 4))
    assert killed and not wrong(killed)


def test_a_kill_is_a_kill(core):
    """The process dies by a signal, at the operation that was asked for, and says where."""
    command = next(each for each in COMMANDS if each.name == "export")
    whole, folder = core.undisturbed(command), core.work.trial(command)
    for kill, status in (({"operation": 3}, signal.SIGKILL), ({"seconds": whole.seconds / 4}, signal.SIGALRM)):
        ended = core.work.run(command, folder, kill)
        assert ended.status == -status and not (folder / "exported").exists()
        assert bool(read_place(core.work.server.report, False).operation) == ("operation" in kill)
    assert whole.operations > 20


def test_the_harness_sees_what_differs(core):
    command = next(each for each in COMMANDS if each.name == "export")
    expected, folder = core.undisturbed(command).contents, core.work.trial(command)
    core.work.run(command, folder)
    assert not difference(contents(folder), expected)
    weights = folder / "exported" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert difference(contents(folder), expected) == "exported/model.safetensors" and damaged(folder)
    weights.unlink()
    assert "model.safetensors" in difference(contents(folder), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("planted", "said"), [("forgotten_position", "differs"), ("name_before_content", "step-")])
def test_the_harness_finds_a_planted_fault(tmp_path, planted, said):
    command = next(each for each in COMMANDS if each.name == "train")
    with Server("torch", tmp_path / "home") as server:
        campaign = Campaign(Work(tmp_path, "torch", server), 0)
        campaign.undisturbed(command)
        killed = campaign.kills(replace(command, before=planted), 60)
        assert any(said in each.wrong for each in killed)


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_killed_runs_end_as_undisturbed_ones(tmp_path, twin):
    assert not wrong(campaign(twin, SLOW, 0, tmp_path))


@pytest.mark.exhaustive
@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_many_killed_runs_end_as_undisturbed_ones(tmp_path, twin):
    killed = list(campaign(twin, EXHAUSTIVE, 1, tmp_path))
    phases = collections.Counter(each.place.phase for each in killed)
    assert not wrong(killed) and len(killed) >= EXHAUSTIVE - 2 and set(ALL) <= set(phases), phases
