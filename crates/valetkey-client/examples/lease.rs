//! An agent leases a password for its tool, and the tool redeems the handle: against `valetkey serve --dev`, with
//! `VALETKEY_ADDRESS`, `VALETKEY_TOKEN` of `agent:travel-bot` and `NAVAN_TOKEN` of `tool:navan.book_flight`.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use valetkey_client::{AcquireLease, Broker, Token};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::var("VALETKEY_ADDRESS")?;
    let agent = Broker::connect(&address, Token::parse(std::env::var("VALETKEY_TOKEN")?)?).await?;
    let tool = Broker::connect(&address, Token::parse(std::env::var("NAVAN_TOKEN")?)?).await?;

    let password = "op://Tutorial/Navan/password";
    let lease = agent.lease(AcquireLease::new("navan.book_flight", [password], "try it")).await?;
    let handle = lease.handle(password).await?.handle;
    println!("for the model: {}", handle.expose_secret());
    let value = tool.redeem(&handle).await?;
    println!("for the tool: {} bytes", value.expose_secret().len());
    lease.end().await?;
    Ok(())
}
