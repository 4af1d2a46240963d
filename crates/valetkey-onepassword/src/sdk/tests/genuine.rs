//! The genuine core, without a service behind it.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

/// A listener that accepts and does nothing more, and how many came.
fn black_hole() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    (address, count)
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The core's own judgement of tokens that would not get past ours.
#[tokio::test]
async fn the_core_refuses_what_is_no_token() {
    let Some(path) = genuine("the_core_refuses_what_is_no_token") else { return };
    let core = SdkLibrary::read(&path, None).map_err(|error| error.to_string()).unwrap().load();
    let core = core.map_err(|error| error.to_string()).unwrap();
    let check = async |token: &str, name: &str| {
        let config = serde_json::json!({
            "programmingLanguage": "Rust", "sdkVersion": "0040201", "integrationName": "valetkey",
            "integrationVersion": "0", "requestLibraryName": "reqwest", "requestLibraryVersion": "0.11.24",
            "os": "linux", "osVersion": "0.0.0", "architecture": "x86_64", "serviceAccountToken": token,
        });
        let error = error_of(core.init_client(config.to_string().as_bytes()).await);
        let found = fault::fault(None, &error).error;
        assert_eq!(found.error, ResolveError::CredentialsRefused, "{token}");
        assert!(format!("{found:?}").contains(name), "{found:?}");
    };
    check("", "InvalidConfiguration").await;
    check("abc", "InvalidConfiguration").await;
    check("ops_", "ServiceAccountTokenParsing").await;
    check("ops_e30", "ServiceAccountTokenParsing").await;
    // What is no request is refused in plain text.
    let fault = fault::fault(Some(Question::Vaults), &error_of(core.invoke(b"{}").await));
    assert!(format!("{:?}", fault.error).contains("missing field"), "{:?}", fault.error);
}

#[tokio::test]
async fn nobody_at_the_address() {
    let Some(path) = genuine("nobody_at_the_address") else { return };
    let source = source(path, None, &nobody(), TIMEOUT);
    let error = error_of(source.vaults().await);
    assert_eq!(error.error, ResolveError::Unavailable);
    assert!(format!("{error:?}").contains("error sending request"), "{error:?}");
}

/// The core does not say whether it has sent something: the first time counts, and those after it cost nothing.
#[tokio::test]
async fn a_service_that_cannot_be_reached_is_counted_once() {
    let Some(path) = genuine("a_service_that_cannot_be_reached_is_counted_once") else { return };
    let source = source(path, None, &nobody(), TIMEOUT);
    for (spent, why) in [(SIGN_IN_COST, "error sending"), (0, "cannot be reached"), (0, "cannot be reached")]
    {
        let error = error_of(source.vaults().await);
        assert_eq!(error.progress, crate::upstream::Progress::Unsent, "{error:?}");
        assert!(format!("{error:?}").contains(why), "{error:?}");
        assert_eq!(source.take_sign_in_spending(), spent, "{why}");
        source.session.end_pause();
    }
}

/// A throttling key of zeros makes the core panic: seen, and good for this.
#[tokio::test]
async fn a_panic_of_the_core_stays_in_the_core() {
    let Some(path) = genuine("a_panic_of_the_core_stays_in_the_core") else { return };
    let mut token = fake_token_json(&nobody());
    token["throttleSecret"] = serde_json::json!({ "seed": "0".repeat(64), "uuid": "A".repeat(26) });
    let error = error_of(open(path.clone(), None, &token_of(&token), TIMEOUT).vaults().await);
    assert_eq!(error, UpstreamError::unsent(ResolveError::Unavailable, "the SDK core failed: it panicked"));
    let other = source(path, None, &nobody(), TIMEOUT);
    assert!(format!("{:?}", error_of(other.vaults().await)).contains("error sending request"));
}

#[tokio::test]
async fn a_service_that_never_answers_holds_nobody_else_up() {
    let Some(path) = genuine("a_service_that_never_answers_holds_nobody_else_up") else { return };
    let (address, came) = black_hole();
    let hanging = Arc::new(source(path.clone(), None, &address, Duration::from_millis(500)));
    let other = source(path, None, &nobody(), TIMEOUT);
    let begin = Instant::now();
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let hanging = Arc::clone(&hanging);
            tokio::spawn(async move { error_of(hanging.vaults().await) })
        })
        .collect();
    assert_eq!(error_of(other.vaults().await).error, ResolveError::Unavailable);
    for asked in asked {
        assert_eq!(asked.await.unwrap().error, ResolveError::Unavailable);
    }
    // The core itself would wait for thirty seconds.
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    // One signed in for all, and in the pause after it nobody does.
    assert_eq!(error_of(hanging.vaults().await).error, ResolveError::Unavailable);
    assert_eq!(came.load(Ordering::SeqCst), 1);
}
