//! What is done inside of containers.

use crate::traces;
use std::{
    ffi::CString,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt},
            net,
        },
    },
    path::Path,
    process::Command,
    thread,
    time::{Duration, SystemTime},
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

/// From here on, says so when it is asked for its last words.
fn answer(and_end: bool) {
    extern "C" fn stay(_: libc::c_int) {
        // SAFETY: writes a constant.
        unsafe { libc::write(1, b"asked\n".as_ptr().cast(), 6) };
    }
    extern "C" fn end(signal: libc::c_int) {
        stay(signal);
        // SAFETY: ends the process, whatever it is doing.
        unsafe { libc::_exit(0) };
    }
    let handler = if and_end { end } else { stay };
    // SAFETY: the handlers do only what handlers may.
    unsafe { libc::signal(libc::SIGABRT, handler as *const () as libc::sighandler_t) };
}

/// Does what the arguments say. Returns an exit code.
#[allow(clippy::too_many_lines)]
pub(crate) fn run(arguments: &[String]) -> i32 {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["ok"] => {}
        ["birth"] => println!("{}", traces::birth()),
        ["state"] => print!("{}", traces::state()),
        ["leave", what] => traces::leave(what),
        ["scribble", mebibytes] => traces::scribble(mebibytes.parse().unwrap()),
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
        ["answer", then] => {
            answer(*then == "end");
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
        ["everything"] => everything(std::path::Path::new("/")),
        ["when-made", path] => {
            let about = fs::metadata(path).unwrap();
            println!("{}.{}", about.ctime(), about.ctime_nsec());
        }
        ["spoil", way, rest @ ..] => {
            spoil(way);
            println!("spoiled");
            if !rest.is_empty() {
                thread::sleep(Duration::from_secs(600));
            }
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

/// Prints all that can be seen of the files of a container, but for what is never the same.
fn everything(path: &Path) {
    if path.starts_with("/proc") {
        return;
    }
    let about = fs::symlink_metadata(path).unwrap();
    let is_memory = ["/", "/tmp", "/dev/shm"].map(Path::new).contains(&path);
    let now = SystemTime::now();
    let age = |time: std::io::Result<SystemTime>| {
        let age = now.duration_since(time.unwrap()).unwrap_or_default();
        // What was touched by the job before this one is younger.
        age >= Duration::from_millis(700)
    };
    // The times of layers never change.
    let modified = match is_memory {
        true => age(about.modified()).to_string(),
        false => format!("{}.{}", about.mtime(), about.mtime_nsec()),
    };
    println!(
        "{} {:o} {}:{} {} {} {} {} {:?}",
        path.display(),
        about.mode(),
        about.uid(),
        about.gid(),
        about.nlink(),
        about.size(),
        modified,
        // Layers have no times of access that are a job's own.
        !is_memory || age(about.accessed()),
        attributes(path),
    );
    if about.is_file() && about.len() < 1000 {
        println!("{:?}", fs::read(path).unwrap_or_default());
    }
    if about.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for entry in entries {
            everything(&entry);
        }
    }
}

fn attributes(path: &Path) -> Vec<String> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = [0_u8; 1024];
    // SAFETY: the path and the buffer live through the call.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let names = &names[..usize::try_from(length).unwrap_or(0)];
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// Leaves something behind. What this user or kernel does not allow needs no protection from.
fn spoil(way: &str) {
    let attribute = |path: &str| {
        let path = CString::new(path).unwrap();
        // SAFETY: the strings live through the call.
        unsafe {
            libc::setxattr(
                path.as_ptr(),
                c"user.left".as_ptr(),
                c"x".as_ptr().cast(),
                1,
                0,
            )
        };
    };
    let mode = |path: &str, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    match way {
        "a file in the root" => fs::write("/left", "left").unwrap(),
        "a file that was in the root" => {
            fs::write("/left", "left").unwrap();
            fs::remove_file("/left").unwrap();
        }
        "a change of a file" => fs::write("/file", "changed").unwrap(),
        "a change of a file's mode" => mode("/file", 0o777),
        "no file" => fs::remove_file("/file").unwrap(),
        "another name" => fs::rename("/file", "/mnt/file").unwrap(),
        "a directory that was there" => {
            fs::create_dir("/mnt/left").unwrap();
            fs::remove_dir("/mnt/left").unwrap();
        }
        "the root's mode" => mode("/", 0o777),
        "the root's owner" => {
            // Only to what is mapped, which changes its times.
            let _ = std::os::unix::fs::chown("/", Some(0), Some(0));
        }
        "the root's times" => {
            let root = fs::File::open("/").unwrap();
            root.set_modified(SystemTime::now()).unwrap();
        }
        "an attribute of the root" => attribute("/"),
        "a look at the root" => drop(list("/")),
        "a file in /tmp" => fs::write("/tmp/left", "left").unwrap(),
        "a file that was in /tmp" => {
            fs::write("/tmp/left", "left").unwrap();
            fs::remove_file("/tmp/left").unwrap();
        }
        "the mode of /tmp" => {
            // Only its owner may.
            let _ = fs::set_permissions("/tmp", fs::Permissions::from_mode(0o700));
        }
        "an attribute of /tmp" => attribute("/tmp"),
        "shared memory" => fs::write("/dev/shm/left", "left").unwrap(),
        "a socket" => drop(net::UnixListener::bind("/tmp/socket").unwrap()),
        "a file that is held without a name" => {
            let held = fs::File::create("/tmp/held").unwrap();
            fs::remove_file("/tmp/held").unwrap();
            let held = Box::leak(Box::new(held));
            held.write_all(&[1; 100_000]).unwrap();
        }
        other => panic!("unknown way {other:?}"),
    }
}
