"""Views of the last snapshot. They compute nothing and touch neither hardware nor servers."""
