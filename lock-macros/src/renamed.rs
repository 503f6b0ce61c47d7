//! What the user's program calls `lock_core`: a manifest can depend on it under another name.

use std::path::{Path, PathBuf};
use std::{env, fs};

use proc_macro2::{Ident, Span};

const OURS: &str = "lock-core";

/// The path of `lock_core`, where no `crate = ..` gives one.
pub(crate) fn lock_core() -> syn::Path {
    match in_manifests().and_then(|name| syn::parse_str::<Ident>(&name).ok()) {
        Some(mut name) => {
            name.set_span(Span::call_site());
            syn::parse_quote!(::#name)
        }
        None => syn::parse_quote!(::lock_core),
    }
}

/// A rename in the manifest of the package, or in that of its workspace.
fn in_manifests() -> Option<String> {
    let directory = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let manifests: Vec<_> = (directory.ancestors())
        .filter_map(|directory: &Path| fs::read_to_string(directory.join("Cargo.toml")).ok())
        .collect();
    rename(&manifests)
}

/// The other name that the first of these manifests uses. Only a name that stands in it counts: it is
/// that of a dependency, whatever else the manifest says.
fn rename(manifests: &[String]) -> Option<String> {
    let own = manifests.first()?;
    if [OURS, "lock_core"].iter().any(|name| depends(own, name)) {
        return None;
    }
    (manifests.iter().flat_map(|manifest| declared(manifest)))
        .find(|name| depends(own, name))
        .map(|name| name.replace('-', "_"))
}

/// Whether there is a line for a dependency of this name.
fn depends(manifest: &str, name: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .any(|line| match table(line) {
            Some(table) => dependency(table) == Some(name),
            None => (line.strip_prefix(name))
                .is_some_and(|rest| rest.trim_start().starts_with(['=', '.'])),
        })
}

/// The names that the package has in this manifest.
fn declared(manifest: &str) -> Vec<&str> {
    let (mut names, mut within) = (Vec::new(), None);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = table(line) {
            within = dependency(table);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.replace(' ', ""));
        let is_ours = value.starts_with("\"lock-core\"");
        match key.strip_suffix("package") {
            Some("") if is_ours => names.extend(within),
            Some(name) if is_ours => names.extend(name.strip_suffix('.')),
            _ if value.contains("package=\"lock-core\"") => names.push(key),
            _ => {}
        }
    }
    names
}

/// What stands between the brackets of `[table]`.
fn table(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.split(']').next()
}

/// The `name` of `[dependencies.name]`, `[workspace.dependencies.name]` and the like.
fn dependency(table: &str) -> Option<&str> {
    let (_, name) = table.rsplit_once("dependencies.")?;
    Some(name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(manifests: &[&str]) -> Option<String> {
        rename(
            &manifests
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_rename_is_found_in_every_way_to_write_it() {
        for manifest in [
            "[dependencies]\nmy-locks = { version = \"1\", package = \"lock-core\" }",
            "[dependencies]\nmy-locks={package=\"lock-core\"}",
            "[dependencies]\nmy-locks.package = \"lock-core\"\nmy-locks.version = \"1\"",
            "[dependencies.my-locks]\nversion = \"1\"\npackage = \"lock-core\" # renamed",
            "[target.'cfg(unix)'.dependencies.my-locks]\npackage = \"lock-core\"",
        ] {
            assert_eq!(
                found(&[manifest]).as_deref(),
                Some("my_locks"),
                "{manifest}"
            );
        }
        let workspace = "[workspace.dependencies]\nmy-locks = { package = \"lock-core\" }";
        for member in [
            "[dependencies]\nmy-locks.workspace = true",
            "[dependencies]\nmy-locks = { workspace = true, features = [\"redis\"] }",
            "[dependencies.my-locks]\nworkspace = true",
        ] {
            assert_eq!(
                found(&[member, workspace]).as_deref(),
                Some("my_locks"),
                "{member}"
            );
        }
    }

    #[test]
    fn what_has_its_name_or_is_not_there_is_no_rename() {
        let workspace = "[workspace.dependencies]\nlocks = { package = \"lock-core\" }";
        for member in [
            "[dependencies]\nlock-core = \"1\"\nold = { version = \"0\", package = \"lock-core\" }",
            "[dependencies]\nlock-core.workspace = true",
            "[dependencies.lock-core]\nversion = \"1\"",
            "[package]\nname = \"lock-core\"",
            "[dependencies]\nfacade = \"1\"\nlocksmith = \"1\"",
            "",
        ] {
            assert_eq!(found(&[member, workspace]), None, "{member}");
        }
        assert_eq!(found(&[]), None);
    }
}
