//! Hosts: their view of the machine, their processes, and their ends.

use crate::{BOUND, eventually, lab, probe, reaches, reaches_soon, serve};
use maelstrom_lab::{Exit, Lab, LabConfig, LabError, Signal};
use std::{fs, path::Path, time::Duration};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_host_is_a_machine_of_its_own",
        a_host_is_a_machine_of_its_own,
    ),
    ("a_program_ends_as_it_ended", a_program_ends_as_it_ended),
    (
        "a_killed_host_takes_all_its_processes",
        a_killed_host_takes_all_its_processes,
    ),
    ("a_paused_host_stands_still", a_paused_host_stands_still),
    (
        "programs_may_make_namespaces_of_their_own",
        programs_may_make_namespaces_of_their_own,
    ),
    ("containers_run_on_a_host", containers_run_on_a_host),
    ("nothing_stays_of_a_lab", nothing_stays_of_a_lab),
    (
        "nothing_stays_when_the_client_is_killed",
        nothing_stays_when_the_client_is_killed,
    ),
    (
        "wrong_requests_are_refused_in_words",
        wrong_requests_are_refused_in_words,
    ),
];

fn shell(lab: &Lab, host: u8, script: &str) -> String {
    let finished = lab.on(host, "sh").args(["-c", script]).run(BOUND).unwrap();
    finished.expect_success().stdout.trim().to_owned()
}

fn a_host_is_a_machine_of_its_own() {
    let lab = lab(2);
    assert_eq!(shell(&lab, 2, "cat /proc/sys/kernel/hostname"), "host2");
    // The shell itself and what it starts, after the host's first process.
    assert_eq!(
        shell(&lab, 1, "echo $$; ls -d /proc/[0-9]* | head -1"),
        "2\n/proc/1"
    );
    let interfaces = shell(
        &lab,
        1,
        "sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p' /proc/net/dev",
    );
    assert!(
        interfaces.lines().any(|line| line == "eth0"),
        "{interfaces}"
    );
    let home = shell(
        &lab,
        2,
        "echo $HOME; pwd; echo $XDG_RUNTIME_DIR; echo $XDG_CACHE_HOME",
    );
    let host = lab.host(2).unwrap();
    let (home_directory, runtime) = (host.home(), host.runtime_directory());
    assert_eq!(
        home.lines().map(Path::new).collect::<Vec<_>>(),
        [
            &home_directory,
            &home_directory,
            &runtime,
            &home_directory.join(".cache")
        ]
    );
    let user = rustix::process::geteuid().as_raw().to_string();
    assert_eq!(shell(&lab, 1, "id -u"), user);
    let routes = shell(&lab, 1, "cat /proc/net/route");
    let default = |line: &str| line.split_whitespace().nth(1) == Some("00000000");
    assert!(!routes.lines().any(default), "{routes}");
}

fn a_program_ends_as_it_ended() {
    let lab = lab(1);
    let finished = lab
        .on(1, "sh")
        .args(["-c", "echo out; echo err >&2; exit 7"])
        .run(BOUND)
        .unwrap();
    assert_eq!(finished.exit, Exit::Code(7));
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("out\n", "err\n")
    );
    let sleeper = probe(&lab, 1, &["sleep"]).spawn().unwrap();
    assert_eq!(sleeper.try_wait(), None);
    sleeper.signal(Signal::TERM).unwrap();
    assert_eq!(
        sleeper.wait(BOUND).unwrap(),
        Exit::Signal(Signal::TERM.as_raw())
    );
    // Twice the same answer, and a signal to what has ended is no error.
    assert_eq!(
        sleeper.wait(BOUND).unwrap(),
        Exit::Signal(Signal::TERM.as_raw())
    );
    sleeper.signal_group(Signal::KILL).unwrap();
    let missing = lab.on(1, "/no/such/program").spawn().unwrap_err();
    assert!(
        missing.to_string().contains("/no/such/program"),
        "{missing}"
    );
}

fn a_killed_host_takes_all_its_processes() {
    let lab = lab(2);
    let echo = serve(&lab, 2, &["echo", "7000"]);
    assert!(reaches(&lab, 1, 2));
    lab.kill(2).unwrap();
    assert_eq!(echo.wait(BOUND).unwrap(), Exit::HostDown);
    assert!(!reaches_soon(&lab, 1, 2));
    let down = lab.on(2, "true").spawn().unwrap_err();
    assert!(matches!(down, LabError::Down(2)), "{down}");
    lab.boot(2).unwrap();
    let _echo = serve(&lab, 2, &["echo", "7000"]);
    assert!(reaches(&lab, 1, 2));
}

fn a_paused_host_stands_still() {
    let lab = lab(1);
    let ticker = probe(&lab, 1, &["tick"]).spawn().unwrap();
    let ticks = || ticker.stdout().len();
    eventually(|| ticks() > 0);
    lab.pause(1).unwrap();
    eventually(|| {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(100));
        ticks() == before
    });
    let before = ticks();
    lab.resume(1).unwrap();
    eventually(|| ticks() > before);
}

fn programs_may_make_namespaces_of_their_own() {
    let lab = lab(1);
    let script = "unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c '
        mkdir -p upper work lower root && echo below > lower/file &&
        mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work root &&
        echo above > root/file && cat lower/file upper/file && echo $$'";
    if lab.on(1, "unshare").arg("--version").spawn().is_err() {
        eprintln!("SKIP: unshare is not installed");
        return;
    }
    assert_eq!(shell(&lab, 1, script), "below\nabove\n1");
}

fn containers_run_on_a_host() {
    let lab = lab(1);
    let input = lab.directory().join("job.json");
    let job = r#"{"layers": [{"programs": ["cat"]}, {"stubs": ["/proc/"]}],
        "mounts": [{"type": "proc", "mount_point": "/proc"}],
        "program": "cat", "arguments": ["/proc/self/comm"],
        "environment": {"PATH": "$env{PATH}"}}"#;
    fs::write(&input, job).unwrap();
    let program = maelstrom_lab::program("maelstrom-run", "maelstrom-run").unwrap();
    let finished = lab.on(1, program).stdin(input).run(BOUND).unwrap();
    assert_eq!(finished.expect_success().stdout, "cat\n");
}

/// Whether a process of the machine has this word in its environment.
fn processes_with(word: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(word)
        })
        .count()
}

fn nothing_stays_of_a_lab() {
    let lab = lab(2);
    let directory = lab.directory().to_owned();
    let word = directory.to_str().unwrap();
    let _one = probe(&lab, 1, &["sleep"]).spawn().unwrap();
    let _two = probe(&lab, 2, &["sleep"]).spawn().unwrap();
    assert_eq!(processes_with(word), 2);
    // Whatever programs leave in their directories.
    let locked = "mkdir -p a/b && touch a/b/c && chmod 0 a/b a";
    shell(&lab, 1, locked);
    drop(lab);
    assert_eq!(processes_with(word), 0);
    assert!(!directory.exists());
}

fn nothing_stays_when_the_client_is_killed() {
    // The client of the inner lab is a process of its own, which is killed.
    let mut client = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["probe", "lab"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = client.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    let directory = Path::new(line.trim());
    assert!(directory.is_dir(), "{line}");
    assert_eq!(processes_with(line.trim()), 1);
    client.kill().unwrap();
    client.wait().unwrap();
    eventually(|| processes_with(line.trim()) == 0 && !directory.exists());
}

fn wrong_requests_are_refused_in_words() {
    let lab = lab(1);
    for (result, text) in [
        (
            lab.kill(2),
            "there is no host 2: hosts are numbered from 1 to 1",
        ),
        (lab.cut(0), "there is no host 0"),
        (lab.boot(1), "host 1 is up already"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(Lab::start(&LabConfig::new(0)).is_err());
    let nowhere = LabConfig {
        parent: Some("/no/such/directory".into()),
        ..LabConfig::new(1)
    };
    let error = Lab::start(&nowhere).unwrap_err().to_string();
    assert!(error.contains("/no/such/directory"), "{error}");
}
