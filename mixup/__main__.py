"""``python -m mixup``, and the ``mixup`` command."""

from __future__ import annotations

import sys

from mixup.cli import main

if __name__ == "__main__":
    sys.exit(main())
