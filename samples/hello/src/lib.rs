//! A greeting, and tests that would trip over one another if they shared a machine.

/// Greets someone.
pub fn greet(name: &str) -> String {
    format!("Hello, {name}!")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets() {
        assert_eq!(greet("mesh"), "Hello, mesh!");
    }
}
