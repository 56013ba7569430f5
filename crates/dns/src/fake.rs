//! A resolver for tests, that does what it is told, on a clock that passes while everybody waits.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::UdpSocket;
use tokio::task::{LocalSet, spawn_local};

/// What it does with a query.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    /// Answers with no record.
    Answer,
    Fail,
    Nothing,
    /// Answers with this after the question: flags to be set, counts of records, records.
    Say(u8, [u8; 6], &'static [u8]),
}

pub(crate) struct Fake {
    pub(crate) at: SocketAddr,
    pub(crate) does: Rc<Cell<Does>>,
    pub(crate) asked: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Fake {
    pub(crate) async fn start(does: Does) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let (does, asked) = (Rc::new(Cell::new(does)), Rc::<RefCell<Vec<_>>>::default());
        let (told, seen) = (Rc::clone(&does), Rc::clone(&asked));
        spawn_local(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let mut answer = buffer[..length].to_vec();
                seen.borrow_mut().push(answer.clone());
                answer[2] |= 0x80;
                match told.get() {
                    Does::Answer => {}
                    Does::Fail => answer[3] |= 2,
                    Does::Nothing => continue,
                    Does::Say(flags, counts, records) => {
                        answer[2] |= flags;
                        answer[6..12].copy_from_slice(&counts);
                        answer.extend(records);
                    }
                }
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        Self { at, does, asked }
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.borrow().len()
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}
