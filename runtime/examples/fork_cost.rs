//! What a fork of a Python template costs, beside a fresh interpreter for each job.
//!
//! `cargo run --release -p maelstrom-runtime --example fork_cost -- pytest` imports `pytest` (any
//! modules can be named) once, and runs 500 empty jobs in forks, then 20 in fresh interpreters.

use maelstrom_runtime::{
    ContainerJob, ContainerMount, Launcher, Privileges, Root, Slot, Template, TemplateProgram,
};
use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

const TEMPLATE: &str = include_str!("../tests/containers/template.py");

fn main() {
    let launcher = Launcher::start().expect("the launcher starts");
    let modules: Vec<String> = std::env::args().skip(1).collect();
    let directory = tempfile::tempdir().expect("a directory for the layer");
    let layer = directory.path().join("layer");
    let path = make_layer(&layer, &modules);
    let mut slot = launcher
        .slot(directory.path().to_path_buf())
        .unwrap_or_else(|error| panic!("{error}"));

    let environment = [
        ("PYTHONHOME", "/"),
        ("PYTHONPATH", &path),
        ("LD_LIBRARY_PATH", "/lib"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let imports = modules.iter().map(|module| format!("import {module}\n"));
    let fresh = ContainerJob {
        program: "/python".to_owned(),
        arguments: ["-S", "-c", &imports.collect::<String>()]
            .map(str::to_owned)
            .to_vec(),
        environment: environment.clone(),
        layers: vec![layer],
        root: Root::Discard,
        mounts: vec![ContainerMount::Proc {
            mount_point: "/proc".into(),
        }],
        user: 1000,
        group: 1000,
        privileges: Privileges::None,
        more_like_it: true,
        ..ContainerJob::default()
    };
    let program = TemplateProgram {
        program: "/python".to_owned(),
        arguments: ["-S", "/template.py"]
            .map(str::to_owned)
            .into_iter()
            .chain(modules)
            .collect(),
        environment,
    };
    let forked = ContainerJob {
        template: Some(Template {
            program: Arc::new(program),
            payload: Vec::new(),
        }),
        ..fresh.clone()
    };
    // Starts the template.
    run(&mut slot, &forked, 10);
    measure("a fork of the template", &mut slot, &forked, 500);
    measure("a fresh interpreter", &mut slot, &fresh, 20);
}

fn run(slot: &mut Slot, job: &ContainerJob, times: u32) {
    for _ in 0..times {
        let outcome = slot
            .run(job)
            .unwrap_or_else(|failed| panic!("{}", failed.error));
        let errors = String::from_utf8_lossy(outcome.effects.stderr.bytes()).into_owned();
        let notes = outcome.effects.notes;
        assert!(
            outcome.status.is_success() && notes.is_empty(),
            "{notes:?}\n{errors}"
        );
    }
}

fn measure(what: &str, slot: &mut Slot, job: &ContainerJob, times: u32) {
    let (cpu, wall) = (processor_time(), Instant::now());
    run(slot, job, times);
    let (wall, cpu) = (wall.elapsed(), processor_time() - cpu);
    println!(
        "{what}: {:.2} ms, of processor time {:.2} ms",
        wall.as_secs_f64() * 1e3 / f64::from(times),
        cpu.as_secs_f64() * 1e3 / f64::from(times),
    );
}

/// Of this process and everything below it.
fn processor_time() -> Duration {
    let mut parents = HashMap::new();
    let mut ticks = HashMap::new();
    for entry in fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap_or(0);
        parents.insert(pid, number(1) as u32);
        ticks.insert(pid, (11..15).map(number).sum::<u64>());
    }
    let this = std::process::id();
    let is_ours = |mut pid: u32| {
        while let Some(&parent) = parents.get(&pid) {
            if pid == this {
                return true;
            }
            pid = parent;
        }
        false
    };
    let ours = ticks.iter().filter(|(pid, _)| is_ours(**pid));
    Duration::from_millis(ours.map(|(_, ticks)| ticks * 10).sum())
}

/// The interpreter and every file that these modules load. Returns the path of modules.
fn make_layer(layer: &Path, modules: &[String]) -> String {
    let imports: String = modules.iter().map(|name| format!(", {name}")).collect();
    let list = format!(
        "import ctypes, socket, sys, threading{imports}\n\
         print(sys.executable)\n\
         print(':'.join(p for p in sys.path if p))\n\
         files = {{getattr(m, '__file__', None) for m in list(sys.modules.values())}} - {{None}}\n\
         files |= {{l.split()[-1] for l in open('/proc/self/maps') if '.so' in l}}\n\
         print(*files, sep='\\n')"
    );
    let listed = Command::new("python3")
        .args(["-c", &list])
        .output()
        .expect("python3 starts");
    let errors = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "{errors}");
    let listed = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let mut lines = listed.lines();
    let interpreter = lines.next().expect("an interpreter");
    let path = lines.next().expect("a path");
    for directory in ["proc", "lib", "lib64", "tmp"] {
        fs::create_dir_all(layer.join(directory)).unwrap();
    }
    fs::copy(interpreter, layer.join("python")).unwrap();
    fs::write(layer.join("template.py"), TEMPLATE).unwrap();
    for file in lines {
        let inside = layer.join(file.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(file, inside).unwrap();
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        if name.starts_with("ld-linux") {
            fs::copy(file, layer.join("lib64").join(name)).unwrap();
        }
        // The loader knows libraries by names that end after the first number.
        if let Some((stem, version)) = name.split_once(".so.") {
            let major = version.split('.').next().unwrap();
            fs::copy(file, layer.join("lib").join(format!("{stem}.so.{major}"))).unwrap();
        }
    }
    path.to_owned()
}
