import pytest

from slm_core.config import Config
from slm_core.config.fields import field_table, flatten, with_values
from slm_core.training.trackers import open_trackers
from slm_core.training.trackers.base import hyperparameters
from slm_core.training.trackers.tensorboard import TensorBoard


def write(folder, begin, steps, overrides=()):
    folder.mkdir(exist_ok=True, parents=True)
    (tracker,) = open_trackers(with_values(Config(), dict(overrides)), "torch", folder, begin)
    for step in steps:
        tracker.scalars(step, {"loss/train": 1 / step, "details/activation_rms/layers.0.mlp": 2.0 * step})
    tracker.text(steps[-1], "sample", f"# step\n\nat {begin}")
    tracker.close()


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_numbers_come_back_and_those_that_a_resume_voids_do_not(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3, 4, 5])
    seen = events(tmp_path)
    assert set(seen.Tags()["scalars"]) == {"loss/train", "details/activation_rms/layers.0.mlp"}
    scalars = seen.Scalars("loss/train")
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5]
    assert [event.value for event in scalars] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert [event.value for event in seen.Scalars("details/activation_rms/layers.0.mlp")] == [2, 4, 6, 8, 10]


def test_a_text_is_shown_as_it_is(tmp_path):
    write(tmp_path, 0, [1, 2])
    seen = events(tmp_path)
    assert seen.SummaryMetadata("sample").plugin_data.plugin_name == "text"
    (event,) = seen.Tensors("sample")
    assert (event.step, event.tensor_proto.string_val[0].decode()) == (2, "    # step\n    \n    at 0")


def test_every_field_is_a_hyperparameter(tmp_path):
    from tensorboard.plugins.hparams import metadata

    config = with_values(Config(), {"optim.betas": (0.8, 0.9), "model.attention.n_kv_heads": None})
    TensorBoard(tmp_path, 0, hyperparameters(config, "flax")).close()
    content = events(tmp_path).PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    info = metadata.parse_session_start_info_plugin_data(content)
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}
    assert set(values) == {"framework", *field_table()}
    assert values["framework"] == "flax" and values["optim.betas"] == "0.8,0.9"
    assert values["model.attention.n_kv_heads"] == "none" and values["run.resume"] is True
    assert values["optim.lr"] == flatten(config)["optim.lr"] and values["train.steps"] == 600


def test_the_hparams_tab_has_a_row_per_run_with_its_last_numbers(tmp_path):
    """Asks the tab's own backend. Runs with equal hyperparameters have a row each, and a resumed run has one."""
    from google.protobuf.json_format import MessageToDict
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    write(tmp_path / "a", 0, [1, 2, 3, 4])
    write(tmp_path / "a", 2, [3, 4, 5])
    write(tmp_path / "b", 0, [1, 2])
    write(tmp_path / "c", 0, [10], {"optim.lr": 0.5})
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(runs, str(tmp_path))
    backend = backend_context.Context(TBContext(data_provider=provider))
    contents = backend.hparams_metadata(RequestContext(), "")
    experiment = backend.experiment_from_metadata(RequestContext(), "", True, contents, [])
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["optim.lr"]
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=10, allowed_statuses=[api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING, api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )  # fmt: skip
    groups = list_session_groups.Handler(RequestContext(), backend, "", request).run().session_groups
    shown = {
        group.sessions[0].name: (
            group.hparams["optim.lr"].number_value,
            {metric.name.tag: metric.value for metric in group.metric_values}["loss/train"],
        )
        for group in groups
    }
    assert shown == {
        "a/tensorboard": (1e-3, pytest.approx(1 / 5)),
        "b/tensorboard": (1e-3, pytest.approx(1 / 2)),
        "c/tensorboard": (0.5, pytest.approx(1 / 10)),
    }, MessageToDict(experiment)
