"""The wheel holds what the checkout does, under two names only, and works where there is no checkout."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PLACES = {
    "notifier": "notifier",
    "channels/notifier_channels": "notifier_channels",
    "templates": "notifier/_bundled/templates",
}
TOP_LEVEL = {"notifier", "notifier_channels"}  # a top-level `channels` would overwrite Django Channels


def main(build: Path) -> None:
    """Judge the one wheel in a directory."""
    [path] = build.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        check_names(names)
        with tempfile.TemporaryDirectory() as place:
            wheel.extractall(place)
            check_templates(Path(place))
    print(f"{path.name}: {len(names)} files, all there; its templates render.")


def check_names(names: set[str]) -> None:
    """Nothing is missing, and nothing else comes along."""
    top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if top_level != TOP_LEVEL:
        sys.exit(f"the wheel's top-level names are {sorted(top_level)}, not {sorted(TOP_LEVEL)}")
    missing = sorted(wanted() - names)
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}")


def wanted() -> set[str]:
    """Where each file of the checkout belongs."""
    return {
        f"{target}/{path.relative_to(REPOSITORY / source).as_posix()}"
        for source, target in PLACES.items()
        for path in (REPOSITORY / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def check_templates(place: Path) -> None:
    """What ships renders, without the checkout."""
    program = "import notifier, runpy; print(notifier.__file__); runpy.run_module('notifier.cli', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "templates", "check"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout.startswith(str(place)):
        sys.exit(f"the unpacked wheel does not render its templates: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
