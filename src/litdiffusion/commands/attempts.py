"""One attempt at a run: keeps ``run.json`` up to date during training and at every kind of end."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from litdiffusion.build import Run
from litdiffusion.callbacks import Stopped
from litdiffusion.commands.failures import known_failure
from litdiffusion.config.secrets import masked_text
from litdiffusion.data.identity import Identity
from litdiffusion.errors import Pruned, first_line
from litdiffusion.runs.files import remove_parts
from litdiffusion.runs.record import RunRecord, locked, read_record, write_data_rows, write_record
from litdiffusion.runs.session import session


@dataclass(frozen=True)
class Attempt:
    """Keeps the record of ``run`` up to date; does nothing unless ``is_rank_zero``."""

    run: Run
    config: dict[str, Any]
    is_rank_zero: bool = True
    texts: dict[str, str] = field(default_factory=dict)
    """Digests of the config's texts from the environment, see `config_and_digests`."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the run's folder.

        Raises:
            UserError: another process has locked it.
        """
        with locked(self.run.dir) if self.is_rank_zero else contextlib.nullcontext():
            yield

    def begin(
        self,
        step: int,
        hardware: dict[str, str | int],
        data: Identity | None = None,
        measured: dict[str, Any] | None = None,
        about: dict[str, Any] | None = None,
    ) -> int:
        """Records that the run starts from ``step`` on this ``hardware`` with these data; returns the attempt's number.

        ``measured`` is what the run keeps of the data, see `keys.MEASURED`; ``about`` is what it trains.
        """
        record = read_record(self.run.dir) or RunRecord("running", self.config)
        now = replace(
            record,
            status="running",
            config=self.config,
            environment=self.texts,
            overrides=list(self.run.overrides),
            attempts=record.attempts + 1,
            step=step,
            error=None,
            hardware=[*record.hardware, hardware],
            data=None if data is None else data.record(),
            measured=measured or {},
            sessions=[*record.sessions, session()],
            about=about or {},
        )
        if self.is_rank_zero:
            remove_parts(self.run.dir)
            if data is not None and data.rows:
                write_data_rows(self.run.dir, data.listed())
            write_record(self.run.dir, now)
        return now.attempts

    @contextlib.contextmanager
    def recorded(self, world_size: int) -> Iterator[None]:
        """Records the status of a run that stops or fails inside the block.

        Raises:
            TrainingError: training failed, a file cannot be written, the data cannot be loaded, or a process ended.
        """
        try:
            yield
        except Stopped:
            self._end("stopped")
            raise
        except Pruned:
            self._end("pruned")
            raise
        except Exception as error:
            known = known_failure(error, world_size)
            self._end("failed", masked_text(first_line(known or error)))
            if known is None:
                raise
            raise known from error

    def complete(self, step: int, metrics: dict[str, float], better: str, summary: Sequence[str] = ()) -> None:
        """Records a complete run; ``better`` is "min" or "max", whichever values of the run's metric are better.

        ``summary`` are the lines that the run prints at its end.
        """
        record = read_record(self.run.dir)
        if self.is_rank_zero and record is not None:
            ended = {"status": "complete", "step": step, "metrics": metrics, "better": better}
            write_record(self.run.dir, replace(record, **ended, summary=list(summary)))

    def _end(self, status: str, error: str | None = None) -> None:
        if self.is_rank_zero:
            # On a full disk the record stays "running", which is read like "stopped".
            with contextlib.suppress(OSError):
                record = read_record(self.run.dir)
                if record is not None:
                    write_record(self.run.dir, replace(record, status=status, error=error))
