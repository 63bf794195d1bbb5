//! The names of calls, for people.

/// The table that the filter is compared with in tests: a number, a name and answers a row.
#[cfg(target_arch = "x86_64")]
const TABLE: &str = include_str!("x86_64.txt");
#[cfg(not(target_arch = "x86_64"))]
const TABLE: &str = "";

/// The name of a call, as the manual has it; none for calls newer than the table, or of an architecture that has none.
pub(crate) fn name(number: u32) -> Option<&'static str> {
    TABLE.lines().find_map(|line| {
        let (first, rest) = line.split_once(' ')?;
        (first.parse() == Ok(number)).then(|| rest.split(' ').next().unwrap_or(rest))
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use nix::libc;

    #[test]
    fn numbers_have_the_names_of_the_manual() {
        for (number, expected) in [
            (libc::SYS_read, "read"),
            (libc::SYS_ptrace, "ptrace"),
            (libc::SYS_clone3, "clone3"),
            (libc::SYS_fchmodat2, "fchmodat2"),
        ] {
            assert_eq!(u32::try_from(number).ok().and_then(name), Some(expected));
        }
        assert_eq!(name(9999), None);
    }
}
