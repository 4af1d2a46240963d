//! Compiles the protos with protox: no `protoc` on the machine, no network.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = [
        "lease",
        "lease_service",
        "audit",
        "audit_service",
        "operator_service",
        "report_service",
        "token_service",
        "approval_service",
    ]
    .map(|name| format!("{root}/valetkey/v1/{name}.proto"));
    println!("cargo::rerun-if-changed={root}");

    let descriptors = protox::compile(files, [root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        // Messages that carry a value, a handle or a token get a hand-written Debug, in `redact.rs`.
        .skip_debug([
            "valetkey.v1.RedeemHandleRequest",
            "valetkey.v1.RedeemHandleResponse",
            "valetkey.v1.HandleIssued",
            "valetkey.v1.CreateTokenResponse",
            "valetkey.v1.FindValueRequest",
        ])
        .compile_fds(descriptors)?;

    // Somebody else's contract, so not among ours: what the broker speaks of it, and nothing that reflection shows.
    println!("cargo::rerun-if-changed=spiffe");
    tonic_prost_build::configure()
        .skip_debug(["X509SVID", "X509SVIDResponse"])
        .compile_fds(protox::compile(["spiffe/workload.proto"], ["spiffe"])?)?;
    Ok(())
}
