//! A database cluster that was initialised once, to be copied.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::getuid;

use super::guardian::{Guardian, programs, unprivileged};

/// To be counted up with every change of what follows.
const RECIPE: u32 = 3;

/// Each server has a copy, of which a third would be a database that no test needs: tests that make one take `template0`.
const SMALLER: &str = "\
UPDATE pg_database SET datistemplate = false WHERE datname = 'template1';
DROP DATABASE template1;
";

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

/// What the directory of a cluster is called.
pub(super) const DATA: &str = "data";

/// Unpacks the cluster in the directory of the guardian. It is made by the first that comes and kept with the build.
pub(super) async fn copy_template(guardian: &Guardian) {
    let cache = programs().join("servers");
    fs::create_dir_all(&cache).unwrap();
    let name = format!(
        "postgres-{}-{RECIPE}-of-{}.tar",
        version(),
        getuid().as_raw()
    );
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
    // From one file, and as whose the files were: in half the time that a copy of a thousand files takes.
    guardian
        .run(tar(guardian.directory(), "-xmf", &template))
        .await;
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
    let directory = guardian.directory().to_str().unwrap();
    let (data, sql) = (
        format!("{directory}/{DATA}"),
        format!("{directory}/made.sql"),
    );
    fs::write(&sql, format!("{ROLES}{SMALLER}")).unwrap();
    let initdb = [
        &postgres_program("initdb"),
        "--pgdata",
        &data,
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
    let single = format!("'{postgres}' --single -F -D '{data}' postgres < '{sql}'");
    guardian.run(unprivileged(["sh", "-c", &single])).await;
    // Under another name until it is whole.
    let partial = template.with_file_name("partial");
    guardian
        .run(tar(guardian.directory(), "-cf", &partial))
        .await;
    fs::rename(partial, template).unwrap();
}

/// Packs the cluster of a directory, or unpacks it there.
fn tar(directory: &Path, what: &str, archive: &Path) -> Vec<String> {
    let [directory, archive] = [directory, archive].map(|path| path.to_str().unwrap());
    ["tar", "-C", directory, what, archive, DATA]
        .map(str::to_owned)
        .into()
}
