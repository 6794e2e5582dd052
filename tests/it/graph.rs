//! What a program takes in that needs only the client.

use std::collections::BTreeSet;
use std::process::Command;

/// Packages beside this one, on Linux.
const PACKAGES_MAX: usize = 32;

#[test]
fn a_program_that_needs_only_the_client_takes_in_few_packages_and_no_server() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(["--no-default-features", "--features", "client", "--format", "{p}"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let packages: BTreeSet<String> =
        tree.lines().map(name).filter(|name| !name.is_empty() && name != "coordinator").collect();
    assert!(packages.contains("tokio"), "{packages:?}");
    for foreign in ["actix", "actix-rt", "clap", "log", "serde_json", "siphasher"] {
        assert!(!packages.contains(foreign), "{foreign} is among {packages:?}");
    }
    assert!(
        packages.len() <= PACKAGES_MAX,
        "{} packages, {PACKAGES_MAX} were enough: {packages:?}",
        packages.len()
    );
    let readme = include_str!("../../README.md");
    let told = format!("({} packages besides this one on Linux", packages.len());
    assert!(readme.contains(&told), "README.md does not say {told:?}");
}
