//! A `log://` address behind which some other broker of Kafka's protocol stands, or nobody.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::harness::{Place, wait_for};

const PRODUCE: [u8; 2] = [0, 0];
const API_VERSIONS: [u8; 2] = [0, 18];
/// A foreign broker's answer to API versions, version 0: no error, and Produce 0 to 9.
const VERSIONS: &[u8] = &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 9];
/// Its answer to Produce 9 of nothing: no tagged fields in the head, no topics, no throttling, and
/// no tagged fields, for it ignores those it does not know.
const PRODUCED: &[u8] = &[0, 1, 0, 0, 0, 0, 0];

/// Serves until this process ends.
fn foreign() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ends with an error when the client closes.
            let _ = serve(stream);
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut request)?;
        let body = match [request[0], request[1]] {
            API_VERSIONS => VERSIONS,
            PRODUCE => PRODUCED,
            key => return Err(io::Error::other(format!("not served: {key:?}"))),
        };
        let correlation_id = &request[4..8];
        let bytes = (correlation_id.len() + body.len()) as u32;
        stream.write_all(&[&bytes.to_be_bytes(), correlation_id, body].concat())?;
    }
}

fn place(broker: SocketAddr, more: &str) -> Place {
    let place = Place::new();
    let destination = format!(
        "[[destination]]\nname = \"orders\"\ntopics = [\"*\"]\nbroker = \"log://{broker}\"\n{more}\n"
    );
    place.write("outbox.toml", destination);
    place
}

#[test]
fn a_foreign_broker_is_a_mistake_in_the_configuration() {
    let broker = foreign().expect("listens");
    for more in ["", "exactly_once = true"] {
        place(broker, more)
            .run(&["relay"])
            .ended_with(3)
            .complained("destination \"orders\"")
            .complained("it is not the bundled log broker")
            .complained("Cure: ");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_waited_for() {
    // The system takes connections for it, and nobody reads what they say.
    let silent = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = silent.local_addr().expect("its address");
    let place = place(address, "exactly_once = true");
    let relay = place.start(&["relay"]);
    wait_for("the relay to lead", || {
        let status = place.run(&["status", "--json"]);
        let leads = status.code == Some(0) && status.json()["destinations"][0]["owner"].is_string();
        leads.then_some(())
    });
    relay.terminate().ended_with(0);
}
