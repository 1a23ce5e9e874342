/// The metadata of a Cargo project without a file, and what `cargo maelstrom --init` writes. It
/// builds on the container `cargo-test`, which the runner predefines.
pub const CARGO_DEFAULT: &str = include_str!("cargo-maelstrom.toml");

/// The metadata of a Go module without a file, and what `maelstrom-go-test --init` writes.
pub const GO_DEFAULT: &str = include_str!("maelstrom-go-test.toml");

/// The metadata of a pytest project without a file, and what `maelstrom-pytest --init` writes.
pub const PYTEST_DEFAULT: &str = include_str!("maelstrom-pytest.toml");
