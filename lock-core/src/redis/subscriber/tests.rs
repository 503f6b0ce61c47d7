use ::redis::RedisConnectionInfo;
use tokio::io::{AsyncWriteExt, duplex};

use super::calls::Trouble;
use super::*;
use crate::redis::settings::Settings;
use crate::redis::steps::Step;

/// To a server that says yes twice, to what the driver tells of itself, and then nothing.
async fn connection() -> MultiplexedConnection {
    let (ours, mut server) = duplex(1024);
    server.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
    let info = RedisConnectionInfo::default();
    let made = MultiplexedConnection::new(&info, ours).await;
    made.unwrap().0
}

#[tokio::test]
async fn the_late_end_of_an_earlier_connection_is_not_that_of_the_present_one() {
    let settings = Settings::of("redis://127.0.0.1");
    let topology = Topology::single(settings.target.seeds[0].clone());
    let (_changes, topology) = watch::channel(Arc::new(topology));
    let (_ask, questions) = mpsc::unbounded_channel();
    let mut this = Subscriber::new(Arc::new(Shared::new(settings)), topology, questions);
    let present = |this: &Subscriber| this.nodes[0].up().map(|(_, via)| *via);
    let connected = async |this: &mut Subscriber, number| {
        let via = Via { node: 0, number };
        this.nodes[0] = Link::Connecting(via);
        let opened = (connection().await, "ab".to_owned());
        this.finish(Done::Connected(via, Ok(opened)));
    };
    connected(&mut this, 7).await;
    let first = present(&this).unwrap();
    this.finish(Done::Asked(
        first,
        Step::Leave(Vec::new()),
        Err(Trouble::Gone),
    ));
    assert!(present(&this).is_none());
    connected(&mut this, 8).await;
    // Asked while the first was there, and given up when the second was.
    this.finish(Done::Lives(first, Err(Trouble::Gone)));
    let second = present(&this).unwrap();
    this.finish(Done::Lives(second, Err(Trouble::Gone)));
    assert!(present(&this).is_none());
}
