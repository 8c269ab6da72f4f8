//! Partials as crashes leave them: after any piece, with any piece spoilt, just before the rename.

use super::*;

const SIZE: u64 = 3 * PIECE_BYTES + 77;

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| u8::try_from(n * n / 7 % 251).unwrap()).collect()
}

fn piece(content: &[u8], piece: u64) -> &[u8] {
    let start = usize::try_from(piece * PIECE_BYTES).unwrap();
    &content[start..content.len().min(start + usize::try_from(PIECE_BYTES).unwrap())]
}

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    content: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("models"));
        Self { _dir: dir, store, content: content() }
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.content)
    }

    fn open(&self) -> Partial {
        let key = PartialKey::Content(self.digest());
        let partial = Partial::open(&self.store, key, SIZE).unwrap();
        partial.recover(&mut |_| ControlFlow::Continue(())).unwrap();
        partial
    }

    fn put(&self, partial: &Partial, pieces: &[u64]) {
        for &number in pieces {
            partial.put(number, piece(&self.content, number)).unwrap();
        }
    }

    fn blob(&self) -> Vec<u8> {
        fs::read(self.store.blobs().path(&self.digest())).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.store.blobs().dir()).unwrap().count()
    }
}

#[test]
fn pieces_in_any_order_over_several_runs_become_the_blob() {
    let fixture = Fixture::new();
    for (pieces, missing) in [(&[2_u64][..], 0..2), (&[0], 1..2), (&[3], 1..2)] {
        let partial = fixture.open();
        fixture.put(&partial, pieces);
        assert_eq!(partial.missing(0..4), missing);
        assert!(!fixture.store.blobs().path(&fixture.digest()).exists());
    }
    let partial = fixture.open();
    assert_eq!(partial.n_bytes(), SIZE - PIECE_BYTES);
    fixture.put(&partial, &[1]);
    assert_eq!(partial.publish(&fixture.store, Some(fixture.digest())).unwrap(), fixture.digest());
    assert_eq!(fixture.blob(), fixture.content);
    assert_eq!(fixture.files(), 1);
}

#[test]
fn a_piece_that_is_not_what_was_written_is_missing_again() {
    let fixture = Fixture::new();
    fixture.put(&fixture.open(), &[0, 1, 2, 3]);
    let path = fixture.open().path.clone();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"!", PIECE_BYTES + 5).unwrap();
    let partial = fixture.open();
    assert_eq!(partial.missing(0..4), 1..2);
    fixture.put(&partial, &[1]);
    partial.publish(&fixture.store, Some(fixture.digest())).unwrap();
    assert_eq!(fixture.blob(), fixture.content);
}

#[test]
fn a_crash_before_the_rename_costs_nothing() {
    let fixture = Fixture::new();
    let partial = fixture.open();
    fixture.put(&partial, &[0, 1, 2, 3]);
    partial.file.set_len(SIZE).unwrap();
    drop(partial);
    let partial = fixture.open();
    assert!(partial.missing(0..4).is_empty());
    partial.publish(&fixture.store, Some(fixture.digest())).unwrap();
    assert_eq!(fixture.blob(), fixture.content);
}

#[test]
fn wrong_content_never_gets_the_name_and_is_not_kept() {
    let fixture = Fixture::new();
    let partial = fixture.open();
    fixture.put(&partial, &[0, 1, 3]);
    partial.put(2, &vec![0; usize::try_from(PIECE_BYTES).unwrap()]).unwrap();
    let error = partial.publish(&fixture.store, Some(fixture.digest())).unwrap_err();
    assert_eq!(error.kind(), "wrong_content");
    drop(partial);
    assert_eq!(fixture.files(), 0);
    assert_eq!(fixture.open().n_bytes(), 0);
}

#[test]
fn a_file_of_another_length_is_begun_anew() {
    let fixture = Fixture::new();
    let partial = fixture.open();
    fixture.put(&partial, &[0]);
    partial.file.set_len(SIZE - 1).unwrap();
    drop(partial);
    assert_eq!(fixture.open().n_bytes(), 0);
}

#[test]
fn a_partial_has_one_owner_at_a_time() {
    let fixture = Fixture::new();
    let _partial = fixture.open();
    let key = PartialKey::Content(fixture.digest());
    assert_eq!(Partial::open(&fixture.store, key, SIZE).unwrap_err().kind(), "busy");
}

#[test]
fn a_size_no_disk_has_is_refused_before_anything_is_made_of_it() {
    let fixture = Fixture::new();
    let key = PartialKey::Content(fixture.digest());
    for size in [1 << 60, u64::MAX] {
        let error = Partial::open(&fixture.store, key, size).unwrap_err();
        assert_eq!(error.kind(), "no_space");
        assert!(error.hint().is_some());
    }
}

#[test]
fn content_of_no_bytes_is_whole_at_once() {
    let fixture = Fixture::new();
    let partial = Partial::open(&fixture.store, PartialKey::Content(Digest::of(b"")), 0).unwrap();
    assert!(partial.missing(0..partial.n_pieces()).is_empty());
    partial.publish(&fixture.store, Some(Digest::of(b""))).unwrap();
    assert!(fixture.store.blobs().check(&Digest::of(b""), 0).is_ok());
}
