"""The GRPO job for `ray job submit --working-dir . -- python jobs/grpo.py jobs/grpo.yaml`.

Takes the same arguments and gives the same exit codes as `mixup train-grpo`. A submitted job finds
the package in its working folder, which Ray puts on PYTHONPATH, or in the cluster's image.
"""

import sys

from mixup.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-grpo", *sys.argv[1:]]))
