//! What a run leaves to be taken: hostile trees, and files that somebody still holds.

use std::io::{IoSliceMut, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

use fs_err as fs;
use pantry::sandbox::SkipReason::{Link, Name, Special};
use pantry::sandbox::{End, Limit, OutputCap, SkipReason};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::bench::{Bench, case};

case! {
    fn of_a_hostile_tree_only_plain_files_are_taken(bench: &Bench) {
        let into = bench.dir.path().join("taken");
        let outcome = bench.run(&bench.policy(&["hostile", "/output"]).output("/output", &into));
        assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stderr.text());
        assert_eq!(outcome.stdout.text(), "setuid 1\nsetuid-open 1\ncapability 1\nchar 1\nblock 1\nfifo 0\n");
        let taken = &outcome.outputs[0];
        let mut expected = vec![" ", "-rf", "...", "REPORT.XML", "Report.xml", "report.xml", "twice", "twice again"];
        let longest = "n".repeat(255);
        expected.push(&longest);
        expected.sort_unstable();
        let paths: Vec<&str> = taken.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, expected);
        let mut why: Vec<(&str, SkipReason)> =
            taken.skipped.iter().map(|entry| (entry.path.as_str(), entry.why)).collect();
        why.sort_by_key(|(path, _)| (*path).to_owned());
        let names: Vec<&str> = why.iter().map(|(path, _)| *path).collect();
        assert_eq!(names, ["absolute", "bad��name", "bell\\u{7}", "fifo", "loop", "socket", "upward"]);
        let reasons: Vec<SkipReason> = why.into_iter().map(|(_, why)| why).collect();
        assert_eq!(reasons, [Link, Name, Name, Special, Link, Special, Link]);
        // Names that differ in case alone are files of their own, each with its content.
        for (name, content) in [("report.xml", "lower"), ("Report.xml", "title"), ("REPORT.XML", "upper")] {
            assert_eq!(fs::read_to_string(into.join(name)).unwrap(), content);
        }
        // New files of ours: nobody else's, no special bit, and no longer the same one twice.
        for entry in fs::read_dir(&into).unwrap() {
            let found = entry.unwrap().metadata().unwrap();
            assert!(found.is_file() && found.nlink() == 1 && found.permissions().mode() & 0o7000 == 0);
            assert_eq!(found.uid(), rustix::process::geteuid().as_raw());
        }
    }
}

case! {
    fn no_mode_of_a_directory_makes_taking_the_output_fail(bench: &Bench) {
        // Without root, one that could be read and not searched was an error of the host, and no verdict.
        let into = bench.dir.path().join("taken");
        let outcome = bench.run(&bench.policy(&["shut", "/output"]).output("/output", &into));
        assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stderr.text());
        assert!(outcome.outputs[0].skipped.is_empty(), "{:?}", outcome.outputs[0].skipped);
        for mode in 0..8 {
            let inner = into.join(format!("mode-{mode}/inner"));
            assert_eq!(fs::read_to_string(inner).unwrap(), format!("mode-{mode}"));
        }
    }
}

case! {
    fn deep_and_huge_sparse_trees_are_not_followed(bench: &Bench) {
        let into = bench.dir.path().join("deep");
        let mut policy = bench.policy(&["deep", "/output", "200"]).output("/output", &into);
        let outcome = bench.run(&policy);
        assert_eq!(outcome.outputs[0].over_cap, Some(OutputCap::Depth));
        assert_eq!(outcome.end, End::LimitHit(Limit::Files));
        policy.outputs[0].into = bench.dir.path().join("sparse");
        policy.argv = bench.argv(&["sparse", "/output"]);
        // By default the file may not become so large; where it may, its holes count as bytes.
        assert_eq!(bench.run(&policy).end, End::Signaled(25));
        policy.limits.file_size_bytes = 1 << 50;
        policy.outputs[0].into = bench.dir.path().join("sparse-too");
        let outcome = bench.run(&policy);
        assert_eq!(outcome.stdout.text(), "sparse 0\n");
        assert_eq!(outcome.outputs[0].over_cap, Some(OutputCap::Bytes));
        assert!(outcome.outputs[0].files.is_empty());
    }
}

/// Takes the descriptor that the first caller of this listener passes.
fn passed(listener: &UnixListener) -> OwnedFd {
    let mut waited = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut waited, Some(&patience)), Ok(1), "nobody called");
    let (caller, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&caller, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fds = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A run that passes an open file of its output to this process, by a socket in a directory that both see.
fn run_that_passes(
    bench: &Bench,
    name: &str,
) -> (pantry::sandbox::Outcome, std::path::PathBuf, std::fs::File) {
    let id = 1_700_400;
    let meeting = bench.writable_dir(name, id);
    let listener = UnixListener::bind(meeting.join("socket")).unwrap();
    fs::set_permissions(meeting.join("socket"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let into = bench.dir.path().join(format!("{name}-taken"));
    let mut policy = bench.policy(&["pass", "/data/socket", "/output/report.xml"]);
    policy = policy.data(&meeting, "/data").output("/output", &into);
    policy.identity.host_base = Some(id);
    let (outcome, held) = std::thread::scope(|scope| {
        let held = scope.spawn(|| passed(&listener));
        let outcome = bench.run(&policy);
        assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stdout.text());
        (outcome, held.join().unwrap())
    });
    (outcome, into, held.into())
}

case! {
    fn output_does_not_change_after_it_was_hashed(bench: &Bench) {
        // CVE-2024-27297: the file was moved into place, and who had been given its descriptor wrote on.
        let (outcome, into, mut held) = run_that_passes(bench, "meeting");
        let file = &outcome.outputs[0].files[0];
        assert_eq!((file.path.as_str(), file.sha256.as_str()), ("report.xml", sha256(b"before").as_str()));
        held.rewind().unwrap();
        // The control: it can be written, and says something else then.
        held.write_all(b"forged").unwrap();
        held.rewind().unwrap();
        assert_eq!(std::io::read_to_string(&held).unwrap(), "forged");
        assert_eq!(fs::read_to_string(into.join("report.xml")).unwrap(), "before");
        let same = (held.metadata().unwrap().dev(), held.metadata().unwrap().ino());
        let stored = fs::metadata(into.join("report.xml")).unwrap();
        assert_ne!((stored.dev(), stored.ino()), same, "a new file");
    }
}
