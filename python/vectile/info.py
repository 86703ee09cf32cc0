"""``python -m vectile.info [--json]``: the configuration, for pasting into an issue."""

from __future__ import annotations

import argparse
import json

from vectile.runtime import config, show_config


def main(argv: list[str] | None = None) -> int:
    """Print the configuration as text or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m vectile.info", description="Print vectile's configuration."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if parser.parse_args(argv).json:
        print(json.dumps(config(), indent=2))
    else:
        show_config()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
