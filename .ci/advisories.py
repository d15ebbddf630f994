"""Known weaknesses of the locked versions. Where the advisory service cannot be asked, it says so and does not fail."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS = 120


def main() -> None:
    """Ask pip-audit about the versions that are installed at run time."""
    audit = Path(sys.executable).with_name("pip-audit")
    options = ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    command = [str(audit), "-r", str(REPOSITORY / "requirements.txt"), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        print("not audited: the advisory service cannot be reached from here")
        return
    known = [package for package in packages if "vulns" in package]
    weak = [package for package in known if package["vulns"]]
    for package in weak:
        ids = ", ".join(weakness["id"] for weakness in package["vulns"])
        print(f"{package['name']} {package['version']}: {ids}")
    print(f"audited {len(known)} of {len(packages)} packages" if known else "not audited: no advisories from here")
    sys.exit(1 if weak else 0)


if __name__ == "__main__":
    main()
