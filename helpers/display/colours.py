"""Every colour of the figures and tables."""

COLOURS = {"gpu": "#0072B2", "host": "#D55E00"}  # Okabe & Ito (2008), for every kind of sight
GREY, BAND, MARKED = "#555555", "#009E73", "#882E72"  # remarks, permitted window, tagged block
P95, GRID = "black", "#DDDDDD"
ALARM = "#E0202F"  # what failed, in a table; no clock's colour
