//! Turns, orders, and what ends.

use super::*;

#[test]
fn orders_are_obeyed_though_everything_is_busy_and_the_busy_take_turns() {
    let (orders, queue) = mpsc::channel();
    let wake = Arc::new(EventFd::new().unwrap());
    let mut worker = Worker::new(queue, wake).unwrap();
    worker.busy.extend(0..TURNS * 3);
    let refused = Refused { bridges: vec![7], ..Refused::default() };
    orders.send(Order::Refuse(refused.clone())).unwrap();
    assert!(worker.turn([].into_iter()), "somebody may order still");
    assert_eq!((worker.refused.clone(), worker.busy.len()), (refused, TURNS * 2));
    // Who is ready waits behind who is busy, once.
    worker.turn([Ready::Stream(TURNS), Ready::Stream(1)].into_iter());
    assert_eq!(worker.busy.back(), Some(&1));
    assert_eq!(worker.busy.len(), TURNS + 1);
    drop(orders);
    assert!(!worker.turn([].into_iter()));
    assert_eq!(worker.busy.len(), TURNS + 1, "an end is not waited for");
}

#[test]
fn who_is_refused_later_is_cut_off() {
    let (_orders, queue) = mpsc::channel();
    let mut worker = Worker::new(queue, Arc::new(EventFd::new().unwrap())).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    for peer in ["fd01::2", "fd02::2"] {
        let client = std::net::TcpStream::connect(to).unwrap();
        let peer = SocketAddrV6::new(peer.parse().unwrap(), 1, 0, 0);
        worker.watch(Stream::open(0, client.into(), peer, to).unwrap());
    }
    worker.refuse(Refused { subnets: vec!["fd01::/64".parse().unwrap()], ..Refused::default() });
    let left: Vec<_> = worker.streams.iter().map(|(_, s)| s.peer.ip().to_string()).collect();
    assert_eq!(left, ["fd02::2"]);
}

#[test]
fn the_connections_of_a_port_that_is_left_end_a_few_at_a_time() {
    let (orders, queue) = mpsc::channel();
    let mut worker = Worker::new(queue, Arc::new(EventFd::new().unwrap())).unwrap();
    let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
    let to = listener.local_addr().unwrap();
    let SocketAddr::V6(host) = to else { panic!("{to}") };
    let (key, socket) = ((Transport::Tcp, host), Arc::new(OwnedFd::from(listener)));
    worker.serve(key, socket.clone(), Some(to));
    for _ in 0..BATCH + 8 {
        let client = std::net::TcpStream::connect(to).unwrap();
        worker.watch(Stream::open(0, client.into(), host, to).unwrap());
    }
    let (done, gone) = mpsc::channel();
    orders.send(Order::Leave { keys: vec![key], done }).unwrap();
    assert!(worker.obey());
    assert_eq!(gone.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    assert_eq!((Arc::strong_count(&socket), worker.streams.len()), (1, 8));
    // Another port in its place is not theirs.
    worker.serve(key, socket, Some(to));
    assert!(worker.streams.iter().all(|(_, s)| s.port == LEFT));
    assert!(worker.turn([].into_iter()));
    assert!(worker.streams.is_empty() && !worker.leaving);
}
