//! Uploads that are given up, suspended, resumed and swept.

use std::time::Duration;

use super::super::{BlobError, Writer, upload_offset};
use super::{Root, content, eventually};
use crate::names::{Algorithm, Digest, UploadId};

#[tokio::test]
async fn a_writer_that_is_given_up_leaves_nothing() {
    let root = Root::new().await;
    let mut dropped = root.blobs.begin().await.unwrap();
    dropped.write(content(1, 3_000_000)).await.unwrap();
    drop(dropped);
    eventually("the file of the dropped writer goes", || root.uploads().is_empty()).await;
    let mut discarded = root.blobs.begin().await.unwrap();
    discarded.write(content(1, 3_000_000)).await.unwrap();
    discarded.discard().await.unwrap();
    assert_eq!((root.uploads(), root.blob_files()), (vec![], 0));
}

#[tokio::test]
async fn a_suspended_upload_is_resumed_after_a_restart() {
    let bytes = content(2, 5_000_000);
    // From the very beginning, within the first batch, beyond it, at the end.
    for first in [0, 7, 40_000, 2_500_001, 5_000_000] {
        let root = Root::new().await;
        let mut writer = root.blobs.begin().await.unwrap();
        writer.write(bytes.slice(..first)).await.unwrap();
        let id = writer.suspend().await.unwrap();
        let root = root.restart().await;
        let offset = {
            let id = id.clone();
            root.state.read(move |view| upload_offset(view, &id)).await.unwrap()
        };
        assert_eq!(offset, Some(first as u64));
        let mut writer = root.blobs.resume(&id).await.unwrap().unwrap();
        assert_eq!((writer.written(), writer.id()), (first as u64, &id));
        writer.write(bytes.slice(first..)).await.unwrap();
        let stored = writer.finish(Some(&Digest::of(&bytes))).await.unwrap();
        root.link(&stored).await;
        assert_eq!(root.blobs.read_small(&stored.digest, u64::MAX).await.unwrap(), bytes);
        assert!(root.blobs.resume(&id).await.unwrap().is_none(), "its record ended with the link");
        assert_eq!(root.uploads(), [""; 0]);
    }
}

/// Not synced, so what a loss of power took is noticed before anybody goes on from it.
#[tokio::test]
async fn an_upload_that_is_being_written_goes_on_from_its_last_checkpoint_if_its_bytes_are_there() {
    let bytes = content(9, 1_000_000);
    for (spoil, goes_on) in
        [(None, true), (Some(0_u64), false), (Some(299_990), false), (Some(300_001), true)]
    {
        let root = Root::new().await;
        let mut writer = root.blobs.begin().await.unwrap();
        let id = writer.id().clone();
        for end in [100_000, 300_001] {
            let from = usize::try_from(writer.written()).unwrap();
            writer.write(bytes.slice(from..end)).await.unwrap();
            writer.checkpoint().await.unwrap();
        }
        writer.write(bytes.slice(300_001..600_000)).await.unwrap();
        writer.flush().await.unwrap();
        drop(writer);
        if let Some(at) = spoil {
            use std::os::unix::fs::FileExt as _;
            let path = root.folder.path().join("uploads").join(id.to_string());
            let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
            file.file().write_all_at(&[0; 11], at).unwrap();
        }
        let root = root.restart().await;
        match root.blobs.resume(&id).await.unwrap() {
            Some(mut writer) => {
                assert!(goes_on && writer.written() == 300_001, "{spoil:?}");
                writer.write(bytes.slice(300_001..)).await.unwrap();
                let stored = writer.finish(Some(&Digest::of(&bytes))).await.unwrap();
                root.link(&stored).await;
                assert_eq!(root.blobs.read_small(&stored.digest, u64::MAX).await.unwrap(), bytes);
                assert_eq!(root.uploads(), [""; 0]);
            }
            None => assert!(!goes_on, "{spoil:?}"),
        }
    }
}

/// A mark that is not whole leaves the one before it; one that says more than is there makes the one before it count.
#[tokio::test]
async fn an_upload_goes_on_from_the_last_of_its_marks_that_is_whole_and_true() {
    let bytes = content(9, 600_000);
    // Which bytes of the marks and of the upload are spoiled, and where the upload goes on.
    let cases: [(&[u64], Option<u64>, Option<u64>); 7] = [
        (&[], None, Some(300_000)),
        (&[4_100], None, Some(200_000)),
        (&[50, 4_100], None, Some(100_000)),
        (&[], Some(250_000), Some(200_000)),
        (&[50], Some(250_000), Some(100_000)),
        (&[], Some(0), None),
        (&[], Some(300_001), Some(300_000)),
    ];
    for (marks, upload, expected) in cases {
        let root = Root::new().await;
        let mut writer = root.blobs.begin().await.unwrap();
        let id = writer.id().clone();
        for from in [0, 100_000, 200_000] {
            writer.write(bytes.slice(from..from + 100_000)).await.unwrap();
            match from {
                0 => writer.checkpoint().await.unwrap(),
                _ => writer.mark().await.unwrap(),
            }
        }
        writer.write(bytes.slice(300_000..400_000)).await.unwrap();
        writer.flush().await.unwrap();
        drop(writer);
        let spoil = |name: String, at: u64| {
            use std::os::unix::fs::FileExt as _;
            let path = root.folder.path().join("uploads").join(name);
            let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
            file.file().write_all_at(&[0; 11], at).unwrap();
        };
        for at in marks {
            spoil(format!("{id}.mark"), *at);
        }
        if let Some(at) = upload {
            spoil(id.to_string(), at);
        }
        let root = root.restart().await;
        let resumed = root.blobs.resume(&id).await.unwrap();
        let at = resumed.as_ref().map(Writer::written);
        assert_eq!(at, expected, "marks spoiled at {marks:?}, upload at {upload:?}");
        let Some(mut writer) = resumed else { continue };
        let from = usize::try_from(writer.written()).unwrap();
        writer.write(bytes.slice(from..)).await.unwrap();
        let stored = writer.finish(Some(&Digest::of(&bytes))).await.unwrap();
        root.link(&stored).await;
        assert_eq!(root.blobs.read_small(&stored.digest, u64::MAX).await.unwrap(), bytes);
        assert_eq!(root.uploads(), [""; 0], "its marks go with it");
    }
}

#[tokio::test]
async fn marks_go_with_their_upload_however_it_ends() {
    let bytes = content(10, 200_000);
    for way in 0..4 {
        let root = Root::new().await;
        let mut writer = root.blobs.begin().await.unwrap();
        writer.write(bytes.slice(..100_000)).await.unwrap();
        writer.checkpoint().await.unwrap();
        writer.write(bytes.slice(100_000..)).await.unwrap();
        writer.mark().await.unwrap();
        let id = writer.id().clone();
        assert_eq!(root.uploads().len(), 2);
        match way {
            0 => writer.discard().await.unwrap(),
            1 => drop(writer.finish(Some(&Digest::of(b"other"))).await.unwrap_err()),
            2 => {
                writer.suspend().await.unwrap();
                assert_eq!(root.uploads(), [id.to_string()], "the record says as much");
                continue;
            }
            _ => {
                drop(writer);
                fs_err::remove_file(root.folder.path().join("uploads").join(id.to_string())).unwrap();
                let root = root.restart().await;
                assert_eq!(root.uploads(), [""; 0]);
                continue;
            }
        }
        assert_eq!(root.uploads(), [""; 0]);
    }
}

#[tokio::test]
async fn the_hash_by_sha512_goes_on_with_its_upload_or_is_made_at_the_end() {
    let bytes = content(8, 1_000_000);
    let long = Digest::sha512_of(&bytes);
    for (begun, aside) in [
        (Algorithm::Sha512, false),
        (Algorithm::Sha512, true),
        (Algorithm::Sha256, false),
        // As a record of before the second hash was kept.
        (Algorithm::Sha256, true),
    ] {
        for (expected, right) in
            [(&long, true), (&Digest::of(&bytes), true), (&Digest::sha512_of(b""), false)]
        {
            let root = Root::new().await;
            let mut writer = root.blobs.begin_named(begun).await.unwrap();
            writer.write(bytes.slice(..400_001)).await.unwrap();
            if aside {
                let id = writer.suspend().await.unwrap();
                writer = root.blobs.resume(&id).await.unwrap().unwrap();
            }
            writer.write(bytes.slice(400_001..)).await.unwrap();
            match writer.finish(Some(expected)).await {
                Ok(stored) => assert!(right && stored.digest == Digest::of(&bytes)),
                Err(BlobError::DigestMismatch { found, .. }) => assert!(!right && found == long),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_small_upload_in_several_requests_becomes_an_inline_blob() {
    let root = Root::new().await;
    let id = root.blobs.begin().await.unwrap().suspend().await.unwrap();
    for piece in [&b"ab"[..], b"cd"] {
        let mut writer = root.blobs.resume(&id).await.unwrap().unwrap();
        writer.write(piece.into()).await.unwrap();
        writer.suspend().await.unwrap();
    }
    let writer = root.blobs.resume(&id).await.unwrap().unwrap();
    let stored = writer.finish(Some(&Digest::of(b"abcd"))).await.unwrap();
    root.link(&stored).await;
    assert_eq!((root.uploads(), root.blob_files()), (vec![], 0));
    assert_eq!(root.blobs.read_small(&stored.digest, 4).await.unwrap(), &b"abcd"[..]);
}

#[tokio::test]
async fn bytes_beyond_the_record_are_cut_off_and_a_file_shorter_than_it_is_no_upload() {
    let root = Root::new().await;
    let bytes = content(3, 1_000_000);
    let mut writer = root.blobs.begin().await.unwrap();
    writer.write(bytes.slice(..600_000)).await.unwrap();
    let id = writer.suspend().await.unwrap();
    // A request that breaks off after some bytes reached the file: the upload stays where its record says.
    let mut broken = root.blobs.resume(&id).await.unwrap().unwrap();
    broken.write(content(4, 400_000)).await.unwrap();
    assert!(matches!(root.blobs.resume(&id).await, Err(BlobError::UploadBusy(_))));
    drop(broken);
    let mut resumed = None;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while resumed.is_none() {
        assert!(std::time::Instant::now() < deadline, "the broken request never let go");
        resumed = root.blobs.resume(&id).await.unwrap_or_default();
    }
    let mut writer = resumed.unwrap();
    assert_eq!(writer.written(), 600_000);
    writer.write(bytes.slice(600_000..)).await.unwrap();
    writer.finish(Some(&Digest::of(&bytes))).await.unwrap();

    let mut writer = root.blobs.begin().await.unwrap();
    writer.write(bytes.slice(..600_000)).await.unwrap();
    let id = writer.suspend().await.unwrap();
    let path = root.folder.path().join("uploads").join(id.as_str());
    fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(599_999).unwrap();
    assert!(root.blobs.resume(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_wrong_digest_ends_a_suspended_upload_and_so_does_discarding_it() {
    let root = Root::new().await;
    for discard in [false, true] {
        let mut writer = root.blobs.begin().await.unwrap();
        writer.write(content(5, 300_000)).await.unwrap();
        let id = writer.suspend().await.unwrap();
        let writer = root.blobs.resume(&id).await.unwrap().unwrap();
        if discard {
            writer.discard().await.unwrap();
        } else {
            writer.finish(Some(&Digest::of(b"x"))).await.unwrap_err();
        }
        assert!(root.blobs.resume(&id).await.unwrap().is_none());
    }
    assert_eq!((root.uploads(), root.blob_files()), (vec![], 0));
}

#[tokio::test]
async fn the_sweep_removes_what_no_record_names_and_what_ran_out_and_nothing_else() {
    let root = Root::new().await;
    let mut old = root.blobs.begin().await.unwrap();
    old.write(content(6, 300_000)).await.unwrap();
    let old = old.suspend().await.unwrap();
    let in_use = root.blobs.begin().await.unwrap().suspend().await.unwrap();
    root.clock.advance(Duration::from_hours(20));
    let mut young = root.blobs.begin().await.unwrap();
    young.write(content(7, 300_000)).await.unwrap();
    let young = young.suspend().await.unwrap();
    let writer = root.blobs.resume(&in_use).await.unwrap().unwrap();
    root.clock.advance(Duration::from_hours(5));
    assert!(root.blobs.resume(&old).await.unwrap().is_none(), "it ran out");
    assert_eq!(root.blobs.sweep_uploads().await.unwrap(), 1);
    assert_eq!(root.uploads(), [young.to_string()]);
    drop(writer);

    let uploads = root.folder.path().join("uploads");
    for name in ["0-left-by-a-crash", "not an upload id", ".hidden"] {
        fs_err::write(uploads.join(name), "half").unwrap();
    }
    let root = root.restart().await;
    assert_eq!(root.uploads(), [young.to_string()]);
    assert!(root.blobs.resume(&in_use).await.unwrap().is_none());
    assert!(root.blobs.resume(&young).await.unwrap().is_some());
    assert!(root.blobs.resume(&UploadId::parse("unknown").unwrap()).await.unwrap().is_none());
}
