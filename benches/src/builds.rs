//! How the servers that are measured are built: from the sources under peers/, from checkouts of
//! others, and by the cargo that runs this.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with the servers' sources.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Where the sources of others lie, as far as anybody said.
#[derive(clap::Args)]
pub struct Checkouts {
    /// A clone of uWebSockets with its uSockets [or: $HIOLOAD_UWEBSOCKETS]
    #[arg(long, value_name = "DIR")]
    uwebsockets: Option<PathBuf>,
    /// A clone of lxzan/gws [or: $HIOLOAD_GWS]
    #[arg(long, value_name = "DIR")]
    gws: Option<PathBuf>,
    /// A clone of klauspost/compress, which gws needs [or: $HIOLOAD_GWS_COMPRESS]
    #[arg(long, value_name = "DIR")]
    gws_compress: Option<PathBuf>,
}

impl Checkouts {
    /// The clone of uWebSockets.
    ///
    /// # Errors
    /// Nobody said where, or there is nothing.
    pub fn uwebsockets(&self) -> Result<PathBuf, String> {
        needed(self.uwebsockets.as_deref(), "--uwebsockets", "HIOLOAD_UWEBSOCKETS")
    }

    /// The clone of gws.
    ///
    /// # Errors
    /// Nobody said where, or there is nothing.
    pub fn gws(&self) -> Result<PathBuf, String> {
        needed(self.gws.as_deref(), "--gws", "HIOLOAD_GWS")
    }

    /// The clone of klauspost/compress.
    ///
    /// # Errors
    /// Nobody said where, or there is nothing.
    pub fn gws_compress(&self) -> Result<PathBuf, String> {
        needed(self.gws_compress.as_deref(), "--gws-compress", "HIOLOAD_GWS_COMPRESS")
    }

    /// Builds a variant of the echo server on uWebSockets in a folder.
    ///
    /// # Errors
    /// It could not be built; where the compiler's words are.
    pub fn build_uwebsockets(&self, folder: &Path, variant: &str) -> Result<PathBuf, String> {
        script("uwebsockets", folder, &[&self.uwebsockets()?, Path::new(variant)])?;
        Ok(folder.join("echo"))
    }

    /// Builds the echo server on gws in a folder.
    ///
    /// # Errors
    /// It could not be built; where the compiler's words are.
    pub fn build_gws(&self, folder: &Path) -> Result<PathBuf, String> {
        script("gws", folder, &[&self.gws()?, &self.gws_compress()?])?;
        Ok(folder.join("echo"))
    }
}

/// Builds the echo server and the client on go-iproto in a folder, from a clone of the package.
///
/// # Errors
/// Nobody said where, or it could not be built; where the compiler's words are.
pub fn build_go_iproto(folder: &Path, checkout: Option<&Path>) -> Result<PathBuf, String> {
    script("go-iproto", folder, &[&needed(checkout, "--go", "HIOLOAD_GO_IPROTO")?])?;
    Ok(folder.join("peer"))
}

/// Installs the echo server on the ws package in a folder; what `node` runs.
///
/// # Errors
/// It could not be installed; where npm's words are.
pub fn build_ws(folder: &Path) -> Result<PathBuf, String> {
    script("ws", folder, &[])?;
    Ok(folder.join("server.mjs"))
}

/// Builds an example of ours and tells where it lies.
///
/// # Errors
/// It could not be built; where the compiler's words are.
pub fn build_example(name: &str) -> Result<PathBuf, String> {
    let target = target_folder()?;
    cargo("Cargo.toml", &target, &["-p", "hioload-examples", "--example", name])?;
    Ok(target.join("release/examples").join(name))
}

/// Builds another program of this package and tells where it lies.
///
/// # Errors
/// It could not be built; where the compiler's words are.
pub fn build_program(name: &str) -> Result<PathBuf, String> {
    let target = target_folder()?;
    cargo("Cargo.toml", &target, &["-p", "hioload-benches", "--bin", name])?;
    Ok(target.join("release").join(name))
}

/// Builds a server of peers/rust and tells where it lies.
///
/// # Errors
/// It could not be built; where the compiler's words are.
pub fn build_rust_peer(name: &str) -> Result<PathBuf, String> {
    let target = target_folder()?.join("peers/rust");
    cargo("peers/rust/Cargo.toml", &target, &["--bin", name, "--features", name])?;
    Ok(target.join("release").join(name))
}

/// The lock file of peers/rust.
///
/// # Errors
/// It cannot be read.
pub fn rust_peers_lock() -> Result<String, String> {
    read_source("rust/Cargo.lock")
}

/// The configuration of hioload that is measured, for one shard on a core that polls for `spin_us`
/// before it sleeps.
///
/// # Errors
/// peers/hioload/echo.toml cannot be read.
pub fn hioload_configuration(core: usize, spin_us: u64) -> Result<String, String> {
    let text = read_source("hioload/echo.toml")?;
    Ok(text.replace("{core}", &core.to_string()).replace("\"{spin_us}\"", &spin_us.to_string()))
}

/// The target folder: this program lies in `target/release`.
///
/// # Errors
/// The kernel does not tell where this program lies.
pub fn target_folder() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let target = own.parent().and_then(Path::parent);
    Ok(target.ok_or("this program lies in no target folder")?.to_owned())
}

/// `target/peers/NAME`, made if it is not there.
///
/// # Errors
/// It cannot be made.
pub fn peer_folder(name: &str) -> Result<PathBuf, String> {
    let folder = target_folder()?.join("peers").join(name.replace('/', "-"));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn read_source(file: &str) -> Result<String, String> {
    let file = Path::new(SOURCES).join(file);
    fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
}

fn needed(checkout: Option<&Path>, flag: &str, variable: &str) -> Result<PathBuf, String> {
    let checkout = checkout.map(Path::to_owned).or_else(|| env::var_os(variable).map(Into::into));
    let checkout = checkout.ok_or_else(|| format!("no sources: say where with {flag} DIR"))?;
    fs::canonicalize(&checkout).map_err(|error| format!("{}: {error}", checkout.display()))
}

/// Runs the build script of a peer, whose output is kept.
fn script(peer: &str, folder: &Path, arguments: &[&Path]) -> Result<(), String> {
    let mut command = Command::new(Path::new(SOURCES).join(peer).join("build"));
    command.arg(folder).args(arguments);
    run(command, &folder.join("build.log"))
}

/// Runs cargo for a manifest of this folder's or below it; its output is kept.
fn cargo(manifest: &str, target: &Path, what: &[&str]) -> Result<(), String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked"]).args(what);
    command.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest));
    command.arg("--target-dir").arg(target);
    fs::create_dir_all(target).map_err(|error| format!("{}: {error}", target.display()))?;
    let name = what.last().copied().unwrap_or_default();
    run(command, &target.join(format!("{name}-build.log")))
}

fn run(mut command: Command, log: &Path) -> Result<(), String> {
    let output = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let status = status.map_err(|error| format!("{program} does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    // What is wrong stands first with cargo, and last in the scripts.
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first_error = lines.clone().find(|line| line.starts_with("error"));
    let told = first_error.or_else(|| lines.next_back()).unwrap_or_default();
    Err(format!("it could not be built ({}): {}", log.display(), told.trim()))
}
