"""`python -m pip`, but it installs nothing."""

import os
import sys
import time

if __name__ == "__main__":
    from venv import reach

    reach("pip")
    time.sleep(float(os.environ.get("INSTALL_S", "0")))
    print("pip", *sys.argv[1:])
