//! `windlass api`, and the API inside other commands. (stub)
use std::net::SocketAddr;
use std::process::ExitCode;
use crate::cli::ApiArgs;
use crate::runtime::Stores;
use crate::settings::Settings;
pub(crate) struct Server { address: SocketAddr }
impl Server {
    pub(crate) async fn start(_: &Settings, _: &Stores, listen: SocketAddr) -> anyhow::Result<Self> { Ok(Self { address: listen }) }
    pub(crate) async fn start_near(s: &Settings, st: &Stores, listen: SocketAddr) -> anyhow::Result<Self> { Self::start(s, st, listen).await }
    pub(crate) fn address(&self) -> SocketAddr { self.address }
    pub(crate) async fn stop(self) -> anyhow::Result<()> { Ok(()) }
}
pub(crate) async fn run(_: &Settings, _: &ApiArgs, _: bool) -> anyhow::Result<ExitCode> { anyhow::bail!("stub") }
