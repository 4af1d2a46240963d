//! What `valetkey doctor` says of this source. Costs the list of vaults.

use super::{Connect, ConnectOptions};
use crate::check::{Check, failed, vault_checks};

/// Looks whether the server is alive, takes the token, and has `vaults`, by name or id.
pub async fn connect_checks(options: ConnectOptions, vaults: &[String]) -> Vec<Check> {
    let host = options.host.clone();
    let unreachable = format!("is the Connect server running at `{host}`?");
    match Connect::new(options) {
        Ok(connect) => {
            if let Err(error) = connect.heartbeat().await {
                return vec![failed("Connect server", error, &unreachable)];
            }
            let mut checks = vec![Check::ok("Connect server", format!("`{host}` is alive"))];
            checks.extend(vault_checks(&connect, vaults, &unreachable).await);
            checks
        }
        Err(error) => {
            vec![Check::of("Connect server", Err(error), "docs/sources.md has the entry for Connect")]
        }
    }
}
