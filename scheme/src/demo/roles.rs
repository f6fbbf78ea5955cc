//! The processes of the demo, from the inside: what the producer and the consumers do.

use std::fmt;
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use gem_client::picture::Picture;
use gem_client::{Card, Name, Node, ObjectFd, Rights};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

#[derive(ClapArgs, Debug)]
pub struct RoleArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Puts a picture into a buffer, prints its name, hands out fds on it until killed
    Produce { picture: PathBuf, fds: PathBuf },
    /// Gets the picture one way and writes it
    Consume {
        way: Way,
        from: String,
        out: PathBuf,
    },
}

/// How a consumer gets at the picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Way {
    /// By global name, through a primary node.
    Name,
    /// By a read-only object fd that the producer gives it, without any node.
    ObjectFd,
    /// By an object fd imported into a render node.
    RenderNode,
}

impl Way {
    pub fn argument(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::ObjectFd => "object-fd",
            Self::RenderNode => "render-node",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "by global name",
            Self::ObjectFd => "by object fd, read-only",
            Self::RenderNode => "through a render node",
        })
    }
}

/// Plays a role.
pub fn run(args: &RoleArgs) -> Result<()> {
    match &args.role {
        Role::Produce { picture, fds } => produce(picture, fds),
        Role::Consume { way, from, out } => {
            let mapping = match way {
                Way::Name => {
                    let name = from.parse().ok().and_then(Name::new).context("no name")?;
                    Card::open(Node::Primary)?.open_name(name)?.map()?
                }
                Way::ObjectFd => {
                    let fd = receive(Path::new(from), Rights::ReadOnly)?;
                    fd.map(Rights::ReadOnly)?
                }
                Way::RenderNode => {
                    let fd = receive(Path::new(from), Rights::ReadWrite)?;
                    Card::open(Node::Render)?.import(&fd)?.map()?
                }
            };
            Ok(Picture::load(&mapping)?.write_png(out)?)
        }
    }
}

fn produce(picture: &Path, fds: &Path) -> Result<()> {
    let picture = Picture::read_png(picture)?;
    let card = Card::open(Node::Primary)?;
    let buffer = picture.store(&card)?;
    // Held, so that killing this process has something to clean up.
    let _mapping = buffer.map()?;
    let listener = UnixListener::bind(fds)?;
    println!("name {}", buffer.flink()?);
    std::io::stdout().flush()?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut wanted = [0];
        std::io::Read::read_exact(&mut stream, &mut wanted)?;
        let rights = match wanted[0] {
            READ_WRITE => Rights::ReadWrite,
            _ => Rights::ReadOnly,
        };
        send(&stream, buffer.export(rights)?.to_owned_fd()?)?;
    }
    Ok(())
}

const READ_ONLY: u8 = b'r';
const READ_WRITE: u8 = b'w';

fn send(stream: &UnixStream, fd: OwnedFd) -> Result<()> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let bytes = [IoSlice::new(b"!")];
    sendmsg::<()>(stream.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)?;
    Ok(())
}

fn receive(producer: &Path, rights: Rights) -> Result<ObjectFd> {
    let mut stream = UnixStream::connect(producer)?;
    stream.write_all(&[match rights {
        Rights::ReadOnly => READ_ONLY,
        Rights::ReadWrite => READ_WRITE,
    }])?;
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(&fd) = fds.first()
        {
            // SAFETY: the kernel has just made this fd for us, and nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            return Ok(ObjectFd::from_owned_fd(fd)?);
        }
    }
    bail!("the producer sent no fd")
}
