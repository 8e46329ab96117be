"""The command line that all benchmarks share: `--quick`, `--json FILE`, and checks before any work.

What is wrong with an argument is said at once, by `argparse`, never by a traceback after an hour.
"""

import argparse
import contextlib
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from examples import console

Record = dict[str, Any]  # flat: names to numbers, texts or None


def parser(module: str, description: str, *, quick: str, records: str) -> argparse.ArgumentParser:
    """The parser of `python -m module`.

    Args:
        module: the name to call it by.
        description: printed as it is, a docstring.
        quick: what `--quick` leaves of the benchmark.
        records: what one flat record of `--json` is about.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", type=output_file, metavar="FILE", help=f"write one flat record {records}")
    return made


def add_comparison(
    parser: argparse.ArgumentParser, folder: str, *, tasks: Collection[str], methods: Collection[str]
) -> None:
    """The options of a benchmark that compares methods on tasks: where to, which of them, only to report."""
    parser.add_argument(
        "--out",
        type=output_folder,
        default=folder,
        metavar="FOLDER",
        help="results and report; default: %(default)s",
    )
    parser.add_argument("--tasks", nargs="+", action=Each, metavar="TASK", choices=list(tasks))
    parser.add_argument("--methods", nargs="+", action=Each, metavar="METHOD", choices=list(methods))
    parser.add_argument("--report", action="store_true", help="train nothing, report what is there")
    parser.add_argument("--publish", action="store_true", help="put the report into docs/results")


def check_publish(
    parser: argparse.ArgumentParser, options: argparse.Namespace, part: Any, page: pathlib.Path
) -> None:
    """Ends with a sentence if `--publish` was given, and a part only was chosen or there is no such page."""
    if options.publish and part:
        parser.error("argument --publish: puts the whole report, it goes with no choice of a part of it")
    if options.publish and not page.exists():
        parser.error(f"argument --publish: there is no {page} to put the report into")


class Each(argparse.Action):
    """Keeps each of several values once: what is named twice is not trained twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Stores them, in their order."""
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Ends with a sentence at Ctrl-C, of work that goes on where it stopped."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("Stopped; what is done is kept, and the same command goes on.") from None


def positive_integer(text: str) -> int:
    """An argument that counts something: 1, 2, ..."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number < 2**31:  # more is no count of anything here
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return number


def output_file(text: str) -> pathlib.Path:
    """An argument that names a file which can be written; its folder is made."""
    path = pathlib.Path(text)
    with console.writable("must name a file that can be written", text):
        path.parent.mkdir(parents=True, exist_ok=True)
        console.try_file(path)
    return path


def data_folder(text: str) -> pathlib.Path:
    """An argument that names a folder of data sets; whoever reads them says what is missing in it."""
    if not text.strip():  # pathlib takes nothing for the folder that one is in
        raise argparse.ArgumentTypeError(f"must name a folder, got {text!r}")
    return pathlib.Path(text)


def add_data(parser: argparse.ArgumentParser, help: str = "where the data sets lie") -> None:
    """The option that says where the data sets lie; `need_no_data` refuses it where nothing would be read."""
    parser.add_argument("--data", type=data_folder, metavar="FOLDER", help=help)


def need_no_data(parser: argparse.ArgumentParser, options: argparse.Namespace, reason: str) -> None:
    """Ends with a sentence if `--data` was given and would not be read."""
    if options.data:
        parser.error(f"argument --data: {options.data} would not be read, {reason}")


@contextlib.contextmanager
def reading_data(parser: argparse.ArgumentParser, otherwise: str | None = None) -> Iterator[None]:
    """Ends with a sentence where data cannot be read: `otherwise`, or what the reader says is missing."""
    try:
        yield
    except (OSError, ValueError) as error:
        parser.error(f"argument --data: {otherwise or error}")


def output_folder(text: str) -> pathlib.Path:
    """An argument that names a folder which files can be written into; it is made when there is a file."""
    path = data_folder(text)
    whole = pathlib.Path(os.path.abspath(text))
    with console.writable("must name a folder that can be written into", text):
        made = [each for each in (whole, *whole.parents) if not each.exists()]
        console.try_folder(path)
    with contextlib.suppress(OSError):  # another run may have begun to write there
        for each in made:  # whoever writes makes it again
            each.rmdir()
    return path


def write(path: pathlib.Path | None, records: Sequence[Record]) -> None:
    """Writes the records as one list, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(list(records), indent=1) + "\n")
