"""Print the shell block of README.md that follows the marker `<!-- NAME -->`."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
block = re.search(rf"<!-- {sys.argv[1]} -->\s*```sh\n(.*?)```", readme, re.DOTALL)
if not block:
    sys.exit(f"README.md has no block marked {sys.argv[1]}")
print(block.group(1).strip())
