//! The generated types of `valetkey.v1`, and nothing else: messages, clients and servers, and the
//! descriptors for reflection. And those of the SPIFFE Workload API, as far as the broker speaks it.
//!
//! Not here: conversions to and from the domain (`valetkey-server/convert.rs`).
//!
//! Invariant: a message that carries a value, a handle or a token shows none of them in its `Debug` form.

mod redact;

/// Version 1 of the API. The comments of the `.proto` files are its reference.
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("valetkey.v1");
}

/// The SPIFFE Workload API: X.509 identities. Its messages hold a key, and have no `Debug`.
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub, reason = "generated code")]
pub mod spiffe {
    tonic::include_proto!("_");
}

/// The encoded `FileDescriptorSet` of the API and what it imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
