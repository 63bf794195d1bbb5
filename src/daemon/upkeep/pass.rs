//! What a pass is.

use futures_util::future::BoxFuture;

use super::order::{Account, Order};
use crate::changes::TaskFailure;

/// Where a page ended and the next one begins; `None` at the end of the pass.
pub(super) type Next = Result<Option<String>, TaskFailure>;

/// One kind of upkeep: goes through some rows or files, a page a call.
pub(super) trait Pass: Send + Sync {
    /// Its name, which a saved place is found by; stays the same over upgrades.
    const NAME: &'static str;

    /// Does the next page from where the last call ended. May run twice for the same page.
    fn step(
        &self,
        from: Option<String>,
        order: &Order,
        account: &mut Account,
    ) -> impl Future<Output = Next> + Send;
}

/// Any pass, so that they can stand in one list.
pub(super) trait AnyPass: Send + Sync {
    /// As [`Pass::NAME`].
    fn name(&self) -> &'static str;

    /// As [`Pass::step`].
    fn any_step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Next>;
}

impl<P: Pass> AnyPass for P {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn any_step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Next> {
        Box::pin(self.step(from, order, account))
    }
}
