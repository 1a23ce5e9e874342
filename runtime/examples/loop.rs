use maelstrom_runtime::*;
use std::time::*;
fn main() {
    let launcher = Launcher::start().unwrap();
    let mut args = std::env::args().skip(1);
    let layers_root: std::path::PathBuf = args.next().unwrap().into();
    let slots: usize = args.next().unwrap().parse().unwrap();
    let jobs: usize = args.next().unwrap().parse().unwrap();
    let mode = args.next().unwrap();
    let layers: Vec<std::path::PathBuf> = args.next().unwrap().split(',').map(|l| layers_root.join(l)).collect();
    let program = args.next().unwrap();
    let arguments: Vec<String> = args.collect();
    let mut job = ContainerJob { program, arguments, layers, ..Default::default() };
    job.environment = vec![("PATH".into(), "/bin:/usr/bin".into())];
    let proc_ = || ContainerMount::Proc { mount_point: "/proc".into() };
    if mode.contains('n') { job.privileges = Privileges::None; job.user = 1000; job.group = 1000; }
    if mode.contains('f') { job.privileges = Privileges::Files; }
    if mode.contains('w') { job.root = Root::Discard; }
    if mode.contains('l') { job.network = JobNetwork::Loopback; }
    if mode.contains('p') { job.mounts.push(proc_()); }
    if mode.contains('s') { job.mounts.push(ContainerMount::Sys { mount_point: "/sys".into() }); }
    if mode.contains('t') { job.mounts.push(ContainerMount::Tmp { mount_point: "/tmp".into() }); }
    if mode.contains('d') { for d in ["full","null","random","urandom","zero"] { job.mounts.push(ContainerMount::Device { name: d.into() }); } }
    let mut slot_list: Vec<_> = (0..slots).map(|_| launcher.slot(layers_root.clone()).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) })).collect();
    let r = slot_list[0].run(&job);
    if jobs == 1 { 
        match r { Ok(o) => { print!("{}", String::from_utf8_lossy(o.effects.stdout.bytes())); eprint!("{}", String::from_utf8_lossy(o.effects.stderr.bytes())); eprintln!("{:?} {:?}", o.status, o.effects.duration) } Err(e) => eprintln!("{e:?}") }
        return;
    }
    if !matches!(&r, Ok(o) if o.status.is_success()) { eprintln!("{r:?}"); std::process::exit(1); }
    let cpu = || { let mut t = [0f64; 2]; for (i, w) in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().enumerate() { unsafe { let mut r: libc::rusage = std::mem::zeroed(); libc::getrusage(w, &mut r); t[i] = r.ru_utime.tv_sec as f64 + r.ru_utime.tv_usec as f64 / 1e6 + r.ru_stime.tv_sec as f64 + r.ru_stime.tv_usec as f64 / 1e6; } } t };
    let _ = cpu();
    let stat = || { let s = std::fs::read_to_string("/proc/stat").unwrap(); let f: Vec<f64> = s.lines().next().unwrap().split_ascii_whitespace().skip(1).map(|x| x.parse().unwrap()).collect(); (f[0]+f[1]+f[2]+f[5]+f[6])/100.0 };
    let s0 = stat();
    let t = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|s| { for slot in &mut slot_list { let next = &next; let job = &job; s.spawn(move || { while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < jobs { let r = slot.run(job); assert!(matches!(&r, Ok(o) if o.status.is_success()), "{r:?}"); } }); } });
    println!("{mode}: {:.0} us wall/job  {:.0} us machine cpu/job", t.elapsed().as_secs_f64() * 1e6 / jobs as f64, (stat() - s0) * 1e6 / jobs as f64);
}
