"""The library job for `ray job submit`: `... -- python jobs/reference.py jobs/reference.yaml`.

Takes the same arguments and gives the same exit codes as `mixup build-reference`. A submitted job
finds the package in its working folder, which Ray puts on PYTHONPATH, or in the cluster's image.
"""

import sys

from mixup.cli import main

if __name__ == "__main__":
    sys.exit(main(["build-reference", *sys.argv[1:]]))
