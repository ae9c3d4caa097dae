"""Values that Hydra's grammar cannot read: a path that exists is taken as typed, any other gets a line that works."""

import re
import shlex
import shutil

import pytest
from conftest import CONF, ROOT, TINY
from hydra.core.override_parser.overrides_parser import OverridesParser
from tables import points, write_csv

from litdiffusion.config.quoting import quoted, readable
from litdiffusion.config.words import hydra_arguments
from litdiffusion.errors import UserError

VALUES = [
    *("epoch=3-step=40.ckpt", "val{0.25}.ckpt", "é.ckpt", "日本.ckpt", "it's.ckpt", 'say "a".ckpt', "[x].ckpt"),
    *("a(1).ckpt", "a'b,c.ckpt", "a#b.ckpt", "a;b&c.ckpt", "a=b c.ckpt", "`a`.ckpt", "a\\'b.ckpt", "{a}{b}.ckpt"),
]  # fmt: skip


def value_of(word: str) -> object:
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("multirun", [False, True])
def test_the_line_that_is_proposed_gives_the_value_as_typed_through_the_shell(value, multirun):
    with pytest.raises(UserError, match="quote it: ") as error:
        readable(["-m"] * multirun + [f"ckpt={value}"])
    assert "\n" not in str(error.value)
    (word,) = shlex.split(str(error.value).partition("quote it: ")[2])
    parts = value_of(word).list if multirun and "," in value else [value_of(word)]
    assert ",".join(getattr(part, "text", part) for part in parts) == value
    assert readable(["-m"] * multirun + [word])[-1] == word


@pytest.mark.parametrize("value", [*VALUES, "a,b", "a\\", '\\"', "a b", "1e3", "null"])
def test_quotes_give_back_any_text(value):
    assert value_of(f"key={quoted(value)}") == value


@pytest.mark.parametrize("value", [value for value in VALUES if value != "a\\'b.ckpt"] + ["a,b.ckpt"])
def test_a_path_that_exists_is_taken_as_typed(value, tmp_path, monkeypatch):
    (tmp_path / value).touch()
    monkeypatch.chdir(tmp_path)
    for typed in (value, f"{tmp_path}/{value}"):
        for words in ([f"ckpt={typed}"], ["-m", f"ckpt={typed}"], [f"+ckpt={typed}"]):
            assert value_of(readable(words)[-1]) == typed
            assert readable(readable(words)) == readable(words)  # as a process of the same run types it again


def test_the_switch_for_several_runs_may_stand_anywhere():
    typed = ["trainer=cpu", "-m", "seed=1,2", "--config-dir", "own"]
    found = hydra_arguments(typed, ROOT / "train.py", CONF, "train")
    assert found == ["-m", "trainer=cpu", "seed=1,2", "--config-dir", "own"]


def test_a_list_stays_a_list_in_the_line_that_is_proposed():
    with pytest.raises(UserError, match="quote it: ") as error:
        readable(["tags=[a=b,c]"])
    (word,) = shlex.split(str(error.value).partition("quote it: ")[2])
    assert value_of(word) == ["a=b", "c"]


def test_several_values_for_one_run_name_every_remedy():
    with pytest.raises(UserError, match="several values to a single run") as error:
        readable(["data.path=/x/a,b"])
    whole, single = re.findall(r"'(data[^']*)'", str(error.value))
    assert value_of(whole) == ["/x/a", "b"]
    assert value_of(single) == "/x/a,b"
    assert readable(["-m", "data.path=/x/a,b"]) == ["-m", "data.path=/x/a,b"]


UNCHANGED = [
    *("seed=1", "tags=[a,b]", "optimizer.betas=[0.5,0.9]", "optimizer={lr: 1e-3}", "~logger", "name=a b", "a="),
    *("--config-name", "ä=ö", "--cfg", "job", "+x=${y}", "hydra.sweeper.params={a: 'choice(1,2)'}"),
    *('ckpt="é.ckpt"', "seed=range(1,3)"),
]  # fmt: skip


def test_what_hydra_reads_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").touch()  # a file of this name does not make a text of a number
    (tmp_path / "[a,b]").touch()
    assert readable(UNCHANGED) == UNCHANGED


def test_a_list_that_does_not_close_gets_no_quotes():
    for word in ("tags=[a,b", "optimizer={lr: 1", "a=[1"):
        with pytest.raises(UserError, match="does not close all of its brackets"):
            readable([word])


def test_the_command_line_takes_a_path_as_typed_and_a_proposed_line_as_proposed(command, tmp_path):
    quick = [
        *TINY,
        "callbacks=none",
        "logger=none",
        "data=table",
        "model.hidden=8",
        "data.batch_size=32",
        "metrics=none",
    ]
    path = write_csv(tmp_path / "épo=3,{0.5}.csv", points(50))
    status, _, err = command("train.py", *quick, f"data.path={path}", "hydra.run.dir=a")
    assert status == 0, err
    missing = tmp_path / "val{0.25}.csv"
    status, _, err = command("train.py", *quick, f"data.path={missing}", "hydra.run.dir=b")
    assert (status, err.count("\n")) == (2, 1)
    (word,) = shlex.split(err.partition("quote it: ")[2])
    shutil.copy(path, missing)
    status, out, err = command("train.py", *quick, word, "hydra.run.dir=b")
    assert status == 0, err
    assert "45 training items of shape (2,)" in out


def test_a_sweep_over_groups_of_settings_names_the_line_that_works(command, tmp_path):
    quick = [
        *TINY,
        "callbacks=none",
        "logger=none",
        "model.hidden=8",
        "metrics=none",
        "data.size=64",
        "data.batch_size=32",
    ]
    status, _, err = command("train.py", "-m", *quick, "optimizer={eps:1e-6},{eps:1e-5}")
    assert (status, err.count("\n")) == (2, 1)
    (word,) = shlex.split(err.partition("to add it type ")[2])
    status, out, err = command("train.py", "-m", *quick, word)
    assert status == 0, err
    assert "#1 :" in out
