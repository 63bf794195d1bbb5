//! Pulls at a steady pace, as from clients that don't wait for one another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use crate::connection::Connection;
use crate::requests::{self, Image};
use crate::target::Target;

/// When a pull was due, and how long it took from then.
#[derive(Clone, Copy, Debug)]
pub struct Pull {
    pub due: SystemTime,
    pub took: Duration,
}

/// Clients at once.
const CLIENTS: u32 = 2;

/// Pulls images so many times a second until `enough`. A pull counts from the moment at which it was due, so that one
/// that had to wait for another shows that.
pub fn pull(target: &Target, images: &[Image], rate: u32, enough: &AtomicBool) -> anyhow::Result<Vec<Pull>> {
    let pace = Duration::from_secs(1) * CLIENTS / rate;
    let began = Instant::now();
    let client = |number: u32| -> anyhow::Result<Vec<Pull>> {
        let mut connection = Connection::open(target)?;
        let mut pulls = Vec::new();
        let mut due = began + pace * number / CLIENTS;
        for image in images.iter().cycle() {
            if enough.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            requests::pull_image(&mut connection, image).context("a pull failed")?;
            let took = due.elapsed();
            pulls.push(Pull { due: SystemTime::now() - took, took });
            due += pace;
        }
        Ok(pulls)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let mut all = Vec::new();
        for client in clients {
            match client.join() {
                Ok(pulls) => all.extend(pulls?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}
