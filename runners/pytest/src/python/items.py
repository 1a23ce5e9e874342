# What is told of collected tests.


def describe(item):
    own = getattr(item, "own_markers", [])
    return {
        "node_id": item.nodeid,
        "name": item.location[2] or item.name,
        "markers": sorted({mark.name for mark in own}),
        "ignored": is_skipped(item, own),
    }


def is_skipped(item, own):
    """Whether the test's own markers say that it is skipped."""
    names = {mark.name for mark in own}
    if "skip" in names:
        return True
    if "skipif" not in names:
        return False
    try:
        from _pytest.skipping import evaluate_skip_marks

        return evaluate_skip_marks(item) is not None
    except BaseException:
        # Whatever is wrong with the condition is for the test to report.
        return False


def fingerprints(tests):
    """For each file what differs where its tests, what is told of them, or their order differ."""
    import hashlib

    files = {}
    for test in tests:
        file = test["node_id"].split("::")[0]
        files.setdefault(file, hashlib.sha256()).update(json.dumps(test).encode())
    return {file: tests.hexdigest() for file, tests in files.items()}


