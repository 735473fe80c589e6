"""A rank that hears nothing ends by itself, in words."""

import subprocess
import sys

SCRIPT = """
import sys, time
from mocosfl_mpi.comm.patience import Watch
watch = Watch(1.0, lambda: "rank 1 of 3 on node, epoch 2, step 7")
for _ in range(8):
    time.sleep(0.25)
    watch.heard()
print("heard", flush=True)
if "stop" in sys.argv:
    watch.stop()
time.sleep(4)
print("still here", flush=True)
"""


def run(*words):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_silence_ends_the_process_in_words():
    done = run()
    assert done.returncode == 1
    assert done.stdout == "heard\n"
    assert "rank 1 of 3 on node, epoch 2, step 7: no word from the other ranks for 1 s" in done.stderr


def test_a_watch_that_is_stopped_ends_nothing():
    done = run("stop")
    assert done.returncode == 0
    assert done.stdout == "heard\nstill here\n"
