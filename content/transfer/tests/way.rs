//! A layer's way from one store to another, without a network.

use maelstrom_content::{LayerId, Store, StoreOptions};
use maelstrom_pull::{BlobRange, Pieces};
use maelstrom_transfer::{Decoder, Encoder, Partial, Plan, Shelf, Sink, TreeNode, Writer, request};
use std::{io, ops::Range, os::unix::fs::FileExt, path::Path, sync::Arc};

fn noise(bytes: usize, salt: u64) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&salt.to_le_bytes())
        .finalize_xof()
        .fill(&mut noise);
    noise
}

fn store(directory: &Path) -> Store {
    Store::open(directory, StoreOptions::default()).unwrap()
}

fn shelf(store: &Store, directory: &Path) -> (LayerId, Arc<Shelf>) {
    let mut builder = store.layer();
    for (index, bytes) in [0, 1, 16_384, 16_385, 100_000, 262_144, 700_001]
        .into_iter()
        .enumerate()
    {
        builder.add_bytes(index.to_string(), noise(bytes, index as u64), 0o644);
    }
    let layer = builder.finish().unwrap();
    let encoded = store.manifest(layer).unwrap().encode();
    let plan = Plan::new(layer, encoded.into()).unwrap();
    let shelf = Shelf::whole(store, Arc::new(plan), directory).unwrap();
    (layer, Arc::new(shelf))
}

/// As it goes over the wire: the request is read, the answer comes in parts.
fn answer(shelf: &Arc<Shelf>, ranges: &[BlobRange]) -> Vec<u8> {
    let plan = shelf.plan();
    let asked = request::Asked::decode(&request::ranges(plan, ranges)).unwrap();
    let asked = asked.ranges(plan).unwrap();
    assert!(plan.piece_of(&asked).is_some());
    let mut encoder = Encoder::new(shelf.clone(), asked);
    let mut answer = Vec::new();
    let mut part = [0; 30_000];
    loop {
        match encoder.fill(&mut part).unwrap() {
            0 => return answer,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
}

#[derive(Default)]
struct Counting(u64);

impl<'a> Sink<'a> for Counting {
    fn pair(&mut self, _: usize, _: TreeNode, _: &'a [u8; 64]) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&mut self, _: usize, _: u64, bytes: &'a [u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }
}

/// A piece arrives. Returns what was asked for, and the answer.
fn bring(shelf: &Arc<Shelf>, partial: &Partial, piece: usize) -> (Vec<BlobRange>, Vec<u8>) {
    let ranges = partial.missing(shelf.plan().layout().ranges(piece));
    let bytes = answer(shelf, &ranges);
    let mut writer = Writer::new(partial);
    let decoded = Decoder::new(shelf.plan(), &ranges).run(&bytes, &mut writer);
    assert!(decoded.unwrap().complete);
    writer.flush().unwrap();
    (ranges, bytes)
}

fn wanted(shelf: &Shelf, piece: usize) -> Vec<BlobRange> {
    let mut ranges = shelf.plan().layout().ranges(piece);
    ranges.retain(|range| !range.bytes.is_empty());
    ranges
}

#[test]
fn no_changed_byte_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, shelf) = shelf(&store(&dir.path().join("cache")), dir.path());
    for piece in 0..shelf.plan().layout().pieces() {
        let ranges = wanted(&shelf, piece);
        let good = answer(&shelf, &ranges);
        let run = |bytes: &[u8]| {
            let mut sink = Counting::default();
            let decoded = Decoder::new(shelf.plan(), &ranges).run(bytes, &mut sink);
            (decoded, sink.0)
        };
        let (decoded, bytes) = run(&good);
        assert!(decoded.unwrap().complete);
        assert_eq!(bytes, shelf.plan().layout().bytes(piece));
        for place in (0..good.len()).step_by(997) {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(run(&bad).0.is_err(), "piece {piece}, byte {place}");
            let (cut, _) = run(&good[..place]);
            assert!(!cut.unwrap().complete);
        }
        let mut long = good;
        long.push(0);
        assert!(run(&long).0.is_err());
    }
}

#[test]
fn ranges_that_are_part_of_no_piece_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let (_, shelf) = shelf(&store(&dir.path().join("cache")), dir.path());
    let plan = shelf.plan();
    let longest = |index: &usize| plan.contents()[*index].bytes;
    let blob = (0..plan.contents().len()).max_by_key(longest).unwrap();
    let part = |bytes: Range<u64>| BlobRange { blob, bytes };
    for bytes in [1..16_384, 0..16_383, 0..700_001, 700_000..700_001, 0..0] {
        assert_eq!(plan.piece_of(&[part(bytes.clone())]), None, "{bytes:?}");
    }
    let beyond = BlobRange {
        blob: 1000,
        bytes: 0..1,
    };
    assert_eq!(plan.piece_of(&[beyond]), None);
    assert_eq!(plan.piece_of(&[]), None);
}

#[test]
fn what_came_is_kept_as_far_as_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, shelf) = shelf(&store(&dir.path().join("cache")), dir.path());
    let other = store(&dir.path().join("other"));
    let place = dir.path().join("partial");
    let open = || Partial::open(&place, shelf.plan().clone(), &other).unwrap();
    let (partial, have) = open();
    assert!(have.is_empty());
    let pieces = shelf.plan().layout().pieces();
    let mut expected = Pieces::new();
    for piece in (0..pieces).rev() {
        let (ranges, bytes) = bring(&shelf, &partial, piece);
        expected.insert(piece);
        // A node that still pulls can prove what it passes on.
        let passed_on = answer(&Arc::new(Shelf::partial(Arc::new(open().0))), &ranges);
        assert_eq!(passed_on, bytes);
        let (_, have) = open();
        assert_eq!(
            have.iter().collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
    }
    // Damage is noticed.
    let trees = std::fs::File::options()
        .write(true)
        .open(place.join("pack"))
        .unwrap();
    trees.write_all_at(b"damaged", 5).unwrap();
    let (_, have) = open();
    assert_eq!(have.len(), pieces - 1);
    // Fetched again, it is whole.
    let piece = (0..pieces).find(|piece| !have.contains(*piece)).unwrap();
    let (partial, _) = open();
    bring(&shelf, &partial, piece);
    let pin = partial.finish(&other, || {}).unwrap();
    assert_eq!(pin.id(), layer);
    // What comes from a second provider comes too late, and changes nothing.
    for piece in 0..pieces {
        bring(&shelf, &partial, piece);
        if piece == pieces / 2 {
            partial.remove();
        }
    }
    assert!(!place.exists());
    other.tree(layer).unwrap();
}
