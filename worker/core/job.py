"""A job's description as the worker uses it: filled in for one task at a time.

What is the same for all tasks of a job is made once; a job without placeholders and columns is
filled once for all.
"""

from msgspec import Struct

from wqueue.protocol.messages import Assignment, Describe, FileRef
from wqueue.protocol.names import normalized, show, why_unsafe
from wqueue.protocol.outcomes import INPUT_MISSING, OUTPUT_UNSAFE, SANDBOX_FAILED
from wqueue.protocol.resources import MILLI, Resources
from wqueue.protocol.template import expand, has_placeholder

THREADS_VARIABLES = (
    b"OMP_NUM_THREADS",
    b"OPENBLAS_NUM_THREADS",
    b"VECLIB_NUM_THREADS",
    b"MKL_NUM_THREADS",
    b"NUMEXPR_NUM_THREADS",
)
"""Set to the number of cores, so that numerical libraries take what was given and no more."""

GPU_VARIABLES = (b"CUDA_VISIBLE_DEVICES", b"ROCR_VISIBLE_DEVICES", b"ZE_AFFINITY_MASK")
"""Set for every task, empty for one without gpus, so that nobody uses what another was given."""


def key_of(file: FileRef) -> bytes:
    """Give the key of a file in the cache: its digest, and an x behind it for a program."""
    return file.digest + b"x" if file.mode & 0o111 else file.digest


class Filled(Struct, frozen=True):
    """What one task runs with: everything is literal now.

    `links` are key in the cache, name in the sandbox, permission bits; `pins` the same files with
    their sizes. A task that cannot run has an `outcome` and a `text` instead.
    """

    command: list[bytes]
    env: list[tuple[bytes, bytes]]
    links: list[tuple[bytes, bytes, int]]
    pins: dict[bytes, int]
    outputs: list[bytes]
    outcome: str = ""
    text: str = ""


class Job:
    """The description of one job, ready to be filled in."""

    __slots__ = ("_base", "_files", "_same", "is_array", "number", "resources", "template", "uid")

    def __init__(self, describe: Describe) -> None:
        self.uid = describe.job_uid
        self.number = describe.job
        self.template = describe.template
        self.resources = describe.template.resources
        self._files = describe.files
        self.is_array = describe.template.is_array and self._has_placeholders()
        self._same: Filled | None = None
        self._base: list[tuple[bytes, bytes]] | None = None

    def _has_placeholders(self) -> bool:
        template = self.template
        return (
            any(map(has_placeholder, template.command))
            or any(has_placeholder(value) for _, value in template.env)
            or any(has_placeholder(spec.remote) for spec in template.inputs)
            or any(has_placeholder(spec.remote) for spec in template.outputs)
        )

    def fill(self, assignment: Assignment, index: int) -> Filled:
        """Give what the task of this index runs with."""
        if self._same is not None:
            return self._same
        filled = self._fill(assignment, index)
        if not self.is_array and not assignment.column_files:
            self._same = filled
        return filled

    def _fill(self, assignment: Assignment, index: int) -> Filled:
        template, value = self.template, assignment.value

        def put(text: bytes, *, quote: bool = False) -> bytes:
            return expand(text, value, index, quote=quote) if self.is_array else text

        links: list[tuple[bytes, bytes, int]] = []
        pins: dict[bytes, int] = {}
        for spec in template.inputs:
            remote = put(spec.remote)
            fault = why_unsafe(remote)
            if fault:
                return _unfit(SANDBOX_FAILED, f"Input {show(remote)!r}: {fault}")
            files, at = (
                (self._files, spec.file)
                if spec.file >= 0
                else (assignment.column_files, -1 - spec.file)
            )
            if at >= len(files):
                return _unfit(INPUT_MISSING, f"Input {show(remote)!r}: no file was given for it")
            key = key_of(files[at])
            links.append((key, normalized(remote), files[at].mode))
            pins[key] = files[at].size
        outputs = []
        for output in template.outputs:
            remote = put(output.remote)
            fault = why_unsafe(remote)
            if fault:
                return _unfit(OUTPUT_UNSAFE, f"Output {show(remote)!r}: {fault}")
            outputs.append(normalized(remote))
        return Filled(
            [put(word, quote=template.is_shell) for word in template.command],
            [(name, put(text)) for name, text in template.env],
            links,
            pins,
            outputs,
        )

    def environment(
        self, filled: Filled, index: int, gpu_ids: tuple[str, ...]
    ) -> list[tuple[bytes, bytes]]:
        """Give the variables of one attempt: the user's first, ours over them.

        The spawner adds what it alone knows: the marker of the attempt and its sandbox.
        """
        if self._base is None:
            self._base = _resource_variables(self.resources)
        gpus = ",".join(gpu_ids).encode()
        return [
            *filled.env,
            *self._base,
            *((name, gpus) for name in GPU_VARIABLES),
            (b"WQ_TASK_ID", b"%d.%d" % (self.number, index)),
        ]


def _unfit(outcome: str, text: str) -> Filled:
    return Filled([], [], [], {}, [], outcome, text)


def _resource_variables(resources: Resources) -> list[tuple[bytes, bytes]]:
    """CORES and its like, each only when there is some; part of a core counts as one."""
    cores = b"%d" % -(-resources.cores_milli // MILLI)
    variables = []
    if resources.cores_milli:
        variables += [(b"CORES", cores), *((name, cores) for name in THREADS_VARIABLES)]
    for name, amount in (
        (b"MEMORY", resources.memory_mb),
        (b"DISK", resources.disk_mb),
        (b"GPUS", resources.gpus),
    ):
        if amount:
            variables.append((name, b"%d" % amount))
    return variables
