//! What openraft runs on: tokio, and in a simulation the scheduler of that.
//!
//! Always holds: outside of the tests this is tokio and nothing else. In the tests it is tokio too, unless a simulation
//! runs on the thread; then tasks, timers and random numbers come from its seed.

#[cfg(not(test))]
pub(super) use openraft::TokioRuntime as Runtime;
#[cfg(test)]
pub(super) use simulated::Runtime;

use openraft::AsyncRuntime;

/// A task of consensus that is waited for.
pub(super) type JoinHandle<Output> = <Runtime as AsyncRuntime>::JoinHandle<Output>;

/// Starts a task of consensus.
pub(super) fn spawn<Output: Send + 'static>(
    task: impl Future<Output = Output> + Send + 'static,
) -> JoinHandle<Output> {
    Runtime::spawn(task)
}

#[cfg(test)]
mod simulated {
    use std::fmt;
    use std::future::Future;
    use std::hash::{BuildHasher, RandomState};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use openraft::TokioInstant;
    use openraft::async_runtime::{AsyncRuntime, TokioOneShotSender};
    use tokio::sync::oneshot;

    use crate::simulation::executor;

    /// openraft on the simulation that this thread runs, else on tokio.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(crate) struct Runtime;

    /// A task that is waited for; it goes on when this is dropped.
    pub(crate) struct Join<Output>(oneshot::Receiver<Output>);

    /// A task has not come to its end.
    #[derive(Debug)]
    pub(crate) struct Ended;

    /// A future with an end in time.
    pub(crate) struct Timeout<Future> {
        future: Pin<Box<Future>>,
        sleep: Sleep,
    }

    /// Random numbers of the simulation, else of the system.
    pub(crate) struct Numbers;

    type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

    impl fmt::Display for Ended {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("it was ended, or its time is up")
        }
    }

    impl<Output> Future for Join<Output> {
        type Output = Result<Output, Ended>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            Pin::new(&mut self.0).poll(context).map_err(|_| Ended)
        }
    }

    impl<Inner: Future> Future for Timeout<Inner> {
        type Output = Result<Inner::Output, Ended>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            if let Poll::Ready(output) = self.future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            self.sleep.as_mut().poll(context).map(|()| Err(Ended))
        }
    }

    impl rand_core::RngCore for Numbers {
        fn next_u32(&mut self) -> u32 {
            (self.next_u64() >> 32) as u32
        }

        fn next_u64(&mut self) -> u64 {
            if executor::is_running() { executor::random_number() } else { RandomState::new().hash_one(0) }
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            rand_core::impls::fill_bytes_via_next(self, bytes);
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    fn until(deadline: TokioInstant) -> Sleep {
        if executor::is_running() {
            return Box::pin(executor::wait_until(deadline));
        }
        Box::pin(async move {
            let _ = tokio::time::timeout_at(deadline, std::future::pending::<()>()).await;
        })
    }

    impl AsyncRuntime for Runtime {
        type JoinError = Ended;
        type JoinHandle<T: Send + 'static> = Join<T>;
        type Sleep = Sleep;
        type Instant = TokioInstant;
        type TimeoutError = Ended;
        type Timeout<R, T: Future<Output = R> + Send> = Timeout<T>;
        type ThreadLocalRng = Numbers;
        type OneshotSender<T: Send> = TokioOneShotSender<T>;
        type OneshotReceiver<T: Send> = oneshot::Receiver<T>;
        type OneshotReceiverError = oneshot::error::RecvError;

        fn spawn<T>(future: T) -> Join<T::Output>
        where
            T: Future + Send + 'static,
            T::Output: Send + 'static,
        {
            let (sender, receiver) = oneshot::channel();
            let task = async move {
                let _ = sender.send(future.await);
            };
            if executor::is_running() {
                executor::spawn(task);
            } else {
                tokio::spawn(task);
            }
            Join(receiver)
        }

        fn sleep(duration: Duration) -> Sleep {
            until(TokioInstant::now() + duration)
        }

        fn sleep_until(deadline: TokioInstant) -> Sleep {
            until(deadline)
        }

        fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Timeout<F> {
            Timeout { future: Box::pin(future), sleep: until(TokioInstant::now() + duration) }
        }

        fn timeout_at<R, F: Future<Output = R> + Send>(deadline: TokioInstant, future: F) -> Timeout<F> {
            Timeout { future: Box::pin(future), sleep: until(deadline) }
        }

        /// A task that has not come to its end has panicked, or its member was ended and nobody asks.
        fn is_panic(_error: &Ended) -> bool {
            true
        }

        fn thread_rng() -> Numbers {
            Numbers
        }

        fn oneshot<T: Send>() -> (TokioOneShotSender<T>, oneshot::Receiver<T>) {
            let (sender, receiver) = oneshot::channel();
            (TokioOneShotSender(sender), receiver)
        }
    }
}
