//! Where messages go.

use std::time::Duration;

use lock_core::FencingToken;
use reqwest::Client;

/// What does not answer by then has failed: the batch is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A URL that messages are posted to.
pub(crate) struct Webhook {
    client: Client,
    url: String,
}

impl Webhook {
    pub(crate) fn new(url: &str) -> reqwest::Result<Self> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .user_agent(format!("outbox/{}", std::process::id()))
            .build()?;
        let url = url.to_owned();
        Ok(Self { client, url })
    }

    /// Posts a message; an answer other than success is an error.
    pub(crate) async fn deliver(
        &self,
        id: i64,
        body: String,
        token: FencingToken,
    ) -> reqwest::Result<()> {
        self.client
            .post(&self.url)
            // The same when it is delivered again.
            .header("message-id", id)
            .header("fencing-token", token.get())
            .body(body)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }
}
