import json
import os
import signal
import sys


def start(pytest, arguments, plugin):
    """What `python -m pytest` does."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.getcwd()
    sys.argv[:] = [os.path.join(os.path.dirname(pytest.__file__), "__main__.py")] + arguments
    return int(pytest.main(list(arguments), plugins=[plugin]))


