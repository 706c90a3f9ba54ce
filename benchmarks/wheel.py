"""Whether the wheel alone is onemask: built of the source distribution, installed into an empty environment, and run.

Its dependencies are borrowed from the environment that runs this, so that it takes seconds and no network. Needs
setuptools of the version that pyproject.toml asks for.

    python benchmarks/wheel.py      # or: make wheel
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE")
CODE = "import sys, setuptools.build_meta as build; print(build.build_sdist(sys.argv[1]))"
PLACES = ("assets", "weights", "studio/static")  # of files that are no modules


def needed(source: Path, folder: str) -> set[str]:
    """The files of a folder that are to be in a distribution."""
    files = (path for path in (source / folder).rglob("*") if path.is_file() and path.suffix not in (".py", ".md"))
    return {path.relative_to(source).as_posix() for path in files}


def unpacked(sdist: Path) -> set[str]:
    """The names in a source distribution, without its own folder."""
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        source = folder / "source"  # a copy: what an earlier build left in the repository must not get in
        shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copytree(ROOT / "recipes", source / "recipes")
        for name in SOURCES:
            shutil.copy(ROOT / name, source)
        build = [sys.executable, "-c", CODE, str(folder)]
        subprocess.run(build, cwd=source, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (sdist,) = folder.glob("*.tar.gz")
        if missing := needed(source, "recipes") - unpacked(sdist):
            sys.exit(f"{sdist.name} lacks {', '.join(sorted(missing))}")
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*build, "--wheel-dir", str(folder), str(sdist)], check=True)
        (wheel,) = folder.glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        if (
            missing := {
                name.removeprefix("src/") for place in PLACES for name in needed(source, f"src/onemask/{place}")
            }
            - names
        ):
            sys.exit(f"{wheel.name} lacks {', '.join(sorted(missing))}")
        if foreign := [name for name in names if not name.startswith(("onemask/", "onemask-"))]:
            sys.exit(f"{wheel.name} has {foreign[0]}, which is not onemask's")
        environment = folder / "environment"
        venv.create(environment, with_pip=False)
        python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        into = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", *into], check=True)
        packages = next(environment.rglob("site-packages"))
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run: dict[str, Any] = {
            "cwd": folder,
            "check": True,
            "env": {"ONEMASK_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"},
        }
        where = [str(python), "-c", "import onemask; print(onemask.__file__)"]
        printed = subprocess.run(where, **run, stdout=subprocess.PIPE, text=True).stdout
        if not Path(printed.strip()).is_relative_to(packages):
            sys.exit(f"onemask was imported from {printed.strip()}, not from the wheel")
        command = str(python.with_name("onemask"))
        printed = subprocess.run([command, "--version"], **run, stdout=subprocess.PIPE, text=True).stdout
        if printed.split()[-1] != wheel.name.split("-")[1]:
            sys.exit(f"the command is {printed.strip()}, not {wheel.name}")
        subprocess.run([command, "demo", "--method", "ttvos-lite", "--short-side", "64", "--out", "demo"], **run)
        print(f"{sdist.name} makes {wheel.name}: {wheel.stat().st_size / 2**20:.0f} MB, {len(names)} files, runs")


if __name__ == "__main__":
    main()
