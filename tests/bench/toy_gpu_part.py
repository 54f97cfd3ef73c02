"""A part for test_bench_gpu.py: cases that work, fail, die and hang."""

import os
import time

TITLE = "toys"


def cases(lab):
    yield "fault: none", lambda: [lab.row("toy", "works", median_s=1.0)]
    yield "fault: raises", lambda: 1 / 0
    yield "fault: dies", lambda: dies(lab)
    yield "fault: none again", lambda: [lab.row("toy", "between", median_s=2.0)]
    yield "fault: hangs", lambda: time.sleep(600)
    yield "fault: none at last", lambda: [lab.row("toy", "last", median_s=3.0)]
    yield "time: long", lambda: slow(lab)
    yield "time: none left", lambda: [lab.row("toy", "never begins")]


def dies(lab):
    yield lab.row("toy", "before it dies", median_s=1.0)
    os.write(2, b"illegal address\n")
    os._exit(9)


def slow(lab):
    for i in range(600):
        time.sleep(0.3)
        yield lab.row("toy", f"part {i}")
