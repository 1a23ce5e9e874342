# `just` lists the recipes, `just NAME` runs one.

_default:
    @just --list

# Everything that must pass
test:
    cargo test --workspace

# Formatting, lints, licences (cargo-deny is optional: `cargo install --locked cargo-deny`)
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    @if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; else echo "cargo-deny is not installed; licences not checked"; fi

# What continuous integration does
ci:
    bash .ci/run

# Run the simulator: 10,000 seeds of faults (half an hour), or `just sim --help`, `just sim faults --seed 13`
sim *ARGS="faults --seeds 10000 --threads 2":
    cargo run --release -q -p simnet -- {{ ARGS }}

# Real nodes on hosts of their own, in network namespaces: a shell on the first of them
lab *ARGS="--nodes 5":
    cargo build -q -p simnet -p maelstrom-run -p cargo-maelstrom -p maelstrom-daemon
    cargo run -q -p simnet --bin lab -- {{ ARGS }}

# Meshes of real nodes with random faults: each job reported once, nothing left behind
soak *ARGS="--runs 200":
    cargo build --release -q -p simnet -p maelstrom-run -p maelstrom-daemon
    target/release/lab soak {{ ARGS }}

# Links cut for 10 and 60 seconds, one way and both, and hosts paused for 9 and 60 (a quarter of an hour)
long-faults *ARGS="--nocapture":
    cargo test -p maelstrom-lab --test mesh -- --ignored {{ ARGS }}

# Measure a mesh of real nodes: sleeping jobs, empty jobs, a layer
bench-mesh:
    cargo build --release -q -p simnet -p maelstrom-run -p maelstrom-daemon
    target/release/lab bench sleep
    target/release/lab bench empty
    target/release/lab bench layer

# Compare with cargo-nextest and Maelstrom 0.14: `just bench`, `just bench --rounds 3 trivial`
bench *ARGS:
    cargo build --release -p cargo-maelstrom -p maelstrom-run
    python3 bench/bench.py {{ ARGS }}

# The cost of one container against plain spawn, bubblewrap and crun
bench-runtime *ARGS:
    cargo bench -p maelstrom-runtime {{ ARGS }}

# Compare verdicts with cargo test, name by name: `just compare`, `just compare semver url`
compare *ARGS:
    cargo build --release -p cargo-maelstrom
    python3 tests/compare/crates.py compare {{ ARGS }}

# The same by `cargo maelstrom --mesh` over five hosts of the lab, each of which must run some tests
compare-mesh *ARGS="itertools --trivial 1000":
    cargo build --release -p cargo-maelstrom -p maelstrom-daemon -p simnet
    python3 tests/compare/crates.py compare --lab 5 {{ ARGS }}

# Compare verdicts with pytest on projects from PyPI, node id by node id: `just compare-pytest`, `just compare-pytest jinja2`
compare-pytest *ARGS:
    cargo build --release -p maelstrom-pytest
    python3 tests/compare/sdists.py {{ ARGS }}

# Wall time beside pytest and pytest-xdist: `just bench-pytest`, `just bench-pytest --all click`
bench-pytest *ARGS:
    cargo build --release -p maelstrom-pytest
    python3 bench/pytest.py {{ ARGS }}

# The property tests of every parser, decoder and core, with many more cases: `just fuzz`, `just fuzz 5000 parses`
fuzz CASES="100000" FILTER="":
    PROPTEST_CASES={{ CASES }} cargo test --release --tests -p maelstrom-spec -p maelstrom-pull -p maelstrom-gossip -p maelstrom-dispatch -- {{ FILTER }}
    PROPTEST_CASES={{ CASES }} cargo test --release --lib -p maelstrom-content -p maelstrom-runner -p maelstrom-runtime -- {{ FILTER }}

# The same for Go, against `go test` and Maelstrom 0.14's runner: `just bench-go`, `just bench-go --rounds 3 trivial`
bench-go *ARGS:
    cargo build --release -p maelstrom-go-test
    python3 bench/gobench.py {{ ARGS }}

# Compare verdicts and coverage with go test, test by test: `just compare-go`, `just compare-go --coverage github.com/go-chi/chi/v5`
compare-go *ARGS:
    cargo build --release -p maelstrom-go-test
    python3 tests/compare/go.py {{ ARGS }}
