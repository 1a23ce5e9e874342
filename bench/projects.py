"""Makes what the benchmarks run: crates of many trivial tests, a static program, copies of a published crate."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

MANIFEST = """\
[package]
name = "{name}"
version = "0.0.0"
edition = "2021"

[workspace]
"""

# Prints when it began, and fails, so that every runner shows it; the name sorts first, and runners that
# start with what failed last time start with it too.
FIRST_TEST = """\
    #[test]
    fn a_first() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        panic!("first test began at {} ns", now.as_nanos());
    }
"""

# Ends with code 0 and does nothing else: no C library, no Rust runtime.
STATIC_PROGRAM = """\
#![no_std]
#![no_main]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    unsafe { core::arch::asm!("syscall", in("rax") 60, in("rdi") 0, options(noreturn)) }
    #[cfg(target_arch = "aarch64")]
    unsafe { core::arch::asm!("svc 0", in("x8") 93, in("x0") 0, options(noreturn)) }
}
"""


def trivial_crate(directory: Path, tests: int, with_first: bool = False) -> Path:
    """A crate with so many tests that do nothing."""
    name = directory.name.replace("-", "_")
    text = "".join(f"    #[test]\n    fn t{number:05}() {{}}\n" for number in range(tests - with_first))
    source = "#[cfg(test)]\nmod tests {\n" + (FIRST_TEST if with_first else "") + text + "}\n"
    (directory / "src").mkdir(parents=True, exist_ok=True)
    _write_if_changed(directory / "Cargo.toml", MANIFEST.format(name=name))
    _write_if_changed(directory / "src/lib.rs", source)
    return directory


def published_crate(work: Path, name: str, copy: str) -> Path:
    """A copy of the latest published version of a crate."""
    fetch = [sys.executable, str(HERE.parent / "tests/compare/crates.py"), "fetch", "--work", str(work / "crates"), name]
    source = Path(subprocess.run(fetch, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
    directory = work / f"{source.name}-{copy}"
    if not directory.exists():
        shutil.copytree(source, directory, symlinks=True, ignore=shutil.ignore_patterns("target"))
    return directory


def static_program(work: Path) -> Path:
    """A static program that exits at once."""
    if platform.machine() not in ("x86_64", "aarch64"):
        raise RuntimeError(f"no static program for {platform.machine()}: add its exit system call to STATIC_PROGRAM")
    source, program = work / "exit.rs", work / "exit"
    _write_if_changed(source, STATIC_PROGRAM)
    link = ["-nostartfiles", "-nostdlib", "-static"]
    subprocess.run(
        ["rustc", "--edition=2024", "-Cpanic=abort", "-Copt-level=2", "-Crelocation-model=static", "-Cstrip=symbols"]
        + [f"-Clink-arg={argument}" for argument in link]
        + ["-o", str(program), str(source)],
        check=True,
        cwd=work,
    )
    return program


def static_jobs(work: Path, jobs: int) -> Path:
    """The input of maelstrom-run for so many runs of the static program."""
    path = work / f"jobs-{jobs}.json"
    container = '{"containers": {"bare": {"layers": [{"paths": ["exit"]}]}}}\n'
    _write_if_changed(path, container + '{"parent": "bare", "program": "/exit"}\n' * jobs)
    return path


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
