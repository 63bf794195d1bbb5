//! Membership in the group `pantry`, read from the machine's files by hand.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The group whose members install and submit.
const GROUP: &str = "pantry";

/// More than this is no list of local groups or users.
const FILE_CAP: u64 = 4 << 20;

/// Where groups and users are listed.
#[derive(Debug)]
pub(super) struct Groups {
    group: PathBuf,
    passwd: PathBuf,
}

impl Groups {
    pub(super) fn of_this_machine() -> Self {
        Self::new("/etc/group".into(), "/etc/passwd".into())
    }

    pub(super) fn new(group: PathBuf, passwd: PathBuf) -> Self {
        Self { group, passwd }
    }

    /// Whether the user's own group is the group, or its list names the user. Whatever can't be read has no members.
    pub(super) fn is_member(&self, uid: u32, gid: u32) -> bool {
        let groups = read(&self.group);
        let Some((group_gid, members)) = groups.lines().find_map(group_line) else { return false };
        if gid == group_gid {
            return true;
        }
        if members.is_empty() {
            return false;
        }
        let users = read(&self.passwd);
        // Several names may share an id.
        users
            .lines()
            .filter_map(user_line)
            .any(|(name, id)| id == uid && members.split(',').any(|member| member == name))
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let opened = fs_err::File::open(path).and_then(|file| file.take(FILE_CAP).read_to_end(&mut bytes));
    match opened {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::debug!(error = %error, "a list of local groups or users can't be read");
            String::new()
        }
    }
}

/// `(gid, members)` of the group's line. *Source*: group(5).
fn group_line(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split(':');
    let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    (name == GROUP).then_some(())?;
    Some((gid.parse().ok()?, members))
}

/// `(name, uid)` of a user's line. *Source*: passwd(5).
fn user_line(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let (name, _, uid) = (fields.next()?, fields.next()?, fields.next()?);
    (!name.is_empty()).then_some(())?;
    Some((name, uid.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn member(group: &str, passwd: &str, uid: u32, gid: u32) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let (group_file, passwd_file) = (dir.path().join("g"), dir.path().join("p"));
        fs_err::write(&group_file, group).unwrap();
        fs_err::write(&passwd_file, passwd).unwrap();
        Groups::new(group_file, passwd_file).is_member(uid, gid)
    }

    #[test]
    fn only_the_group_itself_counts() {
        let passwd = "ann:x:1001:100::/:\n:x:1002:100::/:\n";
        assert!(member("pantry:x:9:ann\n", passwd, 1001, 100));
        assert!(member("pantry:x:9:\n", passwd, 1001, 9));
        assert!(!member("pantry2:x:9:ann\n#pantry:x:9:ann\n", passwd, 1001, 9));
        assert!(!member("pantry:x:9:anna,an\n", passwd, 1001, 100));
        assert!(!member("pantry:x:9:,\n", passwd, 1002, 100), "an empty name is nobody's");
        assert!(!member("pantry:x::ann\npantry\n+\n", passwd, 1001, 0));
        assert!(!member("", "", 1001, 0));
    }

    #[test]
    fn files_that_are_not_there_have_no_members() {
        let groups = Groups::new("/nonexistent/g".into(), "/nonexistent/p".into());
        assert!(!groups.is_member(1, 1));
    }
}
