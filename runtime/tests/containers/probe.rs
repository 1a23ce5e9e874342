//! What is done inside of containers.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{linux::net::SocketAddrExt, unix::net},
    process::Command,
    thread,
    time::Duration,
};

fn last_error() -> String {
    std::io::Error::last_os_error().to_string()
}

fn list(path: &str) -> String {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.join(" ")
}

/// Does what the arguments say. Returns an exit code.
#[allow(clippy::too_many_lines)]
pub(crate) fn run(arguments: &[String]) -> i32 {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["ok"] => {}
        ["exit", code] => return code.parse().unwrap(),
        ["signal", number] => {
            // SAFETY: sends a signal to this very process.
            unsafe { libc::kill(libc::getpid(), number.parse().unwrap()) };
            thread::sleep(Duration::from_secs(60));
        }
        ["fault"] => {
            // SAFETY: the fault is the point.
            unsafe { libc::memset(std::ptr::without_provenance_mut(8), 1, 1) };
        }
        ["abort"] => std::process::abort(),
        ["sleep"] => {
            println!("sleeping");
            thread::sleep(Duration::from_secs(600));
        }
        ["print", bytes] => {
            let mut left: usize = bytes.parse().unwrap();
            while left > 0 {
                let part = left.min(1 << 16);
                std::io::stdout().write_all(&vec![b'x'; part]).unwrap();
                left -= part;
            }
        }
        ["print-forever"] => loop {
            if std::io::stdout().write_all(&[b'x'; 4096]).is_err() {
                return 1;
            }
        },
        ["both"] => {
            println!("to stdout");
            eprintln!("to stderr");
        }
        ["list", path] => println!("{}", list(path)),
        ["read", path] => print!("{}", fs::read_to_string(path).unwrap()),
        ["exists", path] => println!("{}", fs::symlink_metadata(path).is_ok()),
        ["write", path] => match fs::write(path, "written") {
            Ok(()) => println!("written"),
            Err(error) => println!("{:?}", error.raw_os_error()),
        },
        ["ids"] => {
            // SAFETY: plain system calls.
            unsafe {
                println!(
                    "{} {} {} {}",
                    libc::getuid(),
                    libc::getgid(),
                    libc::getpid(),
                    libc::getsid(0) == libc::getpid() && libc::getpgrp() == libc::getpid()
                );
            }
        }
        // What a program that is no group leader may do, and what it reaches by its group.
        ["own-session"] => {
            // SAFETY: plain system calls.
            unsafe {
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
                libc::kill(0, libc::SIGTERM);
                println!("{}", libc::setsid() == libc::getpid());
            }
        }
        ["environment"] => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
        }
        ["stdin"] => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).unwrap();
            println!("{}", text.len());
        }
        ["where"] => println!("{}", std::env::current_dir().unwrap().display()),
        ["connect-abstract", name] => {
            let address = net::SocketAddr::from_abstract_name(name).unwrap();
            println!("{}", net::UnixStream::connect_addr(&address).is_ok());
        }
        ["connect", port] => {
            let port: u16 = port.parse().unwrap();
            println!("{}", TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        // Leaves a connection in TIME-WAIT on the port.
        ["listen", port] => {
            let port: u16 = port.parse().unwrap();
            // SAFETY: a socket of our own without SO_REUSEADDR, which `TcpListener` would set.
            unsafe {
                let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                let mut address: libc::sockaddr_in = std::mem::zeroed();
                address.sin_family = libc::AF_INET as u16;
                address.sin_port = port.to_be();
                if libc::bind(socket, (&raw const address).cast(), 16) < 0 {
                    println!("{}", last_error());
                    return 1;
                }
                libc::listen(socket, 1);
                let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let server = libc::accept(socket, std::ptr::null_mut(), std::ptr::null_mut());
                libc::close(server);
                drop(client);
            }
            println!("listened");
        }
        ["hold-port", port] => {
            let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap()));
            println!("{}", listener.is_ok());
        }
        // A process that outlives this one and keeps its standard streams open.
        ["leave-behind"] => {
            // That it is never waited for is the point.
            let left = Command::new("/probe")
                .args(["probe", "sleep"])
                .spawn()
                .unwrap();
            std::mem::forget(left);
            println!("left");
        }
        ["fork-bomb"] => loop {
            // SAFETY: that is the point of a fork bomb.
            unsafe { libc::fork() };
        },
        ["crowd", limit] => {
            let mut made = 0;
            for _ in 0..limit.parse().unwrap() {
                // SAFETY: the child only waits to be killed.
                match unsafe { libc::fork() } {
                    0 => loop {
                        // SAFETY: a plain system call.
                        unsafe { libc::pause() };
                    },
                    -1 => break,
                    _ => made += 1,
                }
            }
            println!("{made}");
        }
        ["become-root-of", path] => become_root_of(path),
        ["nested"] => {
            // SAFETY: this program has one thread here.
            let result = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) };
            println!(
                "{}",
                if result == 0 {
                    "nested".to_owned()
                } else {
                    last_error()
                }
            );
        }
        ["keyctl"] => {
            // SAFETY: asks for the session key ring, which changes nothing.
            let result = unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) };
            println!(
                "{}",
                if result < 0 {
                    last_error()
                } else {
                    "allowed".to_owned()
                }
            );
        }
        ["status", field] => {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            println!("{}", line.split_once(':').unwrap().1.trim());
        }
        ["terminal"] => {
            for stream in 0..3 {
                // SAFETY: asks about a standard stream.
                print!("{} ", unsafe { libc::isatty(stream) });
            }
            // SAFETY: asks for the foreground group of the controlling terminal.
            println!("{}", unsafe { libc::tcgetpgrp(0) == libc::getpid() });
        }
        ["run", program] => println!(
            "{}",
            Command::new(program)
                .output()
                .map_or_else(|e| e.to_string(), |_| "ran".to_owned())
        ),
        ["make-outputs"] => {
            fs::create_dir_all("/tmp/out/deep").unwrap();
            fs::write("/tmp/out/a.txt", "a").unwrap();
            fs::write("/tmp/out/deep/b.txt", "b").unwrap();
            fs::write("/tmp/out/c.bin", "c").unwrap();
            std::os::unix::fs::symlink("/file", "/tmp/out/link.txt").unwrap();
        }
        other => panic!("unknown probe {other:?}"),
    }
    0
}

/// Tries, as user 0 of the container, everything that would lead out of it.
fn become_root_of(path: &str) {
    let try_write = |how: &str| {
        if fs::write(path, "changed").is_ok() {
            println!("escaped by {how}");
        }
    };
    let c = |text: &str| std::ffi::CString::new(text).unwrap();
    try_write("writing");
    // SAFETY: plain system calls on strings that live through them.
    unsafe {
        let flags = libc::MS_REMOUNT | libc::MS_BIND;
        libc::mount(
            c("none").as_ptr(),
            c("/").as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        );
        try_write("remounting the mount");
        libc::mount(
            c("none").as_ptr(),
            c("/").as_ptr(),
            std::ptr::null(),
            libc::MS_REMOUNT,
            std::ptr::null(),
        );
        try_write("remounting the file system");
        libc::umount2(c("/").as_ptr(), libc::MNT_DETACH);
        try_write("unmounting the root");
        // The classic way out of a chroot.
        if libc::mkdir(c("/tmp/x").as_ptr(), 0o755) == 0 {
            libc::chroot(c("/tmp/x").as_ptr());
            for _ in 0..64 {
                libc::chdir(c("..").as_ptr());
            }
            libc::chroot(c(".").as_ptr());
            println!("root after chroot: {}", list("/"));
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Ok(pid) = name.to_string_lossy().parse::<u32>() else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        println!("sees process {pid}");
        if let Ok(root) = fs::read_dir(entry.path().join("root")) {
            let mut names: Vec<_> = root
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            println!("its root: {}", names.join(" "));
        }
        // SAFETY: attaching would be an escape; it changes nothing here.
        if unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) } == 0 {
            println!("escaped by ptrace");
        }
        if fs::read(entry.path().join("environ")).is_ok() {
            println!("reads its environment");
        }
    }
}
