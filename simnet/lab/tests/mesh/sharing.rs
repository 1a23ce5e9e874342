//! Who gets the slots: several clients, and the people in front of the machines.

use crate::{BOUND, client, eventually, expect_all, mesh, runs_jobs};
use maelstrom_lab::mesh::jobs;
use std::{fs, path::Path, time::Duration};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_small_suite_is_not_starved_by_a_large_one",
        a_small_suite_is_not_starved_by_a_large_one,
    ),
    (
        "a_machine_that_is_used_is_not_lent",
        a_machine_that_is_used_is_not_lent,
    ),
];

fn a_small_suite_is_not_starved_by_a_large_one() {
    let mesh = mesh(5);
    let nodes = [2, 3, 4];
    for host in nodes {
        mesh.start_node(host, 2, &[]).unwrap();
    }
    mesh.wait_members(&nodes, 2, BOUND).unwrap();
    let large = client(&mesh, 600, 300);
    for host in nodes {
        runs_jobs(&mesh, host);
    }
    let durations = std::iter::repeat_n(Duration::from_millis(300), 12);
    let small = mesh.client(5, 1, &jobs::sleeping(durations)).unwrap();
    let small = small.spawn().unwrap();
    expect_all(&small, 12);
    println!(
        "12 jobs of 300 ms took {:?} beside 600 of another client",
        small.started().elapsed()
    );
    assert!(large.try_wait().is_none(), "the large suite was first");
    expect_all(&large, 600);
    mesh.wait_idle(BOUND).unwrap();
}

/// What a host sees of the machine's use: nobody has typed, nobody is logged in, and the load is
/// what the file `stat` says.
const FAKE_MACHINE: &str = r#"
mkdir -p fake/dev fake/empty
for device in null zero full random urandom tty fuse; do
    [ -e /dev/$device ] || continue
    : > fake/dev/$device && mount --bind /dev/$device fake/dev/$device
done
mount --bind stat /proc/stat
for directory in /sys/class/power_supply /run/systemd; do
    [ ! -d $directory ] || mount --bind fake/empty $directory
done
mount --rbind fake/dev /dev
"#;

fn write_stat(file: &Path, busy_ticks: u64) {
    // In place: the mount shows this very file.
    fs::write(file, format!("cpu  {busy_ticks} 0 0 1000 0 0 0 0 0 0\n")).unwrap();
}

fn a_machine_that_is_used_is_not_lent() {
    let mesh = mesh(3);
    mesh.start_node(2, 2, &[]).unwrap();
    let home = mesh.lab().host(3).unwrap().home();
    let stat = home.join("stat");
    write_stat(&stat, 100);
    let fake = mesh.lab().on(3, "sh").args(["-ec", FAKE_MACHINE]);
    let faked = fake.current_dir(&home).run(BOUND).unwrap();
    assert!(faked.exit.success(), "{faked:#?}");
    mesh.start_node(3, 2, &["--lend", "idle"]).unwrap();
    mesh.wait_members(&[2, 3], 1, BOUND).unwrap();
    let lends = || mesh.status(3).is_some_and(|status| status["lends"] == true);
    eventually("the idle machine is lent", lends);

    let count = 100;
    let client = client(&mesh, count, 1_000);
    runs_jobs(&mesh, 3);
    // Its owner starts something large.
    write_stat(&stat, 1_000_000);
    eventually("the machine in use is not lent", || !lends());
    eventually("it gives back what it ran", || {
        mesh.processes(3, jobs::MARK).unwrap() == 0
    });
    assert!(client.try_wait().is_none(), "the run was over before");
    expect_all(&client, count);
    mesh.wait_idle(BOUND).unwrap();
}
