"""The mixture job for `ray job submit --working-dir . -- python jobs/mixture.py jobs/mixture.yaml`.

Takes the same arguments and gives the same exit codes as `mixup build-mixture`. A submitted job
finds the package in its working folder, which Ray puts on PYTHONPATH, or in the cluster's image.
"""

import sys

from mixup.cli import main

if __name__ == "__main__":
    sys.exit(main(["build-mixture", *sys.argv[1:]]))
