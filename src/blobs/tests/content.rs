//! Bytes in, bytes out.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use futures_util::stream::TryStreamExt as _;
use proptest::prelude::*;

use super::super::{BlobError, INLINE_BYTES, Reader};
use super::{Root, content};
use crate::names::Digest;

const SIZES: [usize; 8] =
    [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 256 * 1_024, 256 * 1_024 + 1, 3_000_000, 20 * 1_024 * 1_024];

/// Copies of the pieces, which go at once as they would when they are sent.
async fn collect(reader: Reader, range: Option<std::ops::Range<u64>>) -> Vec<Bytes> {
    reader.stream(range).map_ok(|piece| Bytes::copy_from_slice(&piece)).try_collect().await.unwrap()
}

#[tokio::test]
async fn what_is_streamed_in_comes_out_whatever_its_size_and_pieces() {
    let root = Root::new().await;
    for (seed, size) in SIZES.into_iter().enumerate() {
        for piece in [1_000, 70_000, 1_000_000] {
            if size / piece > 5_000 {
                continue;
            }
            let bytes = content(seed as u64, size);
            let digest = Digest::of(&bytes);
            let mut writer = root.blobs.begin().await.unwrap();
            for start in (0..size).step_by(piece) {
                writer.write(bytes.slice(start..size.min(start + piece))).await.unwrap();
            }
            assert_eq!(writer.written(), size as u64);
            let stored = writer.finish(Some(&digest)).await.unwrap();
            assert_eq!((&stored.digest, stored.size), (&digest, size as u64));
            if piece == 1_000 {
                assert!(root.blobs.open_blob(&digest).await.unwrap().is_none(), "not before it is linked");
            }
            root.link(&stored).await;
            assert_eq!(root.blobs.size(&digest).await.unwrap(), Some(size as u64));
            let reader = root.blobs.open_blob(&digest).await.unwrap().unwrap();
            assert_eq!(reader.size(), size as u64);
            let pieces = collect(reader, None).await;
            if size > INLINE_BYTES {
                let grows = [16, 64].into_iter().chain(std::iter::repeat(256)).map(|kib| kib * 1_024);
                assert!(
                    pieces.iter().rev().skip(1).rev().zip(grows).all(|(piece, size)| piece.len() == size)
                );
            }
            assert_eq!(pieces.concat(), bytes);
            assert_eq!(root.blobs.read_small(&digest, size as u64).await.unwrap(), bytes);
            let mut blocking = Vec::new();
            let reader = root.blobs.open_blob_blocking(&digest).unwrap().unwrap();
            reader.into_blocking().read_to_end(&mut blocking).unwrap();
            assert_eq!(blocking, bytes);
            let path = root.blob_path(&digest);
            assert_eq!(path.exists(), size > INLINE_BYTES, "{size}");
            if path.exists() {
                assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
            }
        }
    }
    assert_eq!(root.uploads(), [""; 0]);
}

#[tokio::test]
async fn whole_bytes_and_blocking_streams_give_the_same_blobs() {
    let root = Root::new().await;
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = content(seed as u64, size);
        let whole = root.blobs.put(bytes.clone()).await.unwrap();
        let (blobs, source) = (root.blobs.clone(), bytes.clone());
        let streamed = tokio::task::spawn_blocking(move || {
            let cap = source.len() as u64;
            let refused = blobs.put_reader_blocking(&mut &source[..], cap.saturating_sub(1));
            assert!(cap == 0 || matches!(refused, Err(BlobError::TooLarge { .. })));
            blobs.put_reader_blocking(&mut &source[..], cap).unwrap()
        });
        assert_eq!(streamed.await.unwrap().digest, whole.digest);
        root.link(&whole).await;
        assert_eq!(root.blobs.read_small(&whole.digest, u64::MAX).await.unwrap(), bytes);
    }
    super::eventually("the refused ones are gone", || root.uploads().is_empty()).await;
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let root = Root::new().await;
    for (size, announced) in
        [(10, Digest::of(b"x")), (1_000_000, Digest::of(b"x")), (1_000_000, Digest::sha512_of(b"x"))]
    {
        let mut writer = root.blobs.begin().await.unwrap();
        writer.write(content(1, size)).await.unwrap();
        let error = writer.finish(Some(&announced)).await.unwrap_err();
        assert_eq!((error.code(), error.hint().is_some()), ("blob_digest_mismatch", true));
        assert!(matches!(error, BlobError::DigestMismatch { expected, .. } if expected == announced));
    }
    assert_eq!((root.uploads(), root.blob_files()), (vec![], 0));
}

#[tokio::test]
async fn a_sha512_name_is_verified_but_nothing_is_found_under_it() {
    let root = Root::new().await;
    for size in [10, 1_000_000] {
        let bytes = content(2, size);
        let name = Digest::sha512_of(&bytes);
        let mut writer = root.blobs.begin().await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        let stored = writer.finish(Some(&name)).await.unwrap();
        assert_eq!(stored.digest, Digest::of(&bytes));
        root.link(&stored).await;
        assert!(root.blobs.open_blob(&name).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn two_writers_of_one_content_make_one_blob_and_the_first_file_stays() {
    use std::os::unix::fs::MetadataExt as _;
    let root = Root::new().await;
    let bytes = content(3, 2_000_000);
    let mut writers = Vec::new();
    for _ in 0..4 {
        let mut writer = root.blobs.begin().await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        writers.push(writer);
    }
    let done = futures_util::future::join_all(writers.into_iter().map(|writer| writer.finish(None))).await;
    let stored: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    assert_eq!((root.uploads(), root.blob_files()), (vec![], 1));
    let path = root.blob_path(&stored[0].digest);
    let inode = fs_err::metadata(&path).unwrap().ino();
    root.blobs.put(bytes.clone()).await.unwrap();
    assert_eq!(fs_err::metadata(&path).unwrap().ino(), inode, "an existing file is not replaced");
    // A file of another size is no blob of ours: it gives way.
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, "cut").unwrap();
    root.link(&root.blobs.put(bytes.clone()).await.unwrap()).await;
    assert_eq!(root.blobs.read_small(&stored[0].digest, u64::MAX).await.unwrap(), bytes);
}

#[tokio::test]
async fn damaged_cut_and_missing_files_are_told_and_never_passed_on_as_whole() {
    let root = Root::new().await;
    let bytes = content(4, 1_000_000);
    let stored = root.blobs.put(bytes.clone()).await.unwrap();
    root.link(&stored).await;
    let (digest, path) = (stored.digest.clone(), root.blob_path(&stored.digest));
    fs_err::remove_file(&path).unwrap();
    assert!(matches!(root.blobs.open_blob(&digest).await, Err(BlobError::Missing(_))));
    fs_err::write(&path, &bytes[..900_000]).unwrap();
    assert!(matches!(root.blobs.open_blob(&digest).await, Err(BlobError::Damaged(_))));
    fs_err::write(&path, &bytes).unwrap();
    let [streamed, whole] = [(); 2].map(|()| root.blobs.open_blob_blocking(&digest).unwrap().unwrap());
    fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(900_000).unwrap();
    let cut: Result<Vec<Bytes>, _> = streamed.stream(None).try_collect().await;
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    let cut = whole.into_blocking().read_to_end(&mut Vec::new());
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(matches!(root.blobs.read_small(&digest, u64::MAX).await, Err(BlobError::Damaged(_))));
    fs_err::write(&path, content(5, 1_000_000)).unwrap();
    assert!(matches!(root.blobs.read_small(&digest, u64::MAX).await, Err(BlobError::Damaged(_))));
    assert!(matches!(root.blobs.read_small(&digest, 9).await, Err(BlobError::TooLarge { cap: 9 })));
    let unknown = Digest::of(b"unknown");
    assert!(matches!(root.blobs.read_small(&unknown, 9).await, Err(BlobError::Unknown(_))));
}

#[tokio::test]
async fn a_failed_write_spoils_the_upload_and_health_tells() {
    let root = Root::new().await;
    root.blobs.check().await.unwrap();
    assert_eq!(root.uploads(), [""; 0]);
    fs_err::remove_dir(root.folder.path().join("uploads")).unwrap();
    let error = root.blobs.check().await.unwrap_err();
    assert_eq!((error.code(), error.hint().is_some()), ("blob_io_failed", true));
    let mut writer = root.blobs.begin().await.unwrap();
    // Taken before it is known that they cannot be written.
    writer.write(content(6, 300_000)).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..8 {
        if let Err(error) = writer.write(content(6, 300_000)).await {
            told.push(error.code());
        }
    }
    assert_eq!(told.first(), Some(&"blob_io_failed"));
    // The folder comes back, but bytes are missing: the upload must not be finished.
    fs_err::create_dir(root.folder.path().join("uploads")).unwrap();
    assert_eq!(writer.finish(None).await.unwrap_err().code(), "upload_spoiled");
    assert_eq!(root.blob_files(), 0);
}

#[tokio::test]
async fn opening_makes_every_folder() {
    let root = Root::new().await;
    let folders = fs_err::read_dir(root.folder.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(folders, 256);
    fs_err::remove_dir(root.folder.path().join("blobs/sha256/a7")).unwrap();
    let root = root.restart().await;
    assert!(root.folder.path().join("blobs/sha256/a7").is_dir());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_range_is_what_a_slice_would_be(
        size in prop_oneof![0..64_usize, 30_000..40_000_usize, 500_000..1_200_000_usize],
        ranges in proptest::collection::vec((0..1_300_000_u64, 0..1_300_000_u64), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let root = Root::new().await;
            let bytes = content(7, size);
            let stored = root.blobs.put(bytes.clone()).await.unwrap();
            root.link(&stored).await;
            for (start, end) in ranges {
                let reader = root.blobs.open_blob(&stored.digest).await.unwrap().unwrap();
                let got = collect(reader, Some(start..end)).await.concat();
                let clip = |at: u64| usize::try_from(at).unwrap().min(size);
                assert_eq!(got, bytes[clip(start).min(clip(end))..clip(end)]);
            }
        });
    }
}
