"""The checks of CI one at a time: `nox -s tests-3.13`, `nox -s lowest`, `nox -l` for the list."""

import pathlib

import nox

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite; arguments after `--` are pytest's."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def lowest(session: nox.Session) -> None:
    """The smoke tests with the lowest version of everything that pyproject allows."""
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", "-m", "smoke", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The hooks of `pre-commit`, ruff among them, on every file."""
    session.install("-e", ".[dev]")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def types(session: nox.Session) -> None:
    """Pyright, with the settings of pyproject."""
    session.install("-e", ".[dev]")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into `site`, its notebooks executed; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict")


@nox.session
def sdist(session: nox.Session) -> None:
    """The smoke tests of the unpacked sdist, which must hold all that they need."""
    folder = pathlib.Path(session.create_tmp())
    session.install("build")
    session.run("python", "-m", "build", "--sdist", "--outdir", str(folder))
    archive = max(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    session.run("tar", "-xzf", str(archive), "-C", str(folder), external=True)
    session.chdir(archive.with_suffix("").with_suffix(""))
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "smoke", *session.posargs)
