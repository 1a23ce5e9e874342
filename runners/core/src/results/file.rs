//! A file of results: records one after the other, each with its length and a checksum, so that
//! whatever a process left half is noticed. The last record of a key counts.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

/// Starts every file.
const MAGIC: &[u8; 8] = b"mresult1";

/// Half of a key, the length of the result, and the start of the hash of all three.
const HEADER_BYTES: usize = 16 + 4 + 8;

/// A file larger than this is taken for damaged.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The results of a file, by the second half of their keys.
pub(super) type Records = HashMap<[u8; 16], Vec<u8>>;

/// Reads what is whole. Nothing where there is no file.
pub(super) fn read(path: &Path) -> io::Result<Records> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::new()),
        Err(error) => return Err(error),
    };
    Ok(parse(&bytes).0)
}

/// The records, and where the last whole one ends.
fn parse(bytes: &[u8]) -> (Records, usize) {
    let mut records = Records::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return (records, 0);
    };
    while let Some((name, payload, after)) = next(rest) {
        records.insert(name, payload.to_vec());
        rest = after;
    }
    (records, bytes.len() - rest.len())
}

fn next(bytes: &[u8]) -> Option<([u8; 16], &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let name: [u8; 16] = header[..16].try_into().ok()?;
    let length = u32::from_le_bytes(header[16..20].try_into().ok()?);
    let payload = rest.get(..usize::try_from(length).ok()?)?;
    let whole = header[20..] == checksum(&header[..20], payload);
    whole.then_some((name, payload, &rest[payload.len()..]))
}

fn checksum(header: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

/// Adds a record to `bytes`, which will be appended to a file.
pub(super) fn push(bytes: &mut Vec<u8>, name: [u8; 16], payload: &[u8]) {
    let mut header = [0; 20];
    header[..16].copy_from_slice(&name);
    // The limit of a result's size is far below.
    header[16..].copy_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&checksum(&header, payload));
    bytes.extend_from_slice(payload);
}

/// Appends records, after taking away what a process that was killed left half.
pub(super) fn append(path: &Path, records: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    // Several processes may write; readers see whole records in any case.
    file.lock()?;
    let length = file.metadata()?.len();
    if length == 0 {
        file.write_all(MAGIC)?;
    } else {
        let mut bytes = Vec::new();
        (&file).take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        let whole = parse(&bytes).1;
        if whole as u64 != length {
            file.set_len(whole as u64)?;
            if whole == 0 {
                file.write_all(MAGIC)?;
            }
        }
    }
    file.write_all(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, [name; 16], payload);
        bytes
    }

    #[test]
    fn what_is_appended_is_read_and_the_last_counts() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        assert!(read(&path).unwrap().is_empty());
        append(&path, &[record(1, b"one"), record(2, b"")].concat()).unwrap();
        append(&path, &record(1, b"newer")).unwrap();
        let records = read(&path).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[&[1; 16]], b"newer");
        assert_eq!(records[&[2; 16]], b"");
    }

    #[test]
    fn damage_loses_no_more_than_what_is_damaged() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        append(&path, &record(1, b"one")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let second = record(2, b"two");
        for cut in 1..second.len() {
            std::fs::write(&path, [&whole[..], &second[..cut]].concat()).unwrap();
            assert_eq!(read(&path).unwrap().len(), 1, "{cut}");
            append(&path, &record(3, b"three")).unwrap();
            let records = read(&path).unwrap();
            assert_eq!(
                (records.len(), &records[&[3; 16]][..]),
                (2, &b"three"[..]),
                "{cut}"
            );
        }
        std::fs::write(&path, b"something else entirely").unwrap();
        append(&path, &record(3, b"three")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
    }
}
