//! One registry, by the distribution specification's API: manifests and blobs.

use crate::{
    Problem,
    access::{self, Authorization, Challenge},
    digest::Digest,
    document::{ACCEPT, Blob, MAX_DOCUMENT_BYTES},
    files,
    transport::{self, Manner, Transport},
};
use maelstrom_spec::RegistryReference;
use reqwest::{
    StatusCode,
    blocking::Response,
    header::{ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_RANGE, HeaderMap, RANGE},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How often in a row something may fail that may succeed when it is tried again.
const ATTEMPTS: u32 = 5;

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A registry that asks for more patience is given up.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A transfer that breaks off after less than this has made no progress.
const PROGRESS_BYTES: u64 = 64 << 10;

const BUFFER_BYTES: usize = 256 << 10;

/// One registry. Connections and tokens are kept.
pub(crate) struct Registry {
    /// As in image names.
    host: String,
    manner: Manner,
    credentials: Option<PathBuf>,
    /// Once it is known how it is to be reached.
    transport: Mutex<Option<Transport>>,
    /// By repository.
    authorizations: Mutex<HashMap<String, Authorization>>,
}

/// Something that failed, and whether it may succeed when it is tried again.
struct Failure {
    problem: Problem,
    /// `None`: it will not.
    again: Option<Duration>,
}

impl Failure {
    fn for_good(problem: Problem) -> Failure {
        Failure {
            problem,
            again: None,
        }
    }

    fn for_now(problem: Problem) -> Failure {
        Failure {
            problem,
            again: Some(Duration::ZERO),
        }
    }
}

/// Receives how many bytes of a blob have come, and says whether to go on.
pub(crate) type OnBytes<'a> = &'a mut dyn FnMut(u64) -> bool;

impl Registry {
    /// `credentials` is Docker's configuration file.
    pub(crate) fn new(host: &str, manner: Manner, credentials: Option<PathBuf>) -> Registry {
        Registry {
            host: host.to_owned(),
            manner,
            credentials,
            transport: Mutex::default(),
            authorizations: Mutex::default(),
        }
    }

    /// Where its API is.
    fn api_host(&self) -> &str {
        if self.host == RegistryReference::DOCKER_HUB {
            "registry-1.docker.io"
        } else {
            &self.host
        }
    }

    /// A manifest or an index, by tag or digest, with its digest, which is verified.
    pub(crate) fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<(Vec<u8>, Digest), Problem> {
        let doing = format!("getting the manifest of {repository} {reference}");
        let path = format!("manifests/{reference}");
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT_HEADER,
            reqwest::header::HeaderValue::from_static(ACCEPT),
        );
        patiently(|| {
            let response = self.get(&doing, repository, &path, &headers)?;
            let told: Option<Digest> = response
                .headers()
                .get("docker-content-digest")
                .and_then(|header| header.to_str().ok()?.parse().ok());
            let bytes = self.read(&doing, "the manifest", response, MAX_DOCUMENT_BYTES)?;
            let expected = reference.parse().ok().or(told);
            let digest = match expected {
                None => Digest::of(&bytes),
                Some(expected) => {
                    self.verify("the manifest", &bytes, &expected)
                        .map_err(Failure::for_good)?;
                    expected
                }
            };
            Ok((bytes, digest))
        })
    }

    /// A small blob, verified.
    pub(crate) fn document(
        &self,
        what: &'static str,
        repository: &str,
        blob: &Blob,
    ) -> Result<Vec<u8>, Problem> {
        let doing = format!("getting {what} {}", blob.digest);
        let path = format!("blobs/{}", blob.digest);
        patiently(|| {
            let response = self.get(&doing, repository, &path, &HeaderMap::new())?;
            let limit = blob.size_bytes.min(MAX_DOCUMENT_BYTES);
            let bytes = self.read(&doing, what, response, limit)?;
            self.verify(what, &bytes, &blob.digest)
                .map_err(Failure::for_good)?;
            Ok(bytes)
        })
    }

    fn verify(&self, what: &str, bytes: &[u8], expected: &Digest) -> Result<(), Problem> {
        let found = expected.of_same_kind(bytes);
        if found == *expected {
            return Ok(());
        }
        Err(self.wrong_digest(what.to_owned(), expected, found))
    }

    fn wrong_digest(&self, what: String, expected: &Digest, found: Digest) -> Problem {
        Problem::WrongDigest {
            what,
            from: self.host.clone(),
            expected: expected.clone(),
            found,
            advice: "; nothing of it was kept. The registry, or a proxy before it, is damaged",
        }
    }

    /// Gets what is missing of a blob in a file, and verifies all of it. What has come stays in
    /// the file when this fails, unless it is not what it should be.
    pub(crate) fn blob(
        &self,
        doing: &str,
        repository: &str,
        blob: &Blob,
        file: &mut File,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), Problem> {
        let mut transfer = Transfer::resume(blob, file)?;
        let mut failures = 0;
        loop {
            if transfer.have_bytes == blob.size_bytes {
                let found = std::mem::replace(&mut transfer.hasher, blob.digest.hasher()).finish();
                if found == blob.digest {
                    return Ok(());
                }
                let resumed = transfer.resumed;
                transfer.start_over()?;
                if !resumed {
                    let what = doing.trim_start_matches("getting ").to_owned();
                    return Err(self.wrong_digest(what, &blob.digest, found));
                }
                tracing::debug!("{doing}: what was there from before is damaged; starting over");
            }
            let before = transfer.have_bytes;
            let Err(failure) = self.some_of_blob(doing, repository, &mut transfer, on_bytes) else {
                continue;
            };
            if transfer.have_bytes >= before + PROGRESS_BYTES {
                failures = 0;
            }
            failures += 1;
            if !pause(failures, &failure) {
                return Err(failure.problem);
            }
        }
    }

    fn some_of_blob(
        &self,
        doing: &str,
        repository: &str,
        transfer: &mut Transfer<'_>,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), Failure> {
        let blob = transfer.blob;
        let mut headers = HeaderMap::new();
        if transfer.have_bytes > 0 {
            let range = format!("bytes={}-", transfer.have_bytes);
            if let Ok(range) = range.parse() {
                headers.insert(RANGE, range);
            }
        }
        let path = format!("blobs/{}", blob.digest);
        let mut response = self.get(doing, repository, &path, &headers)?;
        if transfer.have_bytes > 0 && !continues(&response, transfer.have_bytes) {
            transfer.start_over().map_err(Failure::for_good)?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(Failure::for_now(transport::refusal(
                    doing,
                    &self.host,
                    response,
                    String::new(),
                )));
            }
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let broken = |what: String| {
                Failure::for_now(Problem::Network {
                    doing: doing.to_owned(),
                    host: self.host.clone(),
                    what,
                    advice: "; what has come is kept, and the next run goes on from there",
                })
            };
            let read = match response.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(broken(format!(
                        "the registry broke off after {} of {} bytes ({})",
                        transfer.have_bytes,
                        blob.size_bytes,
                        transport::describe_read(&error)
                    )));
                }
            };
            if read == 0 && transfer.have_bytes < blob.size_bytes {
                return Err(broken(format!(
                    "the registry stopped after {} of {} bytes",
                    transfer.have_bytes, blob.size_bytes
                )));
            }
            if read == 0 {
                return Ok(());
            }
            if transfer.have_bytes + read as u64 > blob.size_bytes {
                transfer.start_over().map_err(Failure::for_good)?;
                return Err(Failure::for_good(Problem::TooLong {
                    what: format!("what {} gave as {}", self.host, blob.digest),
                    limit_bytes: blob.size_bytes,
                    limit: "which is what the manifest says",
                }));
            }
            transfer.take(&buffer[..read]).map_err(Failure::for_good)?;
            if !on_bytes(transfer.have_bytes) {
                return Err(Failure::for_good(Problem::Network {
                    doing: doing.to_owned(),
                    host: self.host.clone(),
                    what: "given up, since another layer failed".into(),
                    advice: "",
                }));
            }
        }
    }

    /// Reads a response of bounded length.
    fn read(
        &self,
        doing: &str,
        what: &str,
        response: Response,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, Failure> {
        match files::read_all(response, limit_bytes) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Failure::for_good(Problem::TooLong {
                what: what.to_owned(),
                limit_bytes,
                limit: "which is the most that it may have",
            })),
            Err(error) => Err(Failure::for_now(Problem::Network {
                doing: doing.to_owned(),
                host: self.host.clone(),
                what: format!(
                    "the registry broke off ({})",
                    transport::describe_read(&error)
                ),
                advice: "",
            })),
        }
    }

    /// Asks, shows what the registry wants to see if it refuses, and asks again. A response that
    /// is returned is a success, or says that there is no such range.
    fn get(
        &self,
        doing: &str,
        repository: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let mut shown = lock(&self.authorizations).get(repository).cloned();
        let mut fresh = false;
        loop {
            let (transport, response) = self.ask(doing, repository, path, headers, &shown)?;
            let status = response.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !fresh {
                let challenge = Challenge::parse(response.headers()).map_err(|what| {
                    Failure::for_good(Problem::Challenge {
                        host: self.host.clone(),
                        what,
                    })
                })?;
                // Also when it was shown a token: tokens expire.
                let new = access::authorize(
                    &transport,
                    self.credentials.as_deref(),
                    &self.host,
                    repository,
                    &challenge,
                )
                .map_err(|problem| Failure {
                    again: may_pass(&problem).then_some(Duration::ZERO),
                    problem,
                })?;
                lock(&self.authorizations).insert(repository.to_owned(), new.clone());
                shown = Some(new);
                fresh = true;
                continue;
            }
            return Err(self.refused(doing, &shown, response));
        }
    }

    fn refused(&self, doing: &str, shown: &Option<Authorization>, response: Response) -> Failure {
        let status = response.status();
        let (advice, again) = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                (access::advice(&self.host, shown.as_ref(), &response), None)
            }
            StatusCode::NOT_FOUND => ("; there is nothing of this name".to_owned(), None),
            StatusCode::TOO_MANY_REQUESTS => {
                let advice = format!(
                    "; try again later, or run `docker login {}` for a higher limit",
                    self.host
                );
                let wait = transport::retry_after(&response).unwrap_or_default();
                (advice, (wait <= LONGEST_PAUSE).then_some(wait))
            }
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                let wait = transport::retry_after(&response).unwrap_or_default();
                (String::new(), Some(wait.min(LONGEST_PAUSE)))
            }
            _ => (String::new(), None),
        };
        Failure {
            problem: transport::refusal(doing, &self.host, response, advice),
            again,
        }
    }

    /// One request. Finds out how the registry is to be reached if that is not known.
    fn ask(
        &self,
        doing: &str,
        repository: &str,
        path: &str,
        headers: &HeaderMap,
        shown: &Option<Authorization>,
    ) -> Result<(Transport, Response), Failure> {
        let is_loopback = transport::is_loopback(&self.host);
        let known = lock(&self.transport).clone();
        let make = |plain| {
            Transport::new(self.manner, plain, is_loopback)
                .map_err(|what| Failure::for_good(self.unreachable(doing, what, "")))
        };
        let send = |transport: &Transport| {
            let scheme = if transport.is_plain() {
                "http"
            } else {
                "https"
            };
            let url = format!("{scheme}://{}/v2/{repository}/{path}", self.api_host());
            let mut request = transport.client().get(url).headers(headers.clone());
            if let Some(shown) = shown {
                request = request.header(AUTHORIZATION, shown.header.clone());
            }
            request.send()
        };
        let transport = match known {
            Some(transport) => transport,
            None => make(false)?,
        };
        let error = match send(&transport) {
            Ok(response) => {
                *lock(&self.transport) = Some(transport.clone());
                return Ok((transport, response));
            }
            Err(error) => error,
        };
        let may_be_plain = is_loopback || self.manner.accept_invalid_certs;
        if may_be_plain && !transport.is_plain() && transport::speaks_no_tls(&error) {
            let transport = make(true)?;
            if let Ok(response) = send(&transport) {
                *lock(&self.transport) = Some(transport.clone());
                return Ok((transport, response));
            }
        }
        let advice = transport::advice(&error);
        let problem = self.unreachable(doing, transport::describe(error), advice);
        Err(if advice.is_empty() {
            Failure::for_now(problem)
        } else {
            Failure::for_good(problem)
        })
    }

    fn unreachable(&self, doing: &str, what: String, advice: &'static str) -> Problem {
        Problem::Network {
            doing: doing.to_owned(),
            host: self.host.clone(),
            what,
            advice,
        }
    }
}

/// Whether a response goes on from where a blob is.
fn continues(response: &Response, have_bytes: u64) -> bool {
    let start = format!("bytes {have_bytes}-");
    response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|range| range.to_str().ok())
            .is_some_and(|range| range.starts_with(&start))
}

fn may_pass(problem: &Problem) -> bool {
    match problem {
        Problem::Network { .. } => true,
        Problem::Status { status, .. } => status.starts_with('5') || status.starts_with("429"),
        _ => false,
    }
}

/// Tries again what may succeed then.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Problem> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => {
                failures += 1;
                if !pause(failures, &failure) {
                    return Err(failure.problem);
                }
            }
        }
    }
}

/// Waits before the next attempt, if there is to be one.
fn pause(failures: u32, failure: &Failure) -> bool {
    let Some(wanted) = failure.again.filter(|_| failures < ATTEMPTS) else {
        return false;
    };
    tracing::debug!("{}; trying again", failure.problem);
    let own = FIRST_PAUSE * 2u32.pow(failures - 1);
    thread::sleep(own.max(wanted));
    true
}

/// A blob on its way into a file.
struct Transfer<'a> {
    blob: &'a Blob,
    file: &'a mut File,
    have_bytes: u64,
    hasher: crate::digest::Hasher,
    /// Whether some of it came earlier.
    resumed: bool,
}

impl<'a> Transfer<'a> {
    /// Goes on from what a file has.
    fn resume(blob: &'a Blob, file: &'a mut File) -> Result<Transfer<'a>, Problem> {
        let mut transfer = Transfer {
            blob,
            file,
            have_bytes: 0,
            hasher: blob.digest.hasher(),
            resumed: false,
        };
        let has = transfer.file.metadata().map_err(failed("read"))?.len();
        if has > blob.size_bytes {
            transfer.start_over()?;
            return Ok(transfer);
        }
        transfer.file.rewind().map_err(failed("read"))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        while transfer.have_bytes < has {
            let read = transfer.file.read(&mut buffer).map_err(failed("read"))?;
            if read == 0 {
                break;
            }
            transfer.hasher.update(&buffer[..read]);
            transfer.have_bytes += read as u64;
        }
        transfer.resumed = transfer.have_bytes > 0;
        Ok(transfer)
    }

    fn start_over(&mut self) -> Result<(), Problem> {
        self.file.set_len(0).map_err(failed("write"))?;
        self.file.rewind().map_err(failed("write"))?;
        self.have_bytes = 0;
        self.resumed = false;
        self.hasher = self.blob.digest.hasher();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.file
            .seek(SeekFrom::Start(self.have_bytes))
            .and_then(|_| self.file.write_all(bytes))
            .map_err(failed("write"))?;
        self.hasher.update(bytes);
        self.have_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The file has a name only where it was opened.
fn failed(action: &'static str) -> impl FnOnce(io::Error) -> Problem {
    Problem::io(action, std::path::Path::new("what has come of a layer"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
