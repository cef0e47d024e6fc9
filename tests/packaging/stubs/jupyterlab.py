"""`python -m jupyterlab`, but it only tells what it was given."""

import sys

print(*sys.argv[1:], sep="|")
