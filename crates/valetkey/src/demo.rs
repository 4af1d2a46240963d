//! `valetkey demo`: the travel story, played against a real broker over real connections.
//!
//! `stage.rs` starts the broker and connects everybody, `story.rs` has the acts, `report.rs` the review at
//! the end, `teller.rs` how it is told. Nothing is only printed: each step names what must come, and the
//! first that goes otherwise ends the demo with exit code 1.

mod report;
mod stage;
mod story;
mod teller;

use crate::failure::{Exit, Failure};
use crate::signals::Interrupts;
use stage::Stage;
use teller::tell;

/// Plays it.
pub(crate) async fn run() -> Result<Exit, Failure> {
    tell("A broker with a throw-away vault, policies and audit log, on this machine alone.")?;
    let mut interrupts = Interrupts::take()?;
    let interrupted = || Failure::new(Exit::Failed, "interrupted");
    let stage = tokio::select! {
        stage = Stage::open() => stage?,
        () = interrupts.next() => return Err(interrupted()),
    };
    tell(&format!(
        "It listens on {}; everybody below connects to it with a token of their own.",
        stage.address
    ))?;
    let played = tokio::select! {
        played = play(&stage) => played,
        () = interrupts.next() => Err(interrupted()),
    };
    let closed = stage.close().await;
    played?;
    let throwaway = closed?;
    report::verify(&throwaway.database())?;
    let folder = throwaway.remove()?;
    if folder.exists() {
        return Err(teller::unexpected("an empty stage", &format!("`{}` is still there", folder.display())));
    }
    teller::done("Every step went as the story says. The broker is gone, and its folder with it.")?;
    Ok(Exit::Done)
}

async fn play(stage: &Stage) -> Result<(), Failure> {
    story::errand(stage).await?;
    story::refusals(stage).await?;
    story::stolen_and_used(stage).await?;
    story::closed_stream(stage).await?;
    story::changed_policy(stage).await?;
    report::review(stage).await?;
    report::log(stage).await
}
