//! The task: goes through the passes, saves where it stands, and reports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::keeper::Figures;
use super::order::{Account, Order};
use super::pass::AnyPass;
use super::report::{self, ReportRecord};
use super::work::{COLLECTION, Kind};
use crate::audit;
use crate::changes::{Step, Task, TaskContext, TaskFailure};
use crate::state::{State, StateError};

/// After so long the place is saved even when there was nothing to do.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// The one task of a change of this part.
pub(super) struct Upkeep {
    pub(super) kind: Kind,
    pub(super) passes: Vec<Arc<dyn AnyPass>>,
    pub(super) state: State,
    pub(super) figures: Arc<Figures>,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Place {
    /// The pass; the first one when there is none.
    pass: Option<String>,
    from: Option<String>,
    account: Account,
}

impl Task for Upkeep {
    fn kind(&self) -> &'static str {
        self.kind.task
    }

    fn run<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<Step, TaskFailure>> {
        Box::pin(self.go(ctx))
    }

    /// What was collected was wanted by nobody: there is nothing to take back.
    fn undo<'a>(&'a self, _ctx: &'a TaskContext) -> BoxFuture<'a, Result<(), TaskFailure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Upkeep {
    async fn go(&self, ctx: &TaskContext) -> Result<Step, TaskFailure> {
        let asked: Asked = ctx.data()?;
        let order = asked.order;
        let mut place: Place = ctx.saved()?.unwrap_or_default();
        // A pass that an older binary saved and this one does not know begins the run anew.
        let mut at = place
            .pass
            .as_ref()
            .and_then(|name| self.passes.iter().position(|pass| pass.name() == name))
            .unwrap_or_default();
        let (mut saved_at, mut saved_done) = (Instant::now(), place.account.done);
        while let Some(pass) = self.passes.get(at) {
            if ctx.cancelled() {
                return Err(TaskFailure::new("cancelled", "the run was aborted; what it did stays done"));
            }
            // The lines name repositories, so they stand in the report alone, which is for administrators.
            let next = pass.any_step(place.from.take(), &order, &mut place.account).await?;
            ctx.progress(place.account.seen, 0, "looked at");
            if next.is_none() {
                at += 1;
            }
            place.from = next;
            place.pass = self.passes.get(at).map(|pass| pass.name().to_owned());
            // What a dry run saw is seen again when it is run again.
            if place.pass.is_some() && (place.account.done != saved_done || saved_at.elapsed() >= SAVE_EVERY)
            {
                ctx.save(&place).await?;
                (saved_at, saved_done) = (Instant::now(), place.account.done);
            }
        }
        self.report(ctx, asked, place.account).await?;
        Ok(Step::Done)
    }

    async fn report(&self, ctx: &TaskContext, asked: Asked, account: Account) -> Result<(), TaskFailure> {
        let figures: Vec<String> =
            account.counts.iter().map(|(name, number)| format!("{name} {number}")).collect();
        let figures = if figures.is_empty() { "nothing to do".to_owned() } else { figures.join(", ") };
        ctx.log(&figures).await;
        let collected = self.kind.change == COLLECTION.change && !asked.order.dry_run;
        if collected {
            self.figures.add(&account);
        }
        let now = ctx.now();
        let record = ReportRecord {
            kind: self.kind.change.to_owned(),
            by: asked.by.clone(),
            dry_run: asked.order.dry_run,
            ended_at: now,
            account,
        };
        let event = audit::Event {
            who: asked.by,
            action: format!("storage.{}", self.kind.change),
            subject: format!("change/{}", ctx.change()),
            outcome: if asked.order.dry_run { "dry run" } else { "done" }.to_owned(),
            why: figures,
        };
        let change = ctx.change().clone();
        self.state
            .write(move |tx| {
                if report::get(tx, &change)?.is_some() {
                    return Ok(());
                }
                report::put(tx, &change, &record)?;
                audit::append(tx, now, &event)?;
                if collected {
                    let mut schedule = report::schedule(tx)?;
                    schedule.completed_at = Some(now);
                    report::put_schedule(tx, &schedule)?;
                }
                Ok::<_, StateError>(())
            })
            .await?;
        Ok(())
    }
}

/// The data of the change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) order: Order,
    pub(super) by: String,
}
