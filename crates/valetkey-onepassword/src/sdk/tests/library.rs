use std::os::unix::fs::symlink;

use super::*;
use crate::sdk::library::Place;

/// Reads and loads a library; the error as a text.
fn load(path: &Path, pin: Option<&str>) -> Result<(), String> {
    let library = SdkLibrary::read(path, pin).map_err(|error| error.to_string())?;
    library.load().map(drop).map_err(|error| error.to_string())
}

fn check(path: &Path, pin: Option<&str>, expected: &str) {
    let error = load(path, pin).unwrap_err();
    assert!(error.contains(expected), "`{error}` does not say `{expected}`");
}

/// `bytes` in a file of their own.
fn file(directory: &TempDir, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn the_genuine_library_is_known_and_loads() {
    let Some(path) = genuine("the_genuine_library_is_known_and_loads") else { return };
    let library = SdkLibrary::read(&path, None).map_err(|error| error.to_string()).unwrap();
    assert_eq!(library.version(), Some("0.4.2"));
    let first = library.load().map_err(|error| error.to_string()).unwrap();
    // A second source shares it.
    let again = SdkLibrary::read(&path, Some(&sha256_of(&path))).map_err(|error| error.to_string()).unwrap();
    assert!(Arc::ptr_eq(&first, &again.load().map_err(|error| error.to_string()).unwrap()));
    check(&path, Some(&"0".repeat(64)), "the configuration pins 0000");
}

#[test]
fn changed_bytes_are_refused_before_they_run() {
    let Some(path) = genuine("changed_bytes_are_refused_before_they_run") else { return };
    let directory = tempfile::tempdir().unwrap();
    let bytes = fs::read(path).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let changed = file(&directory, "changed", &changed, 0o644);
    check(&changed, None, &sha256_of(&changed));
    check(&changed, None, "known: 0.4.2");
    check(&changed, None, "run `valetkey onepassword install`");
    let cut = file(&directory, "cut", bytes.get(..bytes.len() / 2).unwrap(), 0o644);
    check(&cut, None, "not known");
    // What is no library at all is refused by the loader, where somebody pinned it.
    let text = file(&directory, "text", b"no library", 0o644);
    check(&text, Some(&sha256_of(&text)), "cannot be loaded");
}

#[test]
fn what_a_link_leads_to_after_the_hashing_is_not_loaded() {
    let name = "what_a_link_leads_to_after_the_hashing_is_not_loaded";
    let (Some(genuine), Some(other)) = (genuine(name), stub(name, &["-DCONTRACT=26"])) else { return };
    let link = other.directory.path().join("link");
    symlink(genuine, &link).unwrap();
    let library = SdkLibrary::read(&link, None).map_err(|error| error.to_string()).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&other.path, &link).unwrap();
    // The stub's contract would be refused.
    assert!(library.load().is_ok());
    check(&link, None, "not known");
}

#[test]
fn another_interface_is_refused() {
    let interface = |name: &str, flags: &[&str], expected: &str| {
        if let Some(stub) = stub(name, flags) {
            check(&stub.path, Some(&stub.sha256), expected);
        }
    };
    interface("another_contract", &["-DCONTRACT=26"], "speaks UniFFI contract 26, and only 25 is known");
    interface(
        "another_checksum",
        &["-DINVOKE_CHECKSUM=1"],
        "`uniffi_op_uniffi_core_checksum_func_invoke` is 1",
    );
    interface(
        "no_function",
        &["-DWITHOUT_RELEASE"],
        "no function `uniffi_op_uniffi_core_checksum_func_release",
    );
    // The stub itself is all right: it is refused for these reasons alone.
    let Some(stub) = stub("the_stub_is_all_right", &[]) else { return };
    assert_eq!(load(&stub.path, Some(&stub.sha256)), Ok(()));
    check(&stub.path, None, "not known");
}

#[test]
fn files_that_are_not_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let check_file = |mode: u32, expected: &str| {
        check(&file(&directory, &format!("{mode:o}"), b"bytes", mode), None, expected);
    };
    check_file(0o646, "(mode 0646): `chmod go-w` it");
    check_file(0o664, "(mode 0664): `chmod go-w` it");
    check_file(0o644, "not known");
    check(Path::new("libop_uniffi_core.so"), None, "is not absolute");
    check(&directory.path().join("absent"), None, "cannot read");
    check(directory.path(), None, "cannot read");
    let large = file(&directory, "large", b"", 0o644);
    fs::File::options().write(true).open(&large).unwrap().set_len((64 << 20) + 1).unwrap();
    check(&large, None, "more than 64 MiB");
    for pin in ["", "d030", &"D0".repeat(32), &"0".repeat(66)] {
        check(&file(&directory, "any", b"bytes", 0o644), Some(pin), "pin must be a SHA-256");
    }
}

#[test]
fn pins_are_hashes_and_no_two_for_one_file() {
    for pin in sdk_pins() {
        assert_eq!(HEXLOWER.decode(pin.sha256.as_bytes()).map(|hash| hash.len()), Ok(32));
        assert!(pin.member.starts_with("onepassword/lib/"));
        let is_same =
            |other: &&SdkPin| (other.version, other.os, other.arch) == (pin.version, pin.os, pin.arch);
        assert_eq!(sdk_pins().iter().filter(is_same).count(), 1);
    }
}

/// What systems without files in memory do.
#[test]
fn a_private_copy_loads_too_and_is_removed() {
    let name = "a_private_copy_loads_too_and_is_removed";
    let Some(stub) = stub(name, &[]) else { return };
    let place = Place::in_private_directory(&fs::read(&stub.path).unwrap()).unwrap();
    let path = place.path().to_owned();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert!(Core::load(&place).is_ok());
    drop(place);
    assert!(!path.parent().unwrap().exists());
}

/// Nobody can change what was hashed, this program included.
#[cfg(target_os = "linux")]
#[test]
fn what_is_placed_in_memory_is_sealed() {
    use std::io::Write as _;

    let place = Place::in_memory(b"bytes").unwrap();
    assert_eq!(fs::read(place.path()).unwrap(), b"bytes");
    let mut file = fs::File::options().write(true).open(place.path()).unwrap();
    assert!(file.write_all(b"other").is_err());
    assert!(file.set_len(1).is_err() && file.set_len(9).is_err());
    assert_eq!(fs::read(place.path()).unwrap(), b"bytes");
}
