//! A registry in this process, as well-behaved as a test wants it to be.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// What the registry has and how it behaves; may be changed at any time.
#[derive(Default)]
pub(crate) struct State {
    /// By `REPOSITORY/manifests/REFERENCE` and `REPOSITORY/blobs/DIGEST`.
    pub(crate) contents: HashMap<String, Vec<u8>>,
    /// What it says the digest of manifests is, where it is not left out.
    pub(crate) told_digest: Option<String>,
    /// Blobs break off after so many bytes of an answer, so many times.
    pub(crate) cut_after: Option<(usize, usize)>,
    /// Once that is over, they break off at once.
    pub(crate) then_cut_at_once: bool,
    /// So many answers are "503 Service Unavailable".
    pub(crate) unavailable: usize,
    /// Whether parts of blobs can be asked for.
    pub(crate) no_ranges: bool,
    /// Who may have tokens, and for how many requests each is good. `None`: none are needed.
    pub(crate) tokens: Option<Tokens>,
    /// The password that is wanted with each request.
    pub(crate) basic: Option<String>,
    /// `METHOD PATH RANGE`, without what is about tokens.
    pub(crate) requests: Vec<String>,
    /// How many tokens were given.
    pub(crate) tokens_given: usize,
    /// How much of blobs was sent.
    pub(crate) bytes_sent: usize,
}

#[derive(Clone)]
pub(crate) struct Tokens {
    /// Base64 of user and password; `None`: anybody.
    pub(crate) password: Option<String>,
    pub(crate) good_for: usize,
}

pub(crate) struct Registry {
    pub(crate) host: String,
    state: Arc<Mutex<State>>,
    uses: Arc<Mutex<HashMap<String, usize>>>,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Registry {
            host: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
            uses: Arc::default(),
        };
        let (host, state, uses) = (
            registry.host.clone(),
            registry.state.clone(),
            registry.uses.clone(),
        );
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (host, state, uses) = (host.clone(), state.clone(), uses.clone());
                thread::spawn(move || {
                    // A client that breaks off is not the registry's business.
                    let _ = serve(stream?, &host, &state, &uses);
                    std::io::Result::Ok(())
                });
            }
        });
        registry
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The requests since this was last asked.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

fn read_request(stream: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    if words
        .next()
        .is_none_or(|version| !version.starts_with("HTTP/"))
    {
        // Someone tries TLS.
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    Ok(Some(Request {
        method,
        path,
        headers,
    }))
}

fn serve(
    stream: TcpStream,
    host: &str,
    state: &Mutex<State>,
    uses: &Mutex<HashMap<String, usize>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    // What speaks TLS starts with this byte; it is told so in plain text, as servers do.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return writer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    }
    while let Some(request) = read_request(&mut reader)? {
        let mut state = state.lock().unwrap();
        let (head, body, cut) = answer(&request, host, &mut state, &mut uses.lock().unwrap());
        drop(state);
        let length = body.len();
        write!(writer, "HTTP/1.1 {head}content-length: {length}\r\n\r\n")?;
        writer.write_all(&body[..cut.unwrap_or(length).min(length)])?;
        if cut.is_some_and(|cut| cut < length) {
            return Ok(());
        }
    }
    Ok(())
}

fn error(status: &str, code: &str, more: &str) -> (String, Vec<u8>, Option<usize>) {
    let body = format!(
        r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#,
        code.to_lowercase()
    );
    (format!("{status}\r\n{more}"), body.into_bytes(), None)
}

fn answer(
    request: &Request,
    host: &str,
    state: &mut State,
    uses: &mut HashMap<String, usize>,
) -> (String, Vec<u8>, Option<usize>) {
    let authorization = request.headers.get("authorization");
    if let Some(query) = request.path.strip_prefix("/token?") {
        assert!(query.contains("service=test") && query.contains("scope=repository%3A"));
        let wanted = state
            .tokens
            .as_ref()
            .and_then(|tokens| tokens.password.as_ref());
        if wanted.is_some_and(|wanted| authorization != Some(&format!("Basic {wanted}"))) {
            return error("401 Unauthorized", "WRONG_PASSWORD", "");
        }
        state.tokens_given += 1;
        let token = format!("t{}", state.tokens_given);
        return (
            "200 OK\r\n".into(),
            format!(r#"{{"token":"{token}"}}"#).into(),
            None,
        );
    }
    let range = request.headers.get("range").cloned().unwrap_or_default();
    let line = format!("{} {} {range}", request.method, request.path);
    if let Some(tokens) = &state.tokens {
        let shown = authorization.and_then(|text| text.strip_prefix("Bearer "));
        let challenge = format!(
            "www-authenticate: Bearer realm=\"http://{host}/token\",service=\"test\"{}\r\n",
            if shown.is_some() {
                ",error=\"invalid_token\",error_description=\"token expired\""
            } else {
                ""
            }
        );
        let used = uses
            .entry(shown.unwrap_or_default().to_owned())
            .or_default();
        *used += 1;
        if shown.is_none() || *used > tokens.good_for {
            return error("401 Unauthorized", "UNAUTHORIZED", &challenge);
        }
    }
    if let Some(wanted) = &state.basic
        && authorization != Some(&format!("Basic {wanted}"))
    {
        return error(
            "401 Unauthorized",
            "UNAUTHORIZED",
            "www-authenticate: Basic realm=\"x\"\r\n",
        );
    }
    state.requests.push(line.trim_end().to_owned());
    if state.unavailable > 0 {
        state.unavailable -= 1;
        return error("503 Service Unavailable", "UNAVAILABLE", "");
    }
    let name = request.path.strip_prefix("/v2/").unwrap_or_default();
    let Some(body) = state.contents.get(name) else {
        return error("404 Not Found", "MANIFEST_UNKNOWN", "");
    };
    if name.contains("/manifests/") {
        let told = match &state.told_digest {
            Some(digest) => format!("docker-content-digest: {digest}\r\n"),
            None => String::new(),
        };
        return (format!("200 OK\r\n{told}"), body.clone(), None);
    }
    let start: Option<usize> = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-')?.parse().ok());
    let (head, body) = match start {
        Some(start) if !state.no_ranges && start < body.len() => (
            format!(
                "206 Partial Content\r\ncontent-range: bytes {start}-{}/{}\r\n",
                body.len() - 1,
                body.len()
            ),
            body[start..].to_vec(),
        ),
        Some(_) if !state.no_ranges => {
            return error("416 Range Not Satisfiable", "RANGE", "");
        }
        _ => ("200 OK\r\n".into(), body.clone()),
    };
    let mut cut = None;
    match &mut state.cut_after {
        Some((after, times)) if *times > 0 && body.len() > *after => {
            *times -= 1;
            cut = Some(*after);
        }
        Some(_) if state.then_cut_at_once => cut = Some(0),
        _ => {}
    }
    state.bytes_sent += cut.unwrap_or(body.len()).min(body.len());
    (head, body, cut)
}
