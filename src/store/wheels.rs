//! Which of a package's wheels fits the bundle: the tags of their file names, ranked.
//!
//! *Source*: the binary distribution format and platform compatibility tags of the Python packaging specifications.

use serde::{Deserialize, Serialize};

/// What the resolver found: the packages of the lockfile with all wheels of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resolved {
    /// Version of the bundle's C library, such as `2.36`; empty when it is another one.
    pub(crate) glibc: String,
    pub(crate) packages: Vec<ResolvedPackage>,
}

/// A package of the lockfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolvedPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) wheels: Vec<Wheel>,
}

/// A wheel as the index announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheel {
    pub(crate) url: String,
    pub(crate) file: String,
    pub(crate) sha256: String,
}

/// What wheels run on: `CPython` 3.`minor` on one machine type over glibc 2.`glibc_minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) minor: u32,
    pub(crate) machine: &'a str,
    pub(crate) glibc_minor: Option<u32>,
}

impl<'a> Target<'a> {
    /// From the bundle's Python version (`3.11.2`), platform (`linux/amd64`) and C library (`2.36`).
    pub(crate) fn of(python: &str, platform: &'a str, glibc: &str) -> Option<Self> {
        let minor = python.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
        let machine = match platform.rsplit('/').next()? {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let glibc_minor = glibc.strip_prefix("2.").and_then(|rest| rest.split('.').next()?.parse().ok());
        Some(Self { minor, machine, glibc_minor })
    }

    /// The best of these wheels, if one fits.
    pub(crate) fn choose<'w>(&self, wheels: &'w [Wheel]) -> Option<&'w Wheel> {
        wheels
            .iter()
            .filter(|wheel| is_file_name(&wheel.file) && is_sha256(&wheel.sha256))
            .filter_map(|wheel| Some((self.rank(&wheel.file)?, wheel)))
            .max_by(|(left, a), (right, b)| left.cmp(right).then_with(|| b.file.cmp(&a.file)))
            .map(|(_, wheel)| wheel)
    }

    /// How well a wheel fits, higher is better; none when it doesn't.
    fn rank(&self, file: &str) -> Option<Rank> {
        let stem = file.strip_suffix(".whl")?;
        let parts: Vec<&str> = stem.split('-').collect();
        if parts.len() != 5 && parts.len() != 6 {
            return None;
        }
        let [python, abi, platform] = parts[parts.len() - 3..] else { return None };
        let build = if parts.len() == 6 { leading_number(parts[2]) } else { 0 };
        let mut best = None;
        for platform in platform.split('.').filter_map(|tag| self.platform_rank(tag)) {
            for python in python.split('.') {
                for abi in abi.split('.') {
                    if let Some(interpreter) = self.interpreter_rank(python, abi) {
                        best = best.max(Some(Rank { specific: platform > 0, interpreter, platform, build }));
                    }
                }
            }
        }
        best
    }

    fn interpreter_rank(&self, python: &str, abi: &str) -> Option<u32> {
        let own = format!("cp3{}", self.minor);
        if python == own && abi == own {
            return Some(2_000);
        }
        let stable = python.strip_prefix("cp3").and_then(|minor| minor.parse::<u32>().ok());
        match (abi, stable) {
            ("abi3", Some(minor)) if (2..=self.minor).contains(&minor) => return Some(1_000 + minor),
            ("none", Some(minor)) if minor == self.minor => return Some(900),
            _ => {}
        }
        let pure = python.strip_prefix("py3").filter(|_| abi == "none")?;
        match pure {
            "" => Some(1),
            minor => minor.parse::<u32>().ok().filter(|minor| *minor <= self.minor).map(|minor| 10 + minor),
        }
    }

    fn platform_rank(&self, tag: &str) -> Option<u32> {
        if tag == "any" {
            return Some(0);
        }
        let tag = tag.strip_suffix(self.machine)?.strip_suffix('_')?;
        let needed = match tag {
            "linux" => return Some(1),
            "manylinux1" => 5,
            "manylinux2010" => 12,
            "manylinux2014" => 17,
            _ => tag.strip_prefix("manylinux_2_")?.parse::<u32>().ok()?,
        };
        (needed <= self.glibc_minor?).then_some(needed + 2)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    specific: bool,
    interpreter: u32,
    platform: u32,
    build: u64,
}

fn leading_number(text: &str) -> u64 {
    text.chars().take_while(char::is_ascii_digit).take(18).collect::<String>().parse().unwrap_or(0)
}

/// A wheel's file name that can be a name of ours on disk.
pub(crate) fn is_file_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-+!".contains(&b);
    text.len() <= 250
        && text.strip_suffix(".whl").is_some()
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn wheel(file: &str) -> Wheel {
        Wheel { url: format!("http://127.0.0.1/{file}"), file: file.to_owned(), sha256: "a".repeat(64) }
    }

    fn target() -> Target<'static> {
        Target::of("3.11.2", "linux/amd64", "2.36").unwrap()
    }

    #[rstest]
    #[case::own_over_stable(&["a-1-cp37-abi3-manylinux_2_17_x86_64.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 1)]
    #[case::stable_over_pure(&["a-1-py3-none-any.whl", "a-1-cp37-abi3-manylinux2014_x86_64.whl"], 1)]
    #[case::newer_stable(&["a-1-cp39-abi3-manylinux2014_x86_64.whl", "a-1-cp36-abi3-manylinux2014_x86_64.whl"], 0)]
    #[case::newer_libc(&["a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"], 1)]
    #[case::too_new_libc(&["a-1-cp311-cp311-manylinux_2_39_x86_64.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 1)]
    #[case::compressed(&["a-1-py2.py3-none-any.whl"], 0)]
    #[case::many_platforms(&["a-1-cp311-cp311-manylinux_2_40_x86_64.manylinux2014_x86_64.whl"], 0)]
    #[case::build_number(&["a-1-1-py3-none-any.whl", "a-1-12-py3-none-any.whl"], 1)]
    #[case::others(&["a-1-cp312-cp312-manylinux_2_17_x86_64.whl", "a-1-cp311-cp311-win_amd64.whl", "a-1-py3-none-any.whl"], 2)]
    fn the_best_wheel_is_chosen(#[case] files: &[&str], #[case] best: usize) {
        let wheels: Vec<Wheel> = files.iter().map(|file| wheel(file)).collect();
        assert_eq!(target().choose(&wheels), Some(&wheels[best]));
    }

    #[rstest]
    #[case("a-1-cp312-cp312-manylinux_2_17_x86_64.whl")]
    #[case("a-1-cp312-abi3-manylinux_2_17_x86_64.whl")]
    #[case("a-1-cp311-cp311-manylinux_2_17_aarch64.whl")]
    #[case("a-1-cp311-cp311-musllinux_1_2_x86_64.whl")]
    #[case("a-1-cp311-cp311-macosx_11_0_arm64.whl")]
    #[case("a-1-py2-none-any.whl")]
    #[case("a-1-pp310-pypy310_pp73-manylinux2014_x86_64.whl")]
    #[case("a-1-py3-none-any.zip")]
    #[case("a-1.whl")]
    #[case("../a-1-py3-none-any.whl")]
    #[case("a-1-py3-none-any.whl/../../x.whl")]
    fn what_does_not_fit_is_left_out(#[case] file: &str) {
        assert_eq!(target().choose(&[wheel(file)]), None);
    }

    #[test]
    fn without_glibc_only_pure_wheels_fit() {
        let target = Target::of("3.12.0", "linux/arm64", "").unwrap();
        assert_eq!(target.machine, "aarch64");
        assert!(target.choose(&[wheel("a-1-cp312-cp312-manylinux2014_aarch64.whl")]).is_none());
        assert!(target.choose(&[wheel("a-1-py3-none-any.whl")]).is_some());
        assert!(Target::of("2.7", "linux/amd64", "2.36").is_none());
    }

    #[test]
    fn a_wheel_without_a_proper_hash_is_not_taken() {
        let mut bad = wheel("a-1-py3-none-any.whl");
        bad.sha256 = "../../x".to_owned();
        assert!(target().choose(&[bad]).is_none());
    }
}
