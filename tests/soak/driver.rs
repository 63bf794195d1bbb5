//! Clients at work for a while, with collection all the time and deaths of the server in between; then the audit.
//!
//! Each client writes to repositories of its own and knows exactly what they must hold; all of them push, mount and
//! delete the same contents too, so that collection meets bytes that lose their last reference here while they get a
//! new one there. The seed decides who does what in which order; when the server dies and what is collected meanwhile
//! is up to the machine. With one client, and without deaths, a run repeats all but the times.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::audit;
use super::history::story;
use super::random::Dice;
use super::server::{Program, Server};
use super::worker::{Common, Offers, Worker};

const COLLECT_EVERY: &str = "PANTRY_STORAGE_COLLECT_EVERY_SECONDS";

/// What is to be done.
pub struct Soak {
    pub seed: u64,
    pub span: Duration,
    pub workers: usize,
    /// For how long the server keeps what nobody refers to.
    pub grace: Duration,
    /// The shortest and the longest time between two deaths, in milliseconds; none when it is to live.
    pub death_every_ms: Option<(u64, u64)>,
}

/// What was seen.
pub struct Seen {
    pub seed: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub answered: u64,
    /// Requests that a death cut off.
    pub lost: u64,
    pub deaths: u64,
    pub slowest_start: Duration,
    pub read_at_the_end: u64,
    /// Files of blobs that are left, and how many there were at the most.
    pub files_left: usize,
    pub most_files: usize,
    pub resident_mb: u64,
    /// From the end of the work until nothing else was left.
    pub settled_after: Duration,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} requests answered, {} cut off by {} deaths",
            self.seed, self.answered, self.lost, self.deaths
        )?;
        for (what, count) in &self.counts {
            writeln!(f, "  {count:>7} {what}")?;
        }
        write!(
            f,
            "at the end {} contents read and true; {} files left of {} at the most; settled after {:.1} s; \
             slowest start {} ms; {} MB resident",
            self.read_at_the_end,
            self.files_left,
            self.most_files,
            self.settled_after.as_secs_f64(),
            self.slowest_start.as_millis(),
            self.resident_mb,
        )
    }
}

impl Soak {
    /// Runs it on a fresh root.
    ///
    /// # Errors
    /// The first thing that was not as it must be, and what led to it.
    pub fn run(&self, mut program: Program, root: &Path) -> anyhow::Result<Seen> {
        program.settings.extend([
            (COLLECT_EVERY, "1".to_owned()),
            ("PANTRY_STORAGE_COLLECT_GRACE_SECONDS", self.grace.as_secs().to_string()),
        ]);
        let server = Server::start(program, root)?;
        self.drive(&server).map_err(|error| {
            let log = server.whole_log();
            let story = story(root, self.workers, &log, &format!("{error:?}"));
            error.context(format!(
                "seed {}, {} clients{story}\nthe end of what the server said, without what it answered as it \
                 should:\n{}",
                self.seed,
                self.workers,
                server.log()
            ))
        })
    }

    fn drive(&self, server: &Server) -> anyhow::Result<Seen> {
        server.until_settled()?;
        let before = audit::files(&server.root)?;
        let mut dice = Dice::new(self.seed);
        let offers = Offers::default();
        let began = Instant::now();
        let common = Common { server, offers: &offers, pool: dice.next() >> 1, grace: self.grace, began };
        let mut deaths = dice.fork();
        let workers = (0..self.workers)
            .map(|number| Worker::new(&common, number, dice.next()))
            .collect::<anyhow::Result<Vec<_>>>()?;

        let over = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let mut seen = self.nothing_seen();
        let (mut workers, died) = std::thread::scope(|scope| {
            let handles: Vec<_> = workers
                .into_iter()
                .map(|mut worker| {
                    let (over, failure) = (&over, &failure);
                    scope.spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            if let Err(error) = worker.act() {
                                over.store(true, Ordering::Relaxed);
                                let name = &worker.repositories[worker.at].name;
                                failure
                                    .lock()
                                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                                    .get_or_insert(error.context(format!("at work on {name}")));
                            }
                        }
                        worker
                    })
                })
                .collect();
            let died = self.deaths(server, &mut deaths, &over, began, &mut seen);
            over.store(true, Ordering::Relaxed);
            let joined = handles.into_iter().map(std::thread::ScopedJoinHandle::join);
            let workers: Vec<Worker<'_>> =
                joined.map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
            (workers, died)
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(error);
        }
        died?;
        self.audit(server, &mut workers, &before, &mut seen).map_err(|error| error.context("at the end"))?;
        for worker in &workers {
            seen.answered += worker.wire.answered;
            seen.lost += worker.wire.lost;
            for (what, count) in &worker.counts {
                *seen.counts.entry(what).or_default() += count;
            }
        }
        Ok(seen)
    }

    fn nothing_seen(&self) -> Seen {
        Seen {
            seed: self.seed,
            counts: BTreeMap::new(),
            answered: 0,
            lost: 0,
            deaths: 0,
            slowest_start: Duration::ZERO,
            read_at_the_end: 0,
            files_left: 0,
            most_files: 0,
            resident_mb: 0,
            settled_after: Duration::ZERO,
        }
    }

    /// Kills the server again and again until the time is over.
    fn deaths(
        &self,
        server: &Server,
        dice: &mut Dice,
        over: &AtomicBool,
        began: Instant,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        loop {
            let until = match self.death_every_ms {
                Some((least, most)) => {
                    Instant::now() + Duration::from_millis(least + dice.below(most - least + 1))
                }
                None => Instant::now() + self.span,
            };
            while Instant::now() < until {
                if over.load(Ordering::Relaxed) || began.elapsed() >= self.span {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            seen.most_files = seen.most_files.max(audit::files(&server.root)?.len());
            server.kill()?;
            seen.slowest_start = seen.slowest_start.max(server.revive()?);
            seen.deaths += 1;
        }
    }

    fn audit(
        &self,
        server: &Server,
        workers: &mut [Worker<'_>],
        before: &std::collections::BTreeSet<String>,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        server.kill()?;
        server.revive()?;
        seen.deaths += 1;
        for worker in &mut *workers {
            worker.wire.history.note("the audit begins")?;
            audit::retention_has_run(worker)?;
            seen.read_at_the_end += audit::everything_is_there(worker, self.grace)?;
            audit::let_go_of_loose_ones(worker)?;
        }
        let wanted = audit::kept_files(workers, before);
        audit::nothing_else_is_left(server, &wanted, self.grace)?;
        seen.settled_after = began.elapsed();
        seen.files_left = wanted.len();
        // Collection has taken nothing that is kept.
        for worker in &mut *workers {
            audit::everything_is_there(worker, self.grace)?;
            audit::the_counters_agree(worker)?;
        }
        seen.resident_mb = server.resident().unwrap_or_default();
        // Only one run at a time goes over everything: from here on none begins by itself.
        server.stop()?;
        server.set(COLLECT_EVERY, "0");
        server.revive()?;
        audit::the_program_agrees(server)?;
        server.stop()?;
        audit::files_are_true(&server.root)
    }
}
