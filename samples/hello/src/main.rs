//! Prints a greeting.

fn main() {
    println!(
        "{}",
        hello::greet(&std::env::args().nth(1).unwrap_or("world".into()))
    );
}
