"""Outcomes: what a person is told of how a task ended.

Tables, exit codes, dependencies and retries use these words; Work Queue's own result numbers are a
translation of them and belong to its compatible face.
"""

SUCCEEDED = "succeeded"
EXIT_NONZERO = "exit_nonzero"
NOT_FOUND = "not_found"
NOT_EXECUTABLE = "not_executable"
SIGNAL = "signal"
INPUT_MISSING = "input_missing"
OUTPUT_MISSING = "output_missing"
OUTPUT_UNSAFE = "output_unsafe"
OUTPUT_FAILED = "output_failed"
SANDBOX_FAILED = "sandbox_failed"
MEMORY = "memory"
DISK = "disk"
TIME_LIMIT = "time_limit"
WORKER_LOST = "worker_lost"
CANCELED = "canceled"
DEPENDENCY = "dependency"

MEANINGS = {
    SUCCEEDED: "the command exited with 0 and all outputs arrived",
    EXIT_NONZERO: "the command exited with another code",
    NOT_FOUND: "the command, or the interpreter its first line names, does not exist",
    NOT_EXECUTABLE: "the command exists but may not be executed",
    SIGNAL: "a signal ended the command",
    INPUT_MISSING: "an input file was not there, or was changed after submission",
    OUTPUT_MISSING: "the command succeeded but did not make a declared output",
    OUTPUT_UNSAFE: "a declared output is not a file inside the sandbox",
    OUTPUT_FAILED: "an output could not be written to its destination",
    SANDBOX_FAILED: "the worker could not prepare the sandbox or start the command",
    MEMORY: "the memory limit was passed",
    DISK: "the disk limit was passed",
    TIME_LIMIT: "the time limit was passed",
    WORKER_LOST: "the worker was lost, as often as the retries allow",
    CANCELED: "it was canceled",
    DEPENDENCY: "a task it depends on did not end as needed",
}
