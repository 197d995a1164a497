"""The beginning of `python tests/bench`; see run.py, and scenarios.py for what is simulated."""

import sys
from pathlib import Path

# A script's own directory comes first on the path, and would be searched for `script` and others.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import run, scenarios  # noqa: E402 - found through the line above

if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(scenarios.main(words[1:]) if words[:1] == ["scenarios"] else run.main(words))
