//! Forks of templates: that they are containers like any job's, and that whatever a template does
//! wrong costs no test.

use crate::{
    Test,
    fixture::{Fixture, all_processes, eventually, output, processes_with},
};
use maelstrom_runtime::{
    ContainerJob, JobNetwork, Privileges, Root, Slot, Template, TemplateProgram,
};
use maelstrom_spec::{JobError, JobOutcome, JobStatus};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) const TESTS: &[Test] = &[
    ("forks_inherit_memory_only", forks_inherit_memory_only),
    ("forks_see_what_jobs_see", forks_see_what_jobs_see),
    ("writes_of_forks_vanish", writes_of_forks_vanish),
    ("forks_have_no_capabilities", forks_have_no_capabilities),
    (
        "root_in_a_fork_cannot_get_out",
        root_in_a_fork_cannot_get_out,
    ),
    ("fork_statuses_come_through", fork_statuses_come_through),
    (
        "what_a_fork_leaves_behind_is_ended",
        what_a_fork_leaves_behind_is_ended,
    ),
    ("a_fork_can_time_out", a_fork_can_time_out),
    ("a_fork_can_be_cancelled", a_fork_can_be_cancelled),
    ("ports_are_free_in_every_fork", ports_are_free_in_every_fork),
    (
        "forks_use_the_machines_network",
        forks_use_the_machines_network,
    ),
    (
        "outputs_of_forks_are_brought_back",
        outputs_of_forks_are_brought_back,
    ),
    ("templates_of_several_kinds", templates_of_several_kinds),
    (
        "a_template_that_dies_is_not_needed",
        a_template_that_dies_is_not_needed,
    ),
    (
        "a_template_that_does_not_exist_is_not_needed",
        a_template_that_does_not_exist_is_not_needed,
    ),
    ("a_template_may_refuse", a_template_may_refuse),
    (
        "a_template_that_dies_with_a_fork_is_replaced",
        a_template_that_dies_with_a_fork_is_replaced,
    ),
    (
        "a_template_that_always_dies_is_given_up",
        a_template_that_always_dies_is_given_up,
    ),
    (
        "a_template_that_dies_after_a_fork_costs_no_test",
        a_template_that_dies_after_a_fork_costs_no_test,
    ),
    (
        "a_long_payload_needs_no_template",
        a_long_payload_needs_no_template,
    ),
    (
        "a_template_can_be_started_ahead",
        a_template_can_be_started_ahead,
    ),
    ("a_template_in_python", a_template_in_python),
    (
        "an_idle_slot_keeps_no_template",
        an_idle_slot_keeps_no_template,
    ),
    (
        "a_dropped_slot_ends_its_templates",
        a_dropped_slot_ends_its_templates,
    ),
];

/// A job that runs a probe in a fork, and a process that says so where it cannot.
pub(crate) fn forked(fixture: &Fixture, how: &[&str], probe: &[&str]) -> ContainerJob {
    let mut job = fixture.job(&["both"]);
    job.root = Root::Discard;
    job.more_like_it = true;
    let arguments = ["template"].iter().chain(how);
    job.template = Some(Template {
        program: Arc::new(TemplateProgram {
            program: "/probe".to_owned(),
            arguments: arguments.map(|&argument| argument.to_owned()).collect(),
            environment: job.environment.clone(),
        }),
        payload: probe
            .iter()
            .flat_map(|word| [word.as_bytes(), b"\0"].concat())
            .collect(),
    });
    job
}

/// As [`forked`], where the plain way is a program that exits with 9.
fn forked_or_9(fixture: &Fixture, how: &[&str], probe: &[&str]) -> ContainerJob {
    let mut job = forked(fixture, how, probe);
    job.arguments = ["probe", "exit", "9"].map(str::to_owned).to_vec();
    job
}

pub(crate) fn outcome(slot: &mut Slot, job: &ContainerJob) -> JobOutcome {
    slot.run(job)
        .unwrap_or_else(|failed| panic!("{}", failed.error))
}

pub(crate) fn said(slot: &mut Slot, job: &ContainerJob) -> String {
    let outcome = outcome(slot, job);
    assert_eq!(outcome.effects.notes, Vec::<String>::new());
    output(Ok(outcome))
}

fn forks_inherit_memory_only(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let job = forked(fixture, &[], &["prepared"]);
    let prepared = said(&mut slot, &job);
    for _ in 0..5 {
        // What one fork changes, the next does not see.
        assert_eq!(said(&mut slot, &job), prepared);
    }
}

fn forks_see_what_jobs_see(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for probe in [
        &["list", "/"][..],
        &["list", "/proc/self/fd"],
        &["ids"],
        &["environment"],
        &["stdin"],
        &["where"],
        &["keyctl"],
        &["nested"],
        &["status", "NoNewPrivs"],
        &["status", "Seccomp"],
        &["read", "/proc/sys/kernel/hostname"],
        &["read", "/proc/self/cgroup"],
        &["read", "/proc/self/limits"],
    ] {
        for (user, root) in [(1000, Root::Discard), (0, Root::ReadOnly)] {
            let mut job = forked(fixture, &[], probe);
            (job.user, job.root) = (user, root);
            job.working_directory = "/lib".into();
            let in_fork = said(&mut slot, &job);
            job.template = None;
            job.arguments = ["probe"]
                .iter()
                .chain(probe)
                .map(|&word| word.to_owned())
                .collect();
            assert_eq!(in_fork, said(&mut slot, &job), "{probe:?}");
        }
    }
    let processes = said(&mut slot, &forked(fixture, &[], &["list", "/proc"]));
    let numbers = processes
        .split(' ')
        .filter(|name| name.parse::<u32>().is_ok());
    assert_eq!(numbers.collect::<Vec<_>>(), ["1", "2"]);
}

fn writes_of_forks_vanish(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for _ in 0..3 {
        assert_eq!(
            said(&mut slot, &forked(fixture, &[], &["exists", "/new"])),
            "false\n"
        );
        assert_eq!(
            said(&mut slot, &forked(fixture, &[], &["write", "/new"])),
            "written\n"
        );
        assert_eq!(
            said(&mut slot, &forked(fixture, &[], &["write", "/file"])),
            "written\n"
        );
        let file = said(&mut slot, &forked(fixture, &[], &["read", "/file"]));
        assert_eq!(file, "from the layer");
    }
}

fn forks_have_no_capabilities(fixture: &Fixture) {
    for (user, privileges) in [
        (1000, Privileges::None),
        (1000, Privileges::Namespace),
        (0, Privileges::None),
        (0, Privileges::Files),
        (0, Privileges::Namespace),
    ] {
        let mut slot = fixture.slot();
        let mut sets = |template: bool| {
            ["CapPrm", "CapEff", "CapInh", "CapAmb"].map(|field| {
                let mut job = forked(fixture, &[], &["status", field]);
                (job.user, job.privileges) = (user, privileges);
                if !template {
                    job.template = None;
                    job.arguments = ["probe", "status", field].map(str::to_owned).to_vec();
                }
                said(&mut slot, &job)
            })
        };
        assert_eq!(sets(true), sets(false), "{user} {privileges:?}");
    }
}

fn root_in_a_fork_cannot_get_out(fixture: &Fixture) {
    for privileges in [Privileges::Files, Privileges::Namespace] {
        let mut job = forked(fixture, &[], &["become-root-of", "/file"]);
        (job.user, job.group, job.privileges) = (0, 0, privileges);
        job.root = Root::ReadOnly;
        let said = said(&mut fixture.slot(), &job);
        assert!(!said.contains("escaped"), "{said}");
        assert!(!said.contains("environment"), "{said}");
    }
    let file = fixture.layers_root().join("base/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "from the layer");
}

fn fork_statuses_come_through(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for _ in 0..2 {
        for (probe, status) in [
            (&["ok"][..], JobStatus::Exited(0)),
            (&["exit", "7"], JobStatus::Exited(7)),
            (&["fault"], JobStatus::Signaled(11)),
            (&["abort"], JobStatus::Signaled(6)),
            (&["signal", "15"], JobStatus::Signaled(15)),
            (&["signal", "9"], JobStatus::Signaled(9)),
        ] {
            let ended = outcome(&mut slot, &forked_or_9(fixture, &[], probe));
            assert_eq!(ended.status, status, "{probe:?}");
            assert_eq!(ended.effects.notes, Vec::<String>::new());
        }
    }
}

/// A variable that only the processes of one test have in their environment.
fn marker() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("TEMPLATE_TEST_{}_{number}_END", std::process::id())
}

fn marked(mut job: ContainerJob, marker: &str) -> ContainerJob {
    let template = job.template.as_mut().unwrap();
    let program = Arc::make_mut(&mut template.program);
    program.environment.push((marker.to_owned(), String::new()));
    job
}

fn what_a_fork_leaves_behind_is_ended(fixture: &Fixture) {
    let marker = marker();
    let mut slot = fixture.slot();
    let job = marked(forked(fixture, &[], &["leave-behind"]), &marker);
    let text = said(&mut slot, &job);
    assert!(text.lines().any(|line| line == "left"), "{text}");
    // The template itself is there still.
    assert_eq!(processes_with(&marker).len(), 1);
}

fn a_fork_can_time_out(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let prepared = said(&mut slot, &forked(fixture, &[], &["prepared"]));
    for _ in 0..2 {
        for probe in ["sleep", "print-forever"] {
            let mut hangs = forked_or_9(fixture, &[], &[probe]);
            hangs.timeout = Some(Duration::from_millis(300));
            let ended = outcome(&mut slot, &hangs);
            assert_eq!(ended.status, JobStatus::TimedOut);
            assert!(!ended.effects.stdout.bytes().is_empty());
        }
        for then in ["end", "stay"] {
            let mut hangs = forked_or_9(fixture, &[], &["answer", then]);
            hangs.timeout = Some(Duration::from_millis(300));
            let ended = outcome(&mut slot, &hangs);
            assert_eq!(ended.status, JobStatus::TimedOut);
            assert_eq!(ended.effects.stdout.bytes(), b"asked\n");
        }
    }
    // It was not the template's fault.
    let again = said(&mut slot, &forked(fixture, &[], &["prepared"]));
    assert_eq!(again, prepared);
}

fn a_fork_can_be_cancelled(fixture: &Fixture) {
    let marker = marker();
    let mut slot = fixture.slot();
    let canceller = slot.canceller();
    let job = marked(forked(fixture, &[], &["sleep"]), &marker);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the fork runs", || processes_with(&marker).len() == 2);
            canceller.cancel();
        });
        let failed = slot.run(&job).unwrap_err();
        assert_eq!((failed.error, failed.fatal), (JobError::Cancelled, false));
    });
    slot.arm();
    let job = marked(forked(fixture, &[], &["exists", "/file"]), &marker);
    assert_eq!(said(&mut slot, &job), "true\n");
}

fn ports_are_free_in_every_fork(fixture: &Fixture) {
    let mut slot = fixture.slot();
    for _ in 0..3 {
        let mut job = forked(fixture, &[], &["listen", "4571"]);
        job.network = JobNetwork::Loopback;
        assert_eq!(said(&mut slot, &job), "listened\n");
        let mut job = forked(fixture, &[], &["connect", "4571"]);
        job.network = JobNetwork::Disabled;
        assert_eq!(said(&mut slot, &job), "false\n");
    }
}

fn forks_use_the_machines_network(fixture: &Fixture) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut slot = fixture.slot();
    for (network, reaches) in [
        (JobNetwork::Local, "true\n"),
        (JobNetwork::Loopback, "false\n"),
        (JobNetwork::Local, "true\n"),
    ] {
        let mut job = forked(fixture, &[], &["connect", &port]);
        job.network = network;
        assert_eq!(said(&mut slot, &job), reaches);
    }
}

fn outputs_of_forks_are_brought_back(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let mut job = forked(fixture, &[], &["make-outputs"]);
    job.outputs = vec!["/tmp/out/**/*.txt".to_owned()];
    for _ in 0..2 {
        let ended = outcome(&mut slot, &job);
        assert_eq!(ended.status, JobStatus::Exited(0));
        let names: Vec<_> = ended
            .effects
            .outputs
            .iter()
            .map(|file| &file.path)
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

fn templates_of_several_kinds(fixture: &Fixture) {
    let mut slot = fixture.slot();
    // More than a slot keeps.
    for _ in 0..2 {
        for kind in 0..5 {
            let name = format!("KIND_{kind}");
            let job = marked(forked(fixture, &[], &["environment"]), &name);
            assert!(said(&mut slot, &job).contains(&format!("{name}=\n")));
        }
    }
}

/// The plain way was taken, and told of in the first outcome alone.
fn fails_over(fixture: &Fixture, how: &[&str], expected: &[&str]) {
    let mut slot = fixture.slot();
    let job = forked_or_9(fixture, how, &["ok"]);
    let first = outcome(&mut slot, &job);
    assert_eq!(first.status, JobStatus::Exited(9));
    let note = &first.effects.notes[0];
    for part in expected {
        assert!(note.contains(part), "{note}");
    }
    let second = outcome(&mut slot, &job);
    assert_eq!(second.status, JobStatus::Exited(9));
    assert_eq!(second.effects.notes, Vec::<String>::new());
}

fn a_template_that_dies_is_not_needed(fixture: &Fixture) {
    let said = ["exit code 3", "preparing", "there is nothing to prepare"];
    fails_over(fixture, &["die"], &said);
}

fn a_template_that_does_not_exist_is_not_needed(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let mut job = forked_or_9(fixture, &[], &["ok"]);
    let template = job.template.as_mut().unwrap();
    Arc::make_mut(&mut template.program).program = "/missing".to_owned();
    let ended = outcome(&mut slot, &job);
    assert_eq!(ended.status, JobStatus::Exited(9));
    let note = &ended.effects.notes[0];
    assert!(note.contains("/missing: No such file"), "{note}");
}

fn a_template_may_refuse(fixture: &Fixture) {
    fails_over(fixture, &["refuse"], &["it refused: there are threads"]);
}

fn a_template_that_dies_with_a_fork_is_replaced(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let job = forked_or_9(fixture, &["die-at-second"], &["ok"]);
    let mut codes = Vec::new();
    for _ in 0..4 {
        let ended = outcome(&mut slot, &job);
        assert_eq!(
            ended.effects.notes.len(),
            usize::from(ended.status == JobStatus::Exited(9)),
        );
        codes.push(ended.status);
    }
    assert_eq!(codes, [0, 9, 0, 9].map(JobStatus::Exited));
}

fn a_template_that_always_dies_is_given_up(fixture: &Fixture) {
    for how in ["die-once-asked", "kill-once-asked", "cannot-fork"] {
        let mut slot = fixture.slot();
        let job = forked_or_9(fixture, &[how], &["ok"]);
        let mut notes = 0;
        for _ in 0..6 {
            let ended = outcome(&mut slot, &job);
            assert_eq!(ended.status, JobStatus::Exited(9));
            notes += ended.effects.notes.len();
        }
        assert_eq!(notes, 3);
    }
}

/// Whether the fork's container or its template is the first to be seen to end is chance.
fn a_template_that_dies_after_a_fork_costs_no_test(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let job = forked_or_9(fixture, &["die-once-answered"], &["exists", "/probe"]);
    for _ in 0..12 {
        let ended = outcome(&mut slot, &job);
        assert!(
            [0, 9].map(JobStatus::Exited).contains(&ended.status),
            "{ended:?}"
        );
    }
}

fn a_long_payload_needs_no_template(fixture: &Fixture) {
    let mut slot = fixture.slot();
    let long = "x".repeat(Template::PAYLOAD_MAX_BYTES);
    let ended = outcome(&mut slot, &forked_or_9(fixture, &[], &["ok", &long]));
    assert_eq!(ended.status, JobStatus::Exited(9));
    assert!(
        ended.effects.notes[0].contains("65540 bytes"),
        "{:?}",
        ended.effects.notes
    );
    // One that is as long as it may be arrives whole.
    let longest = "y".repeat(Template::PAYLOAD_MAX_BYTES - "exists\0\0".len());
    let ended = outcome(&mut slot, &forked_or_9(fixture, &[], &["exists", &longest]));
    assert_eq!(ended.status, JobStatus::Exited(0));
    assert_eq!(ended.effects.notes, Vec::<String>::new());
}

/// `template.py` beside this file, which the documentation refers to.
fn a_template_can_be_started_ahead(fixture: &Fixture) {
    let mut slot = fixture.slot();
    // Each template has contents of its own.
    let prepared = forked(fixture, &[], &["prepared"]);
    let first = said(&mut slot, &prepared);
    assert_eq!(said(&mut slot, &forked(fixture, &[], &[])), "");
    assert_eq!(said(&mut slot, &prepared), first);
    // One that cannot be started is told of when a job needs it, and no program is run before.
    let ahead = outcome(&mut slot, &forked_or_9(fixture, &["refuse"], &[]));
    assert_eq!(ahead.status, JobStatus::Exited(0));
    assert_eq!(ahead.effects.notes, Vec::<String>::new());
    let refused = outcome(&mut slot, &forked_or_9(fixture, &["refuse"], &["ok"]));
    assert_eq!(refused.status, JobStatus::Exited(9));
    assert_eq!(refused.effects.notes.len(), 1);
}

fn a_template_in_python(fixture: &Fixture) {
    let Some(layer) = python_layer(fixture) else {
        eprintln!("SKIPPED: there is no python3 here");
        return;
    };
    let mut slot = fixture.slot();
    let mut run = |how: &[&str], source: &str| {
        let mut job = forked_or_9(fixture, &[], &[]);
        job.layers.push(layer.path().join("layer"));
        job.working_directory = "/mnt".into();
        let template = job.template.as_mut().unwrap();
        template.payload = source.as_bytes().to_vec();
        let program = Arc::make_mut(&mut template.program);
        program.program = "/python".to_owned();
        let path = fs::read_to_string(layer.path().join("path")).unwrap();
        program.environment.extend([
            ("PYTHONPATH".to_owned(), path),
            ("PYTHONHOME".to_owned(), "/".to_owned()),
        ]);
        program.arguments = ["-S", "/template.py"]
            .iter()
            .chain(how)
            .map(|&word| word.to_owned())
            .collect();
        outcome(&mut slot, &job)
    };
    let mut prints = |source: &str| {
        let ended = run(&[], source);
        assert_eq!(ended.effects.notes, Vec::<String>::new());
        let text = String::from_utf8_lossy(ended.effects.stderr.bytes()).into_owned();
        (
            ended.status,
            String::from_utf8_lossy(ended.effects.stdout.bytes()).into_owned() + &text,
        )
    };
    for _ in 0..2 {
        let (status, text) =
            prints("import os, sys; print(os.getpid(), os.getcwd(), os.getuid()); sys.x = 1");
        assert_eq!(
            (status, text.as_str()),
            (JobStatus::Exited(0), "2 /mnt 1000\n")
        );
        let (status, text) =
            prints("import sys; print(hasattr(sys, 'x')); open('/new', 'x'); sys.exit(3)");
        assert_eq!((status, text.as_str()), (JobStatus::Exited(3), "False\n"));
        let (status, text) = prints("import os; print(sorted(os.listdir('/proc/self/fd')))");
        assert_eq!(
            (status, text.as_str()),
            (JobStatus::Exited(0), "['0', '1', '2', '3']\n")
        );
        let (status, text) = prints("1 / 0");
        assert_eq!(status, JobStatus::Exited(1));
        assert!(text.contains("ZeroDivisionError"), "{text}");
        let (status, _) = prints("import os; os.abort()");
        assert_eq!(status, JobStatus::Signaled(6));
        let (status, text) =
            prints("print(*[n for n in __import__('os').environ if 'TEMPLATE' in n])");
        assert_eq!((status, text.as_str()), (JobStatus::Exited(0), "\n"));
    }
    // A module that leaves a thread running.
    let refused = run(&["threads"], "pass");
    assert_eq!(refused.status, JobStatus::Exited(9));
    let note = &refused.effects.notes[0];
    assert!(
        note.contains("it refused: threads are running: waiting"),
        "{note}"
    );
}

/// The interpreter with what the template imports, as a layer; beside it, where its modules are.
fn python_layer(fixture: &Fixture) -> Option<tempfile::TempDir> {
    const LIST: &str = "import ctypes, socket, sys, threading, encodings.utf_8, os, re\n\
        print(sys.executable)\n\
        print(':'.join(p for p in sys.path if p))\n\
        print(*{m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}, sep='\\n')\n\
        print(*{l.split()[-1] for l in open('/proc/self/maps') if '/lib' in l and '.so' in l}, sep='\\n')";
    let listed = std::process::Command::new("python3")
        .args(["-S", "-c", LIST])
        .output()
        .ok()?;
    let listed = String::from_utf8(listed.stdout).ok()?;
    let mut lines = listed.lines();
    let (interpreter, path) = (lines.next()?, lines.next()?);
    let directory = tempfile::tempdir_in(fixture.layers_root()).unwrap();
    let layer = directory.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::copy(interpreter, layer.join("python")).unwrap();
    fs::write(layer.join("template.py"), include_str!("template.py")).unwrap();
    fs::write(
        layer.join("threads.py"),
        "import threading\n\
         threading.Thread(target=threading.Event().wait, name='waiting', daemon=True).start()\n",
    )
    .unwrap();
    for file in lines {
        let inside = layer.join(file.strip_prefix('/')?);
        fs::create_dir_all(inside.parent()?).unwrap();
        fs::copy(file, inside).ok()?;
    }
    fs::create_dir_all(layer.join("lib")).unwrap();
    // The loader looks for libraries there, by names that end after the first number.
    for file in listed.lines().filter(|file| file.contains(".so")) {
        let name = std::path::Path::new(file).file_name()?.to_str()?;
        let known_as = match name.split_once(".so.") {
            Some((stem, version)) => format!("{stem}.so.{}", version.split('.').next()?),
            None => name.to_owned(),
        };
        fs::copy(file, layer.join("lib").join(known_as)).ok()?;
    }
    fs::write(directory.path().join("path"), path).unwrap();
    Some(directory)
}

fn an_idle_slot_keeps_no_template(fixture: &Fixture) {
    let marker = marker();
    let mut slot = fixture.slot();
    let job = marked(forked(fixture, &[], &["prepared"]), &marker);
    said(&mut slot, &job);
    assert_eq!(processes_with(&marker).len(), 1);
    eventually("the template has ended", || {
        processes_with(&marker).is_empty()
    });
    said(&mut slot, &job);
}

fn a_dropped_slot_ends_its_templates(fixture: &Fixture) {
    let marker = marker();
    let mut slot = fixture.slot();
    said(
        &mut slot,
        &marked(forked(fixture, &[], &["prepared"]), &marker),
    );
    let template = processes_with(&marker)[0];
    let namespace = fs::read_link(format!("/proc/{template}/ns/user")).unwrap();
    drop(slot);
    eventually("nothing is left in its namespaces", || {
        all_processes().into_iter().all(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/user")).ok().as_ref() != Some(&namespace)
        })
    });
}
