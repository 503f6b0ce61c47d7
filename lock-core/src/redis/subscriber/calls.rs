//! What is under way over the connections, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionInfo, PushInfo, RedisError, cmd, pipe};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::LockError;
use crate::redis::about::About;
use crate::redis::connect::open;
use crate::redis::shared::Shared;
use crate::redis::steps::Step;

/// Which connection something was asked over: the node may have another by now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Via {
    pub(super) node: usize,
    pub(super) number: u64,
}

/// A connection, and what its server calls itself.
pub(super) type Opened = (MultiplexedConnection, String);

pub(super) enum Done {
    Connected(Via, Result<Opened, LockError>),
    Asked(Via, Step, Result<Vec<Option<RedisError>>, Trouble>),
    Lives(Via, Result<(), Trouble>),
    Replicated(Via, Result<(), Trouble>),
}

/// Why channels are not subscribed to, or a question has no answer.
pub(super) enum Trouble {
    /// The server refuses.
    Refused(RedisError),
    /// The connection is dead, or may be.
    Gone,
}

/// Connects to a node; its messages go to `hearing`. Where the node `is_only`, another server than that of the
/// commands which calls itself a master is a second one.
pub(super) async fn connect(
    shared: Arc<Shared>,
    info: ConnectionInfo,
    via: Via,
    hearing: mpsc::UnboundedSender<(Via, PushInfo)>,
    is_only: bool,
) -> Done {
    let pushes = Box::new(move |push| hearing.send((via, push)).map_err(drop));
    let opening = async {
        let settings = &shared.settings;
        let mut connection = open(&info, settings, Some(pushes)).await?;
        let about = About::process(&mut connection, settings).await?;
        if is_only
            && !shared.servers.is(via.node, about.run_id())
            && About::of(&mut connection, settings).await?.is_master()
        {
            shared.split.doubt();
        }
        Ok((connection, about.run_id().to_owned()))
    };
    Done::Connected(via, opening.await)
}

/// One command for each channel: the driver counts one answer for each.
pub(super) async fn ask(
    mut connection: MultiplexedConnection,
    via: Via,
    step: Step,
    is_cluster: bool,
    within: Duration,
) -> Done {
    let command = match (&step, is_cluster) {
        (Step::Subscribe(_), false) => "SUBSCRIBE",
        (Step::Subscribe(_), true) => "SSUBSCRIBE",
        (Step::Leave(_), false) => "UNSUBSCRIBE",
        (Step::Leave(_), true) => "SUNSUBSCRIBE",
    };
    let mut commands = pipe();
    for key in step.keys() {
        commands.cmd(command).arg(&*key.text);
    }
    let answers = connection.send_packed_commands(&commands, 0, step.keys().len());
    let result = match timeout(within, answers).await {
        Ok(Ok(answers)) => {
            let answers = answers.into_iter();
            Ok(answers.map(|answer| answer.extract_error().err()).collect())
        }
        Ok(Err(_)) | Err(_) => Err(Trouble::Gone),
    };
    Done::Asked(via, step, result)
}

/// Whether the server at the other end lives.
pub(super) async fn beat(
    shared: Arc<Shared>,
    mut connection: MultiplexedConnection,
    via: Via,
) -> Done {
    let asked = shared.clock.now();
    // Which every user of locks may ask.
    let time = cmd("TIME");
    let within = shared.settings.answer_within();
    let answer = timeout(within, connection.send_packed_command(&time)).await;
    let lives = matches!(answer, Ok(Ok(_)));
    if lives {
        shared.servers.live(asked);
    }
    Done::Lives(via, if lives { Ok(()) } else { Err(Trouble::Gone) })
}
