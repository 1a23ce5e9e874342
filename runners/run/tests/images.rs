//! Jobs in container images from a real registry.

mod common;

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{Ended, Place};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// Debian packages have these names too, but for that of busybox.
const TOOLS: [&str; 5] = ["docker-registry", "skopeo", "umoci", "busybox", "openssl"];

/// Whether this machine has what these tests need. Says so if it has not.
fn has_tools() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        eprintln!(
            "SKIPPED: not installed: {} (.ci/run installs them)",
            missing.join(", ")
        );
    }
    missing.is_empty()
}

#[track_caller]
fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}

/// A registry program that runs until this is dropped.
struct Registry {
    process: Child,
    host: String,
}

impl Registry {
    /// `more` are sections of its configuration; `http` belongs to the one of that name.
    fn start(place: &Place, http: &str, more: &str) -> Registry {
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:0\n{http}{more}",
            place.path("registry").display()
        );
        let config = place.write("registry.yml", &config);
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut seen = String::new();
        let host = loop {
            let start = seen.len();
            assert_ne!(log.read_line(&mut seen).unwrap(), 0, "{seen}");
            if let Some((_, rest)) = seen[start..].split_once("listening on ") {
                let end = rest.find(['"', ',']).unwrap();
                break rest[..end].to_owned();
            }
        };
        // It must not wait for somebody to read its log.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Registry { process, host }
    }

    fn image(&self) -> String {
        format!("docker://{}/team/image:v1", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes an image of a shell and some files, in several layers, one of which hides things.
fn make_image(place: &Place) -> PathBuf {
    let layout = place.path("layout");
    let image = format!("{}:v1", layout.display());
    let umoci = |arguments: &[&str]| {
        let mut command = Command::new("umoci");
        succeed(
            command
                .args(&arguments[..1])
                .args(["--image", &image])
                .args(&arguments[1..]),
        );
    };
    let insert = |text: &str, to: &str, more: &[&str]| {
        let directory = place.path(text);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(text), text).unwrap();
        fs::write(directory.join("both"), text).unwrap();
        let mut arguments = vec!["insert", "--rootless"];
        arguments.extend(more);
        arguments.extend([directory.to_str().unwrap(), to]);
        umoci(&arguments);
    };
    succeed(
        Command::new("umoci")
            .args(["init", "--layout"])
            .arg(&layout),
    );
    umoci(&["new"]);
    let path = std::env::var_os("PATH").unwrap();
    let busybox = std::env::split_paths(&path)
        .map(|directory| directory.join("busybox"))
        .find(|path| path.exists())
        .unwrap();
    umoci(&[
        "insert",
        "--rootless",
        busybox.to_str().unwrap(),
        "/bin/busybox",
    ]);
    insert("one", "/open", &[]);
    insert("two", "/opaque", &[]);
    insert("three", "/hidden", &[]);
    insert("four", "/open", &[]);
    insert("five", "/opaque", &["--opaque"]);
    umoci(&["insert", "--whiteout", "/hidden"]);
    umoci(&[
        "config",
        "--config.env",
        "COLOR=blue",
        "--config.env",
        "PATH=/bin",
        "--config.workingdir",
        "/open",
    ]);
    layout
}

fn push(layout: &Path, registry: &Registry, more: &[&str]) {
    succeed(
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(more)
            .arg(format!("oci:{}:v1", layout.display()))
            .arg(registry.image()),
    );
}

/// Runs jobs as a user without configuration of their own would.
fn run(place: &Place, more: &[&str], input: &str) -> Ended {
    let depot = place.path("depot");
    let mut arguments = vec!["--container-image-depot-root", depot.to_str().unwrap()];
    arguments.extend(more);
    let mut command = place.command(&arguments);
    let helpers = format!(
        "{}:{}",
        place.path("helpers").display(),
        std::env::var("PATH").unwrap()
    );
    command
        .env("DOCKER_CONFIG", place.path("docker"))
        .env("PATH", helpers);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

/// A job in an image that runs a shell script.
fn shell(image: &str, script: &str, more: &str) -> String {
    format!(
        r#"{{"image": {image}, "program": "/bin/busybox", "arguments": ["sh", "-c", "{script}"]{more}}}"#
    )
}

const LOOK: &str = "pwd; echo $COLOR; cd /; for f in open/* opaque/* hidden*; do echo $f; done; /bin/busybox cat open/both";

const SEEN: &str =
    "/open\nblue\nopen/both\nopen/four\nopen/one\nopaque/both\nopaque/five\nhidden*\nfour";

#[test]
fn images_from_a_registry() {
    if !has_tools() {
        return;
    }
    let place = Place::new();
    let layout = make_image(&place);
    let registry = Registry::start(&place, "", "");
    push(&layout, &registry, &[]);
    let name = format!("\"{}\"", registry.image());
    let look = shell(&name, LOOK, "");
    run(&place, &["--log-level", "error"], &look).assert(0, SEEN, "");
    let lock = fs::read_to_string(place.path("maelstrom-container-tags.lock")).unwrap();
    let section = format!(
        "version = 1\n\n[\"{}/team/image\"]\nv1 = \"sha256:",
        registry.host
    );
    assert!(lock.starts_with(&section), "{lock}");

    // What a command makes on top of the image; layers below and above it.
    let on_top = |script: &str| {
        shell(
            &name,
            script,
            r#", "added_layers": [
                {"stubs": ["/below"]},
                {"command": ["/bin/busybox", "sh", "-c", "cd /; set -- open/one below; /bin/busybox rm $1; echo $RANDOM$RANDOM$RANDOM > made; echo $2 >> made"]},
                {"stubs": ["/above"]}
            ]"#,
        )
    };
    let first = run(
        &place,
        &["--log-level", "error"],
        &on_top("cd /; echo open/* *; /bin/busybox cat made"),
    );
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(
        first
            .stdout
            .starts_with("open/both open/four above below bin made opaque open"),
        "{first:?}"
    );

    // The registry is gone; everything is as before, also what the command made.
    let shown = registry.image();
    drop(registry);
    run(&place, &["--log-level", "error"], &look).assert(0, SEEN, "");
    let again = run(
        &place,
        &["--log-level", "error"],
        &on_top("cd /; echo open/* *; /bin/busybox cat made"),
    );
    assert_eq!(again.stdout, first.stdout, "{again:?}");
    // And without the cache, from the depot.
    fs::remove_dir_all(place.path("cache")).unwrap();
    run(&place, &["--log-level", "error"], &look).assert(0, SEEN, "");

    // Only some of an image.
    let part = |part: &str, script: &str| {
        shell(
            &format!(r#"{{"name": "{shown}", "use": ["layers"{part}]}}"#),
            script,
            "",
        )
    };
    run(&place, &[], &part("", "pwd; echo $COLOR")).assert(0, "/\n\n", "");
    run(&place, &[], &part(r#", "environment""#, "pwd; echo $COLOR")).assert(0, "/\nblue\n", "");
    run(
        &place,
        &[],
        &part(r#", "working_directory""#, "pwd; echo $COLOR"),
    )
    .assert(0, "/open\n\n", "");

    // Another tag would have to be looked up.
    let other = shell(&name.replace(":v1", ":v2"), "true", "");
    let ended = run(&place, &[], &other);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains(":v2: getting the manifest of team/image v2 from 127.0.0.1:"),
        "{ended:?}"
    );

    // The same from where it was made.
    let local = shell(r#""oci:layout:v1""#, LOOK, "");
    run(&place, &[], &local).assert(0, SEEN, "");
}

#[test]
fn formats_and_certificates() {
    if !has_tools() {
        return;
    }
    let place = Place::new();
    let layout = make_image(&place);
    let (key, cert) = (place.path("key.pem"), place.path("cert.pem"));
    succeed(
        Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
            ])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert),
    );
    let tls = format!(
        "  tls:\n    certificate: {}\n    key: {}\n",
        cert.display(),
        key.display()
    );
    let registry = Registry::start(&place, &tls, "");
    push(
        &layout,
        &registry,
        &["--dest-compress-format", "zstd", "--dest-compress"],
    );
    let look = shell(&format!("\"{}\"", registry.image()), LOOK, "");
    let refused = run(&place, &[], &look);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("certificate")
            && refused
                .stderr
                .contains("set accept-invalid-remote-container-tls-certs"),
        "{refused:?}"
    );
    let trusting = [
        "--log-level",
        "error",
        "--accept-invalid-remote-container-tls-certs",
    ];
    run(&place, &trusting, &look).assert(0, SEEN, "");

    // In Docker's older formats.
    push(&layout, &registry, &["--format", "v2s2"]);
    fs::remove_file(place.path("maelstrom-container-tags.lock")).unwrap();
    run(&place, &trusting, &look).assert(0, SEEN, "");
    let lock = fs::read_to_string(place.path("maelstrom-container-tags.lock")).unwrap();
    let digest = lock.split('"').nth(3).unwrap();
    let manifest =
        fs::read_to_string(place.path("depot").join(digest).join("manifest.json")).unwrap();
    assert!(manifest.contains("application/vnd.docker.distribution.manifest.v2+json"));

    // An archive of the layout.
    succeed(
        Command::new("skopeo")
            .args(["--insecure-policy", "copy"])
            .args([
                format!("oci:{}:v1", layout.display()),
                format!("oci-archive:{}:v1", place.path("image.tar").display()),
            ]),
    );
    run(&place, &[], &shell(r#""oci-archive:image.tar""#, LOOK, "")).assert(0, SEEN, "");
}

/// Gives out tokens, good for a second, to whoever has the password.
struct TokenServer {
    address: String,
    given: Arc<AtomicUsize>,
}

impl TokenServer {
    fn start(key: PathBuf, cert: &Path) -> TokenServer {
        let der = succeed(
            Command::new("openssl")
                .args(["x509", "-outform", "der", "-in"])
                .arg(cert),
        );
        let header = format!(
            r#"{{"typ":"JWT","alg":"RS256","x5c":["{}"]}}"#,
            STANDARD.encode(der)
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = TokenServer {
            address: listener.local_addr().unwrap().to_string(),
            given: Arc::default(),
        };
        let given = server.given.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if answer(&stream, &key, &header) {
                    given.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        server
    }
}

/// Says whether it gave a token.
fn answer(mut stream: &TcpStream, key: &Path, header: &str) -> bool {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            return false;
        }
    }
    let password = format!("Basic {}", STANDARD.encode("me:secret"));
    if !head.contains(&password) {
        let _ = stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
        return false;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = format!(
        r#"{{"iss":"test","sub":"me","aud":"registry","jti":"1","nbf":{0},"iat":{0},"exp":{1},"access":[{{"type":"repository","name":"team/image","actions":["pull"]}}]}}"#,
        now - 60,
        now + 1
    );
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let mut signer = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    signer
        .stdin
        .take()
        .unwrap()
        .write_all(signed.as_bytes())
        .unwrap();
    let mut signature = Vec::new();
    signer
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut signature)
        .unwrap();
    assert!(signer.wait().unwrap().success());
    let body = format!(
        r#"{{"token":"{signed}.{}"}}"#,
        URL_SAFE_NO_PAD.encode(signature)
    );
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    true
}

#[test]
fn tokens_and_credential_helpers() {
    if !has_tools() {
        return;
    }
    let place = Place::new();
    let layout = make_image(&place);
    // Pushed past the guard.
    let open = Registry::start(&place, "", "");
    push(&layout, &open, &[]);
    drop(open);
    let (key, cert) = (place.path("key.pem"), place.path("cert.pem"));
    succeed(
        Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert),
    );
    let tokens = TokenServer::start(key, &cert);
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: registry\n    issuer: test\n    rootcertbundle: {}\n",
        tokens.address,
        cert.display()
    );
    let registry = Registry::start(&place, "", &auth);
    let look = shell(&format!("\"{}\"", registry.image()), LOOK, "");

    let refused = run(&place, &[], &look);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("getting an access token from 127.0.0.1: it answered 401 Unauthorized; it may want credentials: run `docker login`"),
        "{refused:?}"
    );
    assert!(!place.path("maelstrom-container-tags.lock").exists());

    fs::create_dir_all(place.path("helpers")).unwrap();
    fs::create_dir_all(place.path("docker")).unwrap();
    let helper = place.write(
        "helpers/docker-credential-test",
        "#!/bin/sh\nread -r server || true\necho \"$1 $server\" >> \"$(dirname \"$0\")/log\"\n\
         echo '{\"ServerURL\": \"x\", \"Username\": \"me\", \"Secret\": \"secret\"}'\n",
    );
    fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).unwrap();
    place.write(
        "docker/config.json",
        &format!(r#"{{"credHelpers": {{"{}": "test"}}}}"#, registry.host),
    );
    run(&place, &["--log-level", "error"], &look).assert(0, SEEN, "");
    assert!(tokens.given.load(Ordering::SeqCst) >= 1);
    let log = fs::read_to_string(place.path("helpers/log")).unwrap();
    assert!(
        log.lines()
            .all(|line| line == format!("get {}", registry.host)),
        "{log}"
    );
}
