"""A quarter in small: twelve weeks of operation on a made-up shop, with the schedule, the gate and a scripted reviewer.

Here are the shop's files and what is planted in them (`shop.py`), the weeks themselves (`operating.py`), the reviewer
(`reviewer.py`), and what comes of it: table, chart, and whether all that was planted was seen (`outcome.py`).
"""
