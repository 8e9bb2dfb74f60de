"""The other libraries of the speed benchmark: what is asked of them, their sizes and losses, and one short contest."""

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import _checkout, _peers, _torch_peers
from scripts.benchmarks._peers import GPT_ERF, GPT_TANH, LLAMA, NANOCHAT, PEERS, SETTINGS
from slm_core import data
from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.studies.throughput import compare

ROOT = Path(__file__).parents[2]
CHECKOUTS = {"nanogpt": "nanoGPT", "nanochat": "nanochat", "nanodo": "nanodo"}
PACKAGES = {"transformers": "transformers", "litgpt": "litgpt", "x-transformers": "x_transformers"}
TINY = {"model.d_model": 96, "model.n_layers": 3, "data.seq_len": 32, "train.batch_size": 4, "run.threads": 1}
VOCABULARY = 256


def asked_for(name: str) -> dict[str, str]:
    """Parses the request for one peer; skips the test if it is not there."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason="uv sync --group peers")
        return _peers.parse(name)
    folder = os.environ.get("PEER_CHECKOUTS")
    if not folder:
        pytest.skip("PEER_CHECKOUTS names no folder with clones of nanoGPT, nanochat and nanodo")
    return _peers.parse(f"{name}={folder}/{CHECKOUTS[name]}")


def tiny(setting: str = LLAMA) -> Config:
    return with_values(Config(), TINY | dict(SETTINGS[setting]))


def expected_parameters(name: str, config: Config) -> int:
    """Counts a peer's parameters by the formula of its architecture."""
    width, layers, heads = config.model.d_model, config.model.n_layers, config.model.attention.n_heads
    hidden = layer_specs(config.model)[0].mlp.hidden
    gated = VOCABULARY * width + layers * (4 * width**2 + 3 * width * hidden + 2 * width) + width
    dense = (VOCABULARY + config.data.seq_len + 1) * width + layers * (12 * width**2 + 2 * width)
    valued = math.ceil(layers / 2)  # every second layer, the last among them
    mixed = 2 * VOCABULARY * width + 12 * layers * width**2 + valued * (VOCABULARY * width + 12 * heads)
    return {
        "transformers": gated,
        "litgpt": gated,
        "x-transformers": gated + layers * 2 * hidden,  # the biases of the first matrix of the MLP
        "nanogpt": dense,
        "nanodo": dense,
        "nanochat": mixed + 2 * layers + 24 + 2,  # two numbers per layer, and three that mix tokens and layers
    }[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("litgtp", "'litgtp' is not one of transformers, litgpt, x-transformers, nanogpt, nanochat, nanodo (did you"),
        ("transformers,", "'' is not one of"),
        ("transformers,transformers", "names transformers twice"),
        ("transformers=somewhere", "transformers is an installed package; write --peers=transformers"),
        ("nanogpt", "needs a checkout: git clone https://github.com/karpathy/nanoGPT, then --peers=nanogpt=FOLDER"),
        ("nanodo=tests", "has no nanodo/model.py: name the folder of a clone of https://github.com/google-deepmind"),
    ],
)
def test_a_mistake_in_the_list_is_named(text, message):
    with pytest.raises(UserError) as caught:
        _peers.parse(text)
    assert message in str(caught.value)


def test_a_package_that_is_not_installed_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(_peers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="the package x-transformers is not installed; run uv sync --group peers"):
        _peers.parse("x-transformers")


def test_a_checkout_is_named_by_its_folder(tmp_path):
    (tmp_path / "model.py").write_text("")
    assert _peers.parse(f"transformers,nanogpt={tmp_path}") == {"transformers": "", "nanogpt": str(tmp_path)}


def test_what_a_checkout_imports_and_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "needs_more.py").write_text("import absent_package.part\n")
    with pytest.raises(UserError) as caught:
        _checkout.of_checkout("nanogpt", str(tmp_path), "needs_more")
    assert "imports absent_package, which is not installed; run uv pip install absent_package" in str(caught.value)


@pytest.mark.parametrize("words", [("--config.model.norm.kind=layernorm",), ("--config=configs/llama.py:tiny",)])
def test_the_command_refuses_another_architecture_in_one_line(words):
    command = [sys.executable, str(ROOT / "scripts" / "benchmarks" / "throughput.py"), "--peers=transformers", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "peers do the work of the default preset; of its fields you can set model.d_model" in done.stderr


def test_the_twins_do_the_work_of_each_peer_beside_it():
    twins = {"PyTorch twin": print, "Flax twin": print}
    config = with_values(Config(), {"model.d_model": 96, "run.threads": 2})
    contests = _peers.contests({"nanodo": "there", "transformers": "", "nanogpt": "here"}, config, twins)
    assert [contest.title.partition(";")[0] for contest in contests] == [LLAMA, GPT_ERF, GPT_TANH]
    first = contests[0]
    assert [contender.name.split()[0] for contender in first.contenders] == ["PyTorch", "Flax", "Hugging"]
    assert list(first.references) == list(twins) and len(first.notes) == 1 and first.title.endswith("threads: 2")
    for contest in contests:
        assert len({str(contender.config) for contender in contest.contenders}) == 1
        assert all(pickle.loads(pickle.dumps(contender)).config.model.d_model == 96 for contender in contest.contenders)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_a_valid_config(setting):
    config = tiny(setting)
    assert all(getattr(config.model, name) == value for name, value in (("d_model", 96), ("n_layers", 3)))
    validate(config, SETTINGS[setting])


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_the_parameters_of_its_formula(name):
    asked_for(name)
    model = getattr(_torch_peers, PACKAGES[name])(tiny(), VOCABULARY, "").model
    assert sum(p.numel() for p in model.parameters()) == expected_parameters(name, tiny())


LOGITS = {
    "transformers": lambda model, tokens: model(tokens).logits,
    "litgpt": lambda model, tokens: model(tokens),
    "x-transformers": lambda model, tokens: model.net(tokens),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_loss_of_a_package_is_that_of_the_next_token(name):
    asked_for(name)
    import torch

    torch.manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (2, TINY["data.seq_len"] + 1))
    model, loss, _ = getattr(_torch_peers, PACKAGES[name])(tiny(), VOCABULARY, "")
    model.eval()
    with torch.no_grad():
        scores = torch.log_softmax(LOGITS[name](model, tokens[:, :-1]), dim=-1)
        expected = -scores.gather(-1, tokens[:, 1:, None]).mean()
        assert abs(float(loss(tokens)) - float(expected)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_learns_in_a_process_of_its_own(name, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    config = with_values(Config(), TINY | {"optim.warmup_steps": 0})
    (contest,) = _peers.contests(asked_for(name), config, {})
    data.prepare(config.data)
    (measured,) = compare(contest.contenders, rounds=1, updates=2)
    assert measured.parameters == expected_parameters(name, contest.contenders[0].config)
    assert measured.last_loss < measured.first_loss < 2 * math.log(VOCABULARY)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_measured_in_a_setting_and_says_how_its_work_differs(name):
    peer = PEERS[name]
    assert peer.setting in (LLAMA, GPT_ERF, GPT_TANH, NANOCHAT) and peer.note
    assert bool(peer.package) != bool(peer.url and peer.has)
