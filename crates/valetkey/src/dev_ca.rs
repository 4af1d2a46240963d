//! `valetkey dev-ca`: certificates for a try-out of mutual TLS.
//!
//! Not for more than that: the authority lives for a day and its key is not kept. A team's workloads get theirs from
//! SPIRE or another authority.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use valetkey_core::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use crate::cli::DevCaArgs;
use crate::failure::{Exit, Failure};
use crate::output;

/// A caller of the try-out: its kind, its name, and the SPIFFE id in its certificate.
struct Caller {
    kind: &'static str,
    name: String,
    id: SpiffeId,
}

/// The authority, until it has signed what there is to sign.
struct Authority<'a> {
    issuer: Issuer<'a, KeyPair>,
    folder: &'a Path,
}

/// Runs it.
pub(crate) fn run(args: DevCaArgs) -> Result<Exit, Failure> {
    let DevCaArgs { directory, trust_domain, agent, tool, person, host } = args;
    let domain = TrustDomain::parse(&trust_domain).map_err(|error| {
        Failure::new(Exit::Usage, format!("the trust domain {error}, is `{trust_domain}`"))
    })?;
    let caller = |kind, name: String| {
        let id = SpiffeId::parse(&format!("spiffe://{domain}/{kind}/{name}"))
            .map_err(|error| Failure::new(Exit::Usage, format!("the SPIFFE id of `{name}` {error}")))?;
        Ok::<_, Failure>(Caller { kind, name, id })
    };
    let callers = [caller("agent", agent)?, caller("tool", tool)?, caller("person", person)?];
    let folder = new_folder(&directory)?;
    make(&folder, &domain, &host, &callers)?;
    let configuration = configuration(&domain);
    write(&folder.join("valetkey.toml"), configuration.as_bytes(), 0o644)?;
    introduce(&folder, &configuration, &callers)?;
    Ok(Exit::Done)
}

fn make(folder: &Path, domain: &TrustDomain, hosts: &[String], callers: &[Caller]) -> Result<(), Failure> {
    let mut ca = params("valetkey try-out authority", Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let own = ca.self_signed(&key).map_err(failed)?;
    write(&folder.join("ca.pem"), own.pem().as_bytes(), 0o644)?;
    let authority = Authority { issuer: Issuer::from_params(&ca, key), folder };

    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend_from_slice(hosts);
    let mut names = CertificateParams::new(names).map_err(failed)?.subject_alt_names;
    names.push(uri(&format!("spiffe://{domain}/valetkey"))?);
    authority.sign("broker", names, ExtendedKeyUsagePurpose::ServerAuth)?;
    for Caller { kind, name: _, id } in callers {
        authority.sign(kind, vec![uri(id.as_str())?], ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(())
}

impl Authority<'_> {
    /// Makes `<name>.pem` and `<name>.key`.
    fn sign(&self, name: &str, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Result<(), Failure> {
        let mut params = params(&format!("valetkey try-out {name}"), names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        write(&self.folder.join(format!("{name}.pem")), certificate.pem().as_bytes(), 0o644)?;
        let key = Zeroizing::new(key.serialize_pem());
        write(&self.folder.join(format!("{name}.key")), key.as_bytes(), 0o600)
    }
}

/// A certificate for a day, from a little ago: clocks differ.
fn params(name: &str, names: Vec<SanType>) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names;
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, Failure> {
    Ok(SanType::URI(text.try_into().map_err(failed)?))
}

/// The folder, made for its owner alone.
fn new_folder(directory: &Path) -> Result<PathBuf, Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if std::fs::read_dir(directory)?.next().is_some() {
        let message = format!("`{}` is not empty; name a new folder", directory.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(std::fs::canonicalize(directory)?)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    Ok(file.write_all(content)?)
}

fn configuration(domain: &TrustDomain) -> String {
    format!(
        r#"# Paths are relative to this file.
listen = "127.0.0.1:7447"

[tls]
certificate = "broker.pem"
key = "broker.key"
client_ca = "ca.pem"
trust_domain = "{domain}"

[audit]
database = "audit.db"

[policies]
directory = "policies"

[[source]]
name = "try-out"
kind = "file"
file = "vault.json"

[[spiffe_rule]]
pattern = "spiffe://{domain}/agent/{{name}}"
agent = "{{name}}"

[[spiffe_rule]]
pattern = "spiffe://{domain}/tool/{{name}}"
tool = "{{name}}"

[[spiffe_rule]]
pattern = "spiffe://{domain}/person/{{name}}"
person = "{{name}}"
"#
    )
}

fn introduce(folder: &Path, configuration: &str, callers: &[Caller]) -> Result<(), Failure> {
    let folder = folder.display();
    output::line(&format!("# {folder}/valetkey.toml; put `policies/` and `vault.json` beside it"))?;
    output::text(configuration)?;
    output::line(&format!(
        "\n# the broker: valetkey serve --config {folder}/valetkey.toml --create-database\n# each caller, in a \
         terminal of its own:\nexport VALETKEY_ADDRESS=https://localhost:7447\nexport VALETKEY_CA={folder}/ca.pem"
    ))?;
    for Caller { kind, name, id } in callers {
        output::line(&format!(
            "\n# {kind}:{name}, {id}\nexport VALETKEY_CERT={folder}/{kind}.pem\nexport \
             VALETKEY_KEY={folder}/{kind}.key"
        ))?;
    }
    Ok(())
}

fn failed(error: rcgen::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the certificates cannot be made: {error}"))
}
