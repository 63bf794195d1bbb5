//! How looks at the memory of processes are judged that begin, end and share while they are looked at.
//!
//! A look takes its time, and what it adds up was never all there at one moment: when a process ends, what it shared is
//! divided among fewer, and those looked at later have more of what was counted already. So the sum of one look may be
//! too much by far. A second one tells: what a process has by both, it has had in between, when all of them had it.

/// So many looks without agreement are over the limit: it can't be put off by beginning and ending processes.
const MOST_LOOKS: usize = 6;

/// What a process has of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) pid: u32,
    pub(super) bytes: u64,
}

/// What looks tell, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Not more than the limit.
    Within(u64),
    /// More than the limit.
    Over(u64),
    /// Another look has to tell.
    LookAgain,
}

/// The looks of one sample.
pub(super) struct Looks {
    limit_bytes: u64,
    before: Option<Vec<Part>>,
    count: usize,
}

impl Looks {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, before: None, count: 0 }
    }

    /// Takes one more look.
    pub(super) fn judge(&mut self, look: Vec<Part>) -> Judgement {
        self.count += 1;
        let sum = look.iter().map(|part| part.bytes).sum();
        if sum <= self.limit_bytes {
            return Judgement::Within(sum);
        }
        if let Some(before) = self.before.as_ref() {
            let agreed = look.iter().map(|part| part.bytes.min(of(before, part.pid))).sum();
            if agreed > self.limit_bytes {
                return Judgement::Over(agreed);
            }
        }
        if self.count >= MOST_LOOKS {
            return Judgement::Over(sum);
        }
        self.before = Some(look);
        Judgement::LookAgain
    }
}

fn of(look: &[Part], pid: u32) -> u64 {
    look.iter().find(|part| part.pid == pid).map_or(0, |part| part.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(parts: impl IntoIterator<Item = (u32, u64)>) -> Vec<Part> {
        parts.into_iter().map(|(pid, bytes)| Part { pid, bytes }).collect()
    }

    #[test]
    fn what_is_within_needs_one_look_and_what_is_over_two() {
        let mut looks = Looks::new(100);
        assert_eq!(looks.judge(look([(2, 60), (3, 40)])), Judgement::Within(100));
        let mut looks = Looks::new(100);
        assert_eq!(looks.judge(look([(2, 60), (3, 50)])), Judgement::LookAgain);
        assert_eq!(looks.judge(look([(2, 70), (3, 50)])), Judgement::Over(110));
    }

    #[test]
    fn shares_that_grow_because_others_end_are_not_taken_for_more() {
        // 40 shared by nine, one of which ends after each that was looked at.
        let mut looks = Looks::new(64);
        assert_eq!(looks.judge(look((1..=9).map(|n| (n, 40 / (10 - u64::from(n)))))), Judgement::LookAgain);
        assert_eq!(looks.judge(look([(9, 40)])), Judgement::Within(40));
        // As many begin meanwhile as end.
        let mut looks = Looks::new(64);
        assert_eq!(looks.judge(look([(1, 20), (2, 30), (3, 20)])), Judgement::LookAgain);
        assert_eq!(looks.judge(look([(1, 20), (4, 30), (5, 20)])), Judgement::LookAgain);
        assert_eq!(looks.judge(look([(1, 20), (5, 20)])), Judgement::Within(40));
    }

    #[test]
    fn memory_that_wanders_is_over_after_the_last_look() {
        let mut looks = Looks::new(64);
        for turn in 1..6 {
            assert_eq!(looks.judge(look([(1, 1), (turn + 1, 80)])), Judgement::LookAgain, "{turn}");
        }
        assert_eq!(looks.judge(look([(1, 1), (9, 80)])), Judgement::Over(81));
    }
}
