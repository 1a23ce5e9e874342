//! Pairs of tests that want the same thing. Each passes in a container of its own; under `cargo test`
//! they share one process, one file system and one network, and some of them fail.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Both of a pair hold on to what they took for so long, so that they would meet.
fn linger() {
    std::thread::sleep(std::time::Duration::from_millis(200));
}

#[test]
fn one_takes_the_port() {
    let _listener = TcpListener::bind("127.0.0.1:8080").expect("the port is free");
    linger();
}

#[test]
fn another_takes_the_same_port() {
    let _listener = TcpListener::bind("127.0.0.1:8080").expect("the port is free");
    linger();
}

#[test]
fn one_writes_a_file() {
    let path = Path::new("/tmp/hello-from-a-test");
    assert!(!path.exists());
    fs::write(path, "hello").unwrap();
    linger();
    fs::remove_file(path).unwrap();
}

#[test]
fn another_writes_the_same_file() {
    let path = Path::new("/tmp/hello-from-a-test");
    assert!(!path.exists());
    fs::write(path, "hello").unwrap();
    linger();
    fs::remove_file(path).unwrap();
}

#[test]
fn one_leaves_a_file_in_the_project() {
    fs::write("left-behind.txt", "oops").unwrap();
    linger();
}

#[test]
fn another_finds_the_project_clean() {
    linger();
    assert!(!Path::new("left-behind.txt").exists());
}

#[test]
fn sees_few_processes() {
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse::<u32>()
                .is_ok()
        })
        .count();
    assert!(processes < 5, "{processes} processes in sight");
}

#[test]
fn starts_the_program() {
    let output = Command::new(env!("CARGO_BIN_EXE_hello"))
        .arg("container")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"Hello, container!\n");
}
