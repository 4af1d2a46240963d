//! A core that misbehaves.

use super::*;
use crate::sdk::ffi::CoreError;

fn load(stub: &Stub) -> Arc<Core> {
    let library =
        SdkLibrary::read(&stub.path, Some(&stub.sha256)).map_err(|error| error.to_string()).unwrap();
    library.load().map_err(|error| error.to_string()).unwrap()
}

/// What comes of a request, as a text.
async fn invoke(core: &Arc<Core>, request: &str) -> Result<String, String> {
    match core.invoke(request.as_bytes()).await {
        Ok(answer) => Ok(String::from_utf8(answer.bytes().to_vec()).unwrap()),
        Err(CoreError::Refused(text)) => Err(format!("refused: {}", *text)),
        Err(CoreError::Broken(why)) => Err(format!("broken: {why}")),
    }
}

/// The counts of the stub, once those that are let go of in the background are what they should be.
async fn counts(core: &Arc<Core>, expected: &str) {
    let wait = async {
        while invoke(core, "counts").await.as_deref() != Ok(expected) {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
        assert_eq!(invoke(core, "counts").await.as_deref(), Ok(expected));
    }
}

#[tokio::test]
async fn every_answer_and_every_failure_leaves_nothing_behind() {
    let Some(stub) = stub("every_answer_and_every_failure_leaves_nothing_behind", &[]) else { return };
    let core = load(&stub);
    let check = async |request: &str, expected: Result<&str, &str>| {
        let found = invoke(&core, request).await;
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{request}");
    };
    check("a secret", Ok("a secret")).await;
    check("a secret, later", Ok("a secret, later")).await;
    check("empty", Ok("")).await;
    check("refuse", Err("refused: a plain text")).await;
    check("panic", Err("broken: it panicked")).await;
    check("bad-error", Err("broken: an error is malformed")).await;
    check("unsound", Err("broken: a buffer is not sound")).await;
    check("odd-code", Err("broken: a poll came to nothing")).await;
    check("no-future", Err("broken: no future was given")).await;
    // One future and one answer: those of the question itself, which is not answered yet.
    counts(&core, "futures 1 answers 0 unwiped 0 clients 0 released 0").await;
}

#[tokio::test]
async fn a_call_that_is_given_up_is_cancelled_and_freed() {
    let Some(stub) = stub("a_call_that_is_given_up_is_cancelled_and_freed", &[]) else { return };
    let core = load(&stub);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let core = Arc::clone(&core);
            tokio::spawn(async move { invoke(&core, "never").await })
        })
        .collect();
    counts(&core, "futures 51 answers 0 unwiped 0 clients 0 released 0").await;
    assert_eq!(invoke(&core, "others go on").await.as_deref(), Ok("others go on"));
    for call in &calls {
        call.abort();
    }
    counts(&core, "futures 1 answers 0 unwiped 0 clients 0 released 0").await;
}

/// A second passes, and a little.
async fn pass_a_second() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1_001)).await;
    tokio::time::resume();
}

/// A source whose core is the stub.
fn stub_source(stub: &Stub) -> SdkSource {
    source(stub.path.clone(), Some(stub.sha256.clone()), "127.0.0.1", Duration::from_secs(5))
}

#[tokio::test]
async fn one_client_serves_all_who_come_at_once() {
    let Some(stub) = stub("one_client_serves_all_who_come_at_once", &[]) else { return };
    let source = Arc::new(stub_source(&stub));
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let source = Arc::clone(&source);
            tokio::spawn(async move { source.vaults().await.map(|vaults| vaults.len()) })
        })
        .collect();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Ok(0));
    }
    counts(&source.core, "futures 1 answers 0 unwiped 0 clients 1 released 0").await;
    let core = Arc::clone(&source.core);
    drop(source);
    counts(&core, "futures 1 answers 0 unwiped 0 clients 1 released 1").await;
}

#[tokio::test]
async fn a_client_that_is_lost_is_made_again_after_a_pause() {
    let Some(stub) = stub("a_client_that_is_lost_is_made_again_after_a_pause", &[]) else { return };
    let source = stub_source(&stub);
    assert!(source.vaults().await.is_ok());
    let panicked = error_of(source.items("panic").await);
    assert_eq!(panicked, UpstreamError::new(ResolveError::Unavailable, "the SDK core failed: it panicked"));
    // In the pause, nothing is asked.
    for _ in 0..5 {
        assert_eq!(error_of(source.vaults().await), panicked.clone().into_unsent());
    }
    counts(&source.core, "futures 1 answers 0 unwiped 0 clients 1 released 1").await;
    pass_a_second().await;
    assert!(source.vaults().await.is_ok());
    counts(&source.core, "futures 1 answers 0 unwiped 0 clients 2 released 1").await;
    // That worked, so the next pause is as short as the first.
    assert!(source.items("panic").await.is_err());
    pass_a_second().await;
    assert!(source.items("panic").await.is_err());
    // It did not, so the next one is twice as long.
    pass_a_second().await;
    assert!(source.vaults().await.is_err());
    counts(&source.core, "futures 1 answers 0 unwiped 0 clients 3 released 3").await;
}

#[tokio::test]
async fn a_call_without_an_answer_ends_in_time() {
    let Some(stub) = stub("a_call_without_an_answer_ends_in_time", &[]) else { return };
    let source =
        source(stub.path.clone(), Some(stub.sha256.clone()), "127.0.0.1", Duration::from_millis(300));
    let late = UpstreamError::new(ResolveError::Unavailable, "1Password did not answer in time");
    let (never, vaults) = tokio::join!(source.items("never"), source.vaults());
    assert_eq!(error_of(never), late);
    assert!(vaults.is_ok());
    // The client was not lost by it.
    assert!(source.vaults().await.is_ok());
    counts(&source.core, "futures 1 answers 0 unwiped 0 clients 1 released 0").await;
}

#[tokio::test]
async fn polls_that_hang_take_so_many_threads_and_no_more() {
    let Some(stub) = stub("polls_that_hang_take_so_many_threads_and_no_more", &[]) else { return };
    let source =
        source(stub.path.clone(), Some(stub.sha256.clone()), "127.0.0.1", Duration::from_millis(300));
    assert!(source.vaults().await.is_ok());
    // As if as many polls hung.
    let all = u32::try_from(ffi::POLLS_MAX).unwrap();
    let hanging = Arc::clone(&source.core.polls).acquire_many_owned(all).await.unwrap();
    assert_eq!(error_of(source.vaults().await).error, ResolveError::Unavailable);
    drop(hanging);
    assert!(source.vaults().await.is_ok());
}
