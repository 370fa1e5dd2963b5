//! What unit tests of the engine share.

use chrono::Utc;
use outbox_core::{Fence, Pending, Seq};
use uuid::Uuid;

/// A fence of epoch 1.
pub(crate) fn fence() -> Fence {
    Fence {
        incarnation: "test".into(),
        destination: "d".into(),
        epoch: 1,
    }
}

/// A plain message.
pub(crate) fn pending(seq: Seq, key: Option<&str>) -> Pending {
    Pending {
        seq,
        id: Uuid::now_v7(),
        topic: "t".into(),
        key: key.map(Into::into),
        payload: bytes::Bytes::new(),
        content_type: "application/json".into(),
        headers: None,
        created_at: Utc::now(),
        deliver_after: None,
        expires_at: None,
        late: false,
        attempts: 0,
        redelivery: 0,
    }
}
