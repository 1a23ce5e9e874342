import collections

# Collects tests with pytest in the user's own environment, and tells what that environment
# is made of: `python -c THIS OUTPUT REWRITTEN ARGUMENTS...` writes one JSON object to the file OUTPUT.
# In the directory REWRITTEN it keeps test modules as pytest has rewritten them.

# Making tests out of fewer parameters takes no time worth saving.
MANY = 100

# Options that choose or order tests by how they ended before.
BY_RESULTS = "lf", "failedfirst", "newfirst", "stepwise"


class Collector:
    """Takes note of every collected test, and of what importing each module left behind that a
    forked process cannot take along."""

    def __init__(self):
        self.items = []
        self.deselected = collections.Counter()
        self.unfit = {}
        self.functions_left_out = []
        self.config = None
        self.before = None
        self.known = set(descriptors())

    def pytest_configure(self, config):
        self.config = config

    def pytest_collectstart(self, collector):
        if self.before is None:
            self.before = traces(self.known)
            if self.before:
                self.unfit[""] = self.before[0]
            # What pytest has opened by now is its own.
            self.known = set(descriptors())
            self.before = traces(self.known, True)

    def pytest_collectreport(self, report):
        after = traces(self.known, True)
        new = collections.Counter(after) - collections.Counter(self.before)
        if new:
            self.unfit.setdefault(report.nodeid.split("::")[0], next(iter(new)))
        self.before = after

    def pytest_deselected(self, items):
        self.deselected.update(map(function_of, items))

    def left_out(self, session):
        """Functions none of whose many tests are selected."""
        for item in session.items:
            self.deselected.pop(function_of(item), None)
        return sorted(name for name, count in self.deselected.items() if name and count >= MANY)

    def pytest_collection_finish(self, session):
        self.functions_left_out = self.left_out(session)
        self.items.extend(map(describe, session.items))


def function_of(item):
    """What the template's own collection calls the function that a test is made of."""
    name = getattr(item, "originalname", None)
    return name and "%s::%s" % (item.parent.nodeid, name)


def top_level(modules):
    """The directories and files that imported packages lie in."""
    trees, files = set(), set()
    for name, module in list(modules.items()):
        if "." in name or name in ("__main__", "__mp_main__"):
            continue
        try:
            paths = getattr(module, "__path__", None)
            if paths is not None:
                trees.update(os.path.abspath(path) for path in list(paths) if isinstance(path, str))
            elif isinstance(getattr(module, "__file__", None), str):
                files.add(os.path.abspath(module.__file__))
        except Exception:
            continue
        # What `pip install --editable` leaves when it cannot do with a path.
        for attribute in ("MAPPING", "NAMESPACES"):
            mapping = getattr(module, attribute, None)
            if name.startswith("__editable__") and isinstance(mapping, dict):
                for value in mapping.values():
                    for path in [value] if isinstance(value, str) else value:
                        (trees if os.path.isdir(path) else files).add(os.path.abspath(path))
    return sorted(trees), sorted(files)


def environment():
    import site
    import sysconfig

    paths = sysconfig.get_paths()
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    base.update(installed_base=sys.base_prefix, installed_platbase=sys.base_exec_prefix)
    standard = sysconfig.get_paths(vars=base)
    sites = list(site.getsitepackages()) if hasattr(site, "getsitepackages") else []
    if getattr(site, "ENABLE_USER_SITE", False):
        sites.append(site.getusersitepackages())
    trees, files = top_level(sys.modules)
    tables, examples = kept_by_hypothesis()
    return {
        "executable": os.path.abspath(sys.executable),
        "base_executable": os.path.abspath(getattr(sys, "_base_executable", None) or sys.executable),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "standard": sorted({standard["stdlib"], standard["platstdlib"], paths["stdlib"]}),
        "base_sites": sorted({standard["purelib"], standard["platlib"]}),
        "sites": sorted(set(sites) | {paths["purelib"], paths["platlib"]}),
        "path": [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)],
        "trees": trees,
        "files": files,
        "tables": tables,
        "examples": examples,
    }


def main():
    output, rewritten, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    import pytest

    gc.set_threshold(*GC_WHILE_COLLECTING)
    keep_rewritten(pytest, rewritten, True)

    class Plugin(Collector):
        @pytest.hookimpl(hookwrapper=True)
        def pytest_load_initial_conftests(self, early_config):
            # Collecting is not measured, and the last measurements stay.
            if getattr(early_config.known_args_namespace, "cov_source", None):
                early_config.known_args_namespace.no_cov = True
            yield

    collector = Plugin()
    code = start(pytest, arguments, collector)
    config = collector.config
    option = getattr(config, "option", None)
    seed = getattr(option, "randomly_seed", None)
    result = {
        "code": code,
        "items": collector.items,
        "fingerprints": fingerprints(collector.items),
        "unfit": collector.unfit,
        "functions_left_out": collector.functions_left_out,
        "environment": environment(),
        "pytest": pytest.__version__,
        "root": str(getattr(config, "rootpath", None) or getattr(config, "rootdir", os.getcwd())),
        "distributes": bool(getattr(option, "numprocesses", None) or getattr(option, "tx", None)),
        "covers": bool(getattr(option, "cov_source", None)),
        "chooses_by_results": any(getattr(option, name, False) for name in BY_RESULTS),
        "seed": str(seed) if isinstance(seed, int) else None,
    }
    with open(output, "w") as file:
        json.dump(result, file)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that a test module started do not hold this up.
    os._exit(code)


main()
