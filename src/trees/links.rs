//! Where symbolic links lead, decided on names alone.

/// The longest chain of links that is followed, as in the kernel.
const LINK_LIMIT: u32 = 40;

/// What a path of a tree is, as far as following links is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// A link with this target.
    Link(&'a str),
    /// Anything else, also nothing.
    Other,
}

/// Whether the link at `path` leads above the root at some point of its way, or in circles.
///
/// `look` tells what lies at a path of the tree. Links to nowhere are fine: they lead to nothing inside as well.
/// An absolute target starts at the root of the tree.
pub(crate) fn leaves_root<'a>(path: &str, look: &dyn Fn(&str) -> Target<'a>) -> bool {
    let mut at: Vec<String> = Vec::new();
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => {}
            ".." => {
                if at.pop().is_none() {
                    return true;
                }
            }
            _ => {
                at.push(part);
                if let Target::Link(target) = look(&at.join("/")) {
                    followed += 1;
                    if followed > LINK_LIMIT {
                        return true;
                    }
                    at.pop();
                    if target.starts_with('/') {
                        at.clear();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(links: &[(&str, &str)], path: &str) -> bool {
        leaves_root(path, &|at| {
            links.iter().find(|(from, _)| *from == at).map_or(Target::Other, |(_, to)| Target::Link(to))
        })
    }

    #[test]
    fn links_inside_are_fine_and_links_out_are_seen() {
        assert!(!leaves(&[("a", "b/c")], "a"));
        assert!(!leaves(&[("d/a", "../b")], "d/a"));
        assert!(!leaves(&[("d/a", "/b")], "d/a"));
        assert!(leaves(&[("a", "../b")], "a"));
        assert!(leaves(&[("d/a", "../../b")], "d/a"));
        assert!(leaves(&[("a", "/../b")], "a"));
    }

    #[test]
    fn a_second_hop_that_leads_out_is_seen() {
        // On names alone `d/e/x/../..` stays inside; through the link it does not.
        let links = [("d/e/x", "../.."), ("y", "d/e/x/..")];
        assert!(!leaves(&links, "d/e/x"));
        assert!(leaves(&links, "y"));
    }

    #[test]
    fn circles_are_not_followed_for_ever() {
        assert!(leaves(&[("a", "b"), ("b", "a")], "a"));
    }
}
