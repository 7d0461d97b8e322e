"""An hourly report of where in the world it is day, at 28,000 airports; README.md in this folder is its page.

python -m examples.scheduled_report
"""
