//! Master and magic, as on Linux: one open of the primary node is master, and can vouch for
//! others. State only; who may call what is the server's to decide.

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::ids::OpenId;
use crate::open::Magic;
use crate::pages::PageSource;

impl<S: PageSource, D: Driver> Device<S, D> {
    /// This open's magic number, made on first use.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOpen`] (EBADF), [`Error::Revoked`] (ENODEV).
    pub fn magic(&mut self, open: OpenId) -> Result<Magic, Error> {
        if let Some(magic) = self.active(open)?.magic {
            return Ok(magic);
        }
        // Numbers come again after two billion; those of this moment's opens are skipped.
        let magic = loop {
            self.last_magic = self.last_magic.wrapping_add(1) & Magic::MAX;
            if let Some(magic) = Magic::new(self.last_magic)
                && !self.magics.contains_key(&magic)
            {
                break magic;
            }
        };
        self.active(open)?.magic = Some(magic);
        self.magics.insert(magic, open);
        Ok(magic)
    }

    /// Authenticates the open that has this magic number. A number authenticates once.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchMagic`] (EINVAL).
    pub fn authenticate(&mut self, magic: Magic) -> Result<(), Error> {
        let open = self.magics.remove(&magic).ok_or(Error::NoSuchMagic)?;
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchMagic)?;
        state.magic = None;
        state.authenticated = true;
        Ok(())
    }

    /// Whether any open is master.
    pub fn has_master(&self) -> bool {
        self.master.is_some()
    }

    /// Makes this open master, which also authenticates it.
    ///
    /// # Errors
    ///
    /// [`Error::MasterElsewhere`] (EBUSY), [`Error::Revoked`] (ENODEV).
    pub fn set_master(&mut self, open: OpenId) -> Result<(), Error> {
        self.active(open)?;
        if self.master.is_some_and(|master| master != open) {
            return Err(Error::MasterElsewhere);
        }
        self.master = Some(open);
        let state = self.active(open)?;
        state.authenticated = true;
        state.was_master = true;
        Ok(())
    }

    /// There is no master any more.
    ///
    /// # Errors
    ///
    /// [`Error::NotMaster`] (EINVAL).
    pub fn drop_master(&mut self, open: OpenId) -> Result<(), Error> {
        if self.master != Some(open) {
            return Err(Error::NotMaster);
        }
        self.master = None;
        Ok(())
    }

    /// Whether this open is master.
    pub fn is_master(&self, open: OpenId) -> bool {
        self.master == Some(open)
    }

    /// Whether this open is or has been master.
    pub fn was_master(&self, open: OpenId) -> bool {
        self.opens.get(open.0).is_some_and(|state| state.was_master)
    }

    /// Whether this open is or has been master, or was vouched for.
    pub fn is_authenticated(&self, open: OpenId) -> bool {
        let state = self.opens.get(open.0);
        state.is_some_and(|state| state.authenticated)
    }

    /// A closing open is master no more.
    pub(super) fn abdicate(&mut self, open: OpenId) {
        if self.master == Some(open) {
            self.master = None;
        }
    }
}
