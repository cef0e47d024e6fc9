"""The report, but its table is one line that names the folder."""

import sys

print("table of runs", *sys.argv[1:], sep="|")
