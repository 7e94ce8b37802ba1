"""The fine-tuning job for `ray job submit --working-dir . -- python jobs/sft.py jobs/sft.yaml`.

Takes the same arguments and gives the same exit codes as `mixup train-sft`. A submitted job finds
the package in its working folder, which Ray puts on PYTHONPATH, or in the cluster's image.
"""

import sys

from mixup.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-sft", *sys.argv[1:]]))
