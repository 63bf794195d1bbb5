//! A root that survives crashes, and tasks that do what a test told them.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::blobs::Blobs;
use crate::changes::{
    ChangeView, Changes, Conflict, EventKey, NewChange, Step, Task, TaskContext, TaskFailure, TaskSet,
    create, signal,
};
use crate::names::{ChangeId, Clock, Faults, ManualClock, Millis, SystemRandom};
use crate::state::State;

pub(super) const START: Millis = Millis(1_700_000_000_000);
const DEADLINE: Duration = Duration::from_secs(30);

type Run = dyn Fn(&TaskContext) -> BoxFuture<'_, Result<Step, TaskFailure>> + Send + Sync;
type Undo = dyn Fn(&TaskContext) -> BoxFuture<'_, Result<(), TaskFailure>> + Send + Sync;

/// A task made of closures; writes each call into the journal.
pub(super) struct Scripted {
    kind: &'static str,
    pivot: bool,
    run: Box<Run>,
    undo: Box<Undo>,
    journal: Journal,
}

impl Task for Scripted {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn pivot(&self) -> bool {
        self.pivot
    }
    fn run<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<Step, TaskFailure>> {
        self.journal.note(format!("run {} {:?}", self.kind, ctx.woken()));
        (self.run)(ctx)
    }
    fn undo<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<(), TaskFailure>> {
        self.journal.note(format!("undo {}", self.kind));
        (self.undo)(ctx)
    }
}

/// What was called, in order.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Vec<String>>>, Arc<Notify>);

impl Journal {
    pub(super) fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
        self.1.notify_waiters();
    }
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
    pub(super) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|other| *other == line).count()
    }
    /// Resolves when the line is there.
    pub(super) async fn until(&self, line: &str) {
        let found = async {
            loop {
                let noted = self.1.notified();
                tokio::pin!(noted);
                noted.as_mut().enable();
                if self.count(line) > 0 {
                    return;
                }
                noted.await;
            }
        };
        let found = tokio::time::timeout(DEADLINE, found).await;
        assert!(found.is_ok(), "{line:?} never came; there was {:?}", self.lines());
    }
}

/// The kinds of task of a test; made anew for each process of the world.
pub(super) struct Kinds {
    tasks: HashMap<&'static str, Arc<Scripted>>,
    limits: Vec<(&'static str, usize)>,
    pub(super) journal: Journal,
}

impl Kinds {
    pub(super) fn new(journal: &Journal) -> Self {
        Self { tasks: HashMap::new(), limits: Vec::new(), journal: journal.clone() }
    }

    pub(super) fn task<R, U>(mut self, kind: &'static str, run: R, undo: U) -> Self
    where
        R: Fn(&TaskContext) -> BoxFuture<'_, Result<Step, TaskFailure>> + Send + Sync + 'static,
        U: Fn(&TaskContext) -> BoxFuture<'_, Result<(), TaskFailure>> + Send + Sync + 'static,
    {
        let pivot = kind.ends_with("pivot");
        let task =
            Scripted { kind, pivot, run: Box::new(run), undo: Box::new(undo), journal: self.journal.clone() };
        self.tasks.insert(kind, Arc::new(task));
        self
    }

    /// Gives changes of this kind places of their own.
    pub(super) fn limit(mut self, change_kind: &'static str, at_a_time: usize) -> Self {
        self.limits.push((change_kind, at_a_time));
        self
    }

    /// A task whose undo goes well.
    pub(super) fn runs<R>(self, kind: &'static str, run: R) -> Self
    where
        R: Fn(&TaskContext) -> BoxFuture<'_, Result<Step, TaskFailure>> + Send + Sync + 'static,
    {
        self.task(kind, run, |_| async { Ok(()) }.boxed())
    }

    /// A task that is done at once.
    pub(super) fn done(self, kind: &'static str) -> Self {
        self.runs(kind, |_| async { Ok(Step::Done) }.boxed())
    }

    /// A task that fails at once.
    pub(super) fn fails(self, kind: &'static str) -> Self {
        self.runs(kind, |_| async { Err(TaskFailure::new("broken", "it is broken")) }.boxed())
    }

    /// A task that waits for `event` until it is woken by it or by its deadline.
    pub(super) fn waits(self, kind: &'static str, event: EventKey, deadline: Option<Millis>) -> Self {
        self.runs(kind, move |ctx| {
            let event = event.clone();
            async move {
                Ok(match ctx.woken() {
                    crate::changes::Woken::Event | crate::changes::Woken::Deadline => Step::Done,
                    _ => Step::Wait { event, deadline },
                })
            }
            .boxed()
        })
    }

    /// A task that runs until it is dropped.
    pub(super) fn hangs(self, kind: &'static str) -> Self {
        self.runs(kind, |_| std::future::pending().boxed())
    }
}

/// A root with an engine on it.
pub(super) struct World {
    root: PathBuf,
    /// Removes the root when the last process on it is gone.
    owned: Option<Arc<tempfile::TempDir>>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) state: State,
    pub(super) changes: Changes,
    ids: Arc<AtomicU64>,
}

impl World {
    pub(super) async fn new(kinds: Kinds) -> Self {
        let root = Arc::new(tempfile::Builder::new().prefix("changes-").tempdir().unwrap());
        let mut world = Self::at(root.path(), kinds, Faults::none()).await;
        world.owned = Some(root);
        world
    }

    /// A process on a root that the caller keeps.
    pub(super) async fn at(root: &Path, kinds: Kinds, faults: Faults) -> Self {
        Self::boot(root.to_owned(), Arc::new(ManualClock::at(START)), kinds, Arc::default(), faults).await
    }

    async fn boot(
        root: PathBuf,
        clock: Arc<ManualClock>,
        kinds: Kinds,
        ids: Arc<AtomicU64>,
        faults: Faults,
    ) -> Self {
        let state = State::open(&root.join("state.redb"), Faults::none()).unwrap();
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let random = Arc::new(SystemRandom);
        let blobs =
            Blobs::open(&root, state.clone(), Arc::clone(&shared), random, Faults::none()).await.unwrap();
        let changes = Changes::new(&root, state.clone(), blobs, shared, faults);
        let mut tasks = TaskSet::new();
        for task in kinds.tasks.into_values() {
            tasks.add(task);
        }
        for (kind, at_a_time) in kinds.limits {
            tasks.limit(kind, at_a_time);
        }
        changes.start(tasks);
        Self { root, owned: None, clock, state, changes, ids }
    }

    /// The process ends with neither notice nor clean-up, and another one opens the root.
    pub(super) async fn crash(self, kinds: Kinds) -> Self {
        self.changes.crash().await;
        self.reopen(kinds).await
    }

    /// The process is stopped as it should be, and another one opens the root.
    pub(super) async fn restart(self, kinds: Kinds) -> Self {
        self.changes.stop().await;
        self.reopen(kinds).await
    }

    async fn reopen(self, kinds: Kinds) -> Self {
        self.state.close().await.unwrap();
        let Self { root, owned, clock, ids, state, changes } = self;
        drop((state, changes));
        let mut world = Self::boot(root, clock, kinds, ids, Faults::none()).await;
        world.owned = owned;
        world
    }

    pub(super) fn with_clock(mut self, clock: ManualClock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn new_change(&self, tasks: &[&'static str]) -> NewChange {
        let number = self.ids.fetch_add(1, Ordering::SeqCst);
        NewChange {
            id: ChangeId::parse(&format!("change-{number:04}")).unwrap(),
            kind: "test".into(),
            summary: "tests the engine".into(),
            subject: "acme/weather".into(),
            tasks: tasks.to_vec(),
            conflicts: vec![],
            data: serde_json::Value::Null,
            by: "peer:0".into(),
        }
    }

    pub(super) async fn submit(&self, change: NewChange) -> Result<ChangeId, Conflict> {
        let (id, now) = (change.id.clone(), self.clock.now());
        let made = self.state.write(move |tx| create(tx, now, &change)).await.unwrap();
        self.changes.wake();
        made.map(|()| id)
    }

    pub(super) async fn begin(&self, tasks: &[&'static str]) -> ChangeId {
        self.submit(self.new_change(tasks)).await.unwrap()
    }

    pub(super) async fn signal(&self, event: &EventKey) {
        let event = event.clone();
        self.state.write(move |tx| signal(tx, &event)).await.unwrap();
        self.changes.wake();
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.changes.wake();
    }

    pub(super) async fn view(&self, id: &ChangeId) -> ChangeView {
        self.changes.get(id).await.unwrap().unwrap()
    }

    pub(super) async fn ended(&self, id: &ChangeId) -> ChangeView {
        within(self.changes.until_ended(id)).await.unwrap()
    }

    /// Resolves when the change shows this state.
    pub(super) async fn until(&self, id: &ChangeId, state: &str) {
        within(async {
            while self.view(id).await.state != state {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// The future's result; fails the test when it takes longer than any machine needs.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it should have happened within 30 s")
}

pub(super) fn states(view: &ChangeView) -> Vec<&str> {
    view.tasks.iter().map(|task| task.state.as_str()).collect()
}

pub(super) fn code(view: &ChangeView) -> &str {
    view.error.as_ref().map_or("", |error| error.code.as_str())
}
