"""Whether the wheel alone is onemask: built, installed into an empty environment, and run outside of the repository.

Its dependencies are borrowed from the environment that runs this, so that it takes seconds and no network. Needs
setuptools of the version that pyproject.toml asks for.

    python benchmarks/wheel.py      # or: make wheel
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = (
    "onemask/py.typed",
    "onemask/assets/car-turn.mp4",
    "onemask/weights/frtm-lite.safetensors",
    "onemask/weights/frtm-lite.json",
    "onemask/studio/static/index.html",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        source = folder / "source"  # a copy: what an earlier build left in the repository must not get in
        shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copy(ROOT / name, source)
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True)
        (wheel,) = folder.glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        if missing := [name for name in NEEDED if name not in names]:
            sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
        if foreign := [name for name in names if not name.startswith(("onemask/", "onemask-"))]:
            sys.exit(f"{wheel.name} has {foreign[0]}, which is not onemask's")
        environment = folder / "environment"
        venv.create(environment, with_pip=False)
        python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        into = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", *into], check=True)
        packages = next(environment.rglob("site-packages"))
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run = {"cwd": folder, "check": True, "env": {"ONEMASK_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"}}
        where = [str(python), "-c", "import onemask; print(onemask.__file__)"]
        printed = subprocess.run(where, **run, stdout=subprocess.PIPE, text=True).stdout
        if not Path(printed.strip()).is_relative_to(packages):
            sys.exit(f"onemask was imported from {printed.strip()}, not from the wheel")
        command = str(python.with_name("onemask"))
        subprocess.run([command, "--help"], **run, stdout=subprocess.DEVNULL)
        subprocess.run([command, "demo", "--method", "ttvos-lite", "--size", "96", "--out", "demo"], **run)
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.0f} MB, {len(names)} files, runs")


if __name__ == "__main__":
    main()
