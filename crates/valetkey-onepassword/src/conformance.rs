//! The conformance suite: one table of references and what each gives, for every source alike.
//!
//! The vaults and items are `World::conformance()`'s. A source is asked as the core asks it: located, surveyed
//! one level at a time, granted, resolved.

use std::sync::Arc;

use valetkey_core::testing::{reference, request};
use valetkey_core::{
    AccessRequest, Clock, Directory, Grant, Located, RecordId, ResolveError, ResolveFailure, Resolved,
    Resolver, Survey, Target,
};

use crate::totp;

/// The vaults of the world, as a configuration names them: by name, but for those that only an id tells apart.
pub(crate) const VAULTS: [&str; 5] = [
    "main",
    "conftwinaxxxxxxxxxxxxxxxxx",
    "conftwinbxxxxxxxxxxxxxxxxx",
    "confspecialxxxxxxxxxxxxxxx",
    "EMPTY vault",
];

/// The world, in the JSON of a vault file.
pub(crate) fn world() -> serde_json::Value {
    let world = valetkey_standin::World::conformance().unwrap();
    let ids = world.vaults().iter().filter_map(|vault| vault["id"].as_str());
    let items: Vec<_> = ids.flat_map(|id| world.items(id)).collect();
    serde_json::json!({"vaults": world.vaults(), "items": items})
}

/// Holds a source against the table.
pub(crate) async fn check<S: Directory + Resolver>(source: &S, clock: &dyn Clock) {
    let mut wrong = Vec::new();
    for (text, expected) in TABLE {
        let before = clock.now();
        let given = read(source, text).await;
        let given = given.map(|it| String::from_utf8_lossy(it.value.expose_secret()).into_owned());
        let given = given.map_err(|failure| failure.error.code());
        let code = |at| {
            let code = totp::code(SEED, at).ok().unwrap();
            String::from_utf8(code.expose_secret().into()).unwrap()
        };
        let is_right = match (&given, expected) {
            (Ok(given), Value(value)) => given == value,
            (Ok(given), Begins(start)) => given.starts_with(start),
            // The clock may go on to the next code meanwhile.
            (Ok(given), Code) => [code(before), code(clock.now())].contains(given),
            (Err(given), Error(code)) => given == code,
            (Ok(_), Error(_)) | (Err(_), Value(_) | Begins(_) | Code) => false,
        };
        if !is_right {
            wrong.push(format!("`{text}` gives {given:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
}

/// Reads one reference as the core would, and again where it changed meanwhile.
pub(crate) async fn read<S: Directory + Resolver>(
    source: &S,
    text: &str,
) -> Result<Resolved, ResolveFailure> {
    read_as(source, request(text)).await
}

/// The same, for a request of whomever.
pub(crate) async fn read_as<S: Directory + Resolver>(
    source: &S,
    request: AccessRequest,
) -> Result<Resolved, ResolveFailure> {
    let mut answer = Err(ResolveError::Changed.into());
    for _ in 0..3 {
        let target = locate(source, &request).await?;
        if let Some(error) = target.error() {
            return Err(error.clone().into());
        }
        let grant = Grant::for_test(AccessRequest { target: target.into(), ..request.clone() }, RecordId(2));
        answer = source.resolve(&[&grant]).await.pop().unwrap();
        if !matches!(&answer, Err(failure) if failure.error == ResolveError::Changed) {
            break;
        }
    }
    answer
}

/// What a reference means, after what is not known of it was asked, one level at a time.
pub(crate) async fn locate<S: Directory>(
    source: &S,
    request: &AccessRequest,
) -> Result<Target, ResolveFailure> {
    let mut located = source.locate(&request.reference);
    for _ in 0..3 {
        let Located { target, gap: Some(gap) } = located else { break };
        let request = AccessRequest { target: Arc::new(target), ..request.clone() };
        let survey = Survey::for_test(request, gap, RecordId(1));
        source.learn(&[&survey]).await.pop().unwrap()?;
        located = source.locate(&survey.request().reference);
    }
    Ok(located.target)
}

/// What a reference gives.
#[derive(Debug)]
enum Expected {
    Value(&'static str),
    Begins(&'static str),
    /// The code of the moment.
    Code,
    Error(&'static str),
}

use Expected::{Begins, Code, Error, Value};

const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const TABLE: &[(&str, Expected)] = &[
    // Names and ids, in any case; ids only as they stand.
    ("op://Main/GitHub/username", Value("conf-github-username")),
    ("op://main/github/USERNAME", Value("conf-github-username")),
    ("op://MAIN/GITHUB/admin/TOKEN", Value("conf-github-token")),
    ("op://confmainxxxxxxxxxxxxxxxxxx/confgithubxxxxxxxxxxxxxxxx/seca/tokena", Value("conf-github-token")),
    ("op://confmainxxxxxxxxxxxxxxxxxx/GitHub/tokena", Value("conf-github-token")),
    ("op://Main/confgithubxxxxxxxxxxxxxxxx/token", Value("conf-github-token")),
    ("op://CONFMAINXXXXXXXXXXXXXXXXXX/GitHub/token", Error("VAULT_NOT_FOUND")),
    ("op://Main/CONFOTPXXXXXXXXXXXXXXXXXXX/username", Error("ITEM_NOT_FOUND")),
    ("op://Main/GitHub/SECA/token", Error("SECTION_NOT_FOUND")),
    ("op://Main/GitHub/TOKENA", Error("FIELD_NOT_FOUND")),
    // An id beats a title that equals it.
    ("op://Main/confgithubxxxxxxxxxxxxxxxx/username", Value("conf-github-username")),
    ("op://Main/confimposterxxxxxxxxxxxxxx/username", Value("conf-imposter-username")),
    // What is not there.
    ("op://Nowhere/GitHub/username", Error("VAULT_NOT_FOUND")),
    ("op://Main/Nothing/username", Error("ITEM_NOT_FOUND")),
    ("op://Empty Vault/GitHub/username", Error("ITEM_NOT_FOUND")),
    ("op://Main/GitHub/Nothing/username", Error("SECTION_NOT_FOUND")),
    ("op://Main/GitHub/nothing", Error("FIELD_NOT_FOUND")),
    ("op://Main/GitHub/Nothing Inside/token", Error("FIELD_NOT_FOUND")),
    ("op://Main/GitHub/Other Things/token", Error("FIELD_NOT_FOUND")),
    // Twins.
    ("op://Twin/Thing/password", Error("AMBIGUOUS_REFERENCE")),
    ("op://conftwinaxxxxxxxxxxxxxxxxx/Thing/password", Value("conf-twin-a")),
    ("op://conftwinbxxxxxxxxxxxxxxxxx/Thing/password", Value("conf-twin-b")),
    ("op://Main/Pair/password", Error("AMBIGUOUS_REFERENCE")),
    ("op://Main/confpairaxxxxxxxxxxxxxxxxx/password", Value("conf-pair-a")),
    ("op://Main/confpairbxxxxxxxxxxxxxxxxx/password", Value("conf-pair-b")),
    ("op://Main/GitHub/Other Things/clash", Error("AMBIGUOUS_REFERENCE")),
    ("op://Main/GitHub/Other Things/first clash", Value("conf-github-clash-1")),
    // Sections: those of one label are searched together; what is in none comes first.
    ("op://Main/GitHub/Admin/pin", Value("conf-github-pin-b")),
    ("op://Main/GitHub/secb/pin", Value("conf-github-pin-b")),
    ("op://Main/GitHub/other things/PIN", Value("conf-github-pin-c")),
    ("op://Main/GitHub/pin", Error("AMBIGUOUS_REFERENCE")),
    ("op://Main/GitHub/Admin/twin", Error("AMBIGUOUS_REFERENCE")),
    ("op://Main/GitHub/seca/twin", Value("conf-github-twin-a")),
    ("op://Main/GitHub/twinb", Value("conf-github-twin-b")),
    ("op://Main/GitHub/Other Things/username", Value("conf-github-username-c")),
    ("op://Main/GitHub/deep", Value("conf-github-deep-d")),
    ("op://Main/GitHub/secd/deep", Value("conf-github-deep-d")),
    ("op://Main/GitHub/Other Things/deep", Value("conf-github-deep-c")),
    ("op://Main/GitHub/secf/token", Error("FIELD_NOT_FOUND")),
    // Values as they stand.
    ("op://Main/GitHub/password", Value("  conf-github-password with blanks  ")),
    ("op://Main/GitHub/blank", Value("")),
    ("op://Main/GitHub/Other Things/absent", Value("")),
    ("op://Main/GitHub/notes", Value("conf-github-notes\nsecond line")),
    ("op://Main/GitHub/NOTESPLAIN", Value("conf-github-notes\nsecond line")),
    ("op://Main/Papers/notes", Value("conf-papers-notes")),
    ("op://Main/GitHub/contact", Value("conf-github@example.com")),
    ("op://Main/GitHub/site", Value("https://conf-github.example/")),
    // Names that no reference can say go by their ids.
    ("op://Main/GitHub/special", Value("conf-github-special")),
    ("op://Main/confbankxxxxxxxxxxxxxxxxxx/account number", Value("conf-bank-number")),
    ("op://confspecialxxxxxxxxxxxxxxx/Plain/password", Value("conf-special-password")),
    // One-time passwords.
    (
        "op://Main/Authenticator/one-time password",
        Value("otpauth://totp/conf?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
    ),
    ("op://Main/Authenticator/one-time password?attribute=otp", Code),
    ("op://Main/Authenticator/Security/TOTP_good?attribute=totp", Code),
    ("op://Main/Authenticator/username?attribute=otp", Error("FIELD_NOT_OTP")),
    ("op://Main/Authenticator/broken?attribute=otp", Error("OTP_SEED_MALFORMED")),
    // SSH keys.
    ("op://Main/Deploy Key/private key", Begins("-----BEGIN PRIVATE KEY-----\n")),
    ("op://Main/Deploy Key/private key?ssh-format=openssh", Begins("-----BEGIN OPENSSH PRIVATE KEY-----\n")),
    ("op://Main/Deploy Key/public key", Begins("ssh-ed25519 AAAA")),
    ("op://Main/Deploy Key/public key?ssh-format=openssh", Error("FIELD_NOT_PRIVATE_KEY")),
    ("op://Main/GitHub/password?ssh-format=openssh", Error("FIELD_NOT_PRIVATE_KEY")),
    // Files.
    ("op://Main/Papers/read me.TXT", Value("conf-papers-text file\n")),
    ("op://Main/Papers/Attached/confiletextxxxxxxxxxxxxxxx", Value("conf-papers-text file\n")),
    ("op://Main/Papers/image.bin", Error("FILE_NOT_TEXT")),
    // Archived items: their titles lead nowhere, their ids to a refusal.
    ("op://Main/Retired/password", Error("ITEM_NOT_FOUND")),
    ("op://Main/confarchivedxxxxxxxxxxxxxx/password", Error("ITEM_NOT_ACTIVE")),
    ("op://Main/Renewed/password", Value("conf-renewed-new")),
    ("op://Main/confreplacedxxxxxxxxxxxxxx/password", Error("ITEM_NOT_ACTIVE")),
];

mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use valetkey_core::testing::FakeClock;
    use valetkey_standin::{ConnectServer, OpProgram, Service, World, sdk_library, skip};

    use super::*;
    use crate::{
        ConnectOptions, ConnectToken, ConnectTokenSource, OpOptions, QuotaLimits, SdkOptions, Source,
        SourceOptions, TokenNames, TokenSource, VaultFile,
    };

    fn options() -> SourceOptions {
        let vaults = VAULTS.map(Arc::from).to_vec();
        SourceOptions { quota: QuotaLimits::NONE, ..SourceOptions::new("conf".into(), vaults) }
    }

    fn token(token: &str) -> TokenSource {
        let token = OsString::from(token);
        let environment = |name: &str| (name == "OP_SERVICE_ACCOUNT_TOKEN").then(|| token.clone());
        TokenSource::find(&environment, TokenNames::default()).unwrap()
    }

    #[tokio::test]
    async fn connect_conforms() {
        let clock = FakeClock::default();
        let server = ConnectServer::start(World::conformance().unwrap()).await.unwrap();
        let token = ConnectToken::parse(ConnectServer::TOKEN.into()).unwrap();
        let connect = ConnectOptions::new(server.host(), ConnectTokenSource::Here(token));
        let source = Source::connect(connect, options(), Arc::new(clock.clone()));
        check(&source.ok().unwrap(), &clock).await;
    }

    #[tokio::test]
    async fn op_conforms() {
        let clock = FakeClock::default();
        let world = World::conformance().unwrap();
        let (program, service) = (OpProgram::new(&world).unwrap(), Service::start(world).await.unwrap());
        let op = OpOptions {
            program: program.path(),
            token: token(&service.token()),
            allow_loopback: true,
            timeout: Duration::from_secs(60),
            processes_max: OpOptions::PROCESSES_MAX,
        };
        check(&Source::op(op, options(), Arc::new(clock.clone())).ok().unwrap(), &clock).await;
    }

    #[tokio::test]
    async fn the_sdk_core_conforms() {
        let library = match sdk_library() {
            Ok(library) => library,
            Err(why) => return skip("the_sdk_core_conforms", &why),
        };
        let clock = FakeClock::default();
        let service = Service::start(World::conformance().unwrap()).await.unwrap();
        let sdk = SdkOptions {
            allow_loopback: true,
            timeout: Duration::from_secs(60),
            ..SdkOptions::new(library, token(&service.token()))
        };
        check(&Source::sdk(sdk, options(), Arc::new(clock.clone())).ok().unwrap(), &clock).await;
    }

    #[tokio::test]
    async fn the_vault_file_conforms() {
        let clock = FakeClock::default();
        let json = world().to_string().into_bytes();
        let file = VaultFile::from_json(json, Arc::new(clock.clone())).unwrap();
        check(&file, &clock).await;
    }

    #[test]
    fn the_table_is_of_references() {
        for (text, _) in TABLE {
            assert_eq!(reference(text).as_str(), *text);
        }
    }
}
