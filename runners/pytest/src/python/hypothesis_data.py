import os
import sys


def prepare_hypothesis():
    """Has hypothesis load its tables of characters, or make and keep them in their files."""
    try:
        charmap = sys.modules["hypothesis.internal.charmap"]
        charmap.charmap()
        charmap.intervals_from_codec("utf-8")
    except Exception:
        # Another version. Tests make what they need.
        pass


def learn_what_hypothesis_draws_from():
    """So that not every fork has to: tables of characters, if they are here, and constants in the
    project's modules."""
    try:
        if os.path.exists(sys.modules["hypothesis.internal.charmap"].charmap_file()):
            prepare_hypothesis()
        sys.modules["hypothesis.internal.conjecture.providers"]._get_local_constants()
    except Exception:
        # It is not used, or another version.
        pass


def kept_by_hypothesis():
    """Directories in which hypothesis keeps what tests would have to find out anew: its tables of
    characters, which take it a second, and the examples that have failed before."""
    if "hypothesis" not in sys.modules:
        return [], []
    prepare_hypothesis()
    try:
        from hypothesis.configuration import storage_directory

        places = [storage_directory(name) for name in ("unicode_data", "examples")]
    except Exception:
        return [], []
    tables, examples = (os.path.abspath(getattr(place, "path", place)) for place in places)
    return [tables], [examples]


