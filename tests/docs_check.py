"""Runs what the documentation shows, page after page, in one scratch folder: `make docs-check`.

`python tests/docs_check.py docs/images.md ...` runs the README and those pages; others need nothing but what it leaves.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from documentation import README, ROOT, blocks, pages

RUN = {"bash": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-W", "error:::idat_tune", "-c")}


def scratch(folder):
    """The environment of a user whose home, images and programs are in a folder."""
    program = folder / "bin" / "idat-tune"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m idat_tune.cli "$@"\n')
    program.chmod(0o755)
    held = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "IDAT_TUNE_", "XDG_"))}
    path = os.pathsep.join(filter(None, [str(ROOT), held.get("PYTHONPATH")]))
    return {**held, "HOME": str(folder), "PATH": f"{program.parent}:{held['PATH']}", "PYTHONPATH": path}


def check(shown, folder, say=print):
    """Run blocks in order; the places of those that failed."""
    environment, work = scratch(folder), folder / "work"
    work.mkdir()
    failed = []
    for block in shown:
        if block.language not in RUN:
            continue
        if block.needs:
            say(f"left out  {block.place}: needs {block.needs}")
            continue
        began = time.monotonic()
        done = subprocess.run(
            [*RUN[block.language], block.text], cwd=work, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        say(f"{'FAILED' if done.returncode else 'ran':<9} {block.place} ({time.monotonic() - began:.0f} s)")
        if done.returncode:
            failed.append(block.place)
            say(f"{block.text}\n{done.stdout}")
    return failed


def main():
    sys.stdout.reconfigure(line_buffering=True)  # so that it can be followed in a file
    wanted = [README, *(Path(name).resolve() for name in sys.argv[1:])]
    chosen = [page for page in pages() if page in wanted or len(wanted) == 1]
    with tempfile.TemporaryDirectory() as folder:
        failed = check([block for page in chosen for block in blocks(page)], Path(folder))
    sys.exit(f"failed: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
