//! What the tests run on hosts: this same binary, as a small network program.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_PORT: u16 = 5353;

/// Runs a probe. What goes wrong is printed, and the exit code is 1.
pub(crate) fn run(arguments: &[String]) -> ! {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["echo", port] => echo(port),
        ["ping", address, bound_ms] => ping(address, bound_ms),
        ["sink", port] => sink(port),
        ["send", address, bytes] => send(address, bytes),
        ["hear", bound_ms] => hear(bound_ms),
        ["say", text] => say(text),
        ["udp", address, text] => udp(address, text),
        ["sleep"] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        ["tick"] => tick(),
        ["lab"] => lab(),
        _ => Err(format!("no such probe: {words:?}").into()),
    };
    match result {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            println!("{error}");
            std::process::exit(1)
        }
    }
}

/// Answers each connection with what it says.
fn echo(port: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.parse()?))?;
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> std::io::Result<u64> {
            std::io::copy(&mut stream.try_clone()?, &mut stream)
        });
    }
    Ok(())
}

/// Prints the round trip of a few bytes, connection included, in microseconds.
fn ping(address: &str, bound_ms: &str) -> Result<()> {
    let bound = Duration::from_millis(bound_ms.parse()?);
    let address: SocketAddr = address.parse()?;
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect_timeout(&address, bound.saturating_sub(start.elapsed())) {
            Ok(stream) => break stream,
            // The other end is not listening yet.
            Err(error)
                if error.kind() == std::io::ErrorKind::ConnectionRefused
                    && start.elapsed() < bound => {}
            Err(error) => return Err(error.into()),
        }
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(bound))?;
    let start = Instant::now();
    stream.write_all(b"hello, neighbour")?;
    stream.read_exact(&mut [0; 16])?;
    println!("{}", start.elapsed().as_micros());
    Ok(())
}

/// Takes one connection's bytes, then says so by closing it.
fn sink(port: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.parse()?))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Sends bytes and prints how many milliseconds passed until all had arrived.
fn send(address: &str, bytes: &str) -> Result<()> {
    let mut left: usize = bytes.parse()?;
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) if start.elapsed() < Duration::from_secs(10) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let start = Instant::now();
    let chunk = vec![7; 1 << 20];
    while left > 0 {
        let part = left.min(chunk.len());
        stream.write_all(&chunk[..part])?;
        left -= part;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    println!("{}", start.elapsed().as_millis());
    Ok(())
}

/// Prints the first thing said to the group.
fn hear(bound_ms: &str) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, GROUP_PORT))?;
    socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
    socket.set_read_timeout(Some(Duration::from_millis(bound_ms.parse()?)))?;
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    println!("{} {text}", from.ip());
    Ok(())
}

/// Says something to the group again and again.
fn say(text: &str) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_multicast_loop_v4(false)?;
    loop {
        socket.send_to(text.as_bytes(), (GROUP, GROUP_PORT))?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends one packet.
fn udp(address: &str, text: &str) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.send_to(text.as_bytes(), address)?;
    Ok(())
}

/// Shows that it runs.
fn tick() -> Result<()> {
    loop {
        println!("tick");
        std::io::stdout().flush()?;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a lab of its own with one program, prints its directory and stays.
fn lab() -> Result<()> {
    let lab = maelstrom_lab::Lab::start(&maelstrom_lab::LabConfig::new(2))?;
    let _sleep = crate::probe(&lab, 1, &["sleep"]).spawn()?;
    println!("{}", lab.directory().display());
    std::io::stdout().flush()?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
