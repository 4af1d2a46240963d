//! `valetkey onepassword`: what a source of 1Password's needs on this machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use valetkey_server::{SdkPin, sdk_pins};

use crate::cli::{InstallArgs, OnepasswordCommand};
use crate::failure::{Exit, Failure};
use crate::output;

mod python;

/// Runs it.
pub(crate) async fn run(command: OnepasswordCommand) -> Result<Exit, Failure> {
    match command {
        OnepasswordCommand::Install(args) => install(args).await,
    }
}

/// Fetches the library and puts it in place. The package index is not trusted: what it gave is held against the
/// pin that this program was built with.
async fn install(args: InstallArgs) -> Result<Exit, Failure> {
    let InstallArgs { to, release, offline_wheel } = args;
    let pin = pin(release.as_deref())?;
    let folder = match to {
        Some(folder) => std::path::absolute(folder)?,
        None => default_folder(pin.version, &|name| std::env::var_os(name))?,
    };
    let path = folder.join(pin.file_name());
    if fs::read(&path).is_ok_and(|bytes| pin.is(&bytes)) {
        output::note(&format!("version {} is in place already", pin.version));
    } else {
        let scratch = tempfile::tempdir()?;
        let wheel = match offline_wheel {
            Some(wheel) => std::path::absolute(wheel)?,
            None => {
                output::note(&format!("fetching onepassword-sdk {} with pip", pin.version));
                python::download(pin, scratch.path()).await?
            }
        };
        output::note(&format!("taking {} out of {}", pin.file_name(), wheel.display()));
        let library = python::take_out(pin, &wheel, scratch.path()).await?;
        let wrong = |error: &dyn std::error::Error| {
            let Failure { exit, message } = Failure::chain(Exit::Failed, error);
            Failure::new(exit, format!("{}: {message}", wheel.display()))
        };
        pin.install(&library, &folder).map_err(|error| wrong(&error))?;
        output::note(&format!("its SHA-256 is that of version {}; installed", pin.version));
    }
    output::note(TERMS);
    output::note("# put this into the broker's configuration, with the vaults that it may serve:");
    output::line(&entry(&path))?;
    Ok(Exit::Done)
}

/// The newest known release for this platform, or the one that was asked for.
fn pin(version: Option<&str>) -> Result<&'static SdkPin, Failure> {
    let known: Vec<_> = sdk_pins().iter().filter(|pin| pin.is_for_this_platform()).collect();
    let found = known.iter().find(|pin| version.is_none_or(|version| pin.version == version));
    found.copied().ok_or_else(|| {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let versions = known.iter().map(|pin| pin.version).collect::<Vec<_>>().join(", ");
        let message = match (version, known.as_slice()) {
            (_, []) => format!("no version is known for {os} on {arch}: use a source of kind `connect` or `op`"),
            (version, _) => format!(
                "version `{}` is not known for {os} on {arch} (known: {versions}); a later `valetkey` may know it",
                version.unwrap_or_default()
            ),
        };
        Failure::new(Exit::Failed, message)
    })
}

/// Where the library of a version is unless somebody says otherwise.
pub(crate) fn default_folder(
    version: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Failure> {
    let set = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = if rustix::process::geteuid().is_root() {
        Some(PathBuf::from("/var/lib"))
    } else {
        set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")))
    };
    let data = data.ok_or_else(|| {
        Failure::new(Exit::Usage, "neither `XDG_DATA_HOME` nor `HOME` is set: say where with `--to`")
    })?;
    Ok(data.join("valetkey/onepassword").join(version))
}

fn entry(library: &Path) -> String {
    let library = serde_json::Value::from(library.to_string_lossy());
    format!(
        "[[source]]\nname = \"team\"\nkind = \"sdk\"\nvaults = [\"…\"]\nlibrary = {library}\ntoken_file = \"team.token\""
    )
}

const TERMS: &str = "\
The library is 1Password's, not a part of valetkey. Its use is under 1Password's terms:
  https://1password.com/legal/api-sdk-terms-of-service";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_or_refused() {
        assert_eq!(pin(None).ok(), pin(Some("0.4.2")).ok());
        let error = pin(Some("0.0.1")).unwrap_err();
        assert!(error.message.starts_with("version `0.0.1` is not known for"), "{}", error.message);
    }

    #[test]
    fn the_entry_is_one_of_a_configuration() {
        let text = entry(Path::new("/opt/a \"b\"/lib.so"));
        let end = "library = \"/opt/a \\\"b\\\"/lib.so\"\ntoken_file = \"team.token\"";
        assert!(text.ends_with(end), "{text}");
    }
}
