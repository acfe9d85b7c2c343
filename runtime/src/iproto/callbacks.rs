//! What a connection calls: the functions that its description brought with it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::line::SetUpEnd;
use super::{Body, FreshChannel, Request};
use crate::shard::Shard;

pub(super) type OnRequest = Arc<dyn Fn(&mut Shard, Request) + Send + Sync>;
pub(super) type OnNotify = Arc<dyn Fn(&mut Shard, u32, Body) + Send + Sync>;
pub(super) type SettingUp = Pin<Box<dyn Future<Output = SetUpEnd>>>;
pub(super) type Init = Arc<dyn Fn(FreshChannel) -> SettingUp + Send + Sync>;

/// The functions of a user, which are called on the thread of the shard while no lock is held.
#[derive(Clone, Default)]
pub(super) struct Callbacks {
    pub(super) request: Option<OnRequest>,
    pub(super) notify: Option<OnNotify>,
    pub(super) init: Option<Init>,
}

impl Callbacks {
    pub(super) const fn is_any(&self) -> bool {
        self.request.is_some() || self.notify.is_some() || self.init.is_some()
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("request", &self.request.is_some())
            .field("notify", &self.notify.is_some())
            .field("init", &self.init.is_some())
            .finish()
    }
}
