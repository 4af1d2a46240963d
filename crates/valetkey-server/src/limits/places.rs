//! The places for connections. Whoever has shown no identity yet can have a share of them, and never keeps one
//! from somebody who comes later: the oldest of them is let go.
//!
//! So a flood of silent connections costs those who make it their connections, and a peer that connects and asks
//! at once is known before its turn comes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Source;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct PlaceLimits {
    /// In all.
    pub connections_max: usize,
    /// Of peers without an identity, in all.
    pub unknown_max: usize,
    /// Of peers without an identity, from one address.
    pub unknown_per_address_max: usize,
}

/// The places.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    /// Who has shown no identity yet, the oldest first.
    unknown: Mutex<Unknown>,
    limits: PlaceLimits,
}

/// A connection's place; given back when it is dropped.
pub(crate) struct Place {
    standing: Arc<Standing>,
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

/// Where a connection stands; its requests make it known.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    known: AtomicBool,
    let_go: AtomicBool,
    reader: AtomicWaker,
}

#[derive(Default)]
struct Unknown(VecDeque<Waiting>);

struct Waiting {
    address: Option<IpAddr>,
    standing: Arc<Standing>,
}

impl Default for PlaceLimits {
    fn default() -> Self {
        Self::of(1_024)
    }
}

impl PlaceLimits {
    /// The usual shares of so many connections: half for peers without an identity, a quarter for one address.
    #[must_use]
    pub fn of(connections_max: usize) -> Self {
        let share = |parts: usize| (connections_max / parts).max(1);
        Self { connections_max, unknown_max: share(2), unknown_per_address_max: share(4) }
    }
}

impl Places {
    pub(crate) fn new(limits: PlaceLimits) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(limits.connections_max));
        Arc::new(Self { all, unknown: Mutex::default(), limits })
    }

    /// A place for a connection that has come, as soon as there is one. `None` never: the semaphore is not closed.
    pub(crate) async fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let permit = match Arc::clone(&self.all).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.unknown().let_go(Some(0));
                Arc::clone(&self.all).acquire_owned().await.ok()?
            }
        };
        let standing = Arc::new(Standing::default());
        let mut unknown = self.unknown();
        unknown.0.push_back(Waiting { address, standing: Arc::clone(&standing) });
        // Whoever has one address of an IPv6 network has them all.
        let source = Source::at(address);
        let of_address = |waiting: &Waiting| address.is_some() && Source::at(waiting.address) == source;
        let PlaceLimits { connections_max: _, unknown_max, unknown_per_address_max } = self.limits;
        if unknown.0.iter().filter(|waiting| of_address(waiting)).count() > unknown_per_address_max {
            let oldest = unknown.0.iter().position(of_address);
            unknown.let_go(oldest);
        } else if unknown.0.len() > unknown_max {
            unknown.let_go(Some(0));
        }
        drop(unknown);
        Some(Place { standing, places: Arc::clone(self), _permit: permit })
    }

    /// Those who are still unknown.
    fn unknown(&self) -> MutexGuard<'_, Unknown> {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.0.retain(|waiting| !waiting.standing.known.load(Ordering::Acquire));
        unknown
    }
}

impl Unknown {
    fn let_go(&mut self, place: Option<usize>) {
        let Some(Waiting { standing, .. }) = place.and_then(|place| self.0.remove(place)) else { return };
        standing.let_go.store(true, Ordering::Release);
        standing.reader.wake();
    }
}

impl Place {
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether it has become known; from then on it is not let go.
    pub(crate) fn is_known(&self) -> bool {
        self.standing.known.load(Ordering::Acquire)
    }

    /// Returns when somebody else needs the place.
    pub(crate) async fn let_go(&self) {
        std::future::poll_fn(|context| match self.is_let_go(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Whether somebody else needs the place; the reader is woken when that comes true.
    pub(crate) fn is_let_go(&self, context: &Context<'_>) -> bool {
        self.standing.reader.register(context.waker());
        self.standing.let_go.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.unknown().0.retain(|waiting| !Arc::ptr_eq(&waiting.standing, &self.standing));
    }
}

impl Standing {
    /// A request with an identity has come over the connection.
    pub(crate) fn know(&self) {
        self.known.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn places(unknown_max: usize, unknown_per_address_max: usize) -> Arc<Places> {
        Places::new(PlaceLimits { connections_max: 4, unknown_max, unknown_per_address_max })
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, last]))
    }

    fn let_go(place: &Place) -> bool {
        !place.is_known() && place.is_let_go(&Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_network_of_ipv6_is_one_address() {
        let places = places(3, 1);
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let one = places.take(at("2001:db8::1")).await.unwrap();
        let _other = places.take(at("2001:db8:0:1::1")).await.unwrap();
        assert!(!let_go(&one));
        let _two = places.take(at("2001:db8::ffff:2")).await.unwrap();
        assert!(let_go(&one));
    }

    #[tokio::test]
    async fn the_oldest_unknown_of_the_address_goes_first() {
        let places = places(3, 2);
        let other = places.take(address(2)).await.unwrap();
        let one = places.take(address(1)).await.unwrap();
        let two = places.take(address(1)).await.unwrap();
        assert!(![&other, &one, &two].into_iter().any(let_go));
        let three = places.take(address(1)).await.unwrap();
        assert_eq!([&other, &one, &two, &three].map(let_go), [false, true, false, false]);
        drop(one);
        let four = places.take(address(3)).await.unwrap();
        assert_eq!([&other, &two, &three, &four].map(let_go), [true, false, false, false], "in all");
    }

    #[tokio::test]
    async fn the_known_stay() {
        let places = places(1, 1);
        let one = places.take(address(1)).await.unwrap();
        one.standing().know();
        let two = places.take(address(1)).await.unwrap();
        assert!(!let_go(&one) && !let_go(&two), "the known do not count as unknown");
        let three = places.take(address(1)).await.unwrap();
        assert!(!let_go(&one) && let_go(&two) && !let_go(&three));
    }

    #[tokio::test]
    async fn a_full_house_lets_an_unknown_go_for_whoever_comes() {
        let places = places(4, 4);
        let mut held = Vec::new();
        for last in 1..=4 {
            held.push(places.take(address(last)).await.unwrap());
        }
        let mut late = Box::pin(places.take(address(5)));
        assert!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(held.iter().map(let_go).collect::<Vec<_>>(), [true, false, false, false]);
        held.remove(0);
        assert!(late.await.is_some());
    }
}
