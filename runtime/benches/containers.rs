//! What a job costs, beside a plain process and other ways to make containers.
//!
//! The program is static and does nothing, so that what is measured is everything around it.
//! Run with `cargo bench -p maelstrom-runtime`; bubblewrap and crun are measured where they are
//! installed.

use criterion::Criterion;
use maelstrom_runtime::{ContainerJob, ContainerMount, JobNetwork, Launcher, Privileges, Root};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

fn main() {
    let launcher = Launcher::start().expect("the launcher starts");
    let directory = tempfile::tempdir().expect("a directory for layers");
    let layer = make_layer(directory.path());
    let mut criterion = Criterion::default()
        .configure_from_args()
        .measurement_time(Duration::from_secs(5));
    let mut group = criterion.benchmark_group("one job");

    let program = layer.join("program");
    group.bench_function("plain spawn", |bencher| {
        bencher.iter(|| must_succeed(&mut Command::new(&program)));
    });

    let mut slot = launcher
        .slot(directory.path().to_path_buf())
        .unwrap_or_else(|error| panic!("{error}"));
    for (name, job) in jobs(&layer) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let outcome = slot.run(&job).unwrap_or_else(|e| panic!("{}", e.error));
                assert!(outcome.status.is_success());
            });
        });
    }

    if is_installed("bwrap") {
        group.bench_function("bubblewrap", |bencher| {
            bencher.iter(|| must_succeed(&mut bubblewrap(&layer)));
        });
    }
    if is_installed("crun") {
        let bundle = make_bundle(directory.path(), &layer);
        let mut number = 0;
        let mut crun = || {
            number += 1;
            let name = format!("maelstrom-bench-{}-{number}", std::process::id());
            let mut command = Command::new("crun");
            command.args(["run", "--bundle"]).arg(&bundle).arg(name);
            command
        };
        // It refuses machines that have both versions of control groups.
        let trial = crun().output().expect("crun starts");
        if trial.status.success() {
            group.bench_function("crun", |bencher| {
                bencher.iter(|| must_succeed(&mut crun()));
            });
        } else {
            let why = String::from_utf8_lossy(&trial.stderr);
            println!("crun does not work here and is left out: {why}");
        }
    }
    group.finish();
    criterion.final_summary();
}

/// A read-only container as `maelstrom-run` makes it, and a writable one as for a test.
fn jobs(layer: &Path) -> [(&'static str, ContainerJob); 2] {
    let mount = |point: &str| PathBuf::from(point);
    let mut mounts = vec![
        ContainerMount::Proc {
            mount_point: mount("/proc"),
        },
        ContainerMount::Tmp {
            mount_point: mount("/tmp"),
        },
        ContainerMount::Sys {
            mount_point: mount("/sys"),
        },
    ];
    mounts.extend(DEVICES.map(|name| ContainerMount::Device {
        name: name.to_owned(),
    }));
    let job = ContainerJob {
        program: "/program".to_owned(),
        layers: vec![layer.to_path_buf()],
        mounts,
        privileges: Privileges::None,
        user: 1000,
        group: 1000,
        more_like_it: true,
        ..ContainerJob::default()
    };
    let writable = ContainerJob {
        root: Root::Discard,
        network: JobNetwork::Loopback,
        ..job.clone()
    };
    [
        ("maelstrom, read-only root", job),
        ("maelstrom, writable root and loopback", writable),
    ]
}

fn make_layer(directory: &Path) -> PathBuf {
    let layer = directory.join("layer");
    for name in ["proc", "sys", "tmp", "dev"] {
        fs::create_dir_all(layer.join(name)).unwrap();
    }
    for name in DEVICES {
        fs::write(layer.join("dev").join(name), "").unwrap();
    }
    let source = directory.join("program.rs");
    fs::write(&source, "fn main() {}").unwrap();
    must_succeed(
        Command::new("rustc")
            .args([
                "-O",
                "-C",
                "target-feature=+crt-static",
                "-C",
                "panic=abort",
            ])
            .arg("-o")
            .arg(layer.join("program"))
            .arg(&source),
    );
    layer
}

fn must_succeed(command: &mut Command) {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok()
}

fn bubblewrap(layer: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command
        .args(["--unshare-all", "--die-with-parent", "--ro-bind"])
        .arg(layer)
        .args(["/", "--proc", "/proc", "--tmpfs", "/tmp"]);
    for name in DEVICES {
        let device = format!("/dev/{name}");
        command.args(["--dev-bind", &device, &device]);
    }
    command.arg("/program");
    command
}

fn make_bundle(directory: &Path, layer: &Path) -> PathBuf {
    let bundle = directory.join("bundle");
    fs::create_dir_all(&bundle).unwrap();
    must_succeed(
        Command::new("crun")
            .arg("spec")
            .arg("--rootless")
            .current_dir(&bundle),
    );
    let file = bundle.join("config.json");
    let config = fs::read_to_string(&file)
        .unwrap()
        .replace("\"terminal\": true", "\"terminal\": false")
        .replace("\"sh\"", "\"/program\"")
        .replace("\"rootfs\"", &format!("{layer:?}"));
    fs::write(file, config).unwrap();
    bundle
}
