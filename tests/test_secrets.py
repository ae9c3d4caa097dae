"""Secrets and the environment: nothing secret is stored, printed or sent, and the rest is stored as it was typed."""

import json
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
import wandb
import yaml
from conftest import BARE_RUN, composed
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from litdiffusion.build import Run
from litdiffusion.commands.messages import how_to_continue
from litdiffusion.commands.training import train
from litdiffusion.config.environment import read_numbers
from litdiffusion.config.identity import action_for
from litdiffusion.config.job_names import job_name
from litdiffusion.config.public import plain_config, public_words
from litdiffusion.config.secrets import forget, looks_secret, masked, masked_text
from litdiffusion.errors import UserError
from litdiffusion.runs.record import RunRecord, read_record, write_record
from litdiffusion.training.checkpoints import read_checkpoint

SECRET = "marker/4711-of-a-secret"
SMALL = [*(word for word in BARE_RUN if word != "logger=none"), "data.size=600", "schedule.steps=25"]
SEEN: list[str] = []


class Dashboard(CSVLogger):
    """A logger that needs a key, as a user's own module would have it."""

    def __init__(self, save_dir: str, api_key: str, words: tuple = ()):
        super().__init__(save_dir, name="", version="mine")
        SEEN[:] = [api_key, *words]


class Worded(Callback):
    def __init__(self, word: str, token: str = ""):
        self.word = word


@pytest.fixture(autouse=True)
def _no_secrets_left():
    yield
    forget()


def traces(folder: Path, text: str) -> list[str]:
    """Files below a folder that hold a text in their name or content, or inside a zip archive."""
    wandb.teardown()  # its service may still be writing
    found = []
    for path in folder.rglob("*"):
        contents = [path.read_bytes()] if path.is_file() else []
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        if text in path.name or any(text.encode() in content for content in contents):
            found.append(str(path.relative_to(folder)))
    return found


def dashboard(api_key: str) -> str:
    arguments = f"save_dir:${{derived.run_dir}}/mine,api_key:{api_key},words:['x-${{oc.env:MY_WORD}}']"
    return f"+logger.mine={{_target_:test_secrets.Dashboard,{arguments}}}"


@pytest.mark.parametrize("typed", ["'${oc.decode:${oc.env:MY_API_TOKEN}}'", f"'{SECRET}'"])
def test_a_secret_of_a_logger_is_nowhere_in_the_runs_folder(typed, command, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", f'"{SECRET}"')
    monkeypatch.setenv("MY_WORD", "free")
    loggers = "many" if SECRET in typed else "csv"
    line = ("train.py", "name=a", f"logger={loggers}", "print_config=true", dashboard(typed), *SMALL)
    status, out, err = command(*line)
    assert status == 0, err
    assert SEEN == [SECRET, "x-free"]
    assert SECRET in " ".join(sys.argv) or "$" in typed
    assert SECRET not in out + err
    assert traces(tmp_path, SECRET) == []
    stored = typed.strip("'") if "$" in typed else "***"
    run = tmp_path / "outputs/a"
    for config in (
        read_record(run).config,
        yaml.safe_load((run / "hparams.yaml").read_text()),
        read_checkpoint(run / "checkpoints/last.ckpt")["litdiffusion"]["config"],
    ):
        assert config["logger"]["mine"]["api_key"] == stored
        assert config["logger"]["mine"]["words"] == ["x-${oc.env:MY_WORD}"]
    monkeypatch.setenv("MY_API_TOKEN", "rotated-4711")
    status, _, err = command(*(word.replace(SECRET, "rotated-4711") for word in line), "trainer.max_steps=6")
    assert status == 0, err
    assert (SEEN[0], read_record(run).attempts) == ("rotated-4711", 2)
    assert traces(tmp_path, "rotated-4711") == []


def test_a_run_with_a_secret_is_evaluated_and_its_saved_config_asks_for_the_secret(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_WORD", "free")
    assert command("train.py", "name=a", "logger=csv", dashboard(f"'{SECRET}'"), *SMALL)[0] == 0
    run = tmp_path / "outputs/a"
    words = [f"ckpt={run}/checkpoints/last.ckpt", "n=50", "samplers=[own]", "steps=[5]"]
    status, _, err = command("scripts/evaluate.py", *words)
    assert status == 0, err
    line = ("train.py", "-cp", str(run / ".hydra"), "-cn", "config", "name=b")
    status, _, err = command(*line)
    assert (status, err.count("\n")) == (2, 1)
    assert "logger.mine.api_key holds ***, which stands for a secret that was not stored; give it again" in err
    assert command(*line, f"logger.mine.api_key='{SECRET}'")[0] == 0
    assert SEEN[0] == SECRET
    assert traces(tmp_path, SECRET) == []


def test_a_sweep_keeps_secrets_out_of_its_folder_table_and_output(command, tmp_path):
    own = "+callbacks.own={_target_:test_secrets.Worded,word:a,token:" + SECRET + "}"
    words = [own, "sweep=s", "logger=none", *SMALL]
    status, out, err = command("train.py", "-m", *words)
    assert status == 0
    assert "1 of 1 jobs done" in out
    assert SECRET not in out + err
    assert traces(tmp_path, SECRET) == []
    assert "token:***" in (tmp_path / "outputs/sweeps/s/comparison.csv").read_text()
    other = [word.replace(SECRET, "another-secret") for word in words]
    assert "complete" in command("train.py", "-m", *other)[1]
    assert len(list((tmp_path / "outputs/sweeps/s").glob("*/run.json"))) == 1


def test_an_error_that_quotes_a_secret_is_masked(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", SECRET)
    monkeypatch.setattr(sys.modules["test_secrets"].Dashboard, "__init__", _refuse)
    line = ["train.py", "name=a", "logger=csv", *SMALL]
    for typed in ("'${oc.env:MY_API_TOKEN}'", f"'{SECRET}'"):
        status, out, err = command(*line, dashboard(typed).replace(",words:['x-${oc.env:MY_WORD}']", ""))
        assert (status, err.count("\n")) == (2, 2)  # a warning of the package, and the error
        assert "the key *** is not valid" in err
        assert SECRET not in out + err
    status, _, err = command(*line, f"logger.csv.api_key={SECRET}")
    assert status == 2
    assert SECRET not in err
    status, out, err = command("train.py", "seed=1", "--info", "all", dashboard(f"'{SECRET}'"))  # argparse's own
    assert (status, "unrecognized arguments" in err, SECRET in out + err) == (2, True, False)
    assert traces(tmp_path, SECRET) == []


def _refuse(self, save_dir: str, api_key: str):
    raise ValueError(f"the key {api_key} is not valid")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("+model.api_key", "'${oc.env:MY_WORD}'"),
        ("+model.note", "'${oc.env:MY_API_TOKEN}'"),
        ("+data.token", "word"),
        ("+sampler.note", "hf_abcdefghijklmnop1234"),
        ("name", "'${oc.env:MY_API_TOKEN}'"),
    ],
)
def test_a_secret_that_a_checkpoint_would_need_is_refused(key, value):
    refused = rf"^{re.escape(key.lstrip('+'))} holds a secret[^\n]*read the variable inside your class[^\n]*$"
    with pytest.raises(UserError, match=refused) as error:
        config_of(f"{key}={value}", MY_API_TOKEN="four-thousand", MY_WORD="four-thousand")
    assert "four-thousand" not in str(error.value)


def config_of(*words: str, **variables: str) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        cfg = composed(*SMALL, *words)
        read_numbers(cfg)
        return plain_config(cfg)


@pytest.mark.parametrize(
    ("typed", "text", "stored"),
    [
        ("${oc.env:X}", "plain", "${oc.env:X}"),
        ("${oc.env:X}", "7", 7),
        ("${oc.env:X}", "1e-3", 1e-3),
        ("${oc.env:X}", "true", True),
        ("${oc.env:X}", "null", None),
        ("${oc.env:X}", "007", "${oc.env:X}"),
        ("run_${oc.env:X}", "12e4567", "run_${oc.env:X}"),
        ("${oc.decode:${oc.env:X}}", "[1, 2]", [1, 2]),
        ("${oc.decode:${oc.env:X}}", "[1, a]", "${oc.decode:${oc.env:X}}"),
        ("${oc.env:NOT_SET,fallback}", "", "${oc.env:NOT_SET,fallback}"),
        ("${oc.env:NOT_SET,12}", "", 12),
        ("${oc.env:${oc.env:NAME}}", "plain", "${oc.env:${oc.env:NAME}}"),
        ("${oc.env:X_TOKEN}", "12345", "${oc.env:X_TOKEN}"),
        ("${oc.env:X_TOKEN}", "true", "${oc.env:X_TOKEN}"),
        ("${metric}", "", "val/loss"),
    ],
)
def test_text_from_the_environment_stays_a_reference_and_a_number_is_a_number(typed, text, stored):
    variables = {"X": text, "X_TOKEN": text, "NAME": "X"}
    words = [place.format(typed) for place in ("+callbacks.a.b='{}'", "+callbacks.c=['{}']", "+callbacks.d={{e:'{}'}}")]
    callbacks = config_of(*words, **variables)["callbacks"]
    values = [callbacks["a"]["b"], callbacks["c"][0], callbacks["d"]["e"]]
    assert [(value, type(value)) for value in values] == [(stored, type(stored))] * 3


def test_what_a_checkpoint_is_rebuilt_from_holds_values():
    words = ["seed='${oc.env:SEED}'", "+data.root='${oc.env:ROOT}/sets'", "metric='${oc.env:METRIC}'"]
    config = config_of(*words, SEED="11", ROOT="/there", METRIC="val/loss")
    assert (config["seed"], config["data"]["root"], config["metric"]) == (11, "/there/sets", "val/loss")


def test_a_literal_default_of_a_secret_is_masked():
    words = ["+callbacks.own.api_key='${oc.env:NOT_SET,word}'", "+callbacks.own.copy='${callbacks.own.api_key}-x'"]
    own = config_of(*words)["callbacks"]["own"]
    assert own == {"api_key": "${oc.env:NOT_SET,***}", "copy": "${callbacks.own.api_key}-x"}
    words = [f"+callbacks.own.api_key='{SECRET}'", "+callbacks.own.copy='${callbacks.own.api_key}-x'"]
    assert config_of(*words)["callbacks"]["own"] == {"api_key": "***", "copy": "***-x"}


def test_another_text_in_the_environment_is_another_run_and_another_secret_is_not(tmp_path, monkeypatch):
    words = "+callbacks.own={_target_:test_secrets.Worded,word:'a-${oc.env:X}',token:'${oc.env:X_TOKEN}'}"
    line = [*SMALL, "logger=none", words]

    def start(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        train(composed(*line), Run(tmp_path / "run"))

    start(X="one", X_TOKEN="first-token")
    start(X="one", X_TOKEN="second-token")
    with pytest.raises(UserError, match=r"callbacks\.own\.word: another text in the environment"):
        start(X="two", X_TOKEN="second-token")
    line[-1] = words.replace("${oc.env:X}", "one").replace("${oc.env:X_TOKEN}", "typed-token")
    start()  # the same text, typed
    line[-1] = line[-1].replace("one", "two")
    with pytest.raises(UserError, match=r"callbacks\.own\.word: another text in the environment"):
        start()
    (digest,) = read_record(tmp_path / "run").environment.values()
    assert len(digest) == 4


def test_the_command_that_continues_a_run_names_the_secret_to_type_again(tmp_path):
    cfg = composed(*SMALL, "name=a", "+callbacks.own.token=typed-token")
    line = how_to_continue(Run(tmp_path), cfg, plain_config(cfg))
    assert line.endswith("continues from there (type the secret of callbacks.own.token again, which was not stored)")
    cfg = composed(*SMALL, "name=a", "+callbacks.own.token='${oc.env:HOME}'")
    assert how_to_continue(Run(tmp_path), cfg, plain_config(cfg)).endswith("continues from there")


def test_a_typed_secret_is_compared_masked(tmp_path):
    then, now = ({"mine": {"password": word, "other": 1}} for word in ("first", "second"))
    write_record(tmp_path, RunRecord("stopped", then, step=3))  # as an earlier version stored it
    assert action_for(tmp_path, masked(now)) == "resume"
    with pytest.raises(UserError, match=r"mine\.other: 1 -> 2"):
        action_for(tmp_path, masked({"mine": {"password": "second", "other": 2}}))


def test_numbers_of_the_environment_name_jobs(command, tmp_path, monkeypatch):
    for seed in ("3", "4"):
        monkeypatch.setenv("SEED", seed)
        assert command("train.py", "sweep=s", "seed=${oc.env:SEED}", "logger=none", *SMALL)[0] == 0
    names = sorted(path.parent.name for path in (tmp_path / "outputs/sweeps/s").glob("*/run.json"))
    assert [name.count("seed-3") + 2 * name.count("seed-4") for name in names] == [1, 2]
    assert {read_record(tmp_path / "outputs/sweeps/s" / name).config["seed"] for name in names} == {3, 4}
    monkeypatch.setenv("WORD", "text")
    assert "text" not in job_name(["+mine.word=${oc.env:WORD}"])
    listed = OmegaConf.create({"words": ["+mine.word=${oc.env:WORD}"]}).words
    assert job_name(listed) == job_name(["+mine.word=${oc.env:WORD}"])


@pytest.mark.parametrize(
    "name",
    [
        *("token", "api_key", "apikey", "apiKey", "COMET_API_KEY", "hf_token", "accessToken", "db-password", "passwd"),
        *("client_secret", "credentials", "private_key", "aws_secret_access_key", "auth", "Authorization"),
    ],
)
def test_names_of_secrets(name):
    assert looks_secret(name)
    assert masked({name: "word", "below": {name: ["a", {"b": "c"}], "n": 1}}) == {
        name: "***",
        "below": {name: ["***", {"b": "***"}], "n": 1},
    }


@pytest.mark.parametrize(
    "name",
    [
        *("tokens", "tokenizer", "num_tokens", "keys", "key", "keyword", "author", "authentic", "monkey", "passes"),
        *("token_dim", "SSH_AUTH_SOCK", "password_file", "secretary", "hidden", "_target_"),
    ],
)
def test_names_that_only_look_alike(name):
    assert not looks_secret(name)
    assert masked({name: "word"}) == {name: "word"}


KEYS = [
    *("sk-" + "a1B2" * 6, "ghp_" + "a1B2" * 9, "github_pat_" + "a1B2" * 9, "hf_" + "abCd" * 8, "AKIA" + "ABCD" * 4),
    *("xoxb-123456789012-abcdef", "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0", "0123456789abcdef" * 2 + "01234567"),
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("value", KEYS)
def test_forms_of_keys(value):
    assert masked({"a": {"b": [value]}}) == {"a": {"b": ["***"]}}
    assert value not in masked_text(f"the word +a.b={value}")


def test_forms_inside_longer_texts_and_what_only_looks_alike():
    url = {"url": "postgres://me:word@host:5432/db"}
    assert masked(url) == {"url": "postgres://***@host:5432/db"}
    commit = "0123456789abcdef" * 2 + "01234567"
    alike = {"revision": commit, "a": "sk-learn", "b": "https://host:80/x@y", "c": "hf_hub", "d": "task-" + "a" * 20}
    assert masked(alike) == alike
    assert masked({"auth": {"_target_": "mine.Auth", "user": "me", "token": "x"}}) == {
        "auth": {"_target_": "mine.Auth", "user": "me", "token": "***"}
    }


def test_words_of_the_command_line():
    words = ["+a={_target_:b.C,api_key:w1 w2,n:[1,2]}", "a.password='w, w'", "x.token=${oc.env:T,w}", "seed=1"]
    assert public_words(words) == [
        *("+a={_target_:b.C,api_key:***,n:[1,2]}", "a.password=***", "x.token=${oc.env:T,***}", "seed=1")
    ]
    assert masked_text("a.api_key='w w' has the wrong type") == "a.api_key=*** has the wrong type"
    message = "logger.mine.api_key: Environment variable 'T' not found"
    assert masked_text(message) == message


def test_the_values_of_variables_with_secret_names_are_never_printed(monkeypatch):
    monkeypatch.setenv("SOME_PASSWORD", SECRET)
    monkeypatch.setenv("SHORT_TOKEN", "a")
    assert masked_text(f"a {SECRET} word") == "a *** word"
    assert masked({"x": SECRET}) == {"x": "***"}
    assert json.dumps(dict(os.environ)) != masked_text(json.dumps(dict(os.environ)))
