"""Run the tests with every supported Streamlit and Python: `python e2e/matrix.py`.

With each Streamlit the unit tests and the websocket tests, two releases at a time; with each Python on this machine
the unit tests, without Streamlit. Names on the command line run these releases only. What failed is printed with its
log. When all is well after a run of everything, the table of README.md is written anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RELEASES = ["newest", "1.62.0", "1.58.0", "1.53.1", "1.50.0", "1.45.1", "1.40.2", "1.37.1"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
WEBSOCKET_TESTS = ["test_real_server", "test_moving_over", "test_streamlit_facts", "test_load"]
LIMIT = 20 * 60  # seconds that one command may take
HEAD = "| Streamlit | Python | unit tests | websocket tests |\n| --- | --- | --- | --- |\n"


@dataclass
class Row:
    """One line of the table, and what to say of it if it failed."""

    streamlit: str
    python: str = ""
    cells: list[str] = field(default_factory=list)
    log: str = ""
    is_ok: bool = True
    seconds: float = 0.0

    def run(self, command: list[str | Path], folder: Path = ROOT) -> str:
        """Run a command, and give what it printed last. What fails is kept, with its log."""
        try:
            done = subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT
            )
            output, is_ok = done.stdout, done.returncode == 0
        except subprocess.TimeoutExpired as error:
            output, is_ok = f"{error.output}\nstopped after {LIMIT} s", False
        if not is_ok:
            self.is_ok = False
            self.log += f"$ {' '.join(map(str, command))}\n{output}\n"
        return output.strip()

    def test(self, command: list[str | Path], folder: Path = ROOT) -> None:
        output = self.run([*command], folder)
        count = re.findall(r"^Ran (\d+) tests?", output, re.MULTILINE)
        self.cells.append(f"{count[-1] if count else 'none'}: {output.rpartition(chr(10))[2]}")

    def line(self) -> str:
        unit, websocket = (*self.cells, "", "")[:2]
        return f"| {self.streamlit} | {self.python} | {unit} | {websocket} |".replace("|  |", "| |")


def with_streamlit(release: str, uv: Path, folder: Path) -> Row:
    """Run the tests with a release; "newest" is what pip would take."""
    row, begun = Row(release), time.monotonic()
    python = folder / "bin" / "python"
    package = "streamlit" if release == "newest" else f"streamlit=={release}"
    row.run([uv, "venv", "--quiet", "--python", sys.executable, folder])
    row.run([uv, "pip", "install", "--quiet", "--python", python, package, "websockets", "uvicorn"])
    if not row.is_ok:
        row.cells = ["could not be installed"]
        return row
    row.streamlit = row.run([python, "-c", "import streamlit; print(streamlit.__version__)"])
    row.python = version_of(python)
    row.test([python, "-m", "unittest"])
    row.test([python, "-W", "ignore", "-m", "unittest", "-v", *WEBSOCKET_TESTS], HERE)
    row.seconds = time.monotonic() - begun
    return row


def bare(python: str) -> Row:
    row, begun = Row("none", version_of(python)), time.monotonic()
    row.test([python, "-m", "unittest"])
    row.seconds = time.monotonic() - begun
    return row


def version_of(python: str | Path) -> str:
    code = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def interpreters() -> list[str]:
    """Find one Python of each kind, by its name in the PATH; pyenv has them behind names that need to be told which."""
    environment = dict(os.environ)
    if shutil.which("pyenv"):
        listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout
        environment["PYENV_VERSION"] = ":".join(listed.split())
    found = []
    for name in PYTHONS:
        path = shutil.which(f"python{name}")
        if path:
            code = "import sys; print(sys.executable)"
            done = subprocess.run([path, "-c", code], env=environment, capture_output=True, text=True)
            found += done.stdout.split()
    return found


def write_table(table: str) -> None:
    path = HERE / "README.md"
    text = path.read_text()
    path.write_text(text[: text.index(HEAD)] + table)


def main() -> int:
    releases = sys.argv[1:] or RELEASES
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(2) as pool:
        tools = Path(work, "tools")
        subprocess.run([sys.executable, "-m", "venv", tools], check=True)
        pip = str(tools / "bin" / "pip")
        subprocess.run([pip, "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
        uv = tools / "bin" / "uv"
        runs = [pool.submit(with_streamlit, release, uv, Path(work, release)) for release in releases]
        runs += [pool.submit(bare, python) for python in interpreters()]
        rows = []
        for run in runs:
            row = run.result()
            rows.append(row)
            print(f"{row.line()} {row.seconds:.0f} s\n{row.log}", end="", flush=True)
    failed = [row for row in rows if not row.is_ok]
    table = HEAD + "".join(f"{row.line()}\n" for row in rows)
    print(f"\n{table}")
    if releases == RELEASES and not failed:
        write_table(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
