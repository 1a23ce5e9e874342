//! What of the client's own machine a test sees in a project without configuration: a base set of
//! programs, and the few files below `/etc` and `/usr/share` that programs expect everywhere. All of
//! it is copied into layers; nothing is bound.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Programs that tests may start, as far as the client's machine has them: a shell, the core
/// utilities, what shell scripts are made of, and git, which tests of tools for developers start
/// more often than anything else.
const PROGRAMS: &str = "\
    sh bash dash env \
    [ arch b2sum base32 base64 basename basenc cat chgrp chmod chown cksum comm cp csplit cut date dd \
    df dir dircolors dirname du echo expand expr factor false fmt fold groups head hostid id install \
    join link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste \
    pathchk pr printenv printf ptx pwd readlink realpath rm rmdir seq sha1sum sha224sum sha256sum \
    sha384sum sha512sum shred shuf sleep sort split stat stdbuf stty sum sync tac tail tee test \
    timeout touch tr true truncate tsort tty uname unexpand uniq unlink uptime users vdir wc who \
    whoami yes \
    awk gawk mawk cmp diff egrep fgrep file find gzip grep gunzip hostname kill less more patch pgrep \
    ps sed setsid tar uudecode uuencode unxz unzip which xargs xz zcat zip \
    git";

/// Where base programs are looked for before the user's own path, whose shims and wrappers need
/// more than themselves.
const STANDARD_DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Files that are copied where they exist, links followed.
const FILES: [&str; 13] = [
    "/etc/alpine-release",
    "/etc/debian_version",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/protocols",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// Directories that exist everywhere, and their permission bits.
const DIRECTORIES: [(&str, u32); 22] = [
    ("/dev", 0o755),
    ("/dev/pts", 0o755),
    ("/dev/shm", 0o1777),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr/local/bin", 0o755),
    ("/usr/share", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
    ("/usr/bin", 0o755),
];

/// Devices that are mounted, and so need a file to be mounted on.
pub(super) const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/etc/mtab", "../proc/self/mounts"),
];

/// The name that every container gives itself.
const HOST_NAME: &str = "maelstrom";

/// Time zones: the database without its two duplicates.
const TIME_ZONES: &str = "/usr/share/zoneinfo";
const TIME_ZONE_DUPLICATES: [&str; 2] = ["posix", "right"];

/// The locale that needs no other: the C library has it as files.
const LOCALES: [&str; 2] = ["/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8"];

/// Something in the layer of system files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SystemEntry {
    /// An empty directory with permission bits.
    Directory(PathBuf, u32),
    /// A file with these contents.
    Bytes(PathBuf, String),
    /// A copy of the second file at the path of the first.
    Copy(PathBuf, PathBuf),
    /// A symbolic link and what it says.
    Symlink(PathBuf, PathBuf),
}

/// Who runs the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// The user's name, fit for `/etc/passwd`.
    pub user_name: String,
    /// Home directory, absolute.
    pub home: PathBuf,
}

impl Identity {
    /// The user of this process.
    pub fn of_process() -> Identity {
        let user = rustix::process::getuid().as_raw();
        let name = |variable| {
            std::env::var(variable)
                .ok()
                .filter(|name| is_plain_name(name))
        };
        let user_name = fs::read_to_string("/etc/passwd")
            .ok()
            .and_then(|passwd| name_of(&passwd, user))
            .or_else(|| name("USER"))
            .or_else(|| name("LOGNAME"))
            .unwrap_or_else(|| {
                if user == 0 {
                    "root".into()
                } else {
                    "user".into()
                }
            });
        let home = std::env::home_dir()
            .filter(|home| home.is_absolute() && home.parent().is_some())
            .unwrap_or_else(|| Path::new("/home").join(&user_name));
        Identity {
            user,
            group: rustix::process::getgid().as_raw(),
            user_name,
            home,
        }
    }

    fn home_mode(&self) -> u32 {
        if self.user == 0 { 0o700 } else { 0o755 }
    }
}

/// The absolute paths of the base programs that this machine has, found in the standard
/// directories, else in `path`.
pub(super) fn base_programs(path: Option<OsString>) -> Vec<String> {
    let path = path.unwrap_or_default();
    let directories: Vec<PathBuf> = STANDARD_DIRECTORIES
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .collect();
    PROGRAMS
        .split_whitespace()
        .filter_map(|name| {
            directories
                .iter()
                .map(|directory| directory.join(name))
                .find(|path| is_program(path))
        })
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect()
}

fn is_program(path: &Path) -> bool {
    path.is_absolute()
        && fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        && rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok()
}

/// The layer of system files, lowest directories first.
pub(super) fn system_entries(identity: &Identity) -> Vec<SystemEntry> {
    let mut entries = Vec::new();
    // Where the machine has its programs and libraries in `/usr`, so has the container.
    for name in ["bin", "lib", "lib32", "lib64", "sbin"] {
        let link = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&link) {
            entries.push(SystemEntry::Directory(Path::new("/").join(&target), 0o755));
            entries.push(SystemEntry::Symlink(link, target));
        }
    }
    entries.extend(DIRECTORIES.map(|(path, mode)| SystemEntry::Directory(path.into(), mode)));
    entries.push(SystemEntry::Directory(
        identity.home.clone(),
        identity.home_mode(),
    ));
    entries.extend(
        DEVICES.map(|name| SystemEntry::Bytes(Path::new("/dev").join(name), String::new())),
    );
    entries.extend(LINKS.map(|(link, target)| SystemEntry::Symlink(link.into(), target.into())));
    entries.extend(
        generated_files(identity).map(|(path, text)| SystemEntry::Bytes(path.into(), text)),
    );
    for path in FILES.map(Path::new) {
        if let Ok(source) = fs::canonicalize(path)
            && source.is_file()
            && fs::File::open(&source).is_ok()
        {
            entries.push(SystemEntry::Copy(path.to_owned(), source));
        }
    }
    if !Path::new("/etc/localtime").exists() {
        entries.push(SystemEntry::Symlink(
            "/etc/localtime".into(),
            "/usr/share/zoneinfo/UTC".into(),
        ));
    }
    copies(Path::new(TIME_ZONES), &TIME_ZONE_DUPLICATES, &mut entries);
    for locale in LOCALES {
        copies(Path::new(locale), &[], &mut entries);
    }
    entries
}

/// The directories of the system layer whose permission bits are not the usual ones.
pub(super) fn unusual_directories(identity: &Identity) -> Vec<(PathBuf, u32)> {
    let mut directories: Vec<(PathBuf, u32)> = DIRECTORIES
        .iter()
        .filter(|(_, mode)| *mode != 0o755)
        .map(|&(path, mode)| (path.into(), mode))
        .collect();
    directories.push((identity.home.clone(), identity.home_mode()));
    directories
}

fn generated_files(identity: &Identity) -> [(&'static str, String); 7] {
    let Identity {
        user,
        group,
        user_name,
        home,
    } = identity;
    let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
    let mut groups = String::from("root:x:0:\n");
    if *user != 0 {
        passwd.push_str(&format!(
            "{user_name}:x:{user}:{group}::{}:/bin/sh\n",
            home.display()
        ));
    }
    if *group != 0 {
        groups.push_str(&format!("{user_name}:x:{group}:\n"));
    }
    if *user != 65534 {
        passwd.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    }
    if *group != 65534 {
        groups.push_str("nogroup:x:65534:\n");
    }
    [
        ("/etc/passwd", passwd),
        ("/etc/group", groups),
        ("/etc/hosts", format!("127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost ip6-loopback\n")),
        ("/etc/hostname", format!("{HOST_NAME}\n")),
        ("/etc/host.conf", "multi on\n".into()),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n".into()),
        ("/etc/resolv.conf", String::new()),
    ]
}

/// Everything below a directory but some of its children, with links followed: databases of time
/// zones are mostly links between themselves.
fn copies(root: &Path, without: &[&str], entries: &mut Vec<SystemEntry>) {
    let mut directories = vec![root.to_owned()];
    let mut visited = BTreeSet::new();
    while let Some(directory) = directories.pop() {
        let Ok(canonical) = fs::canonicalize(&directory) else {
            continue;
        };
        if !visited.insert(canonical) {
            continue;
        }
        for child in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = child.path();
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                if directory != root || !without.iter().any(|name| child.file_name() == *name) {
                    directories.push(path);
                }
            } else if let Ok(source) = fs::canonicalize(&path)
                && metadata.is_file()
            {
                entries.push(SystemEntry::Copy(path, source));
            }
        }
    }
}

/// The name of a user in `/etc/passwd`.
fn name_of(passwd: &str, user: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user) && is_plain_name(name)).then(|| name.to_owned())
    })
}

/// Whether a name can stand in `/etc/passwd`.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([':', '\n', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_among_the_programs() {
        let programs = base_programs(None);
        assert!(
            programs.iter().any(|path| path.ends_with("/sh")),
            "{programs:?}"
        );
        assert!(programs.iter().all(|path| path.starts_with('/')));
    }

    #[test]
    fn the_standard_directories_win_over_the_users_path() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["sh", "gawk"] {
            fs::write(temp.path().join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(temp.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let programs = base_programs(Some(temp.path().into()));
        assert!(!programs.contains(&temp.path().join("sh").display().to_string()));
        let gawk = temp.path().join("gawk").display().to_string();
        assert_eq!(
            programs.contains(&gawk),
            !is_program(Path::new("/usr/bin/gawk"))
        );
    }

    #[test]
    fn users_have_names() {
        let identity = Identity {
            user: 1000,
            group: 100,
            user_name: "ada".into(),
            home: "/home/ada".into(),
        };
        let [(_, passwd), (_, groups), ..] = generated_files(&identity);
        assert_eq!(name_of(&passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(name_of(&passwd, 0).as_deref(), Some("root"));
        assert!(groups.contains("ada:x:100:\n"));
        let root = Identity {
            user: 0,
            group: 0,
            user_name: "root".into(),
            home: "/root".into(),
        };
        let [(_, passwd), ..] = generated_files(&root);
        assert_eq!(passwd.matches(":x:0:").count(), 1);
        assert_eq!(name_of("broken\na:b\n:x:5:\n", 5), None);
    }

    #[test]
    fn every_mount_point_exists() {
        let entries = system_entries(&Identity::of_process());
        for path in [
            "/dev/null",
            "/dev/tty",
            "/dev/shm",
            "/dev/pts",
            "/proc",
            "/sys",
            "/tmp",
        ] {
            let found = entries.iter().any(|entry| match entry {
                SystemEntry::Directory(found, _) | SystemEntry::Bytes(found, _) => {
                    found == Path::new(path)
                }
                _ => false,
            });
            assert!(found, "{path}");
        }
    }

    #[test]
    fn directories_that_link_in_circles_end() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("Europe")).unwrap();
        fs::create_dir(temp.path().join("posix")).unwrap();
        fs::write(temp.path().join("Europe/Paris"), "x").unwrap();
        fs::write(temp.path().join("posix/UTC"), "x").unwrap();
        std::os::unix::fs::symlink("..", temp.path().join("Europe/up")).unwrap();
        let mut entries = Vec::new();
        copies(temp.path(), &["posix"], &mut entries);
        let paris = temp.path().join("Europe/Paris");
        assert_eq!(
            entries,
            [SystemEntry::Copy(
                paris.clone(),
                fs::canonicalize(paris).unwrap()
            )]
        );
    }
}
