//! A PostgreSQL server as a container.

use std::time::Duration;

use anyhow::{Context, Result};
use testcontainers::bollard::Docker;
use testcontainers::bollard::models::PortBinding;
use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use futures_util::StreamExt;

use super::process::{Stop, free_port};

/// The official image; pulled once.
const IMAGE: &str = "postgres";
/// The newest major we support.
const TAG: &str = "18";

/// How long a daemon may take to answer before it counts as absent.
const DAEMON_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Longest pull and start of a container.
const STARTED_WITHIN: Duration = Duration::from_secs(300);

/// The image's own entry point would listen on a temporary server first; this one does the same
/// steps as the child process: initialise or copy once, then serve, again after each restart.
const SERVE: &str = r#"
if [ ! -s /tmp/data/PG_VERSION ]; then
  if [ -n "$PRIMARY" ]; then
    pg_basebackup -h "$PRIMARY" -U postgres -X stream -c fast -R -D /tmp/data
  else
    initdb -U postgres -A trust -E UTF8 --locale=C --no-sync -D /tmp/data
    echo 'host all all all trust' >> /tmp/data/pg_hba.conf
    echo 'host replication all all trust' >> /tmp/data/pg_hba.conf
  fi
fi
if [ -n "$OWNER" ]; then
  (
    misses=0
    while [ "$misses" -lt 12 ]; do
      sleep 5
      sessions=$(psql -h 127.0.0.1 -U postgres -d postgres -Atc \
        "select count(*) from pg_stat_activity where application_name = '$OWNER'")
      if [ "${sessions:-0}" -gt 0 ]; then misses=0; else misses=$((misses + 1)); fi
    done
    kill -INT 1
  ) 2>/dev/null &
fi
exec postgres -D /tmp/data -c listen_addresses='*' "$@"
"#;

/// `application_name` of the session that keeps an owned container alive. A value in a static is
/// never dropped, and a killed process drops nothing: the session ends in either case, and a
/// minute later the server in the container ends too, which removes it.
pub(super) const OWNER: &str = "outbox-tests-owner";

/// What ends a container besides its drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Nothing: it can be stopped and started again.
    Restartable,
    /// A minute without a session called [`OWNER`]. It cannot be started again.
    Owned,
}

/// One container. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Container {
    container: ContainerAsync<GenericImage>,
    settings: Vec<String>,
    port: u16,
}

impl Container {
    /// Whether a Docker daemon answers.
    pub(super) async fn daemon_answers() -> bool {
        let Ok(docker) = Docker::connect_with_defaults() else {
            return false;
        };
        matches!(
            tokio::time::timeout(DAEMON_ANSWERS_WITHIN, docker.ping()).await,
            Ok(Ok(_))
        )
    }

    /// Starts a server, which accepts connections some seconds later.
    pub(super) async fn start(settings: &[String], life: Life) -> Result<Self> {
        Self::run(settings, "", life).await
    }

    /// A server that is a copy of this one and streams from it.
    pub(super) async fn standby(&self) -> Result<Self> {
        let primary = self.container.get_bridge_ip_address().await?.to_string();
        Self::run(&self.settings, &primary, Life::Restartable).await
    }

    async fn run(settings: &[String], primary: &str, life: Life) -> Result<Self> {
        let port = free_port()?;
        let mut command = vec!["-c".to_owned(), SERVE.to_owned(), "serve".to_owned()];
        for setting in settings {
            command.extend(["-c".to_owned(), setting.clone()]);
        }
        let container = GenericImage::new(IMAGE, TAG)
            .with_entrypoint("sh")
            .with_exposed_port(5432.tcp())
            .with_user("postgres")
            .with_env_var("PRIMARY", primary)
            .with_env_var("OWNER", if life == Life::Owned { OWNER } else { "" })
            .with_cmd(command)
            .with_startup_timeout(STARTED_WITHIN)
            .with_host_config_modifier(move |host| {
                // A fixed port, for a restart must not change it, and this machine only.
                let binding = PortBinding {
                    host_ip: Some("127.0.0.1".to_owned()),
                    host_port: Some(port.to_string()),
                };
                let bindings = [("5432/tcp".to_owned(), Some(vec![binding]))];
                host.port_bindings = Some(bindings.into_iter().collect());
                host.publish_all_ports = Some(false);
                host.auto_remove = Some(life == Life::Owned);
            })
            .start()
            .await
            .context("failed to start a PostgreSQL container")?;
        Ok(Self {
            container,
            settings: settings.to_vec(),
            port,
        })
    }

    /// Port on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server, which is the container's first process, and waits for it.
    pub(super) async fn halt(&self, how: Stop) -> Result<()> {
        if !self.container.is_running().await? {
            return Ok(());
        }
        let signal = match how {
            Stop::Fast => "SIGINT",
            Stop::Immediate => "SIGQUIT",
            Stop::Kill => "SIGKILL",
        };
        // A client of its own each time: its pooled connections belong to this runtime.
        let docker = Docker::connect_with_defaults()?;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        docker
            .kill_container(self.container.id(), Some(options))
            .await?;
        let mut ended = docker.wait_container(self.container.id(), None::<WaitContainerOptions>);
        // The exit status of a killed process is an error to the client, and what was asked for.
        while let Some(Ok(_)) = ended.next().await {}
        Ok(())
    }

    /// Starts a stopped server on the same port and files.
    pub(super) async fn start_again(&self) -> Result<()> {
        let docker = Docker::connect_with_defaults()?;
        let id = self.container.id();
        Ok(docker
            .start_container(id, None::<StartContainerOptions>)
            .await?)
    }
}
