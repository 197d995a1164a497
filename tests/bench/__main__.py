"""The beginning of `python tests/bench`; see run.py."""

import sys
from pathlib import Path

# A script's own directory comes first on the path, and would be searched for `script` and others.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench.run import main  # noqa: E402 - found through the line above

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
