//! What `valetkey doctor` says of this source. Costs a sign-in and the list of vaults.

use super::{SdkLibrary, SdkOptions, SdkSource};
use crate::check::{Check, UNREACHABLE, vault_checks};
use crate::token::Hosts;

/// Looks at the library, its version and its interface, at the token, and whether 1Password takes it and has
/// `vaults`, by name or id. What depends on something that failed is left out.
pub async fn sdk_checks(options: SdkOptions, vaults: &[String]) -> Vec<Check> {
    let path = options.library.display().to_string();
    let library = SdkLibrary::read(&options.library, options.pin.as_deref()).map(|library| {
        format!(
            "`{path}`, {}",
            library.version().map_or("pinned by you".to_owned(), |it| format!("version {it}"))
        )
    });
    let token = options
        .token
        .read(Hosts::of(options.allow_loopback))
        .map(|_| "names a 1Password host; not tried yet".to_owned());
    let mut checks = vec![
        Check::of("SDK library", library, "`valetkey onepassword install` puts the right one in place"),
        Check::of("token", token, "docs/sources.md says where a token comes from"),
    ];
    if checks.iter().any(Check::is_failed) {
        return checks;
    }
    match SdkSource::open(options) {
        Ok(source) => checks.extend(vault_checks(&source, vaults, UNREACHABLE).await),
        Err(error) => checks.push(Check::of("SDK core", Err(error), "take the version that valetkey knows")),
    }
    checks
}
