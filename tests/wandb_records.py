"""Reads the records of an offline W&B run back from its file."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

HEADER, BLOCK = 7, 32768


def records(path: Path) -> Iterator[Any]:
    """The file is a log of 32 KiB blocks; a record is a chain of chunks (crc, length, type), ended by type 1 or 4."""
    data = path.read_bytes()
    position, chunks = HEADER, []
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        chunks.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(chunks))
            chunks = []
            yield record


def summary(run_dir: Path) -> dict[str, Any]:
    """Config, group, name, declared metrics, history rows and exit code of the one offline run below ``run_dir``."""
    wandb.teardown()  # its service may still be writing when a run has finished; this waits for it
    (path,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, Any] = {"metrics": [], "history": [], "exit": None, "config": {}, "summary": {}}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"group": record.run.run_group, "name": record.run.display_name, "job": record.run.job_type}
            found["config"] |= _items(record.run.config.update)
        elif kind == "config":
            found["config"] |= _items(record.config.update)
        elif kind == "metric":
            found["metrics"].append((record.metric.name or record.metric.glob_name, record.metric.step_metric))
        elif kind == "history":
            found["history"].append(_items(record.history.item))
        elif kind == "summary":
            found["summary"] |= _items(record.summary.update)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def run_record(run_dir: Path) -> Any:
    """W&B's record of the one offline run below ``run_dir``: its project, entity, tags, notes and so on."""
    return of_kind(run_dir, "run")[0]


def of_kind(run_dir: Path, kind: str) -> list[Any]:
    """The records of one kind (alert, artifact, metric, ...) of the one offline run below ``run_dir``."""
    wandb.teardown()
    (path,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    return [getattr(record, kind) for record in records(path) if record.WhichOneof("record_type") == kind]


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
