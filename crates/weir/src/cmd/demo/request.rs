//! One request by name, hop by hop, and a look-up of a name that is none of the mesh's: what happened, and what
//! that proves.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use diagnose::journey::{Hop, Style, chain};
use model::event::{Event, Step};
use model::{Direction, ErrorName};
use rules::Family;

use super::mesh::{self, Mesh};
use super::show::{Proof, chapter, indent, say};
use super::{client, names, resolver};
use crate::errors::OrNamed;

/// One request in each family: of the first, every hop is shown. Then a name that is not of the mesh.
pub(super) fn by_name(style: &Style, mesh: &mut Mesh) -> Result<Vec<Proof>> {
    say(&chapter(style, "2  One request by name, hop by hop"))?;
    let (text, mut proofs) = request(style, mesh, mesh::SERVICE)?;
    say(&text)?;
    if let [_, v6] = *mesh.services() {
        let (_, also) = request(style, mesh, v6)?;
        let failed: Vec<String> = also
            .iter()
            .filter(|proof| !proof.holds)
            .map(|proof| proof.text.clone())
            .collect();
        proofs.push(Proof {
            holds: failed.is_empty(),
            text: match &failed[..] {
                [] => format!(
                    "all four hold for IPv6 too: {v6}, the server's pod, {}",
                    model::ports::PASSTHROUGH_V6
                ),
                failed => format!("by IPv6: {}", failed.join("; ")),
            },
        });
    }
    let (text, proof) = name_outside(style, mesh)?;
    say(&text)?;
    proofs.push(proof);
    Ok(proofs)
}

/// A look-up by the first client of a name that its proxy does not know.
fn name_outside(style: &Style, mesh: &mut Mesh) -> Result<(String, Proof)> {
    let pod = mesh
        .pods_mut()
        .first_mut()
        .or_named(ErrorName::Defect, "the mesh has no pod")?;
    let outside = resolver::OUTSIDE;
    // With the dot at its end it is not tried in the search list first.
    let found = pod
        .netns
        .run(|| names::look_up(&format!("{outside}."), Family::V4))?
        .map(|found| found.ip());
    let told = pod.told_until_quiet();
    let by = told.iter().find_map(|event| match &event.step {
        Step::LookedUp(look_up) if found.as_ref().is_ok_and(|ip| look_up.addresses.contains(ip)) => {
            look_up.resolver
        }
        _ => None,
    });
    let hops = told
        .iter()
        .flat_map(|event| Hop::told(pod.name, event, &pod.rule_of));
    let what = format!("{} looks {outside} up, which is none of the mesh's", pod.name);
    let text = format!(
        "\n   {}\n\n{}",
        indent(style, &what, 3),
        chain(style, hops.collect())
    );
    let proof = Proof {
        holds: by.is_some_and(|by| by.ip() == names::RESOLVER)
            && matches!(found, Ok(found) if found == resolver::OUTSIDE_V4),
        text: format!(
            "a name that the mesh does not have was asked of {}, and {outside} is what it says: {}",
            names::RESOLVER,
            found.map_or_else(|error| error.to_string(), |ip| ip.to_string())
        ),
    };
    Ok((text, proof))
}

/// Sends one request from the first client to an address of the service: what happened, hop by hop, and
/// what that proves.
fn request(style: &Style, mesh: &mut Mesh, to: SocketAddr) -> Result<(String, Vec<Proof>)> {
    let from = mesh
        .pods()
        .first()
        .or_named(ErrorName::Defect, "the mesh has no pod")?;
    let call = client::call(&from.netns, Family::of(to.ip()), "/hello")?;
    let (seen_at, app_saw, served_by) = (call.answer.served_at(), call.answer.peer(), call.answer.pod());
    let name = from.name;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "   {}\n",
        indent(style, &format!("{name}$ {}", call.what), 3)
    );
    // From the first that the network hears of it: how long curl takes to start and to end is its own affair.
    let mut hops = vec![];
    let mut all: Vec<(&'static str, Event)> = vec![];
    for pod in mesh.pods_mut() {
        let name = pod.name;
        let told = pod.told_until_quiet();
        hops.extend(told.iter().flat_map(|event| Hop::told(name, event, &pod.rule_of)));
        all.extend(told.into_iter().map(|event| (name, event)));
    }
    hops.push(Hop::new(
        seen_at,
        &served_by,
        "app",
        format!("answers; it was called from {app_saw}"),
    ));
    text.push_str(&chain(style, hops));
    let got = format!(
        "It got status {} and {:?}.",
        call.answer.status,
        call.answer.body.trim()
    );
    let _ = writeln!(text, "\n   {}", indent(style, &got, 3));

    let looked_up = answered(&all, name, to.ip());
    let outbound = captured(&all, name, Direction::Outbound);
    let inbound = captured(&all, &served_by, Direction::Inbound);
    let endpoint = mesh
        .pods()
        .iter()
        .find(|pod| pod.name == served_by)
        .and_then(|pod| pod.endpoint(to));
    let proxy: IpAddr = match to {
        SocketAddr::V4(_) => model::ports::PASSTHROUGH_V4.into(),
        SocketAddr::V6(_) => model::ports::PASSTHROUGH_V6.into(),
    };
    let proofs = vec![
        Proof {
            holds: looked_up.is_some(),
            text: format!(
                "the client's look-up, on its way to {}, was captured: its proxy answered {} for {}",
                names::RESOLVER,
                to.ip(),
                looked_up.unwrap_or("nothing")
            ),
        },
        Proof {
            holds: outbound == Some(to),
            text: format!(
                "the client's connection was captured: its proxy read the destination {}",
                or_none(outbound)
            ),
        },
        Proof {
            holds: endpoint.is_some() && inbound == endpoint,
            text: format!("the server's was too: its proxy read {}", or_none(inbound)),
        },
        Proof {
            holds: app_saw == proxy.to_string() && call.answer.status == 200,
            text: format!(
                "the application answered {} and saw its own proxy ({app_saw})",
                call.answer.status
            ),
        },
    ];
    Ok((text, proofs))
}

/// The name, of a service, that a proxy itself answered with that address.
fn answered<'a>(all: &'a [(&'static str, Event)], at: &str, address: IpAddr) -> Option<&'a str> {
    all.iter()
        .filter(|(place, _)| *place == at)
        .find_map(|(_, event)| match &event.step {
            Step::LookedUp(look_up)
                if look_up.service.is_some()
                    && look_up.resolver.is_none()
                    && look_up.addresses.contains(&address) =>
            {
                Some(&*look_up.name)
            }
            _ => None,
        })
}

/// The destination of the first connection that a proxy captured.
fn captured(all: &[(&'static str, Event)], at: &str, way: Direction) -> Option<SocketAddr> {
    all.iter()
        .filter(|(place, _)| *place == at)
        .find_map(|(_, event)| match &event.step {
            Step::Captured {
                direction,
                original_dst,
                ..
            } if *direction == way => Some(original_dst.socket()),
            _ => None,
        })
}

fn or_none(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| String::from("nothing"), |address| address.to_string())
}
