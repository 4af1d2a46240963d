//! What the core is asked, in its JSON.

use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::token::ServiceAccountToken;

/// A question to a client of the core. Ids only: the core would match names by itself, and take more requests.
pub(super) enum Request<'a> {
    Vaults,
    /// All that are not deleted, archived ones too.
    Items {
        vault_id: &'a str,
    },
    Item {
        vault_id: &'a str,
        item_id: &'a str,
    },
    FileContent {
        vault_id: &'a str,
        item_id: &'a str,
        file_id: &'a str,
    },
}

impl Request<'_> {
    /// The JSON for the client of this id.
    pub(super) fn to_json(&self, client_id: u64) -> Vec<u8> {
        let (name, parameters) = match self {
            Self::Vaults => ("VaultsList", json!({ "params": null })),
            Self::Items { vault_id } => {
                let filter = json!({ "type": "ByState", "content": { "active": true, "archived": true } });
                ("ItemsList", json!({ "vault_id": vault_id, "filters": [filter] }))
            }
            Self::Item { vault_id, item_id } => {
                ("ItemsGet", json!({ "vault_id": vault_id, "item_id": item_id }))
            }
            Self::FileContent { vault_id, item_id, file_id } => {
                // The core looks the file up in the item by its id alone; the rest must be there.
                let file = json!({ "id": file_id, "name": "", "size": 0 });
                ("ItemsFilesRead", json!({ "vault_id": vault_id, "item_id": item_id, "attr": file }))
            }
        };
        let invocation =
            json!({ "clientId": client_id, "parameters": { "name": name, "parameters": parameters } });
        json!({ "invocation": invocation }).to_string().into_bytes()
    }
}

/// The JSON that makes a client. Names us to the service: its logs show who asked.
pub(super) fn client_config(token: &ServiceAccountToken) -> Zeroizing<Vec<u8>> {
    let token = token.expose_secret();
    let config = ClientConfig {
        programming_language: "Rust",
        sdk_version: SDK_BUILD,
        integration_name: "valetkey",
        integration_version: env!("CARGO_PKG_VERSION"),
        request_library_name: "reqwest",
        request_library_version: "0.11.24",
        os: std::env::consts::OS,
        os_version: "0.0.0",
        architecture: std::env::consts::ARCH,
        service_account_token: token,
    };
    // Room for all of it from the start: a vector that grows leaves copies of the token behind.
    let mut json = Zeroizing::new(Vec::with_capacity(token.len().saturating_add(1_024)));
    // Cannot fail: all are texts, and the vector takes everything. The core says so if it ever does.
    let _ = serde_json::to_writer(&mut *json, &config);
    json
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig<'a> {
    programming_language: &'a str,
    sdk_version: &'a str,
    integration_name: &'a str,
    integration_version: &'a str,
    request_library_name: &'a str,
    request_library_version: &'a str,
    os: &'a str,
    os_version: &'a str,
    architecture: &'a str,
    service_account_token: &'a str,
}

/// The build of the protocol that is spoken: version 0.4.2's.
const SDK_BUILD: &str = "0040201";
