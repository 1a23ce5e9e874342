//! What a job can see of itself, and what it can leave behind.

use std::{
    fs,
    io::Write,
    os::{
        fd::IntoRawFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    ptr::null_mut,
    sync::atomic::{AtomicUsize, Ordering},
};

const PAGE_BYTES: usize = 4096;
const PAGES: usize = 64;

/// Memory that is there, and has contents, before the first job.
static PREPARED: AtomicUsize = AtomicUsize::new(0);

/// Makes memory for jobs to change.
pub(crate) fn prepare() {
    let memory = map(PAGES);
    for page in 0..PAGES {
        // SAFETY: within what has just been mapped.
        unsafe { *memory.add(page * PAGE_BYTES) = page as u8 + 1 };
    }
    PREPARED.store(memory as usize, Ordering::Relaxed);
}

fn map(pages: usize) -> *mut u8 {
    // SAFETY: fresh memory.
    let memory = unsafe {
        libc::mmap(
            null_mut(),
            pages * PAGE_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(memory, libc::MAP_FAILED);
    memory.cast()
}

/// When this process was started, and its number.
pub(crate) fn birth() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    rest.split_whitespace().nth(19).unwrap().to_owned()
}

/// Everything that should be the same in every fork.
pub(crate) fn state() -> String {
    let mut text = String::new();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let fields = [
        "Name:",
        "Umask:",
        "State:",
        "Pid:",
        "PPid:",
        "TracerPid:",
        "Uid:",
        "Groups:",
        "Threads:",
        "SigQ:",
        "SigPnd:",
        "SigBlk:",
        "SigIgn:",
        "SigCgt:",
        "Cap",
        "NoNewPrivs:",
        "Seccomp:",
        "CoreDumping:",
        "Cpus_allowed:",
        "NSsid:",
        "NSpgid:",
    ];
    for line in status.lines() {
        if fields.iter().any(|field| line.starts_with(field)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    for file in ["limits", "cgroup", "oom_score_adj", "timerslack_ns"] {
        let path = format!("/proc/self/{file}");
        text.push_str(&fs::read_to_string(path).unwrap_or_default());
    }
    let mut descriptors: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    descriptors.sort();
    for number in descriptors {
        let what = fs::read_link(format!("/proc/self/fd/{number}"));
        let what = what.map(|what| what.to_string_lossy().into_owned());
        let what = what.unwrap_or_default();
        // Each container's pipes have numbers of their own.
        let kind = what.split(':').next().unwrap_or_default();
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        let about = about.unwrap_or_default();
        let flags: Vec<_> = about.lines().take(2).collect();
        text.push_str(&format!("{number} {kind} {flags:?}\n"));
    }
    for directory in ["/", "/tmp", "/dev/shm", "/proc/sysvipc"] {
        let names = fs::read_dir(directory).map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            let mut names: Vec<_> = names.filter(|name| name.to_str().is_some()).collect();
            names.sort();
            names
        });
        let names = names.map(|names| {
            names
                .into_iter()
                .filter(|name| directory != "/" || name != "probe")
        });
        let names: Vec<_> = names.into_iter().flatten().collect();
        text.push_str(&format!("{directory}: {names:?}\n"));
    }
    // SAFETY: asks the kernel about a file system.
    unsafe {
        let mut tmp: libc::statvfs = std::mem::zeroed();
        libc::statvfs(c"/tmp".as_ptr(), &raw mut tmp);
        text.push_str(&format!(
            "/tmp: {} files and {} blocks free",
            tmp.f_ffree, tmp.f_bfree
        ));
    }
    let modes = ["/tmp", "/file"].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.mode(), metadata.nlink(), metadata.len()))
    });
    text.push_str(&format!(" {modes:?}\n"));
    for file in ["shm", "msg", "sem"] {
        let table = fs::read_to_string(format!("/proc/sysvipc/{file}")).unwrap_or_default();
        text.push_str(&format!("{} of {file}\n", table.lines().count()));
    }
    let mut variables: Vec<_> = std::env::vars().collect();
    variables.sort();
    text.push_str(&format!("{variables:?}\n{:?}\n", std::env::current_dir()));
    // SAFETY: asks the kernel about this process.
    unsafe {
        let mut timer: libc::itimerval = std::mem::zeroed();
        libc::getitimer(libc::ITIMER_REAL, &raw mut timer);
        text.push_str(&format!(
            "timer {} {} nice {} dumpable {} persona {}\n",
            timer.it_value.tv_sec,
            timer.it_value.tv_usec,
            libc::getpriority(libc::PRIO_PROCESS, 0),
            libc::prctl(libc::PR_GET_DUMPABLE),
            fs::read_to_string("/proc/self/personality").unwrap_or_default(),
        ));
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let prepared = PREPARED.load(Ordering::Relaxed);
    let mapping = maps.lines().find(|line| {
        let range = line.split(' ').next().unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&prepared)
    });
    match mapping {
        Some(mapping) if mapping.contains(" rw-p ") => {
            // SAFETY: it is mapped, as has just been looked up.
            let bytes =
                unsafe { std::slice::from_raw_parts(prepared as *const u8, PAGES * PAGE_BYTES) };
            let sum = |sum: u64, &byte: &u8| sum.wrapping_mul(31).wrapping_add(byte.into());
            text.push_str(&format!("memory {}\n", bytes.iter().fold(0, sum)));
        }
        other => text.push_str(&format!("memory is {other:?}\n")),
    }
    text
}

/// Writes to new memory and to all of what was prepared.
pub(crate) fn scribble(mebibytes: usize) {
    let memory = map(mebibytes << 8);
    for page in 0..mebibytes << 8 {
        // SAFETY: within what has just been mapped.
        unsafe { *memory.add(page * PAGE_BYTES) = 1 };
    }
    scribble_on_prepared();
    let many: Vec<Vec<u8>> = (0..mebibytes * 64).map(|_| vec![7; 16 << 10]).collect();
    std::mem::forget(many);
}

fn scribble_on_prepared() {
    let memory = PREPARED.load(Ordering::Relaxed) as *mut u8;
    for byte in 0..PAGES * PAGE_BYTES {
        // SAFETY: within what was mapped.
        unsafe { *memory.add(byte) = 0xaa };
    }
}

/// What only root may do succeeds for root.
fn as_root(result: std::io::Result<()>) {
    // SAFETY: asks the kernel who this process is.
    if unsafe { libc::getuid() } == 0 {
        result.unwrap();
    }
}

/// Does to files whatever can be done to them.
fn leave_files() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    fs::create_dir_all("/tmp/a/b/c").unwrap();
    fs::write("/tmp/a/b/file", "left").unwrap();
    fs::hard_link("/tmp/a/b/file", "/tmp/a/link").unwrap();
    symlink("b/file", "/tmp/a/symbolic").unwrap();
    fs::write("/tmp/a/symbolic", "left behind").unwrap();
    fs::rename("/tmp/a/link", "/tmp/moved").unwrap();
    as_root(fs::set_permissions(
        "/tmp",
        fs::Permissions::from_mode(0o700),
    ));
    fs::set_permissions("/tmp/moved", fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open("/tmp/a/b/file");
    file.unwrap().set_len(100_000).unwrap();
    fs::remove_dir("/tmp/a/b/c").unwrap();
    std::env::set_current_dir("/tmp/a").unwrap();
    fs::write("b/relative", "left").unwrap();
    std::env::set_current_dir("/").unwrap();
}

/// Changes something of this process or its container.
#[allow(clippy::too_many_lines)]
pub(crate) fn leave(what: &str) {
    let prepared = PREPARED.load(Ordering::Relaxed) as *mut libc::c_void;
    let half = PAGES / 2 * PAGE_BYTES;
    // SAFETY: nothing here uses what it takes away, and the process ends soon.
    unsafe {
        match what {
            "nothing" => {}
            "a changed variable" => PREPARED.store(1, Ordering::Relaxed),
            "memory" => scribble_on_prepared(),
            "large memory" => scribble(8),
            "a changed environment" => std::env::set_var("LEFT", "left"),
            "a file that is open" => drop(fs::File::open("/file").unwrap().into_raw_fd()),
            "a file without a name" => {
                let file = libc::open(c"/tmp".as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600);
                assert!(file >= 0);
                libc::write(file, c"left".as_ptr().cast(), 4);
            }
            "a pipe" => {
                let mut ends = [0; 2];
                assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
                libc::write(ends[1], c"left".as_ptr().cast(), 4);
            }
            "a pair of sockets" => {
                let (mut one, other) = UnixStream::pair().unwrap();
                one.write_all(b"left").unwrap();
                one.set_nonblocking(true).unwrap();
                std::mem::forget((one, other));
            }
            "an event loop" => assert!(libc::epoll_create1(0) >= 0 && libc::eventfd(1, 0) >= 0),
            "another standard stream" => {
                println!("out");
                let saved = libc::dup(1);
                libc::dup2(libc::memfd_create(c"out".as_ptr(), 0), 1);
                println!("elsewhere");
                libc::dup2(saved, 1);
            }
            "no standard input" => {
                let saved = libc::dup(0);
                libc::close(0);
                libc::dup2(saved, 0);
            }
            "blocked signals" => {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut());
            }

            "a file" => fs::write("/tmp/left", "left").unwrap(),
            "a directory" => fs::create_dir("/tmp/left").unwrap(),
            "many files" => leave_files(),
            "a file that is mapped" => {
                fs::write("/tmp/left", [1; PAGE_BYTES]).unwrap();
                let file = fs::File::options().read(true).write(true).open("/tmp/left");
                let file = file.unwrap().into_raw_fd();
                let rights = libc::PROT_READ | libc::PROT_WRITE;
                let shared = libc::MAP_SHARED;
                let memory = libc::mmap(null_mut(), PAGE_BYTES, rights, shared, file, 0);
                assert_ne!(memory, libc::MAP_FAILED);
                *memory.cast::<u8>() = 2;
                libc::close(file);
            }
            "a file that is locked" => {
                let file = fs::File::create("/tmp/left").unwrap().into_raw_fd();
                assert_eq!(libc::flock(file, libc::LOCK_EX), 0);
            }
            "a socket that has no name" => {
                let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
                assert!(socket.connect("/tmp/nobody").is_err());
                std::mem::forget(socket);
            }
            "a file in the root" => as_root(fs::write("/left", "left")),
            "a changed file of a layer" => {
                let file = fs::File::options().append(true).open("/file");
                as_root(file.and_then(|mut file| file.write_all(b"left")));
            }
            "no file of a layer" => as_root(fs::remove_file("/file")),
            "a setting" => fs::write("/proc/self/oom_score_adj", "500").unwrap(),
            "a setting by a link to it" => {
                std::os::unix::fs::symlink("/proc/self", "/tmp/left").unwrap();
                std::env::set_current_dir("/tmp").unwrap();
                fs::write("left/oom_score_adj", "500").unwrap();
                std::env::set_current_dir("/").unwrap();
            }
            "a setting by the number of a descriptor" => {
                let file = fs::File::open("/proc/self/oom_score_adj")
                    .unwrap()
                    .into_raw_fd();
                fs::write(format!("/proc/self/fd/{file}"), "500").unwrap();
            }
            "a socket that has a name" => {
                std::mem::forget(std::os::unix::net::UnixListener::bind("/tmp/left").unwrap());
            }
            "another directory in memory" => {
                fs::create_dir("/tmp/left").unwrap();
                std::env::set_current_dir("/tmp/left").unwrap();
            }
            "another directory" => std::env::set_current_dir("/tmp").unwrap(),
            "a mask for files" => drop(libc::umask(0)),
            "a limit" => {
                let limit = libc::rlimit {
                    rlim_cur: 10,
                    rlim_max: 20,
                };
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
            "a signal handler" => {
                libc::signal(libc::SIGUSR1, libc::_exit as *const () as usize);
            }
            "an ignored signal" => {
                libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            }
            "a timer" => drop(libc::alarm(600)),
            "a thread" => drop(std::thread::spawn(std::thread::park)),
            "a process" => {
                if libc::fork() == 0 {
                    libc::pause();
                }
            }
            "another name" => drop(libc::prctl(libc::PR_SET_NAME, c"left".as_ptr())),
            "a lower priority" => drop(libc::nice(5)),
            "one processor" => {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
                let last = (0..libc::CPU_SETSIZE as usize).rfind(|&cpu| libc::CPU_ISSET(cpu, &set));
                libc::CPU_CLR(last.unwrap(), &mut set);
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
            }
            "a socket" => drop(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)),
            "other flags of a stream" => {
                libc::fcntl(1, libc::F_SETFL, libc::O_NONBLOCK | libc::O_APPEND);
                libc::fcntl(2, libc::F_SETFD, libc::FD_CLOEXEC);
            }
            "memory that was there made read-only" => {
                libc::mprotect(prepared, half, libc::PROT_READ);
            }
            "memory that was there dropped" => {
                libc::madvise(prepared, half, libc::MADV_DONTNEED);
            }
            "memory that was there replaced" => {
                libc::munmap(prepared, half);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let rights = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(prepared, half, rights, flags, -1, 0);
            }
            "memory that was there moved" => {
                libc::mremap(
                    prepared,
                    half,
                    half,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    map(PAGES),
                );
            }
            "shared memory" => {
                libc::shmget(42, 4096, libc::IPC_CREAT | 0o600);
            }
            "a message queue" => {
                libc::msgget(42, libc::IPC_CREAT | 0o600);
            }
            "a session" => drop(libc::setsid()),
            "no core dumps" => drop(libc::prctl(libc::PR_SET_DUMPABLE, 0)),
            other => panic!("unknown trace {other:?}"),
        }
    }
}
