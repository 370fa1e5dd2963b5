//! The head of a request.

use bytes::Bytes;

use super::read::Fields;
use super::{CodecError, StrBytes};

/// What stands in front of every request.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

/// A request of which the first fields are known, which are laid out the same in every version.
pub(crate) struct OpenedRequest {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    fields: Fields,
}

impl RequestHead {
    /// Reads what every request begins with.
    pub fn open(frame: Bytes) -> Result<OpenedRequest, CodecError> {
        let mut fields = Fields {
            rest: frame,
            // The client's id has a length of two bytes even in a head with tagged fields.
            flexible: false,
        };
        Ok(OpenedRequest {
            api_key: fields.i16("API key")?,
            version: fields.i16("API version")?,
            correlation_id: fields.i32("correlation id")?,
            fields,
        })
    }
}

impl OpenedRequest {
    /// Reads the rest of the head. Answers it with the body.
    pub fn finish(mut self, header_version: i16) -> Result<(RequestHead, Bytes), CodecError> {
        let client_id = self.fields.text("client id")?;
        self.fields.flexible = header_version >= 2;
        self.fields.tags()?;
        let head = RequestHead {
            api_key: self.api_key,
            version: self.version,
            correlation_id: self.correlation_id,
            client_id,
        };
        Ok((head, self.fields.rest))
    }
}
