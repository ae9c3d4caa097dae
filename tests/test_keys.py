"""The table of the config's keys: complete, without idle rows, read alike by runs, checkpoints and sweeps."""

import pytest
import yaml
from conftest import CONF
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from litdiffusion.config.identity import action_for, changes, check_fits
from litdiffusion.config.job_names import job_name
from litdiffusion.config.keys import KEYS, Use, decides, keys_for
from litdiffusion.errors import UserError
from litdiffusion.runs.record import RunRecord, write_record


@pytest.fixture(scope="module")
def config() -> dict:
    """The default config with every yaml of the group callbacks merged in."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = OmegaConf.to_container(compose("train"), resolve=False)
    for path in CONF.glob("callbacks/*.yaml"):
        plain["callbacks"] |= {
            key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"
        }
    return plain


def groups() -> set[str]:
    return {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra", "__pycache__"}


def test_every_key_of_the_config_has_a_row(config):
    assert sorted((groups() | config.keys()) - KEYS.keys()) == []


def test_every_row_is_of_a_key_that_exists(config):
    own = {"data.augment", "data.root", "data.path", "data.num_workers"}  # of image sets
    own |= {"data.memory_limit_gb", "data.cache", "data.streaming", "data.shuffle_buffer"}
    own |= {"callbacks.langevin_path", "metrics.features.cache"}  # of an experiment, of the metrics of images
    own |= {"guide.features.cache", "codec.ckpt", "codec.cache"}
    for key in KEYS.keys() - own:
        assert key in groups() or OmegaConf.select(OmegaConf.create(config), key, default="absent") != "absent", key
    texts = [
        path.read_text()
        for group in ("data", "experiment", "metrics", "guide", "codec")
        for path in CONF.glob(f"{group}/*.yaml")
    ]
    assert all(any(f"{key.rpartition('.')[2]}:" in text for text in texts) for key in own)


def test_the_nearest_row_above_a_key_counts():
    assert decides("model.hidden", Use.MODEL)
    assert not decides("callbacks.trajectory.points", Use.JOB)
    assert decides("callbacks.final_samples.points", Use.JOB)
    assert not decides("callbacks.trajectory.points", Use.RUN)
    assert decides("callbacks.best.monitor", Use.RUN)
    assert not decides("trainer.devices", Use.JOB)
    assert decides("trainer.precision", Use.RUN)
    assert decides("mine.anything", Use.RUN)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("derived", "callbacks", "trainer", "logger")])
def test_a_change_of_a_key_is_another_run_exactly_where_its_row_says_so(key, tmp_path):
    then, now = (OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"])) for value in ("one", "two"))
    write_record(tmp_path, RunRecord("stopped", then, step=3))
    assert bool(changes(then, now)) == decides(key, Use.RUN)
    if decides(key, Use.RUN):
        with pytest.raises(UserError, match="holds a run of another config"):
            action_for(tmp_path, now)
    else:
        assert action_for(tmp_path, now) == "resume"
    assert (job_name([f"{key}=one"]) != job_name([f"{key}=two"])) == decides(key, Use.JOB)


class Empty:
    """A module without weights."""

    def __init__(self, config: dict):
        self.description = {"config": config}

    def state_dict(self) -> dict:
        return {}


@pytest.mark.parametrize("key", [key for key in KEYS if key != "derived"])
def test_a_checkpoint_fits_unless_a_key_of_its_model_differs(key):
    then, now = (OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"])) for value in ("one", "two"))
    content = {"state_dict": {}, "litdiffusion": {"config": then}}
    if decides(key, Use.MODEL):
        with pytest.raises(UserError, match=f"was trained with {key}=one, this run has {key}=two"):
            check_fits(content, Empty(now), "x.ckpt")
    else:
        check_fits(content, Empty(now), "x.ckpt")


def test_what_a_run_of_the_same_model_may_change():
    assert set(keys_for(Use.LENGTH)) == {"trainer.max_steps", "trainer.max_epochs", "trainer.max_time"}
    assert {"model", "schedule", "parameterization", "codec", "data"} <= set(keys_for(Use.MODEL))
    assert not {"optimizer", "lr_schedule", "trainer", "callbacks", "sampler"} & set(keys_for(Use.MODEL))
    assert not {"seed", "ema_decay", "class_dropout", "data.batch_size", "data.path"} & set(keys_for(Use.MODEL))
