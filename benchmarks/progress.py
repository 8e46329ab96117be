"""How far a long benchmark is: a bar that knows the time left."""

from rich import progress


def bar() -> progress.Progress:
    """A bar with a description, a count, and the time that it took and will take."""
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )


def fitted(text: str, width: int) -> str:
    """The text at this width, so that the bar behind it stays where it is."""
    return text[:width].ljust(width)
