"""Outputs from a result to their final names: stage, publish, discard, as the core wants it."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wqueue.manager import staging
from wqueue.manager.core.events import (
    DiscardOutputs,
    OutputsPublished,
    OutputsStaged,
    PublishOutputs,
    StagedOutput,
    StageOutputs,
)
from wqueue.manager.file_shell import Peer, Shell
from wqueue.manager.io_threads import IoThreads
from wqueue.manager.puller import Failure, Puller
from wqueue.manager.staging import OutputError, OutputPaths

FOLDERS_REMEMBERED = 10_000
"""Folders noted by this process and not noted again; forgotten all at once beyond that."""


@dataclass(eq=False)
class _Staging:
    """One attempt whose outputs are on their way into staging, or lie there."""

    effect: StageOutputs
    missing: int = 0
    transfers: list[int] = field(default_factory=list)
    is_over: bool = False
    error: OutputError | None = None


class Outputs:
    """Carries out the effects on outputs. All methods are called in the loop's thread."""

    def __init__(
        self, paths: OutputPaths, shell: Shell, threads: IoThreads, puller: Puller
    ) -> None:
        self._paths = paths
        self._shell = shell
        self._threads = threads
        self._puller = puller
        self._stagings: dict[bytes, _Staging] = {}
        self._folders: set[Path] = set()

    def stage(self, effect: StageOutputs) -> None:
        """Write what came along, then fetch the rest; OutputsStaged when all is there."""
        self._drop(effect.attempt)
        this = _Staging(effect)
        self._stagings[effect.attempt] = this
        for output in effect.outputs:
            why = staging.why_not_a_destination(output.destination)
            if why:
                self._fail(this, OutputError(why))
                return
        work = partial(
            staging.stage,
            self._paths,
            effect.attempt,
            effect.job,
            effect.index,
            effect.outputs,
            self._new_folders(effect.outputs),
        )
        self._threads.run_in_order(effect.attempt, work, partial(self._wrote, this))

    def publish(self, effect: PublishOutputs) -> None:
        """Give the staged outputs their names; OutputsPublished when they have them."""
        attempt = effect.attempt
        work = partial(
            staging.publish, self._paths, attempt, effect.job, effect.index, effect.outputs
        )
        self._threads.run_in_order(attempt, work, partial(self._published, attempt))

    def discard(self, effect: DiscardOutputs) -> None:
        """Stop staging for an attempt and remove what it has staged."""
        self._drop(effect.attempt)

    def _drop(self, attempt: bytes) -> None:
        this = self._stagings.pop(attempt, None)
        if this is None:
            return
        this.is_over = True
        self._cancel_transfers(this)
        work = partial(staging.discard, self._paths, attempt, this.effect.outputs)
        self._threads.run_in_order(attempt, work, _ignore)

    def _wrote(self, this: _Staging, error: OutputError | None) -> None:
        if this.is_over:
            return
        if error is not None:
            self._fail(this, error)
        else:
            self._fetch(this)

    def _fetch(self, this: _Staging) -> None:
        effect = this.effect
        wanted = [o for o in effect.outputs if staging.content_at_hand(o) is None]
        if wanted and not effect.session:
            self._fail(this, OutputError("the worker that has the output is away", False, True))
            return
        this.missing = len(wanted)
        for output in wanted:
            this.transfers.append(self._begin(this, output))
        self._puller.ask()
        self._tell_if_complete(this)

    def _begin(self, this: _Staging, output: StagedOutput) -> int:
        effect = this.effect
        return self._puller.fetch(
            Peer("worker", effect.session),
            b"o" + effect.attempt + output.position.to_bytes(2, "big"),
            output.size,
            self._paths.staged(effect.attempt, output),
            output.digest,
            output.mode,
            partial(self._fetched, this, output),
        )

    def _fetched(self, this: _Staging, output: StagedOutput, failure: Failure | None) -> None:
        if this.is_over or this.error is not None:
            return
        if failure is not None:
            text = f"output {output.position} did not come: {failure.text}"
            error = OutputError(text, failure.is_temporary, failure.is_peer_at_fault)
            self._fail(this, error)
            return
        this.missing -= 1
        self._tell_if_complete(this)

    def _tell_if_complete(self, this: _Staging) -> None:
        if not this.missing and this.error is None:
            this.transfers.clear()
            self._shell.emit(OutputsStaged(this.effect.attempt))

    def _fail(self, this: _Staging, error: OutputError) -> None:
        """Tell the core; what is staged stays until it says discard."""
        this.error = error
        self._cancel_transfers(this)
        self._shell.emit(
            OutputsStaged(
                this.effect.attempt, error.text, error.is_worker_at_fault, error.is_temporary
            )
        )

    def _cancel_transfers(self, this: _Staging) -> None:
        transfers, this.transfers = this.transfers, []
        for transfer in transfers:
            self._puller.cancel(transfer)

    def _published(self, attempt: bytes, error: OutputError | None) -> None:
        if error is None:
            self._stagings.pop(attempt, None)
            self._shell.emit(OutputsPublished(attempt))
            return
        if not error.is_temporary:
            self._stagings.pop(attempt, None)
        self._shell.emit(OutputsPublished(attempt, error.text, error.is_temporary))

    def _new_folders(self, outputs: list[StagedOutput]) -> list[Path]:
        """Give the folders of these outputs that this process has not noted yet."""
        folders = []
        for output in outputs:
            if not output.destination:
                continue
            folder = self._paths.final(0, 0, 0, output.destination).parent
            if folder not in self._folders:
                if len(self._folders) >= FOLDERS_REMEMBERED:
                    self._folders.clear()
                self._folders.add(folder)
                folders.append(folder)
        return folders


def _ignore(_: object) -> None:
    pass
