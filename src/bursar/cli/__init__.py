"""The command line: `bursar`.

Owns the edge between a terminal and everything else: what a mistake looks like there and which
exit code it has. Must not hold a rule: commands call use cases. Importing it costs next to nothing,
so that `bursar --help` answers at once; each command imports what it needs when it runs.

Exit codes: 0 done, 1 `verify`, `doctor` or `explain` found something, 2 a mistake in options,
settings or input, 3 there is no such thing, 4 refused or not possible as things are, 5 something
that Bursar needs cannot be had, 6 a bug, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

_OWNER_ONLY = 0o077


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; the console script."""
    # Whatever is made here, files of money and secrets above all, is its owner's alone.
    os.umask(_OWNER_ONLY)
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(given))


def _run(arguments: list[str]) -> int:
    from bursar.cli import failures, streams

    try:
        streams.be_ready()
        from bursar.cli.application import make

        code = make()(args=arguments, prog_name="bursar", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        return failures.report(error, is_json="--json" in arguments)
    return code if isinstance(code, int) else 0
