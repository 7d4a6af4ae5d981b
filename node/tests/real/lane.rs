//! The other side of a lane, written for tests: whatever bytes one likes, and what comes back.

use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use quorate_ring::id::{ClusterId, NodeId, OpId};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Dot, Hlc};
use quorate_ring::wire::client::{
    Change, ClientReply, ClientRequest, Hello, ReadRequest, StatusRequest, Supersede, WriteRequest,
};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use quorate_ring::wire::{FRAME_BYTES_MAX, Frame, PROTOCOL_MINOR, take_frame};
use std::time::Duration;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

pub struct Lane {
    pub connection: Connection,
    pub send: SendStream,
    receive: RecvStream,
    buffer: BytesMut,
    next: u64,
}

impl Lane {
    pub async fn open(connection: Connection) -> Result<Self, String> {
        let (send, receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
        Ok(Self { connection, send, receive, buffer: BytesMut::new(), next: 1 })
    }

    /// The next frame, or why there is none: the reason of the close, if the node closed the connection.
    pub async fn frame(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer, FRAME_BYTES_MAX).map_err(|e| e.to_string())? {
                return Ok(frame);
            }
            let read = tokio::time::timeout(ANSWER_TIME_MAX, self.receive.read_chunk(65_536, true)).await;
            match read.map_err(|_| "no answer in time".to_string())? {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err("the lane was ended".to_string()),
                Err(error) => return Err(self.connection.close_reason().map_or(error.to_string(), |r| r.to_string())),
            }
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.send.write_all(bytes).await;
        written.map_err(|e| self.connection.close_reason().map_or(e.to_string(), |reason| reason.to_string()))
    }

    pub async fn ask(&mut self, message: &ClientRequest) -> Result<ClientReply, String> {
        let request = self.next;
        self.next += 1;
        let mut bytes = Vec::new();
        message.write(request, &mut bytes);
        // A node that refuses the connection says why to whoever reads.
        let written = self.write(&bytes).await;
        let frame = match self.frame().await {
            Ok(frame) => frame,
            Err(reason) => return Err(written.err().filter(|_| reason.is_empty()).unwrap_or(reason)),
        };
        assert_eq!(frame.request, request, "one request is under way, and this is the answer to another");
        ClientReply::decode(frame.kind, &frame.payload).map_err(|e| e.to_string())
    }

    pub async fn ask_peer(&mut self, request: u64, message: &PeerRequest) -> Result<PeerReply, String> {
        let mut bytes = Vec::new();
        message.write(request, &mut bytes);
        self.write(&bytes).await?;
        let frame = self.frame().await?;
        PeerReply::decode(frame.kind, &frame.payload).map_err(|e| e.to_string())
    }

    pub async fn hello(&mut self, cluster: Option<ClusterId>) -> Result<ClientReply, String> {
        self.ask(&ClientRequest::Hello(Hello { minor: PROTOCOL_MINOR, cluster })).await
    }

    /// Puts, and expects it to be applied.
    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<Dot, String> {
        match self.ask(&ClientRequest::Write(put(key, value))).await? {
            ClientReply::Written(receipt) => Ok(receipt.dot),
            other => Err(format!("{other:?}")),
        }
    }

    /// The values of a key.
    pub async fn get(&mut self, key: &str) -> Result<Vec<Vec<u8>>, String> {
        match self.ask(&ClientRequest::Read(get(key))).await? {
            ClientReply::Read(answer) => Ok(answer.siblings.iter().map(|s| s.value.to_vec()).collect()),
            other => Err(format!("{other:?}")),
        }
    }

    pub async fn status(&mut self) -> Result<quorate_ring::wire::client::NodeStatus, String> {
        match self.ask(&ClientRequest::Status(StatusRequest {})).await? {
            ClientReply::Status(status) => Ok(*status),
            other => Err(format!("{other:?}")),
        }
    }
}

/// A write of the default bucket; its op id is made of key and value.
pub fn put(key: &str, value: &[u8]) -> WriteRequest {
    let mut op_id = [0_u8; 16];
    for (i, byte) in key.bytes().chain(value.iter().copied()).enumerate() {
        op_id[i % 16] = op_id[i % 16].rotate_left(1) ^ byte;
    }
    WriteRequest {
        epoch: quorate_ring::id::Epoch(1),
        bucket: quorate_ring::id::BucketId(1),
        key: key.as_bytes().to_vec().into(),
        change: Change::Put { value: value.to_vec().into(), expires_ms: None },
        supersede: Supersede::Local,
        op_id: OpId(op_id),
        hlc: Hlc(0),
        r: None,
        w: None,
        quorum: None,
        durability: Some(Durability::Sync),
        deadline_ms: 5_000,
    }
}

pub fn get(key: &str) -> ReadRequest {
    ReadRequest {
        epoch: quorate_ring::id::Epoch(1),
        bucket: quorate_ring::id::BucketId(1),
        key: key.as_bytes().to_vec().into(),
        r: None,
        quorum: None,
        blocking_repair: false,
        deadline_ms: 5_000,
        request_id: None,
    }
}

/// Where a node of a number is expected to be found in certificates.
pub fn name_of(node: u16) -> String {
    quorate_ring::wire::server_name(super::CLUSTER, NodeId(node))
}
