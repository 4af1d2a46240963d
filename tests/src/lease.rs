//! A lease as its agent holds it, and a handle as its tool uses it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tonic::{Status, Streaming};
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, HandleIssued, RedeemHandleRequest, RedeemHandleResponse,
    ReferenceRefused,
};

use crate::Client;

/// An open lease. Dropping it closes the stream.
pub struct Lease {
    /// Its id.
    pub id: String,
    /// What was issued, in the order in which it came.
    pub issued: Vec<HandleIssued>,
    /// What was refused; only where the request was `partial`.
    pub refused: Vec<ReferenceRefused>,
    events: Streaming<AcquireLeaseResponse>,
}

impl Lease {
    /// Asks for a lease and waits until each reference has its handle or its refusal.
    ///
    /// # Errors
    /// The status that refuses it, or `Internal` for a stream that breaks its contract.
    pub async fn open(client: &mut Client, ask: AcquireLeaseRequest) -> Result<Self, Status> {
        let wanted = ask.references.len();
        let mut events = client.leases.acquire_lease(ask).await?.into_inner();
        let broken = |what: &str| Status::internal(format!("the stream breaks its contract: {what}"));
        let id = match next(&mut events).await.map_err(|error| broken(&error.to_string()))? {
            Some(Event::Opened(opened)) => opened.lease_id,
            other => return Err(broken(&format!("begins with {other:?}"))),
        };
        let mut lease = Self { id, issued: Vec::new(), refused: Vec::new(), events };
        while lease.issued.len() + lease.refused.len() < wanted {
            match lease.next().await.map_err(|error| broken(&error.to_string()))? {
                Some(Event::Issued(issued)) => lease.issued.push(issued),
                Some(Event::Refused(refused)) => lease.refused.push(refused),
                other => return Err(broken(&format!("{other:?} instead of a handle"))),
            }
        }
        Ok(lease)
    }

    /// The next event; `None` when the stream has closed with OK.
    ///
    /// # Errors
    /// Where the stream fails, or nothing comes for ten seconds.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        next(&mut self.events).await
    }

    /// A handle that was issued.
    ///
    /// # Errors
    /// Where there is none at that place.
    pub fn handle(&self, place: usize) -> Result<&str> {
        Ok(&self.issued.get(place).context("no such handle")?.handle)
    }
}

impl Client {
    /// Redeems a handle.
    ///
    /// # Errors
    /// The status that refuses it.
    pub async fn redeem(&mut self, handle: &str) -> Result<RedeemHandleResponse, Status> {
        let ask = RedeemHandleRequest { handle: handle.to_owned(), destination: String::new() };
        self.leases.redeem_handle(ask).await.map(tonic::Response::into_inner)
    }
}

/// A handle with another secret part and a checksum that is right: what a guesser would send who has seen
/// the id in a log.
///
/// # Errors
/// Where `handle` is none.
pub fn forged(handle: &str) -> Result<String> {
    use data_encoding::BASE32_DNSSEC;
    use sha2::{Digest, Sha256};
    let (id, _) = handle.rsplit_once('_').context("no handle")?;
    let body = format!("{id}_{}", "7".repeat(32));
    let hash: [u8; 32] = Sha256::digest(body.as_bytes()).into();
    let (checksum, _) = hash.split_first_chunk::<5>().context("no hash")?;
    Ok(format!("{body}{}", BASE32_DNSSEC.encode(checksum)))
}

async fn next(events: &mut Streaming<AcquireLeaseResponse>) -> Result<Option<Event>> {
    let message = tokio::time::timeout(WAIT_MAX, events.message()).await.context("nothing came")??;
    match message.map(|message| message.event) {
        None => Ok(None),
        Some(Some(event)) => Ok(Some(event)),
        Some(None) => bail!("an event without content"),
    }
}

/// Far longer than anything takes; a test that waits so long has failed.
const WAIT_MAX: Duration = Duration::from_secs(10);
