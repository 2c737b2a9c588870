"""Pictures of results, drawn without a browser or matplotlib: what the page and a selection's directory show.

svg.py      elements, scales, styles
charts.py   one function a picture
words.py    numbers and metrics as the page says them
"""
