import gc
import json
import os
import signal
import sys


# Collecting creates objects that stay. Python, which looks through all it has for garbage ever so
# often as it has created some, would spend a quarter of the time on that.
GC_WHILE_COLLECTING = (1000000, 50, 1000)


def start(pytest, arguments, plugin):
    """What `python -m pytest` does."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.getcwd()
    gc.set_threshold(*GC_WHILE_COLLECTING)
    sys.argv[:] = [os.path.join(os.path.dirname(pytest.__file__), "__main__.py")] + arguments
    return int(pytest.main(list(arguments), plugins=[plugin]))


