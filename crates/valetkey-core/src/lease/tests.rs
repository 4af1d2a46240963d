//! The table by itself. What the path makes of it is tested with the broker.

use std::collections::{BTreeSet, HashMap};

use super::state::Taken;
use super::*;
use crate::decision::Revision;
use crate::identity::Identity;
use crate::resolver::Provenance;
use crate::secret::SecretValue;
use crate::testing::{self, FakeClock};

impl LeaseTable {
    /// What holds whenever nobody has the lock.
    #[track_caller]
    pub(crate) fn assert_consistent(&self) {
        let state = self.lock();
        let (active, dead): (Vec<_>, Vec<_>) =
            state.handles.iter().partition(|(_, slot)| matches!(slot.state, HandleState::Active { .. }));
        let ids =
            |slots: &[(&HandleId, &HandleSlot)]| slots.iter().map(|(id, _)| **id).collect::<BTreeSet<_>>();
        let listed = state.leases.values().flat_map(|lease| lease.live.iter().copied());
        assert_eq!(ids(&active), listed.collect(), "live handles are those that the leases list");
        assert_eq!(ids(&dead), state.dead.iter().copied().collect(), "dead handles are remembered as such");
        assert!(dead.len() <= self.limits.dead_handles_max, "dead handles are bounded");
        let timers = active.iter().map(|(id, slot)| (slot.timer, **id)).collect::<BTreeSet<_>>();
        assert_eq!(state.timers, timers, "one timer for each live handle");
        let ends = active.iter().map(|(id, slot)| (slot.expires, **id)).collect::<BTreeSet<_>>();
        assert!(state.renewable.is_subset(&ends), "only what lives is renewed");
        let places: usize = state.leases.values().map(|lease| lease.places).sum();
        assert_eq!(state.handles_taken, active.len() + places, "every place is counted once");
        let spent = state.leases.iter().filter_map(|(id, lease)| Some((lease.end?, *id))).collect();
        assert_eq!(state.ends, spent, "an end for each lease that has one");
        let mut by_agent: HashMap<_, Taken> = HashMap::new();
        for lease in state.leases.values() {
            let own = by_agent.entry(lease.agent.clone()).or_default();
            own.leases += 1;
            own.handles += lease.places + lease.live.len();
        }
        assert_eq!(state.by_agent, by_agent, "what each agent has");
        for (_, slot) in active {
            let HandleState::Active { uses_left, uses_set_aside, .. } = slot.state else { unreachable!() };
            assert!(uses_left >= 1 && uses_set_aside <= uses_left, "{uses_set_aside} of {uses_left} uses");
        }
    }

    /// Whether nothing is left of any lease but the names of its dead.
    #[track_caller]
    pub(crate) fn assert_at_rest(&self) {
        self.assert_consistent();
        let state = self.lock();
        let left = (state.leases.len(), state.by_agent.len(), state.handles_taken, state.timers.len());
        assert_eq!(left, (0, 0, 0, 0), "leases, agents, places and timers left behind");
        assert!(state.ends.is_empty(), "ends left behind");
        assert_eq!(state.notices.len(), 0, "notices left behind");
    }
}

const LIMITS: LeaseLimits = LeaseLimits {
    leases_max: 3,
    leases_per_agent_max: 2,
    handles_max: 8,
    handles_per_agent_max: 8,
    dead_handles_max: 4,
};

fn table() -> (Arc<LeaseTable>, FakeClock) {
    let clock = FakeClock::default();
    (LeaseTable::new(LIMITS, Arc::new(clock.clone())), clock)
}

fn open(table: &Arc<LeaseTable>, agent: &str, handles: usize) -> Result<LeaseEvents, &'static str> {
    let agent = testing::agent(agent);
    let call = testing::call(Identity::Agent(agent.clone()));
    let events = table.open(&call, &agent, &testing::tool("tool"), handles).map_err(|full| full.limit);
    table.assert_consistent();
    events
}

/// A grant for that handle in that lease.
fn grant(kind: AccessKind, lease: &LeaseEvents, handle: &Handle) -> Grant {
    let request = testing::request("op://v/i/f");
    let (lease, handle) = (Some(lease.lease()), Some(handle.id()));
    Grant::for_test(AccessRequest { kind, lease, handle, ..request }, RecordId(1))
}

fn issue(table: &LeaseTable, grant: &Grant, handle: Handle) -> Result<Issued, IssueError> {
    let provenance =
        Provenance { source: "fake".into(), item_version: Some(1), read_time: Timestamp::from_micros(0) };
    let resolved = Resolved { value: SecretValue::new(b"value".to_vec()), provenance };
    let issued = table.issue(grant, handle, &resolved);
    table.assert_consistent();
    issued
}

/// A fresh handle in that lease.
fn issued(table: &LeaseTable, lease: &LeaseEvents) -> Handle {
    let handle = Handle::random();
    let grant = grant(AccessKind::Acquire, lease, &handle);
    issue(table, &grant, handle).map(|issued| issued.handle).ok().unwrap()
}

fn tool() -> Identity {
    Identity::Tool(testing::tool("tool"))
}

#[test]
fn bounds_hold_and_places_come_back() {
    let (table, _clock) = table();
    let first = open(&table, "one", 3).ok().unwrap();
    let second = open(&table, "one", 3).ok().unwrap();
    assert_eq!(open(&table, "one", 1).err(), Some("leases_per_agent"));
    assert_eq!(open(&table, "two", 3).err(), Some("handles"));
    let third = open(&table, "two", 2).ok().unwrap();
    assert_eq!(open(&table, "three", 0).err(), Some("leases"));
    issued(&table, &first);
    table.give_back_place(first.lease());
    table.assert_consistent();
    assert_eq!(table.counts(), (3, 1));
    drop((first, third));
    assert_eq!(open(&table, "two", 6).err(), Some("handles"));
    let again = open(&table, "one", 5).ok().unwrap();
    drop((second, again));
    assert_eq!(table.take_notices(9).records().len(), 1, "one lease had a handle");
    table.take_notices(9).written();
    table.assert_at_rest();
}

#[test]
fn a_lease_gives_no_more_handles_than_it_has_places_but_for_renewals() {
    let (table, _clock) = table();
    let lease = open(&table, "one", 1).ok().unwrap();
    issued(&table, &lease);
    for (kind, given) in
        [(AccessKind::Acquire, false), (AccessKind::Renew, true), (AccessKind::Acquire, false)]
    {
        let handle = Handle::random();
        assert_eq!(issue(&table, &grant(kind, &lease, &handle), handle).is_ok(), given, "{kind:?}");
    }
}

#[test]
fn a_renewal_takes_no_place_of_a_reference_that_is_still_to_come() {
    let (table, _clock) = table();
    let lease = open(&table, "one", 2).ok().unwrap();
    issued(&table, &lease);
    let fresh = Handle::random();
    assert!(issue(&table, &grant(AccessKind::Renew, &lease, &fresh), fresh).is_ok());
    issued(&table, &lease);
}

#[test]
fn a_grant_is_good_for_its_own_handle_only() {
    let (table, _clock) = table();
    let lease = open(&table, "one", 4).ok().unwrap();
    let other = Handle::random();
    let error = issue(&table, &grant(AccessKind::Acquire, &lease, &other), Handle::random()).err();
    assert_eq!(error, Some(IssueError::Broken));

    let handle = issued(&table, &lease);
    for (kind, of) in [(AccessKind::Redeem, &other), (AccessKind::Acquire, &handle)] {
        let used = table.set_aside(&handle, &testing::call(tool())).ok().unwrap();
        let released = used.release(&grant(kind, &lease, of)).err();
        assert_eq!(released, Some(ReleaseError::Inactive(Reason::HandleForged)), "{kind:?}");
        table.assert_consistent();
    }
    let used = table.set_aside(&handle, &testing::call(tool())).ok().unwrap();
    let resolved = used.release(&grant(AccessKind::Redeem, &lease, &handle)).ok().unwrap();
    assert_eq!(resolved.value.expose_secret(), b"value");
}

#[test]
fn a_grant_of_older_policies_is_stale() {
    let (table, _clock) = table();
    let lease = open(&table, "one", 2).ok().unwrap();
    let handle = issued(&table, &lease);
    table.begin_generation(1);
    table.begin_generation(0);
    let late = Handle::random();
    let error = issue(&table, &grant(AccessKind::Acquire, &lease, &late), late).err();
    assert_eq!(error, Some(IssueError::Stale));
    let used = table.set_aside(&handle, &testing::call(tool())).ok().unwrap();
    assert_eq!(used.release(&grant(AccessKind::Redeem, &lease, &handle)).err(), Some(ReleaseError::Stale));
    table.assert_consistent();
    assert!(table.set_aside(&handle, &testing::call(tool())).is_ok(), "the use was given back");
}

#[test]
fn what_is_dead_cannot_be_revoked() {
    let (table, _clock) = table();
    let lease = open(&table, "one", 2).ok().unwrap();
    let (handle, _other) = (issued(&table, &lease), issued(&table, &lease));
    let used = table.set_aside(&handle, &testing::call(tool())).ok().unwrap();
    assert!(used.release(&grant(AccessKind::Redeem, &lease, &handle)).is_ok());
    let deny = Deny {
        reason: Reason::PolicyNoPermit,
        policies: [].into(),
        advice: None,
        detail: None,
        revision: Revision { generation: 1, digest: [0; 8] },
    };
    table.revoke(handle.id(), &deny);
    table.assert_consistent();
    assert_eq!(table.take_notices(9).records().len(), 0);
    assert_eq!(
        table.set_aside(&handle, &testing::call(tool())).err().map(|it| it.reason),
        Some(Reason::HandleSpent)
    );
}

#[test]
fn the_dead_are_bounded_and_have_no_value() {
    let (table, clock) = table();
    for _ in 0..10 {
        let lease = open(&table, "one", 1).ok().unwrap();
        let handle = issued(&table, &lease);
        let sealed = match &table.lock().handles[&handle.id()].state {
            HandleState::Active { sealed, .. } => Arc::downgrade(sealed),
            _ => unreachable!(),
        };
        drop(lease);
        assert_eq!(sealed.strong_count(), 0, "a dead handle's value is gone");
        let inactive = table.set_aside(&handle, &testing::call(tool())).err().unwrap();
        assert_eq!(inactive.reason, Reason::HandleRevoked);
        table.assert_consistent();
    }
    assert_eq!(table.lock().handles.len(), 4);
    clock.advance(Duration::from_secs(900));
    table.expire_due();
    table.take_notices(99).written();
    table.assert_at_rest();
}

#[test]
fn notices_are_put_back_in_order_where_they_were_not_written() {
    let (table, _clock) = table();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let lease = open(&table, "one", 1).ok().unwrap();
        issued(&table, &lease);
        ids.push(Some(lease.lease()));
    }
    let seen = |max| table.take_notices(max).records().iter().map(|record| record.lease).collect::<Vec<_>>();
    assert_eq!(seen(2), ids[..2]);
    assert_eq!(seen(9), ids);
    table.take_notices(1).written();
    assert_eq!(seen(9), ids[1..]);
}
