//! Runs each command that locks need once, so that missing rights fail at connect.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Arg, Cmd, ConnectionInfo, Value, cmd, pipe};
use tokio::time::timeout;

use super::connect::{open, unanswered};
use super::key::server_key;
use super::protocol::{Content, Exchange};
use super::rights::{Asked, SCRIPTS};
use super::scripts::{EXCHANGE, Failure, HOLDERS, Lua, RENEW, TOKEN, has_moved};
use super::settings::Settings;
use super::topology::Topology;
use crate::LockError;
use crate::checked::passed;

/// Does it on a server that was just connected to; in a cluster, which can know that one by another
/// address, on the first node that can be reached.
pub(super) async fn rehearse(
    topology: &Topology,
    connected: &ConnectionInfo,
    connection: &MultiplexedConnection,
    settings: &Settings,
) -> Result<(), LockError> {
    let is_connected = |at: usize| topology.nodes[at].addr() == connected.addr();
    let mut places: Vec<usize> = (0..topology.nodes.len()).collect();
    places.sort_by_key(|at| !is_connected(*at));
    let mut last = LockError::unavailable("the Redis cluster has no node");
    for at in places {
        let connection = if is_connected(at) {
            Ok(connection.clone())
        } else {
            open(&topology.nodes[at], settings, None).await
        };
        let bucket = topology.of_bucket.iter().position(|place| *place == at);
        let bucket = u8::try_from(bucket.unwrap_or_default()).unwrap_or_default();
        match connection {
            Ok(mut connection) => {
                let key = server_key(&settings.namespace, bucket);
                give_commands(&mut connection, &key, topology.is_cluster, settings).await?;
                run_scripts(&mut connection, &key, topology.is_cluster, settings).await?;
                passed!(
                    "rights",
                    "the user may do what locks need, and the scripts run"
                );
                passed!(
                    "lease",
                    "a lock that is not renewed ends after {:?}",
                    settings.lease
                );
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn give_commands(
    connection: &mut MultiplexedConnection,
    key: &str,
    is_cluster: bool,
    settings: &Settings,
) -> Result<(), LockError> {
    let [subscribe, unsubscribe, publish] = if is_cluster {
        ["SSUBSCRIBE", "SUNSUBSCRIBE", "SPUBLISH"]
    } else {
        ["SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH"]
    };
    let mut commands = vec![
        cmd(subscribe).arg(key).to_owned(),
        cmd(unsubscribe).arg(key).to_owned(),
        cmd(publish).arg(key).arg("").to_owned(),
    ];
    // What scripts do with locks, to one that is free: they come to it only later.
    let nobody = format!("{key}:nobody");
    commands.push(cmd("GETRANGE").arg(&nobody).arg(0).arg(0).to_owned());
    for command in ["PTTL", "DEL"] {
        commands.push(cmd(command).arg(&nobody).to_owned());
    }
    commands.push(cmd("PEXPIRE").arg(&nobody).arg(1).to_owned());
    commands.push(cmd("SET").arg(&nobody).arg("").arg("XX").to_owned());
    commands.push(cmd("TIME"));
    commands.extend([&EXCHANGE, &RENEW, &TOKEN, &HOLDERS].map(Lua::load));
    if settings.replicas > 0 {
        // For none, which does not take time.
        commands.push(cmd("WAIT").arg(0).arg(1).to_owned());
    }
    let mut together = pipe();
    for command in &commands {
        together.add_command(command.clone());
    }
    let count = commands.len();
    let answers = connection.send_packed_commands(&together, 0, count);
    let answers = timeout(settings.connect_timeout(), answers).await;
    let answers = answers.map_err(|_| unanswered(settings.connect_timeout()))?;
    let asked = |command| Asked {
        settings,
        is_cluster: Some(is_cluster),
        command,
    };
    let sentence = "the Redis server does not do what locks need";
    let answers = answers.map_err(|error| asked(SCRIPTS).failed(error, sentence))?;
    for (command, answer) in commands.iter().zip(answers) {
        match answer.extract_error() {
            // Allowed, on another node: a slot is on its way.
            Err(error) if has_moved(&error) => {}
            Err(error) => return Err(asked(&name(command)).failed(error, sentence)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// With what follows it where that says which of several it is.
fn name(command: &Cmd) -> String {
    let mut words = command.args_iter().map_while(|word| match word {
        Arg::Simple(word) => str::from_utf8(word).ok(),
        _ => None,
    });
    match words.next() {
        Some("SCRIPT") => "SCRIPT LOAD".to_owned(),
        first => first.unwrap_or_default().to_owned(),
    }
}

/// The one that renews, and the one that grants, as a look at the health of the server does.
async fn run_scripts(
    connection: &mut MultiplexedConnection,
    key: &str,
    is_cluster: bool,
    settings: &Settings,
) -> Result<(), LockError> {
    let within = settings.connect_timeout();
    let asked = |command| Asked {
        settings,
        is_cluster: Some(is_cluster),
        command,
    };
    let run = |answer: Result<Vec<Value>, Failure>| {
        answer.or_else(|failure| match failure {
            Failure::Refused(error) if has_moved(&error) => Ok(Vec::new()),
            failure => {
                let said = failure.to_string();
                let is_call = said.to_lowercase().contains("evalsha");
                let asked = asked(if is_call { "EVALSHA" } else { SCRIPTS });
                Err(failure.lacking(asked).unwrap_or_else(|| {
                    LockError::unavailable("the Redis server does not run scripts")
                        .with_source(said)
                }))
            }
        })
    };
    let mut renew = RENEW.call(1, 2);
    renew.arg(key).arg(u64::MAX).arg(1);
    run(RENEW.invoke(connection, renew, within).await)?;
    let exchange = Exchange {
        settings,
        server_key: key,
        not_after: u64::MAX,
        newest: 0,
        is_cluster,
        now: Duration::ZERO,
    };
    let exchange = exchange.call(&Content::probe());
    let answers = run(EXCHANGE.invoke(connection, exchange, within).await)?;
    if let Some(Value::BulkString(error)) = answers.get(1) {
        let error = String::from_utf8_lossy(error);
        // What else may be wrong, such as a memory that is full, is an error of the acquire.
        if let Some(lacking) = asked(SCRIPTS).lacking(&error) {
            return Err(lacking);
        }
    }
    Ok(())
}
