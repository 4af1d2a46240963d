//! `Debug` for the messages that carry a value, a handle or a token: prost's own would print every byte.

use std::fmt;

use crate::v1::{
    CreateTokenResponse, FindValueRequest, HandleIssued, RedeemHandleRequest, RedeemHandleResponse,
};

impl fmt::Debug for RedeemHandleRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle: _, destination } = self;
        f.debug_struct("RedeemHandleRequest")
            .field("handle", &REDACTED)
            .field("destination", destination)
            .finish()
    }
}

impl fmt::Debug for RedeemHandleResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret_value: _, record_id } = self;
        f.debug_struct("RedeemHandleResponse")
            .field("secret_value", &REDACTED)
            .field("record_id", record_id)
            .finish()
    }
}

impl fmt::Debug for HandleIssued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reference,
            handle: _,
            handle_id,
            expire_time,
            uses,
            redeemer,
            record_id,
            certificate_bound,
        } = self;
        f.debug_struct("HandleIssued")
            .field("reference", reference)
            .field("handle", &REDACTED)
            .field("handle_id", handle_id)
            .field("expire_time", expire_time)
            .field("uses", uses)
            .field("redeemer", redeemer)
            .field("record_id", record_id)
            .field("certificate_bound", certificate_bound)
            .finish()
    }
}

impl fmt::Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret_token: _, token, record_id } = self;
        f.debug_struct("CreateTokenResponse")
            .field("secret_token", &REDACTED)
            .field("token", token)
            .field("record_id", record_id)
            .finish()
    }
}

impl fmt::Debug for FindValueRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value: _ } = self;
        f.debug_struct("FindValueRequest").field("value", &REDACTED).finish()
    }
}

const REDACTED: &str = "[redacted]";
