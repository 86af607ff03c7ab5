"""The command line: one file a verb, each a thin face over a function of the library.

Verbs are imported when they are called, so that `longspan --help` does not wait for torch.
"""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from longspan.errors import LongspanError

VERBS = {
    "train": "Train a model from a recipe, or go on with a run.",
    "new": "Write a recipe that ships with longspan to a file, to edit.",
    "check": "Say every problem of a recipe at once, without making a tensor.",
    "cost": "Say what a recipe costs: parameters, FLOPs, bytes, state.",
    "evaluate": "Score held-out data by the measures of a run's task.",
    "predict": "Write what a model makes of new inputs: a translation, an answer, a class.",
    "embed": "Write a vector of each input.",
    "generate": "Continue a prompt, token by token.",
    "stream": "Write the surprisal of every token of an unbounded input.",
    "report": "Measure a run on its held-out data and write a page about it.",
    "reach": "Measure how far back models really look, and write a page about it.",
    "compare": "Lay the results of runs beside the differences of their recipes.",
    "list": "List what a recipe can name.",
    "show": "Draw a position, a pattern or a memory.",
    "import": "Turn another library's checkpoint into a run.",
}

app = App(
    name="longspan",
    help="Transformers with memory, for sequences that do not fit in one context window.",
    version_flags=["--version"],
)
for _verb, _help in VERBS.items():
    _module = {"import": "import_", "list": "list_"}.get(_verb, _verb)
    app.command(f"longspan.cli.{_module}:{_module}", name=_verb, help=_help)


def main() -> None:
    """Runs the verb that was called; mistakes of the user give one message and status 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except BrokenPipeError:
        # whoever read our output has enough; nothing is wrong, and nothing may be flushed to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)
    except LongspanError as error:
        print(f"longspan: {error}", file=sys.stderr)
        sys.exit(130 if type(error).__name__ == "Interrupted" else 2)
