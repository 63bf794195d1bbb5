//! The names of calls, for people.

/// The table that the filter is compared with in tests: a number, a name and answers a row.
#[cfg(target_arch = "x86_64")]
const TABLE: &str = include_str!("x86_64.txt");
#[cfg(not(target_arch = "x86_64"))]
const TABLE: &str = "";

/// The name of a call, as the manual has it; none for numbers without a call, calls newer than the table, or an
/// architecture that has none.
pub(crate) fn name(number: u32) -> Option<&'static str> {
    let found = TABLE.lines().find_map(|line| {
        let (first, rest) = line.split_once(' ')?;
        (first.parse() == Ok(number)).then(|| rest.split(' ').next().unwrap_or(rest))
    });
    // The numbers between the old calls and the new ones are nobody's.
    found.filter(|name| *name != "-")
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

    #[test]
    fn numbers_without_a_call_have_no_name() {
        // As they stand in the table: a dash in the place of a name.
        for number in [337, 392] {
            assert!(TABLE.lines().any(|line| line.starts_with(&format!("{number} - "))));
            assert_eq!(name(number), None);
        }
    }
}
