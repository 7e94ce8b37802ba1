"""The refresh job for `ray job submit --working-dir . -- python jobs/refresh.py jobs/refresh.yaml`.

Takes the same arguments and gives the same exit codes as `mixup refresh`. A submitted job finds the
package in its working folder, which Ray puts on PYTHONPATH, or in the cluster's image.
"""

import sys

from mixup.cli import main

if __name__ == "__main__":
    sys.exit(main(["refresh", *sys.argv[1:]]))
