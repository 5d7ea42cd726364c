//! A PostgreSQL server of the test's own, with a synchronous standby when one is wanted: to be stopped, frozen and failed over
//! without harm to anybody. Durable as in production: fsync stays on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user that the Debian package makes; the server refuses to run as root.
const SYSTEM_USER: &str = "postgres";

/// One server, and perhaps its standby.
pub struct Cluster {
    programs: PathBuf,
    primary: Server,
    standby: Option<Server>,
}

struct Server {
    data: PathBuf,
    addr: SocketAddr,
}

impl Cluster {
    /// Makes a server in `dir` and starts it.
    ///
    /// # Errors
    /// When a program is missing or fails, with what it said.
    pub async fn make(programs: &Path, dir: &Path, with_standby: bool) -> Result<Self, String> {
        let place = dir.join("postgres");
        std::fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        if rustix::process::geteuid().is_root() {
            run("chown", &[SYSTEM_USER, &place.display().to_string()], false)?;
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(dir, open).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        let mut cluster = Cluster {
            programs: programs.to_owned(),
            primary: server(&place, "primary")?,
            standby: None,
        };
        let data = cluster.primary.data.display().to_string();
        cluster.program(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "hikyaku",
                "--auth=trust",
                "--no-locale",
                "-E",
                "UTF8",
            ],
        )?;
        cluster.start_one(&cluster.primary, "")?;
        if with_standby {
            let standby = server(&place, "standby")?;
            let (port, to) = (cluster.primary.addr.port().to_string(), standby.data.display().to_string());
            cluster.program(
                "pg_basebackup",
                &[
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "hikyaku",
                    "-D",
                    &to,
                    "-R",
                    "-c",
                    "fast",
                ],
            )?;
            cluster.start_one(&standby, "")?;
            cluster.standby = Some(standby);
            let sync = "ALTER SYSTEM SET synchronous_standby_names = '*'";
            for statement in [sync, "SELECT pg_reload_conf()"] {
                cluster.program(
                    "psql",
                    &[
                        "-h",
                        "127.0.0.1",
                        "-p",
                        &port,
                        "-U",
                        "hikyaku",
                        "-d",
                        "postgres",
                        "-c",
                        statement,
                    ],
                )?;
            }
        }
        Ok(cluster)
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://hikyaku@{}/postgres?sslmode=disable", self.primary.addr)
    }

    /// As when the power goes.
    ///
    /// # Errors
    /// What `pg_ctl` said.
    pub fn crash(&self) -> Result<(), String> {
        let data = self.primary.data.display().to_string();
        self.program("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"])
    }

    /// # Errors
    /// What `pg_ctl` said.
    pub fn start(&self) -> Result<(), String> {
        self.start_one(&self.primary, "")
    }

    /// The standby becomes the server: where it is.
    ///
    /// # Errors
    /// When there is none, or it cannot be promoted.
    pub fn promote(&mut self) -> Result<SocketAddr, String> {
        let standby = self.standby.take().ok_or("there is no standby")?;
        let data = standby.data.display().to_string();
        self.program("pg_ctl", &["-D", &data, "-w", "promote"])?;
        self.primary = standby;
        // It has no standby itself, and must not wait for one.
        let port = self.primary.addr.port().to_string();
        for statement in [
            "ALTER SYSTEM SET synchronous_standby_names = ''",
            "SELECT pg_reload_conf()",
        ] {
            self.program(
                "psql",
                &[
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "hikyaku",
                    "-d",
                    "postgres",
                    "-c",
                    statement,
                ],
            )?;
        }
        Ok(self.primary.addr)
    }

    /// Sends a signal to the server and all its children.
    ///
    /// # Errors
    /// When they cannot be found.
    pub fn signal_all(&self, name: &str) -> Result<(), String> {
        let pid_file = self.primary.data.join("postmaster.pid");
        let text = std::fs::read_to_string(&pid_file).map_err(|e| format!("{}: {e}", pid_file.display()))?;
        let pid = text.lines().next().unwrap_or_default().to_owned();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(&children).map_err(|e| format!("{children}: {e}"))?;
        let mut pids = vec![format!("-{name}"), pid];
        pids.extend(children.split_whitespace().map(str::to_owned));
        let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
        // A child may have ended meanwhile.
        drop(Command::new("kill").args(&pids).output());
        Ok(())
    }

    fn start_one(&self, server: &Server, more: &str) -> Result<(), String> {
        let (data, log) = (server.data.display().to_string(), server.data.join("server.log").display().to_string());
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 {more}",
            server.addr.port()
        );
        self.program("pg_ctl", &["-D", &data, "-l", &log, "-w", "-t", "60", "-o", &options, "start"])
    }

    fn program(&self, name: &str, args: &[&str]) -> Result<(), String> {
        run(&self.programs.join(name).display().to_string(), args, rustix::process::geteuid().is_root())
    }
}

/// However the test ends, no server stays behind.
impl Drop for Cluster {
    fn drop(&mut self) {
        for server in [Some(&self.primary), self.standby.as_ref()].into_iter().flatten() {
            let data = server.data.display().to_string();
            // It may be down already.
            drop(self.program("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]));
        }
    }
}

/// A free port. Another program may take it before the server does, which `pg_ctl` then says.
fn server(place: &Path, name: &str) -> Result<Server, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    Ok(Server {
        data: place.join(name),
        addr: listener.local_addr().map_err(|e| e.to_string())?,
    })
}

fn run(program: &str, args: &[&str], as_server_user: bool) -> Result<(), String> {
    let mut command = if as_server_user {
        let mut command = Command::new("runuser");
        command.args(["-u", SYSTEM_USER, "--", program]);
        command
    } else {
        Command::new(program)
    };
    command.args(args).current_dir("/").stdin(std::process::Stdio::null());
    // The server that pg_ctl leaves behind keeps its outputs open: they must not be pipes that somebody reads to their end.
    let out = std::env::temp_dir().join(format!("hikyaku-selftest-{:x}.out", fastrand::u64(..)));
    let file = std::fs::File::create(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let also = file.try_clone().map_err(|e| e.to_string())?;
    let status = command.stdout(file).stderr(also).status();
    let said = std::fs::read_to_string(&out).unwrap_or_default();
    drop(std::fs::remove_file(&out));
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} ended with {status}: {}", said.trim())),
        Err(e) => Err(format!("{program}: {e}")),
    }
}
