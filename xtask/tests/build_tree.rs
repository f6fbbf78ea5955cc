//! What a Redox build tree is given (`initfs/redox/`) is what its tools read, and what it names is
//! there. The cookbook's own functions are played by shell functions that say how they were called.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::Table;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn table(path: impl AsRef<Path>) -> Table {
    let text = fs::read_to_string(repository().join(path)).unwrap();
    text.parse().unwrap()
}

/// The programs that a package has.
fn programs(package: &Path) -> Vec<String> {
    let manifest = table(package.join("Cargo.toml"));
    let bins = manifest["bin"].as_array().unwrap();
    bins.iter()
        .map(|bin| bin["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_recipe_installs_both_programs_and_the_service() {
    let recipe = table("initfs/redox/recipe.toml");
    let build = recipe["build"].as_table().unwrap();
    assert_eq!(build["template"].as_str(), Some("custom"));
    let stage = tempfile::tempdir().unwrap();
    let script = format!(
        "set -eu; cookbook_cargo() {{ echo \"$COOKBOOK_CARGO_PATH $*\"; }}\n{}",
        build["script"].as_str().unwrap()
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("COOKBOOK_STAGE", stage.path())
        .env("COOKBOOK_SOURCE", repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let calls = String::from_utf8(output.stdout).unwrap();
    let calls: Vec<Vec<&str>> = calls
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    for (call, program) in calls.iter().zip(["gemd", "gemctl"]) {
        let &[package, "--bin", name] = call.as_slice() else {
            panic!("{call:?}");
        };
        assert_eq!(name, program);
        assert!(
            programs(Path::new(package)).contains(&name.to_owned()),
            "{call:?}"
        );
    }
    assert_eq!(calls.len(), 2);
    let service = stage.path().join("usr/lib/init.d/10_gemd.service");
    let service: Table = fs::read_to_string(service).unwrap().parse().unwrap();
    assert_eq!(service["service"]["cmd"].as_str(), Some("gemd"));
    assert_eq!(service["service"]["type"].as_str(), Some("notify"));
}

#[test]
fn the_image_has_the_package_and_links_where_libdrm_looks() {
    let image = table("initfs/redox/gemd.toml");
    assert!(image["packages"].as_table().unwrap().contains_key("gemd"));
    let files = image["files"].as_array().unwrap();
    for (node, file) in ["card0", "renderD128"].iter().zip(files) {
        assert_eq!(
            file["path"].as_str(),
            Some(format!("/dev/dri/{node}").as_str())
        );
        assert_eq!(
            file["data"].as_str(),
            Some(format!("/scheme/gem/{node}").as_str())
        );
        assert_eq!(file["symlink"].as_bool(), Some(true));
    }
    assert_eq!(files.len(), 2);
}
