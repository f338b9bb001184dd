//! Compiles the protos with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let files = [
        "davit/plugin/v1/plugin.proto",
        "davit/storage/v1/storage.proto",
        "davit/network/v1/network.proto",
        "davit/runtime/v1/runtime.proto",
    ];
    println!("cargo:rerun-if-changed={}", root.display());
    let fds = protox::compile(files, [&root])?;
    tonic_prost_build::configure()
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]")
        .enum_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .compile_fds(fds)?;
    // Apart from ours: it names google.protobuf's messages, which are not serialisable.
    let containerd = protox::compile(["containerd/services/snapshots/v1/snapshots.proto"], [&root])?;
    tonic_prost_build::configure().compile_fds(containerd)?;
    Ok(())
}
