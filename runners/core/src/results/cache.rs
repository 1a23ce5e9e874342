//! The results that a machine keeps.

use super::{MAX_RESULT_BYTES, ResultKey, file};
use maelstrom_node::{ResultStore, SharedResults};
use maelstrom_spec::{JobOutcome, JobStatus};
use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Results of this many bytes that were not used longest are dropped when there are more.
const MAX_BYTES: u64 = 128 << 20;

/// How much is kept in memory before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// The results that this machine keeps, in a directory that any number of processes share.
#[derive(Clone)]
pub struct ResultCache(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    others: Option<Arc<dyn SharedResults>>,
    unwritten: Mutex<Unwritten>,
}

#[derive(Default)]
struct Unwritten {
    files: HashMap<[u8; 16], Vec<u8>>,
    bytes: usize,
}

impl fmt::Debug for ResultCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResultCache")
            .field(&self.0.directory)
            .finish()
    }
}

impl ResultCache {
    /// A cache in `directory`, which is made when there is something to keep. `others` are asked for
    /// what is not there, and offered what is new.
    pub fn new(directory: PathBuf, others: Option<Arc<dyn SharedResults>>) -> ResultCache {
        ResultCache(Arc::new(Inner {
            directory,
            others,
            unwritten: Mutex::default(),
        }))
    }

    /// The outcomes of jobs that have passed before, each in its key's place: of jobs in one
    /// container.
    pub fn get(&self, keys: &[ResultKey]) -> Vec<Option<JobOutcome>> {
        let Some(container) = keys.first().map(ResultKey::container) else {
            return Vec::new();
        };
        let path = self.path(container);
        let records = self.read(container);
        let mut found: Vec<_> = keys
            .iter()
            .map(|key| decode(records.get(&key.job())?))
            .collect();
        if found.iter().any(Option::is_some) {
            // What was not used longest is dropped first.
            let now = fs::FileTimes::new().set_modified(SystemTime::now());
            let _ = fs::File::open(&path).and_then(|file| file.set_times(now));
        }
        self.get_elsewhere(keys, &mut found);
        found
    }

    fn get_elsewhere(&self, keys: &[ResultKey], found: &mut [Option<JobOutcome>]) {
        let Some(others) = &self.0.others else {
            return;
        };
        let missing: Vec<usize> = (0..keys.len())
            .filter(|&index| found[index].is_none())
            .collect();
        if missing.is_empty() {
            return;
        }
        let asked: Vec<ResultKey> = missing.iter().map(|&index| keys[index]).collect();
        for (index, result) in missing.into_iter().zip(others.find(&asked)) {
            let Some(bytes) = result.filter(|bytes| bytes.len() <= MAX_RESULT_BYTES) else {
                continue;
            };
            if let Some(outcome) = decode(&bytes) {
                self.keep(keys[index], &bytes);
                found[index] = Some(outcome);
            }
        }
    }

    /// Remembers a job that has passed. Others are not remembered, nor is what was cut off or is
    /// too large.
    pub fn put(&self, key: ResultKey, outcome: &JobOutcome) {
        let cut_off = |dropped| dropped > 0;
        let effects = &outcome.effects;
        if outcome.status != JobStatus::Exited(0)
            || cut_off(effects.stdout.dropped_bytes())
            || cut_off(effects.stderr.dropped_bytes())
            || !effects.notes.is_empty()
        {
            return;
        }
        let Ok(bytes) = postcard::to_stdvec(outcome) else {
            return;
        };
        if bytes.len() > MAX_RESULT_BYTES {
            return;
        }
        self.keep(key, &bytes);
        if let Some(others) = &self.0.others {
            others.offer(key, bytes);
        }
    }

    fn keep(&self, key: ResultKey, bytes: &[u8]) {
        let mut unwritten = self.unwritten();
        let records = unwritten.files.entry(key.container()).or_default();
        file::push(records, key.job(), bytes);
        unwritten.bytes += bytes.len();
        if unwritten.bytes >= WRITE_BYTES {
            self.write(&mut unwritten);
        }
    }

    /// Writes what is still in memory, and drops what is too much.
    pub fn flush(&self) {
        let mut unwritten = self.unwritten();
        if !unwritten.files.is_empty() {
            self.write(&mut unwritten);
            evict(&self.0.directory, MAX_BYTES);
        }
    }

    fn write(&self, unwritten: &mut Unwritten) {
        let directory = &self.0.directory;
        let _ = fs::create_dir_all(directory);
        unwritten.bytes = 0;
        for (container, records) in unwritten.files.drain() {
            let path = self.path(container);
            if let Err(error) = file::append(&path, &records) {
                tracing::warn!("could not keep results in {}: {error}", path.display());
                return;
            }
        }
    }

    fn path(&self, container: [u8; 16]) -> PathBuf {
        let name = container.iter().fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
        self.0.directory.join(name)
    }

    /// What is in the file of a container. Nothing if it cannot be read.
    fn read(&self, container: [u8; 16]) -> file::Records {
        let path = self.path(container);
        file::read(&path).unwrap_or_else(|error| {
            tracing::warn!("could not read results from {}: {error}", path.display());
            HashMap::new()
        })
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.0
            .unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node keeps for others: whole files are read, each once for the keys in it.
impl ResultStore for ResultCache {
    fn get(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>> {
        let mut files: HashMap<[u8; 16], file::Records> = HashMap::new();
        keys.iter()
            .map(|key| {
                let container = key.container();
                let records = files
                    .entry(container)
                    .or_insert_with(|| self.read(container));
                records.get(&key.job()).cloned()
            })
            .collect()
    }

    fn put(&self, results: &[(ResultKey, Vec<u8>)]) -> bool {
        let keys: Vec<ResultKey> = results.iter().map(|(key, _)| *key).collect();
        let known = ResultStore::get(self, &keys);
        let mut all_good = true;
        for ((key, bytes), known) in results.iter().zip(known) {
            if bytes.len() > MAX_RESULT_BYTES || decode(bytes).is_none() {
                all_good = false;
            } else if known.is_none() {
                self.keep(*key, bytes);
            }
        }
        // Others ask for them from now on.
        self.flush();
        all_good
    }
}

/// A result, if it is one of a job that passed.
fn decode(bytes: &[u8]) -> Option<JobOutcome> {
    let outcome: JobOutcome = postcard::from_bytes(bytes).ok()?;
    (outcome.status == JobStatus::Exited(0)).then_some(outcome)
}

/// Removes the files that were not used longest, until a quarter is free.
fn evict(directory: &Path, max_bytes: u64) {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    if total <= max_bytes {
        return;
    }
    files.sort();
    for (_, bytes, path) in files {
        if total <= max_bytes / 4 * 3 {
            break;
        }
        if fs::remove_file(path).is_ok() {
            total -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_spec::{JobEffects, JobOutput};

    fn passed(text: &str) -> JobOutcome {
        JobOutcome {
            status: JobStatus::Exited(0),
            effects: JobEffects {
                stdout: JobOutput::Inline(text.into()),
                ..JobEffects::default()
            },
        }
    }

    fn key(container: u8, job: u8) -> ResultKey {
        ResultKey::new([container; 16], [job; 16])
    }

    fn get(cache: &ResultCache, keys: &[ResultKey]) -> Vec<Option<JobOutcome>> {
        cache.get(keys)
    }

    #[test]
    fn what_passed_is_remembered_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let cache = ResultCache::new(temp.path().join("results"), None);
        let keys = [key(1, 1), key(1, 2), key(1, 3)];
        cache.put(keys[0], &passed("one"));
        let failed = JobOutcome {
            status: JobStatus::Exited(1),
            ..passed("two")
        };
        cache.put(keys[1], &failed);
        let mut cut = passed("");
        cut.effects.stdout = JobOutput::Truncated {
            first: b"x".to_vec(),
            dropped_bytes: 1,
        };
        cache.put(keys[2], &cut);
        cache.flush();
        let again = ResultCache::new(temp.path().join("results"), None);
        assert_eq!(get(&again, &keys), [Some(passed("one")), None, None]);
        // What others say is checked.
        let put = |key, bytes: &[u8]| ResultStore::put(&again, &[(key, bytes.to_vec())]);
        let one = ResultStore::get(&again, &keys)[0].clone().unwrap();
        assert!(!put(keys[1], &postcard::to_stdvec(&failed).unwrap()));
        assert!(!put(keys[1], b"garbage"));
        assert!(put(keys[2], &one));
        // What is known stays.
        assert!(put(
            keys[0],
            &postcard::to_stdvec(&passed("other")).unwrap()
        ));
        assert_eq!(
            get(&cache, &keys),
            [Some(passed("one")), None, Some(passed("one"))]
        );
    }

    #[derive(Default)]
    struct Others {
        known: Mutex<HashMap<ResultKey, Vec<u8>>>,
        asked: Mutex<usize>,
    }

    impl SharedResults for Others {
        fn find(&self, keys: &[ResultKey]) -> Vec<Option<Vec<u8>>> {
            *self.asked.lock().unwrap() += keys.len();
            let known = self.known.lock().unwrap();
            keys.iter().map(|key| known.get(key).cloned()).collect()
        }

        fn offer(&self, key: ResultKey, result: Vec<u8>) {
            self.known.lock().unwrap().insert(key, result);
        }
    }

    #[test]
    fn what_one_found_out_another_uses() {
        let temp = tempfile::tempdir().unwrap();
        let others = Arc::new(Others::default());
        let one = ResultCache::new(temp.path().join("one"), Some(others.clone()));
        let two = ResultCache::new(temp.path().join("two"), Some(others.clone()));
        let keys = [key(1, 1), key(1, 2), key(1, 3)];
        one.put(keys[1], &passed("x"));
        others.offer(keys[2], b"garbage".to_vec());
        assert_eq!(get(&two, &keys), [None, Some(passed("x")), None]);
        assert_eq!(*others.asked.lock().unwrap(), 3);
        // It is kept, and what is here is not asked for.
        two.flush();
        assert_eq!(get(&two, &keys[1..2]), [Some(passed("x"))]);
        assert_eq!(*others.asked.lock().unwrap(), 3);
    }

    #[test]
    fn the_files_used_last_stay() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, age_secs| {
            let path = temp.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let then = SystemTime::now() - std::time::Duration::from_secs(age_secs);
            let file = fs::File::open(&path).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(then))
                .unwrap();
            path
        };
        let (old, middle, new) = (write("c", 300), write("a", 200), write("b", 100));
        evict(temp.path(), 300);
        assert!(old.exists());
        evict(temp.path(), 280);
        assert!(!old.exists() && middle.exists() && new.exists());
    }
}
