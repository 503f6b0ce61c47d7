//! A database cluster that was initialised once, to be copied.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::getuid;

use super::guardian::{Guardian, programs, unprivileged};

/// To be counted up with every change of what follows.
const RECIPE: u32 = 2;

/// Roles besides the superuser `postgres`: one without rights, and one with a password, which
/// `pg_hba.conf` demands of members of `by_password`.
const ROLES: &str = "\
CREATE ROLE app LOGIN;
CREATE ROLE by_password;
CREATE ROLE secretive LOGIN PASSWORD 'secret' IN ROLE by_password;
";

/// A program of the newest server that Debian has installed, or of the one in the path.
pub(super) fn postgres_program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let programs = versions.filter_map(|version| {
        let version = version.ok()?;
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let program = version.path().join("bin").join(name);
        program.is_file().then_some((number, program))
    });
    let newest = programs.max().map(|(_, program)| program);
    let program = newest.unwrap_or_else(|| PathBuf::from(name));
    program.into_os_string().into_string().unwrap()
}

/// Copies the cluster to `data`, which must not exist. It is made by the first that comes and kept
/// with the build.
pub(super) async fn copy_template(guardian: &Guardian, data: &Path) {
    let cache = programs().join("servers");
    fs::create_dir_all(&cache).unwrap();
    let name = format!("postgres-{}-{RECIPE}-of-{}", version(), getuid().as_raw());
    let template = cache.join(&name);
    if !template.exists() {
        let lock = File::create(cache.join(format!("{name}.lock"))).unwrap();
        // Freed with the file, however this process ends.
        let _locked = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
            .await
            .unwrap()
            .unwrap();
        if !template.exists() {
            make(&template).await;
        }
    }
    guardian.run(copy(&template, data)).await;
}

fn version() -> String {
    let output = Command::new(postgres_program("postgres"))
        .arg("--version")
        .output()
        .expect("PostgreSQL is installed: tests/run does it");
    let output = String::from_utf8(output.stdout).unwrap();
    // As in `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`.
    output.split(' ').nth(2).unwrap().trim().to_owned()
}

async fn make(template: &Path) {
    let guardian = Guardian::start();
    let data = guardian.directory().join("data");
    let roles = guardian.directory().join("roles.sql");
    fs::write(&roles, ROLES).unwrap();
    let (data_arg, roles_arg) = (data.to_str().unwrap(), roles.to_str().unwrap());
    let initdb = [
        &postgres_program("initdb"),
        "--pgdata",
        data_arg,
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        // Each server copies it. A segment of the log is 16 MB otherwise.
        "--wal-segsize=1",
    ];
    guardian.run(unprivileged(initdb)).await;
    let postgres = postgres_program("postgres");
    let single = format!("'{postgres}' --single -F -D '{data_arg}' postgres < '{roles_arg}'");
    guardian.run(unprivileged(["sh", "-c", &single])).await;
    // Under another name until it is whole.
    let partial = template.with_file_name("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).unwrap();
    }
    guardian.run(copy(&data, &partial)).await;
    fs::rename(partial, template).unwrap();
}

fn copy(from: &Path, to: &Path) -> Vec<String> {
    let [from, to] = [from, to].map(|path| path.to_str().unwrap().to_owned());
    vec!["cp".into(), "-a".into(), "--reflink=auto".into(), from, to]
}
