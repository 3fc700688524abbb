//! What is asked of the machine itself.

use petrel_wire::limits::APPLIANCE_TEXT_BYTES_MAX;
use petrel_wire::operator::{Refusal, Request, Response, Right, Rights};
use petrel_wire::{ApplianceOp, Digest};

use crate::chain::{self, Says, says};
use crate::world::World;

const ORDERS: [ApplianceOp; 4] =
    [ApplianceOp::Reboot, ApplianceOp::PowerOff, ApplianceOp::Upgrade(Digest([7; 32])), ApplianceOp::Confirm];

fn told(response: Response) -> Vec<u8> {
    let Response::Appliance(text) = response else { panic!("another answer: {response:?}") };
    text.to_vec()
}

#[test]
fn orders_are_passed_on_and_the_machine_tells_of_itself() {
    let mut world = World::new();
    world.host.orders = Some(Vec::new());
    let session = world.client();
    for (id, order) in (1..).zip(ORDERS) {
        assert_eq!(told(world.ask(session, id, Request::Appliance(order))), b"");
    }
    assert_eq!(world.host.orders.as_deref(), Some(&ORDERS[..]));
    assert_eq!(told(world.ask(session, 9, Request::Appliance(ApplianceOp::Status))), b"state kept\n");
    // As much as it ever tells at once.
    let log = told(world.ask(session, 10, Request::Appliance(ApplianceOp::Log)));
    assert_eq!(log.len(), APPLIANCE_TEXT_BYTES_MAX);
}

#[test]
fn another_host_is_no_appliance() {
    let mut world = World::new();
    let session = world.client();
    let refused = world.refused(session, 1, Request::Appliance(ApplianceOp::Reboot));
    assert_eq!(refused, Refusal::NotAnAppliance);
}

#[test]
fn an_order_takes_the_right_to_operate_and_a_session_without_a_scope() {
    let mut world = World::new();
    world.host.orders = Some(Vec::new());
    let readers = Rights { read: true, operate: false, delegate: false };
    let reader = world.client_as(&chain::chain(&[Says { rights: Some(readers), ..says("olga") }]));
    let below = world.client_as(&chain::chain(&[says("acme"), says("olga")]));
    for (id, order) in (1..).zip(ORDERS) {
        let refused = world.refused(reader, id, Request::Appliance(order));
        assert_eq!(refused, Refusal::RightMissing(Right::Operate));
        assert_eq!(world.refused(below, id, Request::Appliance(order)), Refusal::OutsideScope);
    }
    for (id, asked) in (9..).zip([ApplianceOp::Status, ApplianceOp::Log]) {
        assert!(!told(world.ask(reader, id, Request::Appliance(asked))).is_empty());
        assert_eq!(world.refused(below, id, Request::Appliance(asked)), Refusal::OutsideScope);
    }
    assert_eq!(world.host.orders.as_deref(), Some(&[][..]));
}

#[test]
fn who_waits_for_the_machine_when_the_link_is_lost_is_told() {
    let mut world = World::new();
    let session = world.client();
    world.send(session, 1, Request::Appliance(ApplianceOp::Status));
    world.link_down();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
    assert_eq!(world.refused(session, 2, Request::Appliance(ApplianceOp::Status)), Refusal::ShimAway);
}
