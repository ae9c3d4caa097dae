"""W&B as its users know it: every argument, what was typed before the environment, and where a run is logged."""

import socket
import threading
from pathlib import Path

import pytest
import wandb
from wandb_records import run_record

from litdiffusion.errors import UserError
from litdiffusion.runs import wandb_mode
from litdiffusion.runs.dashboards import wandb_logger

FOLDER = Path("run")
ENVIRONMENT = {
    "WANDB_PROJECT": "env-project",
    "WANDB_ENTITY": "env-team",
    "WANDB_NAME": "env-name",
    "WANDB_TAGS": "env,tag",
    "WANDB_NOTES": "env notes",
    "WANDB_RUN_GROUP": "env-group",
    "WANDB_JOB_TYPE": "env-job",
    "WANDB_RUN_ID": "env123",
}
FROM_ENVIRONMENT = [
    "env-project",
    "env-team",
    "env-name",
    ["env", "tag"],
    "env notes",
    "env-group",
    "env-job",
    "env123",
]
TYPED = {
    "project": "mine",
    "entity": "team",
    "name": "first",
    "tags": ["a", "b"],
    "notes": "why",
    "group": "g",
    "job_type": "j",
    "id": "id1",
}


def recorded(folder: Path, **arguments) -> list:
    """What W&B stores of a run with these arguments."""
    wandb.teardown()  # W&B reads its variables once
    logger = wandb_logger(folder, "run", run_group="sweep", run_tags=[], **arguments)
    logger.experiment.finish()
    run = run_record(folder)
    tags = list(run.tags)
    return [run.project, run.entity, run.display_name, tags, run.notes, run.run_group, run.job_type, run.run_id]


@pytest.mark.parametrize("typed", [{}, TYPED], ids=["environment", "typed"])
def test_what_is_typed_comes_before_the_environment_and_that_before_the_run(typed, tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert recorded(tmp_path, **typed) == (list(TYPED.values()) if typed else FROM_ENVIRONMENT)


def test_without_both_the_run_names_itself(tmp_path):
    logger = wandb_logger(tmp_path, "run", run_group="sweep", run_tags=["trial"], tags=["own", "trial"])
    given = logger._wandb_init
    assert (given["project"], given["name"], given["group"], given["job_type"]) == (
        "litdiffusion",
        "run",
        "sweep",
        "train",
    )
    assert given["tags"] == ["trial", "own"]


def test_any_argument_of_either_signature_is_passed_on(tmp_path):
    more = {"log_model": "all", "save_code": True, "resume": "must", "prefix": "a", "settings": {"quiet": True}}
    logger = wandb_logger(tmp_path, "run", version="v1", dir=str(tmp_path / "there"), **more)
    given = logger._wandb_init
    assert (given["save_code"], given["resume"], given["id"]) == (True, "must", "v1")
    assert given["settings"] == {"init_timeout": 20, "quiet": True}
    assert (logger._log_model, logger._prefix, logger.save_dir) == ("all", "a", str(tmp_path / "there"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"project": "my/project"}, "logger.wandb: Invalid project name 'my/project': cannot contain characters"),
        ({"id": "a/b"}, "logger.wandb: Run ID cannot contain the characters"),
        ({"tags": ["t" * 65]}, "logger.wandb: "),
        ({"notez": "x"}, "logger.wandb.notez is an argument of neither .* did you mean notes?"),
        ({"mode": "off"}, "must be one of auto, online, offline, disabled, shared, got 'off'"),
        ({"mode": "online", "offline": True}, "exclude each other"),
    ],
)
def test_what_wandb_would_refuse_is_one_line(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        wandb_logger(tmp_path, "run", **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_bad_project_on_the_command_line_ends_before_training(command, tmp_path):
    status, _, err = command("train.py", "logger=wandb", "logger.wandb.project=my/project", "name=a")
    assert status == 2
    assert err.strip().count("\n") == 0
    assert "Invalid project name 'my/project'" in err
    assert not (tmp_path / "outputs/a/run.json").exists()


def test_a_project_that_only_the_server_refuses_is_one_line_too(tmp_path, monkeypatch):
    from litdiffusion.runs.wandb_logger import started

    def refuse(**_):
        raise wandb.errors.CommError("permission denied\nand more")

    logger = wandb_logger(tmp_path, "run")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"^logger\.wandb: permission denied; .*mode=offline needs no server$"):
        started(logger)


@pytest.fixture
def unset(monkeypatch):
    """No mode in the environment, a key, and no network."""

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.delenv("WANDB_MODE")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    wandb.teardown()
    monkeypatch.setattr(wandb_mode, "_has_key", lambda: True)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield monkeypatch
    wandb.teardown()  # it has read the variables


def mode(folder: Path = FOLDER, **arguments) -> str:
    return wandb_logger(folder, "run", **arguments)._wandb_init["mode"]


def test_online_means_online_whatever_a_probe_would_say(unset):
    assert mode(mode="online") == "online"
    assert mode() == "offline"
    unset.setenv("WANDB_MODE", "online")
    assert mode() == "online"
    assert mode(mode="offline") == mode(offline=True) == "offline"


def test_an_empty_mode_in_the_environment_is_none(unset, tmp_path):
    unset.setenv("WANDB_MODE", "")
    logger = wandb_logger(tmp_path, "run")
    assert logger._wandb_init["mode"] == "offline"
    logger.experiment.finish()  # W&B itself refuses an empty one
    unset.setenv("WANDB_MODE", "off")
    with pytest.raises(UserError, match="WANDB_MODE must be one of online, offline, disabled, shared, or unset"):
        mode()


def test_auto_goes_offline_without_a_key(unset, capsys):
    unset.setattr(wandb_mode, "_has_key", lambda: False)
    unset.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    assert mode() == "offline"
    assert "wandb sync run/wandb/offline-run-*" in capsys.readouterr().out


def test_the_probe_asks_the_server_of_the_environment_within_two_seconds(unset):
    asked = []

    def accept(address, timeout, **_):
        asked.append((address, timeout))
        return socket.socket()

    unset.setenv("WANDB_BASE_URL", "http://wandb.local:8080")
    unset.setattr(socket, "create_connection", accept)
    assert mode() == "online"
    assert asked == [(("wandb.local", 8080), 2)]


@pytest.mark.parametrize(("answer", "expected"), [("200 OK", "online"), ("502 Bad Gateway", "offline")])
def test_behind_a_proxy_the_probe_goes_through_the_proxy(answer, expected, unset):
    asked = []

    def proxy(server):
        client, _ = server.accept()
        asked.append(client.recv(4096).decode())
        client.sendall(f"HTTP/1.1 {answer}\r\n\r\n".encode())
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def only_the_proxy(address, *_, **__):
            assert address == ("127.0.0.1", port)
            connected = socket.socket()
            connected.connect(address)
            return connected

        unset.setattr(socket, "create_connection", only_the_proxy)
        unset.setenv("https_proxy", f"http://me:pass@127.0.0.1:{port}")
        unset.setenv("WANDB_BASE_URL", "https://wandb.example")
        thread = threading.Thread(target=proxy, args=(server,))
        thread.start()
        assert mode() == expected
        thread.join()
    assert asked[0].startswith("CONNECT wandb.example:443 HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6cGFzcw==" in asked[0]


@pytest.mark.slow
def test_lightnings_own_logger_takes_the_place_of_ours(command, tmp_path):
    """``logger.wandb._target_=`` Lightning's class, with its own arguments and nothing of ours."""
    words = ["logger=wandb", "logger.wandb._target_=lightning.pytorch.loggers.WandbLogger", "logger.wandb.offline=true"]
    words += ["logger.wandb.project=theirs", "logger.wandb.name=n", f"logger.wandb.save_dir={tmp_path / 'w'}"]
    few = ["trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks=none", "data.size=600"]
    status, _, err = command("train.py", *words, *few, "trainer.enable_progress_bar=false", "schedule.steps=25")
    assert status == 0, err
    run = run_record(tmp_path / "w")
    assert (run.project, run.display_name, run.run_group) == ("theirs", "n", "")
