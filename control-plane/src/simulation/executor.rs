//! The scheduler of a simulation: one thread, virtual time, and an order that follows from the seed.
//!
//! What always holds:
//! - Of the tasks that can go on, the seed chooses the next. In what order they were woken has no influence: tokio's
//!   watch channels wake in an order of their own.
//! - Time stands still while a task can go on. A timer of the simulation fires alone, when nothing else can: no task
//!   finds it due together with something else, so a `select!` that begins with a random branch has one to take.
//! - Every task has an owner. [`end`] drops all that an owner has, at once and wherever they stand: a crash.
//!
//! It runs inside a tokio runtime with paused time, so what asks tokio for the time or a timeout gets virtual time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, Pending, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, Timeout, timeout_at};

use super::random::Random;

/// Polls without a step of time after which a simulation turns in a circle.
const POLLS_AT_ONE_TIME_MAX: u64 = 1_000_000;

/// Whom a task belongs to: a start of a member, or the simulation itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u64);

/// The simulation's own tasks: clients, the network, faults.
pub(crate) const WORLD: Owner = Owner(0);

thread_local! {
    static RUNNING: RefCell<Option<Arc<Executor>>> = const { RefCell::new(None) };
}

struct Executor {
    ready: Arc<Ready>,
    inner: Mutex<Inner>,
}

struct Inner {
    tasks: BTreeMap<u64, Task>,
    timers: BTreeMap<(Instant, u64), (Waker, Arc<AtomicBool>)>,
    random: Random,
    next: u64,
    current: Owner,
}

struct Task {
    owner: Owner,
    /// `None` while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    waker: Waker,
}

/// Tasks that can go on.
#[derive(Default)]
struct Ready {
    tasks: Mutex<BTreeSet<u64>>,
    outer: Mutex<Option<Waker>>,
}

struct TaskWaker {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.tasks.lock().expect("not poisoned").insert(self.task);
        if let Some(outer) = self.ready.outer.lock().expect("not poisoned").take() {
            outer.wake();
        }
    }
}

/// Whether this thread runs a simulation now.
pub(crate) fn is_running() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

fn running() -> Arc<Executor> {
    RUNNING.with_borrow(Clone::clone).expect("a simulation runs on this thread")
}

/// Runs a simulation to the end of `main`, and drops all tasks that are left.
pub(crate) fn run<Output: Send + 'static>(
    random: Random,
    main: impl Future<Output = Output> + Send + 'static,
) -> Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let inner = Inner { tasks: BTreeMap::new(), timers: BTreeMap::new(), random, next: 0, current: WORLD };
    let executor = Arc::new(Executor { ready: Arc::default(), inner: Mutex::new(inner) });
    let _guard = runtime.enter();
    let running = Running::set(&executor);
    let (sender, receiver) = oneshot::channel();
    spawn_for(WORLD, async move {
        let _ = sender.send(main.await);
    });
    let drive = Drive { executor: executor.clone(), receiver, due: None };
    // tokio would otherwise make its channels pending after some use within one poll.
    let output = runtime.block_on(tokio::task::unconstrained(drive));
    drop(running);
    output
}

/// Sets and clears what this thread runs, also when the simulation panics.
struct Running(Arc<Executor>);

impl Running {
    fn set(executor: &Arc<Executor>) -> Self {
        RUNNING.set(Some(executor.clone()));
        Self(executor.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Tasks may wake or end others when they are dropped.
        while let Some(left) = self.0.take_tasks(|_| true) {
            drop(left);
        }
        RUNNING.set(None);
    }
}

/// Starts a task of the same owner as the one that runs.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    let owner = running().inner().current;
    spawn_for(owner, future);
}

/// Starts a task of an owner.
pub(crate) fn spawn_for(owner: Owner, future: impl Future<Output = ()> + Send + 'static) {
    let executor = running();
    let mut inner = executor.inner();
    let task = inner.number();
    let waker = Waker::from(Arc::new(TaskWaker { task, ready: executor.ready.clone() }));
    inner.tasks.insert(task, Task { owner, future: Some(Box::pin(future)), waker: waker.clone() });
    drop(inner);
    waker.wake();
}

/// Drops every task of an owner. Must not be called by one of them.
pub(crate) fn end(owner: Owner) {
    let executor = running();
    assert_ne!(executor.inner().current, owner, "a task does not end itself");
    // Until none is left: a task may start another one while it is dropped.
    while let Some(ended) = executor.take_tasks(|task| task.owner == owner) {
        drop(ended);
    }
}

/// A number that follows from the seed.
pub(crate) fn random_number() -> u64 {
    running().inner().random.next()
}

/// Virtual time passes.
pub(crate) fn wait(duration: Duration) -> Timer {
    wait_until(Instant::now() + duration)
}

/// Virtual time passes up to an instant.
pub(crate) fn wait_until(deadline: Instant) -> Timer {
    Timer { deadline, registered: None }
}

/// A timer of the simulation; ready once the executor has fired it.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Instant,
    registered: Option<(u64, Arc<AtomicBool>)>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = running();
        let mut inner = executor.inner();
        let (number, fired) = match &self.registered {
            Some((_, fired)) if fired.load(Ordering::Relaxed) => return Poll::Ready(()),
            Some((number, fired)) => (*number, fired.clone()),
            None => (inner.number(), Arc::default()),
        };
        inner.timers.insert((self.deadline, number), (context.waker().clone(), fired.clone()));
        drop(inner);
        self.registered = Some((number, fired));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some((number, fired)) = &self.registered else { return };
        if !fired.load(Ordering::Relaxed) && is_running() {
            let removed = running().inner().timers.remove(&(self.deadline, *number));
            drop(removed);
        }
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Executor {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }

    /// Takes out the tasks that are wanted; `None` when there is none.
    fn take_tasks(&self, wanted: impl Fn(&Task) -> bool) -> Option<Vec<Task>> {
        let mut inner = self.inner();
        let ids: Vec<u64> = inner.tasks.iter().filter(|(_, task)| wanted(task)).map(|(id, _)| *id).collect();
        let taken: Vec<Task> = ids.iter().filter_map(|id| inner.tasks.remove(id)).collect();
        (!taken.is_empty()).then_some(taken)
    }

    /// Lets one task go on; `false` when none can.
    fn step(&self) -> bool {
        let mut inner = self.inner();
        let mut ready = self.ready.tasks.lock().expect("not poisoned");
        if ready.is_empty() {
            return false;
        }
        let at = inner.random.below(ready.len() as u64) as usize;
        let id = *ready.iter().nth(at).expect("there are so many");
        ready.remove(&id);
        drop(ready);
        let Some(task) = inner.tasks.get_mut(&id) else { return true };
        let mut future = task.future.take().expect("a task is polled by one");
        let (waker, owner) = (task.waker.clone(), task.owner);
        inner.current = owner;
        drop(inner);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut inner = self.inner();
        inner.current = WORLD;
        let ended = if polled.is_ready() {
            inner.tasks.remove(&id)
        } else {
            let task = inner.tasks.get_mut(&id).expect("a task does not end itself");
            task.future = Some(future);
            return true;
        };
        drop(inner);
        drop((ended, future));
        true
    }

    /// Fires the first timer that is due, or names the time at which one will be.
    fn fire(&self) -> Result<(), Option<Instant>> {
        let mut inner = self.inner();
        let Some(first) = inner.timers.first_entry() else { return Err(None) };
        if first.key().0 > Instant::now() {
            return Err(Some(first.key().0));
        }
        let (waker, fired) = first.remove();
        drop(inner);
        fired.store(true, Ordering::Relaxed);
        waker.wake();
        Ok(())
    }
}

/// What tokio runs: everything.
struct Drive<Output> {
    executor: Arc<Executor>,
    receiver: oneshot::Receiver<Output>,
    due: Option<Pin<Box<Timeout<Pending<()>>>>>,
}

impl<Output> Future for Drive<Output> {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Output> {
        let executor = self.executor.clone();
        let mut polls = 0;
        loop {
            while executor.step() {
                polls += 1;
                assert!(polls < POLLS_AT_ONE_TIME_MAX, "tasks go on and on without a step of time");
            }
            match self.receiver.try_recv() {
                Ok(output) => return Poll::Ready(output),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => panic!("the main task was dropped"),
            }
            match executor.fire() {
                Ok(()) => continue,
                Err(due) => {
                    *executor.ready.outer.lock().expect("not poisoned") = Some(context.waker().clone());
                    self.due = due.map(|due| Box::pin(timeout_at(due, pending())));
                }
            }
            let woken = !executor.ready.tasks.lock().expect("not poisoned").is_empty();
            let due = self.due.as_mut().is_some_and(|due| due.as_mut().poll(context).is_ready());
            if !woken && !due {
                return Poll::Pending;
            }
        }
    }
}
